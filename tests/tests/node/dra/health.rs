//! What kubelet hears of the devices' health, over the real socket.

use std::sync::Arc;

use driver::model::{Ahead, Device, IfIndex, LinkSight, NetnsId, NetnsRef, Phase, Record, Vitals};
use driver::telemetry::Sighting;
use tests::kubelet::{DeviceState, HealthVersion, HealthWatch, Kubelet};

use super::{DRIVER, PATIENCE, World, claim_ref, device, eventually, record};

fn attached() -> Record {
    let netns = NetnsRef { path: "/run/netns/a".into(), id: NetnsId { device: 4, inode: 9 } };
    let phase = Phase::Attached { netns, inside: IfIndex(2) };
    Record { phase, ..record(claim_ref("nics", "c1"), device("eth1")) }
}

/// Health and message of a device.
fn said(watch: &HealthWatch, device: &str) -> Option<(&'static str, String)> {
    let believed = watch.believed();
    let state = believed.get(&("node-a".to_owned(), device.to_owned()))?;
    let DeviceState { health, message } = state.clone();
    Some((health, message))
}

async fn says(watch: &HealthWatch, device: &str, health: &str, message: &str) {
    let expected =
        || said(watch, device).is_some_and(|said| said.0 == health && said.1.contains(message));
    eventually(&format!("{device} is {health}: {message}"), expected).await;
}

#[tokio::test]
async fn both_versions_tell_of_every_device_and_of_every_change() {
    for version in [HealthVersion::V1, HealthVersion::V1Alpha1] {
        let (world, _kubelet, driver) = World::registered().await;
        assert!(driver.serves(version.name()), "{version:?} is not registered");
        let watch = driver.watch_health(version).await.unwrap();
        says(&watch, "eth1", "Healthy", "").await;
        says(&watch, "eth2", "Healthy", "").await;

        let unplugged = Device { state: "down".to_owned(), ..device("eth1") };
        world.devices.send_replace(Arc::new(vec![unplugged, device("eth2")]));

        says(&watch, "eth1", "Unhealthy", "no carrier").await;
        assert_eq!(said(&watch, "eth2"), Some(("Healthy", String::new())), "the list is whole");
    }
}

#[tokio::test]
async fn a_device_in_a_pod_is_as_the_look_into_the_pod_shows() {
    let (world, _kubelet, driver) = World::registered().await;
    let watch = driver.watch_health(HealthVersion::V1).await.unwrap();
    let attached = attached();
    world.devices.send_replace(Arc::new(vec![device("eth2")]));
    world.records.send_replace(Arc::new(vec![attached.clone()]));
    says(&watch, "eth1", "Unknown", "nobody has looked").await;

    let vitals = |link, is_whole| {
        let vitals = Vitals { link: Some(link), is_whole: Some(is_whole) };
        world.vitals.send_replace(Arc::new([(attached.id(), vitals)].into()));
    };
    vitals(LinkSight::Up, true);
    says(&watch, "eth1", "Healthy", "").await;
    vitals(LinkSight::NoCarrier, true);
    says(&watch, "eth1", "Unhealthy", "no carrier").await;
    vitals(LinkSight::Up, false);
    says(&watch, "eth1", "Unhealthy", "datapath is not whole").await;
    vitals(LinkSight::Up, true);
    says(&watch, "eth1", "Healthy", "").await;

    let ahead = Ahead { ingress: Some(vec!["spy".to_owned()]), ..Ahead::NOTHING };
    let sighting = Sighting { ahead, since: std::time::SystemTime::UNIX_EPOCH };
    world.sightings.send_replace(Arc::new([(attached.id(), sighting)].into()));
    says(&watch, "eth1", "Unhealthy", "spy").await;

    // Its driver is unbound: neither the pod has it nor the host.
    let prepared = Record { phase: Phase::Prepared, ..attached.clone() };
    world.sightings.send_replace(Arc::default());
    world.records.send_replace(Arc::new(vec![prepared]));
    says(&watch, "eth1", "Unhealthy", "nowhere").await;
}

#[tokio::test]
async fn the_stream_ends_with_the_driver_and_holds_nothing_up() {
    let (world, kubelet, driver) = World::registered().await;
    let watch = driver.watch_health(HealthVersion::V1).await.unwrap();
    says(&watch, "eth1", "Healthy", "").await;
    world.shutdown.cancel();
    world.served.await.unwrap().unwrap();
    eventually("the stream has ended", || watch.has_ended()).await;
    assert_eq!(watch.believed().len(), 0);
    drop((kubelet, driver));
}

#[tokio::test]
async fn a_stream_that_breaks_can_be_opened_again() {
    let world = World::start(std::time::Duration::ZERO);
    let kubelet = Kubelet::start(world.root.path()).unwrap();
    let driver = kubelet.wait_for_driver(DRIVER, PATIENCE).await.unwrap();
    drop(driver.watch_health(HealthVersion::V1).await.unwrap());
    let again = driver.watch_health(HealthVersion::V1).await.unwrap();
    says(&again, "eth1", "Healthy", "").await;
}
