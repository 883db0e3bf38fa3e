//! Conversations over a socket of the interface's namespace. Every call blocks.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use dhcproto::v4::{CLIENT_PORT, DhcpOption, Message, MessageType};

use super::exchange::{Exchange, Goal};
use super::schedule::Duty;
use super::{DhcpError, wire};
use crate::model::{By, IfIndex, Lease, MacAddr, Phase, Record};
use crate::sys::clock;
use crate::sys::netlink::Netlink;
use crate::sys::netns::Netns;
use crate::sys::packet::PacketSocket;

/// Does what is due for an attachment's lease, wherever its interface is. The calling thread is in
/// the host's namespace.
pub(super) fn attend(record: &Record, duty: Duty, limit: Duration) -> Result<Lease, DhcpError> {
    let is_inside = matches!(record.phase, Phase::Attached { .. });
    let goal = match (duty, &record.lease) {
        (Duty::Acquire, _) | (_, None) => Goal::Acquire,
        (_, Some(lease)) if !is_inside => Goal::Confirm(lease.clone()),
        (Duty::Renew, Some(lease)) => Goal::Renew(lease.clone()),
        (Duty::Rebind | Duty::GiveUp, Some(lease)) => Goal::Rebind(lease.clone()),
    };
    let mac = if is_inside { record.pod_mac() } else { record.before.mac };
    let missing = || DhcpError::NoInterface(record.before.name.clone());
    let client = match &goal {
        Goal::Acquire => record.pod_mac().ok_or_else(missing)?,
        Goal::Renew(lease) | Goal::Rebind(lease) | Goal::Confirm(lease) => lease.client,
    };
    let Line { socket, quiet: _quiet } = open(record, &goal)?;
    let exchange = Exchange::new(goal, Message::default().xid(), client, mac != Some(client));
    converse(&socket, exchange, client, limit)
}

struct Line {
    socket: PacketSocket,
    /// Keeps the pod from answering servers that nobody listens, though we do.
    quiet: Option<UdpSocket>,
}

fn open(record: &Record, goal: &Goal) -> Result<Line, DhcpError> {
    let Phase::Attached { netns, inside } = &record.phase else {
        let by = By::Name(record.before.name.clone());
        let link = Netlink::open()?.link(&by)?;
        let link = link.ok_or_else(|| DhcpError::NoInterface(record.before.name.clone()))?;
        let socket = PacketSocket::open(link.index, CLIENT_PORT)?;
        return Ok(Line { socket, quiet: None });
    };
    let address = match goal {
        Goal::Acquire | Goal::Confirm(_) => None,
        Goal::Renew(lease) | Goal::Rebind(lease) => Some(lease.address.addr()),
    };
    Netns::open_ref(netns)?.run(|_| {
        let socket = PacketSocket::open(*inside, CLIENT_PORT)?;
        // Where the pod has a client of its own, that one listens.
        let quiet = address.and_then(|address| UdpSocket::bind((address, CLIENT_PORT)).ok());
        Ok(Line { socket, quiet })
    })?
}

fn converse(
    socket: &PacketSocket,
    mut exchange: Exchange,
    client: MacAddr,
    limit: Duration,
) -> Result<Lease, DhcpError> {
    let began = Instant::now();
    loop {
        let now = began.elapsed();
        if now >= limit {
            return Err(exchange.end(limit.as_secs()));
        }
        if now >= exchange.due() {
            let out = exchange.speak(now);
            let packet = wire::packet(out.source, out.destination, &out.message)?;
            socket.send(out.mac, &packet)?;
        }
        let wait = exchange.due().min(limit).saturating_sub(now);
        let Some(received) = socket.receive(wait)? else { continue };
        let Some(message) = wire::answer(&received.packet, exchange.xid(), client) else {
            continue;
        };
        let clock = clock::since_start()?;
        if let Some(end) = exchange.hear(began.elapsed(), clock, received.from, &message) {
            return end;
        }
    }
}

/// Tells the server that the address is free; it does not answer.
pub(super) fn release(index: IfIndex, lease: &Lease) -> Result<(), DhcpError> {
    let xid = Message::default().xid();
    let mut message = wire::message(xid, lease.client, MessageType::Release);
    message.set_ciaddr(lease.address.addr());
    message.opts_mut().insert(DhcpOption::ServerIdentifier(lease.server));
    let packet = wire::packet(lease.address.addr(), lease.server, &message)?;
    PacketSocket::open(index, CLIENT_PORT)?.send(lease.server_mac, &packet)?;
    Ok(())
}
