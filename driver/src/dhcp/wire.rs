//! DHCP messages as they are on the wire, in IPv4 packets, and what an answer lends.

use std::net::Ipv4Addr;

use dhcproto::v4::{
    CLIENT_PORT, DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, SERVER_PORT,
};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use ipnet::{IpNet, Ipv4Net};

use super::DhcpError;
use crate::model::{Lease, LeaseTimes, MacAddr, Route, RouteProtocol};

/// A lease time that means for ever (RFC 2131, 3.3).
const ENDLESS: u32 = u32::MAX;

/// Hops that a message may make; relays make new ones.
const TTL: u8 = 64;

/// A message of ours, without what it asks for.
pub(super) fn message(xid: u32, client: MacAddr, kind: MessageType) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &client.0);
    let mut id = vec![1]; // Ethernet
    id.extend(client.0);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ClientIdentifier(id));
    message
}

/// Adds which options we read. 121 before 3, as RFC 3442 has it.
pub(super) fn ask(message: &mut Message) {
    let wanted = vec![
        OptionCode::SubnetMask,
        OptionCode::ClasslessStaticRoute,
        OptionCode::Router,
        OptionCode::Renewal,
        OptionCode::Rebinding,
    ];
    message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
    message.opts_mut().insert(DhcpOption::MaxMessageSize(1500));
}

/// Has answers sent to everybody on the link, where a frame for `client` would not reach us.
pub(super) fn broadcast(message: &mut Message) {
    message.set_flags(Flags::default().set_broadcast());
}

/// The message in a packet.
pub(super) fn packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    message: &Message,
) -> Result<Vec<u8>, DhcpError> {
    let fail = |error: &dyn std::fmt::Display| DhcpError::Message(error.to_string());
    let mut payload = Vec::with_capacity(512);
    message.encode(&mut Encoder::new(&mut payload)).map_err(|error| fail(&error))?;
    // Relays may drop what is shorter than a message of BOOTP (RFC 1542, 2.1).
    payload.resize(payload.len().max(300), 0);
    let builder = PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
        .udp(CLIENT_PORT, SERVER_PORT);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, &payload).map_err(|error| fail(&error))?;
    Ok(packet)
}

/// What a server says to us in a packet; `None` for anything else. The UDP checksum is not looked at:
/// where the server is on this machine, it is not there yet (`CHECKSUM_PARTIAL`).
pub(super) fn answer(packet: &[u8], xid: u32, client: MacAddr) -> Option<Message> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    let message = Message::decode(&mut Decoder::new(udp.payload())).ok()?;
    // The length is the sender's word, and `chaddr()` takes it.
    let is_ours = message.opcode() == Opcode::BootReply
        && message.xid() == xid
        && message.hlen() == 6
        && message.chaddr() == client.0;
    is_ours.then_some(message)
}

/// Which server a message is from, by its own word.
pub(super) fn server(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(server) => Some(*server),
        _ => None,
    }
}

/// What a refusal gives as its reason.
pub(super) fn reason(message: &Message) -> String {
    match message.opts().get(OptionCode::Message) {
        Some(DhcpOption::Message(text)) => text.chars().take(200).collect(),
        _ => String::new(),
    }
}

/// What a DHCPACK that came at `now` from `mac` lends; `None` where it lacks what it has to say.
pub(super) fn lease(message: &Message, client: MacAddr, mac: MacAddr, now: u64) -> Option<Lease> {
    let options = message.opts();
    let address = message.yiaddr();
    let seconds = match options.get(OptionCode::AddressLeaseTime)? {
        DhcpOption::AddressLeaseTime(seconds @ 1..) => *seconds,
        _ => return None,
    };
    let bits = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => ipnet::ipv4_mask_to_prefix(*mask).ok()?,
        // Nobody else is known to be on the link.
        _ => 32,
    };
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        return None;
    }
    let address = Ipv4Net::new(address, bits).ok()?;
    Some(Lease {
        address,
        client,
        server: server(message)?,
        server_mac: mac,
        routes: routes(message, address, metric(client)),
        times: (seconds != ENDLESS).then(|| times(message, seconds, now)),
    })
}

/// T1 and T2 are half and seven eighths of the time where the server does not say other ones that
/// make sense (RFC 2131, 4.4.5).
fn times(message: &Message, seconds: u32, now: u64) -> LeaseTimes {
    let seconds = u64::from(seconds);
    let rebind = match message.opts().get(OptionCode::Rebinding) {
        Some(DhcpOption::Rebinding(said)) => u64::from(*said),
        _ => seconds,
    };
    let rebind = if rebind < seconds { rebind } else { seconds * 7 / 8 };
    let renew = match message.opts().get(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(said)) => u64::from(*said),
        _ => seconds / 2,
    };
    let renew = if renew < rebind { renew } else { rebind / 2 };
    LeaseTimes { renew: now + renew, rebind: now + rebind, end: now + seconds }
}

/// Behind the default route that the pod has from its cluster, as systemd-networkd puts what it hears
/// of DHCP servers; and another one for each interface, since the kernel takes a destination and
/// metric once.
fn metric(client: MacAddr) -> u32 {
    let [.., high, low] = client.0;
    1024 + u32::from(u16::from_be_bytes([high, low]))
}

/// Option 121, or else the first router of option 3: whoever has the former ignores the latter (RFC
/// 3442).
fn routes(message: &Message, address: Ipv4Net, metric: u32) -> Vec<Route> {
    let said: Vec<(Ipv4Net, Ipv4Addr)> = match message.opts().get(OptionCode::ClasslessStaticRoute)
    {
        Some(DhcpOption::ClasslessStaticRoute(routes)) => routes.clone(),
        _ => match message.opts().get(OptionCode::Router) {
            Some(DhcpOption::Router(routers)) => {
                routers.iter().take(1).map(|router| (Ipv4Net::default(), *router)).collect()
            }
            _ => Vec::new(),
        },
    };
    let is_direct = |gateway: &Ipv4Addr| gateway.is_unspecified();
    let on_link = |gateway: &Ipv4Addr| {
        let direct = said.iter().filter(|(_, other)| is_direct(other));
        address.contains(gateway) || direct.into_iter().any(|(net, _)| net.contains(gateway))
    };
    let mut routes: Vec<Route> = Vec::with_capacity(said.len());
    for (destination, gateway) in &said {
        let destination = destination.trunc();
        // The kernel makes that one with the address.
        let is_own = is_direct(gateway) && destination == address.trunc();
        let destination = IpNet::V4(destination);
        if is_own || routes.iter().any(|route| route.destination == destination) {
            continue;
        }
        routes.push(Route {
            gateway: (!is_direct(gateway)).then_some((*gateway).into()),
            onlink: !is_direct(gateway) && !on_link(gateway),
            metric: Some(metric),
            protocol: RouteProtocol::DHCP,
            ..Route::to(destination)
        });
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    /// A DHCPACK for 192.0.2.9 whose options are these octets, as a server would send them.
    fn ack(options: &[&[u8]]) -> Message {
        let mut octets = vec![2, 1, 6, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9];
        octets.resize(28, 0);
        octets.extend(CLIENT.0);
        octets.resize(236, 0);
        octets.extend([99, 130, 83, 99, 53, 1, 5, 54, 4, 192, 0, 2, 1]);
        octets.extend(options.concat());
        octets.push(255);
        Message::decode(&mut Decoder::new(&octets)).unwrap()
    }

    const HOUR: &[u8] = &[51, 4, 0, 0, 0x0e, 0x10];
    const MASK: &[u8] = &[1, 4, 255, 255, 255, 0];
    const ROUTER: &[u8] = &[3, 8, 192, 0, 2, 254, 192, 0, 2, 253];

    fn lent(options: &[&[u8]]) -> Lease {
        lease(&ack(options), CLIENT, SERVER, 1000).unwrap()
    }

    fn told(lease: &Lease) -> Vec<String> {
        let tell = |route: &Route| {
            let gateway = route.gateway.map_or("link".to_owned(), |gateway| gateway.to_string());
            let onlink = if route.onlink { " onlink" } else { "" };
            format!("{} {gateway}{onlink}", route.destination)
        };
        lease.routes.iter().map(tell).collect()
    }

    #[test]
    fn the_first_router_is_the_default_route() {
        let lease = lent(&[HOUR, MASK, ROUTER]);
        assert_eq!(lease.address, "192.0.2.9/24".parse().unwrap());
        assert_eq!((lease.server, lease.server_mac), ([192, 0, 2, 1].into(), SERVER));
        assert_eq!(told(&lease), ["0.0.0.0/0 192.0.2.254"]);
        let route = &lease.routes[0];
        assert_eq!((route.protocol, route.metric), (RouteProtocol::DHCP, Some(1024 + 7)));
    }

    #[test]
    fn classless_routes_push_the_router_aside() {
        // With prefixes of 0, 9, 20, 24 and 32 bits; the last two octets of the first are no
        // significant ones, and a gateway of zeroes means on the link.
        let classless: &[u8] = &[
            121, 37, 0, 192, 0, 2, 1, // 0.0.0.0/0
            9, 10, 128, 192, 0, 2, 2, // 10.128.0.0/9
            20, 172, 16, 31, 192, 0, 2, 3, // 172.16.16.0/20, with host bits
            24, 203, 0, 113, 0, 0, 0, 0, // on the link
            32, 198, 51, 100, 7, 203, 0, 113, 1, // through it
        ];
        assert_eq!(
            told(&lent(&[HOUR, MASK, ROUTER, classless])),
            [
                "0.0.0.0/0 192.0.2.1",
                "10.128.0.0/9 192.0.2.2",
                "172.16.16.0/20 192.0.2.3",
                "203.0.113.0/24 link",
                "198.51.100.7/32 203.0.113.1",
            ]
        );
    }

    #[test]
    fn classless_routes_without_a_default_one_leave_none() {
        let classless: &[u8] = &[121, 6, 8, 10, 192, 0, 2, 1];
        assert_eq!(told(&lent(&[HOUR, MASK, ROUTER, classless])), ["10.0.0.0/8 192.0.2.1"]);
    }

    #[test]
    fn a_route_to_the_addresss_own_network_is_left_to_the_kernel() {
        let classless: &[u8] = &[121, 8, 24, 192, 0, 2, 0, 0, 0, 0];
        assert_eq!(told(&lent(&[HOUR, MASK, classless])), Vec::<String>::new());
    }

    #[test]
    fn a_gateway_that_no_network_has_counts_as_on_the_link() {
        let lease = lent(&[HOUR, ROUTER]);
        assert_eq!(lease.address, "192.0.2.9/32".parse().unwrap(), "no mask, no neighbours");
        assert_eq!(told(&lease), ["0.0.0.0/0 192.0.2.254 onlink"]);
    }

    #[test]
    fn times_are_the_servers_where_they_make_sense() {
        let of = |options: &[&[u8]]| lent(options).times.map(|t| (t.renew, t.rebind, t.end));
        assert_eq!(of(&[HOUR]), Some((2800, 4150, 4600)));
        let (early, late) = (&[58, 4, 0, 0, 0, 3][..], &[59, 4, 0, 0, 0, 60][..]);
        assert_eq!(of(&[HOUR, early, late]), Some((1003, 1060, 4600)));
        let (never, too_late) = (&[58, 4, 0, 0, 0x10, 0][..], &[59, 4, 0, 0, 0x20, 0][..]);
        assert_eq!(of(&[HOUR, never, too_late]), Some((2575, 4150, 4600)));
        assert_eq!(of(&[&[51, 4, 255, 255, 255, 255]]), None, "for ever");
    }

    #[test]
    fn what_lacks_a_time_or_has_a_mask_with_holes_lends_nothing() {
        let nothing = |options: &[&[u8]]| lease(&ack(options), CLIENT, SERVER, 0).is_none();
        assert!(nothing(&[MASK]));
        assert!(nothing(&[&[51, 4, 0, 0, 0, 0]]));
        assert!(nothing(&[HOUR, &[1, 4, 255, 0, 255, 0]]));
    }

    #[test]
    fn only_answers_to_our_own_question_are_heard() {
        let mut reply = message(5, CLIENT, MessageType::Offer);
        reply.set_opcode(Opcode::BootReply);
        let packet = |reply: &Message| {
            packet(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::BROADCAST, reply).unwrap()
        };
        assert!(answer(&packet(&reply), 5, CLIENT).is_some());
        assert!(answer(&packet(&reply), 6, CLIENT).is_none());
        assert!(answer(&packet(&reply), 5, SERVER).is_none());
        let question = message(5, CLIENT, MessageType::Discover);
        assert!(answer(&packet(&question), 5, CLIENT).is_none());
        for length in 0..packet(&reply).len() {
            // Cut off anywhere, it ends no thread.
            let _ = answer(&packet(&reply)[..length], 5, CLIENT);
        }
        let mut long = packet(&reply);
        long[20 + 8 + 2] = 255; // the length of the hardware address
        assert!(answer(&long, 5, CLIENT).is_none());
    }
}
