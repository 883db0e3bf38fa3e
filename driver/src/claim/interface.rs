//! How an interface shall look inside the pod: name, addresses, sizes, what it takes along.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use super::address::{cidr, mac};
use super::dranet::{Dialect, Fields};
use super::reader::{Leaf, Spot, quote};
use super::sysctl::{self, Settings};
use super::vrf;
use crate::model::{Dad, IfName, Inherit, MacAddr, OtherPrograms, Problems, Vrf};

/// As low as IPv4 allows (RFC 791) and as high as an IPv4 packet can be.
pub(super) const MTU: RangeInclusive<u32> = 68..=65_535;
/// At most `GSO_MAX_SIZE` and `GRO_MAX_SIZE` (`include/linux/netdevice.h`, Linux 6.18). At least more
/// than `MAX_TCP_HEADER` (the policy of `IFLA_GSO_MAX_SIZE` in `net/core/rtnetlink.c`), which is 320
/// where the kernel is built with all that makes headers longer.
pub(super) const SEGMENTS: RangeInclusive<u32> = 321..=524_280;
/// As many as the status of a claim can show (`status.devices[].networkData.ips`).
pub(super) const MOST_ADDRESSES: usize = 16;
/// Longest name of a program: `BPF_OBJ_NAME_LEN` less the terminating NUL (`linux/bpf.h`).
const LONGEST_PROGRAM: usize = 15;
pub(super) const MOST_PROGRAMS: usize = 64;

pub(super) const INHERITS: [(&str, Inherit); 4] = [
    ("all", Inherit::All),
    ("addresses", Inherit::Addresses),
    ("routes", Inherit::Routes),
    ("none", Inherit::None),
];

pub(super) const FIELDS: Fields = Fields {
    ours: &[
        "name",
        "addresses",
        "noDad",
        "dhcp",
        "mtu",
        "hardwareAddr",
        "gsoMaxSize",
        "groMaxSize",
        "gsoIPv4MaxSize",
        "groIPv4MaxSize",
        "forwarding",
        "arpIgnore",
        "arpAnnounce",
        "sysctls",
        "disableEbpfPrograms",
        "vrf",
        "inherit",
    ],
    dranet: &[
        "name",
        "addresses",
        "dhcp",
        "mtu",
        "hardwareAddr",
        "gsoMaxSize",
        "groMaxSize",
        "gsoIPv4MaxSize",
        "groIPv4MaxSize",
        "forwarding",
        "arpIgnore",
        "arpAnnounce",
        "disableEbpfPrograms",
        "vrf",
    ],
};

/// What one source says about the interface.
#[derive(Debug, Default)]
pub(super) struct InterfaceLayer {
    pub(super) name: Leaf<IfName>,
    pub(super) addresses: Leaf<Vec<IpNet>>,
    pub(super) dad: Leaf<Dad>,
    pub(super) dhcp: Leaf<bool>,
    pub(super) mtu: Leaf<u32>,
    pub(super) mac: Leaf<MacAddr>,
    pub(super) gso: Leaf<u32>,
    pub(super) gro: Leaf<u32>,
    pub(super) gso_ipv4: Leaf<u32>,
    pub(super) gro_ipv4: Leaf<u32>,
    pub(super) settings: Leaf<Settings>,
    pub(super) programs: Leaf<Programs>,
    pub(super) vrf: Leaf<Vrf>,
    pub(super) inherit: Leaf<Inherit>,
}

/// What becomes of programs of others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Programs {
    Stay,
    Leave(OtherPrograms),
}

impl InterfaceLayer {
    pub(super) fn read(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Self {
        let Some(fields) = dialect.object(spot, FIELDS, problems) else {
            return Self::default();
        };
        let dad = |is_skipped| if is_skipped { Dad::Skip } else { Dad::Run };
        let segments = |field, problems: &mut Problems| {
            Leaf::read(fields.field(field), |spot| spot.integer(SEGMENTS, problems))
        };
        Self {
            name: Leaf::read(fields.field("name"), |spot| name(spot, problems)),
            addresses: Leaf::read(fields.field("addresses"), |spot| addresses(spot, problems)),
            dad: Leaf::read(fields.field("noDad"), |spot| spot.flag(problems).map(dad)),
            dhcp: Leaf::read(fields.field("dhcp"), |spot| spot.flag(problems)),
            mtu: Leaf::read(fields.field("mtu"), |spot| spot.integer(MTU, problems)),
            mac: Leaf::read(fields.field("hardwareAddr"), |spot| mac(spot, dialect, problems)),
            gso: segments("gsoMaxSize", problems),
            gro: segments("groMaxSize", problems),
            gso_ipv4: segments("gsoIPv4MaxSize", problems),
            gro_ipv4: segments("groIPv4MaxSize", problems),
            settings: sysctl::read(&fields, problems),
            programs: Leaf::read(fields.field("disableEbpfPrograms"), |spot| {
                programs(spot, dialect, problems)
            }),
            vrf: Leaf::read(fields.field("vrf"), |spot| vrf::read(spot, problems)),
            inherit: Leaf::read(fields.field("inherit"), |spot| spot.word(&INHERITS, problems)),
        }
    }
}

pub(super) fn name(spot: &Spot<'_>, problems: &mut Problems) -> Option<IfName> {
    let name: IfName = spot.parsed(problems)?;
    match name.as_str() {
        "lo" => spot.refuse("lo is the loopback interface of every pod", problems),
        // `dev_alloc_name()` (net/core/dev.c, Linux 6.12) takes such a name for a template.
        text if text.contains('%') => {
            spot.refuse("an interface name cannot contain '%': the kernel numbers it", problems)
        }
        _ => Some(name),
    }
}

fn addresses(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
    let items = spot.list(problems)?;
    let (said, mut addresses) = (items.len(), Vec::with_capacity(items.len()));
    for item in items {
        if let Some(address) = address(&item, &addresses, problems) {
            addresses.push(address);
        }
    }
    if said > MOST_ADDRESSES {
        return spot
            .refuse(format_args!("{said} addresses are more than {MOST_ADDRESSES}"), problems);
    }
    (addresses.len() == said).then_some(addresses)
}

fn address(spot: &Spot<'_>, others: &[IpNet], problems: &mut Problems) -> Option<IpNet> {
    let net = cidr(spot, problems)?;
    let ip = net.addr();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let kind = match ip {
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        ip if ip.is_unspecified() => "the unspecified address",
        _ if is_broadcast => "the broadcast address",
        ip if others.iter().any(|other| other.addr() == ip) => "in the list already",
        _ => return Some(net),
    };
    spot.refuse(format_args!("{ip} is {kind}"), problems)
}

/// `true` for all, `false` for none, or names.
fn programs(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Option<Programs> {
    match spot.value {
        Value::Bool(true) => return Some(Programs::Leave(OtherPrograms::All)),
        Value::Bool(false) => return Some(Programs::Stay),
        Value::Array(_) if dialect == Dialect::Ours => {}
        _ if dialect == Dialect::Ours => {
            return spot.refuse_type("a boolean or a list of names", problems);
        }
        _ => return spot.refuse_type("a boolean", problems),
    }
    let items = spot.list_up_to(MOST_PROGRAMS, "programs", problems)?;
    if items.is_empty() {
        return spot.refuse("is empty, leave it out to let all of them be", problems);
    }
    let (said, mut names) = (items.len(), Vec::with_capacity(items.len()));
    for item in items {
        names.extend(program(&item, &names, problems));
    }
    (names.len() == said).then_some(Programs::Leave(OtherPrograms::Named(names)))
}

/// The name of a program, as the kernel takes it (`bpf_obj_name_cpy()` in `kernel/bpf/syscall.c`,
/// Linux 6.18).
fn program(spot: &Spot<'_>, others: &[String], problems: &mut Problems) -> Option<String> {
    let text = spot.text(problems)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    if text.is_empty() || !text.bytes().all(is_plain) {
        let message = format!("{} is no name of a program: letters, digits, _ and .", quote(text));
        return spot.refuse(message, problems);
    }
    if text.len() > LONGEST_PROGRAM {
        let known = &text[..LONGEST_PROGRAM];
        let message = format!("{} is too long, the kernel knows it as {known}", quote(text));
        return spot.refuse(message, problems);
    }
    if others.iter().any(|other| other == text) {
        return spot.refuse(format_args!("{text} is in the list already"), problems);
    }
    Some(text.to_owned())
}
