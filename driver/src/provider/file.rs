//! A provider that is a file: attributes for devices by MAC address, place on the PCI bus or name.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::ProviderError;
use super::attributes::{Attributes, read as read_attributes};
use crate::model::{Device, MacAddr, PciAddress};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    devices: Vec<Entry>,
}

/// Attributes of the devices that have all that is named here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    mac: Option<MacAddr>,
    pci_address: Option<PciAddress>,
    /// The interface's, or the device's.
    name: Option<String>,
    attributes: Value,
}

pub(super) fn read(provider: &str, path: &Path) -> Result<Content, ProviderError> {
    let file = |source| ProviderError::File {
        provider: provider.to_owned(),
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(file)?;
    let wrong = |reason| ProviderError::Format {
        provider: provider.to_owned(),
        path: path.to_owned(),
        reason,
    };
    let content: Content = serde_saphyr::from_str(&text)
        .map_err(|error: serde_saphyr::Error| wrong(error.without_snippet().to_string()))?;
    for (nth, entry) in content.devices.iter().enumerate() {
        if entry.mac.is_none() && entry.pci_address.is_none() && entry.name.is_none() {
            return Err(wrong(format!("devices[{nth}] names none of mac, pciAddress and name")));
        }
        if !entry.attributes.is_object() {
            return Err(wrong(format!("devices[{nth}].attributes is not an object")));
        }
    }
    Ok(content)
}

impl Content {
    /// What the file says of a device; a later entry has the last word. The second part says what was
    /// left out, and why.
    pub(super) fn of(&self, device: &Device, driver: &str) -> (Attributes, Vec<String>) {
        let (mut attributes, mut left_out) = (Attributes::new(), Vec::new());
        for entry in self.devices.iter().filter(|entry| entry.is_about(device)) {
            let (found, wrong) = read_attributes(&entry.attributes, driver);
            attributes.extend(found);
            left_out.extend(wrong);
        }
        (attributes, left_out)
    }
}

impl Entry {
    fn is_about(&self, device: &Device) -> bool {
        let pci = device.pci.as_ref().map(|pci| pci.address);
        let is_called = |name: &String| name == device.called() || name == device.name.as_str();
        (self.mac.is_none() || self.mac == device.mac)
            && (self.pci_address.is_none() || self.pci_address == pci)
            && self.name.as_ref().is_none_or(is_called)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProvidedValue;
    use crate::testing::device;

    fn content(text: &str) -> Result<Content, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.yaml");
        fs::write(&path, text).unwrap();
        read("facts", &path).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_is_about_the_devices_that_have_all_it_names() {
        let content = content(
            "devices:\n\
             - {mac: '02:00:00:00:00:07', attributes: {rail: 1, block: a}}\n\
             - {mac: '02:00:00:00:00:07', name: eth2, attributes: {rail: 2}}\n\
             - {pciAddress: '0000:3b:00.0', attributes: {rail: 3}}\n",
        );
        let content = content.unwrap();
        let rail = |name: &str| {
            let (attributes, left_out) = content.of(&device(name), "weir.dev");
            assert_eq!((attributes.len(), left_out.len()), (2, 0));
            attributes["weir.dev/rail"].clone()
        };
        assert_eq!(rail("eth1"), ProvidedValue::Int(1));
        assert_eq!(rail("eth2"), ProvidedValue::Int(2));
    }

    #[test]
    fn a_file_that_says_something_else_is_refused() {
        for (text, said) in [
            ("devices: [{attributes: {}}]", "names none of mac, pciAddress and name"),
            ("devices: [{name: a, attributes: 1}]", "is not an object"),
            ("devices: [{nam: a, attributes: {}}]", "unknown field"),
            ("devices: {}", "facts.yaml: "),
        ] {
            let error = content(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
