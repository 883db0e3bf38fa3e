//! A container that may have its NIC has it, whatever is restarted.

use std::fs;
use std::path::Path;

use driver::cdi::Gate;
use tests::node::{self, CDI_DIR};
use tests::sandbox::traffic::Stream;

use super::ring::{netns_of, on_containerd};
use super::world::{answer_in, looks, nic, nothing_is_left, route, talk, until};

fn specifications() -> usize {
    fs::read_dir(CDI_DIR).map_or(0, Iterator::count)
}

#[test]
fn a_container_gets_its_nic_and_is_told_its_name() {
    on_containerd(|ring| {
        let before = looks(&ring.node, 0);
        let (web, ids) = ring.prepare("web");
        assert_eq!(specifications(), 0, "nothing is attached yet");
        let pod = ring.run(&web, 0);
        assert_eq!(specifications(), 1);

        let container = ring.start_container(&pod, "c", &ids);
        let addresses = ring.cri.exec(&container, &["ip", "-o", "-4", "addr", "show", "net0"]);
        let addresses = addresses.unwrap();
        assert!(addresses.contains("198.18.0.10/24"), "{addresses}");
        let environment = ring.cri.exec(&container, &["env"]).unwrap();
        assert!(environment.lines().any(|line| line == "WEIR_R0_IFNAME=net0"), "{environment}");
        let echo = answer_in(&netns_of(&web));
        talk(&ring.node, 0);
        assert!(web.agrees_with_the_wire(&ring.node, 0).received >= 51);
        echo.stop();
        // As kubelet does when a container has ended, and for each of several.
        let again = ring.start_container(&pod, "c2", &ids);
        ring.cri.exec(&again, &["ip", "link", "show", "net0"]).unwrap();

        ring.cri.remove(&pod).unwrap();
        assert_eq!(specifications(), 0);
        assert_eq!(looks(&ring.node, 0), before);
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_container_that_names_no_device_starts_as_ever() {
    on_containerd(|ring| {
        let (web, _) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        let container = ring.start_container(&pod, "sidecar", &[]);
        let environment = ring.cri.exec(&container, &["env"]).unwrap();
        assert!(!environment.contains("WEIR_"), "{environment}");
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_driver_that_is_restarted_under_load_loses_nothing() {
    on_containerd(|ring| {
        let (web, ids) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        ring.start_container(&pod, "c", &ids);
        let echo = answer_in(&netns_of(&web));
        talk(&ring.node, 0);
        let links = web.link_ids(0);
        let stream = Stream::start(ring.node.network.wire(), route(0)).unwrap();

        for _ in 0..3 {
            ring.node.driver.kill().unwrap();
            ring.node.start_driver().unwrap();
        }
        assert!(ring.node.driver.stop().unwrap().success());
        ring.node.start_driver().unwrap();

        let tally = stream.stop();
        assert!(tally.sent > 100, "{tally:?}");
        assert_eq!(tally.lost(), 0, "{tally:?}");
        assert_eq!((web.phases(), web.link_ids(0)), (vec!["attached"], links));
        assert_eq!(specifications(), 1);
        web.agrees_with_the_wire(&ring.node, 0);
        ring.start_container(&pod, "c2", &ids);
        echo.stop();
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_containerd_that_is_restarted_finds_its_pods_as_they_were() {
    on_containerd(|ring| {
        let (web, ids) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        let container = ring.start_container(&pod, "c", &ids);
        let echo = answer_in(&netns_of(&web));
        talk(&ring.node, 0);
        let links = web.link_ids(0);
        let stream = Stream::start(ring.node.network.wire(), route(0)).unwrap();

        ring.containerd.kill().unwrap();
        until("the driver misses containerd", || {
            if node::is_ready() { Err("it is ready".to_owned()) } else { Ok(()) }
        });
        ring.containerd.start().unwrap();
        until("the driver has met containerd again", || {
            if node::is_ready() { Ok(()) } else { Err("it is not ready".to_owned()) }
        });

        let tally = stream.stop();
        assert_eq!(tally.lost(), 0, "{tally:?}");
        assert_eq!((web.phases(), web.link_ids(0)), (vec!["attached"], links));
        ring.cri.exec(&container, &["ip", "link", "show", "net0"]).unwrap();
        ring.start_container(&pod, "c2", &ids);
        talk(&ring.node, 0);
        echo.stop();
        // It does not tell of the end of a sandbox that it made before its restart (`needsStopping`
        // in `pkg/nri/nri.go` of 1.7.24 and `internal/nri/nri.go` of 2.1.9), so the NIC, which is a
        // virtual one, goes with its namespace, and kubelet's call finds that out.
        ring.cri.remove(&pod).unwrap();
        until("the NIC dies with its namespace", || {
            let gone = ring.node.network.count(nic(&ring.node, 0)).is_err();
            if gone { Ok(()) } else { Err("its far end is there".to_owned()) }
        });
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn the_gate_of_the_driver_is_the_one_that_containers_pass() {
    on_containerd(|ring| {
        let (web, ids) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        let gate = Gate::install(&Path::new(node::ROOT).join("bin")).unwrap();
        // What is not there cannot let anybody in.
        fs::remove_file(gate.path()).unwrap();
        let container = ring.cri.create(&pod, "c", &ids).unwrap();
        let refused = ring.cri.start(&container).unwrap_err();
        assert!(refused.message().contains("weir-gate"), "{refused}");

        ring.node.driver.kill().unwrap();
        ring.node.start_driver().unwrap();
        ring.start_container(&pod, "c2", &ids);
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}
