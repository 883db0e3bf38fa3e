//! Containers that are made: on which CPUs they shall run.

use driver::model::{CpuAlignment, Phase, Record};
use driver::testing::record;
use tests::runtime::{Container, ContainerError, Options, Runtime};

use super::world::{World, sandbox};

const CDI_ID: &str = "weir.dev/nic=uid-claim-a-eth1";

/// A device on the second of two nodes, for pod `pod-a`.
fn near(wish: CpuAlignment) -> Record {
    let mut record = record("eth1", None, Phase::Prepared);
    record.requests = vec!["nic".to_owned()];
    record.device.numa_node = Some(1);
    record.device.local_cpus = Some("2-3".parse().unwrap());
    record.wishes.alignment.cpus = wish;
    record
}

/// A directory with the specification of that device, as the driver writes it.
fn specified(record: &Record) -> tempfile::TempDir {
    let spec = driver::plan::cdi([record], 7).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let devices = serde_json::json!([{
        "name": spec.devices[0].name,
        "containerEdits": { "env": spec.devices[0].environment.iter()
            .map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>() },
    }]);
    let file = serde_json::json!({
        "cdiVersion": "0.5.0", "kind": "weir.dev/nic", "devices": devices,
    });
    std::fs::write(directory.path().join("weir.json"), file.to_string()).unwrap();
    directory
}

/// Starts containers of a pod whose device wishes for such an alignment.
async fn started(
    wish: CpuAlignment,
    start: impl Fn(&Runtime, &std::path::Path) -> Result<Container, ContainerError>,
) -> Container {
    let record = near(wish);
    let directory = specified(&record);
    let world = World::settled(Options::default(), vec![record]).await;
    world.runtime.add_running(sandbox("s1", "uid-pod-a"));
    let container = world.tell(|runtime| start(runtime, directory.path()));
    container.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_names_the_claim_runs_near_the_device() {
    let id = [CDI_ID.to_owned()];
    let container =
        started(CpuAlignment::NumaLocal, |it, dir| it.start_container("s1", dir, &id)).await;
    assert_eq!(container.cpus, "2-3");
    let told = ["WEIR_NIC_NUMA_NODE=1", "WEIR_NIC_LOCAL_CPUS=2-3"].map(str::to_owned);
    assert!(told.iter().all(|it| container.environment.contains(it)), "{container:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cpu_manager_has_the_last_word() {
    let id = [CDI_ID.to_owned()];
    let container =
        started(CpuAlignment::NumaLocal, |it, dir| it.start_container_on("0", "s1", dir, &id))
            .await;
    assert_eq!(container.cpus, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_containers_and_other_claims_run_anywhere() {
    let container =
        started(CpuAlignment::NumaLocal, |it, dir| it.start_container("s1", dir, &[])).await;
    assert_eq!(container.cpus, "");
    let id = [CDI_ID.to_owned()];
    let container = started(CpuAlignment::Off, |it, dir| it.start_container("s1", dir, &id)).await;
    assert_eq!(container.cpus, "");
}
