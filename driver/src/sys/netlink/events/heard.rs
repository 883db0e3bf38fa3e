//! What a datagram of news is about. Any bytes are one; what makes no sense is about nothing.

use super::{Changes, Source};
use crate::model::IfIndex;
use crate::sys::generic;
use crate::sys::netdev;

// `struct nlmsghdr` and message types of `include/uapi/linux/rtnetlink.h`.
const HEADER_LEN: usize = 16;
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const NEW_FILTER: u16 = 44;
const DEL_FILTER: u16 = 45;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
/// `RT_TABLE_MAIN`, the one whose default routes are those of the node.
const MAIN_TABLE: u8 = 254;

/// Adds what a datagram of this source is about.
pub(super) fn note(source: Source, datagram: &[u8], changes: &mut Changes) {
    match source {
        Source::Route => messages(datagram, |kind, body| route(kind, body, changes)),
        Source::Filters => messages(datagram, |kind, body| filter(kind, body, changes)),
        Source::Netdev => messages(datagram, |_, body| {
            let attributes = body.get(generic::HEADER_LEN..).unwrap_or_default();
            changes.interfaces.extend(netdev::decode_device(attributes).map(|(index, _)| index));
        }),
        // A device came or went, or has another name or another interface: rare, and what depends
        // on it need not be an interface.
        Source::Rdma => messages(datagram, |_, _| changes.everything = true),
        Source::Uevent => uevent(datagram, changes),
    }
}

fn messages(datagram: &[u8], mut each: impl FnMut(u16, &[u8])) {
    let mut rest = datagram;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER_LEN>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        // The last one may be longer than what was read of it.
        let Some(body) = rest.get(HEADER_LEN..length.min(rest.len())) else { return };
        each(u16::from_ne_bytes([header[4], header[5]]), body);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Of routes those count by which the node reaches the rest of the world.
fn route(kind: u16, body: &[u8], changes: &mut Changes) {
    match kind {
        // `struct ifinfomsg` and `struct ifaddrmsg` have the index in the same place.
        NEW_LINK | DEL_LINK | NEW_ADDRESS | DEL_ADDRESS => {
            let index = body.get(4..8).and_then(|bytes| bytes.try_into().ok());
            changes.interfaces.extend(index.map(|bytes| IfIndex(u32::from_ne_bytes(bytes))));
        }
        // `struct rtmsg`: the length of the destination's prefix, and the table.
        NEW_ROUTE | DEL_ROUTE => {
            // Also halves of everything, and 2000::/3.
            let is_wide = body.get(1).is_some_and(|length| *length <= 3);
            changes.default_routes |=
                is_wide && body.get(4).is_none_or(|table| *table == MAIN_TABLE);
        }
        _ => {}
    }
}

/// A block of filters that interfaces share has no interface, and is told of as -1
/// (`TCM_IFINDEX_MAGIC_BLOCK` in `include/uapi/linux/rtnetlink.h`).
fn filter(kind: u16, body: &[u8], changes: &mut Changes) {
    if !matches!(kind, NEW_QDISC | DEL_QDISC | NEW_FILTER | DEL_FILTER) {
        return;
    }
    // `struct tcmsg` has the index where others have it.
    match body.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes) {
        Some(u32::MAX) => changes.everything = true,
        Some(index) => {
            changes.filters = true;
            changes.interfaces.insert(IfIndex(index));
        }
        None => {}
    }
}

/// A uevent is a line and then settings, each with a NUL at its end (`kobject_uevent_env()` in
/// `lib/kobject_uevent.c`, Linux 6.12).
fn uevent(datagram: &[u8], changes: &mut Changes) {
    let texts = datagram.split(|byte| *byte == 0).filter_map(|text| str::from_utf8(text).ok());
    let (mut subsystem, mut index) = (None, None);
    for text in texts {
        match text.split_once('=') {
            Some(("SUBSYSTEM", name)) => subsystem = Some(name),
            Some(("IFINDEX", number)) => index = number.parse().ok().map(IfIndex),
            _ => {}
        }
    }
    match (subsystem, index) {
        (Some("net"), Some(index)) => drop(changes.interfaces.insert(index)),
        (Some("pci" | "cpu" | "infiniband" | "infiniband_verbs" | "vfio" | "vfio-dev"), _) => {
            changes.everything = true;
        }
        _ => {}
    }
}

/// Reads a datagram as news of each source; how many interfaces it is about.
#[cfg(any(test, feature = "testing"))]
pub(in crate::sys::netlink) fn hear_all(datagram: &[u8]) -> usize {
    let mut changes = Changes::default();
    let sources = [Source::Route, Source::Filters, Source::Netdev, Source::Rdma, Source::Uevent];
    for source in sources {
        note(source, datagram, &mut changes);
    }
    changes.interfaces.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    fn heard(source: Source, datagram: &[u8]) -> Changes {
        let mut changes = Changes::default();
        note(source, datagram, &mut changes);
        changes
    }

    fn about(indices: &[u32]) -> Changes {
        let interfaces = indices.iter().copied().map(IfIndex).collect();
        Changes { interfaces, ..Changes::default() }
    }

    #[test]
    fn links_and_addresses_name_their_interface() {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        for kind in [NEW_LINK, DEL_LINK, NEW_ADDRESS, DEL_ADDRESS] {
            assert_eq!(heard(Source::Route, &message(kind, &body)), about(&[7]), "{kind}");
        }
        let mut other = body;
        other[4] = 9;
        let two = [message(NEW_LINK, &body), message(NEW_ADDRESS, &other)].concat();
        assert_eq!(heard(Source::Route, &two), about(&[7, 9]));
        // A neighbour.
        assert_eq!(heard(Source::Route, &message(28, &body)), Changes::default());
    }

    #[test]
    fn of_routes_only_the_default_ones_of_the_main_table_count() {
        let route = |length, table| {
            let body = [2, length, 0, 0, table, 0, 0, 0, 0, 0, 0, 0];
            heard(Source::Route, &message(NEW_ROUTE, &body)).default_routes
        };
        assert!(route(0, MAIN_TABLE));
        assert!(!route(24, MAIN_TABLE));
        assert!(!route(0, 100));
    }

    #[test]
    fn filters_name_their_interface_unless_many_share_them() {
        let mut body = [0; 20];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        for kind in [NEW_FILTER, DEL_FILTER, NEW_QDISC, DEL_QDISC] {
            let filters = Changes { filters: true, ..about(&[7]) };
            assert_eq!(heard(Source::Filters, &message(kind, &body)), filters, "{kind}");
        }
        // An action.
        assert_eq!(heard(Source::Filters, &message(48, &body)), Changes::default());
        body[4..8].copy_from_slice(&[255; 4]);
        let all = Changes::everything();
        assert_eq!(heard(Source::Filters, &message(NEW_FILTER, &body)), all);
    }

    #[test]
    fn a_uevent_is_about_an_interface_or_about_everything() {
        let net = b"add@/devices/virtual/net/eth0\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=eth0\0IFINDEX=12\0";
        assert_eq!(heard(Source::Uevent, net), about(&[12]));
        let pci = b"bind@/devices/pci0000:00/0000:00:03.0\0ACTION=bind\0SUBSYSTEM=pci\0";
        assert_eq!(heard(Source::Uevent, pci), Changes::everything());
        let cpu = b"offline@/devices/system/cpu/cpu3\0ACTION=offline\0SUBSYSTEM=cpu\0";
        assert_eq!(heard(Source::Uevent, cpu), Changes::everything());
        let queue = b"add@/devices/virtual/net/eth0/queues/rx-0\0SUBSYSTEM=queues\0";
        assert_eq!(heard(Source::Uevent, queue), Changes::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_news(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            hear_all(&bytes);
        }
    }
}
