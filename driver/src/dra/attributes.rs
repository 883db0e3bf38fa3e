//! What claims can select a device by.
//!
//! Our attributes live in the domain that is the driver's name, written out: with the default name
//! they are `weir.dev/ifName` and so on, and CEL finds them as
//! `device.attributes["weir.dev"].ifName`. A driver that runs under another name publishes them
//! there, as an unqualified name would mean too.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::resource::v1::DeviceAttribute;

use crate::model::{Device, ProvidedValue};

/// The domain of the attributes that mean the same with every driver.
const STANDARD: &str = "resource.kubernetes.io";

/// Most attributes of a device (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`).
const MOST: usize = 32;

/// Longest string or version of an attribute. The API counts characters, which are never more than
/// bytes (`DeviceAttributeMaxValueLength` in `api/resource/v1`, Kubernetes 1.36).
const MAX_VALUE_LEN: usize = 64;

/// All attributes of `device`, at most 30; the API takes 32. What is not known is left out, so
/// selectors must ask `has()` for anything but flags and `mtu`, `state`, `type`, `encapsulation`.
pub(super) fn attributes(
    device: &Device,
    driver: &str,
    kernel: Option<&str>,
) -> BTreeMap<String, DeviceAttribute> {
    let mut of = Attributes { driver, all: BTreeMap::new() };
    if let Some(interface) = &device.interface {
        of.string("ifName", interface.as_str());
    }
    of.string("state", &device.state);
    of.string("type", &device.kind);
    of.string("encapsulation", &device.encapsulation);
    of.int("mtu", device.mtu);
    of.flag("virtual", device.is_virtual);
    if let Some(mac) = device.mac {
        of.string("mac", &mac.to_string());
    }
    if let Some(speed) = device.speed_mbps {
        of.int("linkSpeedMbps", speed);
    }
    if let Some(driver) = &device.driver {
        of.string("kernelDriver", driver);
    }
    if let Some(kernel) = kernel {
        of.version("kernelVersion", kernel);
    }
    of.addresses("ipv4", device.addresses.iter().filter(|net| matches!(net, IpNet::V4(_))));
    of.addresses("ipv6", device.addresses.iter().filter(|net| matches!(net, IpNet::V6(_))));
    of.hardware(device);
    of.ebpf(device);
    for (name, value) in &device.provided {
        // The API takes no more.
        if of.all.len() < MOST || of.all.contains_key(name) {
            of.all.insert(name.clone(), provided(value));
        }
    }
    of.all
}

fn provided(value: &ProvidedValue) -> DeviceAttribute {
    match value.clone() {
        ProvidedValue::Bool(flag) => DeviceAttribute { bool: Some(flag), ..EMPTY },
        ProvidedValue::Int(number) => DeviceAttribute { int: Some(number), ..EMPTY },
        ProvidedValue::String(text) => DeviceAttribute { string: Some(text), ..EMPTY },
        ProvidedValue::Version(text) => DeviceAttribute { version: Some(text), ..EMPTY },
    }
}

/// The part of a kernel release that is a version: `6.18.44` of `6.18.44-cloud-amd64`. `None` where
/// there is none.
pub(super) fn kernel_version(release: &str) -> Option<String> {
    let (major, rest) = leading_number(release)?;
    let (minor, rest) = leading_number(rest.strip_prefix('.')?)?;
    // A release candidate may have only two numbers; a version always has three.
    let patch = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(patch, _)| patch);
    Some(format!("{major}.{minor}.{patch}"))
}

/// The number that `text` begins with, and what follows it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    number.parse().ok().map(|number| (number, rest))
}

struct Attributes<'a> {
    driver: &'a str,
    all: BTreeMap<String, DeviceAttribute>,
}

impl Attributes<'_> {
    fn hardware(&mut self, device: &Device) {
        if let Some(pci) = &device.pci {
            let address = pci.address.to_string();
            self.string("pciAddress", &address);
            self.standard("pciBusID", text(&address));
            self.standard("pcieRoot", text(&pci.root));
            if let Some(vendor) = &pci.vendor {
                self.string("pciVendor", vendor);
            }
            if let Some(id) = &pci.device {
                self.string("pciDevice", id);
            }
        }
        if let Some(node) = device.numa_node {
            self.standard("numaNode", DeviceAttribute { int: Some(node.into()), ..EMPTY });
        }
        self.flag("sriov", device.sriov.is_some());
        self.flag("isSriovVf", device.is_sriov_vf);
        if let Some(sriov) = device.sriov {
            self.int("sriovVfs", sriov.num_vfs);
        }
        self.flag("rdma", device.rdma_device.is_some());
        if let Some(rdma) = &device.rdma_device {
            self.string("rdmaDevice", rdma);
        }
    }

    fn ebpf(&mut self, device: &Device) {
        let ebpf = &device.ebpf;
        self.flag("ebpf", ebpf.xdp_in_use || !ebpf.programs.is_empty());
        self.flag("xdpInUse", ebpf.xdp_in_use);
        self.flag("tcx", ebpf.tcx);
        // Not known is not the same as not possible.
        if let Some(xdp) = ebpf.xdp {
            self.flag("xdpNative", xdp.is_native());
            self.flag("xdpFrags", xdp.has_frags());
            self.flag("xdpRedirect", xdp.has_redirect());
            self.flag("xdpZeroCopy", xdp.has_zero_copy());
        }
    }

    fn string(&mut self, name: &str, value: &str) {
        self.own(name, text(value));
    }

    fn version(&mut self, name: &str, value: &str) {
        self.own(name, DeviceAttribute { version: Some(value.to_owned()), ..EMPTY });
    }

    fn int(&mut self, name: &str, value: u32) {
        self.own(name, DeviceAttribute { int: Some(value.into()), ..EMPTY });
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.own(name, DeviceAttribute { bool: Some(value), ..EMPTY });
    }

    /// As many whole addresses as fit, in their own order.
    fn addresses<'n>(&mut self, name: &str, addresses: impl Iterator<Item = &'n IpNet>) {
        let mut list = String::new();
        for address in addresses {
            let address = address.to_string();
            let comma = usize::from(!list.is_empty());
            if list.len() + comma + address.len() > MAX_VALUE_LEN {
                break;
            }
            if comma > 0 {
                list.push(',');
            }
            list.push_str(&address);
        }
        if !list.is_empty() {
            self.string(name, &list);
        }
    }

    fn own(&mut self, name: &str, value: DeviceAttribute) {
        self.all.insert(format!("{}/{name}", self.driver), value);
    }

    fn standard(&mut self, name: &str, value: DeviceAttribute) {
        self.all.insert(format!("{STANDARD}/{name}"), value);
    }
}

const EMPTY: DeviceAttribute = DeviceAttribute {
    bool: None,
    bools: None,
    int: None,
    ints: None,
    string: None,
    strings: None,
    version: None,
    versions: None,
};

/// A string that is too long is cut: one of them would have the API refuse the whole slice.
fn text(value: &str) -> DeviceAttribute {
    let end = value.floor_char_boundary(MAX_VALUE_LEN);
    DeviceAttribute { string: Some(value[..end].to_owned()), ..EMPTY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, everything};

    fn string(device: &Device, name: &str) -> Option<String> {
        attributes(device, "weir.dev", None).remove(&format!("weir.dev/{name}"))?.string
    }

    #[test]
    fn a_device_that_has_everything_stays_within_the_apis_limits() {
        let all = attributes(&everything("eth1"), "weir.dev", Some("6.18.44"));
        assert_eq!(all.len(), 30);
        for (name, value) in all {
            let (domain, id) = name.split_once('/').unwrap();
            assert!(domain == "weir.dev" || domain == STANDARD, "{name}");
            assert!(id.len() <= 32 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
            let values = serde_json::to_value(&value).unwrap();
            assert_eq!(values.as_object().unwrap().len(), 1, "{name} has one value: {values}");
        }
    }

    #[test]
    fn strings_are_cut_between_characters() {
        let mut long = device("eth1");
        long.kind = format!("{}é", "x".repeat(63));
        assert_eq!(string(&long, "type"), Some("x".repeat(63)));
    }

    #[test]
    fn addresses_are_cut_between_addresses() {
        let mut many = device("eth1");
        many.addresses =
            (10..20).map(|n| format!("192.168.100.1{n}/24").parse().unwrap()).collect();
        assert_eq!(
            string(&many, "ipv4").as_deref(),
            Some("192.168.100.110/24,192.168.100.111/24,192.168.100.112/24")
        );
        assert_eq!(string(&many, "ipv6"), None);
    }

    #[test]
    fn what_nobody_could_tell_is_left_out() {
        let all = attributes(&device("eth1"), "weir.dev", None);
        for absent in ["xdpNative", "pciAddress", "sriovVfs", "rdmaDevice", "kernelVersion"] {
            assert!(!all.contains_key(&format!("weir.dev/{absent}")), "{absent}");
        }
        assert_eq!(all["weir.dev/rdma"].bool, Some(false));
    }

    #[test]
    fn a_kernel_release_yields_its_version() {
        for (release, version) in [
            ("6.18.44-cloud-amd64", Some("6.18.44")),
            ("6.1.0-18-amd64", Some("6.1.0")),
            ("6.12-rc1", Some("6.12.0")),
            ("6.12", Some("6.12.0")),
            ("06.1.2", Some("6.1.2")),
            ("6", None),
            ("", None),
            ("99999999999.1.1", None),
        ] {
            assert_eq!(kernel_version(release).as_deref(), version, "{release}");
        }
    }
}
