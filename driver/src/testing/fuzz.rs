//! What may get bytes that nobody has vouched for, each with what has to hold whatever they are.
//!
//! Each is a target of `cargo xtask fuzz` (`tests/fuzz`). What is in its corpus goes through it with the
//! ordinary tests, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf, join, sink};
use tokio::runtime::Builder;

use crate::claim::{self, Origin, Source};
use crate::model::Wishes;
use crate::{nri, state, sys};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: [(&str, Target); 6] = [
    ("checkpoint", checkpoint),
    ("config", config),
    ("ethtool", ethtool),
    ("netlink", netlink),
    ("nri", nri),
    ("rdma", rdma),
];

/// The opaque configuration of one source, or a list of a class's and a claim's in turn.
///
/// What is accepted can be recorded, and what is refused has a reason.
pub fn config(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let all = match &value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let sources: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(index, parameters)| {
            let is_last = index + 1 == all.len();
            let origin = if index % 2 == 0 && !is_last { Origin::Class } else { Origin::Claim };
            Source { origin, index, parameters }
        })
        .collect();
    match claim::parse(&sources) {
        Ok(wishes) => {
            let text = serde_json::to_string(&wishes).unwrap_or_default();
            let read: Option<Wishes> = serde_json::from_str(&text).ok();
            assert!(read.as_ref() == Some(&wishes), "recorded {text}, read back {read:?}");
        }
        Err(problems) => assert!(problems.iter().next().is_some(), "refused without a reason"),
    }
}

/// A checkpoint file, once as it is and once as if its checksum were right.
pub fn checkpoint(bytes: &[u8]) {
    state::read_any(bytes);
}

/// The attributes of an answer of ethtool's, or of another family of generic netlink.
pub fn ethtool(bytes: &[u8]) {
    use sys::ethtool::{
        decode_channels, decode_coalesce, decode_features, decode_private_flags, decode_rings,
    };
    use sys::generic::decode_family;
    use sys::netdev::decode_device;
    drop((decode_features(bytes), decode_private_flags(bytes), decode_family(bytes)));
    let _ = decode_device(bytes);
    drop((decode_rings(bytes), decode_channels(bytes), decode_coalesce(bytes)));
}

/// A datagram on a socket of route netlink.
pub fn netlink(bytes: &[u8]) {
    sys::netlink::read_all(bytes);
}

/// The body of a message of RDMA netlink.
pub fn rdma(bytes: &[u8]) {
    sys::rdma::read_all(bytes);
}

/// What a container runtime sends from the moment we are connected to it until it goes away.
pub fn nri(bytes: &[u8]) {
    #[expect(clippy::expect_used, reason = "a process that has no timer is of no use")]
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(nri::listen(join(Dribble { bytes, pauses: 0 }, sink())));
}

/// Bytes that arrive in pieces, so that whoever works on the ones before is not cut off by the end.
struct Dribble<'a> {
    bytes: &'a [u8],
    pauses: usize,
}

/// Pauses after each piece. In each all others have a turn.
const PAUSES: usize = 4;
const PIECE: usize = 256;

impl AsyncRead for Dribble<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pauses > 0 {
            self.pauses -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self.bytes.len().min(buffer.remaining()).min(PIECE);
        let (piece, rest) = self.bytes.split_at(length);
        buffer.put_slice(piece);
        if length > 0 {
            self.pauses = PAUSES;
        }
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn nothing_in_the_corpus_breaks_its_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let files = fs::read_dir(corpus.join(name)).unwrap();
            let inputs: Vec<_> =
                files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(inputs.len() >= 3, "{name} has no corpus to speak of");
            for input in inputs {
                target(&input);
                // Cut off, and with one bit that is not as it was.
                for at in (0..input.len()).step_by(input.len().div_ceil(16).max(1)) {
                    target(&input[..at]);
                    let mut other = input.clone();
                    other[at] ^= 1 << (at % 8);
                    target(&other);
                }
            }
        }
    }
}
