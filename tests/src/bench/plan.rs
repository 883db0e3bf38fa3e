//! What is measured: which programs, on which packets, under which names.

use std::net::IpAddr;

use common::names;
use driver::model::{AttachmentId, DatapathSpec, Filter, IngressHook, Telemetry};
use driver::testing;

use super::packet;
use super::rules::{self, Version};

/// Programs that are loaded once and run on some packets.
#[derive(Debug)]
pub(super) struct Group {
    /// Its program's sizes are reported under this name.
    pub(super) name: String,
    pub(super) program: Program,
    pub(super) cases: Vec<Case>,
}

/// One packet.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) packet: Vec<u8>,
    pub(super) passes: bool,
}

/// What is loaded.
#[derive(Debug)]
pub(super) enum Program {
    /// Ours, at one of its entry points.
    Own(Box<DatapathSpec>, &'static str),
    /// The same in C.
    InC(Box<DatapathSpec>),
    /// LPM trie and LRU hash.
    Textbook,
    /// Debian's, with [`rules::deny_list`].
    XdpFilter,
}

impl Program {
    /// What it is measured against, and how it says that a packet passes or does not.
    pub(super) fn hook(&self) -> Hook {
        match self {
            Self::Own(_, names::INGRESS | names::EGRESS) => Hook::Tcx,
            _ => Hook::Xdp,
        }
    }
}

/// Where a program would be attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hook {
    Xdp,
    Tcx,
}

impl Hook {
    pub(super) fn answer(self, passes: bool) -> u32 {
        match (self, passes) {
            (Self::Xdp, false) => 1,
            // XDP_PASS, and TCX_DROP.
            (Self::Xdp, true) | (Self::Tcx, false) => 2,
            // TCX_NEXT is -1.
            (Self::Tcx, true) => u32::MAX,
        }
    }
}

/// Names under which floods are reported, and the groups whose programs are flooded.
pub(super) const FLOODS: [(&str, &str); 6] = [
    ("flood_extra", FULL),
    ("flood_counters_extra", "counters"),
    ("flood_flows_extra", "counters_flows"),
    ("c_flood_extra", C_FULL),
    ("c_flood_flows_extra", "c_counters_flows"),
    ("textbook_flood_extra", TEXTBOOK),
];

pub(super) const FULL: &str = "counters_flows_rules16";
pub(super) const C_FULL: &str = "c_counters_flows_rules16";
const TEXTBOOK: &str = "textbook";

/// Everything off: nothing is left of such a program but its answer.
pub(super) fn empty(program: &'static str) -> Program {
    let spec = DatapathSpec { telemetry: Telemetry::Off, ..spec(None, Telemetry::Off) };
    Program::Own(Box::new(spec), program)
}

/// All groups, ours first.
pub(super) fn groups() -> Vec<Group> {
    let mut groups = ours();
    groups.extend(lists());
    groups.extend(equal());
    groups.extend(peers());
    groups
}

fn ours() -> Vec<Group> {
    let group = |name: &str, filter, telemetry, cases| Group {
        name: name.to_owned(),
        program: own(filter, telemetry, names::XDP),
        cases,
    };
    let both = |name: &str| {
        let v6 = format!("{name}_v6");
        vec![case(name, packet::SOURCE, true), case(&v6, packet::SOURCE_V6, true)]
    };
    let mut full = both(FULL);
    full.push(case(&format!("{FULL}_miss"), [172, 16, 0, 1], false));
    let tcx = |name: &str, filter, telemetry| Group {
        name: name.to_owned(),
        program: own(filter, telemetry, names::INGRESS),
        cases: vec![case(name, packet::SOURCE, true)],
    };
    vec![
        group("counters", None, Telemetry::Counters, both("counters")),
        group("counters_flows", None, Telemetry::Flows, both("counters_flows")),
        group(FULL, Some(rules::sixteen()), Telemetry::Flows, full),
        tcx("counters_tcx", None, Telemetry::Counters),
        tcx("counters_flows_rules16_tcx", Some(rules::sixteen()), Telemetry::Flows),
    ]
}

/// Counters, flows and a list of rules: hit first, hit last, missed.
fn lists() -> Vec<Group> {
    let mut groups = Vec::new();
    for (version, suffix) in [(Version::V4, ""), (Version::V6, "_v6")] {
        for count in [1, 64, 1024, 4096] {
            let named = |what: &str| format!("rules{count}{what}{suffix}");
            let hit = |what, n| case(&named(what), rules::source_of(version, count, n), true);
            let mut cases = if count == 1 {
                vec![hit("", 0)]
            } else {
                vec![hit("_hit_first", 0), hit("_hit_last", count - 1)]
            };
            cases.push(case(&named("_miss"), rules::near_miss(version, count), false));
            let filter = Some(rules::list(version, count));
            let program = own(filter, Telemetry::Flows, names::XDP);
            groups.push(Group { name: named(""), program, cases });
        }
    }
    groups.push(Group {
        name: "rules4096_worst".to_owned(),
        program: own(Some(rules::worst()), Telemetry::Flows, names::XDP),
        cases: vec![case("rules4096_worst", packet::SOURCE, false)],
    });
    groups
}

/// The same deny list, by us and by xdp-filter.
fn equal() -> Vec<Group> {
    let own = own(Some(rules::denying()), Telemetry::Counters, names::XDP);
    [("own_equal", own), ("xdp_filter_equal", Program::XdpFilter)]
        .map(|(name, program)| {
            let mut cases = vec![case(name, packet::SOURCE, true)];
            let denied = rules::deny_list().nth(32);
            cases.extend(denied.map(|source| case(&format!("{name}_hit"), source, false)));
            Group { name: name.to_owned(), program, cases }
        })
        .into()
}

fn peers() -> Vec<Group> {
    let in_c = |name: &str, filter, telemetry| Group {
        name: name.to_owned(),
        program: Program::InC(Box::new(spec(filter, telemetry))),
        cases: vec![
            case(name, packet::SOURCE, true),
            case(&format!("{name}_v6"), packet::SOURCE_V6, true),
        ],
    };
    vec![
        in_c("c_counters", None, Telemetry::Counters),
        in_c("c_counters_flows", None, Telemetry::Flows),
        in_c(C_FULL, Some(rules::sixteen()), Telemetry::Flows),
        Group {
            name: TEXTBOOK.to_owned(),
            program: Program::Textbook,
            cases: vec![case(TEXTBOOK, packet::SOURCE, true)],
        },
    ]
}

fn case(name: &str, source: impl Into<IpAddr>, passes: bool) -> Case {
    let packet = match source.into() {
        IpAddr::V4(source) => packet::v4(source),
        IpAddr::V6(source) => packet::v6(source),
    };
    Case { name: name.to_owned(), packet, passes }
}

fn own(filter: Option<Filter>, telemetry: Telemetry, program: &'static str) -> Program {
    Program::Own(Box::new(spec(filter, telemetry)), program)
}

/// Without a filter and with counters: what the throughput is measured with.
pub(super) fn counting() -> DatapathSpec {
    DatapathSpec { ingress: IngressHook::Tcx, ..spec(None, Telemetry::Counters) }
}

fn spec(filter: Option<Filter>, telemetry: Telemetry) -> DatapathSpec {
    #[expect(clippy::expect_used, reason = "the names are well-formed")]
    let id = AttachmentId {
        claim: "bench".parse().expect("a claim's UID"),
        device: "nic0".parse().expect("a device's name"),
        share: None,
    };
    DatapathSpec { telemetry, filter, ..testing::spec(id, IngressHook::Xdp) }
}
