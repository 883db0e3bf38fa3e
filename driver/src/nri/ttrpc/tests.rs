use proptest::prelude::*;
use prost::Message as _;
use tokio::io::{AsyncReadExt, DuplexStream, duplex, join, sink};
use tokio_util::task::TaskTracker;

use super::*;
use crate::nri::mux::{self, Conn, ConnId};

const SECOND: Duration = Duration::from_secs(1);

/// Two running trunks, joined, and a connection's two ends.
fn pair() -> (Conn, Conn) {
    let (ours, theirs) = duplex(64 << 10);
    let end = |stream: DuplexStream| {
        let (trunk, [conn]) = mux::open(stream, [ConnId::PLUGIN]);
        tokio::spawn(trunk.run());
        conn
    };
    (end(ours), end(theirs))
}

/// Serves every call with `answer` and gives back a client for it.
fn serving<F, A>(answer: F) -> Client
where
    F: Fn(Call) -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let (server, client) = pair();
    tokio::spawn(async move { serve(server, &TaskTracker::new(), answer).await });
    let (client, answers) = Client::open(client);
    tokio::spawn(answers);
    client
}

#[test]
fn a_request_is_written_as_the_protocol_has_it() {
    let request = proto::Request {
        service: "s".into(),
        method: "m".into(),
        payload: vec![0xaa],
        timeout_nano: 300,
    };
    let trace = [
        0, 0, 0, 12, 0, 0, 0, 1, 1, 0, // length, stream, request, no flags
        0x0a, 1, b's', 0x12, 1, b'm', 0x1a, 1, 0xaa, 0x20, 0xac, 0x02,
    ];
    assert_eq!(message(1, Kind::Request, &request).unwrap()[..], trace);
}

#[test]
fn a_refusal_is_written_as_the_protocol_has_it() {
    let status = proto::Status { code: Code::Unimplemented as i32, message: "no".into() };
    let response = proto::Response { status: Some(status), payload: Vec::new() };
    let trace = [
        0, 0, 0, 8, 0, 0, 0, 7, 2, 0, // length, stream, response, no flags
        0x0a, 6, 0x08, 12, 0x12, 2, b'n', b'o',
    ];
    assert_eq!(message(7, Kind::Response, &response).unwrap()[..], trace);
}

#[tokio::test]
async fn a_call_is_answered_whatever_its_size() {
    let client = serving(async |call| {
        assert_eq!((call.service.as_str(), call.method.as_str()), ("echo", "Once"));
        Answer { result: Ok(call.payload), afterwards: None }
    });
    for length in [0, 1, 4000, 4086, 4096, 5000, 300_000, MAX_PAYLOAD - 64] {
        let payload = vec![1; length];
        let echo = client.call("echo", "Once", payload.clone(), 10 * SECOND).await.unwrap();
        assert!(echo == payload, "{length} bytes");
    }
}

#[tokio::test]
async fn a_payload_that_is_too_long_is_refused_before_it_is_sent() {
    let client = serving(async |_| Answer::empty());
    let error = client.call("s", "m", vec![0; MAX_PAYLOAD + 1], SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::TooLong(_)), "{error}");
    client.call("s", "m", Vec::new(), SECOND).await.unwrap();
}

#[tokio::test]
async fn a_slow_call_does_not_keep_others_from_their_answers() {
    let client = serving(async |call| {
        if call.method == "Slow" {
            tokio::time::sleep(60 * SECOND).await;
        }
        Answer::empty()
    });
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call("s", "Slow", Vec::new(), 60 * SECOND).await }
    });
    tokio::task::yield_now().await;
    client.call("s", "Fast", Vec::new(), SECOND).await.unwrap();
    assert!(!slow.is_finished());
}

#[tokio::test]
async fn a_call_that_panics_is_answered_an_error() {
    let client = serving(async |call| match call.method.as_str() {
        "Panic" => panic!("as asked"),
        _ => Answer::empty(),
    });
    let error = client.call("s", "Panic", Vec::new(), SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { code: 13, .. }), "{error}");
    client.call("s", "Other", Vec::new(), SECOND).await.unwrap();
}

#[tokio::test]
async fn what_follows_an_answer_runs_after_it_was_written() {
    let (server, mut client) = pair();
    let (done, is_done) = tokio::sync::oneshot::channel();
    let done = std::sync::Mutex::new(Some(done));
    tokio::spawn(async move {
        let answer = move |_| {
            let done = done.lock().unwrap().take().unwrap();
            let afterwards = async move { done.send(()).unwrap() };
            async { Answer::empty().then(afterwards) }
        };
        serve(server, &TaskTracker::new(), answer).await;
    });
    let request = message(5, Kind::Request, &proto::Request::default()).unwrap();
    client.outgoing.send(request).await.unwrap();

    is_done.await.unwrap();

    let answer = receive(&mut client.incoming).await.unwrap();
    assert_eq!((answer.stream, answer.kind), (5, Kind::Response));
}

/// Sends `bytes` to a server and expects the refusal `code` on `stream`, then a normal answer.
async fn expect_refusal(bytes: Vec<u8>, stream: u32, code: Code) {
    let (server, mut client) = pair();
    tokio::spawn(async move {
        serve(server, &TaskTracker::new(), async |_| Answer::empty()).await;
    });
    client.outgoing.send(bytes.into()).await.unwrap();
    let refusal = receive(&mut client.incoming).await.unwrap();
    let response = proto::Response::decode(refusal.payload.unwrap()).unwrap();
    assert_eq!((refusal.stream, response.status.unwrap().code), (stream, code as i32));

    let request = message(99, Kind::Request, &proto::Request::default()).unwrap();
    client.outgoing.send(request).await.unwrap();
    assert_eq!(receive(&mut client.incoming).await.unwrap().stream, 99);
}

#[tokio::test]
async fn a_request_that_cannot_be_decoded_is_refused_and_the_connection_stays() {
    expect_refusal(vec![0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 0xff], 3, Code::InvalidArgument).await;
}

#[tokio::test]
async fn a_request_that_is_too_long_is_passed_over_and_refused() {
    let length = u32::try_from(MAX_PAYLOAD + 1).unwrap();
    let bytes = [&length.to_be_bytes()[..], &[0, 0, 0, 3, 1, 0], &vec![0; MAX_PAYLOAD + 1]];
    expect_refusal(bytes.concat(), 3, Code::ResourceExhausted).await;
}

#[tokio::test]
async fn messages_of_other_kinds_are_passed_over() {
    // A response and a piece of data that nobody asked for, then a bad request.
    let bytes = [
        &[0, 0, 0, 0, 0, 0, 0, 1, 2, 0][..],
        &[0, 0, 0, 2, 0, 0, 0, 1, 3, 4, 1, 2],
        &[0, 0, 0, 1, 0, 0, 0, 5, 1, 0, 0xff],
    ];
    expect_refusal(bytes.concat(), 5, Code::InvalidArgument).await;
}

#[tokio::test]
async fn both_sides_stop_waiting_when_the_time_is_up() {
    let (server, client) = pair();
    let (client, answers) = Client::open(client);
    tokio::spawn(answers);
    let limit = Duration::from_millis(20);
    let error = client.call("s", "m", Vec::new(), limit).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout(_)), "{error}");
    drop(server);

    let (server, mut client) = pair();
    tokio::spawn(async move {
        serve(server, &TaskTracker::new(), async |_| std::future::pending().await).await;
    });
    let request = proto::Request { timeout_nano: 1_000_000, ..proto::Request::default() };
    client.outgoing.send(message(1, Kind::Request, &request).unwrap()).await.unwrap();
    let answer = receive(&mut client.incoming).await.unwrap();
    let response = proto::Response::decode(answer.payload.unwrap()).unwrap();
    assert_eq!(response.status.unwrap().code, Code::DeadlineExceeded as i32);
}

#[tokio::test]
async fn a_call_fails_at_once_when_the_connection_ends() {
    let (ours, mut theirs) = duplex(64 << 10);
    let (trunk, [conn]) = mux::open(ours, [ConnId::RUNTIME]);
    tokio::spawn(trunk.run());
    let (client, answers) = Client::open(conn);
    tokio::spawn(answers);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call("s", "m", Vec::new(), 60 * SECOND).await }
    });
    // The request is out when its first byte can be read.
    theirs.read_u8().await.unwrap();
    drop(theirs);

    assert!(matches!(call.await.unwrap(), Err(CallError::Closed(_))));
    assert!(matches!(client.call("s", "m", Vec::new(), SECOND).await, Err(CallError::Closed(_))));
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_or_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 0_u8..4,
    ) {
        // Behind two valid headers, so that the bytes reach the decoders.
        let length = u32::try_from(bytes.len()).unwrap();
        let framed = u32::try_from(bytes.len() + MESSAGE_HEADER).unwrap();
        let wire = [
            &[0, 0, 0, 1][..], &framed.to_be_bytes(),
            &length.to_be_bytes(), &[0, 0, 0, 1, kind, 0], &bytes,
            &[0, 0, 0, 1], &length.to_be_bytes(), &bytes,
        ].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for as_client in [false, true] {
                let stream = join(&wire[..], sink());
                let (trunk, [conn]) = mux::open(stream, [ConnId::PLUGIN]);
                trunk.run().await.unwrap();
                if as_client {
                    Client::open(conn).1.await;
                } else {
                    serve(conn, &TaskTracker::new(), async |_| Answer::empty()).await;
                }
            }
        });
    }
}
