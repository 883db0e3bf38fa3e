//! `weir node --log-drops`, switched on and off on a node at work.

use serde_json::json;
use tests::node::Node;
use tests::runtime::Options;
use tests::sandbox::traffic::{self, Expect};

use super::world::{Deployed, config, deploy, nothing_is_left, on_a_node, route, until};

const FLAG: &str = "--log-drops";

/// Sends what the filter drops.
fn knock(node: &Node, count: u64) {
    let tally = traffic::burst(node.network.wire(), route(0), count, Expect::Silence).unwrap();
    assert_eq!((tally.sent, tally.answered), (count, 0));
}

/// The lines about packets that were dropped, over all starts of the driver.
fn lines(node: &Node) -> Vec<String> {
    let log = node.driver.log();
    let is_it = |line: &&str| line.contains("weir::datapath") && line.contains("dropped");
    log.lines().filter(is_it).map(str::to_owned).collect()
}

fn until_lines(node: &Node, count: usize) -> Vec<String> {
    until("each packet has its line", || {
        let lines = lines(node);
        if lines.len() == count { Ok(lines) } else { Err(format!("{lines:#?}")) }
    })
}

fn restart(node: &mut Node) {
    node.driver.stop().unwrap();
    node.start_driver().unwrap();
}

fn program_ids(web: &Deployed) -> Vec<u32> {
    web.hooks(0).into_iter().map(|hook| hook.program_id).collect()
}

#[test]
fn dropped_packets_are_logged_from_a_start_with_the_flag_to_one_without() {
    on_a_node(1, Options::default(), |node| {
        let mut shut = config(0, "xdp");
        shut["ebpf"]["filter"] = json!({ "ingress": { "defaultAction": "allow",
            "rules": [{ "name": "shut", "action": "deny", "protocol": "udp" }] }});
        let web = deploy(node, "web", &[(0, shut)]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        until("packets are dropped", || {
            knock(node, 1);
            if web.pinned_count(0) > 0 { Ok(()) } else { Err("none has come".to_owned()) }
        });
        let silent = program_ids(&web);
        let counted = web.pinned_count(0);

        node.driver.add(FLAG);
        restart(node);
        assert_ne!(program_ids(&web), silent, "they are replaced");
        assert!(lines(node).is_empty());
        knock(node, 5);
        let said = until_lines(node, 5);
        let words = ["default/web", web.device(0), "ingress", "denied_rule", "udp", "198.18.0.1:"];
        for line in &said {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
        assert!(web.pinned_count(0) >= counted + 5, "counters go on");

        // What is dropped while there is no driver is told by the next one, of the same programs.
        let logging = program_ids(&web);
        node.driver.kill().unwrap();
        knock(node, 3);
        node.start_driver().unwrap();
        assert_eq!(program_ids(&web), logging);
        until_lines(node, 8);

        node.driver.remove(FLAG);
        restart(node);
        assert_ne!(program_ids(&web), logging);
        let before = web.pinned_count(0);
        knock(node, 5);
        assert!(web.pinned_count(0) >= before + 5);
        assert_eq!(lines(node).len(), 8, "nothing is told any more");
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}
