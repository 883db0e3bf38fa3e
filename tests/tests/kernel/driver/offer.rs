//! What a node offers: by its configuration files, its label and SIGHUP, and what `--explain` says of
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::node::{self, NODE, Node, ROOT, STATE_DIR};
use tests::runtime::Options;

use super::configured::lines;
use super::look::weir_json;
use super::publish::{await_devices, published};
use super::world::{on_a_node, until};

const HEAD: &str = "apiVersion: weir.dev/v1alpha1\nkind: NodeConfig\n";
/// What a driver says whose files it cannot use.
const STAYS: &str = "the configuration stays as it was";

/// A `ConfigMap` as kubelet mounts it (`AtomicWriter` in `pkg/volume/util/atomic_writer.go`, Kubernetes
/// 1.36): the file is a link into `..data`, which is a link that is replaced.
struct ConfigMap {
    directory: PathBuf,
    generation: u32,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let directory = Path::new(ROOT).join("etc");
        fs::create_dir_all(&directory).unwrap();
        symlink("..data/weir.yaml", directory.join("weir.yaml")).unwrap();
        let mut map = Self { directory, generation: 0 };
        map.replace(text);
        map
    }

    fn replace(&mut self, text: &str) {
        self.generation += 1;
        let generation = format!("..{}", self.generation);
        let next = self.directory.join(&generation);
        fs::create_dir(&next).unwrap();
        fs::write(next.join("weir.yaml"), format!("{HEAD}{text}")).unwrap();
        let (data, new) = (self.directory.join("..data"), self.directory.join("..data_tmp"));
        symlink(generation, &new).unwrap();
        fs::rename(new, data).unwrap();
    }

    fn file(&self) -> String {
        self.directory.join("weir.yaml").to_str().unwrap().to_owned()
    }
}

/// Starts the driver anew, with more arguments.
fn restart(node: &mut Node, arguments: &[&str]) {
    node.driver.stop().unwrap();
    for argument in arguments {
        node.driver.add(argument);
    }
    node.start_driver().unwrap();
}

fn hang_up(node: &Node) {
    let pid = i32::try_from(node.driver.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
}

/// Has the Node's label name a profile.
fn label(node: &Node, profile: &str) {
    let node_object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": NODE, "labels": { "weir.dev/profile": profile } },
    });
    node.server.apply(&node_object.to_string()).unwrap();
}

#[test]
fn what_is_offered_follows_the_file_and_what_is_wrong_changes_nothing() {
    on_a_node(3, Options::default(), |node| {
        let mut map = ConfigMap::new("publish: {exclude: [nic2]}\n");
        let file = map.file();
        restart(node, &["--config", &file]);
        await_devices(node, &["nic0", "nic1"]);
        map.replace("publish: {filter: 'device.attributes[\"weir.dev\"].ifName != \"nic0\"'}\n");
        await_devices(node, &["nic1", "nic2"]);

        for (nth, wrong) in ["publish: {filter: node.name}\n", "publsh: {}\n"].iter().enumerate() {
            map.replace(wrong);
            until("the driver has seen what is wrong", || {
                let said = node.driver.log().matches(STAYS).count();
                if said == nth + 1 { Ok(()) } else { Err(format!("said {said} times")) }
            });
            assert_eq!(published(node).unwrap().1, ["nic1", "nic2"]);
        }
        map.replace("");
        await_devices(node, &["nic0", "nic1", "nic2"]);
    });
}

#[test]
fn a_label_picks_the_profile_on_sighup_and_the_nodes_own_file_is_over_it() {
    on_a_node(3, Options::default(), |node| {
        let map = ConfigMap::new(
            "publish: {exclude: [nic2]}\nprofiles:\n  gpu:\n    publish: {exclude: [nic0]}\n",
        );
        let (file, own) = (map.file(), Path::new(ROOT).join("own.yaml"));
        restart(node, &["--config", &file, "--node-config", own.to_str().unwrap()]);
        await_devices(node, &["nic0", "nic1"]);

        label(node, "gpu");
        hang_up(node);
        await_devices(node, &["nic1", "nic2"]);

        label(node, "cpu");
        hang_up(node);
        until("the driver has seen the label", || {
            let log = node.driver.log();
            let is_said = log.contains(STAYS) && log.contains("there is no profile");
            if is_said { Ok(()) } else { Err(node.driver.log_tail()) }
        });
        assert_eq!(published(node).unwrap().1, ["nic1", "nic2"]);

        label(node, "gpu");
        fs::write(&own, format!("{HEAD}publish: {{exclude: [nic1]}}\n")).unwrap();
        hang_up(node);
        await_devices(node, &["nic0", "nic2"]);
        fs::remove_file(&own).unwrap();
        hang_up(node);
        await_devices(node, &["nic1", "nic2"]);
    });
}

/// What `weir devices --explain` says: why each interface is not offered; nothing where it is.
fn explained(arguments: &[&str]) -> BTreeMap<String, Option<String>> {
    let fixed = ["devices", "--explain", "--state-dir", STATE_DIR];
    let said = weir_json(&[&fixed, arguments].concat());
    let one = |it: &serde_json::Value| {
        let reason = it["reason"].as_str().map(str::to_owned);
        assert_eq!(it["published"].as_bool(), Some(reason.is_none()), "{it}");
        (it["interface"].as_str().unwrap().to_owned(), reason)
    };
    said.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn what_explain_says_is_what_is_published() {
    on_a_node(3, Options::default(), |node| {
        // A bridge plugin's; two that are only called like one's; the way out, and what is upon it.
        lines(&[
            "link add cni0 type bridge",
            "link add veth0a1b2c3d type veth peer name eth0 netns wire",
            "link set veth0a1b2c3d master cni0 up",
            "link add vetha type veth peer name vethb",
            "link set vetha up",
            "link set vethb up",
            "route add default via 172.31.0.254 dev nic0",
            "link add upon0 link nic0 type macvlan mode bridge",
        ]);
        let map = ConfigMap::new(
            "publish:\n  exclude: [nic1]\n  filter: device.attributes[\"weir.dev\"].ifName != 'vethb'\n\
             profiles:\n  all:\n    publish: {exclude: [], include: [upon*], filter: 'true'}\n",
        );
        let file = map.file();
        restart(node, &["--config", &file]);
        await_devices(node, &["nic2", "vetha"]);

        let expected = [
            ("cni0", Some("interface of a container network")),
            ("lo", Some("loopback")),
            ("nic0", Some("default route")),
            ("nic1", Some("excluded")),
            ("nic2", None),
            ("upon0", Some("above the default route")),
            ("veth0a1b2c3d", Some("interface of a container network")),
            ("vetha", None),
            ("vethb", Some("filter")),
        ];
        let expected = expected.map(|(name, why)| (name.to_owned(), why.map(str::to_owned)));
        let expected = BTreeMap::from(expected);
        assert_eq!(explained(&[]), expected);
        assert_eq!(explained(&["--config", &file]), expected);

        label(node, "all");
        hang_up(node);
        await_devices(node, &["nic1", "nic2", "upon0", "vetha", "vethb"]);
        let said = explained(&[]);
        assert_eq!(said, explained(&["--config", &file, "--profile", "all"]));
        let offered = said.into_iter().filter(|(_, why)| why.is_none()).map(|(name, _)| name);
        let (_, devices) = published(node).unwrap();
        assert_eq!(offered.collect::<BTreeSet<_>>(), devices.into_iter().collect());
    });
}

/// The machine's sysfs, but for its PCI functions: two that can have virtual ones, of which the
/// second has one that is bound to `vfio-pci`.
fn two_physical_functions() -> PathBuf {
    let root = Path::new(ROOT).join("sys");
    let [free, used] = ["0000:3b:00.0", "0000:5e:00.0"];
    let bus = root.join("bus/pci");
    fs::create_dir_all(bus.join("devices")).unwrap();
    fs::create_dir_all(bus.join("drivers/vfio-pci")).unwrap();
    fs::create_dir_all(root.join("devices")).unwrap();
    symlink("/sys/class", root.join("class")).unwrap();
    symlink("/sys/devices/virtual", root.join("devices/virtual")).unwrap();
    for (function, files) in [
        (free, &[("sriov_totalvfs", "8"), ("sriov_numvfs", "0")][..]),
        (used, &[("sriov_totalvfs", "8"), ("sriov_numvfs", "1")]),
        ("0000:5e:00.1", &[]),
    ] {
        let place = format!("devices/pci0000:00/{function}");
        fs::create_dir_all(root.join(&place)).unwrap();
        for (name, text) in files {
            fs::write(root.join(&place).join(name), format!("{text}\n")).unwrap();
        }
        symlink(format!("../../../{place}"), bus.join("devices").join(function)).unwrap();
    }
    let functions = root.join("devices/pci0000:00");
    symlink("../0000:5e:00.1", functions.join(used).join("virtfn0")).unwrap();
    let driver = |name: &str| format!("../../../bus/pci/drivers/{name}");
    symlink(driver("vfio-pci"), functions.join("0000:5e:00.1/driver")).unwrap();
    fs::create_dir_all(bus.join("drivers/igb")).unwrap();
    for (function, interface) in [(free, "pf0"), (used, "pf1")] {
        symlink(driver("igb"), functions.join(function).join("driver")).unwrap();
        let place = functions.join(function).join("net").join(interface);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("flags"), "0x1003\n").unwrap();
    }
    root
}

#[test]
fn virtual_functions_are_made_at_the_start_where_nobody_would_lose_one() {
    on_a_node(1, Options::default(), |node| {
        let sysfs = two_physical_functions();
        let mut map = ConfigMap::new(
            "sriov:\n  - {pf: {pciAddress: '0000:3b:00.0'}, numVfs: 4}\n  \
             - {pf: {pciAddress: '0000:5e:00.0'}, numVfs: 4}\n  - {pf: {interface: nowhere0}, numVfs: 2}\n",
        );
        let file = map.file();
        restart(node, &["--config", &file, "--sysfs", sysfs.to_str().unwrap()]);
        await_devices(node, &["nic0"]);
        let count = |function: &str| {
            let file = sysfs.join("bus/pci/devices").join(function).join("sriov_numvfs");
            fs::read_to_string(file).unwrap().trim_end().to_owned()
        };
        let outcomes = || {
            let page = node::scrape().unwrap();
            ["set", "kept", "refused", "failed", "unmatched"].map(|outcome| {
                page.sum("weir_sriov_provisioned", &[("outcome", outcome)]).unwrap_or(0)
            })
        };
        assert_eq!([count("0000:3b:00.0"), count("0000:5e:00.0")], ["4", "1"]);
        assert_eq!(outcomes(), [1, 0, 1, 0, 1]);
        assert!(node.driver.log().contains("0000:5e:00.1 is bound to vfio-pci"));

        // As the kernel does when it makes them.
        let made = sysfs.join("bus/pci/devices/0000:3b:00.0");
        for number in 0..4 {
            symlink("../0000:5e:00.1", made.join(format!("virtfn{number}"))).unwrap();
        }
        restart(node, &[]);
        await_devices(node, &["nic0"]);
        assert_eq!(outcomes(), [0, 1, 1, 0, 1]);

        node.driver.stop().unwrap();
        for name in ["checkpoint.json", "checkpoint.mirror.json"] {
            let _ = fs::remove_file(Path::new(STATE_DIR).join(name));
        }
        map.replace("sriov:\n  - {pf: {pciAddress: '0000:3b:00.0'}, numVfs: 2}\n");
        node.start_driver().unwrap();
        await_devices(node, &["nic0"]);
        assert_eq!((outcomes(), count("0000:3b:00.0").as_str()), ([0, 0, 1, 0, 0], "4"));
        let log = node.driver.log_tail();
        assert!(log.contains("a driver has run since the node started"), "{log}");
        assert!(log.contains("the checkpoint was lost in this boot"), "{log}");
    });
}
