//! What becomes of interfaces, RDMA devices and functions that belong together.

use std::fmt::Write as _;

use super::{assemble, observe, place, rdma, scan, scan_by};
use crate::inventory::Scan;
use crate::model::{Device, Form, IfName, Phase, PublishRules, RdmaLinkLayer, Record};
use crate::sys::asked;
use crate::sys::sysfs::tree::SysfsTree;

const FUNCTION: &str = "devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0";

fn including(names: &[&str]) -> PublishRules {
    let include = names.iter().map(|name| name.parse().unwrap()).collect();
    PublishRules { include, ..PublishRules::default() }
}

fn device<'a>(scan: &'a Scan, called: &str) -> &'a Device {
    let found = scan.devices.iter().find(|device| device.called() == called);
    found.unwrap_or_else(|| panic!("{called} is none of {:?}", names(scan)))
}

fn names(scan: &Scan) -> Vec<(&str, &str)> {
    scan.devices.iter().map(|device| (device.name.as_str(), device.called())).collect()
}

/// The interfaces that have an RDMA device, and which.
fn rdma(scan: &Scan) -> Vec<(&str, &str)> {
    let with = |device: &'_ Device| device.rdma_device.is_some();
    let mut found: Vec<_> = scan
        .devices
        .iter()
        .filter(|device| with(device))
        .map(|device| {
            let interface = device.interface.as_ref().map_or("-", IfName::as_str);
            (interface, device.rdma_device.as_deref().unwrap())
        })
        .collect();
    found.sort_unstable();
    found
}

fn roce(links: &str) -> Scan {
    scan(&format!(
        "[sysfs]
        {FUNCTION}:
          class = 0x020000
          driver => bus/pci/drivers/mlx5_core
          net/eth1/dev_port = 0
          infiniband/mlx5_0/node_type = 1: CA
          infiniband/mlx5_0/ports/1/link_layer = Ethernet
          infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0 = eth1
          infiniband_verbs/uverbs0/ibdev = mlx5_0
        [links]
        {links}"
    ))
}

#[test]
fn the_rdma_device_of_a_function_goes_with_its_interface() {
    let scan = roce("2 eth1 mac=02:00:00:00:00:02");
    assert_eq!(names(&scan), [("pci-0000-3b-00-0", "eth1")]);
    let device = device(&scan, "eth1");
    assert_eq!(device.form(), Form::Interface);
    assert_eq!(device.rdma_device.as_deref(), Some("mlx5_0"));
    assert_eq!(device.rdma.as_ref().unwrap().link_layer, RdmaLinkLayer::RoCE);
    assert_eq!(device.rdma_nodes, [std::path::Path::new("/dev/infiniband/uverbs0")]);
}

/// Its record may be held, be read again after a restart, or be lost: nothing here asks for it.
#[test]
fn a_roce_nic_whose_interface_is_in_a_pod_is_no_device_by_its_rdma_device() {
    let scan = roce("2 eth1 mac=02:00:00:00:00:02 moved");
    assert_eq!((names(&scan), scan.idle.len()), (vec![], 0));
}

/// Of such a device nothing but the directory tells, which stays while there is an interface anywhere.
#[test]
fn an_ipoib_nic_whose_interface_is_in_a_pod_is_no_device_by_its_rdma_device() {
    let ipoib = |interface: &str, links: &str| {
        scan(&format!(
            "[sysfs]
            {FUNCTION}:
              class = 0x020700
              driver => bus/pci/drivers/mlx5_core
              {interface}
              infiniband/mlx5_0/node_type = 1: CA
              infiniband/mlx5_0/ports/1/link_layer = InfiniBand
              infiniband/mlx5_0/ports/1/state = 4: ACTIVE
              infiniband/mlx5_0/ports/1/rate = 400 Gb/sec (4X NDR)
            [links]
            {links}"
        ))
    };
    let (ib0, link) = ("net/ib0/dev_port = 0", "2 ib0 encap=infiniband");
    assert_eq!(rdma(&ipoib(ib0, link)), [("ib0", "mlx5_0")]);
    let moved = ipoib(ib0, &format!("{link} moved"));
    assert_eq!((names(&moved), moved.idle.len()), (vec![], 0));
    // Without IPoIB it is one, and its port is asked.
    let alone = ipoib("numa_node = 1", "");
    let device = device(&alone, "mlx5_0");
    assert_eq!((device.speed_mbps, device.carrier), (Some(400_000), Some(true)));
}

/// What it takes to read of a machine with 256 virtual functions, each with an interface and an RDMA device.
#[test]
fn little_is_read_of_many_functions_and_nothing_twice() {
    const PHYSICAL: &str = "devices/pci0000:3a/0000:3b:00.0";
    let mut tree = format!("{PHYSICAL}/class = 0x020000\n{PHYSICAL}/sriov_totalvfs = 256\n");
    let mut links = Vec::new();
    for nth in 0..256 {
        let (device, function) = (1 + nth / 8, nth % 8);
        let address = format!("0000:3b:{device:02x}.{function}");
        writeln!(
            tree,
            "{PHYSICAL}/virtfn{nth} -> ../{address}
            devices/pci0000:3a/{address}:
              class = 0x020000
              vendor = 0x15b3
              device = 0x101e
              subsystem_device = 0x0001
              numa_node = 1
              local_cpulist = 8-15
              driver => bus/pci/drivers/mlx5_core
              iommu_group => kernel/iommu_groups/{nth}
              physfn -> ../0000:3b:00.0
              net/eth{nth}/dev_port = 0
              net/eth{nth}/phys_switch_id = 0a0b
              infiniband/mlx5_{nth}/node_type = 1: CA
              infiniband/mlx5_{nth}/node_guid = 0000:0000:0000:0001
              infiniband/mlx5_{nth}/ports/1/link_layer = Ethernet
              infiniband/mlx5_{nth}/ports/1/gid_attrs/ndevs/0 = eth{nth}
              infiniband_verbs/uverbs{nth}/ibdev = mlx5_{nth}"
        )
        .unwrap();
        links.push(format!("eth{nth}"));
    }
    let tree = SysfsTree::machine(&tree);
    let sysfs = tree.sysfs();
    let before = asked::read();
    let mut look = sysfs.look();
    for link in links {
        place(&mut look, &link.parse().unwrap()).unwrap();
    }
    let interfaces = asked::read() - before;
    assert_eq!(rdma::all(&mut look).len(), 256);
    let rdma = asked::read() - before - interfaces;
    assert_eq!(
        look.functions_without_interface().unwrap().len(),
        1,
        "the physical one has no driver"
    );
    let functions = asked::read() - before - interfaces - rdma;
    // Of each: where it is, whether that is there, its port; and ten of its function, and the way to it.
    assert!(interfaces <= 256 * 13, "{interfaces}");
    assert!(rdma <= 256 * 11 + 5, "{rdma}");
    // Where each function is.
    assert!(functions <= 257 + 16, "{functions}");
}

/// The kernel tells the name that the interface has in the pod, which may be one of ours.
#[test]
fn an_interface_of_the_same_name_as_one_in_a_pod_does_not_get_its_rdma_device() {
    let rxe = |mac: &str| {
        scan(&format!(
            "[sysfs]
            devices/virtual:
              net/eth1/speed = 10000
              infiniband/rxe0/node_type = 1: CA
              infiniband/rxe0/node_guid = 0000:00ff:fe00:0002
              infiniband/rxe0/parent = eth1
              infiniband/rxe0/ports/1/link_layer = Ethernet
              infiniband/rxe0/ports/1/gids/0 = fe80:0000:0000:0000:0000:00ff:fe00:0002
            [links]
            2 eth1 kind=veth mac={mac}"
        ))
    };
    assert_eq!(rdma(&rxe("02:00:00:00:00:02")), [("eth1", "rxe0")]);
    let other = rxe("02:00:00:00:00:03");
    assert_eq!((rdma(&other), names(&other)), (vec![], vec![("eth1", "eth1")]));
}

#[test]
fn representors_and_second_ports_do_not_take_the_rdma_device() {
    let machine = |links: &str| {
        scan(&format!(
            "[sysfs]
            {FUNCTION}:
              class = 0x020000
              net/rep0/phys_port_name = pf0vf0
              net/rep0/phys_switch_id = 0a0b
              net/ens1d1/dev_port = 1
              net/ens1/phys_port_name = p0
              net/ens1/phys_switch_id = 0a0b
              infiniband/mlx5_0/node_type = 1: CA
              infiniband/mlx5_0/ports/1/link_layer = Ethernet
            [links]
            {links}"
        ))
    };
    let all = machine("2 rep0\n3 ens1d1\n4 ens1");
    assert_eq!(rdma(&all), [("ens1", "mlx5_0")]);
    assert_eq!(
        names(&all),
        [
            ("pci-0000-3b-00-0", "ens1"),
            ("pci-0000-3b-00-0-1", "ens1d1"),
            ("pci-0000-3b-00-0-pf0vf0", "rep0"),
        ]
    );
    let without = machine("2 rep0\n3 ens1d1\n4 ens1 moved");
    assert_eq!(rdma(&without), [], "also while its own interface is away");
    assert_eq!(
        names(&without),
        [("pci-0000-3b-00-0-1", "ens1d1"), ("pci-0000-3b-00-0-pf0vf0", "rep0"),]
    );
}

#[test]
fn a_device_of_two_interfaces_goes_with_the_one_that_the_kernel_names() {
    let scan = scan(&format!(
        "[sysfs]
        {FUNCTION}:
          class = 0x020000
          net/ens1/dev_port = 0
          net/ens2/dev_port = 0
          infiniband/mlx5_0/node_type = 1: CA
          infiniband/mlx5_0/ports/1/link_layer = Ethernet
          infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0 = ens2
        [links]
        2 ens1
        3 ens2"
    ));
    assert_eq!(rdma(&scan), [("ens2", "mlx5_0")]);
}

#[test]
fn a_function_has_its_name_whatever_it_is_bound_to() {
    let bound = |what: &str| {
        let scan = scan(&format!(
            "[sysfs]
            {FUNCTION}:
              class = 0x020000
              {what}"
        ));
        let names: Vec<_> = scan.devices.iter().map(|it| it.name.to_string()).collect();
        (names, scan.idle.first().map(|it| (it.address.to_string(), it.reason)))
    };
    let name = vec!["pci-0000-3b-00-0".to_owned()];
    let address = "0000:3b:00.0".to_owned();
    let vfio = "driver => bus/pci/drivers/vfio-pci";
    let grouped = format!("{vfio}\n              iommu_group => kernel/iommu_groups/7");
    assert_eq!(bound(&grouped), (name, None));
    assert_eq!(bound(vfio), (vec![], Some((address.clone(), "no IOMMU group"))));
    assert_eq!(bound("numa_node = 1"), (vec![], Some((address, "no driver"))));
    // Its driver made an interface, which is in a pod.
    assert_eq!(bound("driver => bus/pci/drivers/igb"), (vec![], None));
}

#[test]
fn devices_without_an_interface_are_excluded_by_what_they_are_known_by() {
    let left = |machine: &str, pattern: &str| {
        let rules = PublishRules { exclude: vec![pattern.parse().unwrap()], ..Default::default() };
        let scan = scan_by(machine, &rules);
        scan.left_out.into_iter().map(|it| (it.called, it.reason)).collect::<Vec<_>>()
    };
    let of = |called: &str| vec![(called.to_owned(), "excluded")];
    let infiniband = include_str!("infiniband_only.txt");
    for pattern in ["mlx5_1", "0000:3a:*", "*_1"] {
        assert_eq!(left(infiniband, pattern), of("mlx5_1"), "{pattern}");
    }
    assert_eq!(left(infiniband, "mlx5_0"), [], "which has an interface");
    assert_eq!(left(infiniband, "0000:18:00.0"), []);
    let vfio = include_str!("ice_vf_and_vfio.txt");
    for pattern in ["0000:3b:01.1", "pci-0000-3b-01-1"] {
        assert_eq!(left(vfio, pattern), of("pci-0000-3b-01-1"), "{pattern}");
    }
}

#[test]
fn of_the_cpus_of_a_node_those_count_on_which_anything_may_run() {
    let machine = |online: &str, isolated: &str| {
        let file = |name: &str, text: &str| {
            let is_there = !text.is_empty();
            if is_there { format!("devices/system/cpu/{name} = {text}") } else { String::new() }
        };
        let (online, isolated) = (file("online", online), file("isolated", isolated));
        format!(
            "[sysfs]
            {online}
            {isolated}
            {FUNCTION}:
              class = 0x020000
              numa_node = 1
              local_cpulist = 8-15
              net/eth1/dev_port = 0
            devices/virtual/net/eth1.7/dev_port = 0
            [links]
            2 eth1
            3 eth1.7 kind=vlan parent=2"
        )
    };
    for (online, isolated, near) in [
        ("0-15", "", Some("8-15")),
        ("0-11,14-15", "", Some("8-11,14-15")),
        ("0-15", "10-12", Some("8-9,13-15")),
        ("0-7", "", None),
        ("0-15", "8-15", None),
        ("", "", Some("8-15")),
    ] {
        let scan = scan(&machine(online, isolated));
        for name in ["eth1", "eth1.7"] {
            let cpus = device(&scan, name).local_cpus.as_ref().map(ToString::to_string);
            assert_eq!(cpus.as_deref(), near, "{name}, {online} without {isolated}");
        }
    }
}

#[test]
fn the_free_one_of_two_interfaces_of_one_function_keeps_its_name_while_the_other_is_away() {
    let machine = |first: &str| {
        format!(
            "[sysfs]
            {FUNCTION}:
              class = 0x020000
              net/eth1/dev_port = 0
              net/eth2/dev_port = 0
            [links]
            2 eth1 mac=02:00:00:00:00:02{first}
            3 eth2 mac=02:00:00:00:00:03"
        )
    };
    let rules = PublishRules::default();
    let both = scan(&machine(""));
    let record = |called: &str| Record {
        device: device(&both, called).clone(),
        ..crate::testing::record("eth1", None, Phase::Preparing)
    };
    let (plain, other) = ("pci-0000-3b-00-0", "pci-0000-3b-00-0-if-mv2gqmq");
    assert_eq!(names(&both), [(plain, "eth1"), (other, "eth2")]);
    let held = [record("eth1")];
    let here = assemble(&observe(&machine("")), &rules, &held);
    assert_eq!(names(&here), [(plain, "eth1"), (other, "eth2")]);
    let away = assemble(&observe(&machine(" moved")), &rules, &held);
    assert_eq!(names(&away), [(other, "eth2")]);
}

#[test]
fn what_user_space_could_not_open_is_not_published_and_named() {
    let text = include_str!("ice_vf_and_vfio.txt");
    let idle = |text: &str| {
        let idle = scan(text).idle.into_iter();
        idle.map(|it| (it.address.to_string(), it.reason)).collect::<Vec<_>>()
    };
    let held_up = ("0000:18:00.0".to_owned(), "the kernel uses its IOMMU group");
    let without_driver = ("0000:3b:01.2".to_owned(), "no driver");
    assert_eq!(idle(text), [held_up.clone(), without_driver.clone()]);
    let unsafe_mode = text.replacen("[links]", "class/vfio/noiommu-81/\n[links]", 1);
    let without_iommu = ("0000:3b:01.1".to_owned(), "no IOMMU group");
    assert_eq!(idle(&unsafe_mode), [held_up, without_iommu, without_driver]);
}

#[test]
fn sub_interfaces_are_where_their_parents_are_and_nothing_more() {
    let machine = format!(
        "[sysfs]
        {FUNCTION}/class = 0x020000
        {FUNCTION}/numa_node = 1
        {FUNCTION}/net/eth1/dev_port = 0
        devices/virtual/net:
          eth1.7/speed = 100000
          macvlan0/speed = 100000
          vlan8/speed = 100000
          bond0/speed = 100000
        [links]
        2 eth1 controller=6
        3 eth1.7 kind=vlan parent=2
        4 macvlan0 kind=macvlan parent=3
        5 vlan8 kind=vlan parent=6
        6 bond0 kind=bond"
    );
    let scan = scan_by(&machine, &including(&["bond0", "eth1"]));
    for name in ["eth1.7", "macvlan0"] {
        let device = device(&scan, name);
        assert_eq!((device.pcie_root(), device.numa_node), (Some("pci0000:3a"), Some(1)), "{name}");
        assert!(device.is_virtual && device.pci.is_none(), "{name}");
        assert!(!device.name.as_str().starts_with("pci-"), "{name}");
    }
    for name in ["bond0", "vlan8"] {
        let device = device(&scan, name);
        assert_eq!((device.pcie_root(), device.numa_node), (None, None), "{name}");
    }
    assert_eq!(device(&scan, "eth1").pcie_root(), Some("pci0000:3a"));
}
