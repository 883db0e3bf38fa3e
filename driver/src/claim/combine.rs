//! What the layers come to: the wishes, with the defaults where nobody says anything.

use std::collections::BTreeMap;
use std::fmt;

use super::dranet::Dialect;
use super::fields::{
    ADDRESSES, CHANNELS, COALESCE, CPUS, DAD, DHCP, EGRESS, EXPORT_PACKETS, FEATURES, FLOW_ENTRIES,
    FLOWS, GRO, GRO_IPV4, GSO, GSO_IPV4, HOOK, INGRESS, INHERIT, LINK_STATE, MAC, MAX_RATE,
    MIN_RATE, MTU, NAME, NEIGHBORS, PRIVATE_FLAGS, PROFILE, PROGRAMS, RINGS, ROUTES, RULES,
    SETTINGS, SPOOF_CHECK, SUBINTERFACE, TELEMETRY, TRUST, VF_VLAN, VRF,
};
use super::interface::Programs;
use super::merge::{Entries, Entry, Field, Merge};
use super::route::{WrittenRoute, is_taken};
use super::{ANY_HZ, Known, Source, together};
use crate::model::{
    Alignment, DirectionFilter, EbpfWishes, EthtoolWishes, Filter, FlowWishes, HookWish, Inherit,
    InterfaceWishes, Problems, Route, Segments, SysctlName, Telemetry, VfSettings, Vrf, Wishes,
};
use crate::policy::compile;

/// Settings of the network stack, each with the source that says it.
pub(super) type Said<'a> = BTreeMap<SysctlName, (&'a Source<'a>, &'a Entry<String>)>;

/// Merges everything, and tells what does not go together.
pub(super) fn wishes(merge: &mut Merge<'_>, known: Known) -> Wishes {
    let settings = merge.settle_map(&SETTINGS);
    let interface = interface(merge, &settings);
    let wishes = Wishes {
        profile: merge.settle(&PROFILE),
        routes: routes(merge, interface.vrf.as_ref()),
        interface,
        rules: merge.settle(&RULES).unwrap_or_default(),
        neighbors: merge.settle(&NEIGHBORS).unwrap_or_default(),
        ethtool: EthtoolWishes {
            features: map(merge, &FEATURES),
            private_flags: map(merge, &PRIVATE_FLAGS),
            rings: map(merge, &RINGS),
            channels: map(merge, &CHANNELS),
            coalesce: map(merge, &COALESCE),
        },
        sriov: sriov(merge),
        subinterface: merge.settle(&SUBINTERFACE),
        alignment: Alignment { cpus: merge.settle(&CPUS).unwrap_or_default() },
        ebpf: EbpfWishes::default(),
    };
    together::check(merge, &wishes, &settings);
    Wishes { ebpf: ebpf(merge, known), ..wishes }
}

fn sriov(merge: &mut Merge<'_>) -> VfSettings {
    VfSettings {
        mac: None,
        vlan: merge.settle(&VF_VLAN),
        trust: merge.settle(&TRUST),
        spoof_check: merge.settle(&SPOOF_CHECK),
        min_tx_rate_mbps: merge.settle(&MIN_RATE),
        max_tx_rate_mbps: merge.settle(&MAX_RATE),
        link_state: merge.settle(&LINK_STATE),
    }
}

fn interface(merge: &mut Merge<'_>, settings: &Said<'_>) -> InterfaceWishes {
    let setting = |(name, (_, entry)): (&SysctlName, &(_, &Entry<String>))| {
        (name.clone(), entry.value.clone())
    };
    InterfaceWishes {
        name: merge.settle(&NAME),
        addresses: merge.settle(&ADDRESSES),
        dad: merge.settle(&DAD).unwrap_or_default(),
        dhcp: merge.settle(&DHCP).unwrap_or_default(),
        mtu: merge.settle(&MTU),
        mac: merge.settle(&MAC),
        segments: Segments {
            gso_max_size: merge.settle(&GSO),
            gro_max_size: merge.settle(&GRO),
            gso_ipv4_max_size: merge.settle(&GSO_IPV4),
            gro_ipv4_max_size: merge.settle(&GRO_IPV4),
        },
        sysctls: settings.iter().map(setting).collect(),
        disable_ebpf_programs: match merge.settle(&PROGRAMS) {
            Some(Programs::Leave(programs)) => Some(programs),
            Some(Programs::Stay) | None => None,
        },
        vrf: merge.settle(&VRF),
        inherit: merge.settle(&INHERIT).unwrap_or_else(|| inherit(merge)),
    }
}

/// What is taken along where nobody says it: everything, unless something else is wished for. A
/// sub-interface is new, there is nothing to take. DraNet takes routes along in any case.
fn inherit(merge: &Merge<'_>) -> Inherit {
    let is_dranet = |layer: Option<&super::layer::Layer>| {
        layer.is_some_and(|layer| layer.dialect == Dialect::Dranet)
    };
    if merge.last(&SUBINTERFACE).is_some() {
        Inherit::None
    } else if merge.value(&DHCP) == Some(true) {
        if is_dranet(merge.layer(&DHCP)) { Inherit::Routes } else { Inherit::None }
    } else if merge.last(&ADDRESSES).is_some() {
        if is_dranet(merge.layer(&ADDRESSES)) { Inherit::All } else { Inherit::None }
    } else {
        Inherit::All
    }
}

/// The routes, all of them in the VRF's table where there is a VRF.
fn routes(merge: &mut Merge<'_>, vrf: Option<&Vrf>) -> Vec<Route> {
    let written = merge.settle(&ROUTES).unwrap_or_default();
    let Some(vrf) = vrf else {
        return written.into_iter().map(|it| it.route).collect();
    };
    let fits = |it: &WrittenRoute| it.table.is_none_or(|table| table == vrf.table);
    let inside = |it: &WrittenRoute| Route { table: vrf.table, ..it.route.clone() };
    for (nth, it) in written.iter().enumerate() {
        if let Some(table) = it.table.filter(|table| *table != vrf.table) {
            let (ours, theirs) = (table.0, vrf.table.0);
            let message = format!("is {ours}, but routes in a VRF are in its table, {theirs}");
            merge.clash_at(&ROUTES, &format!("routes[{nth}].table"), &VRF, message);
            continue;
        }
        // Of one table already they have been told.
        let is_news = |other: &&WrittenRoute| fits(other) && other.route.table != it.route.table;
        let others = written[..nth].iter().filter(is_news);
        let others: Vec<_> = others.map(inside).collect();
        if let Some(message) = is_taken(&inside(it), others.iter()) {
            merge.clash_at(&ROUTES, &format!("routes[{nth}].destination"), &VRF, message);
        }
    }
    written.iter().map(inside).collect()
}

fn map<V: Clone + fmt::Debug + PartialEq + 'static>(
    merge: &mut Merge<'_>,
    field: &Field<Entries<String, V>>,
) -> BTreeMap<String, V> {
    let merged = merge.settle_map(field);
    merged.into_iter().map(|(name, (_, entry))| (name, entry.value.clone())).collect()
}

fn ebpf(merge: &mut Merge<'_>, known: Known) -> EbpfWishes {
    let hook = merge.settle(&HOOK).unwrap_or_default();
    let telemetry = merge.settle(&TELEMETRY);
    let filter = filter(merge);
    if hook == HookWish::None {
        check_no_hook(merge, telemetry);
    }
    let default = if hook == HookWish::None { Telemetry::Off } else { Telemetry::Counters };
    EbpfWishes { hook, telemetry: telemetry.unwrap_or(default), flows: flows(merge, known), filter }
}

/// How flows are kept. Said where nothing is kept, it is a mistake, unless a later source has
/// switched flows off. Where the class is not known, it may have switched them on.
fn flows(merge: &mut Merge<'_>, known: Known) -> FlowWishes {
    let default = FlowWishes::default();
    let is_off = match merge.last(&TELEMETRY) {
        None => known == Known::All,
        Some((by, telemetry)) => {
            let is_later = merge
                .last(&FLOWS)
                .is_some_and(|(source, _)| (source.origin, source.index) >= (by.origin, by.index));
            matches!(telemetry.as_ref().said(), Some(Telemetry::Off | Telemetry::Counters))
                && is_later
        }
    };
    if is_off {
        merge.refuse(&FLOWS, "go with telemetry: flows only");
    }
    FlowWishes {
        entries: merge.settle(&FLOW_ENTRIES).unwrap_or(default.entries),
        export_packets: merge.settle(&EXPORT_PACKETS).unwrap_or(default.export_packets),
    }
}

/// Without a program nothing can count or filter; asking for both is a contradiction.
fn check_no_hook(merge: &mut Merge<'_>, telemetry: Option<Telemetry>) {
    let counts = match telemetry {
        Some(Telemetry::Counters) => Some("counters"),
        Some(Telemetry::Flows) => Some("flows"),
        Some(Telemetry::Off) | None => None,
    };
    if let Some(counts) = counts {
        merge.clash(&TELEMETRY, &HOOK, format!("{counts} need a program, but hook is none"));
    }
    for direction in [&INGRESS, &EGRESS] {
        merge.clash(direction, &HOOK, "a filter needs a program, but hook is none");
    }
}

/// The filter, if it fits the programs.
fn filter(merge: &mut Merge<'_>) -> Option<Filter> {
    let (ingress, egress) = (merge.settle(&INGRESS), merge.settle(&EGRESS));
    if ingress.is_none() && egress.is_none() {
        return None;
    }
    let filter = Filter { ingress, egress };
    if let Err(limits) = compile(&filter, ANY_HZ) {
        let mut found = Problems::default();
        found.extend_below("ebpf.filter", limits);
        for problem in &found {
            let is_egress = problem.path.starts_with(EGRESS.path);
            let direction: &Field<DirectionFilter> = if is_egress { &EGRESS } else { &INGRESS };
            merge.refuse_at(direction, &problem.path, &problem.message);
        }
    }
    Some(filter)
}
