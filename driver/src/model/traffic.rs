//! What the programs counted, summed over CPUs.

use serde::Serialize;

/// Packets and bytes. Bytes include the link-layer header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PacketCount {
    pub packets: u64,
    pub bytes: u64,
}

/// Traffic of one attachment since it was prepared, by direction as the pod sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    pub ingress: DirectionTraffic,
    pub egress: DirectionTraffic,
}

/// Traffic in one direction. Each packet is in `total`, in one verdict and in one protocol.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionTraffic {
    pub total: PacketCount,
    /// By verdict, in the order and with the names of `common::Verdict`.
    pub verdicts: Vec<(&'static str, PacketCount)>,
    /// By protocol, in the order and with the names of `common::Protocol`.
    pub protocols: Vec<(&'static str, PacketCount)>,
}
