//! What can be set about an interface.

use std::fs;
use std::sync::mpsc;

use driver::model::{At, Family, MacAddr, Place, SYSCTLS, Segments};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Subject, Was};
use driver::sys::cookie;
use driver::sys::sysctl::Sysctls;

use super::stage::{IN_POD, Stage, in_pod, on_host};

fn path(at: &At, family: Family, name: &str) -> String {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    format!("{family}/conf/{}/{name}", at.interface)
}

#[test]
fn mtu_mac_and_up_come_and_go() {
    on_host(|stage| {
        stage.enter_pod();
        let at = stage.in_pod();
        let mac: MacAddr = "02:00:00:00:00:77".parse().unwrap();
        stage.there_and_back(&at, &Step::SetMtu { at: at.clone(), mtu: 9000 }, |seen| {
            assert_eq!(seen.link["mtu"], 9000);
        });
        stage.there_and_back(&at, &Step::SetMac { at: at.clone(), mac }, |seen| {
            assert_eq!(seen.link["address"], "02:00:00:00:00:77");
        });
        stage.there_and_back(&at, &Step::SetUp { at: at.clone() }, |seen| {
            assert!(seen.link["flags"].to_string().contains("\"UP\""), "{}", seen.link);
        });
    });
}

#[test]
fn every_sysctl_that_a_claim_may_name_is_written_and_put_back() {
    in_pod(|stage| {
        let at = stage.in_pod();
        for (family, name) in SYSCTLS {
            let name = path(&at, family, name);
            let before = stage.sysctl(&at.place, &name);
            let value = if before == "1" { "0" } else { "1" };
            let step = Step::SetSysctl {
                place: at.place.clone(),
                name: name.clone(),
                value: value.to_owned(),
            };
            let was = stage.twice(&step);
            assert_eq!(was, Was::Value(before.clone()), "{name}");
            assert_eq!(stage.sysctl(&at.place, &name), value, "{name}");
            stage.back(&step, &was);
            assert_eq!(stage.sysctl(&at.place, &name), before, "{name}");
        }
    });
}

#[test]
fn a_sysctl_that_is_not_there_is_named() {
    in_pod(|stage| {
        let place = stage.place();
        for name in ["ipv4/conf/net1/nonsense", "ipv4/conf/net9/rp_filter", "ipv4/../core/x"] {
            let (name, value) = (name.to_owned(), "1".to_owned());
            let step = Step::SetSysctl { place: place.clone(), name: name.clone(), value };
            assert!(stage.refused(&step).message.contains(&name), "{name}");
        }
    });
}

/// On which writing to a pod's settings without a visit relies.
#[test]
fn a_sysctl_directory_stays_in_its_namespace() {
    in_pod(|stage| {
        let name = format!("ipv4/conf/{IN_POD}/rp_filter");
        let sysctls = Sysctls::of(&stage.pod.netns).unwrap();
        assert!(!fs::exists(format!("/proc/sys/net/{name}")).unwrap(), "there is none on the host");
        // Also by a thread that was never there, which is this one.
        sysctls.write(&name, "2").unwrap();
        assert_eq!(sysctls.read(&name).unwrap(), "2");
        let place = stage.place();
        assert_eq!(stage.sysctl(&place, &name), "2");
        sysctls.write("ipv4/conf/all/log_martians", "1").unwrap();
        assert_eq!(stage.sysctl(&place, "ipv4/conf/all/log_martians"), "1");
        assert_eq!(stage.sysctl(&Place::Host, "ipv4/conf/all/log_martians"), "0");
    });
}

fn segments(gso: Option<u32>, gso_ipv4: Option<u32>) -> Segments {
    Segments { gso_max_size: gso, gso_ipv4_max_size: gso_ipv4, ..Segments::default() }
}

#[test]
fn segments_come_and_go_together_with_what_the_kernel_makes_follow() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let set = |segments| Step::SetSegments { at: at.clone(), segments };
        stage.there_and_back(&at, &set(segments(Some(30_000), None)), |seen| {
            assert_eq!(seen.link["gso_max_size"], 30_000);
        });
        stage.there_and_back(&at, &set(segments(Some(65_000), None)), |seen| {
            assert_eq!(seen.link["gso_max_size"], 65_000);
        });
        if stage.state(&at).segments.gso_ipv4_max_size.is_none() {
            let error = stage.refused(&set(segments(None, Some(20_000))));
            assert!(error.message.contains("has no limit on a GSO size for IPv4"), "{error}");
            return;
        }
        assert_eq!(follows(stage, &at), Some(30_000), "up to 65536 IPv4 follows");
        // Undone after one that made IPv4 differ, IPv4 differs again.
        stage.twice(&set(segments(None, Some(20_000))));
        stage.there_and_back(&at, &set(segments(Some(100_000), None)), |seen| {
            assert_eq!(seen.link["gso_max_size"], 100_000);
        });
        stage.there_and_back(&at, &set(segments(Some(50_000), None)), |_| {});
        assert_eq!(stage.state(&at).segments.gso_ipv4_max_size, Some(20_000));
        all_limits_at_once(stage, &at);
    });
}

fn all_limits_at_once(stage: &mut Stage, at: &At) {
    let all = Segments {
        gso_max_size: Some(90_000),
        gro_max_size: Some(80_000),
        gso_ipv4_max_size: Some(70_000),
        gro_ipv4_max_size: Some(60_000),
    };
    let step = Step::SetSegments { at: at.clone(), segments: all };
    stage.there_and_back(at, &step, |seen| assert_eq!(seen.link["gro_max_size"], 80_000));
    stage.twice(&step);
    assert_eq!(stage.state(at).segments, all);
}

/// What becomes of the limit for IPv4 where the other is lowered.
fn follows(stage: &mut Stage, at: &At) -> Option<u32> {
    let step = Step::SetSegments { at: at.clone(), segments: segments(Some(30_000), None) };
    let was = stage.node.apply(&step).unwrap();
    let seen = stage.state(at).segments.gso_ipv4_max_size;
    stage.back(&step, &was);
    seen
}

#[test]
fn segments_that_a_device_cannot_do_are_refused() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let step = Step::SetSegments { at, segments: segments(Some(10_000_000), None) };
        assert!(stage.refused(&step).message.contains("GSO"));
    });
}

#[test]
fn a_namespace_has_the_cookie_that_its_sockets_have() {
    in_pod(|stage| {
        let netns = stage.netns();
        let Observed::Cookie(cookie) = stage.node.observe(&Subject::Cookie(netns)).unwrap() else {
            panic!("no cookie");
        };
        let (sender, receiver) = mpsc::channel();
        stage.pod.netns.run(|_| sender.send(cookie_of_this_thread()).unwrap()).unwrap();
        assert_eq!(receiver.recv().unwrap(), cookie);
        assert_ne!(cookie_of_this_thread(), cookie);
    });
}

/// By a socket of another kind.
fn cookie_of_this_thread() -> u64 {
    cookie::of(&std::net::UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap()
}
