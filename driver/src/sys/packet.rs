//! Packets to and from an interface that has no address yet: `packet(7)`.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::model::{IfIndex, MacAddr};

/// Bytes of the longest packet that is received whole. What it is for fits into 576.
const LONGEST: usize = 2048;

/// Sends IPv4 packets out of one interface, to any MAC address, and receives those for one UDP port.
/// It sees them before any firewall of its namespace does, and after XDP programs.
///
/// It stays in the namespace that it was opened in, and keeps that alive.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: IfIndex,
}

/// An IPv4 packet, from its header on, and who sent it on the link.
#[derive(Debug)]
pub struct Received {
    pub from: MacAddr,
    pub packet: Vec<u8>,
}

impl PacketSocket {
    /// Opens one in the calling thread's namespace. Needs `CAP_NET_RAW`.
    pub fn open(index: IfIndex, port: u16) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // Of no protocol until the filter is there, or it would receive everything meanwhile.
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given it to us, and nobody else has it.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, index };
        socket.filter(port)?;
        let address = socket.address(MacAddr([0; 6]))?;
        // SAFETY: `address` is a live `sockaddr_ll` of the length that is passed.
        let outcome = unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), length_of(&address)?)
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    /// Lets in only whole UDP datagrams, or first fragments, for `port`. Where the socket is of
    /// `SOCK_DGRAM`, the filter sees a packet from its network header on (`packet_rcv()` in
    /// `net/packet/af_packet.c`, Linux 6.12).
    fn filter(&self, port: u16) -> io::Result<()> {
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        // Codes from include/uapi/linux/bpf_common.h.
        let mut program = [
            step(0x30, 0, 0, 9),               // ldb protocol
            step(0x15, 0, 6, 17),              // UDP, or refuse
            step(0x28, 0, 0, 6),               // ldh fragment offset
            step(0x45, 4, 0, 0x1fff),          // refuse later fragments
            step(0xb1, 0, 0, 0),               // ldx header length
            step(0x48, 0, 0, 2),               // ldh destination port
            step(0x15, 0, 1, u32::from(port)), // ours, or refuse
            step(0x06, 0, 0, u32::MAX),        // take all of it
            step(0x06, 0, 0, 0),               // refuse
        ];
        let length = u16::try_from(program.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        // SAFETY: `program` and what it points to live until the call is over, of the lengths that are
        // passed; the kernel copies them.
        let outcome = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                length_of(&program)?,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn address(&self, mac: MacAddr) -> io::Result<libc::sockaddr_ll> {
        let mut sll_addr = [0; 8];
        sll_addr[..6].copy_from_slice(&mac.0);
        Ok(libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            sll_protocol: u16::try_from(libc::ETH_P_IP).map_err(io::Error::other)?.to_be(),
            sll_ifindex: self.index.0.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr,
        })
    }

    /// Sends an IPv4 packet; the kernel puts the link's header before it.
    pub fn send(&self, to: MacAddr, packet: &[u8]) -> io::Result<()> {
        let address = self.address(to)?;
        // SAFETY: `packet` and `address` are live and of the lengths that are passed.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                length_of(&address)?,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for a packet; `None` where none came in time.
    pub fn receive(&self, limit: Duration) -> io::Result<Option<Received>> {
        // Zero would wait for ever.
        let limit = limit.max(Duration::from_millis(1));
        let limit = TimeVal::new(limit.as_secs().cast_signed(), limit.subsec_micros().into());
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &limit)?;
        let mut packet = vec![0; LONGEST];
        let mut address = self.address(MacAddr([0; 6]))?;
        let mut length = length_of(&address)?;
        // SAFETY: the kernel writes no more than `packet` has room for, and to `address` no more than
        // `length` says, which is its size; all outlive the call.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                0,
                (&raw mut address).cast(),
                &raw mut length,
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        };
        packet.truncate(received);
        let mut from = MacAddr([0; 6]);
        from.0.copy_from_slice(&address.sll_addr[..6]);
        Ok(Some(Received { from, packet }))
    }
}

fn length_of<T>(_: &T) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}
