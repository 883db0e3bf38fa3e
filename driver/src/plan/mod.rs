//! From what is wished and what was observed to a list of steps, and the way back.
//!
//! Everything here is pure: a plan is data that can be logged, stored, compared and tested without
//! a node. `attach` asks for plans and has a [`Node`](crate::node::Node) carry them out.

mod containers;
mod ethtool;
mod hook;
mod journey;
mod luggage;
mod prepare;
mod provision;
mod refuse;
mod settle;
mod step;

pub use self::containers::{cdi, cpus};
pub use self::ethtool::settings;
pub use self::hook::{Hooks, choose_hooks};
pub use self::journey::{attach, detach, leave, replace, restore};
pub use self::luggage::relet;
pub use self::prepare::{
    VfPin, prepare, release, remake, restore_vf, subinterface_name, unpin_vf, unprepare,
};
pub use self::provision::{Provision, provision};
pub use self::refuse::without_interface;
pub use self::settle::{Seen, Settlement, settle, stray_of};
pub use self::step::{DatapathState, FunctionSeen, Observed, RdmaSeen, Step, Stray, Subject, Was};
