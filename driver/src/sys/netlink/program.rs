//! Programs of others that netlink tells of and takes away: XDP without a link, and filters.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};
use rtnetlink::packet_route::tc::{
    TcAttribute, TcFilterBpf, TcFilterBpfOption, TcMessage, TcOption,
};

use super::filter::Side;
use super::{Netlink, NetlinkError};
use crate::model::{By, IfIndex};

/// How an XDP program is attached, as the kernel's flag for it (`include/uapi/linux/if_link.h`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdpMode {
    Generic,
    Native,
    Hardware,
}

impl XdpMode {
    fn flag(self) -> u32 {
        match self {
            Self::Generic => 1 << 1,
            Self::Native => 1 << 2,
            Self::Hardware => 1 << 3,
        }
    }
}

/// A filter of the kind `bpf`, wherever it is, and what takes it away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BpfFilter {
    /// The id of its program.
    pub program: u32,
    message: TcMessage,
}

impl Netlink {
    /// The XDP programs of an interface, each with its mode.
    pub fn xdp(&self, index: IfIndex) -> Result<Vec<(XdpMode, u32)>, NetlinkError> {
        let link = self.find(&By::Index(index))?;
        let attributes = link.into_iter().flat_map(|link| link.attributes);
        let found = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::Xdp(parts) => Some(xdp(&parts)),
            _ => None,
        });
        Ok(found.flatten().collect())
    }

    /// Detaches the XDP program of a mode that was attached without a link; with one the kernel
    /// answers `EBUSY`.
    pub fn detach_xdp(&self, index: IfIndex, mode: XdpMode) -> Result<(), NetlinkError> {
        let parts = vec![LinkXdp::Fd(-1), LinkXdp::Flags(mode.flag())];
        let message = LinkUnspec::new_with_index(index.0)
            .append_extra_attribute(LinkAttribute::Xdp(parts))
            .build();
        self.change(&format_args!("detach the XDP program of interface {index}"), message)
    }

    /// All filters of the kind `bpf` on one side of an interface; none where it has no qdisc for them.
    pub fn bpf_filters(&self, index: IfIndex, side: Side) -> Result<Vec<BpfFilter>, NetlinkError> {
        Ok(self.list_filters(index, side)?.iter().filter_map(bpf_filter).collect())
    }

    /// Removes one of them.
    pub fn remove_bpf_filter(&self, filter: &BpfFilter) -> Result<(), NetlinkError> {
        let request = format_args!("remove the filter of program {}", filter.program);
        let message = RouteNetlinkMessage::DelTrafficFilter(filter.message.clone());
        self.socket.ask(&request, message, 0).map(drop)
    }
}

/// Of each mode there is an attribute of its own, and a common one that says which.
pub(super) fn xdp(parts: &[LinkXdp]) -> Vec<(XdpMode, u32)> {
    let found = parts.iter().filter_map(|part| match part {
        LinkXdp::SkbProgId(id) => Some((XdpMode::Generic, *id)),
        LinkXdp::DrvProgId(id) => Some((XdpMode::Native, *id)),
        LinkXdp::HwProgId(id) => Some((XdpMode::Hardware, *id)),
        _ => None,
    });
    found.filter(|(_, id)| *id != 0).collect()
}

pub(super) fn bpf_filter(message: &TcMessage) -> Option<BpfFilter> {
    let is_bpf = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == TcFilterBpf::KIND);
    if !message.attributes.iter().any(is_bpf) {
        return None;
    }
    let program = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    })?;
    // What names it: its place, its kind and its chain.
    let mut names = message.clone();
    names.attributes.retain(|part| is_bpf(part) || matches!(part, TcAttribute::Chain(_)));
    Some(BpfFilter { program, message: names })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::XdpAttached;

    use super::super::filter;
    use super::*;

    #[test]
    fn each_mode_of_xdp_is_told_apart() {
        let parts = [
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::ProgId(0),
            LinkXdp::DrvProgId(9),
            LinkXdp::HwProgId(4),
        ];
        assert_eq!(xdp(&parts), [(XdpMode::Native, 9), (XdpMode::Hardware, 4)]);
    }

    #[test]
    fn only_filters_with_a_program_are_seen() {
        let mut message = filter::at(IfIndex(7));
        assert_eq!(bpf_filter(&message), None);
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        assert_eq!(bpf_filter(&message), None, "a line that names the priority only");
        let options = vec![TcOption::Bpf(TcFilterBpfOption::ProgId(9))];
        message.attributes.push(TcAttribute::Options(options));
        message.attributes.push(TcAttribute::Chain(3));
        let found = bpf_filter(&message).unwrap();
        assert_eq!((found.program, found.message.attributes.len()), (9, 2));
    }
}
