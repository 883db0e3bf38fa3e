//! Into a sandbox and back.

use std::time::{Duration, Instant};

use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use tests::node::sandbox;
use tests::runtime::{self, EventStyle, HookError, Options, PodSandbox};

use super::world::{answer_in, config, deploy, inside, looks, nothing_is_left, on_a_node, talk};

#[test]
fn both_styles_of_events_attach_and_detach() {
    let later = Options { style: EventStyle::Dedicated, ..Options::default() };
    let earlier = Options {
        announces_timeouts: false,
        netns_at_stop: runtime::Netns::Forgotten,
        ..Options::default()
    };
    for options in [later, earlier] {
        on_a_node(2, options, |node| {
            let web = deploy(node, "web", &[(0, config(0, "xdp")), (1, config(1, "auto"))]);
            let before = [looks(node, 0), looks(node, 1)];
            node.prepare(&web.claims()).unwrap();

            let (netns, _) = node.run_sandbox(&web.pod).unwrap();
            assert_eq!(web.phases(), ["attached"; 2]);
            assert_eq!([looks(node, 0), looks(node, 1)], [None, None]);
            let echo = answer_in(&netns);
            for nth in [0, 1] {
                talk(node, nth);
                assert!(web.agrees_with_the_wire(node, nth).received >= 51);
            }
            echo.stop();
            drop(netns);
            web.end(node);

            assert_eq!([looks(node, 0), looks(node, 1)], before);
            nothing_is_left();
        });
    }
}

#[test]
fn a_name_that_is_taken_in_the_pod_fails_the_sandbox_and_puts_every_nic_back() {
    on_a_node(2, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp")), (1, config(1, "tcx"))]);
        node.prepare(&web.claims()).unwrap();
        let before = [looks(node, 0), looks(node, 1)];
        let links = [web.link_ids(0), web.link_ids(1)];

        // The first NIC is moved already when the second finds its name taken.
        let first = PodSandbox { id: "first".to_owned(), ..sandbox(&web.pod) };
        let path = first.netns.clone().unwrap();
        let netns = Netns::create(&path).unwrap();
        let [taken, other] = ["net1", "other"].map(|name| name.parse().unwrap());
        Netlink::open_in(&netns).unwrap().add_veth(&taken, &other).unwrap();
        let own = inside(&netns, "net1");
        let started = Instant::now();
        let refused = node.runtime.run_pod_sandbox(&first).unwrap_err();

        let took = started.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?} are more than the budget");
        let HookError::Plugin(error) = refused else { panic!("{refused:?}") };
        for part in ["default/web", web.device(1), "net1", "exists"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(!error.contains("could not be undone"), "{error}");
        assert_eq!([looks(node, 0), looks(node, 1)], before);
        assert_eq!([web.link_ids(0), web.link_ids(1)], links);
        assert_eq!(inside(&netns, "net1"), own);
        assert_eq!(inside(&netns, "net0"), None);
        assert_eq!(web.phases(), ["prepared"; 2]);
        drop(netns);
        Netns::remove(&path).unwrap();

        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        for nth in [0, 1] {
            talk(node, nth);
            web.agrees_with_the_wire(node, nth);
        }
        echo.stop();
        drop(netns);
        web.end(node);
        assert_eq!([looks(node, 0), looks(node, 1)], before);
        nothing_is_left();
    });
}
