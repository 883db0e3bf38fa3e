//! Who makes the traffic that is captured: sockets of the kernel where it has them, frames of our own
//! where not.

use std::io::{Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
};
use std::os::fd::AsRawFd as _;
use std::thread;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    sendto, setsockopt, socket,
};
use nix::{setsockopt_impl, sockopt_impl};

use super::frames;
use super::wire::{Bench, Netns, POD_ADDRESSES, WIRE_ADDRESSES};

/// All of them, one after the other. The first makes both ends known to each other.
pub(crate) const ALL: [fn(&Bench); 9] = [
    datagrams,
    large_datagrams,
    questions,
    options,
    connections,
    refused_connections,
    echoes,
    raw_packets,
    raw_frames,
];

fn datagrams(bench: &Bench) {
    for family in [0, 1] {
        let pod = Bench::listen(&bench.pod, POD_ADDRESSES[family], 7000);
        let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[family], 9000);
        Bench::warm_up(&wire, &pod);
        assert_eq!(Bench::exchange(&pod, &wire, 2), 2);
    }
}

/// Larger than the link takes at once.
fn large_datagrams(bench: &Bench) {
    for family in [0, 1] {
        let pod = Bench::listen(&bench.pod, POD_ADDRESSES[family], 7000);
        let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[family], 9000);
        for (from, to) in [(&pod, &wire), (&wire, &pod)] {
            from.send_to(&[7; 4000], to.local_addr().unwrap()).unwrap();
            assert_eq!(to.recv(&mut [0; 5000]).unwrap(), 4000);
        }
    }
}

/// A question to a name server that is not there, and the beginning of a QUIC connection.
fn questions(bench: &Bench) {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x07example\x03com\x00\x00\x01\x00\x01");
    // A long header with the "fixed bit", version 1, padded to what the protocol asks for (RFC 9000).
    let mut initial = vec![0xc3, 0, 0, 0, 1, 8];
    initial.resize(1200, 0x5a);
    for family in [0, 1] {
        let pod = Bench::listen(&bench.pod, POD_ADDRESSES[family], 7000);
        let quic = Bench::listen(&bench.wire, WIRE_ADDRESSES[family], 443);
        pod.send_to(&question, (WIRE_ADDRESSES[family], 53)).unwrap();
        pod.send_to(&initial, quic.local_addr().unwrap()).unwrap();
        let (len, peer) = quic.recv_from(&mut [0; 1500]).unwrap();
        quic.send_to(&initial, peer).unwrap();
        assert_eq!(len, initial.len());
    }
}

sockopt_impl!(HopOptions, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, [u8; 8]);
sockopt_impl!(DestinationOptions, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, [u8; 8]);

/// Extension headers that a socket puts before its datagrams.
fn options(bench: &Bench) {
    // The number of what follows, which the kernel fills in; no more than eight bytes; and padding.
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[1], 9000);
    let hops = Bench::listen(&bench.pod, POD_ADDRESSES[1], 7000);
    setsockopt(&hops, HopOptions, &padding).unwrap();
    assert_eq!(Bench::exchange(&hops, &wire, 1), 1);
    let ends = Bench::listen(&bench.pod, POD_ADDRESSES[1], 7001);
    setsockopt(&ends, DestinationOptions, &padding).unwrap();
    assert_eq!(Bench::exchange(&ends, &wire, 1), 1);
}

/// From either end: a question, an answer, and the end of the connection.
fn connections(bench: &Bench) {
    for (client, server, address) in [
        (&bench.pod, &bench.wire, WIRE_ADDRESSES[0]),
        (&bench.wire, &bench.pod, POD_ADDRESSES[0]),
        (&bench.pod, &bench.wire, WIRE_ADDRESSES[1]),
        (&bench.wire, &bench.pod, POD_ADDRESSES[1]),
    ] {
        let listener = server.run(|| TcpListener::bind((address, 8443)).unwrap());
        let to = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = [0; 300];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(&question).unwrap();
            });
            let mut stream = client.run(|| TcpStream::connect(to).unwrap());
            stream.write_all(&[1; 300]).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.len(), 300);
        });
    }
}

fn refused_connections(bench: &Bench) {
    for family in [0, 1] {
        let to = SocketAddr::new(ip(WIRE_ADDRESSES[family]), 1);
        assert!(bench.pod.run(|| TcpStream::connect(to)).is_err());
        let to = SocketAddr::new(ip(POD_ADDRESSES[family]), 1);
        assert!(bench.wire.run(|| TcpStream::connect(to)).is_err());
    }
}

fn echoes(bench: &Bench) {
    let mut request = [8, 0, 0, 0, 0x77, 0x77, 0, 1];
    let checksum = checksum(&request).to_be_bytes();
    request[2..4].copy_from_slice(&checksum);
    send_v4(bench, SockProtocol::Icmp, &request);
    // The kernel knows of ICMPv6 that it has a checksum, and of which.
    let request = [128, 0, 0, 0, 0x77, 0x77, 0, 1];
    bench.pod.run(|| {
        let raw = raw(AddressFamily::Inet6, SockProtocol::IcmpV6);
        let to = SockaddrIn6::from(SocketAddrV6::new(wire_v6(), 0, 0, 0));
        sendto(raw.as_raw_fd(), &request, &to, MsgFlags::empty()).unwrap();
    });
}

/// Protocols that this kernel may have no sockets for: GRE around a short IPv4 packet, and the first
/// chunk of an SCTP association.
fn raw_packets(bench: &Bench) {
    let mut gre = ip_header(47, 4 + 20);
    gre.extend([0, 0, 0x08, 0x00]);
    gre.extend(ip_header(17, 0));
    send_v4(bench, SockProtocol::Raw, &gre);
    let mut sctp = ip_header(132, 12 + 20);
    sctp.extend([0x12, 0x34, 0x0b, 0x59, 0, 0, 0, 0, 0, 0, 0, 0]);
    sctp.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    send_v4(bench, SockProtocol::Raw, &sctp);
}

/// Tags and headers that take devices or settings of the kernel which not every kernel has.
fn raw_frames(bench: &Bench) {
    let source = mac(&bench.pod);
    let mut texts = vec![
        frames::UDP4_IN_QINQ.to_owned(),
        frames::TCP6_BEHIND_EXTENSIONS.to_owned(),
        // A VLAN's tag.
        format!("8100 0005 {}", frames::UDP4),
    ];
    // A routing header that has been used up (RFC 8754), and UDP to port 80.
    texts.push(
        "86dd 60 00 00 00  00 24 2b 40
         fd 09 00 00 00 00 00 00  00 00 00 00 00 00 00 02
         fd 09 00 00 00 00 00 00  00 00 00 00 00 00 00 01
         11 02 04 00 00 00 00 00  fd 09 00 00 00 00 00 00  00 00 00 00 00 00 00 01
         12 34 00 50  00 0c 00 00  de ad be ef"
            .to_owned(),
    );
    bench.pod.run(|| {
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let device = device();
        for text in &texts {
            let mut frame = frames::frame(text);
            frame[..6].fill(0xff);
            frame[6..12].copy_from_slice(&source);
            sendto(raw.as_raw_fd(), &frame, &device, MsgFlags::empty()).unwrap();
        }
    });
}

/// The hardware address of the pod's interface.
pub(crate) fn mac(pod: &Netns) -> [u8; 6] {
    pod.run(|| device().addr().unwrap())
}

/// The pod's interface, from inside.
fn device() -> LinkAddr {
    let mut interfaces = nix::ifaddrs::getifaddrs().unwrap();
    let device = interfaces.find_map(|it| {
        let is_it = it.interface_name == "eth7";
        it.address.filter(|_| is_it)?.as_link_addr().copied()
    });
    device.expect("the pod should have an interface")
}

fn send_v4(bench: &Bench, protocol: SockProtocol, packet: &[u8]) {
    bench.pod.run(|| {
        let raw = raw(AddressFamily::Inet, protocol);
        let to = SockaddrIn::from(SocketAddrV4::new(wire_v4(), 0));
        sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    });
}

fn raw(family: AddressFamily, protocol: SockProtocol) -> std::os::fd::OwnedFd {
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
}

/// Of a packet from the pod to the wire. Length and checksum are the kernel's to fill in.
fn ip_header(number: u8, payload_len: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload_len).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, number, 0, 0]);
    let pod: Ipv4Addr = POD_ADDRESSES[0].parse().unwrap();
    header.extend(pod.octets());
    header.extend(wire_v4().octets());
    header
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wire_v4() -> Ipv4Addr {
    WIRE_ADDRESSES[0].parse().unwrap()
}

fn wire_v6() -> Ipv6Addr {
    WIRE_ADDRESSES[1].parse().unwrap()
}
