//! The qdisc `clsact` and filters of the kind `bpf` in it: how a program is attached to an interface
//! where the kernel has no TCX.
//!
//! The qdisc and its filters stay behind when the interface moves into another namespace
//! (`dev_shutdown()` in `dev_change_net_namespace()`, `net/core/dev.c`, Linux 6.1; kernel ring:
//! `filters_do_not_travel`).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
    TcU32OptionFlags,
};

use super::{Netlink, NetlinkError};
use crate::model::IfIndex;

/// On which side of an interface a filter sees packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Ingress,
    Egress,
}

/// A filter of the kind `bpf` at the place that is ours: the first of its side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterFacts {
    /// What whoever made it called it.
    pub name: String,
    /// The id of its program.
    pub program: u32,
}

/// Of all priorities the first. 0 would have the kernel choose one.
const PRIORITY: u32 = 1;
/// Of all filters of that priority the first.
const HANDLE: u32 = 1;

impl Side {
    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Netlink {
    /// Makes the qdisc `clsact`, which does nothing by itself.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_exists`] where there is one.
    pub fn add_clsact(&self, index: IfIndex) -> Result<(), NetlinkError> {
        let request = format_args!("add the qdisc clsact to interface {index}");
        let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(index));
        self.socket.ask(&request, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Puts `program` at our place on one side of an interface that has the qdisc `clsact`, in the
    /// place of what is there: each packet is seen by one of the two (`cls_bpf_change()` in
    /// `net/sched/cls_bpf.c`, Linux 6.1). What the program answers is the verdict.
    pub fn put_filter(
        &self,
        index: IfIndex,
        side: Side,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let request = format!("put filter {name} on the {} of interface {index}", side.name());
        let mut message = place(index, side);
        message.attributes.push(TcAttribute::Options(
            [
                TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs()),
                TcFilterBpfOption::ProgName(name.to_owned()),
                TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
                // Maps are read here, not on the NIC.
                TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw),
            ]
            .map(TcOption::Bpf)
            .to_vec(),
        ));
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        self.socket.ask(&request, message, NLM_F_CREATE).map(drop)
    }

    /// What is at our place on one side of an interface. `None`: nothing of the kind `bpf`, also
    /// because there is no `clsact`.
    pub fn filter(&self, index: IfIndex, side: Side) -> Result<Option<FilterFacts>, NetlinkError> {
        Ok(self.list_filters(index, side)?.into_iter().find_map(read))
    }

    /// What the filters of the kind `bpf` on both sides of an interface are called, sorted.
    pub fn filter_names(&self, index: IfIndex) -> Result<Vec<String>, NetlinkError> {
        let mut filters = self.list_filters(index, Side::Ingress)?;
        filters.extend(self.list_filters(index, Side::Egress)?);
        let mut names: Vec<_> = filters.into_iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn list_filters(
        &self,
        index: IfIndex,
        side: Side,
    ) -> Result<Vec<TcMessage>, NetlinkError> {
        let request = format!("list the {} filters of interface {index}", side.name());
        let mut message = at(index);
        message.header.parent = side.parent();
        let message = RouteNetlinkMessage::GetTrafficFilter(message);
        let answers = self.socket.list(&request, &message)?;
        let filters = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
            _ => None,
        });
        Ok(filters.collect())
    }

    /// Removes what is at our place on one side of an interface that has the qdisc `clsact`.
    pub fn remove_filter(&self, index: IfIndex, side: Side) -> Result<(), NetlinkError> {
        let request = format!("remove our filter from the {} of interface {index}", side.name());
        let message = RouteNetlinkMessage::DelTrafficFilter(place(index, side));
        self.socket.ask(&request, message, 0).map(drop)
    }
}

pub(super) fn at(index: IfIndex) -> TcMessage {
    TcMessage::with_index(index.0.cast_signed())
}

fn clsact(index: IfIndex) -> TcMessage {
    let mut message = at(index);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

fn place(index: IfIndex, side: Side) -> TcMessage {
    let mut message = at(index);
    message.header.parent = side.parent();
    message.header.handle = HANDLE.into();
    // Priority above protocol, the latter in network byte order.
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    message.header.info = PRIORITY << 16 | u32::from(protocol);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn name(message: TcMessage) -> Option<String> {
    let options = message.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options?.into_iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name),
        _ => None,
    })
}

pub(super) fn read(message: TcMessage) -> Option<FilterFacts> {
    if message.header.info >> 16 != PRIORITY || u32::from(message.header.handle) != HANDLE {
        return None;
    }
    let mut facts = FilterFacts { name: String::new(), program: 0 };
    let options = message.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => facts.name = name,
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => facts.program = id,
            _ => {}
        }
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(handle: u32, name: &str) -> TcMessage {
        let mut message = place(IfIndex(7), Side::Egress);
        message.header.handle = handle.into();
        let options =
            vec![TcFilterBpfOption::ProgName(name.to_owned()), TcFilterBpfOption::ProgId(9)];
        let options = options.into_iter().map(TcOption::Bpf).collect();
        message.attributes.push(TcAttribute::Options(options));
        message
    }

    #[test]
    fn our_place_is_the_first_for_all_protocols() {
        let header = place(IfIndex(7), Side::Egress).header;
        assert_eq!(u32::from(header.parent), 0xffff_fff3);
        assert_eq!(header.info.to_le_bytes(), [0, 3, 1, 0]);
    }

    #[test]
    fn only_what_is_at_our_place_is_seen() {
        let facts = FilterFacts { name: "a".to_owned(), program: 9 };
        assert_eq!(read(filter(1, "a")), Some(facts));
        assert_eq!(read(filter(2, "a")), None);
        assert_eq!(name(filter(2, "b")).as_deref(), Some("b"), "but all have names");
        assert_eq!(name(place(IfIndex(7), Side::Egress)), None);
        let mut later = filter(1, "a");
        later.header.info = 2 << 16 | 3;
        assert_eq!(read(later), None);
        // A line of the listing that names the priority and no filter.
        assert_eq!(read(place(IfIndex(7), Side::Egress)), None);
    }
}
