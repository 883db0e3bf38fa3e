//! Captures, and the files that they are kept in: pcap, as tcpdump writes it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, socket};

/// Takes every frame of its network namespace, as it comes and as it goes.
pub(crate) struct Capture {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
}

/// No frame is longer.
const LONGEST: u32 = 1 << 16;

impl Capture {
    /// In the namespace of the calling thread.
    pub(crate) fn new() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let all = SockProtocol::EthAll;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
        Self { socket, frames: Vec::new() }
    }

    /// Takes what came since the last time. The kernel keeps about a hundred frames.
    pub(crate) fn take(&mut self) {
        let mut buffer = vec![0; LONGEST as usize];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) {
                Ok(len) => self.frames.push(buffer[..len].to_vec()),
                Err(Errno::EAGAIN) => return,
                Err(errno) => panic!("capture: {errno}"),
            }
        }
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(Vec::as_slice)
    }
}

/// Times in microseconds, in the byte order of whoever wrote it; here: little-endian.
const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;
const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 16;

/// Writes frames to a file, with the time of writing.
pub(crate) fn write<'a>(path: &Path, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    // Version 2.4, two words that are always zero.
    let header = [MAGIC, 4 << 16 | 2, 0, 0, LONGEST, ETHERNET];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    for frame in frames {
        let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let seconds = u32::try_from(now.as_secs()).map_err(io::Error::other)?;
        bytes.extend(
            [seconds, now.subsec_micros(), len, len].into_iter().flat_map(u32::to_le_bytes),
        );
        bytes.extend(frame);
    }
    fs::write(path, bytes)
}

/// The frames of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path)?;
    let word = |at: usize| -> io::Result<u32> {
        let word = bytes.get(at..at + 4).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(u32::from_le_bytes(word.try_into().map_err(io::Error::other)?))
    };
    if (word(0)?, word(20)?) != (MAGIC, ETHERNET) {
        return Err(io::Error::other("not a capture of Ethernet in our byte order"));
    }
    let (mut frames, mut at) = (Vec::new(), HEADER_LEN);
    while at < bytes.len() {
        let start = at + RECORD_LEN;
        at = start + word(at + 8)? as usize;
        frames.push(bytes.get(start..at).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec());
    }
    Ok(frames)
}
