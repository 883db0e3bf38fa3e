//! One netlink socket: a request goes out, its answers come back.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::NetlinkError;
use super::error::{explanation, text};
use crate::sys::{asked, cookie};

/// How long an answer may take. The kernel answers route requests before `sendto(2)` returns, so
/// this runs out only where an answer got lost.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often a listing is begun anew when the kernel says that it changed meanwhile.
const ATTEMPTS: usize = 5;

/// Larger than any datagram of the kernel: it puts at most 32 KiB into one
/// (`netlink_dump()` in `net/netlink/af_netlink.c`, Linux 6.12), or one message.
const DATAGRAM_LEN: usize = 64 * 1024;

/// A netlink socket of the namespace that it was opened in, for one kind of messages.
///
/// Not `Sync`: two threads that shared it would read each other's answers.
pub(in crate::sys) struct AskSocket<M> {
    socket: Socket,
    sequence: Cell<u32>,
    messages: PhantomData<fn() -> M>,
}

/// One request's answers, and whether the kernel noticed changes while it listed.
pub(super) struct Answers<M> {
    pub(super) messages: Vec<M>,
    interrupted: bool,
}

impl<M> Default for Answers<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), interrupted: false }
    }
}

impl<M> AskSocket<M>
where
    M: Clone + NetlinkSerializable + NetlinkDeserializable,
{
    /// Opens a socket for `protocol` in the namespace of the calling thread, where it stays.
    ///
    /// The kernel checks requests strictly, and so lists only what was asked for: of one interface, or
    /// of one table (`NETLINK_GET_STRICT_CHK`, netlink(7), Linux 4.20).
    pub(in crate::sys) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        let timeout = TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self { socket, sequence: Cell::new(0), messages: PhantomData })
    }

    /// The cookie of the socket's namespace (`SO_NETNS_COOKIE`, Linux 5.14).
    pub(in crate::sys) fn namespace_cookie(&self) -> io::Result<u64> {
        cookie::of(&self.socket)
    }

    /// Sends a request and waits until the kernel has acknowledged it. Answers what the kernel sent
    /// before that.
    pub(in crate::sys) fn ask(
        &self,
        request: &dyn fmt::Display,
        message: M,
        flags: u16,
    ) -> Result<Vec<M>, NetlinkError> {
        self.exchange(request, message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(|answers| answers.messages)
    }

    /// Lists everything of a kind, as it was at one moment.
    pub(in crate::sys) fn list(
        &self,
        request: &dyn fmt::Display,
        message: &M,
    ) -> Result<Vec<M>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let answers = self.exchange(request, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if !answers.interrupted {
                return Ok(answers.messages);
            }
        }
        Err(NetlinkError::Interrupted { request: request.to_string(), attempts: ATTEMPTS })
    }

    fn exchange(
        &self,
        request: &dyn fmt::Display,
        message: M,
        flags: u16,
    ) -> Result<Answers<M>, NetlinkError> {
        asked::note();
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        self.send(message, flags, sequence)
            .map_err(|source| NetlinkError::Lost { request: request.to_string(), source })?;

        let mut answers = Answers::default();
        loop {
            let datagram = self.receive(request)?;
            if read(&datagram, sequence, request, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    fn send(&self, message: M, flags: u16, sequence: u32) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&self, request: &dyn fmt::Display) -> Result<Vec<u8>, NetlinkError> {
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM_LEN);
            match self.socket.recv_from(&mut datagram, 0) {
                // Port 0 is the kernel; nobody else has answers for us.
                Ok((_, from)) if from.port_number() == 0 => return Ok(datagram),
                Ok(_) => {}
                Err(source) => match source.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => {
                        let request = request.to_string();
                        return Err(NetlinkError::Timeout { request, after: TIMEOUT });
                    }
                    _ => return Err(NetlinkError::Lost { request: request.to_string(), source }),
                },
            }
        }
    }
}

/// Takes the messages of one datagram; whether they were the last of this request.
pub(super) fn read<M: NetlinkDeserializable>(
    datagram: &[u8],
    sequence: u32,
    request: &dyn fmt::Display,
    answers: &mut Answers<M>,
) -> Result<bool, NetlinkError> {
    let mut rest = datagram;
    while let Some(bytes) = rest.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*bytes) as usize;
        let Some(one) = rest.get(..length).filter(|one| !one.is_empty()) else {
            break;
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();

        let message = match NetlinkMessage::<M>::deserialize(one) {
            Ok(message) => message,
            Err(error) => {
                // One odd interface must not hide all the others.
                tracing::debug!(%error, %request, "skipped a netlink message that makes no sense");
                continue;
            }
        };
        if message.header.sequence_number != sequence {
            // A late answer to a request that nobody waits for any more.
            continue;
        }
        answers.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        let refused = |errno: i32, explanation| NetlinkError::Refused {
            request: request.to_string(),
            explanation,
            source: io::Error::from_raw_os_error(errno.saturating_abs()),
        };
        match message.payload {
            NetlinkPayload::InnerMessage(message) => answers.messages.push(message),
            NetlinkPayload::Error(error) if error.raw_code() == 0 => return Ok(true),
            NetlinkPayload::Error(error) => {
                let words = explanation(message.header.flags, &error.header);
                return Err(refused(error.raw_code(), words));
            }
            NetlinkPayload::Done(done) if done.code == 0 => return Ok(true),
            NetlinkPayload::Done(done) => return Err(refused(done.code, text(&done.extended_ack))),
            _ => {}
        }
    }
    Ok(false)
}
