//! The laws again, for claims that ask for anything: whatever fails, and whenever the driver dies.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::functions::{add_functions, make_rdma, make_rdma_only, make_vf, make_vfio};
use super::*;
use crate::model::{
    Dad, Device, EthtoolWishes, Family, IpvlanMode, MacvlanMode, Neighbor, OtherPrograms, Rule,
    Segments, SubinterfaceKind, SysctlName, TableId, VfSettings, VfVlan, Vrf,
};

/// How many claims each law is tried on; there are four laws.
const CASES: u32 = 2600;

/// What the driver is asked for, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Prepare,
    Attach,
    Detach,
    Unprepare,
}

const CALLS: [Call; 4] = [Call::Prepare, Call::Attach, Call::Detach, Call::Unprepare];

fn numbers(names: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, u32>> {
    btree_map(select(names).prop_map(str::to_owned), 1..64_u32, 0..3)
}

fn flags(names: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, bool>> {
    btree_map(select(names).prop_map(str::to_owned), any::<bool>(), 0..3)
}

fn ethtool() -> impl Strategy<Value = EthtoolWishes> {
    (
        flags(&["rx-gro", "tso"]),
        flags(&["legacy-rx"]),
        numbers(&["rx", "tx"]),
        numbers(&["combined"]),
        numbers(&["rxUsecs"]),
    )
        .prop_map(|(features, private_flags, rings, channels, coalesce)| EthtoolWishes {
            features,
            private_flags,
            rings,
            channels,
            coalesce,
        })
}

fn interface(number: u8) -> impl Strategy<Value = InterfaceWishes> {
    let address = move |low| format!("198.51.{number}.{low}/24").parse().unwrap();
    let segments = (option::of(60_000..500_000_u32), option::of(60_000..500_000_u32));
    let sysctl = (select(&["arp_ignore", "rp_filter", "forwarding"][..]), 0..3_u8);
    let inherit = [Inherit::All, Inherit::Addresses, Inherit::Routes, Inherit::None];
    let programs = [OtherPrograms::All, OtherPrograms::Named(vec!["stranger".to_owned()])];
    (
        option::of(vec((1..250_u8).prop_map(address), 0..4)),
        any::<bool>(),
        option::of(68..9000_u32),
        option::of(Just(MacAddr([2, 0, 0, 9, 9, number]))),
        segments,
        vec(sysctl, 0..3),
        option::of(select(programs.to_vec())),
        option::of((select(&["red", "blue"][..]), 1000..1002_u32)),
        select(inherit.to_vec()),
    )
        .prop_map(
            move |(addresses, dad, mtu, mac, segments, sysctls, programs, vrf, inherit)| {
                let sysctl = |(name, value): (&str, u8)| {
                    (SysctlName { family: Family::Ipv4, name: name.to_owned() }, value.to_string())
                };
                InterfaceWishes {
                    name: Some(format!("net{number}").parse().unwrap()),
                    addresses,
                    dad: if dad { Dad::Run } else { Dad::Skip },
                    mtu,
                    mac,
                    segments: Segments {
                        gso_max_size: segments.0,
                        gro_ipv4_max_size: segments.1,
                        ..Segments::default()
                    },
                    sysctls: sysctls.into_iter().map(sysctl).collect(),
                    disable_ebpf_programs: programs,
                    // Both devices agree about what they share.
                    vrf: vrf.map(|(name, _)| Vrf {
                        name: name.parse().unwrap(),
                        table: TableId(if name == "red" { 1000 } else { 1001 }),
                    }),
                    inherit,
                    ..InterfaceWishes::default()
                }
            },
        )
}

/// What a device is beside, or in place of, its interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Plain,
    /// A virtual function.
    Function,
    /// One with an RDMA device that moves along.
    WithRdma,
    RdmaOnly,
    Vfio,
}

impl Kind {
    fn any() -> impl Strategy<Value = Self> {
        let kinds = [Self::Plain, Self::Function, Self::WithRdma, Self::RdmaOnly, Self::Vfio];
        select(kinds.to_vec())
    }

    fn make(self, device: &mut Device, number: u32) {
        match self {
            Self::Plain => {}
            Self::Function => make_vf(device, number),
            Self::WithRdma => {
                make_vf(device, number);
                make_rdma(device, number);
            }
            Self::RdmaOnly => make_rdma_only(device, number),
            Self::Vfio => make_vfio(device, number),
        }
    }

    /// What of `wishes` it can have.
    fn wishes(self, wishes: &Wishes) -> Wishes {
        match self {
            Self::RdmaOnly | Self::Vfio => Wishes::default(),
            Self::Plain => Wishes { sriov: VfSettings::default(), ..wishes.clone() },
            Self::Function | Self::WithRdma => wishes.clone(),
        }
    }
}

fn sriov() -> impl Strategy<Value = VfSettings> {
    let vlan = (0..3_u16).prop_map(|id| VfVlan { id, ..VfVlan::default() });
    let (flag, other) = (option::of(any::<bool>()), option::of(any::<bool>()));
    (option::of(vlan), flag, other, option::of(0..3_u32), option::of(3..6_u32)).prop_map(
        |(vlan, trust, spoof_check, min_tx_rate_mbps, max_tx_rate_mbps)| VfSettings {
            vlan,
            trust,
            spoof_check,
            min_tx_rate_mbps,
            max_tx_rate_mbps,
            ..VfSettings::default()
        },
    )
}

fn any_wishes(number: u8) -> impl Strategy<Value = Wishes> {
    let route = (1..250_u8, any::<bool>(), select(&[254_u32, 77][..]), option::of(1..9_u32));
    let kinds = [
        SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge },
        SubinterfaceKind::Ipvlan { mode: IpvlanMode::L2 },
        SubinterfaceKind::Vlan { vlan_id: 7 },
    ];
    let hooks = [None, Some(crate::model::HookWish::Tcx), Some(crate::model::HookWish::None)];
    (
        interface(number),
        vec(route, 0..4),
        vec(1..5_u32, 0..3),
        vec(1..250_u8, 0..3),
        ethtool(),
        option::weighted(0.3, select(kinds.to_vec())),
        select(hooks.to_vec()),
        sriov(),
    )
        .prop_map(move |(interface, routes, rules, neighbors, ethtool, made, hook, sriov)| {
            let route = |(low, by_gateway, table, metric): (u8, bool, u32, Option<u32>)| Route {
                gateway: by_gateway.then(|| [198, 51, number, 1].into()),
                table: TableId(table),
                metric,
                ..Route::to(format!("203.0.{low}.{}/32", 100 + number).parse().unwrap())
            };
            let rule = |priority| Rule {
                family: Family::Ipv4,
                priority: priority + u32::from(number) * 10,
                source: Some("10.0.0.0/8".parse().unwrap()),
                destination: None,
                table: TableId(77),
            };
            let neighbor = |low| Neighbor {
                destination: [198, 51, number, low].into(),
                mac: MacAddr([2, 0, 0, 7, 7, low]),
            };
            let mut wishes = Wishes {
                interface,
                routes: routes.into_iter().map(route).collect(),
                rules: rules.into_iter().map(rule).collect(),
                neighbors: neighbors.into_iter().map(neighbor).collect(),
                ethtool: if made.is_some() { EthtoolWishes::default() } else { ethtool },
                sriov: if made.is_some() { VfSettings::default() } else { sriov },
                subinterface: made,
                ..Wishes::default()
            };
            if wishes.interface.vrf.is_some() {
                // They are all in its table.
                wishes.routes.iter_mut().for_each(|route| route.table = TableId::MAIN);
            }
            let key = |route: &Route| (route.destination, route.table, route.metric);
            wishes.routes.sort_by_key(key);
            wishes.routes.dedup_by_key(|route| key(route));
            if let Some(hook) = hook {
                wishes.ebpf.hook = hook;
            }
            wishes
        })
}

/// Both devices of a claim, and what goes wrong with which call: its kind, and its place among the
/// call's steps in thousandths; whether the devices are hardware, what they are, and whether their
/// physical function was told their addresses before, and does not take addresses back.
type Case = (Wishes, Wishes, usize, u32, bool, [Kind; 2], [bool; 2]);

fn cases() -> impl Strategy<Value = Case> {
    let kinds = [Kind::any(), Kind::any()];
    let pf = any::<[bool; 2]>();
    (any_wishes(1), any_wishes(2), 0..4_usize, 0..1000_u32, any::<bool>(), kinds, pf)
}

fn asking_for(case: &Case) -> PrepareClaim {
    let mut wanted = wanted(claim("claim-a"));
    let (devices, wishes) = (wanted.devices.iter_mut().zip(0..), [&case.0, &case.1]);
    for (((device, number), wishes), kind) in devices.zip(wishes).zip(case.5) {
        device.wishes = kind.wishes(wishes);
        kind.make(device.found.as_mut().unwrap(), number);
    }
    wanted
}

fn call(engine: &mut Engine<FakeNode>, call: Call, case: &Case) -> Result<(), AttachError> {
    match call {
        Call::Prepare => engine.prepare(&asking_for(case)).map(drop),
        Call::Attach => attach(engine).map(drop),
        Call::Detach => {
            engine.detach(&pod_a());
            Ok(())
        }
        Call::Unprepare => engine.unprepare(&claim("claim-a").uid),
    }
}

/// Files that survive nothing need no disk.
fn bench(case: &Case) -> Bench {
    let bench = Bench { state: TempDir::new_in("/dev/shm").unwrap(), ..Bench::new() };
    add_functions(&bench, true);
    // Each move finds a lower number.
    bench.node.world().rdma.values_mut().for_each(|device| device.number += 7);
    let [is_told, are_kept] = case.6;
    bench.node.world().do_pfs_keep_macs = are_kept;
    if is_told {
        let is_vf = |kind: &Kind| matches!(kind, Kind::Function | Kind::WithRdma);
        let mut world = bench.node.world();
        for (vf, _) in world.vfs.values_mut().zip(&case.5).filter(|(_, kind)| is_vf(kind)) {
            let [.., low] = vf.identity.to_be_bytes();
            vf.settings.mac = Some(MacAddr([2, 0, 0, 0, 0, low]));
        }
    }
    if case.4 {
        for interface in bench.node.world().interfaces.get_mut(&None).unwrap().values_mut() {
            interface.is_hardware = true;
        }
    }
    bench
}

/// Without what is not taken back: programs of others cannot be attached again by us, settings of a
/// sandbox as a whole end with it, and a function may be held to its own address.
fn without_strangers(mut world: World) -> World {
    world.stack.clear();
    if world.do_pfs_keep_macs {
        for vf in world.vfs.values_mut() {
            let [.., low] = vf.identity.to_be_bytes();
            vf.settings.mac.take_if(|mac| mac.is_zero() || *mac == MacAddr([2, 0, 0, 0, 0, low]));
        }
    }
    // How often a device has moved decides which numbers its files have.
    world.rdma.values_mut().for_each(|device| device.number = 0);
    for device in world.cdi.values_mut().flat_map(|spec| &mut spec.devices) {
        device.nodes.clear();
    }
    for interface in world.interfaces.values_mut().flat_map(BTreeMap::values_mut) {
        interface.strangers.clear();
    }
    world
}

fn seen(bench: &Bench) -> World {
    without_strangers(bench.node.snapshot())
}

/// Makes all calls before `last`, and answers what the world is like before and after `last` if
/// nothing goes wrong, with the number of its steps. Leaves everything as it was before `last`.
fn rehearse(bench: &Bench, last: Call, case: &Case) -> (World, World, usize) {
    let files = ["checkpoint.json", "checkpoint.mirror.json"].map(|f| bench.state.path().join(f));
    bench
        .run(None, |engine| {
            for one in CALLS.into_iter().take_while(|one| *one != last) {
                call(engine, one, case).unwrap();
            }
            let (world, file) = (bench.node.snapshot(), std::fs::read(&files[0]).ok());
            let before = engine.node.applied();
            call(engine, last, case).unwrap();
            let (after, steps) = (seen(bench), engine.node.applied() - before);
            *bench.node.world() = world;
            for path in &files {
                match &file {
                    Some(file) => std::fs::write(path, file).unwrap(),
                    None => std::fs::remove_file(path).unwrap(),
                }
            }
            (seen(bench), after, steps)
        })
        .unwrap()
}

/// One call meets one fault; whatever happened, a restart settles it and the claim can be ended.
fn law(moment: fn(usize) -> Fault, case: &Case) -> Result<(), TestCaseError> {
    let last = CALLS[case.2];
    let bench = bench(case);
    let fresh = seen(&bench);
    let (before, after, steps) = rehearse(&bench, last, case);
    let fault = moment(steps * usize::try_from(case.3).unwrap() / 1000);
    match bench.run(Some(fault), |engine| call(engine, last, case)) {
        // Kubelet asks again.
        Some(Err(_)) if last == Call::Unprepare => {}
        Some(Err(_)) => same(&seen(&bench), &before, &format!("{last:?} failed by {fault:?}"))?,
        Some(Ok(())) => same(&seen(&bench), &after, &format!("{last:?} bore {fault:?}"))?,
        None => {}
    }
    are_files_theirs(&bench)?;
    let sandboxes = if last == Call::Attach { vec![pod_a()] } else { Vec::new() };
    bench.run(None, |engine| engine.synchronize(&sandboxes)).unwrap();
    let settled = seen(&bench);
    if settled != after && last != Call::Unprepare {
        same(&settled, &before, &format!("{last:?} settled after {fault:?}"))?;
    }
    bench.run(None, |engine| engine.unprepare(&claim("claim-a").uid).unwrap()).unwrap();
    same(&seen(&bench), &fresh, &format!("all over after {last:?} with {fault:?}"))?;
    prop_assert!(bench.records().is_empty());
    Ok(())
}

/// Whoever is let in gets the files of the devices, as they are called now.
fn are_files_theirs(bench: &Bench) -> Result<(), TestCaseError> {
    let world = bench.node.snapshot();
    for device in world.cdi.values().flat_map(|spec| &spec.devices) {
        let records = bench.records();
        let record = records.iter().find(|record| record.id().cdi_device() == device.name).unwrap();
        let name = record.device.rdma_device.as_ref().filter(|_| record.subinterface.is_none());
        if let Some(name) = name {
            prop_assert_eq!(&device.nodes, &[world.rdma[name].node()]);
        }
    }
    Ok(())
}

/// Says where two worlds differ, which have hundreds of lines.
fn same(is: &World, should_be: &World, when: &str) -> Result<(), TestCaseError> {
    if is == should_be {
        return Ok(());
    }
    let (is, should_be) = (format!("{is:#?}"), format!("{should_be:#?}"));
    let is: Vec<_> = is.lines().collect();
    let should_be: Vec<_> = should_be.lines().collect();
    let differs = is.iter().zip(&should_be).position(|(one, other)| one != other);
    let from = differs.unwrap_or_default().saturating_sub(12);
    let part = |lines: &[&str]| lines[from..lines.len().min(from + 24)].join("\n");
    let text = format!("{when}:\n{}\nshould be\n{}", part(&is), part(&should_be));
    Err(TestCaseError::fail(text))
}

fn hold(moment: fn(usize) -> Fault) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&cases(), |case| law(moment, &case))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_step_that_fails_leaves_the_node_as_before() {
    hold(Fault::FailAt);
}

#[test]
fn a_step_that_fails_half_way_leaves_the_node_as_before() {
    hold(Fault::FailAfter);
}

#[test]
fn a_death_before_any_step_is_settled_by_the_next_start() {
    silence_deaths();
    hold(Fault::DieBefore);
}

#[test]
fn a_death_after_any_step_is_settled_by_the_next_start() {
    silence_deaths();
    hold(Fault::DieAfter);
}
