//! The commands that look, on a node at work.

use std::process::Command;

use serde_json::{Value, json};
use tests::node::{self, BPFFS, Counted, STATE_DIR};
use tests::runtime::Options;

use super::world::{
    Deployed, answer_in, config, deploy, nothing_is_left, on_a_node, talk, told, until,
};

/// What `weir` prints. It must succeed and complain about nothing.
fn weir(arguments: &[&str]) -> String {
    let output = Command::new(told("WEIR_BINARY")).args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn weir_json(arguments: &[&str]) -> Value {
    let text = weir(&[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const PLACES: [&str; 4] = ["--state-dir", STATE_DIR, "--bpffs", BPFFS];

/// Cells of the table row that `word` is in.
fn row<'a>(table: &'a str, word: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|cells| cells.contains(&word)).unwrap_or_else(|| panic!("{table}"))
}

fn traffic(value: &Value) -> Counted {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap();
    Counted {
        received: number("/ingress/packets"),
        denied: number("/ingress/denied"),
        sent: number("/egress/packets") - number("/egress/denied"),
    }
}

/// Has every command show what `/metrics` shows of the pod's NIC.
fn shown_alike(web: &Deployed) -> Result<(), String> {
    let device = web.device(0);
    let counted = Counted::of(&node::scrape().unwrap(), device);
    let top = weir_json(&[&["top", "--once"][..], &PLACES].concat());
    let inspected = weir_json(&[&["inspect", "default/web"][..], &PLACES].concat());
    let table = weir(&[&["top", "--once"][..], &PLACES].concat());
    let cells = row(&table, device);
    let in_table = |nth: usize| cells[nth].parse::<u64>().unwrap();
    let seen = [
        traffic(&top["attachments"][0]["traffic"]),
        traffic(&inspected[0]["traffic"]),
        Counted { received: in_table(5), denied: in_table(7), sent: in_table(8) },
    ];
    if seen == [counted; 3] { Ok(()) } else { Err(format!("{counted:?} but {seen:?}")) }
}

#[test]
fn every_command_shows_what_metrics_shows() {
    on_a_node(2, Options::default(), |node| {
        let mut filtering = config(0, "xdp");
        filtering["ebpf"]["filter"] = json!({ "ingress": {
            "defaultAction": "allow",
            "rules": [{ "name": "no-dns", "action": "deny", "protocol": "udp", "ports": [53] }],
        }});
        let web = deploy(node, "web", &[(0, filtering)]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);

        until("the commands agree with /metrics", || shown_alike(&web));

        let top = weir_json(&[&["top", "--once"][..], &PLACES].concat());
        let attachment = &top["attachments"][0];
        assert_eq!(
            (&attachment["pod"], &attachment["interface"], &attachment["hook"]),
            (&json!("web"), &json!("net0"), &json!("xdp"))
        );
        assert!(attachment["traffic"]["ingress"]["packets"].as_u64() >= Some(51), "{attachment}");

        let inspected = weir_json(&[&["inspect", web.device(0)][..], &PLACES].concat());
        let links: Vec<u32> = web.link_ids(0);
        let shown = inspected[0]["programs"].as_array().unwrap().iter();
        let ids = |hook: &Value| u32::try_from(hook["linkId"].as_u64().unwrap()).unwrap();
        assert_eq!(shown.map(ids).collect::<Vec<_>>(), links, "{inspected:#}");
        let text = weir(&[&["inspect", "default/web"][..], &PLACES].concat());
        for part in ["attached", "weir_", "no-dns", "net0"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }

        let devices = weir_json(&["devices"]);
        let names = devices["devices"].as_array().unwrap().iter().map(|it| it["name"].clone());
        assert_eq!(names.collect::<Vec<_>>(), ["nic1"], "what is in a pod is not on the host");
        let table = weir(&["devices"]);
        assert_eq!(row(&table, "nic1")[..3], ["nic1", "nic1", "veth"]);
        assert!(row(&table, "lo").len() > 1, "{table}");

        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}
