//! Messages of generic netlink.

use std::convert::Infallible;

use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::attribute::{Attribute, Writer, find};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and two of its attributes
/// (`include/uapi/linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `struct genlmsghdr`: command, version, and two bytes of nothing.
const HEADER_LEN: usize = 4;
/// Both of the controller and of ethtool.
const VERSION: u8 = 1;

/// A message of any family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Generic {
    pub(super) family: u16,
    pub(super) command: u8,
    pub(super) attributes: Vec<u8>,
}

/// Asks for the number of a family.
pub(super) fn family_request(name: &str) -> Generic {
    let mut writer = Writer::default();
    writer.put_text(FAMILY_NAME, name);
    Generic { family: CONTROLLER, command: GET_FAMILY, attributes: writer.finish() }
}

/// The number of the family that the attributes of a reply are about.
pub fn decode_family(reply: &[u8]) -> Option<u16> {
    find(reply, FAMILY_ID).and_then(Attribute::u16)
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let bytes = [&[self.command, VERSION, 0, 0], self.attributes.as_slice()].concat();
        buffer.copy_from_slice(&bytes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = Infallible;

    /// What is shorter than a header is a message without attributes.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self {
            family: header.message_type,
            command: payload.first().copied().unwrap_or_default(),
            attributes: payload.get(HEADER_LEN..).unwrap_or_default().to_vec(),
        })
    }
}
