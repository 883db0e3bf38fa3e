//! One session in bytes, written by hand from the field table of NRI 0.8 to 0.12: neither side of
//! it is made of generated types.

use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::attach::{Command, Desk, Worker};
use driver::nri::{NriConfig, Plugin};
use driver::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::world::record;

const PLUGIN_SERVICE: &[u8] = b"\x0a\x1bnri.pkg.api.v1alpha1.Plugin";

/// `bytes` as field `number` of a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A ttrpc message in a frame of connection `conn`.
fn frame(conn: u8, stream: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let head = [0, 0, 0, conn, 0, 0, 0, length.checked_add(10).unwrap()];
    [&head, &[0, 0, 0, length, 0, 0, 0, stream, kind, 0][..], payload].concat()
}

fn request(stream: u8, method: &str, payload: &[u8]) -> Vec<u8> {
    let request = [PLUGIN_SERVICE, &field(2, method.as_bytes()), &field(3, payload)].concat();
    frame(1, stream, 1, &request)
}

/// A response with that payload; an empty payload is left out.
fn response(stream: u8, payload: &[u8]) -> Vec<u8> {
    let payload = if payload.is_empty() { Vec::new() } else { field(2, payload) };
    frame(1, stream, 2, &payload)
}

async fn expect(runtime: &mut UnixStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    runtime.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes, "{:?}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn the_bytes_of_a_session_are_those_of_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (worker, Desk { mut commands, records }) = Worker::pair();
    records.send_replace(Arc::new(vec![record("u1")]));
    let config = NriConfig {
        socket,
        name: "weir.dev".to_owned(),
        index: "10".to_owned(),
        attach_budget: Duration::from_secs(5),
    };
    let plugin = Plugin::new(worker, config, mpsc::unbounded_channel().0, Metrics::new());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(plugin.run(shutdown.clone()));
    let (mut runtime, _) = listener.accept().await.unwrap();

    // service=1, method=2, payload=3 {plugin_name=1, plugin_idx=2}, timeout_nano=4: 5 s.
    let plugin = [field(1, b"weir.dev"), field(2, b"10")].concat();
    let register = [
        field(1, b"nri.pkg.api.v1alpha1.Runtime"),
        field(2, b"RegisterPlugin"),
        field(3, &plugin),
        b"\x20\x80\xe4\x97\xd0\x12".to_vec(),
    ];
    expect(&mut runtime, &frame(2, 1, 1, &register.concat())).await;
    runtime.write_all(&frame(2, 1, 2, b"")).await.unwrap();

    // runtime_name=2, runtime_version=3, registration_timeout=4: 5000, request_timeout=5: 2000.
    let configure = b"\x12\x0acontainerd\x1a\x062.1.99\x20\x88\x27\x28\xd0\x0f";
    runtime.write_all(&request(1, "Configure", configure)).await.unwrap();
    // events=2: run, stop and remove of sandboxes, create of containers.
    expect(&mut runtime, &response(1, b"\x10\x0f")).await;

    // pods=1 {id=1}, more=3; then the last part, empty.
    runtime.write_all(&request(3, "Synchronize", b"\x0a\x04\x0a\x02s0\x18\x01")).await.unwrap();
    // more=2.
    expect(&mut runtime, &response(3, b"\x10\x01")).await;
    runtime.write_all(&request(5, "Synchronize", b"")).await.unwrap();
    expect(&mut runtime, &response(5, b"")).await;
    match commands.recv().await.unwrap() {
        // A sandbox without the UID of a pod cannot be one of ours.
        Command::Synchronize { sandboxes, answer } => {
            assert_eq!(sandboxes, []);
            answer.send(()).unwrap();
        }
        other => panic!("not a Synchronize: {other:?}"),
    }

    // id=1, name=2, uid=3, namespace=4, linux=8 {namespaces=5 {type=1, path=2}}, pid=9: 300.
    let netns = [field(1, b"network"), field(2, b"/proc/thread-self/ns/net")].concat();
    let pod = [
        field(1, b"s1"),
        field(2, b"web"),
        field(3, b"u1"),
        field(4, b"prod"),
        field(8, &field(5, &netns)),
        b"\x48\xac\x02".to_vec(),
    ];
    let pod = pod.concat();
    let state_change = [&b"\x08\x01"[..], &field(2, &pod)].concat();
    for (stream, method, payload) in
        [(7, "StateChange", &state_change), (9, "RunPodSandbox", &field(1, &pod))]
    {
        runtime.write_all(&request(stream, method, payload)).await.unwrap();
        let Command::Attach { sandbox, deadline, answer } = commands.recv().await.unwrap() else {
            panic!("{method}: not an Attach")
        };
        assert_eq!(sandbox.id, "s1", "{method}");
        assert_eq!(sandbox.pod.to_string(), "prod/web", "{method}");
        assert_eq!(sandbox.pod.uid.as_str(), "u1", "{method}");
        assert!(sandbox.netns.is_some(), "{method}");
        // The limit is from Configure: the calls carry none.
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(left < Duration::from_millis(1500), "{method}: {left:?}");
        answer.send(Ok(Vec::new())).unwrap();
        expect(&mut runtime, &response(stream, b"")).await;
    }

    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(runtime.read(&mut [0]).await.unwrap(), 0);
}
