//! The runtime itself: it is as strict and as harsh as it says, and our framing is to its taste.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use driver::nri::mux::{self, ConnId};
use driver::nri::ttrpc::{Answer, Call, Client, serve};
use tests::runtime::wire::{Fields, decode, string};
use tests::runtime::{HookError, Options, Runtime};
use tokio_util::task::TaskTracker;

use super::world::{SOON, sandbox};

/// A plugin without any manners: frames and messages as the test writes them.
struct Bare(UnixStream);

impl Bare {
    fn frame(&mut self, conn: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        self.0
            .write_all(&[&conn.to_be_bytes()[..], &length.to_be_bytes(), payload].concat())
            .unwrap();
    }

    /// A message in one frame, however long it is.
    fn message(&mut self, conn: u32, stream: u32, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let head = [length.to_be_bytes(), stream.to_be_bytes()].concat();
        self.frame(conn, &[&head[..], &[kind, 0], payload].concat());
    }

    fn register(&mut self, name: &str) {
        let plugin = Fields::new().string(1, name).string(2, "10");
        let request = Fields::new()
            .string(1, "nri.pkg.api.v1alpha1.Runtime")
            .string(2, "RegisterPlugin")
            .message(3, &plugin);
        self.message(2, 1, 1, &request.encode());
    }

    /// Answers the runtime's next call, which must be of `method`.
    fn answer(&mut self, method: &str, response: &Fields) {
        loop {
            let mut head = [0; 18];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes(head[8..12].try_into().unwrap());
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).unwrap();
            if head[..4] == [0, 0, 0, 2] {
                continue;
            }
            assert_eq!(string(&decode(&payload).unwrap(), 2), method);
            let stream = u32::from_be_bytes(head[12..16].try_into().unwrap());
            return self.message(1, stream, 2, &Fields::new().message(2, response).encode());
        }
    }
}

fn start(options: Options) -> (tempfile::TempDir, Runtime, Bare) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let runtime = Runtime::start(&socket, options).unwrap();
    let plugin = Bare(UnixStream::connect(&socket).unwrap());
    (dir, runtime, plugin)
}

fn ends_with(runtime: &Runtime, reason: &str) {
    for _ in 0..1000 {
        if runtime.ends().iter().any(|end| end.contains(reason)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{reason:?} is not in {:?}", runtime.ends());
}

#[test]
fn a_frame_beyond_the_readers_buffer_ends_the_session() {
    let (_dir, runtime, mut plugin) = start(Options::default());
    plugin.register(&"x".repeat(5000));
    ends_with(&runtime, "ENOMEM");
}

#[test]
fn a_flood_of_frames_that_nobody_reads_ends_the_session() {
    let (_dir, runtime, mut plugin) = start(Options::default());
    // Connection 1 is read only after registration.
    for _ in 0..257 {
        plugin.frame(1, b"");
    }
    ends_with(&runtime, "frames wait");
}

#[test]
fn a_plugin_that_wants_unknown_events_is_refused() {
    let (_dir, runtime, mut plugin) = start(Options::default());
    plugin.register("bare");
    plugin.answer("Configure", &Fields::new().varint(2, 1 << 13));
    ends_with(&runtime, "unknown events");
    assert!(!runtime.wait_for_plugin(Duration::ZERO));
}

#[test]
fn a_plugin_that_overruns_its_time_is_disconnected_and_the_pod_goes_on() {
    let limit = Duration::from_millis(50);
    let options = Options { request_timeout: limit, ..Options::default() };
    let (_dir, runtime, mut plugin) = start(options);
    plugin.register("bare");
    plugin.answer("Configure", &Fields::new());
    plugin.answer("Synchronize", &Fields::new());
    assert!(runtime.wait_for_plugin(SOON));

    assert_eq!(runtime.run_pod_sandbox(&sandbox("s1", "p1")), Err(HookError::Timeout));

    assert!(!runtime.wait_for_plugin(Duration::ZERO));
    runtime.run_pod_sandbox(&sandbox("s2", "p2")).unwrap();
    assert_eq!(runtime.ends(), ["RunPodSandbox timed out"]);
}

/// Our own answers are short. This shows that longer ones would be read as well.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_any_length_pass_the_runtimes_reader() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let runtime = Runtime::start(&socket, Options::default()).unwrap();
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let (trunk, [plugin, to_runtime]) = mux::open(stream, [ConnId::PLUGIN, ConnId::RUNTIME]);
    tokio::spawn(trunk.run());
    tokio::spawn(async move {
        let answer = async |call: Call| match call.method.as_str() {
            "Configure" | "Synchronize" => Answer::empty(),
            length => Answer::with(&vec![b'a'; length.parse::<usize>().unwrap()]),
        };
        serve(plugin, &TaskTracker::new(), answer).await;
    });
    let (client, answers) = Client::open(to_runtime);
    tokio::spawn(answers);
    // A request that spans frames, and the same rule for it.
    let register = Fields::new().string(1, &"x".repeat(5000)).string(2, "10").encode();
    let service = "nri.pkg.api.v1alpha1.Runtime";
    client.call(service, "RegisterPlugin", register, SOON).await.unwrap();

    tokio::task::block_in_place(|| {
        assert!(runtime.wait_for_plugin(SOON));
        for length in [0, 100, 4060, 4080, 4096, 5000, 8192, 70_000, 4_000_000] {
            let answer = runtime.call("any", &length.to_string(), b"").unwrap();
            assert!(answer.len() >= length, "{length}");
        }
        assert_eq!(runtime.ends(), [""; 0]);
    });
}
