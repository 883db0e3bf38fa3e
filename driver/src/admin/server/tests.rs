//! The door as a client meets it, over a real socket, with the real worker over a fake node.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::admin::{CallError, Form, Verb, call};
use crate::attach::{Engine, PrepareClaim, Wanted};
use crate::model::{BuildId, Selection, Wishes};
use crate::state::Checkpoint;
use crate::testing::{FakeNode, device, pod};

/// A driver with two prepared devices and its door open.
struct House {
    node: FakeNode,
    state: TempDir,
    worker: Worker,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

impl House {
    async fn new() -> Self {
        let state = TempDir::new().unwrap();
        let (checkpoint, _) = Checkpoint::open(state.path(), "boot-1").unwrap();
        let node = FakeNode::with(&["eth1", "eth2"]);
        let worker =
            Engine::new(node.clone(), checkpoint, BuildId("b".to_owned())).start().unwrap();
        let devices = ["eth1", "eth2"].map(|name| Wanted {
            requests: vec!["nic".to_owned()],
            pool: "node-a".to_owned(),
            name: name.parse().unwrap(),
            share: None,
            found: Some(device(name)),
            wishes: Wishes::default(),
        });
        let claim = crate::testing::claim("nics");
        let wanted = PrepareClaim { claim, pod: pod("web"), devices: devices.into() };
        worker.prepare(wanted).await.unwrap();
        let door = Door::open(state.path()).unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(door.serve(worker.clone(), shutdown.clone()));
        Self { node, state, worker, shutdown, served }
    }

    async fn call(&self, verb: Verb, request: PolicyRequest) -> Result<PolicyAnswer, CallError> {
        let state = self.state.path().to_owned();
        tokio::task::spawn_blocking(move || call(&state, verb, &request)).await.unwrap()
    }

    /// Sends bytes as they are, and answers the status and the body.
    async fn raw(&self, request: &[u8]) -> (String, Value) {
        let mut stream = UnixStream::connect(socket_path(self.state.path())).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
    }

    async fn put(&self, body: &str) -> (String, Value) {
        let length = body.len();
        let head = format!("PUT {PATH} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n");
        self.raw(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await
    }
}

fn deny() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NodePolicy",
        "filter": { "ingress": { "rules": [
            { "name": "incident", "action": "deny", "cidrs": ["198.51.100.0/24"] },
        ]}},
    })
}

fn request(selection: Selection, policy: Option<Value>) -> PolicyRequest {
    PolicyRequest { selection, policy }
}

#[tokio::test]
async fn a_policy_is_applied_and_cleared() {
    let house = House::new().await;
    let pod = || Selection::Pod("default/web".to_owned());

    let applied = house.call(Verb::Apply, request(pod(), Some(deny()))).await.unwrap().applied;
    assert_eq!(applied.len(), 2);
    let first = &applied[0];
    assert_eq!((first.device.as_str(), first.generation), ("eth1", 2));
    assert_eq!((first.operator_rules, first.claim_rules), (1, 0));
    assert!(house.worker.records().iter().all(|record| record.policy.is_some()));

    let device = Selection::Device("eth2".to_owned());
    let cleared = house.call(Verb::Clear, request(device, None)).await.unwrap().applied;
    assert_eq!((cleared.len(), cleared[0].generation, cleared[0].form), (1, 3, Form::None));
    let policies = house.worker.records();
    let has_policy: Vec<_> = policies.iter().map(|record| record.policy.is_some()).collect();
    assert_eq!(has_policy, [true, false]);
}

#[tokio::test]
async fn whoever_cannot_is_named() {
    let house = House::new().await;
    house.node.world().datapaths.pop_first();
    let answer = house.call(Verb::Apply, request(Selection::All, Some(deny()))).await.unwrap();
    assert_eq!((answer.applied.len(), answer.applied[0].device.as_str()), (1, "eth2"));
    let [refused] = &answer.refused[..] else { panic!("{answer:?}") };
    assert!(refused.starts_with("device eth1: "), "{refused}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_path() {
    let house = House::new().await;
    let mut policy = deny();
    policy["filter"]["ingress"]["rules"][0]["cidrs"][0] = json!("10.0.0.0/33");
    policy["filter"]["egres"] = json!({});
    let refused = house.call(Verb::Apply, request(Selection::All, Some(policy))).await;
    let Err(CallError::Refused { refusal, .. }) = refused else { panic!("{refused:?}") };
    let paths: Vec<_> = refusal.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert!(paths.contains(&"filter.egres"), "{paths:?}");
    assert!(paths.contains(&"filter.ingress.rules[0].cidrs[0]"), "{paths:?}");
    assert!(house.worker.records().iter().all(|record| record.policy.is_none()));
}

#[tokio::test]
async fn what_nobody_has_is_not_found() {
    let house = House::new().await;
    let nobody = Selection::Pod("default/nobody".to_owned());
    let refused = house.call(Verb::Clear, request(nobody, None)).await;
    let Err(CallError::Refused { is_nothing_selected: true, refusal }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.error, "no device of pod default/nobody is prepared on this node");
}

#[tokio::test]
async fn nonsense_is_answered_in_json() {
    let house = House::new().await;
    for body in ["", "{", "[]", r#"{"selection":"some"}"#, r#"{"selection":"all","x":1}"#] {
        let (status, answer) = house.put(body).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body}");
        assert!(answer["error"].is_string(), "{body}: {answer}");
    }
    let (_, answer) = house.put(r#"{"selection":"all"}"#).await;
    assert_eq!(answer, json!({ "error": "policy: is required" }));
    let (status, answer) = house.put(&" ".repeat(LARGEST_BODY + 1)).await;
    assert_eq!(status, "HTTP/1.1 413 Payload Too Large");
    assert!(answer["error"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_connection_does_not_last_for_ever() {
    let (stream, _silent) = UnixStream::pair().unwrap();
    let mut bounded = Bounded { stream, end: Box::pin(sleep(Duration::from_millis(10))) };
    let error = bounded.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_door_that_is_closed_is_gone_and_the_next_takes_its_place() {
    let house = House::new().await;
    let path = socket_path(house.state.path());
    house.shutdown.cancel();
    house.served.await.unwrap().unwrap();
    assert!(!path.exists());

    let asked = request(Selection::All, None);
    let error = call_blocking(house.state.path(), asked.clone()).await.unwrap_err();
    assert!(matches!(error, CallError::NotRunning { .. }), "{error}");
    // What a driver that was killed leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = call_blocking(house.state.path(), asked).await.unwrap_err();
    assert!(matches!(error, CallError::NotRunning { .. }), "{error}");
    assert!(error.to_string().starts_with("no driver runs on this node"), "{error}");
    Door::open(house.state.path()).unwrap();
}

async fn call_blocking(state: &Path, request: PolicyRequest) -> Result<PolicyAnswer, CallError> {
    let state = state.to_owned();
    tokio::task::spawn_blocking(move || call(&state, Verb::Clear, &request)).await.unwrap()
}

#[tokio::test]
async fn whoever_hangs_up_is_named() {
    let state = TempDir::new().unwrap();
    let path = socket_path(state.path());
    let listener = UnixListener::bind(&path).unwrap();
    let hanging_up = tokio::spawn(async move { listener.accept().await.map(drop) });
    let error = call_blocking(state.path(), request(Selection::All, None)).await.unwrap_err();
    assert!(matches!(error, CallError::Http { .. }), "{error}");
    assert!(error.to_string().ends_with(&path.display().to_string()), "{error}");
    hanging_up.await.unwrap().unwrap();
}
