//! The files and the node's label, followed by themselves.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use driver::attach::Worker;
use driver::config::NodeFiles;
use driver::dra::{Pace, RuleBoard, RuleFollower, Sieve};
use driver::inventory::Inventory;
use driver::model::PublishRules;
use driver::provider::Providers;
use driver::telemetry::Metrics;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::api::Api;
use super::{DRIVER, eventually, pool};

const FILE: &str = "apiVersion: weir.dev/v1alpha1
kind: NodeConfig
publish: {exclude: [none0]}
profiles:
  gpu: {publish: {exclude: [gpu0]}}
  cpu: {publish: {exclude: [cpu0]}}
";

/// A follower of a file with two profiles, and what it says holds.
struct Following {
    api: Api,
    directory: TempDir,
    publish: watch::Receiver<Arc<PublishRules>>,
    _guard: DropGuard,
}

impl Following {
    fn start(labels: Option<Value>) -> Self {
        let (api, directory) = (Api::default(), tempfile::tempdir().unwrap());
        api.label_node(labels);
        let file = directory.path().join("node.yaml");
        fs::write(&file, FILE).unwrap();
        let files = NodeFiles { shared: Some(file), own: None };
        let (publish, in_force) = watch::channel(Arc::default());
        let board = RuleBoard {
            publish,
            sieve: watch::channel(Sieve::Unknown).0,
            rules: watch::channel(None).0,
        };
        let providers = Providers::open(DRIVER, directory.path()).unwrap();
        let (worker, _) = Worker::pair();
        let asked = (Inventory::fixed(Vec::new()), providers, worker);
        let (client, state) = (api.client(), directory.path().to_owned());
        let follower =
            RuleFollower::new(pool(), client, files, state, asked, board, Metrics::new());
        let pace = Pace { files: Duration::from_millis(50), label: Duration::from_millis(200) };
        let shutdown = CancellationToken::new();
        tokio::spawn(follower.at(pace).run(shutdown.clone()));
        Self { api, directory, publish: in_force, _guard: shutdown.drop_guard() }
    }

    fn label(&self, profile: &str) {
        self.api.label_node(Some(json!({ "weir.dev/profile": profile })));
    }

    async fn excludes(&self, name: &str) {
        let what = format!("{name} is excluded");
        let is_so = || format!("{:?}", self.publish.borrow().exclude).contains(name);
        eventually(&what, is_so).await;
    }

    /// Waits until the label has been asked for as many times more.
    async fn asked(&self, times: usize) {
        let count = || self.api.requests().iter().filter(|it| it.contains("/nodes/")).count();
        let before = count();
        eventually("it is asked for", || count() >= before + times).await;
    }
}

#[tokio::test]
async fn a_label_that_names_no_profile_is_read_again_until_it_does() {
    let node = Following::start(Some(json!({ "weir.dev/profile": "typo" })));
    node.asked(2).await;
    assert_eq!(**node.publish.borrow(), PublishRules::default(), "nothing is known yet");
    node.label("gpu");
    node.excludes("gpu0").await;
    node.label("cpu");
    node.excludes("cpu0").await;
    // One that is wrong changes nothing.
    node.label("typo");
    node.asked(2).await;
    node.excludes("cpu0").await;
    node.api.label_node(Some(json!({})));
    node.excludes("none0").await;
}

#[tokio::test]
async fn while_the_api_server_does_not_answer_the_last_label_holds() {
    let node = Following::start(None);
    node.asked(3).await;
    assert_eq!(**node.publish.borrow(), PublishRules::default(), "nothing is known yet");
    node.label("gpu");
    node.excludes("gpu0").await;
    node.api.label_node(None);
    node.asked(3).await;
    node.excludes("gpu0").await;
    // The files are followed meanwhile.
    let text = FILE.replace("gpu0", "gpu1");
    fs::write(node.directory.path().join("node.yaml"), text).unwrap();
    node.excludes("gpu1").await;
}
