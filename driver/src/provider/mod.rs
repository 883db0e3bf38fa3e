//! Asks others what they know of this node's devices: a file, or an HTTP server in `DraNet`'s protocol
//! of providers (`pkg/cloudprovider/webhook` of kubernetes-sigs/dranet, version 1.4).
//!
//! Attributes and configurations of devices are asked for in the background and kept; a provider that
//! does not answer leaves what it said before. A profile, which is a configuration that somebody
//! makes up for one claim, such as an address out of a pool, is asked for in prepare and given back
//! after the claim's end. What is to be given back is on disk before it is asked for.
//!
//! What this room never does: decide what is published or what a configuration means, or change the
//! node. `dra` asks it in prepare and before it publishes; nothing of the runtime's side does.

mod attributes;
mod call;
mod error;
mod file;
mod grants;
mod known;
mod releasing;
mod server;

use serde::{Deserialize, Serialize};

pub use self::error::ProviderError;
pub use self::grants::Granting;
pub use self::known::{Providers, over};
use crate::model::{Device, MacAddr, PciAddress};

/// What a provider is told of a device (`DeviceIdentifiers` of the protocol).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Identity {
    #[serde(rename = "mac_address", default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(rename = "pci_address", default, skip_serializing_if = "Option::is_none")]
    pci: Option<String>,
    name: String,
}

impl From<&Device> for Identity {
    fn from(device: &Device) -> Self {
        let pci: Option<PciAddress> = device.pci.as_ref().map(|pci| pci.address);
        Self {
            mac: device.mac.as_ref().map(MacAddr::to_string),
            pci: pci.map(|address| address.to_string()),
            name: device.name.to_string(),
        }
    }
}
