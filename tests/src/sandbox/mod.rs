//! The box: a node of its own inside this machine, that vanishes with the process that made it.
//!
//! [`outside`] and [`inside`] put a process into namespaces of its own; [`Network`] gives it NICs
//! whose far ends are in the wire; [`Process`] runs the driver there; [`traffic`] sends and counts.
//! Nothing here knows what the driver does.

mod enter;
mod nic;
mod process;
pub mod traffic;

pub use self::enter::{EnterError, FLAG, furnish, inside, outside};
pub use self::nic::{NETNS_DIRECTORY, Network, Nic, NicError, WireCount, state_in};
pub use self::process::{Process, ProcessError};
