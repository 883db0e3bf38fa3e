//! Virtual functions.

use std::fs;
use std::path::{Path, PathBuf};

use driver::model::MacAddr;

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
        pods.into_iter().for_each(|pod| pod.end(node));
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
