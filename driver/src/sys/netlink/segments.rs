//! How large packets may be that the stack hands down in one piece, or puts together.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{Netlink, NetlinkError};
use crate::model::{IfIndex, Segments};

/// One limit: its place among the others, and its attribute.
type Limit = (fn(&Segments) -> Option<u32>, fn(u32) -> LinkAttribute);

/// Those for IPv4 come last: up to 65536 the kernel makes them follow the others, also within one
/// request (`netif_set_gso_max_size()` and `netif_set_gro_max_size()` in `net/core/dev.h`, `do_setlink()`
/// in `net/core/rtnetlink.c`, Linux 6.12).
const LIMITS: [Limit; 4] = [
    (|segments| segments.gso_max_size, LinkAttribute::GsoMaxSize),
    (|segments| segments.gro_max_size, LinkAttribute::GroMaxSize),
    (|segments| segments.gso_ipv4_max_size, LinkAttribute::GsoIpv4MaxSize),
    (|segments| segments.gro_ipv4_max_size, LinkAttribute::GroIpv4MaxSize),
];

impl Netlink {
    /// Sets those limits that are given, in bytes.
    pub fn set_segments(&self, index: IfIndex, segments: &Segments) -> Result<(), NetlinkError> {
        let mut message = LinkUnspec::new_with_index(index.0);
        for (value, attribute) in LIMITS {
            if let Some(bytes) = value(segments) {
                message = message.append_extra_attribute(attribute(bytes));
            }
        }
        self.change(&format_args!("set GSO and GRO sizes of interface {index}"), message.build())
    }
}

/// Takes what an interface's message tells.
pub(super) fn note(attribute: &LinkAttribute, segments: &mut Segments) {
    match attribute {
        LinkAttribute::GsoMaxSize(bytes) => segments.gso_max_size = Some(*bytes),
        LinkAttribute::GroMaxSize(bytes) => segments.gro_max_size = Some(*bytes),
        LinkAttribute::GsoIpv4MaxSize(bytes) => segments.gso_ipv4_max_size = Some(*bytes),
        LinkAttribute::GroIpv4MaxSize(bytes) => segments.gro_ipv4_max_size = Some(*bytes),
        _ => {}
    }
}

/// What to put back after `wish` has been set; `None` where it changes nothing.
///
/// With a limit goes the one for IPv4, which the kernel may have changed along, and would change
/// again on the way back.
pub fn replaced(now: &Segments, wish: &Segments) -> Option<Segments> {
    let differs = |value: fn(&Segments) -> Option<u32>| {
        value(wish).is_some_and(|bytes| value(now) != Some(bytes))
    };
    let gso = differs(|s| s.gso_max_size) || differs(|s| s.gso_ipv4_max_size);
    let gro = differs(|s| s.gro_max_size) || differs(|s| s.gro_ipv4_max_size);
    (gso || gro).then_some(Segments {
        gso_max_size: now.gso_max_size.filter(|_| gso),
        gso_ipv4_max_size: now.gso_ipv4_max_size.filter(|_| gso),
        gro_max_size: now.gro_max_size.filter(|_| gro),
        gro_ipv4_max_size: now.gro_ipv4_max_size.filter(|_| gro),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Segments = Segments {
        gso_max_size: Some(65536),
        gro_max_size: Some(65536),
        gso_ipv4_max_size: Some(32768),
        gro_ipv4_max_size: Some(65536),
    };

    #[test]
    fn a_limit_is_put_back_together_with_that_for_ipv4() {
        let wish = Segments { gso_max_size: Some(100_000), ..Segments::default() };
        let was = Segments { gso_ipv4_max_size: Some(32768), gso_max_size: Some(65536), ..wish };
        assert_eq!(replaced(&NOW, &wish), Some(was));
        let same = Segments { gro_max_size: Some(65536), ..Segments::default() };
        assert_eq!(replaced(&NOW, &same), None);
    }

    #[test]
    fn what_the_kernel_does_not_tell_of_it_does_not_know() {
        let old = Segments { gso_ipv4_max_size: None, gro_ipv4_max_size: None, ..NOW };
        let wish = Segments { gro_ipv4_max_size: Some(1), ..Segments::default() };
        assert_eq!(wish.unknown_to(&old), Some("a GRO size for IPv4"));
        assert_eq!(wish.unknown_to(&NOW), None);
    }
}
