//! The least that puts interfaces into a namespace: one netlink socket for each namespace, one request
//! for each change, nothing looked at, nothing written down, nothing to go back by.
//!
//! Its messages are written by hand, so that it shares nothing with the driver that it is compared to.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use driver::sys::netns::Netns;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

// `include/uapi/linux/{rtnetlink,if_link,if_addr}.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const UNICAST: u8 = 1;
const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 1 | 4;
const CREATE_NEW: u16 = 0x200 | 0x400;
const IFF_UP: u32 = 1;

/// An IPv4 address or destination with the length of its prefix.
pub(super) type Net = (Ipv4Addr, u8);

/// What an interface becomes, and what it was.
#[derive(Clone, Debug)]
pub(super) struct Journey {
    pub(super) index: u32,
    pub(super) home: String,
    pub(super) home_address: Net,
    pub(super) name: String,
    pub(super) address: Net,
    pub(super) route: Net,
    pub(super) gateway: Ipv4Addr,
}

/// Carries interfaces from the calling thread's namespace into another one and back.
#[derive(Debug)]
pub(super) struct Carrier {
    host: Socket,
    home: Netns,
}

impl Carrier {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { host: Socket::open()?, home: Netns::of_this_thread()? })
    }

    /// Puts all of them into `netns`, and answers how long that took. Opening the socket there counts:
    /// a sandbox is new, so whoever attaches has to.
    pub(super) fn attach(&self, netns: &Netns, journeys: &[Journey]) -> Result<Duration> {
        let begun = Instant::now();
        let pod = netns.run(|_| Socket::open())??;
        for it in journeys {
            self.host.set_flags(it.index, 0).with_context(|| format!("set {} down", it.home))?;
            self.host.send_to(it.index, netns.as_fd(), &it.name)?;
            pod.add_address(it.index, it.address)?;
            pod.set_flags(it.index, IFF_UP).with_context(|| format!("set {} up", it.name))?;
            pod.add_route(it.index, it.route, it.gateway)?;
        }
        Ok(begun.elapsed())
    }

    /// Brings them home and makes them what they were.
    pub(super) fn detach(&self, netns: &Netns, journeys: &[Journey]) -> Result<()> {
        let pod = netns.run(|_| Socket::open())??;
        for it in journeys {
            pod.set_flags(it.index, 0)?;
            pod.send_to(it.index, self.home.as_fd(), &it.home)?;
            self.host.add_address(it.index, it.home_address)?;
            self.host.set_flags(it.index, IFF_UP)?;
        }
        Ok(())
    }
}

/// A route netlink socket of the namespace that it was opened in.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        let fd = socket(AddressFamily::Netlink, kind.0, kind.1, kind.2)?;
        Ok(Self { fd, sequence: Cell::new(0) })
    }

    fn set_flags(&self, index: u32, flags: u32) -> io::Result<()> {
        self.ask(RTM_NEWLINK, 0, link(index, flags, IFF_UP))
    }

    /// Into the namespace `netns` under a new name.
    fn send_to(&self, index: u32, netns: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut message = link(index, 0, 0);
        put(&mut message, IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
        put(&mut message, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.ask(RTM_NEWLINK, 0, message)
    }

    fn add_address(&self, index: u32, (address, prefix): Net) -> io::Result<()> {
        let mut message = vec![inet(), prefix, 0, 0];
        message.extend(index.to_ne_bytes());
        put(&mut message, IFA_LOCAL, &address.octets());
        put(&mut message, IFA_ADDRESS, &address.octets());
        self.ask(RTM_NEWADDR, CREATE_NEW, message)
    }

    fn add_route(&self, index: u32, (to, prefix): Net, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = vec![inet(), prefix, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, 0, UNICAST];
        message.extend([0; 4]);
        put(&mut message, RTA_DST, &to.octets());
        put(&mut message, RTA_GATEWAY, &gateway.octets());
        put(&mut message, RTA_OIF, &index.to_ne_bytes());
        self.ask(RTM_NEWROUTE, CREATE_NEW, message)
    }

    /// Sends a request and waits for its acknowledgement.
    fn ask(&self, kind: u16, flags: u16, body: Vec<u8>) -> io::Result<()> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST_AND_ACK | flags).to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "this is no acknowledgement");
        let answer = answer.get(..length).unwrap_or_default();
        let [kind, errno] = [answer.get(4..6), answer.get(16..20)];
        let kind = kind.and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        let errno = errno.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match (kind, errno) {
            (Some(NLMSG_ERROR), Some(0)) => Ok(()),
            (Some(NLMSG_ERROR), Some(errno)) => Err(io::Error::from_raw_os_error(-errno)),
            _ => Err(odd()),
        }
    }
}

fn inet() -> u8 {
    u8::try_from(libc::AF_INET).unwrap_or_default()
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Appends an attribute.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}
