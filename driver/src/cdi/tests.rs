use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tempfile::TempDir;

use super::*;
use crate::model::CdiDevice;

const UID: &str = "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11";

const GOLDEN: &str = r#"{
  "cdiVersion": "0.5.0",
  "kind": "weir.dev/nic",
  "devices": [
    {
      "name": "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11-nic0",
      "containerEdits": {
        "env": [
          "WEIR_DATA_IFNAME=net1",
          "WEIR_QUOTED=a \"b\""
        ],
        "deviceNodes": [
          {
            "path": "/dev/infiniband/uverbs0"
          }
        ]
      }
    },
    {
      "name": "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11-nic1",
      "containerEdits": {
        "env": [
          "WEIR_STORAGE_IFNAME=net2"
        ]
      }
    }
  ],
  "containerEdits": {
    "hooks": [
      {
        "hookName": "createRuntime",
        "path": "GATE",
        "args": [
          "weir-gate",
          "4097",
          "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11"
        ],
        "timeout": 10
      }
    ]
  }
}"#;

fn device(name: &str, environment: &[(&str, &str)], nodes: &[&str]) -> CdiDevice {
    let pair = |(variable, value): &(&str, &str)| ((*variable).to_owned(), (*value).to_owned());
    CdiDevice {
        name: format!("{UID}-{name}"),
        environment: environment.iter().map(pair).collect(),
        nodes: nodes.iter().map(PathBuf::from).collect(),
    }
}

fn spec() -> CdiSpec {
    let first = [("WEIR_DATA_IFNAME", "net1"), ("WEIR_QUOTED", "a \"b\"")];
    CdiSpec {
        claim: UID.parse().unwrap(),
        cookie: 4097,
        devices: vec![
            device("nic0", &first, &["/dev/infiniband/uverbs0"]),
            device("nic1", &[("WEIR_STORAGE_IFNAME", "net2")], &[]),
        ],
    }
}

/// A directory for specifications below one for everything.
fn open() -> (TempDir, CdiDir) {
    let home = tempfile::tempdir().unwrap();
    let gate = Gate::install(&home.path().join("bin")).unwrap();
    let directory = CdiDir::open(&home.path().join("cdi"), "weir.dev", gate).unwrap();
    (home, directory)
}

fn names(directory: &CdiDir) -> Vec<String> {
    let entries = fs::read_dir(&directory.path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_specification_is_written_as_runtimes_read_it() {
    let (_home, directory) = open();
    assert_eq!(directory.write(&spec()).unwrap(), Was::Otherwise);
    assert_eq!(names(&directory), [format!("weir.dev-nic_{UID}.json")]);
    let text = fs::read_to_string(directory.file(&spec().claim)).unwrap();
    assert_eq!(text, GOLDEN.replace("GATE", directory.gate.path().to_str().unwrap()));
}

#[test]
fn what_is_written_twice_is_written_once_and_removed_once() {
    let (_home, directory) = open();
    directory.write(&spec()).unwrap();
    assert_eq!(directory.write(&spec()).unwrap(), Was::Same);
    let other = CdiSpec { cookie: 1, ..spec() };
    assert_eq!(directory.write(&other).unwrap(), Was::Otherwise);
    assert_eq!(directory.all().unwrap(), [spec().claim]);

    assert_eq!(directory.remove(&spec().claim).unwrap(), Was::Otherwise);
    assert_eq!(directory.remove(&spec().claim).unwrap(), Was::Same);
    assert_eq!(names(&directory), Vec::<String>::new());
    assert_eq!(directory.all().unwrap(), []);
}

#[test]
fn files_of_others_are_neither_seen_nor_touched() {
    let (_home, directory) = open();
    let foreign = GOLDEN.replace("weir.dev/nic", "nvidia.com/gpu");
    let same_name = format!("weir.dev-nic_{UID}.json");
    let others = [
        ("nvidia.com-gpu.json", foreign.as_str()),
        ("weir.dev-nic.json", GOLDEN),
        ("weir.dev-nic_a.b.json", GOLDEN),
        ("weir.dev-nic_a.yaml", GOLDEN),
        ("other.weir.dev-nic_a.json", GOLDEN),
        (&same_name, &foreign),
    ];
    for (name, text) in others {
        fs::write(directory.path.join(name), text).unwrap();
    }

    assert_eq!(directory.all().unwrap(), []);
    for error in [directory.write(&spec()).err(), directory.remove(&spec().claim).err()] {
        assert!(matches!(error, Some(CdiError::NotOurs { .. })), "{error:?}");
    }
    for (name, text) in others {
        assert_eq!(fs::read_to_string(directory.path.join(name)).unwrap(), text, "{name}");
    }
    assert_eq!(names(&directory).len(), others.len());
}

#[test]
fn what_a_crash_leaves_is_found_and_removed() {
    let (_home, directory) = open();
    fs::write(directory.unfinished(&spec().claim), "{\"cdiV").unwrap();
    assert_eq!(directory.all().unwrap(), [spec().claim]);
    assert_eq!(directory.remove(&spec().claim).unwrap(), Was::Otherwise);
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_taken_away_is_made_again() {
    let (_home, directory) = open();
    fs::remove_dir(&directory.path).unwrap();
    assert_eq!(directory.all().unwrap(), []);
    assert_eq!(directory.remove(&spec().claim).unwrap(), Was::Same);
    directory.write(&spec()).unwrap();
    assert_eq!(directory.all().unwrap(), [spec().claim]);
}

#[test]
fn a_device_that_adds_nothing_is_refused() {
    let (_home, directory) = open();
    let empty = CdiSpec { devices: vec![device("nic0", &[], &[])], ..spec() };
    let error = directory.write(&empty).unwrap_err();
    assert!(matches!(error, CdiError::Empty { .. }), "{error}");
    assert_eq!(names(&directory), Vec::<String>::new());
}

#[test]
fn the_gate_is_put_up_whole_and_left_alone_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("bin");
    let gate = Gate::install(&directory).unwrap();
    let facts = fs::metadata(gate.path()).unwrap();
    assert_eq!(facts.permissions().mode() & 0o7777, 0o755);

    Gate::install(&directory).unwrap();
    assert_eq!(fs::metadata(gate.path()).unwrap().ino(), facts.ino());

    let older = || fs::write(gate.path(), "an older one");
    let closed = || fs::set_permissions(gate.path(), fs::Permissions::from_mode(0o644));
    for spoil in [&older as &dyn Fn() -> io::Result<()>, &closed] {
        spoil().unwrap();
        Gate::install(&directory).unwrap();
        let again = fs::metadata(gate.path()).unwrap();
        assert_eq!((again.len(), again.mode()), (facts.len(), facts.mode()));
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}
