//! The gate: the very program that runtimes run, and what the driver does for it to be asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use driver::cdi::{CdiDir, Gate};
use driver::model::{CdiDevice, CdiSpec};
use driver::sys::netns::Netns;
use tests::node::{CDI_DIR, Node, PATIENCE, sandbox};
use tests::runtime::{ContainerError, Options};

use super::world::{
    Deployed, config, deploy, inside, looks, nothing_is_left, on_a_node, prepared_ids, until,
};

const CLAIM: &str = "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11";

/// A namespace of a test's own, with a process in it.
struct Place {
    path: PathBuf,
    process: Child,
}

impl Place {
    fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let netns = Netns::create(&path).unwrap();
        let process = netns.run(|_| Command::new("sleep").arg("60").spawn().unwrap()).unwrap();
        Self { path, process }
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    fn cookie(&self) -> u64 {
        Netns::open(&self.path).unwrap().cookie().unwrap()
    }

    /// Ends the process and with it the namespace.
    fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        Netns::remove(&self.path).unwrap();
    }
}

fn ask(gate: &Gate, arguments: &[&str], state: &str) -> Output {
    let mut child = Command::new(gate.path())
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have decided before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(state.as_bytes());
    child.wait_with_output().unwrap()
}

fn admits(gate: &Gate, cookie: u64, place: &Place) -> Result<(), String> {
    let pid = place.process.id();
    let state = format!(r#"{{"annotations":{{"a":"\"pid\":1"}},"pid":{pid}}}"#);
    let output = ask(gate, &[&cookie.to_string(), CLAIM], &state);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_gate_admits_to_one_namespace_and_to_no_other() {
    let home = tempfile::tempdir().unwrap();
    let gate = Gate::install(home.path()).unwrap();
    let places = ["own", "other"].map(|name| Place::new(home.path(), name));
    let cookies = [places[0].cookie(), places[1].cookie()];
    assert_ne!(cookies[0], cookies[1]);

    for (nth, place) in places.iter().enumerate() {
        assert_eq!(admits(&gate, cookies[nth], place), Ok(()));
        let refusal = admits(&gate, cookies[1 - nth], place).unwrap_err();
        let expected = format!("(cookie {})", cookies[1 - nth]);
        for part in [CLAIM, "another network namespace", &expected] {
            assert!(refusal.contains(part), "{part} is not in: {refusal}");
        }
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
    for place in places {
        place.end();
    }
}

/// The kernel gives the inode numbers of namespaces that are gone to others (`proc_alloc_inum` in
/// `fs/proc/generic.c` takes the lowest that is free), and so a comparison of numbers would be fooled.
#[test]
fn a_namespace_that_has_the_number_of_another_is_not_taken_for_it() {
    let home = tempfile::tempdir().unwrap();
    let gate = Gate::install(home.path()).unwrap();
    let mut gone = BTreeMap::new();
    // Namespaces are taken down by and by.
    until("an inode number is used again", || {
        let place = Place::new(home.path(), "place");
        let (inode, cookie) = (place.inode(), place.cookie());
        let former: Option<u64> = gone.insert(inode, cookie);
        let seen = former.map(|former| [former, cookie].map(|one| admits(&gate, one, &place)));
        place.end();
        let Some([by_the_former, by_its_own]) = seen else {
            return Err(format!("{} namespaces had numbers of their own", gone.len()));
        };
        assert!(by_the_former.unwrap_err().contains("another network namespace"));
        assert_eq!(by_its_own, Ok(()));
        Ok(())
    });
}

#[test]
fn the_gate_refuses_what_it_cannot_find_out() {
    let home = tempfile::tempdir().unwrap();
    let gate = Gate::install(home.path()).unwrap();
    let own = format!(r#"{{"pid":{}}}"#, std::process::id());
    let cookie = Netns::of_this_thread().unwrap().cookie().unwrap().to_string();
    assert!(ask(&gate, &[&cookie, CLAIM], &own).status.success());

    for (arguments, state, reason) in [
        (&[&*cookie, CLAIM][..], "", "cannot be understood"),
        (&[&*cookie, CLAIM], "{}", "it has no pid"),
        (&[&*cookie, CLAIM], r#"{"pid":4194305}"#, "cannot be opened"),
        (&[&*cookie], &own, "called with something else"),
        (&["x", CLAIM], &own, "called with something else"),
        (&[], &own, "called with something else"),
    ] {
        let output = ask(&gate, arguments, state);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{reason} is not in: {said}");
    }
}

fn specifications() -> usize {
    fs::read_dir(CDI_DIR).map_or(0, Iterator::count)
}

/// Prepares a pod's claim; answers the ids that its containers name.
fn prepare(node: &Node) -> (Deployed, Vec<String>) {
    let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
    let ids = prepared_ids(node, &web);
    assert_eq!(ids, [web.id(0).cdi_id("weir.dev")]);
    (web, ids)
}

pub(super) fn assert_unresolvable(node: &Node, web: &Deployed, ids: &[String]) {
    match node.start_container(&web.pod, ids) {
        Err(ContainerError::Unresolvable(missing)) => assert_eq!(missing, ids),
        other => panic!("{other:?}"),
    }
}

/// A specification as the driver writes it, made by hand for a namespace.
fn write_by_hand(web: &Deployed, netns: &Netns, gate: &Path) {
    let directory =
        CdiDir::open(Path::new(CDI_DIR), "weir.dev", Gate::install(gate).unwrap()).unwrap();
    let device = CdiDevice {
        name: web.id(0).cdi_device(),
        environment: vec![("WEIR_R0_IFNAME".to_owned(), "net0".to_owned())],
        nodes: Vec::new(),
    };
    let cookie = netns.cookie().unwrap();
    let claim = web.claim.uid.clone();
    directory.write(&CdiSpec { claim, cookie, devices: vec![device] }).unwrap();
}

#[test]
fn a_container_starts_where_its_device_is_and_is_told_its_name() {
    on_a_node(1, Options::default(), |node| {
        let before = looks(node, 0);
        let (web, ids) = prepare(node);
        assert_eq!(specifications(), 0, "nothing is attached yet");
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        assert!(inside(&netns, "net0").is_some());

        let container = node.start_container(&web.pod, &ids).unwrap();
        let environment = &container.environment;
        assert!(environment.iter().any(|pair| pair == "WEIR_R0_IFNAME=net0"), "{environment:?}");
        let second = node.start_container(&web.pod, &ids).unwrap();
        drop((container, second));

        node.runtime.stop_pod_sandbox(&sandbox(&web.pod).id).unwrap();
        assert_eq!(specifications(), 0);
        assert_unresolvable(node, &web, &ids);
        drop(netns);
        web.end(node);
        assert_eq!(looks(node, 0), before);
        nothing_is_left();
    });
}

#[test]
fn no_container_starts_whose_sandbox_started_without_the_driver() {
    on_a_node(1, Options::default(), |node| {
        let (web, ids) = prepare(node);
        node.driver.kill().unwrap();
        assert!(node.runtime.wait_for_no_plugin(PATIENCE));
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        assert_unresolvable(node, &web, &ids);
        // It does not come late, either: what the sandbox lacks it would lack for ever.
        node.start_driver().unwrap();
        assert_unresolvable(node, &web, &ids);
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn a_specification_that_nobody_could_remove_admits_nobody_to_the_next_sandbox() {
    on_a_node(1, Options::default(), |node| {
        let (web, ids) = prepare(node);
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        drop(node.start_container(&web.pod, &ids).unwrap());
        node.driver.kill().unwrap();
        assert!(node.runtime.wait_for_no_plugin(PATIENCE));
        drop(netns);
        node.stop_sandbox(&web.pod).unwrap();
        assert_eq!(specifications(), 1, "nobody was there to remove it");

        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        match node.start_container(&web.pod, &ids) {
            Err(ContainerError::Hook { stderr, .. }) => {
                assert!(stderr.contains(web.claim.uid.as_str()), "{stderr}");
                assert!(stderr.contains("another network namespace"), "{stderr}");
            }
            other => panic!("{other:?}"),
        }
        node.start_driver().unwrap();
        assert_unresolvable(node, &web, &ids);
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

/// The other half of the one before: it is the namespace that is refused, not the container.
#[test]
fn the_runtime_of_the_box_asks_the_gate() {
    on_a_node(1, Options::default(), |node| {
        let (web, ids) = prepare(node);
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let home = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(CDI_DIR).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
        assert_unresolvable(node, &web, &ids);
        write_by_hand(&web, &Netns::of_this_thread().unwrap(), home.path());
        let refused = node.start_container(&web.pod, &ids).unwrap_err();
        assert!(matches!(refused, ContainerError::Hook { .. }), "{refused}");
        write_by_hand(&web, &netns, home.path());
        drop(node.start_container(&web.pod, &ids).unwrap());
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}
