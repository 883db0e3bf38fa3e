//! Permanent neighbours: what somebody knows better than ARP and neighbour discovery.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteType;

use super::route::address_family;
use super::{Netlink, NetlinkError};
use crate::model::{Family, IfIndex, MacAddr, Neighbor};

impl Netlink {
    /// The interface's permanent neighbours, sorted. Without those that it only answers for (proxies),
    /// and without those that need no link-layer address.
    pub fn neighbors(&self, index: IfIndex) -> Result<Vec<Neighbor>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(index.0));
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let answers = self.socket.list(&"list neighbours", &request)?;
        let mut neighbors: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => read(index, &message),
                _ => None,
            })
            .collect();
        neighbors.sort_unstable();
        Ok(neighbors)
    }

    /// Adds a permanent neighbour, in the place of what the kernel has found out by itself.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_exists`] where there is a permanent one of that address.
    pub fn add_neighbor(&self, index: IfIndex, neighbor: &Neighbor) -> Result<(), NetlinkError> {
        let put = |flags| {
            let request =
                format_args!("add neighbour {} to interface {index}", neighbor.destination);
            let message = RouteNetlinkMessage::NewNeighbour(write(index, neighbor));
            self.socket.ask(&request, message, NLM_F_CREATE | flags).map(drop)
        };
        match put(NLM_F_EXCL) {
            Err(error) if error.is_exists() => {
                let neighbors = self.neighbors(index)?;
                let is_permanent = neighbors.iter().any(|n| n.destination == neighbor.destination);
                if is_permanent { Err(error) } else { put(NLM_F_REPLACE) }
            }
            done => done,
        }
    }

    /// Removes what is known of the neighbour's address, whichever link-layer address that is.
    pub fn remove_neighbor(&self, index: IfIndex, address: IpAddr) -> Result<(), NetlinkError> {
        let request = format_args!("remove neighbour {address} from interface {index}");
        let message = RouteNetlinkMessage::DelNeighbour(of(index, address));
        self.socket.ask(&request, message, 0).map(drop)
    }
}

fn of(index: IfIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(address));
    message.header.ifindex = index.0;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn write(index: IfIndex, neighbor: &Neighbor) -> NeighbourMessage {
    let mut message = of(index, neighbor.destination);
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbor.mac.0.to_vec()));
    message
}

pub(super) fn read(index: IfIndex, message: &NeighbourMessage) -> Option<Neighbor> {
    let header = &message.header;
    let is_ours = header.ifindex == index.0
        && header.state == NeighbourState::Permanent
        && !header.flags.contains(NeighbourFlags::Proxy);
    if !is_ours {
        return None;
    }
    let (mut destination, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                destination = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                destination = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some(Neighbor { destination: destination?, mac: mac? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permanent_neighbours_of_the_interface_are_read() {
        let neighbor = Neighbor {
            destination: "10.0.0.9".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
        };
        let message = write(IfIndex(3), &neighbor);
        assert_eq!(read(IfIndex(3), &message), Some(neighbor));
        assert_eq!(read(IfIndex(4), &message), None);
        let with = |change: &dyn Fn(&mut NeighbourMessage)| {
            let mut message = message.clone();
            change(&mut message);
            read(IfIndex(3), &message)
        };
        assert_eq!(with(&|message| message.header.state = NeighbourState::Noarp), None);
        assert_eq!(with(&|message| message.header.flags = NeighbourFlags::Proxy), None);
        assert_eq!(with(&|message| message.attributes.truncate(1)), None);
    }
}
