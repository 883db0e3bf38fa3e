//! Every step on real interfaces: applied twice, read back by other means than our own, taken back,
//! and read back again.

mod addresses;
mod belongings;
mod ethtool;
mod facts;
mod functions;
mod links;
mod programs;
mod routes;
mod settings;
pub(crate) mod stage;
mod vm_only;

pub(crate) use self::stage::ip;
