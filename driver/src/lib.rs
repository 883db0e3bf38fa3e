//! Weir, a Kubernetes Network Driver: from a device in sysfs to a datapath in a pod, and back.
//!
//! The rooms, in the order in which a device travels through them. What each may know of the
//! others is in ARCHITECTURE.md.

pub mod model;

pub mod inventory;

pub mod claim;
pub mod policy;

pub mod plan;

pub mod node;

pub mod attach;
pub mod state;

pub mod cdi;
pub mod datapath;
pub mod dhcp;

pub mod sys;

pub mod dra;
pub mod nri;
pub mod provider;

pub mod admin;

pub mod telemetry;

pub mod cli;

pub mod config;

pub mod app;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
