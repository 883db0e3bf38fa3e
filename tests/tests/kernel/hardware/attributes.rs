//! What the machine's hardware is published with, as golden files have it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use driver::model::MacAddr;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use serde_json::{Map, Value, json};
use tests::node::Node;

use super::machine::{IGB0, IGB1, VIRTIO, attribute, awaited, interface, is_called, published};
use super::machine::{on_the_machine, rdma};
use super::sriov::Functions;
use crate::driver::configured::lines;
use crate::driver::world::{told, until};

/// Where the golden files are: one for each series of kernels, such as `6.12.json`.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/hardware");
/// The file that the ring takes out of the guest where it makes golden files.
const SEEN: &str = "attributes.json";

fn value(attribute: &DeviceAttribute) -> Value {
    let DeviceAttribute { bool, int, string, version, .. } = attribute;
    match (bool, int, string, version) {
        (Some(is), _, _, _) => json!(is),
        (_, Some(number), _, _) => json!(number),
        (_, _, Some(text), _) => json!(text),
        (_, _, _, Some(version)) => json!({ "version": version }),
        _ => json!(attribute),
    }
}

/// What is published of a device, as people read it, but for what is another with each boot: names that
/// the kernel gives, MAC addresses that drivers make up, and the kernel's own version.
fn shown(device: &Device, names: &BTreeMap<String, &str>) -> Value {
    let mut shown = Map::new();
    for (name, is) in device.attributes.iter().flatten() {
        let is = value(is);
        let is = match (name.as_str(), is.as_str()) {
            ("weir.dev/kernelVersion", _) => json!("that of the kernel"),
            ("weir.dev/mac", Some(mac)) if !mac.starts_with("52:54:00:00:00:") => {
                json!("made up by its driver")
            }
            (_, Some(text)) => names.get(text).map_or(is.clone(), |name| json!(name)),
            _ => is,
        };
        shown.insert(name.clone(), is);
    }
    let capacity = device.capacity.iter().flatten();
    let capacity: Map<_, _> = capacity.map(|(name, it)| (name.clone(), json!(it.value))).collect();
    let taints = device.taints.iter().flatten();
    let taints: Vec<_> = taints.map(|it| format!("{}:{}", it.key, it.effect)).collect();
    json!({ "attributes": shown, "capacity": capacity, "taints": taints })
}

/// Each device by its name, which tells its place on the bus.
fn all(node: &Node, names: &BTreeMap<String, &str>) -> Value {
    let devices = published(node);
    let shown = devices.iter().map(|device| (device.name.clone(), shown(device, names)));
    Value::Object(shown.collect())
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn the_attributes_of_all_devices_are_those_of_the_golden_file() {
    on_the_machine(|node| {
        let nic = |mac: MacAddr| interface(mac);
        let (igb0, igb1, virtio) = (nic(IGB0), nic(IGB1), nic(VIRTIO));
        for name in [&igb0, &igb1, &virtio] {
            lines(&[&format!("link set {name} up")]);
        }
        let made = Functions::make(IGB1);
        rdma(&["link", "add", "rxe0", "type", "rxe", "netdev", &igb0]).unwrap();
        lines(&[&format!("link add link {virtio} name tagged type vlan id 7")]);
        for vf in &made.vfs {
            awaited(node, "the functions are published", |device| is_called(device, vf));
        }
        awaited(node, "the VLAN is published", |device| is_called(device, "tagged"));
        awaited(node, "the RDMA device is published", |device| {
            is_called(device, &igb0) && attribute(device, "rdmaDevice").is_some()
        });
        let names = [(&igb0, "igb0"), (&igb1, "igb1"), (&virtio, "virtio"), (&made.vfs[0], "vf0")];
        let mut names: BTreeMap<_, _> =
            names.into_iter().map(|(name, is)| (name.clone(), is)).collect();
        names.insert(made.vfs[1].clone(), "vf1");

        let file = Path::new(FIXTURES).join(format!("{}.json", told("WEIR_SERIES").display()));
        let golden = fs::read(&file).unwrap_or_default();
        let golden: Value = serde_json::from_slice(&golden).unwrap_or_default();
        let mut seen = Value::Null;
        // Speeds and carriers come by and by.
        let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("devices have the attributes of the golden file", || {
                seen = all(node, &names);
                let is_right = seen == golden;
                if is_right { Ok(()) } else { Err(format!("{}: {seen:#}", file.display())) }
            });
        }));
        fs::write(told("WEIR_SHARE").join(SEEN), format!("{seen:#}\n")).unwrap();
        rdma(&["link", "delete", "rxe0"]).unwrap();
        lines(&["link del tagged"]);
        drop(made);
        if env::var_os("WEIR_GOLDEN").is_none() {
            same.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}
