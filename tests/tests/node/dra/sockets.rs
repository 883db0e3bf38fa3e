//! How kubelet finds the plugin, and how the sockets come and go.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use driver::dra::{registration_path, service_path};
use tests::kubelet::{Kubelet, Service};

use super::{DRIVER, PATIENCE, World, claim, claim_ref, eventually};

#[tokio::test]
async fn kubelet_registers_the_newest_service_and_says_so() {
    let (mut world, _kubelet, driver) = World::registered().await;
    assert_eq!((driver.name(), driver.service()), (DRIVER, Service::V1));
    world.registered.wait_for(|registered| *registered).await.unwrap();
}

#[tokio::test]
async fn a_refused_registration_is_noticed() {
    let world = World::start(Duration::ZERO);
    let kubelet = Kubelet::start_knowing(world.root.path(), &[]).unwrap();
    let error = kubelet.wait_for_driver(DRIVER, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.to_string(), "driver weir.dev is not registered, these are: []");
    assert!(!*world.registered.borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_is_there_before_its_registration_and_both_are_for_root_only() {
    let world = World::start(Duration::ZERO);
    let registration = registration_path(world.root.path(), DRIVER);
    let service = service_path(world.root.path(), DRIVER);
    while !registration.exists() {
        std::thread::yield_now();
    }
    UnixStream::connect(&service).expect("the service serves when the registration appears");
    UnixStream::connect(&registration).expect("the registration serves when it appears");
    for (path, mode) in [
        (registration.as_path(), 0o600),
        (service.as_path(), 0o600),
        (registration.parent().unwrap(), 0o750),
        (service.parent().unwrap(), 0o750),
    ] {
        let found = fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{} has mode {found:o}", path.display());
    }
}

#[tokio::test]
async fn sockets_that_somebody_removed_come_back() {
    let (world, kubelet, driver) = World::registered().await;
    drop(driver);
    fs::remove_dir_all(world.root.path().join("plugins_registry")).unwrap();
    fs::remove_dir_all(world.root.path().join("plugins")).unwrap();
    eventually("kubelet misses the driver", || kubelet.driver(DRIVER).is_none()).await;

    let driver = kubelet.wait_for_driver(DRIVER, PATIENCE).await.unwrap();

    world.api.add_claim(claim("nics", "c1", &["eth1"], &[]));
    assert!(driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap()["c1"].is_ok());
}

#[tokio::test]
async fn nothing_is_left_when_the_driver_stops() {
    let (world, kubelet, _driver) = World::registered().await;
    world.shutdown.cancel();
    world.served.await.unwrap().unwrap();
    assert!(!registration_path(world.root.path(), DRIVER).exists());
    assert!(!service_path(world.root.path(), DRIVER).exists());
    eventually("kubelet forgets the driver", || kubelet.driver(DRIVER).is_none()).await;
}

#[tokio::test]
async fn stale_sockets_of_a_killed_driver_are_no_obstacle() {
    let (world, kubelet, driver) = World::registered().await;
    world.served.abort();
    let again = World::start_in(world.root, Duration::ZERO);
    again.api.add_claim(claim("nics", "c9", &["eth1"], &[]));
    drop(driver);

    // Kubelet holds on to the first instance until it sees the second one's socket.
    let nics = [claim_ref("nics", "c9")];
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Some(driver) = kubelet.driver(DRIVER) else { continue };
        if driver.prepare(&nics).await.is_ok_and(|answers| answers["c9"].is_ok()) {
            return;
        }
    }
    panic!("kubelet never came to the second instance");
}
