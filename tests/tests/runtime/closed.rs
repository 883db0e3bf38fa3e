//! A container without its NIC does not start, whatever went wrong before.

use std::fs;

use nix::sys::signal::Signal;
use tests::node::CDI_DIR;

use super::ring::on_containerd;
use super::world::{looks, nothing_is_left, until};

#[test]
fn a_driver_that_is_dead_while_the_sandbox_starts_lets_no_container_start() {
    on_containerd(|ring| {
        let before = looks(&ring.node, 0);
        let (web, ids) = ring.prepare("web");
        ring.node.driver.kill().unwrap();

        // containerd starts the sandbox, and nobody is there to be told.
        let pod = ring.run(&web, 0);

        ring.assert_unresolvable(&pod, "c", &ids);
        ring.node.start_driver().unwrap();
        ring.assert_unresolvable(&pod, "c2", &ids);
        ring.cri.remove(&pod).unwrap();
        // The pod's next sandbox gets what this one missed.
        let pod = ring.run(&web, 1);
        ring.start_container(&pod, "c", &ids);
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        assert_eq!(looks(&ring.node, 0), before);
        nothing_is_left();
    });
}

#[test]
fn a_hook_that_is_answered_after_the_deadline_lets_no_container_start() {
    on_containerd(|ring| {
        let before = looks(&ring.node, 0);
        let (web, ids) = ring.prepare("web");
        ring.signal_driver(Signal::SIGSTOP);

        // containerd gives the driver up, and starts the sandbox without its answer.
        let pod = ring.run(&web, 0);

        ring.assert_unresolvable(&pod, "c", &ids);
        ring.signal_driver(Signal::SIGCONT);
        // What the driver does about a call that nobody waits for is up to it: either the NIC is
        // there, or the container is not.
        if let Ok(container) = ring.cri.create(&pod, "c2", &ids) {
            ring.cri.start(&container).unwrap();
            ring.cri.exec(&container, &["ip", "link", "show", "net0"]).unwrap();
        }
        until("the driver is there again", || {
            if tests::node::is_ready() { Ok(()) } else { Err("it is not ready".to_owned()) }
        });
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        assert_eq!(looks(&ring.node, 0), before);
        nothing_is_left();
    });
}

#[test]
fn a_specification_that_outlived_its_sandbox_lets_nobody_into_the_next() {
    on_containerd(|ring| {
        let (web, ids) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        ring.start_container(&pod, "c", &ids);
        ring.node.driver.kill().unwrap();
        ring.cri.remove(&pod).unwrap();
        assert_eq!(fs::read_dir(CDI_DIR).unwrap().count(), 1, "nobody was there to remove it");

        let pod = ring.run(&web, 1);

        // The specification resolves, so it takes the gate to refuse.
        let container = ring.cri.create(&pod, "c", &ids).unwrap();
        let refused = ring.cri.start(&container).unwrap_err();
        let text = refused.message();
        for part in [web.claim.uid.as_str(), "another network namespace"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        ring.node.start_driver().unwrap();
        ring.assert_unresolvable(&pod, "c2", &ids);
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_sandbox_that_has_ended_takes_the_specification_along() {
    on_containerd(|ring| {
        let (web, ids) = ring.prepare("web");
        let pod = ring.run(&web, 0);
        ring.start_container(&pod, "c", &ids);
        ring.cri.stop(&pod).unwrap();
        assert_eq!(fs::read_dir(CDI_DIR).unwrap().count(), 0);
        ring.cri.remove(&pod).unwrap();
        ring.node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}
