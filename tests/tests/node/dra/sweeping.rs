//! Claims that are gone without an unprepare, and devices that nobody comes for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::attach::{Command, Desk, Notice, NoticeKind, Notices, Worker};
use driver::dra::{Grace, Sweeper};
use driver::model::{ClaimRef, Phase, Record};
use kube::Api;
use kube::api::DeleteParams;
use tests::api_server::Server;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::eventually;
use super::status::{attached, prepared, server_with};

/// Notes whom the worker was asked to unprepare, and does it.
async fn work(desk: Desk, asked: Arc<Mutex<Vec<String>>>) {
    let Desk { mut commands, records } = desk;
    while let Some(command) = commands.recv().await {
        let Command::Unprepare { claim, answer } = command else { panic!("{command:?}") };
        asked.lock().unwrap().push(claim.to_string());
        records.send_modify(|all| {
            *all = Arc::new(all.iter().filter(|r| r.claim.uid != claim).cloned().collect());
        });
        let _ = answer.send(Ok(()));
    }
}

struct World {
    server: Server,
    claims: Vec<ClaimRef>,
    asked: Arc<Mutex<Vec<String>>>,
    told: mpsc::Receiver<Notice>,
    shutdown: CancellationToken,
}

impl World {
    async fn start(names: &[&str], grace: Grace, of: fn(&ClaimRef) -> Record) -> Self {
        let (server, claims) = server_with(names).await;
        let (worker, desk) = Worker::pair();
        desk.records.send_replace(Arc::new(claims.iter().map(of).collect()));
        let asked = Arc::default();
        tokio::spawn(work(desk, Arc::clone(&asked)));
        let (notices, told) = Notices::pair();
        let sweeper = Sweeper::new(server.client().unwrap(), worker, notices, grace);
        let shutdown = CancellationToken::new();
        tokio::spawn(sweeper.run(shutdown.clone()));
        Self { server, claims, asked, told, shutdown }
    }

    async fn delete(&self, nth: usize) {
        let client = self.server.client().unwrap();
        let api =
            Api::<k8s_openapi::api::resource::v1::ResourceClaim>::namespaced(client, "default");
        api.delete(&self.claims[nth].name, &DeleteParams::default()).await.unwrap();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn quick() -> Grace {
    Grace {
        period: Duration::from_millis(20),
        gone: Duration::from_millis(100),
        waiting: Duration::from_mins(2),
    }
}

#[tokio::test]
async fn a_claim_that_is_gone_is_given_back_and_the_others_are_not() {
    let world = World::start(&["stays", "goes"], quick(), prepared).await;
    world.delete(1).await;
    let uid = world.claims[1].uid.to_string();
    eventually("given back", || world.asked() == [uid.clone()]).await;
    world.shutdown.cancel();
}

#[tokio::test]
async fn a_claim_of_the_same_name_is_another_claim() {
    let world = World::start(&["nics"], quick(), prepared).await;
    world.delete(0).await;
    let yaml = super::claim("nics", "", &["eth1"], &[]).to_string();
    world.server.apply(&yaml).unwrap();
    let uid = world.claims[0].uid.to_string();
    eventually("given back", || world.asked() == [uid.clone()]).await;
    world.shutdown.cancel();
}

#[tokio::test]
async fn what_is_in_a_running_sandbox_is_left_to_its_end() {
    let world = World::start(&["runs"], quick(), attached).await;
    world.delete(0).await;
    let waits = World::start(&["waits"], quick(), prepared).await;
    // The second one's clock started later, so the first one's grace has passed as well.
    waits.delete(0).await;
    eventually("given back", || waits.asked().len() == 1).await;
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_device_that_no_sandbox_comes_for_is_told_once() {
    let grace = Grace { waiting: Duration::from_millis(50), ..quick() };
    let mut world = World::start(&["nics"], grace, prepared).await;
    let notice = world.told.recv().await.unwrap();
    assert_eq!(notice.kind, NoticeKind::RunningWithout);
    assert_eq!(notice.claim, world.claims[0]);
    assert!(notice.message.contains("no") && notice.pod.is_some(), "{notice:?}");
    world.delete(0).await;
    eventually("given back", || world.asked().len() == 1).await;
    assert!(world.told.try_recv().is_err(), "once is enough");
    assert!(matches!(prepared(&world.claims[0]).phase, Phase::Prepared));
}
