//! The composition root: opens the world, hands it to the rooms, owns the order of start and stop.
//!
//! Start: logs, checkpoint, node, settle, then the edges; kubelet's registration comes last, since
//! from then on claims arrive. Stop: DRA first, so that no new claim is prepared, then NRI, then the
//! rest. Programs stay attached: the next start adopts them.

