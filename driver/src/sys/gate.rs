//! The gate: whether a container that is about to start is in the namespace of its device.
//!
//! The runtime runs it as a `createRuntime` hook, which a CDI specification of ours asks for, with
//! the container's state on standard input (OCI runtime specification 1.0, `runtime.md` and
//! `config.md`). It is a program of its own, without libraries and with nothing but the standard
//! library in it, because it runs on the host, whatever that is. It lives here to be compiled and
//! tested with the rest; `driver/gate/main.rs` makes a program of it.
//!
//! Whatever it cannot find out is a refusal: the runtime then fails the container's start with what
//! the gate wrote, and kubelet shows that.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;

use super::cookie;

/// Longest state that is read. It repeats the pod's annotations, of which Kubernetes allows 256 KiB.
const LONGEST_STATE: u64 = 4 << 20;
/// `include/uapi/linux/sched.h`.
const CLONE_NEWNET: i32 = 0x4000_0000;

unsafe extern "C" {
    /// `setns(2)`, from the C library that the standard library stands on.
    fn setns(fd: i32, kind: i32) -> i32;
}

/// Why a container is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// Called otherwise than our specifications do.
    Arguments,
    Read(io::Error),
    State(&'static str),
    Open {
        pid: u32,
        source: io::Error,
    },
    Enter {
        pid: u32,
        source: io::Error,
    },
    Cookie {
        pid: u32,
        source: io::Error,
    },
    Elsewhere {
        cookie: u64,
        expected: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments => f.write_str("called with something else than a cookie and a claim"),
            Self::Read(source) => write!(f, "the container's state cannot be read: {source}"),
            Self::State(what) => write!(f, "the container's state cannot be understood: {what}"),
            Self::Open { pid, source } => {
                write!(f, "the network namespace of process {pid} cannot be opened: {source}")
            }
            Self::Enter { pid, source } => {
                write!(f, "the network namespace of process {pid} cannot be entered: {source}")
            }
            Self::Cookie { pid, source } => {
                write!(f, "the network namespace of process {pid} has no cookie: {source}")
            }
            Self::Elsewhere { cookie, expected } => write!(
                f,
                "its interface is in another network namespace (cookie {expected}) than the \
                 container (cookie {cookie}): the pod's sandbox was made anew without it"
            ),
        }
    }
}

/// What the gate is called with: the cookie that is expected, and the claim, for messages.
#[derive(Debug, Eq, PartialEq)]
pub struct Ticket {
    pub cookie: u64,
    pub claim: String,
}

impl Ticket {
    /// As arguments of a command, without its name.
    pub fn arguments(&self) -> [String; 2] {
        [self.cookie.to_string(), self.claim.clone()]
    }

    /// Reads [`Self::arguments`].
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        let (cookie, claim) = (arguments.next()?.parse().ok()?, arguments.next()?);
        arguments.next().is_none().then_some(Self { cookie, claim })
    }
}

/// Lets the container in whose state `state` is, or says why not.
///
/// The calling thread stays in the container's namespace: this is the last thing that a program
/// does.
pub fn admit(ticket: Option<&Ticket>, state: impl Read) -> Result<(), Refusal> {
    let ticket = ticket.ok_or(Refusal::Arguments)?;
    let mut text = Vec::new();
    state.take(LONGEST_STATE + 1).read_to_end(&mut text).map_err(Refusal::Read)?;
    if text.len() as u64 > LONGEST_STATE {
        return Err(Refusal::State("it is too long"));
    }
    let pid = pid(&text).map_err(Refusal::State)?;
    let netns = File::open(format!("/proc/{pid}/ns/net"))
        .map_err(|source| Refusal::Open { pid, source })?;
    enter(&netns).map_err(|source| Refusal::Enter { pid, source })?;
    let cookie = cookie::of_this_thread().map_err(|source| Refusal::Cookie { pid, source })?;
    if cookie == ticket.cookie {
        Ok(())
    } else {
        Err(Refusal::Elsewhere { cookie, expected: ticket.cookie })
    }
}

fn enter(netns: &File) -> io::Result<()> {
    // SAFETY: setns(2) reads its two arguments and no memory; the descriptor is open.
    match unsafe { setns(netns.as_raw_fd(), CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The member `pid` of a JSON object, and only of the object itself: annotations hold what users
/// write, and may hold a text that looks like it.
fn pid(text: &[u8]) -> Result<u32, &'static str> {
    let mut reader = Reader { rest: text };
    let mut found = None;
    reader.expect(b'{', "it is no object")?;
    if reader.peek() != Some(b'}') {
        loop {
            let name = reader.string()?;
            reader.expect(b':', "a name has no value")?;
            let value = reader.value()?;
            if name == b"pid" && found.replace(value).is_some() {
                return Err("it has more than one pid");
            }
            if reader.peek() != Some(b',') {
                break;
            }
            reader.rest = &reader.rest[1..];
        }
    }
    reader.expect(b'}', "it does not end")?;
    if reader.peek().is_some() {
        return Err("something follows it");
    }
    let value = found.ok_or("it has no pid")?;
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits);
    let number = number.and_then(|number| number.parse().ok());
    number.filter(|pid| *pid != 0).ok_or("its pid is no number of a process")
}

/// Reads as much of JSON as it takes to skip what is not asked for.
struct Reader<'t> {
    rest: &'t [u8],
}

impl<'t> Reader<'t> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let start = self.rest.iter().position(|byte| !is_space(byte));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
        self.rest.first().copied()
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), &'static str> {
        if self.peek() != Some(byte) {
            return Err(otherwise);
        }
        self.rest = &self.rest[1..];
        Ok(())
    }

    fn take(&mut self, len: usize) -> &'t [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    /// What is between the quotes, as it is written.
    fn string(&mut self) -> Result<&'t [u8], &'static str> {
        self.expect(b'"', "a name is no text")?;
        let mut len = 0;
        loop {
            match self.rest.get(len) {
                None => return Err("a text does not end"),
                Some(b'"') => break,
                Some(b'\\') => len += 2,
                Some(_) => len += 1,
            }
        }
        let text = self.take(len);
        self.rest = &self.rest[1..];
        Ok(text)
    }

    /// A number or a word as it is written; of anything else, which is passed over, nothing.
    fn value(&mut self) -> Result<&'t [u8], &'static str> {
        let mut depth = 0_u32;
        loop {
            match self.peek().ok_or("a value does not end")? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    self.rest = &self.rest[1..];
                    depth += 1;
                }
                b'}' | b']' if depth > 0 => {
                    self.rest = &self.rest[1..];
                    depth -= 1;
                }
                b',' | b':' if depth > 0 => self.rest = &self.rest[1..],
                _ => {
                    let word = self.word()?;
                    if depth == 0 {
                        return Ok(word);
                    }
                }
            }
            if depth == 0 {
                return Ok(&[]);
            }
        }
    }

    fn word(&mut self) -> Result<&'t [u8], &'static str> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let len = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        if len == 0 { Err("a value is none") } else { Ok(self.take(len)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runc 1.1.5 writes to hooks, shortened.
    const STATE: &str = r#"{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":4211,
        "bundle":"/run/b","annotations":{"a":"\"pid\": 1, ","io.kubernetes.cri.sandbox-id":"s"}}"#;

    #[test]
    fn the_pid_of_a_state_is_found() {
        assert_eq!(pid(STATE.as_bytes()), Ok(4211));
        assert_eq!(pid(b" { \"pid\" : 7 } \n"), Ok(7));
    }

    #[test]
    fn what_only_looks_like_the_pid_is_not_taken_for_it() {
        for (text, expected) in [
            (r#"{"annotations":{"pid":1},"pid":2}"#, 2),
            (r#"{"annotations":{"x":"\",\"pid\":1,\""},"pid":2}"#, 2),
            (r#"{"a":"\\","pid":2,"b":["pid",{"pid":[3]},"]"]}"#, 2),
            (r#"{"a":"}","b":[[["{"]]],"pid":2}"#, 2),
            (r#"{"a":-1.5e+3,"b":null,"c":true,"pid":2}"#, 2),
        ] {
            assert_eq!(pid(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_state_that_is_not_clear_is_refused() {
        for text in [
            "",
            "{",
            "{}",
            "null",
            "[{\"pid\":1}]",
            r#"{"pid":1"#,
            r#"{"pid":1}}"#,
            r#"{"pid":1,}"#,
            r#"{"pid":1,"pid":1}"#,
            r#"{"pid":0}"#,
            r#"{"pid":-1}"#,
            r#"{"pid":+1}"#,
            r#"{"pid":1.0}"#,
            r#"{"pid":"1"}"#,
            r#"{"pid":4294967296}"#,
            r#"{"pid":[1]}"#,
            r#"{"pid":}"#,
            r#"{"pid" 1}"#,
            r#"{"Pid":1}"#,
            r#"{"a":"\"#,
            r#"{"annotations":{"pid":1}}"#,
            r#"{"annotations":"pid":1}"#,
        ] {
            assert!(pid(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn no_text_cut_short_is_taken_for_a_state() {
        for len in 0..STATE.len() {
            assert!(pid(&STATE.as_bytes()[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_ticket_is_read_as_it_is_written() {
        let ticket = Ticket { cookie: u64::MAX, claim: "c".to_owned() };
        assert_eq!(Ticket::read(ticket.arguments()), Some(ticket));
        for wrong in [&["x", "c"][..], &["1"], &["1", "c", "d"], &["-1", "c"], &[]] {
            assert_eq!(Ticket::read(wrong.iter().map(ToString::to_string)), None, "{wrong:?}");
        }
    }
}
