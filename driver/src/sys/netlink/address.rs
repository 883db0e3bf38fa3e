//! Addresses of interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};
use crate::model::{Dad, IfIndex};

impl Netlink {
    /// The interface's addresses, in an order in which they can be assigned anew to come to the same
    /// order again. Without IPv6 link-local ones, which the kernel makes by itself. None of an
    /// interface that does not exist.
    pub fn addresses(&self, index: IfIndex) -> Result<Vec<IpNet>, NetlinkError> {
        Ok(self.list_addresses(Some(index))?.remove(&index).unwrap_or_default())
    }

    /// [`addresses`](Self::addresses) of all interfaces that have any.
    pub fn all_addresses(&self) -> Result<BTreeMap<IfIndex, Vec<IpNet>>, NetlinkError> {
        self.list_addresses(None)
    }

    /// The kernel filters by the header's index (`inet_valid_dump_ifaddr_req()` in
    /// `net/ipv4/devinet.c`, Linux 6.12).
    fn list_addresses(
        &self,
        index: Option<IfIndex>,
    ) -> Result<BTreeMap<IfIndex, Vec<IpNet>>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index.map_or(0, |index| index.0);
        let request = RouteNetlinkMessage::GetAddress(message);
        let answers = match self.socket.list(&"list addresses", &request) {
            Ok(answers) => answers,
            Err(error) if index.is_some() && error.is_absent() => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut addresses: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            let index = IfIndex(message.header.index);
            if let Some(address) = read(&message).filter(|address| !is_ipv6_link_local(*address)) {
                addresses.entry(index).or_default().push(address);
            }
        }
        for addresses in addresses.values_mut() {
            oldest_first(addresses);
        }
        Ok(addresses)
    }

    /// Assigns an address that can be used at once.
    pub fn add_address(&self, index: IfIndex, address: IpNet) -> Result<(), NetlinkError> {
        self.add_address_with(index, address, Dad::Skip)
    }

    /// Assigns an address. An IPv6 address that skips the search for duplicates (`IFA_F_NODAD`) is
    /// usable at once; IPv4 has no such search.
    pub fn add_address_with(
        &self,
        index: IfIndex,
        address: IpNet,
        dad: Dad,
    ) -> Result<(), NetlinkError> {
        let request = format_args!("add address {address} to interface {index}");
        let mut message = assignment(index, address);
        match address {
            IpNet::V4(v4) if v4.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) if dad == Dad::Run => {}
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.socket.ask(&request, RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Takes an address away. With the first IPv4 address of a subnet go the others of the same
    /// subnet, unless `promote_secondaries` is set.
    pub fn remove_address(&self, index: IfIndex, address: IpNet) -> Result<(), NetlinkError> {
        let request = format_args!("remove address {address} from interface {index}");
        let message = assignment(index, address);
        self.socket.ask(&request, RouteNetlinkMessage::DelAddress(message), 0).map(drop)
    }
}

fn assignment(index: IfIndex, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix_len();
    message.header.index = index.0;
    // They differ on point-to-point interfaces only, where the first would be the peer's.
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message
}

/// On a point-to-point interface `IFA_ADDRESS` is the peer's address and `IFA_LOCAL` ours; IPv6
/// has no `IFA_LOCAL` otherwise.
pub(super) fn read(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}

/// The kernel lists the newest IPv6 address of a scope first (`ipv6_link_dev_addr()` in
/// `net/ipv6/addrconf.c`, Linux 6.12), and IPv4 addresses as they came (kernel ring:
/// `addresses_that_are_assigned_as_they_were_read_are_in_the_same_order`).
fn oldest_first(addresses: &mut [IpNet]) {
    addresses.sort_by_key(|address| matches!(address, IpNet::V6(_)));
    let v4 = addresses.iter().filter(|address| matches!(address, IpNet::V4(_))).count();
    addresses[v4..].reverse();
}

fn is_ipv6_link_local(address: IpNet) -> bool {
    matches!(address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_counts_on_a_point_to_point_interface() {
        let mut message = assignment(IfIndex(3), "10.0.0.1/32".parse().unwrap());
        message.attributes[0] = AddressAttribute::Address("10.9.9.9".parse().unwrap());
        assert_eq!(read(&message), Some("10.0.0.1/32".parse().unwrap()));

        message.attributes.truncate(1);
        assert_eq!(read(&message), Some("10.9.9.9/32".parse().unwrap()));
    }
}
