//! Packets that answer others.

/// `frame` on its way back: addresses and ports change places. Unchanged where it is no IP packet, and
/// with its ports where they are behind extension headers.
pub fn mirrored(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    let mut at = 12;
    while matches!(back.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    let (network, addresses, transport) = match back.get(at..) {
        Some([0x08, 0x00, first, ..]) => (at + 2, (12, 4), usize::from(first & 0xf) * 4),
        Some([0x86, 0xdd, ..]) => (at + 2, (8, 16), 40),
        _ => return back,
    };
    let number = back.get(network + if transport == 40 && addresses.1 == 16 { 6 } else { 9 });
    let has_ports = matches!(number, Some(6 | 17 | 132));
    exchange(&mut back, network + addresses.0, addresses.1);
    if has_ports {
        exchange(&mut back, network + transport, 2);
    }
    back
}

/// `len` bytes at `at`, and the next ones.
fn exchange(frame: &mut [u8], at: usize, len: usize) {
    if let Some(pair) = frame.get_mut(at..at + 2 * len) {
        let (one, other) = pair.split_at_mut(len);
        one.swap_with_slice(other);
    }
}
