//! Virtual functions.

use std::fs;
use std::path::{Path, PathBuf};

use driver::model::MacAddr;
use serde_json::json;
use tests::node::{Node, ROOT};

use super::machine::{
    IGB1, Running, Wish, attribute, awaited, config, function, interface, is_called,
    on_the_machine, published,
};
use crate::config::ip;
use crate::driver::configured::lines;
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{nothing_is_left, until};

/// A physical function that has virtual ones, until this ends.
pub(super) struct Functions {
    device: PathBuf,
    pub(super) pf: String,
    /// Their interfaces, in order.
    pub(super) vfs: Vec<String>,
}

impl Functions {
    /// Makes two of the NIC, which is up: otherwise they have no carrier.
    pub(super) fn make(mac: MacAddr) -> Self {
        let pf = interface(mac);
        lines(&[&format!("link set {pf} up")]);
        // A rate is a part of the link's speed, which is not known before.
        until("it has a carrier", || {
            let carrier = fs::read_to_string(format!("/sys/class/net/{pf}/carrier"));
            let carrier = carrier.map_err(|error| error.to_string())?;
            if carrier.trim() == "1" { Ok(()) } else { Err(carrier) }
        });
        let device = fs::canonicalize(function(&pf)).unwrap();
        fs::write(device.join("sriov_numvfs"), "2").unwrap();
        let vfs: Vec<_> =
            (0..2).map(|nth| first_in(&device.join(format!("virtfn{nth}/net")))).collect();
        // When one is first set up, its driver tells the physical one of the MAC address that it made up.
        for vf in &vfs {
            let silence = format!("/proc/sys/net/ipv6/conf/{vf}/disable_ipv6");
            fs::write(silence, "1").unwrap();
            lines(&[&format!("link set {vf} up"), &format!("link set {vf} down")]);
        }
        Self { device, pf, vfs }
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        // Fails where a test that failed has left it elsewhere.
        let _ = fs::write(self.device.join("sriov_numvfs"), "0");
        lines(&[&format!("link set {} down", self.pf)]);
    }
}

/// The interface in a folder that appears when its driver has taken the function.
pub(super) fn first_in(folder: &Path) -> String {
    until("the function has an interface", || {
        let mut entries = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
        let entry = entries.next().ok_or_else(|| "it has none".to_owned())?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    })
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn virtual_functions_of_two_pods_talk_over_the_nics_switch_and_come_home() {
    on_the_machine(|node| {
        let devices = published(node).len();
        let made = Functions::make(IGB1);
        for vf in &made.vfs {
            let device = awaited(node, "the functions are published", |it| is_called(it, vf));
            assert_eq!(attribute(&device, "isSriovVf").and_then(|it| it.bool), Some(true));
        }
        let before = Snapshot::take();
        let pods: Vec<_> = [1, 2]
            .into_iter()
            .zip(&made.vfs)
            .map(|(host, vf)| {
                let parameters = config("net0", &format!("10.9.0.{host}/24"), "auto");
                Running::start(node, &format!("pod{host}"), &[Wish::of(vf, parameters)])
            })
            .collect();
        pods[0].talks_to(&pods[1], [10, 9, 0, 2]);
        for pod in pods {
            pod.end(node);
        }
        before.is_as_now();
        let list = ip(&["link", "show", "dev", &made.pf])[0]["vfinfo_list"].take();
        assert_eq!(list.as_array().map(Vec::len), Some(2), "{list:#}");
        drop(made);
        until("what is gone is published no more", || {
            let now = published(node).len();
            if now == devices { Ok(()) } else { Err(now.to_string()) }
        });
        nothing_is_left();
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn what_a_claim_says_of_a_virtual_function_is_told_to_the_physical_one_and_taken_back() {
    on_the_machine(|node| {
        let made = Functions::make(IGB1);
        for vf in &made.vfs {
            awaited(node, "the functions are published", |device| is_called(device, vf));
        }
        let before = Snapshot::take();
        let pods: Vec<_> = [1, 2]
            .into_iter()
            .zip(&made.vfs)
            .map(|(host, vf)| {
                let mut wishes = config("net0", &format!("10.9.0.{host}/24"), "auto");
                wishes["interface"]["hardwareAddr"] = json!(format!("02:00:5e:10:00:0{host}"));
                wishes["sriov"] =
                    json!({ "vlan": { "id": 7 }, "maxTxRateMbps": 100, "trust": true });
                Running::start(node, &format!("pod{host}"), &[Wish::of(vf, wishes)])
            })
            .collect();
        let told = ip(&["link", "show", "dev", &made.pf])[0]["vfinfo_list"].take();
        for (vf, host) in [(0, 1), (1, 2)] {
            let told = &told[vf];
            assert_eq!(told["address"], format!("02:00:5e:10:00:0{host}"), "{told:#}");
            assert_eq!(told["vlan_list"][0]["vlan"], 7, "{told:#}");
            assert_eq!(told["rate"]["max_tx"], 100, "{told:#}");
            assert_eq!(told["trust"], true, "{told:#}");
        }
        pods[0].talks_to(&pods[1], [10, 9, 0, 2]);
        for pod in pods {
            pod.end(node);
        }
        before.is_as_now();
        nothing_is_left();
    });
}

/// Starts the driver anew, told to have this number of functions made of the NIC.
fn with_functions(node: &mut Node, pf: &Path, count: u8) {
    let rule = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NodeConfig",
        "sriov": [{ "pf": { "pciAddress": pf.file_name().unwrap().to_str() }, "numVfs": count }],
    });
    fs::write(Path::new(ROOT).join("node.yaml"), rule.to_string()).unwrap();
    node.driver.stop().unwrap();
    node.start_driver().unwrap();
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn virtual_functions_are_made_by_configuration_and_never_under_a_pod() {
    on_the_machine(|node| {
        let pf = fs::canonicalize(function(&interface(IGB1))).unwrap();
        let count = || fs::read_to_string(pf.join("sriov_numvfs")).unwrap().trim().to_owned();
        node.driver.add("--config");
        node.driver.add(Path::new(ROOT).join("node.yaml").to_str().unwrap());
        with_functions(node, &pf, 2);
        assert_eq!(count(), "2");
        let vf = first_in(&pf.join("virtfn0/net"));
        awaited(node, "the functions are published", |device| is_called(device, &vf));
        let parameters = config("net0", "10.9.0.1/24", "auto");
        let pod = Running::start(node, "web", &[Wish::of(&vf, parameters)]);

        with_functions(node, &pf, 4);
        assert_eq!(count(), "2", "a pod has one of them");
        assert!(node.driver.log().contains("its virtual functions stay as they are"));
        assert_eq!(pod.link("net0")["ifname"], "net0");

        pod.end(node);
        with_functions(node, &pf, 4);
        assert_eq!(count(), "4");
        nothing_is_left();
        fs::write(pf.join("sriov_numvfs"), "0").unwrap();
    });
}
