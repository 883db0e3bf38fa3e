//! Generic netlink: its messages and attributes, and how a family is found. No crate has the families
//! that we ask.

mod attribute;
mod message;

use netlink_sys::protocols::NETLINK_GENERIC;

pub(in crate::sys) use self::attribute::{Attribute, Writer, attributes, find};
pub use self::message::{Family, decode_family};
pub(in crate::sys) use self::message::{Generic, HEADER_LEN};
use crate::sys::netlink::{AskSocket, NetlinkError};

/// Opens a socket in the namespace of the calling thread, and looks a family up by its name; `None`
/// where the kernel has no such family.
pub(in crate::sys) fn open(
    name: &'static str,
) -> Result<Option<(AskSocket<Generic>, Family)>, NetlinkError> {
    let socket = AskSocket::open(NETLINK_GENERIC).map_err(NetlinkError::Open)?;
    let request = format_args!("ask for the number of the family {name}");
    let answers = match socket.ask(&request, message::family_request(name), 0) {
        Ok(answers) => answers,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let family = answers.iter().find_map(|answer| decode_family(&answer.attributes));
    Ok(family.map(|family| (socket, family)))
}
