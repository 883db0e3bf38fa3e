//! Kubelet asks again, asks twice at once, and gives up: whatever it does, a claim is prepared or it
//! is not. The worker and its engine are the real ones, on a node that only exists in memory.

use std::time::Duration;

use driver::attach::{Engine, Worker};
use driver::model::{BuildId, ClaimRef, Device, IfIndex, MacAddr, Phase};
use driver::state::Checkpoint;
use driver::testing::FakeNode;
use futures::future::join_all;
use tempfile::TempDir;
use tests::kubelet::{Driver, Kubelet, PreparedDevice};
use tokio::time::timeout;

use super::{DRIVER, PATIENCE, World, claim, claim_ref, device};

/// More than kubelet ever has under way for one pod.
const AT_ONCE: u64 = 32;

struct Node {
    kernel: FakeNode,
    world: World,
    driver: Driver,
    _kubelet: Kubelet,
    _state: TempDir,
}

impl Node {
    async fn start() -> Self {
        let node = FakeNode::with(&["eth1", "eth2"]);
        let state = TempDir::new().unwrap();
        let (checkpoint, _) = Checkpoint::open(state.path(), "boot-1").unwrap();
        let mut engine = Engine::new(node.meeting(None), checkpoint, BuildId("b".to_owned()));
        engine.settle();
        let worker: Worker = engine.start().unwrap();
        let there = [(1, "eth1"), (2, "eth2")].map(|(number, name)| Device {
            index: Some(IfIndex(u32::from(number))),
            mac: Some(MacAddr([2, 0, 0, 0, 0, number])),
            ..device(name)
        });
        let world = World::start_on(tempfile::tempdir().unwrap(), worker, there.to_vec());
        world.api.add_claim(claim("nics", "c1", &["eth1", "eth2"], &[]));
        let kubelet = Kubelet::start(world.root.path()).unwrap();
        let driver = kubelet.wait_for_driver(DRIVER, PATIENCE).await.unwrap();
        Self { kernel: node, world, driver, _kubelet: kubelet, _state: state }
    }

    /// The claim's own answer, by a connection made anew where the last one was ended.
    async fn prepare(&self, claims: &[ClaimRef]) -> Result<Vec<PreparedDevice>, String> {
        for _ in 0..AT_ONCE {
            if let Ok(answer) = self.driver.prepare(claims).await {
                return answer["c1"].clone();
            }
        }
        panic!("no connection to the driver can be made any more");
    }

    fn phases(&self) -> Vec<&'static str> {
        self.world.worker.records().iter().map(|record| record.phase.name()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_get_the_same_answer() {
    let node = Node::start().await;
    let nics = [claim_ref("nics", "c1")];

    let answers = join_all((0..AT_ONCE).map(|_| node.driver.prepare(&nics))).await;

    let first = answers[0].as_ref().unwrap()["c1"].clone();
    assert_eq!(first.as_ref().unwrap().len(), 2);
    assert!(answers.into_iter().all(|answer| answer.unwrap()["c1"] == first));
    assert_eq!(node.phases(), [Phase::Prepared.name(); 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cross_and_are_given_up_leave_nothing_half_done() {
    let node = Node::start().await;
    let before = node.kernel.snapshot();
    let nics = [claim_ref("nics", "c1")];
    for round in 0..10 {
        let calls = (0..AT_ONCE).map(|number| {
            let (driver, nics) = (&node.driver, &nics);
            async move {
                // Some are given up before they are sent, some on their way, some not at all.
                let patience = match number % 4 {
                    0 => PATIENCE,
                    quick => Duration::from_micros((round + 1) * quick * 300),
                };
                // A server of HTTP/2 ends the connection on which too many calls are reset before it
                // has taken them up. All others on it are given up then, too.
                if number % 3 == 1 {
                    if let Ok(Ok(answer)) = timeout(patience, driver.unprepare(nics)).await {
                        assert_eq!(answer["c1"], Ok(()));
                    }
                } else if let Ok(Ok(answer)) = timeout(patience, driver.prepare(nics)).await {
                    assert_eq!(answer["c1"].as_ref().map(Vec::len), Ok(2));
                }
            }
        });
        join_all(calls).await;

        let answer = node.prepare(&nics).await;
        let phases = node.phases();
        assert!(phases.is_empty() || phases.len() == 2, "round {round}: {phases:?}");
        assert_eq!(answer.as_ref().map(Vec::len), Ok(2), "round {round}");
    }
    // A call that was given up late may still be on its way to the worker.
    for _ in 0..100 {
        if let Ok(answer) = node.driver.unprepare(&nics).await {
            assert_eq!(answer["c1"], Ok(()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if node.phases().is_empty() {
            break;
        }
    }
    assert_eq!(node.phases(), [""; 0]);
    assert_eq!(node.kernel.snapshot(), before, "the node is as it was");
}

#[tokio::test]
async fn a_claim_of_the_same_name_is_another_one() {
    let node = Node::start().await;
    node.driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].clone().unwrap();
    node.world.api.add_claim(claim("nics", "c2", &["eth1"], &[]));

    let renewed = node.driver.prepare(&[claim_ref("nics", "c2")]).await.unwrap();
    let error = renewed["c2"].clone().unwrap_err();
    assert!(error.contains("device eth1 is in use by claim default/nics (c1)"), "{error}");

    node.driver.unprepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].clone().unwrap();
    let renewed = node.driver.prepare(&[claim_ref("nics", "c2")]).await.unwrap();
    assert_eq!(renewed["c2"].as_ref().map(Vec::len), Ok(1));
}
