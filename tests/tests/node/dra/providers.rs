//! Providers: what they say arrives in slices and records, and whatever they do not say holds up
//! nobody.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use driver::inventory::Inventory;
use driver::model::{ProviderPlace, ProviderRule};
use driver::provider::Providers;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::webhook::{Behaviour, Webhook};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::api::Api;
use super::publishing::publish_what_providers_say;
use super::{DRIVER, World, claim, claim_ref, device, eventually};

fn at(url: &str) -> ProviderRule {
    let place = match url.strip_prefix("unix://") {
        Some(path) => ProviderPlace::Socket(path.into()),
        None => ProviderPlace::Url { url: url.to_owned(), ca: None },
    };
    ProviderRule {
        name: "facts".to_owned(),
        place,
        refresh: Duration::from_millis(200),
        timeout: Duration::from_secs(1),
    }
}

/// Providers that have been employed, for devices eth1 and eth2.
async fn employed(state: &Path, rule: ProviderRule) -> Providers {
    let providers = Providers::open(DRIVER, state).unwrap();
    providers.employ(&[rule], &[device("eth1"), device("eth2")]).await;
    providers
}

/// Keeps them asking, and giving back, until the guard goes.
fn running(providers: &Providers, world: &World) -> DropGuard {
    let shutdown = CancellationToken::new();
    let inventory = Inventory::fixed(vec![device("eth1"), device("eth2")]);
    tokio::spawn(providers.clone().run(inventory, world.worker.clone(), shutdown.clone()));
    shutdown.drop_guard()
}

fn pool_profile() -> Behaviour {
    let config = json!({ "interface": { "mtu": 1450, "addresses": ["10.88.0.7/24"] } });
    Behaviour { profiles: BTreeMap::from([("pool".to_owned(), config)]), ..Behaviour::default() }
}

/// What is said to a claim of eth1 that names a profile, by a driver that ends with it.
async fn refused(profile: &str, providers: Providers) -> String {
    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": profile })]));
    let answers = driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap();
    answers["c1"].clone().unwrap_err()
}

/// Whether nothing is to be given back any more.
fn is_all_given_back(directory: &TempDir) -> bool {
    std::fs::read_to_string(directory.path().join("profiles.json"))
        .is_ok_and(|text| text.contains("\"grants\":[]"))
}

fn attribute(api: &Api, name: &str) -> Value {
    let slices = api.slices();
    let devices = slices.first().map(|slice| slice["spec"]["devices"].clone());
    devices.unwrap_or_default()[0]["attributes"][name].clone()
}

#[tokio::test]
async fn attributes_of_a_webhook_arrive_in_the_slice_over_tcp_and_over_a_socket() {
    for is_tcp in [true, false] {
        let directory = TempDir::new().unwrap();
        let attributes = json!({
            "example.com/rail": { "string": "rail-3" },
            "gen": { "int": 5 },
            "Bad Name/x": { "int": 1 },
        });
        let behaviour = Behaviour { attributes, ..Behaviour::default() };
        let webhook = if is_tcp {
            Webhook::on_tcp(behaviour).await.unwrap()
        } else {
            Webhook::on_socket(&directory.path().join("hook.sock"), behaviour).unwrap()
        };
        let providers = employed(directory.path(), at(webhook.url())).await;
        let api = Api::default();
        let _guard = publish_what_providers_say(&api, vec![device("eth1")], providers);
        eventually("the rail is published", || {
            attribute(&api, "example.com/rail") == json!({ "string": "rail-3" })
        })
        .await;
        assert_eq!(attribute(&api, "weir.dev/gen"), json!({ "int": 5 }));
        let asked = webhook.asked("/GetDeviceAttributes");
        let eth1 = json!({ "name": "eth1", "mac_address": "02:00:00:00:00:07" });
        assert!(asked.contains(&eth1), "{asked:?}");
    }
}

/// The server's certificate is signed by `ca.pem`; `other-ca.pem` is an authority of the same name.
#[tokio::test]
async fn a_provider_behind_tls_is_believed_only_by_the_authority_that_is_named() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let webhook = Webhook::on_tls(&tls, pool_profile()).await.unwrap();
    for (authority, is_believed) in [("other-ca.pem", false), ("ca.pem", true)] {
        let directory = TempDir::new().unwrap();
        let ca = Some(tls.join(authority));
        let place = ProviderPlace::Url { url: webhook.url().to_owned(), ca };
        let rule = ProviderRule { place, ..at(webhook.url()) };
        let providers = employed(directory.path(), rule).await;
        let (world, _kubelet, driver) = World::registered_asking(providers).await;
        world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
        let answer = driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].clone();
        assert_eq!(answer.is_ok(), is_believed, "{authority}: {answer:?}");
        assert_eq!(webhook.asked("/GetProfileConfig").len(), usize::from(is_believed));
        if let Err(error) = answer {
            assert!(error.contains("invalid peer certificate"), "{error}");
        }
    }
}

/// Like kubelet's when a `Secret` comes late, or when certificates change.
#[tokio::test]
async fn an_authority_that_comes_late_or_changes_is_believed_with_the_next_refresh() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let behaviour = Behaviour { attributes: json!({ "gen": 1 }), ..pool_profile() };
    let webhook = Webhook::on_tls(&tls, behaviour).await.unwrap();
    for at_first in [None, Some("other-ca.pem")] {
        let directory = TempDir::new().unwrap();
        let ca = directory.path().join("ca.pem");
        if let Some(other) = at_first {
            std::fs::copy(tls.join(other), &ca).unwrap();
        }
        let place = ProviderPlace::Url { url: webhook.url().to_owned(), ca: Some(ca.clone()) };
        let rule = ProviderRule { place, ..at(webhook.url()) };
        let providers = employed(directory.path(), rule).await;
        let world = World::start(Duration::ZERO);
        let _running = running(&providers, &world);
        let provided = || {
            let mut devices = vec![device("eth1")];
            providers.fill(&mut devices);
            devices[0].provided.len()
        };
        assert_eq!(provided(), 0, "{at_first:?}");
        std::fs::copy(tls.join("ca.pem"), &ca).unwrap();
        eventually("it is believed", || provided() == 1).await;
    }
}

#[tokio::test]
async fn what_a_provider_can_do_is_not_asked_when_a_claim_is_prepared() {
    let directory = TempDir::new().unwrap();
    let webhook = Webhook::on_tcp(pool_profile()).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let asked = webhook.asked("/health").len();
    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    assert!(driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].is_ok());
    assert_eq!((asked, webhook.asked("/health").len()), (1, 1));
}

#[tokio::test]
async fn a_profile_that_has_something_run_on_the_node_is_refused_and_given_back() {
    let directory = TempDir::new().unwrap();
    let hook = json!({ "path": "/opt/bin/tune-nic", "args": ["tune-nic"] });
    let behaviour = Behaviour { runtime_hook: Some(hook), ..pool_profile() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers.clone()).await;
    let nics = [claim_ref("nics", "c1")];
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    let error = driver.prepare(&nics).await.unwrap()["c1"].clone().unwrap_err();
    assert_eq!(
        error,
        "claim default/nics: device eth1: provider facts: profile \"pool\" comes with a program to be \
         run on the node for each container (/GetRuntimeHook), and no such program is run"
    );
    let asked = webhook.asked("/GetRuntimeHook");
    assert_eq!(asked[0]["config"]["interface"]["mtu"], 1450, "as it was resolved");
    assert_eq!(asked[0]["claim"]["metadata"]["name"], "nics");
    assert!(world.worker.records().is_empty());
    // Neither the refusal nor a try that gets no answer makes it forget what was granted.
    webhook.behave(|it| it.profiles.clear());
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_err());

    // The next driver finds what was granted, and no record of the claim.
    let next = employed(directory.path(), at(webhook.url())).await;
    let other = World::start(Duration::ZERO);
    let _running = running(&next, &other);
    let released = || webhook.asked("/ReleaseProfileConfig");
    eventually("it is given back", || released().len() == 1).await;
    assert_eq!(released()[0]["config"]["interface"]["mtu"], 1450, "as it was granted");
}

#[tokio::test]
async fn a_profile_that_has_nothing_run_after_all_is_taken() {
    let directory = TempDir::new().unwrap();
    let hook = json!({ "path": "/opt/bin/tune-nic", "args": ["tune-nic"] });
    let behaviour = Behaviour { runtime_hook: Some(hook), ..pool_profile() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    let nics = [claim_ref("nics", "c1")];
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_err());
    webhook.behave(|it| it.runtime_hook = Some(Value::Null));
    assert_eq!(driver.prepare(&nics).await.unwrap()["c1"].as_ref().err(), None);
}

#[tokio::test]
async fn what_changes_is_published_and_what_was_known_outlives_the_provider() {
    let directory = TempDir::new().unwrap();
    let behaviour = Behaviour { attributes: json!({ "gen": 1 }), ..Behaviour::default() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let world = World::start(Duration::ZERO);
    let _running = running(&providers, &world);
    let api = Api::default();
    let _guard = publish_what_providers_say(&api, vec![device("eth1")], providers.clone());
    eventually("the first", || attribute(&api, "weir.dev/gen") == json!({ "int": 1 })).await;
    webhook.behave(|it| it.attributes = json!({ "gen": 2 }));
    eventually("the second", || attribute(&api, "weir.dev/gen") == json!({ "int": 2 })).await;

    drop(webhook);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut devices = vec![device("eth1")];
    providers.fill(&mut devices);
    assert_eq!(devices[0].provided.len(), 1, "several rounds have failed by now");
}

#[tokio::test]
async fn one_late_answer_costs_no_other() {
    let directory = TempDir::new().unwrap();
    let behaviour = Behaviour {
        attributes: json!({ "gen": 1 }),
        silent_about: Some("eth1".to_owned()),
        ..Behaviour::default()
    };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let rule = ProviderRule { refresh: Duration::from_mins(10), ..at(webhook.url()) };
    let providers = employed(directory.path(), rule).await;
    let provided = || {
        let mut devices = vec![device("eth1"), device("eth2")];
        providers.fill(&mut devices);
        [devices[0].provided.len(), devices[1].provided.len()]
    };
    assert_eq!(provided(), [0, 1]);

    // Long before the next time of all, and of nobody else.
    let world = World::start(Duration::ZERO);
    let _running = running(&providers, &world);
    webhook.behave(|it| it.silent_about = None);
    eventually("the late one is known", || provided() == [1, 1]).await;
    let asked = webhook.asked("/GetDeviceAttributes");
    assert_eq!(asked.iter().filter(|it| it["name"] == "eth2").count(), 1);
}

#[tokio::test]
async fn a_profile_arrives_in_the_record_and_is_given_back_at_the_end() {
    let directory = TempDir::new().unwrap();
    let webhook = Webhook::on_tcp(pool_profile()).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers.clone()).await;
    let _running = running(&providers, &world);
    // In DraNet's words and in ours.
    let ours = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig", "profile": "pool",
        "interface": { "mtu": 1400 }, "ebpf": { "hook": "none" },
    });
    for (uid, config, mtu) in [("c1", json!({ "profile": "pool" }), 1450), ("c2", ours, 1400)] {
        world.api.add_claim(claim("nics", uid, &["eth1"], &[config]));
        let nics = [claim_ref("nics", uid)];
        assert!(driver.prepare(&nics).await.unwrap()[uid].is_ok());
        // Kubelet asks again after it was restarted; the provider is not.
        assert!(driver.prepare(&nics).await.unwrap()[uid].is_ok());

        let record = world.worker.records()[0].clone();
        assert_eq!(record.wishes.profile.as_deref(), Some("pool"));
        assert_eq!(record.wishes.interface.mtu, Some(mtu));
        let addresses = record.wishes.interface.addresses;
        assert_eq!(addresses, Some(vec!["10.88.0.7/24".parse().unwrap()]));
        let asked = webhook.asked("/GetProfileConfig");
        let question = asked.last().unwrap();
        assert_eq!(question["claim_uid"], uid);
        assert_eq!(question["claim"]["status"]["reservedFor"][0]["name"], "pod-a");
        assert_eq!(question["config"]["profile"], "pool");
        assert_eq!(question["device"]["name"], "eth1");

        assert_eq!(
            webhook
                .asked("/ReleaseProfileConfig")
                .iter()
                .filter(|it| it["claim_uid"] == uid)
                .count(),
            0
        );
        assert_eq!(driver.unprepare(&nics).await.unwrap()[uid], Ok(()));
        eventually("the profile is given back", || {
            webhook.asked("/ReleaseProfileConfig").iter().any(|it| {
                it["claim_uid"] == uid
                    && it["config"]["interface"]["addresses"][0] == "10.88.0.7/24"
            })
        })
        .await;
    }
    assert_eq!(webhook.asked("/GetProfileConfig").len(), 2);
}

#[tokio::test]
async fn the_configuration_of_a_device_lies_below_class_and_claim() {
    let directory = TempDir::new().unwrap();
    let config = json!({ "interface": { "mtu": 8896, "name": "rail0" } });
    let webhook = Webhook::on_tcp(Behaviour { config, ..Behaviour::default() }).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    let own = json!({ "interface": { "name": "net1" } });
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[own]));
    assert!(driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].is_ok());
    let interface = world.worker.records()[0].wishes.interface.clone();
    assert_eq!(interface.mtu, Some(8896));
    assert_eq!(interface.name.unwrap().as_str(), "net1");
}

#[tokio::test]
async fn a_profile_that_nobody_resolves_is_told_and_what_failed_is_given_back() {
    let directory = TempDir::new().unwrap();
    let webhook = Webhook::on_tcp(pool_profile()).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let error = refused("other", providers).await;
    assert_eq!(
        error,
        "claim default/nics: device eth1: provider facts: /GetProfileConfig was answered with 404: \
         profile \"other\" not found"
    );
    // The next driver finds what was asked for, without a record of the claim.
    let next = employed(directory.path(), at(webhook.url())).await;
    let _running = running(&next, &World::start(Duration::ZERO));
    eventually("the profile is given back", || {
        webhook.asked("/ReleaseProfileConfig").iter().any(|it| it["claim_uid"] == "c1")
    })
    .await;
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again_also_by_the_next_driver() {
    let directory = TempDir::new().unwrap();
    let behaviour = Behaviour { refuses_release: true, ..pool_profile() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers.clone()).await;
    let first = running(&providers, &world);
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    let nics = [claim_ref("nics", "c1")];
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_ok());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(driver.unprepare(&nics).await.unwrap()["c1"], Ok(()));
    let released = || webhook.asked("/ReleaseProfileConfig").len();
    eventually("it was refused", || released() == 1).await;
    drop(first);

    webhook.behave(|it| it.refuses_release = false);
    let next = employed(directory.path(), at(webhook.url())).await;
    let _running = running(&next, &world);
    eventually("it is tried again", || released() == 2).await;
    eventually("it is forgotten", || is_all_given_back(&directory)).await;
}

#[tokio::test]
async fn what_was_granted_is_known_while_nobody_knows_whom_to_ask() {
    let directory = TempDir::new().unwrap();
    let webhook = Webhook::on_tcp(pool_profile()).await.unwrap();
    for is_employed in [true, false] {
        let providers = if is_employed {
            employed(directory.path(), at(webhook.url())).await
        } else {
            Providers::open(DRIVER, directory.path()).unwrap()
        };
        let (world, _kubelet, driver) = World::registered_asking(providers).await;
        world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
        let nics = [claim_ref("nics", "c1")];
        assert_eq!(driver.prepare(&nics).await.unwrap()["c1"].as_ref().err(), None);
        assert_eq!(world.worker.records()[0].wishes.interface.mtu, Some(1450));
        assert_eq!(webhook.asked("/GetProfileConfig").len(), 1);
    }
}

#[tokio::test]
async fn an_outage_does_not_make_another_provider_grant_the_same() {
    let directory = TempDir::new().unwrap();
    let slow = Behaviour { pause: Duration::from_mins(10), ..pool_profile() };
    let socket = directory.path().join("first.sock");
    let first = Webhook::on_socket(&socket, slow).unwrap();
    let second = Webhook::on_tcp(pool_profile()).await.unwrap();
    let rules = [at(first.url()), ProviderRule { name: "second".to_owned(), ..at(second.url()) }];
    let providers = Providers::open(DRIVER, directory.path()).unwrap();
    providers.employ(&rules, &[]).await;
    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    let profile = [json!({ "profile": "pool" })];
    world.api.add_claim(claim("nics", "c1", &["eth1"], &profile));
    world.api.add_claim(claim("nics-b", "c2", &["eth2"], &profile));
    let error = driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].clone();
    assert!(error.unwrap_err().contains("provider facts: no answer to /GetProfileConfig"));

    drop(first);
    let claims = [claim_ref("nics", "c1"), claim_ref("nics-b", "c2")];
    let answers = driver.prepare(&claims).await.unwrap();
    for uid in ["c1", "c2"] {
        let error = answers[uid].clone().unwrap_err();
        assert!(error.contains("provider facts: /"), "{error}");
    }
    assert!(second.asked("/GetProfileConfig").is_empty());
}

#[tokio::test]
async fn another_profile_of_the_same_device_waits_until_the_first_is_given_back() {
    let directory = TempDir::new().unwrap();
    let webhook = Webhook::on_tcp(pool_profile()).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers.clone()).await;
    let nics = [claim_ref("nics", "c1")];
    let wish = |profile: &str| {
        world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": profile })]));
    };
    wish("other");
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_err());
    wish("pool");
    let error = driver.prepare(&nics).await.unwrap()["c1"].clone().unwrap_err();
    assert!(error.ends_with("of an earlier try is being given back"), "{error}");
    assert_eq!(webhook.asked("/GetProfileConfig").len(), 1);

    let _running = running(&providers, &world);
    eventually("the first is given back", || {
        let released = webhook.asked("/ReleaseProfileConfig");
        released.iter().any(|it| it["config"]["profile"] == "other")
    })
    .await;
    eventually("it is forgotten", || is_all_given_back(&directory)).await;
    // The round of releases has its end a little later.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(driver.prepare(&nics).await.unwrap()["c1"].as_ref().err(), None);
}

#[tokio::test]
async fn what_may_have_been_given_back_is_asked_for_anew() {
    let directory = TempDir::new().unwrap();
    let behaviour = Behaviour { loses_release: true, ..pool_profile() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(providers.clone()).await;
    let first = running(&providers, &world);
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    let nics = [claim_ref("nics", "c1")];
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_ok());
    let file = directory.path().join("profiles.json");
    let text = || std::fs::read_to_string(&file).unwrap();
    assert!(!text().contains("\"answer\":null"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(driver.unprepare(&nics).await.unwrap()["c1"], Ok(()));
    eventually("it is released", || webhook.asked("/ReleaseProfileConfig").len() == 1).await;
    // Before the answer, and without it.
    assert!(text().contains("\"answer\":null"), "{}", text());
    drop(first);

    let other = json!({ "interface": { "addresses": ["10.88.0.9/24"] } });
    webhook.behave(|it| drop(it.profiles.insert("pool".to_owned(), other)));
    let next = employed(directory.path(), at(webhook.url())).await;
    let (world, _kubelet, driver) = World::registered_asking(next).await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_ok());
    let addresses = world.worker.records()[0].wishes.interface.addresses.clone();
    assert_eq!(addresses, Some(vec!["10.88.0.9/24".parse().unwrap()]));
}

#[tokio::test]
async fn a_dead_provider_holds_up_neither_slices_nor_claims_without_a_profile() {
    let directory = TempDir::new().unwrap();
    let nobody = format!("unix://{}", directory.path().join("nobody.sock").display());
    let providers = employed(directory.path(), at(&nobody)).await;
    let api = Api::default();
    let _guard = publish_what_providers_say(&api, vec![device("eth1")], providers.clone());
    eventually("it is published", || api.slices().len() == 1).await;

    let (world, _kubelet, driver) = World::registered_asking(providers).await;
    world.api.add_claim(claim("plain", "c1", &["eth1"], &[]));
    world.api.add_claim(claim("asking", "c2", &["eth2"], &[json!({ "profile": "pool" })]));
    let claims = [claim_ref("plain", "c1"), claim_ref("asking", "c2")];
    let answers = driver.prepare(&claims).await.unwrap();
    assert!(answers["c1"].is_ok());
    let error = answers["c2"].clone().unwrap_err();
    let start = "claim default/asking: device eth2: provider facts: /health: connect to ";
    assert!(error.starts_with(start), "{error}");
}

#[tokio::test]
async fn a_slow_provider_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let pause = Duration::from_mins(10);
    let behaviour = Behaviour { pause, ..pool_profile() };
    let webhook = Webhook::on_tcp(behaviour).await.unwrap();
    let providers = employed(directory.path(), at(webhook.url())).await;
    let error = refused("pool", providers).await;
    assert_eq!(
        error,
        "claim default/nics: device eth1: provider facts: no answer to /GetProfileConfig within 1 s"
    );
}

#[tokio::test]
async fn without_providers_a_profile_is_refused() {
    let (world, _kubelet, driver) = World::registered().await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[json!({ "profile": "pool" })]));
    let answers = driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap();
    let error = answers["c1"].clone().unwrap_err();
    assert!(error.ends_with("it is not known yet whom to ask for profile \"pool\""), "{error}");
}
