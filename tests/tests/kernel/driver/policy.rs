//! An operator's rules over those of a claim, on a node at work.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::node::{Node, STATE_DIR};
use tests::runtime::Options;
use tests::sandbox::traffic::{self, Expect, Stream};

use super::look::{PLACES, weir, weir_json};
use super::world::{
    Deployed, answer_in, config, deploy, nothing_is_left, on_a_node, route, talk, until,
};

const ALL: [&str; 3] = ["--all", "--state-dir", STATE_DIR];

/// Denies all that comes from the wire.
fn incident() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let text = "\
apiVersion: weir.dev/v1alpha1
kind: NodePolicy
filter:
  ingress:
    rules:
    - {name: incident, action: deny, cidrs: [198.18.0.0/24]}
";
    fs::write(file.path(), text).unwrap();
    file
}

fn apply(file: &NamedTempFile) -> Value {
    let words = ["policy", "apply", "--file", file.path().to_str().unwrap()];
    weir_json(&[&words[..], &ALL].concat())
}

/// What the one device's rules are: name, origin, and what each matched.
fn rules(web: &Deployed) -> Vec<(String, String, u64)> {
    let inspected = weir_json(&[&["inspect", web.device(0)][..], &PLACES].concat());
    let rules =
        inspected[0]["datapath"]["rules"].as_array().unwrap_or_else(|| panic!("{inspected:#}"));
    let text = |rule: &Value, field: &str| rule[field].as_str().unwrap().to_owned();
    rules
        .iter()
        .map(|rule| (text(rule, "rule"), text(rule, "origin"), rule["packets"].as_u64().unwrap()))
        .collect()
}

/// What the one device's first rule has matched, which has to be the operator's.
fn hits(web: &Deployed) -> u64 {
    let rules = rules(web);
    assert_eq!((rules[0].0.as_str(), rules[0].1.as_str()), ("incident", "operator"), "{rules:?}");
    rules[0].2
}

fn hits_grow(web: &Deployed) {
    let before = hits(web);
    until("the operator's rule matches", || {
        let now = hits(web);
        if now > before { Ok(()) } else { Err(format!("still {now}")) }
    });
}

/// What `weir policy show` says in both forms.
fn shown(web: &Deployed) -> (Value, String) {
    let words =
        [&["policy", "show", "--device", web.device(0), "--state-dir", STATE_DIR][..]].concat();
    (weir_json(&words)[0].clone(), weir(&words))
}

fn is_shown(web: &Deployed) {
    let (json, text) = shown(web);
    assert_eq!((&json["generation"], &json["inForce"]), (&json!(2), &json!(true)), "{json:#}");
    assert_eq!(json["filter"]["ingress"]["rules"][0]["origin"], "operator");
    assert_eq!(json["policy"]["ingress"]["rules"][0]["name"], "incident");
    let row = "ingress    incident  operator  deny    from 198.18.0.0/24\n";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("ingress    no-dns    claim     deny    udp to port 53\n"), "{text}");
}

/// Nothing that is sent now is answered.
fn is_cut(node: &Node) {
    let tally = traffic::burst(node.network.wire(), route(0), 20, Expect::Silence).unwrap();
    assert_eq!((tally.sent, tally.answered), (20, 0));
}

/// What the checkpoint holds, as it is on disk.
fn on_disk() -> String {
    let files = fs::read_dir(Path::new(STATE_DIR)).unwrap().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

#[test]
fn an_operators_rule_cuts_a_flow_at_once_outlives_the_driver_and_goes_when_cleared() {
    on_a_node(1, Options::default(), |node| {
        let mut filtering = config(0, "tcx");
        filtering["ebpf"]["filter"] = json!({ "ingress": { "defaultAction": "allow",
            "rules": [{ "name": "no-dns", "action": "deny", "protocol": "udp", "ports": [53] }] }});
        let web = deploy(node, "web", &[(0, filtering)]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);
        let stream = Stream::start(node.network.wire(), route(0)).unwrap();
        let links = web.link_ids(0);

        let file = incident();
        let applied = apply(&file);
        // From the answer on nothing comes through: not of the stream that runs, nor of another.
        is_cut(node);
        hits_grow(&web);
        let tally = stream.stop();
        assert!(tally.answered > 0 && tally.lost() > 0, "{tally:?}");
        assert_eq!(hits(&web), 20 + tally.lost(), "each is answered or denied: {tally:?}");
        let stream = Stream::start(node.network.wire(), route(0)).unwrap();
        assert_eq!(applied[0]["generation"], 2, "{applied:#}");
        assert_eq!(
            (&applied[0]["operatorRules"], &applied[0]["claimRules"]),
            (&json!(1), &json!(1))
        );
        is_shown(&web);
        let inspected = weir(&[&["inspect", "default/web"][..], &PLACES].concat());
        assert!(inspected.contains("ingress    operator  incident  deny"), "{inspected}");
        assert!(on_disk().contains("\"incident\""));
        assert_eq!(apply(&file)[0]["tookMicroseconds"], 0, "it was in force");

        node.driver.kill().unwrap();
        hits_grow(&web);
        is_shown(&web);
        let before = hits(&web);
        node.start_driver().unwrap();
        is_shown(&web);
        assert!(hits(&web) >= before, "what was counted goes on");
        is_cut(node);
        hits_grow(&web);
        assert_eq!((web.phases(), web.link_ids(0)), (vec!["attached"], links.clone()));

        let cleared = weir_json(&[&["policy", "clear"][..], &ALL].concat());
        assert_eq!(
            (&cleared[0]["generation"], &cleared[0]["operatorRules"]),
            (&json!(3), &json!(0))
        );
        talk(node, 0);
        let tally = stream.stop();
        assert!(tally.answered > 0 && tally.lost() > 0, "{tally:?}");
        assert_eq!(rules(&web).len(), 1);
        assert_eq!(shown(&web).0["policy"], Value::Null);
        assert!(!on_disk().contains("\"incident\""));
        assert_eq!(web.link_ids(0), links);

        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn an_operators_rule_ends_with_the_claim() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        node.prepare(&web.claims()).unwrap();
        // Before the sandbox starts, and of a claim that has no filter.
        let applied = apply(&incident());
        assert_eq!(
            (&applied[0]["operatorRules"], &applied[0]["claimRules"]),
            (&json!(1), &json!(0))
        );
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        is_cut(node);
        hits_grow_by_sending(node, &web);

        node.stop_sandbox(&web.pod).unwrap();
        assert_eq!(shown(&web).0["policy"]["ingress"]["rules"][0]["name"], "incident");
        node.unprepare(&web.claims()).unwrap();
        assert!(!on_disk().contains("\"incident\""));
        echo.stop();
        drop(netns);
        nothing_is_left();

        node.prepare(&web.claims()).unwrap();
        assert_eq!(shown(&web).0["policy"], Value::Null);
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);
        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

/// The wire may be slow to come up, see [`talk`].
fn hits_grow_by_sending(node: &Node, web: &Deployed) {
    until("the operator's rule matches", || {
        is_cut(node);
        if hits(web) > 0 { Ok(()) } else { Err("nothing was matched".to_owned()) }
    });
}
