use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex, join, sink};

use super::*;

const BOTH: [ConnId; 2] = [ConnId::PLUGIN, ConnId::RUNTIME];

fn frame(conn: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&conn.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// A trunk that runs, its connections, and the bare other end of its socket.
fn trunk() -> (tokio::task::JoinHandle<Result<(), MuxError>>, [Conn; 2], DuplexStream) {
    let (ours, theirs) = duplex(8 << 20);
    let (trunk, conns) = open(ours, BOTH);
    (tokio::spawn(trunk.run()), conns, theirs)
}

#[test]
fn a_message_is_one_frame_with_connection_and_length_in_front() {
    assert_eq!(frames(ConnId::RUNTIME, b"\x01\x02\x03")[..], [0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3],);
}

#[test]
fn what_exceeds_the_first_frame_follows_in_one_more() {
    let message = vec![7; MAX_FIRST_FRAME + 300_000];

    let written = frames(ConnId::PLUGIN, &message);

    let second = FRAME_HEADER + MAX_FIRST_FRAME;
    assert_eq!(written[..FRAME_HEADER], [0, 0, 0, 1, 0, 0, 0x10, 0]);
    assert_eq!(written[second..second + FRAME_HEADER], [0, 0, 0, 1, 0, 4, 0x93, 0xe0]);
    assert_eq!(written.len(), second + FRAME_HEADER + 300_000);
    assert_eq!(frames(ConnId::PLUGIN, &message[..MAX_FIRST_FRAME]).len(), second);
}

#[tokio::test]
async fn connections_are_told_apart_and_unknown_ones_dropped() {
    let (_trunk, [mut plugin, mut runtime], mut theirs) = trunk();
    for (conn, payload) in [(2, "ru"), (9, "nobody"), (1, "pl"), (0, "reserved"), (2, "ntime")] {
        theirs.write_all(&frame(conn, payload.as_bytes())).await.unwrap();
    }
    theirs.write_all(&frame(1, b"ugin")).await.unwrap();

    assert_eq!(plugin.incoming.take(6).await.unwrap()[..], *b"plugin");
    assert_eq!(runtime.incoming.take(3).await.unwrap()[..], *b"run");
    runtime.incoming.skip(2).await.unwrap();
    assert_eq!(runtime.incoming.take(2).await.unwrap()[..], *b"me");
}

#[tokio::test]
async fn the_longest_frame_is_read_and_a_longer_one_ends_the_trunk() {
    let (trunk, [mut plugin, _runtime], mut theirs) = trunk();
    theirs.write_all(&frame(1, &vec![1; MAX_FRAME])).await.unwrap();
    assert_eq!(plugin.incoming.take(MAX_FRAME).await.unwrap().len(), MAX_FRAME);

    theirs.write_all(&frame(1, &vec![1; MAX_FRAME + 1])).await.unwrap();

    let error = trunk.await.unwrap().unwrap_err();
    assert!(matches!(error, MuxError::FrameTooLong { length, .. } if length == MAX_FRAME + 1));
    assert_eq!(plugin.incoming.take(1).await, None);
}

#[tokio::test]
async fn a_reader_that_is_stuck_costs_the_trunk_once_its_queue_is_full() {
    let (trunk, [_plugin, _runtime], mut theirs) = trunk();
    for _ in 0..=QUEUE_FRAMES {
        theirs.write_all(&frame(1, b"x")).await.unwrap();
    }
    let error = trunk.await.unwrap().unwrap_err();
    assert!(matches!(error, MuxError::Overflow { conn: ConnId::PLUGIN }), "{error}");
}

#[tokio::test]
async fn a_reader_that_is_stuck_does_not_keep_the_other_from_reading() {
    let (_trunk, [_plugin, mut runtime], mut theirs) = trunk();
    for _ in 0..QUEUE_FRAMES {
        theirs.write_all(&frame(1, b"x")).await.unwrap();
    }
    theirs.write_all(&frame(2, b"y")).await.unwrap();
    assert_eq!(runtime.incoming.take(1).await.unwrap()[..], *b"y");
}

#[tokio::test]
async fn the_end_between_frames_is_no_error_and_inside_one_it_is() {
    let (closed, [plugin, _runtime], theirs) = trunk();
    drop(theirs);
    closed.await.unwrap().unwrap();
    assert_eq!(plugin.outgoing.send(Bytes::from_static(b"late")).await, Err(Closed));

    for cut in 1..11 {
        let (trunk, _conns, mut theirs) = trunk();
        theirs.write_all(&frame(1, b"abc")[..cut]).await.unwrap();
        drop(theirs);
        assert!(matches!(trunk.await.unwrap(), Err(MuxError::Read(_))), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn whatever_arrives_is_sorted_or_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (trunk, _conns) = open(join(&bytes[..], sink()), BOTH);
        let _ = runtime.block_on(trunk.run());
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut_into_frames(
        cuts in proptest::collection::vec(0_usize..50, 1..40),
        takes in proptest::collection::vec(1_usize..70, 1..40),
    ) {
        let total = cuts.iter().sum::<usize>();
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(total).collect();
        let mut rest = &bytes[..];
        let mut wire = Vec::new();
        for cut in cuts {
            let (piece, more) = rest.split_at(cut);
            wire.extend(frame(1, piece));
            rest = more;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (trunk, [mut plugin, _runtime]) = open(join(&wire[..], sink()), BOTH);
        let read = runtime.block_on(async {
            trunk.run().await.unwrap();
            let mut read = Vec::new();
            for take in takes {
                match plugin.incoming.take(take).await {
                    Some(taken) => read.extend_from_slice(&taken),
                    None => break,
                }
            }
            read
        });
        prop_assert_eq!(&bytes[..read.len()], &read[..]);
    }
}
