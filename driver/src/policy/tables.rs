//! Entries to tables: for each field of a packet, which entries each of its values leaves.

use std::collections::HashMap;

use common::{Class, End, Family, Used};

use super::entries::Entry;

/// A set of entries: bit `n` of word `n / 64`.
pub(super) type Set = Vec<u64>;

/// What each field of a packet leaves.
pub(super) struct Tables {
    pub(super) used: Used,
    pub(super) classes: Vec<Set>,
    /// By octet, each of 256 values; those that no entry asks for are empty.
    pub(super) v4: Vec<Vec<Set>>,
    pub(super) v6: Vec<Vec<Set>>,
    pub(super) source_ports: PortTable,
    pub(super) destination_ports: PortTable,
}

/// Which set a port selects.
pub(super) struct PortTable {
    pub(super) sets: Vec<Set>,
    /// A number into `sets` for each port; empty where no entry asks.
    pub(super) ports: Vec<u16>,
}

pub(super) fn build(entries: &[Entry<'_>]) -> Tables {
    let words = entries.len().div_ceil(64).max(1);
    let classes = Class::all()
        .map(|class| {
            let mut set = vec![0; words];
            for (n, entry) in entries.iter().enumerate() {
                if entry.takes(class) {
                    add(&mut set, n);
                }
            }
            set
        })
        .collect();
    let mut used = Used::NONE;
    let v4 = octets(entries, Family::V4, words, &mut used);
    let v6 = octets(entries, Family::V6, words, &mut used);
    let source_ports = ports(entries, Entry::source_ranges, words);
    let destination_ports = ports(entries, Entry::destination_ranges, words);
    if !source_ports.ports.is_empty() {
        used = used.with(Used::SOURCE_PORTS);
    }
    if !destination_ports.ports.is_empty() {
        used = used.with(Used::DESTINATION_PORTS);
    }
    if !entries.is_empty() {
        used = used.with(Used::RULES);
    }
    Tables { used, classes, v4, v6, source_ports, destination_ports }
}

fn add(set: &mut Set, n: usize) {
    set[n / 64] |= 1 << (n % 64);
}

/// The octets of the source, then those of the destination. A prefix is one range of values in each
/// octet, whatever the others are, so octets can be looked at one by one.
fn octets(entries: &[Entry<'_>], family: Family, words: usize, used: &mut Used) -> Vec<Vec<Set>> {
    let width = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let mut leading = [0; 2];
    let tables = (0..2 * width)
        .map(|octet| {
            let range = |entry: &Entry<'_>| octet_range(entry, family, octet, width);
            if entries.iter().all(|entry| range(entry) == (0, 255)) {
                return Vec::new();
            }
            leading[octet / width] = octet % width + 1;
            // Most entries take all values of most octets.
            let (mut all, mut some) = (vec![0; words], Vec::new());
            for (n, entry) in entries.iter().enumerate() {
                match range(entry) {
                    (0, 255) => add(&mut all, n),
                    (first, last) => some.push((n, first..=last)),
                }
            }
            let mut table = vec![all; 256];
            for (n, values) in some {
                for value in values {
                    add(&mut table[usize::from(value)], n);
                }
            }
            table
        })
        .collect();
    let ends = match family {
        Family::V4 => [End::SourceV4, End::DestinationV4],
        Family::V6 => [End::SourceV6, End::DestinationV6],
    };
    for (end, octets) in ends.into_iter().zip(leading) {
        *used = used.with(Used::leading(end, octets));
    }
    tables
}

/// First and last value of one octet that an entry takes. One of the other family takes all: its
/// class tells already.
fn octet_range(entry: &Entry<'_>, family: Family, octet: usize, width: usize) -> (u8, u8) {
    let network = if octet < width { entry.source } else { entry.destination };
    let Some(network) = network.filter(|_| entry.family == Some(family)) else { return (0, 255) };
    let (first, mask) = (bytes(network.network()), bytes(network.netmask()));
    let octet = octet % width;
    (first[octet], first[octet] | !mask[octet])
}

fn bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ports<'a>(
    entries: &[Entry<'a>],
    ranges: impl Fn(&Entry<'a>) -> Vec<(u16, u16)>,
    words: usize,
) -> PortTable {
    // Where the set changes, and of which entry.
    let mut changes: Vec<(u32, usize)> = Vec::new();
    let mut is_used = false;
    for (n, entry) in entries.iter().enumerate() {
        for (first, last) in merged(ranges(entry)) {
            is_used |= (first, last) != (0, u16::MAX);
            changes.push((first.into(), n));
            changes.push((u32::from(last) + 1, n));
        }
    }
    if !is_used {
        return PortTable { sets: Vec::new(), ports: Vec::new() };
    }
    changes.sort_unstable();
    let mut numbers: HashMap<Set, u16> = HashMap::new();
    let mut table = PortTable { sets: Vec::new(), ports: Vec::with_capacity(1 << 16) };
    let (mut set, mut changes) = (vec![0; words], changes.into_iter().peekable());
    let mut number = 0;
    for port in 0..=u32::from(u16::MAX) {
        let mut is_other = port == 0;
        while let Some((_, n)) = changes.next_if(|&(at, _)| at <= port) {
            set[n / 64] ^= 1 << (n % 64);
            is_other = true;
        }
        if is_other {
            number = *numbers.entry(set.clone()).or_insert_with(|| {
                table.sets.push(set.clone());
                // At most two changes for each of a bounded number of ranges.
                u16::try_from(table.sets.len() - 1).unwrap_or(u16::MAX)
            });
        }
        table.ports.push(number);
    }
    table
}

/// The same ports in ranges that neither overlap nor touch.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                before.1 = before.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}
