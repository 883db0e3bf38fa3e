//! What whoever runs the node says about its hardware, in the driver's configuration file.

use serde::{Deserialize, Serialize};

use super::{IfName, PciAddress};

/// How many virtual functions a physical one shall have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovRule {
    pub pf: PfSelector,
    /// Above 0, and at most what the function says it can have.
    pub num_vfs: u32,
}

/// Which physical functions a rule is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PfSelector {
    Interface(IfName),
    PciAddress(PciAddress),
    /// All of one kind, by `vendor` and `device` as in sysfs, such as `15b3` and `101d`.
    Id {
        vendor: String,
        device: Option<String>,
    },
}
