//! One conversation with DHCP servers (RFC 2131, 4.4), as a state machine without a socket or clock:
//! it says what to send and when, and is told what was heard.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType};

use super::{DhcpError, wire};
use crate::model::{Lease, MacAddr};

const EVERYBODY: MacAddr = MacAddr([0xff; 6]);

/// How often an offer is accepted before another one is asked for.
const PATIENCE: u32 = 4;

/// What a conversation is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Goal {
    /// An address.
    Acquire,
    /// More time, of the server that lent it.
    Renew(Lease),
    /// More time, of any server.
    Rebind(Lease),
    /// More time, of any server, for an address that no interface has yet: whoever is asked in another
    /// way answers to that address (RFC 2131, 4.1), and finds nobody there. That is INIT-REBOOT.
    Confirm(Lease),
}

/// A message, and whom it is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outgoing {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) mac: MacAddr,
    pub(super) message: Message,
}

#[derive(Debug)]
pub(super) struct Exchange {
    xid: u32,
    client: MacAddr,
    /// Frames for `client` would not reach us.
    is_elsewhere: bool,
    state: State,
    /// How often the message of this state was sent.
    sent: u32,
    /// When it is sent next, since the beginning.
    due: Duration,
    /// What went wrong so far, though it goes on.
    setback: Option<DhcpError>,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting { server: Ipv4Addr, address: Ipv4Addr },
    Prolonging { lease: Lease, to: Whom },
}

/// Whom a request for more time is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whom {
    /// The one that lent it.
    Server,
    All,
    /// Of an interface that does not have the address.
    AllFromNowhere,
}

impl Exchange {
    /// Begins a conversation on behalf of `client`. No two at once may have the same `xid`.
    pub(super) fn new(goal: Goal, xid: u32, client: MacAddr, is_elsewhere: bool) -> Self {
        let state = match goal {
            Goal::Acquire => State::Selecting,
            Goal::Renew(lease) => State::Prolonging { lease, to: Whom::Server },
            Goal::Rebind(lease) => State::Prolonging { lease, to: Whom::All },
            Goal::Confirm(lease) => State::Prolonging { lease, to: Whom::AllFromNowhere },
        };
        let due = Duration::ZERO;
        Self { xid, client, is_elsewhere, state, sent: 0, due, setback: None }
    }

    pub(super) fn xid(&self) -> u32 {
        self.xid
    }

    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// What is to be sent now that its time has come. After each time it is twice as long until the
    /// next; sooner than RFC 2131 has it, because kubelet waits.
    pub(super) fn speak(&mut self, now: Duration) -> Outgoing {
        if matches!(self.state, State::Requesting { .. }) && self.sent == PATIENCE {
            self.start_over();
        }
        let spread = Duration::from_millis(u64::from(self.xid % 250));
        self.due = now + Duration::from_secs(1 << self.sent.min(4)) + spread;
        self.sent += 1;
        self.outgoing()
    }

    fn outgoing(&self) -> Outgoing {
        let kind = match self.state {
            State::Selecting => MessageType::Discover,
            State::Requesting { .. } | State::Prolonging { .. } => MessageType::Request,
        };
        let mut message = wire::message(self.xid, self.client, kind);
        wire::ask(&mut message);
        if self.is_elsewhere {
            wire::broadcast(&mut message);
        }
        let (mut source, mut destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let mut mac = EVERYBODY;
        match &self.state {
            State::Selecting => {}
            State::Requesting { server, address } => {
                let options = message.opts_mut();
                options.insert(DhcpOption::RequestedIpAddress(*address));
                options.insert(DhcpOption::ServerIdentifier(*server));
            }
            State::Prolonging { lease, to: Whom::AllFromNowhere } => {
                let wanted = DhcpOption::RequestedIpAddress(lease.address.addr());
                message.opts_mut().insert(wanted);
            }
            State::Prolonging { lease, to } => {
                source = lease.address.addr();
                message.set_ciaddr(source);
                if *to == Whom::Server {
                    (destination, mac) = (lease.server, lease.server_mac);
                }
            }
        }
        Outgoing { source, destination, mac, message }
    }

    /// Takes what a server said, from `mac` at `now`, or by the clock of leases, `clock`. Answers how
    /// it ends, where it does.
    pub(super) fn hear(
        &mut self,
        now: Duration,
        clock: u64,
        mac: MacAddr,
        message: &Message,
    ) -> Option<Result<Lease, DhcpError>> {
        let kind = message.opts().msg_type()?;
        let from = wire::server(message)?;
        match (&self.state, kind) {
            (State::Selecting, MessageType::Offer) => {
                self.state = State::Requesting { server: from, address: message.yiaddr() };
                (self.sent, self.due) = (0, now);
                None
            }
            (State::Requesting { server, .. }, MessageType::Ack) if *server == from => {
                wire::lease(message, self.client, mac, clock).map(Ok)
            }
            (State::Requesting { server, .. }, MessageType::Nak) if *server == from => {
                self.start_over();
                self.setback = Some(refusal(from, message));
                // At once it would refuse once more.
                self.due = now + Duration::from_secs(1);
                None
            }
            (State::Prolonging { lease, .. }, MessageType::Ack)
                if message.yiaddr() == lease.address.addr() =>
            {
                wire::lease(message, self.client, mac, clock).map(Ok)
            }
            (State::Prolonging { lease, to }, MessageType::Nak)
                if *to != Whom::Server || lease.server == from =>
            {
                Some(Err(refusal(from, message)))
            }
            _ => None,
        }
    }

    fn start_over(&mut self) {
        if let State::Requesting { server, .. } = self.state {
            self.setback = Some(DhcpError::NoAnswer { server, seconds: 0 });
        }
        self.xid = self.xid.wrapping_add(1);
        self.state = State::Selecting;
        self.sent = 0;
    }

    /// Why nothing came of it, after so many seconds.
    pub(super) fn end(self, seconds: u64) -> DhcpError {
        let silent = |server| DhcpError::NoAnswer { server, seconds };
        match (self.state, self.setback) {
            (State::Requesting { server, .. }, _)
            | (State::Selecting, Some(DhcpError::NoAnswer { server, .. })) => silent(server),
            (State::Prolonging { lease, .. }, _) => silent(lease.server),
            (State::Selecting, Some(setback)) => setback,
            (State::Selecting, None) => DhcpError::NoOffer { seconds },
        }
    }
}

fn refusal(server: Ipv4Addr, message: &Message) -> DhcpError {
    DhcpError::Refused { server, message: wire::reason(message) }
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{Opcode, OptionCode};

    use super::*;
    use crate::dhcp::tests::lease;

    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn begin(goal: Goal) -> Exchange {
        Exchange::new(goal, 1000, CLIENT, false)
    }

    fn says(kind: MessageType, server: Ipv4Addr) -> Message {
        let mut message = wire::message(1000, CLIENT, kind);
        message.set_opcode(Opcode::BootReply).set_yiaddr([192, 0, 2, 9]);
        message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        message.opts_mut().insert(DhcpOption::AddressLeaseTime(3600));
        message.opts_mut().insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        message.opts_mut().insert(DhcpOption::Message("not you".to_owned()));
        message
    }

    fn kind(outgoing: &Outgoing) -> MessageType {
        outgoing.message.opts().msg_type().unwrap()
    }

    /// Seconds after which something is sent while nobody answers, and what.
    fn silence(exchange: &mut Exchange, until: u64) -> Vec<(u64, MessageType)> {
        let mut sent = Vec::new();
        while exchange.due() < Duration::from_secs(until) {
            let due = exchange.due();
            sent.push((due.as_secs(), kind(&exchange.speak(due))));
        }
        sent
    }

    #[test]
    fn an_address_is_asked_for_ever_more_slowly() {
        let mut exchange = begin(Goal::Acquire);
        let discover = MessageType::Discover;
        let expected = [(0, discover), (1, discover), (3, discover), (7, discover), (15, discover)];
        assert_eq!(silence(&mut exchange, 20), expected);
        assert!(matches!(exchange.end(20), DhcpError::NoOffer { seconds: 20 }));
    }

    #[test]
    fn an_offer_is_accepted_and_its_acknowledgement_is_the_lease() {
        let mut exchange = begin(Goal::Acquire);
        exchange.speak(Duration::ZERO);
        let second = Duration::from_secs(1);
        let offer = says(MessageType::Offer, SERVER);
        assert!(exchange.hear(second, 50, SERVER_MAC, &offer).is_none());

        assert_eq!(exchange.due(), second, "at once");
        let request = exchange.speak(second);
        let options = request.message.opts();
        assert_eq!((request.mac, request.destination), (EVERYBODY, Ipv4Addr::BROADCAST));
        let wanted = DhcpOption::RequestedIpAddress([192, 0, 2, 9].into());
        assert_eq!(options.get(OptionCode::RequestedIpAddress), Some(&wanted));
        assert_eq!(
            options.get(OptionCode::ServerIdentifier),
            Some(&DhcpOption::ServerIdentifier(SERVER))
        );

        let other = says(MessageType::Ack, [192, 0, 2, 2].into());
        assert!(exchange.hear(second, 50, SERVER_MAC, &other).is_none(), "we did not ask it");
        let ack = says(MessageType::Ack, SERVER);
        let lease = exchange.hear(second, 50, SERVER_MAC, &ack).unwrap().unwrap();
        assert_eq!(lease.address, "192.0.2.9/24".parse().unwrap());
        assert_eq!(lease.times.unwrap().end, 3650);
    }

    #[test]
    fn a_server_that_falls_silent_is_asked_four_times_and_named() {
        let mut exchange = begin(Goal::Acquire);
        exchange.speak(Duration::ZERO);
        exchange.hear(Duration::ZERO, 0, SERVER_MAC, &says(MessageType::Offer, SERVER));
        let sent = silence(&mut exchange, 20);
        let requests = sent.iter().filter(|(_, kind)| *kind == MessageType::Request).count();
        assert_eq!((requests, sent[4]), (4, (15, MessageType::Discover)), "{sent:?}");
        let error = exchange.end(20).to_string();
        assert_eq!(error, "DHCP server 192.0.2.1 has not answered within 20 s");
    }

    #[test]
    fn a_refusal_starts_over_and_is_what_is_told_in_the_end() {
        let mut exchange = begin(Goal::Acquire);
        exchange.speak(Duration::ZERO);
        exchange.hear(Duration::ZERO, 0, SERVER_MAC, &says(MessageType::Offer, SERVER));
        let first = exchange.xid();
        let nak = says(MessageType::Nak, SERVER);
        assert!(exchange.hear(Duration::ZERO, 0, SERVER_MAC, &nak).is_none());
        assert_ne!(exchange.xid(), first);
        assert_eq!(silence(&mut exchange, 2), [(1, MessageType::Discover)]);
        assert_eq!(exchange.end(20).to_string(), "DHCP server 192.0.2.1 refuses: \"not you\"");
    }

    #[test]
    fn more_time_is_asked_of_the_server_itself_and_later_of_all() {
        let lease = Lease { server_mac: SERVER_MAC, ..lease("192.0.2.9/24") };
        let renewal = begin(Goal::Renew(lease.clone())).speak(Duration::ZERO);
        assert_eq!((renewal.mac, renewal.destination), (SERVER_MAC, SERVER));
        let rebinding = begin(Goal::Rebind(lease)).speak(Duration::ZERO);
        assert_eq!((rebinding.mac, rebinding.destination), (EVERYBODY, Ipv4Addr::BROADCAST));
        for sent in [renewal, rebinding] {
            let address = Ipv4Addr::new(192, 0, 2, 9);
            assert_eq!((sent.source, sent.message.ciaddr()), (address, address));
            // RFC 2131, table 5: neither is allowed.
            assert!(!sent.message.opts().contains(OptionCode::RequestedIpAddress));
            assert!(!sent.message.opts().contains(OptionCode::ServerIdentifier));
        }
    }

    #[test]
    fn an_address_that_no_interface_has_is_confirmed_without_answers_to_it() {
        let sent = begin(Goal::Confirm(lease("192.0.2.9/24"))).speak(Duration::ZERO);
        let none = Ipv4Addr::UNSPECIFIED;
        assert_eq!((sent.source, sent.message.ciaddr(), sent.mac), (none, none, EVERYBODY));
        let wanted = DhcpOption::RequestedIpAddress([192, 0, 2, 9].into());
        assert_eq!(sent.message.opts().get(OptionCode::RequestedIpAddress), Some(&wanted));
        assert!(!sent.message.opts().contains(OptionCode::ServerIdentifier));
    }

    #[test]
    fn more_time_is_given_or_refused_by_whom_we_asked() {
        let other = Ipv4Addr::new(192, 0, 2, 2);
        let hear = |goal: Goal, message: &Message| {
            let mut exchange = begin(goal);
            exchange.speak(Duration::ZERO);
            exchange.hear(Duration::ZERO, 7, SERVER_MAC, message)
        };
        let (renew, rebind) =
            (Goal::Renew(lease("192.0.2.9/24")), Goal::Rebind(lease("192.0.2.9/24")));
        let ack = says(MessageType::Ack, other);
        assert_eq!(hear(rebind.clone(), &ack).unwrap().unwrap().server, other);
        let nak = says(MessageType::Nak, other);
        assert!(hear(renew.clone(), &nak).is_none(), "it has no say");
        assert!(hear(rebind, &nak).unwrap().unwrap_err().is_refusal());
        let nak = says(MessageType::Nak, SERVER);
        assert!(hear(renew.clone(), &nak).unwrap().unwrap_err().is_refusal());
        let another = Goal::Renew(lease("192.0.2.77/24"));
        assert!(hear(another, &says(MessageType::Ack, SERVER)).is_none(), "it is not the address");
    }

    #[test]
    fn answers_come_to_all_where_frames_for_us_would_not_arrive() {
        let flags = |is_elsewhere| {
            let mut exchange = Exchange::new(Goal::Acquire, 1, CLIENT, is_elsewhere);
            exchange.speak(Duration::ZERO).message.flags().broadcast()
        };
        assert!(flags(true) && !flags(false));
    }
}
