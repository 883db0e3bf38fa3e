//! `weir devices`.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::explain;
use super::output::{columns, or_dash, pretty, print};
use super::{CliError, DevicesArgs, Output};
use crate::inventory::{Scan, Scanner};
use crate::model::{Device, EbpfAbilities, Form, RdmaLinkLayer};
use crate::state;
use crate::sys::sysfs::Sysfs;

pub(super) fn run(args: &DevicesArgs) -> Result<(), CliError> {
    let rules = explain::rules(args)?;
    // Whoever could change them is gone, so they stay.
    let following = watch::channel(Arc::new(rules.clone())).1;
    // Names of what is here depend on what is in pods. Whoever may not read that sees the rest.
    let held = watch::channel(Arc::new(state::read_records(&args.state_dir).unwrap_or_default())).1;
    let scanner = Scanner::new(Sysfs::new(&args.sysfs)?)?;
    let scan = scanner.following(following).knowing(held).scan()?;
    if args.explain {
        return explain::run(args, &rules, scan);
    }
    print(&match args.output {
        Output::Table => table(&scan),
        Output::Json => pretty(&json(&scan))?,
    })
}

fn table(scan: &Scan) -> String {
    const TITLES: [&str; 13] = [
        "NAME",
        "INTERFACE",
        "KIND",
        "STATE",
        "MAC",
        "MTU ",
        "SPEED ",
        "PCI",
        "NUMA ",
        "DRIVER",
        "RDMA",
        "XDP",
        "TCX",
    ];
    let mut text = columns(&TITLES, scan.devices.iter().map(row));
    if !scan.left_out.is_empty() || !scan.idle.is_empty() {
        text.push('\n');
        let interfaces = scan.left_out.iter().map(|it| (it.called.clone(), explain::why(it)));
        let functions = scan.idle.iter().map(|it| (it.address.to_string(), it.reason.to_owned()));
        let rows = interfaces.chain(functions).map(|(what, why)| vec![what, why]);
        text.push_str(&columns(&["NOT OFFERED", "WHY"], rows));
    }
    text
}

fn row(device: &Device) -> Vec<String> {
    vec![
        device.name.to_string(),
        or_dash(device.interface.as_ref()),
        match device.form() {
            Form::Interface => device.kind.clone(),
            Form::Rdma => "rdma".to_owned(),
            Form::Vfio => "vfio".to_owned(),
        },
        device.state.clone(),
        or_dash(device.mac),
        or_dash(device.interface.as_ref().map(|_| device.mtu)),
        or_dash(device.speed_mbps.map(speed)),
        or_dash(device.pci.as_ref().map(|pci| pci.address)),
        or_dash(device.numa_node),
        or_dash(device.driver.as_ref()),
        or_dash(rdma(device)),
        xdp(&device.ebpf),
        if device.ebpf.tcx { "yes" } else { "no" }.to_owned(),
    ]
}

/// Its RDMA device, and what that runs over where it is no Ethernet.
fn rdma(device: &Device) -> Option<String> {
    let name = device.rdma_device.as_ref()?;
    Some(match device.rdma.as_ref().map(|facts| facts.link_layer) {
        Some(RdmaLinkLayer::InfiniBand) => format!("{name} (InfiniBand)"),
        _ => name.clone(),
    })
}

fn speed(mbps: u32) -> String {
    if mbps.is_multiple_of(1000) { format!("{}G", mbps / 1000) } else { format!("{mbps}M") }
}

/// What XDP can do on an interface, and whether a program is there already.
fn xdp(ebpf: &EbpfAbilities) -> String {
    let mut words = match ebpf.xdp {
        None => vec!["unknown"],
        Some(features) if !features.is_native() => vec!["no"],
        Some(features) => {
            let mut words = vec!["native"];
            words.extend(features.has_frags().then_some("frags"));
            words.extend(features.has_redirect().then_some("redirect"));
            words.extend(features.has_zero_copy().then_some("zerocopy"));
            words
        }
    };
    words.extend(ebpf.xdp_in_use.then_some("(in use)"));
    words.join("+").replace("+(", " (")
}

fn json(scan: &Scan) -> Value {
    let left_out = scan.left_out.iter();
    let left_out: Vec<_> = left_out
        .map(|it| json!({ "interface": it.called, "reason": it.reason, "detail": it.detail }))
        .collect();
    let idle = scan.idle.iter();
    let idle: Vec<_> =
        idle.map(|it| json!({ "pciAddress": it.address, "reason": it.reason })).collect();
    json!({ "devices": scan.devices, "leftOut": left_out, "idleFunctions": idle })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{IdleFunction, LeftOut};
    use crate::model::{RdmaFacts, XdpFeatures};
    use crate::testing::device;

    fn scan() -> Scan {
        let mut nic = device("eth1");
        nic.name = "pci-0000-3b-00-0".parse().unwrap();
        nic.kind = "device".to_owned();
        (nic.driver, nic.numa_node, nic.mac) = (Some("ice".to_owned()), Some(1), None);
        nic.ebpf = EbpfAbilities { xdp: None, ..EbpfAbilities::default() };
        let left_out = LeftOut { called: "eth0".to_owned(), reason: "default route", detail: None };
        let function = "0000:3b:01.2".parse().unwrap();
        let idle = vec![IdleFunction { address: function, reason: "no driver" }];
        Scan { devices: vec![nic, device("veth7"), hca()], left_out: vec![left_out], idle }
    }

    /// An InfiniBand adapter without an interface.
    fn hca() -> Device {
        Device {
            name: "pci-0000-81-00-0".parse().unwrap(),
            interface: None,
            index: None,
            mac: None,
            driver: Some("mlx5_core".to_owned()),
            rdma_device: Some("mlx5_0".to_owned()),
            rdma: Some(RdmaFacts {
                link_layer: RdmaLinkLayer::InfiniBand,
                node_type: "CA".to_owned(),
                node_guid: None,
            }),
            ebpf: EbpfAbilities::default(),
            ..device("mlx5")
        }
    }

    #[test]
    fn a_table_shows_what_is_offered_and_what_is_not() {
        assert_eq!(
            table(&scan()),
            "\
NAME              INTERFACE  KIND    STATE  MAC                 MTU  SPEED  PCI  NUMA  DRIVER     RDMA                 XDP                    TCX
pci-0000-3b-00-0  eth1       device  up     -                  1500    10G  -       1  ice        -                    unknown                no
veth7             veth7      veth    up     02:00:00:00:00:07  1500    10G  -       -  veth       -                    native+frags+redirect  yes
pci-0000-81-00-0  -          rdma    up     -                     -    10G  -       -  mlx5_core  mlx5_0 (InfiniBand)  unknown                no

NOT OFFERED   WHY
eth0          default route
0000:3b:01.2  no driver
"
        );
    }

    #[test]
    fn without_devices_there_are_still_titles() {
        assert!(table(&Scan::default()).starts_with("NAME  INTERFACE"));
        assert_eq!(table(&Scan::default()).lines().count(), 1);
    }

    #[test]
    fn xdp_says_what_can_be_done_and_whether_it_is_taken() {
        let said = |features, xdp_in_use| {
            xdp(&EbpfAbilities { xdp: features, xdp_in_use, ..EbpfAbilities::default() })
        };
        assert_eq!(said(None, false), "unknown");
        assert_eq!(said(Some(XdpFeatures(0)), false), "no");
        assert_eq!(said(Some(XdpFeatures(1)), true), "native (in use)");
    }

    #[test]
    fn json_has_devices_as_they_are_recorded() {
        let json = json(&scan());
        assert_eq!(json["devices"][0]["interface"], "eth1");
        assert_eq!(json["devices"][1]["ebpf"]["tcx"], true);
        assert_eq!(json["leftOut"][0]["reason"], "default route");
    }
}
