//! Messages of RDMA netlink, byte by byte. They have no header of their own: attributes follow the
//! message's at once (`nldev_get_doit()` in `drivers/infiniband/core/nldev.c`, Linux 6.12).

use super::NetnsMode;
use crate::sys::generic::{Attribute, Writer, find};
use crate::sys::netlink::Raw;

/// `RDMA_NL_NLDEV`: the one of RDMA's clients of netlink that knows devices.
const CLIENT: u16 = 5;
/// `RDMA_NLDEV_CMD_*`.
pub(super) const GET: u16 = 1;
pub(super) const SET: u16 = 2;
pub(super) const PORT_GET: u16 = 5;
pub(super) const SYS_GET: u16 = 6;
/// `RDMA_NLDEV_ATTR_*`.
const DEV_INDEX: u16 = 1;
const DEV_NAME: u16 = 2;
const PORT_INDEX: u16 = 3;
const NODE_GUID: u16 = 6;
const NDEV_INDEX: u16 = 50;
const NDEV_NAME: u16 = 51;
const NETNS_MODE: u16 = 66;
const NET_NS_FD: u16 = 68;

/// An RDMA device. Its index is the same in every namespace, and so is its name until somebody changes
/// that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RdmaDevice {
    pub index: u32,
    pub name: String,
    /// 0 where the driver has none.
    pub node_guid: u64,
}

/// A port, counted from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RdmaPort {
    pub number: u32,
    /// The interface over it, by index and name.
    pub interface: Option<(u32, String)>,
}

/// A question about everything.
pub(super) fn ask(command: u16) -> Raw {
    message(command, Writer::default())
}

/// A question about one device.
pub(super) fn about(command: u16, device: u32) -> Raw {
    let mut body = Writer::default();
    body.put_u32(DEV_INDEX, device);
    message(command, body)
}

/// `descriptor` is an open namespace of this process.
pub(super) fn moving(device: u32, descriptor: u32) -> Raw {
    let mut body = Writer::default();
    body.put_u32(DEV_INDEX, device);
    body.put_u32(NET_NS_FD, descriptor);
    message(SET, body)
}

pub(super) fn naming(device: u32, name: &str) -> Raw {
    let mut body = Writer::default();
    body.put_u32(DEV_INDEX, device);
    body.put_text(DEV_NAME, name);
    message(SET, body)
}

/// `RDMA_NL_GET_TYPE`.
fn message(command: u16, body: Writer) -> Raw {
    Raw { kind: (CLIENT << 10) + command, body: body.finish() }
}

/// A device, where the bytes tell of one.
pub fn decode_device(body: &[u8]) -> Option<RdmaDevice> {
    let guid = find(body, NODE_GUID).and_then(|found| found.value.first_chunk());
    Some(RdmaDevice {
        index: find(body, DEV_INDEX)?.u32()?,
        name: find(body, DEV_NAME)?.text()?.to_owned(),
        node_guid: guid.map(|bytes| u64::from_ne_bytes(*bytes)).unwrap_or_default(),
    })
}

/// A port, where the bytes tell of one.
pub fn decode_port(body: &[u8]) -> Option<RdmaPort> {
    let index = find(body, NDEV_INDEX).and_then(Attribute::u32);
    let name = find(body, NDEV_NAME).and_then(Attribute::text);
    Some(RdmaPort {
        number: find(body, PORT_INDEX)?.u32()?,
        interface: index.zip(name.map(str::to_owned)),
    })
}

/// Whether namespaces share devices: 1 where they do (`nldev_sys_get_doit()`, which sends
/// `ib_devices_shared_netns`).
pub fn decode_mode(body: &[u8]) -> Option<NetnsMode> {
    match find(body, NETNS_MODE)?.u8()? {
        0 => Some(NetnsMode::Exclusive),
        _ => Some(NetnsMode::Shared),
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{
        NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    };

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        let pairs = digits.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn sent(message: Raw) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = 1;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// `rdma system show`, `rdma dev` and `rdma dev set mlx5_0 netns …` of iproute2, by what the
    /// header file says of their messages.
    #[test]
    fn what_is_sent_is_what_iproute2_sends() {
        let header = |length: u8, command: u8| {
            format!("{length:02x}000000 {command:02x}14 0500 01000000 00000000")
        };
        assert_eq!(sent(ask(SYS_GET)), hex(&header(16, 6)));
        assert_eq!(sent(about(PORT_GET, 7)), hex(&(header(24, 5) + "0800 0100 07000000")));
        let moved = header(32, 2) + "0800 0100 07000000 0800 4400 0b000000";
        assert_eq!(sent(moving(7, 11)), hex(&moved));
        let named = header(36, 2) + "0800 0100 07000000 0b00 0200 6d6c78355f3000 00";
        assert_eq!(sent(naming(7, "mlx5_0")), hex(&named));
    }

    /// What `fill_dev_info()` and `fill_port_info()` write, in their order, for a card of one port.
    #[test]
    fn what_the_kernel_answers_is_understood() {
        let device = hex("0800 0100 01000000 0b00 0200 6d6c78355f3000 00 0800 0300 01000000 \
             0c00 0400 36c42181 01000000 0f00 0500 32382e33392e3130303200 00 \
             0c00 0600 4c2e1f0003a1d1b8 0c00 0700 4c2e1f0003a1d1b8 0500 0e00 01000000 \
             0500 5400 00000000 0700 4300 696200 00");
        let found =
            RdmaDevice { index: 1, name: "mlx5_0".to_owned(), node_guid: 0xb8d1_a103_001f_2e4c };
        assert_eq!(decode_device(&device), Some(found));
        let port = hex("0800 0100 01000000 0b00 0200 6d6c78355f3000 00 0800 0300 01000000 \
             0500 0c00 04000000 0500 0d00 05000000 0800 3200 05000000 0900 3300 6574683100 000000");
        let found = RdmaPort { number: 1, interface: Some((5, "eth1".to_owned())) };
        assert_eq!(decode_port(&port), Some(found));
        assert_eq!(decode_mode(&hex("0500 4200 01000000")), Some(NetnsMode::Shared));
        assert_eq!(decode_mode(&hex("0500 4200 00000000")), Some(NetnsMode::Exclusive));
    }

    #[test]
    fn nonsense_is_no_device() {
        for bytes in [&[][..], &[255; 40], &[8, 0, 1, 0, 7, 0, 0, 0], &[5, 0, 1, 0, 7]] {
            assert_eq!(decode_device(bytes), None);
            assert_eq!(decode_port(bytes), None);
            assert_eq!(decode_mode(bytes), None);
        }
    }
}
