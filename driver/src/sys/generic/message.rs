//! Messages of generic netlink.

use std::convert::Infallible;

use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::attribute::{Attribute, Writer, find};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and some of its attributes
/// (`include/uapi/linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const MULTICAST_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

/// `struct genlmsghdr`: command, version, and two bytes of nothing.
pub(in crate::sys) const HEADER_LEN: usize = 4;
/// Of the controller, and of all families that we ask.
const VERSION: u8 = 1;

/// A message of any family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::sys) struct Generic {
    pub(in crate::sys) family: u16,
    pub(in crate::sys) command: u8,
    pub(in crate::sys) attributes: Vec<u8>,
}

/// Asks for the number of a family.
pub(in crate::sys) fn family_request(name: &str) -> Generic {
    let mut writer = Writer::default();
    writer.put_text(FAMILY_NAME, name);
    Generic { family: CONTROLLER, command: GET_FAMILY, attributes: writer.finish() }
}

/// How the kernel numbers a family, which it does anew whenever it starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Family {
    pub number: u16,
    groups: Vec<(String, u32)>,
}

impl Family {
    /// The number of the multicast group of this name.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(other, _)| other == name).map(|(_, number)| *number)
    }
}

/// The family that the attributes of a reply are about.
pub fn decode_family(reply: &[u8]) -> Option<Family> {
    let number = find(reply, FAMILY_ID).and_then(Attribute::u16)?;
    let group = |group: Attribute<'_>| {
        let name = find(group.value, GROUP_NAME)?.text()?;
        Some((name.to_owned(), find(group.value, GROUP_ID)?.u32()?))
    };
    let groups = find(reply, MULTICAST_GROUPS).into_iter().flat_map(Attribute::nested);
    Some(Family { number, groups: groups.filter_map(group).collect() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_a_number_and_its_groups() {
        let mut writer = Writer::default();
        writer.put(FAMILY_ID, &29_u16.to_ne_bytes());
        writer.nest(MULTICAST_GROUPS, |groups| {
            for (nth, (name, id)) in [(1, ("mgmt", 7)), (2, ("page-pool", 8))] {
                groups.nest(nth, |group| {
                    group.put_u32(GROUP_ID, id);
                    group.put_text(GROUP_NAME, name);
                });
            }
        });
        let family = decode_family(&writer.finish()).unwrap();
        assert_eq!((family.number, family.group("mgmt"), family.group("mg")), (29, Some(7), None));
    }
}
