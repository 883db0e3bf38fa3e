//! Hardware that comes and goes faster than anybody wants to be told of.

use std::thread;
use std::time::{Duration, Instant};

use driver::model::{By, IfIndex, IfName};
use driver::sys::netlink::Netlink;
use tests::runtime::Options;

use super::publish::{await_devices, writes};
use super::world::on_a_node;

/// Of four changes each: there is a pair, one end has another name, and another, and it is gone.
const ROUNDS: u32 = 250;
/// A thousand changes in ten seconds.
const PACE: Duration = Duration::from_millis(40);
/// Pairs that there are at a time.
const PAIRS: u32 = 8;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn index(netlink: &Netlink, of: &str) -> IfIndex {
    netlink.link(&By::Name(name(of))).unwrap().expect(of).index
}

/// Four changes; the pair of some rounds ago goes, and this round's stays for the time being.
fn change(netlink: &Netlink, round: u32) {
    let end = format!("hot{round}");
    netlink.add_veth(&name(&end), &name(&format!("cold{round}"))).unwrap();
    let index = index(netlink, &end);
    for other in [format!("warm{round}"), end] {
        netlink.rename(index, &name(&other)).unwrap();
    }
    if let Some(former) = round.checked_sub(PAIRS) {
        netlink.delete(self::index(netlink, &format!("hot{former}"))).unwrap();
    }
}

#[test]
fn a_storm_of_a_thousand_changes_is_few_writes_and_the_last_state_is_published() {
    on_a_node(1, Options::default(), |node| {
        await_devices(node, &["nic0"]);
        node.server.forget_requests();
        let netlink = Netlink::open().unwrap();
        let started = Instant::now();
        for round in 0..ROUNDS {
            change(&netlink, round);
            thread::sleep((PACE * round).saturating_sub(started.elapsed()));
        }
        let took = started.elapsed();
        let stormy = writes(node).len();

        let last = ROUNDS - PAIRS..ROUNDS;
        let ends = last.flat_map(|round| [format!("cold{round}"), format!("hot{round}")]);
        let mut expected: Vec<String> = ends.chain(["nic0".to_owned()]).collect();
        expected.sort_unstable();
        await_devices(node, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        // A machine that is slow makes the storm a longer one.
        let allowed = took.as_secs().max(10);
        assert!(stormy as u64 <= allowed, "{stormy} writes in {took:?}");
        let after = writes(node).len() - stormy;
        assert!(after <= 2, "{after} writes after the storm");
        println!("ring: {stormy} slice writes in a storm of {took:.1?}, {after} after it");
    });
}
