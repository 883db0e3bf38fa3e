//! Random frames that are mostly right, so that tests reach what lies deep in them.

use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

/// Any bytes, or a frame with headers that fit each other, or one with something wrong in it.
pub(crate) fn frames() -> impl Strategy<Value = Vec<u8>> {
    let spoiled = (well_formed(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut frame, index, byte)| {
            let index = index.index(frame.len());
            frame[index] = byte;
            frame
        },
    );
    let cut = (well_formed(), any::<prop::sample::Index>())
        .prop_map(|(frame, index)| frame[..index.index(frame.len())].to_vec());
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        6 => well_formed(),
        2 => spoiled,
        2 => cut,
    ]
}

fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let tags = select([0, 0, 0, 0, 1, 2, 3].as_slice());
    let network = prop_oneof![4 => v4(), 4 => v6(), 1 => other()];
    (tags, network, 0..20_usize).prop_map(|(tags, (ethertype, network), padding)| {
        let mut frame = [2; 12].to_vec();
        for tag in 0..tags {
            frame.extend(if tag == 0 { [0x88, 0xa8, 0, 1] } else { [0x81, 0, 0, 1] });
        }
        frame.extend(u16::to_be_bytes(ethertype));
        frame.extend(network);
        frame.resize(frame.len() + padding, 0);
        frame
    })
}

fn other() -> BoxedStrategy<(u16, Vec<u8>)> {
    let ethertype = select([0x0806_u16, 0x88cc, 0x8847].as_slice());
    (ethertype, prop::collection::vec(any::<u8>(), 0..40)).boxed()
}

/// One of few, so that rules meet it. The last byte of an address.
fn host() -> impl Strategy<Value = u8> {
    select([1_u8, 2, 3, 129].as_slice())
}

fn v4() -> BoxedStrategy<(u16, Vec<u8>)> {
    let fragment = select([0_u16, 0, 0, 0x4000, 0x2000, 0x2001, 0x0003].as_slice());
    (transport(false), 5..8_u8, fragment, host(), host())
        .prop_map(|((number, payload), words, fragment, source, destination)| {
            let total = u16::try_from(usize::from(words) * 4 + payload.len()).unwrap();
            let mut packet = [0x40 | words, 0].to_vec();
            packet.extend(total.to_be_bytes());
            packet.extend([0, 1]);
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, number, 0, 0, 10, 0, 0, source, 10, 0, 0, destination]);
            packet.resize(usize::from(words) * 4, 1);
            packet.extend(payload);
            (0x0800, packet)
        })
        .boxed()
}

fn v6() -> BoxedStrategy<(u16, Vec<u8>)> {
    let extensions =
        prop::collection::vec((select([0, 43, 60, 51, 44_u8].as_slice()), 0..3_u8), 0..10);
    let extensions = prop_oneof![Just(Vec::new()), extensions];
    let fragment = select([0_u16, 0, 1, 8, 9].as_slice());
    let hop_limit = select([64_u8, 255].as_slice());
    (transport(true), extensions, fragment, hop_limit, host(), host())
        .prop_map(|((number, payload), extensions, fragment, hop_limit, source, destination)| {
            let mut chain = Vec::new();
            let next = extensions.iter().skip(1).map(|(number, _)| *number).chain([number]);
            for ((number, len), next) in extensions.iter().zip(next) {
                let start = chain.len();
                match number {
                    44 => {
                        chain.extend([next, 0]);
                        chain.extend(fragment.to_be_bytes());
                        chain.resize(start + 8, 0);
                    }
                    51 => {
                        chain.extend([next, len + 2]);
                        chain.resize(start + (usize::from(*len) + 4) * 4, 0);
                    }
                    _ => {
                        chain.extend([next, *len]);
                        chain.resize(start + (usize::from(*len) + 1) * 8, 0);
                    }
                }
            }
            chain.extend(payload);
            let first = extensions.first().map_or(number, |(number, _)| *number);
            let mut packet = [0x60, 0, 0, 0].to_vec();
            packet.extend(u16::try_from(chain.len()).unwrap().to_be_bytes());
            packet.extend([first, hop_limit]);
            for host in [source, destination] {
                packet.extend([0xfd; 8]);
                packet.extend([0, 0, 0, 0, 0, 0, 0, host]);
            }
            packet.extend(chain);
            (0x86dd, packet)
        })
        .boxed()
}

/// A protocol number and what belongs to it.
fn transport(is_v6: bool) -> impl Strategy<Value = (u8, Vec<u8>)> {
    let number = select([6_u8, 17, 132, 1, 58, 47, 50].as_slice());
    let ports = (select([1_u16, 80, 81, 443].as_slice()), select([22_u16, 80, 81, 443].as_slice()));
    let kind = select([8_u8, 128, 133, 135, 137, 138].as_slice());
    (number, ports, kind, 0..12_usize).prop_map(move |(number, ports, kind, data)| {
        let mut header = Vec::new();
        match number {
            1 | 58 => {
                header.extend([kind, 0]);
                header.resize(8, 0);
            }
            _ => {
                header.extend(ports.0.to_be_bytes());
                header.extend(ports.1.to_be_bytes());
                let len = match number {
                    6 => 20,
                    17 => 8,
                    _ => 12,
                };
                header.resize(len, 0);
            }
        }
        if number == 6 {
            header[12] = 0x50;
        }
        header.resize(header.len() + data, u8::from(is_v6));
        if number == 17 {
            let len = u16::try_from(header.len()).unwrap();
            header[4..6].copy_from_slice(&len.to_be_bytes());
        }
        (number, header)
    })
}
