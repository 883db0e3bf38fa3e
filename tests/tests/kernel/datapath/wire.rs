//! Namespaces with a veth pair between them, and a bpffs. All of it goes with the values here.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use driver::datapath::Datapath;
use driver::model::{By, DatapathSpec, IfIndex, IfName, NetnsRef};
use driver::sys::netlink::Netlink;
use ipnet::IpNet;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, setsockopt, socket};
use nix::{setsockopt_impl, sockopt_impl};
use tempfile::TempDir;

use crate::bench::MadeNetns;

/// A network namespace that lives as long as this, and the interfaces in it.
pub(crate) struct Netns(MadeNetns);

impl Netns {
    pub(crate) fn new() -> Self {
        Self(MadeNetns::new())
    }

    /// Runs `visit` on a thread inside.
    pub(crate) fn run<T: Send>(&self, visit: impl FnOnce() -> T + Send) -> T {
        self.0.netns.run(|_| visit()).unwrap()
    }

    /// As the runtime names it.
    pub(crate) fn reference(&self) -> NetnsRef {
        NetnsRef { path: self.0.path(), id: self.0.netns.id() }
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.0.netns).unwrap()
    }

    fn set_up(&self, name: &str, addresses: &[(&str, u8)]) {
        let netlink = self.netlink();
        let index = index(&netlink, name);
        netlink.set_up(index).unwrap();
        for &(address, prefix) in addresses {
            let address = IpNet::new(address.parse().unwrap(), prefix).unwrap();
            netlink.add_address(index, address).unwrap();
        }
    }

    pub(crate) fn delete(&self, name: &str) {
        let netlink = self.netlink();
        netlink.delete(index(&netlink, name)).unwrap();
    }
}

pub(crate) fn index(netlink: &Netlink, name: &str) -> IfIndex {
    netlink.link(&By::Name(name.parse().unwrap())).unwrap().unwrap().index
}

pub(crate) const NIC: &str = "nic0";
pub(crate) const POD_ADDRESSES: [&str; 2] = ["10.9.0.2", "fd09::2"];
pub(crate) const WIRE_ADDRESSES: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// A host with one NIC, whose far end is on the wire; and a pod to move it to.
pub(crate) struct Bench {
    pub(crate) host: Netns,
    pub(crate) pod: Netns,
    pub(crate) wire: Netns,
    bpffs: TempDir,
}

impl Bench {
    /// With `mtu` on both ends.
    pub(crate) fn new(mtu: u32) -> Self {
        let bench = Self {
            host: Netns::new(),
            pod: Netns::new(),
            wire: Netns::new(),
            bpffs: tempfile::tempdir().unwrap(),
        };
        let host = bench.host.netlink();
        let far: IfName = "far0".parse().unwrap();
        host.add_veth(&Self::nic(), &far).unwrap();
        for name in [NIC, "far0"] {
            host.set_mtu(index(&host, name), mtu).unwrap();
        }
        host.move_to(index(&host, "far0"), &bench.wire.0.netns, &far).unwrap();
        let [v4, v6] = WIRE_ADDRESSES;
        bench.wire.set_up("far0", &[(v4, 24), (v6, 64)]);
        bench
    }

    pub(crate) fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// What is pinned, and the directories for it, below the driver's part of bpffs.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.clone());
                if path.is_dir() {
                    walk(&path, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.bpffs.path().join("weir"), &mut found);
        found
    }

    pub(crate) fn nic() -> IfName {
        NIC.parse().unwrap()
    }

    pub(crate) fn move_to_pod(&self) {
        let host = self.host.netlink();
        let nic = index(&host, NIC);
        host.move_to(nic, &self.pod.0.netns, &"eth7".parse().unwrap()).unwrap();
        let [v4, v6] = POD_ADDRESSES;
        self.pod.set_up("eth7", &[(v4, 24), (v6, 64)]);
    }

    /// The way back, under its own name.
    pub(crate) fn move_home(&self) {
        let pod = self.pod.netlink();
        pod.move_to(index(&pod, "eth7"), &self.host.0.netns, &Self::nic()).unwrap();
    }

    /// Moves the NIC with its datapath: links come along, filters are put there.
    pub(crate) fn move_to_pod_with(&self, datapath: &Datapath, spec: &DatapathSpec) {
        self.move_to_pod();
        self.put_filters(datapath, spec);
    }

    /// What replacing programs takes while the NIC is in the pod.
    pub(crate) fn replace_in_pod(&self, datapath: &Datapath, spec: &DatapathSpec) {
        datapath.replace(spec).unwrap();
        self.put_filters(datapath, spec);
    }

    fn put_filters(&self, datapath: &Datapath, spec: &DatapathSpec) {
        let pod = self.pod.netlink();
        datapath.attach_filters(spec, &pod, index(&pod, "eth7")).unwrap();
    }

    /// A socket in the pod that hears what comes in for `port`.
    pub(crate) fn listen(netns: &Netns, address: &str, port: u16) -> UdpSocket {
        let address: IpAddr = address.parse().unwrap();
        let socket = netns.run(|| UdpSocket::bind((address, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }

    /// Sends until one arrives, so that both ends know each other's hardware address. Returns how
    /// many were sent.
    pub(crate) fn warm_up(from: &UdpSocket, to: &UdpSocket) -> u64 {
        to.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let sent = (1..=50).find(|_| {
            from.send_to(&[0; 8], to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0; 16]).is_ok()
        });
        while to.recv(&mut [0; 16]).is_ok() {}
        to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        sent.expect("the wire should carry packets")
    }

    /// Sends `count` packets of 8 bytes one by one, each only after the one before has arrived.
    /// Returns how many did.
    pub(crate) fn exchange(from: &UdpSocket, to: &UdpSocket, count: usize) -> usize {
        (0..count)
            .filter(|_| {
                from.send_to(&[0; 8], to.local_addr().unwrap()).unwrap();
                to.recv(&mut [0; 16]).is_ok()
            })
            .count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Mounted only if a datapath was opened.
        let _ = umount2(self.bpffs.path(), MntFlags::MNT_DETACH);
    }
}

sockopt_impl!(VnetHeader, SetOnly, libc::SOL_PACKET, PACKET_VNET_HDR, i32);
/// From `include/uapi/linux/if_packet.h`.
const PACKET_VNET_HDR: i32 = 15;

/// Sends a frame from the wire such that only its link-layer header lies in the linear part of the
/// socket buffer, as some NICs deliver all they receive. It must be longer than a page, or the
/// kernel makes one piece of it.
pub(crate) fn send_scattered(bench: &Bench, frame: &[u8]) {
    assert!(frame.len() > 4096);
    bench.wire.run(|| {
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        setsockopt(&raw, VnetHeader, &1).unwrap();
        let far = nix::ifaddrs::getifaddrs()
            .unwrap()
            .filter(|interface| interface.interface_name == "far0")
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .unwrap();
        // No offload, and a header length of one byte: the kernel takes no less than Ethernet's.
        let mut message = vec![0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(frame);
        sendto(raw.as_fd().as_raw_fd(), &message, &far, MsgFlags::empty()).unwrap();
    });
}
