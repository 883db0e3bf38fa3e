//! What interfaces can do with XDP and AF_XDP, by the generic netlink family `netdev`.
//!
//! One listing tells all interfaces of the namespace (`Documentation/netlink/specs/netdev.yaml`, Linux
//! 6.12). libbpf asks the same family about one interface at a time, and lists all links besides:
//! the kernel ring shows that both say the same.

use std::collections::BTreeMap;
use std::fmt;

use super::generic::{self, Attribute, Family, Generic, Writer, find};
use super::netlink::{AskSocket, NetlinkError};
use crate::model::{IfIndex, RxMetadata, XdpFeatures, XskFeatures};

/// What the kernel calls the family.
const FAMILY: &str = "netdev";
/// The group that is told when what is told here changes.
const GROUP: &str = "mgmt";

// `enum`s of `include/uapi/linux/netdev.h`.
const DEV_GET: u8 = 1;
pub(super) const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const DEV_XSK_FEATURES: u16 = 6;

/// A socket of the namespace that it was opened in.
pub struct Netdev {
    socket: AskSocket<Generic>,
    family: Family,
}

/// What the driver of an interface can do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NetdevFacts {
    pub xdp: XdpFeatures,
    /// `None` before Linux 6.7.
    pub rx_metadata: Option<RxMetadata>,
    /// `None` before Linux 6.8.
    pub xsk: Option<XskFeatures>,
    /// How many buffers a packet of AF_XDP can have without being copied; `None` where it cannot be
    /// without.
    pub zero_copy_segments: Option<u32>,
}

impl Netdev {
    /// Opens a socket in the namespace of the calling thread. `None` where the kernel has no such
    /// family (before 6.3).
    pub fn open() -> Result<Option<Self>, NetlinkError> {
        Ok(generic::open(FAMILY)?.map(|(socket, family)| Self { socket, family }))
    }

    /// All interfaces of the namespace.
    pub fn devices(&self) -> Result<BTreeMap<IfIndex, NetdevFacts>, NetlinkError> {
        let answers = self.socket.list(&"list what interfaces can do with XDP", &self.get(None))?;
        Ok(answers.iter().filter_map(|answer| decode_device(&answer.attributes)).collect())
    }

    /// One interface; `None` when there is none.
    pub fn device(&self, index: IfIndex) -> Result<Option<NetdevFacts>, NetlinkError> {
        let request = format_args!("ask what interface {index} can do with XDP");
        match self.socket.ask(&request, self.get(Some(index)), 0) {
            Ok(answers) => {
                let mut devices = answers.iter().filter_map(|it| decode_device(&it.attributes));
                Ok(devices.next().map(|(_, facts)| facts))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of the group that is told of changes.
    pub(super) fn group(&self) -> Option<u32> {
        self.family.group(GROUP)
    }

    fn get(&self, index: Option<IfIndex>) -> Generic {
        let mut writer = Writer::default();
        if let Some(index) = index {
            writer.put_u32(DEV_IFINDEX, index.0);
        }
        Generic { family: self.family.number, command: DEV_GET, attributes: writer.finish() }
    }
}

impl fmt::Debug for Netdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Netdev")
    }
}

/// The interface that the attributes of a reply or of a notification are about.
pub fn decode_device(attributes: &[u8]) -> Option<(IfIndex, NetdevFacts)> {
    let index = find(attributes, DEV_IFINDEX)?.u32()?;
    let bits = |kind| find(attributes, kind).and_then(Attribute::u64);
    let facts = NetdevFacts {
        xdp: XdpFeatures(bits(DEV_XDP_FEATURES)?),
        rx_metadata: bits(DEV_XDP_RX_METADATA_FEATURES).map(RxMetadata),
        xsk: bits(DEV_XSK_FEATURES).map(XskFeatures),
        zero_copy_segments: find(attributes, DEV_XDP_ZC_MAX_SEGS).and_then(Attribute::u32),
    };
    Some((IfIndex(index), facts))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(xdp: u64, metadata: Option<u64>, xsk: Option<u64>, segments: Option<u32>) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put_u32(DEV_IFINDEX, 7);
        writer.put(DEV_XDP_FEATURES, &xdp.to_ne_bytes());
        for (kind, bits) in [(DEV_XDP_RX_METADATA_FEATURES, metadata), (DEV_XSK_FEATURES, xsk)] {
            if let Some(bits) = bits {
                // `NETDEV_A_DEV_PAD`, by which the kernel aligns the next one.
                writer.put(2, &[]);
                writer.put(kind, &bits.to_ne_bytes());
            }
        }
        if let Some(segments) = segments {
            writer.put_u32(DEV_XDP_ZC_MAX_SEGS, segments);
        }
        writer.finish()
    }

    #[test]
    fn a_nic_that_can_do_everything_says_so() {
        let (index, facts) = decode_device(&reply(0x7f, Some(7), Some(3), Some(5))).unwrap();
        assert_eq!(index, IfIndex(7));
        assert!(facts.xdp.has_hw_offload() && facts.xdp.has_zero_copy());
        let metadata = facts.rx_metadata.unwrap();
        assert!(metadata.has_hash() && metadata.has_timestamp() && metadata.has_vlan_tag());
        let xsk = facts.xsk.unwrap();
        assert!(xsk.has_tx_timestamp() && xsk.has_tx_checksum());
        assert_eq!(facts.zero_copy_segments, Some(5));
    }

    #[test]
    fn what_an_older_kernel_does_not_tell_is_not_known() {
        let (_, facts) = decode_device(&reply(1, None, None, None)).unwrap();
        let expected = NetdevFacts { xdp: XdpFeatures(1), ..NetdevFacts::default() };
        assert_eq!(facts, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_device(&bytes);
        }
    }
}
