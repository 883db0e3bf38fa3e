//! What kubelet is answered when it asks to prepare and to unprepare.

use std::time::Duration;

use driver::dra::proto::v1::dra_plugin_client::DraPluginClient;
use driver::dra::proto::v1::{Claim, NodePrepareResourcesRequest};
use driver::dra::service_path;
use serde_json::json;
use tests::kubelet::{PreparedDevice, Service};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::{DRIVER, World, claim, claim_ref, eventually};

fn prepared(request: &str, device: &str) -> PreparedDevice {
    PreparedDevice {
        requests: vec![request.to_owned()],
        pool: "node-a".to_owned(),
        device: device.to_owned(),
        cdi_device_ids: vec![format!("{DRIVER}/nic=c1-{device}")],
        share_id: None,
    }
}

#[tokio::test]
async fn both_versions_of_the_service_prepare_and_unprepare() {
    for service in [Service::V1, Service::V1Beta1] {
        let (world, _kubelet, driver) = World::registered_with(&[service]).await;
        assert_eq!(driver.service(), service);
        world.api.add_claim(claim("nics", "c1", &["eth1", "eth2"], &[]));
        let nics = [claim_ref("nics", "c1")];

        let answers = driver.prepare(&nics).await.unwrap();

        assert_eq!(answers["c1"], Ok(vec![prepared("r0", "eth1"), prepared("r1", "eth2")]));
        assert_eq!(world.worker.records().len(), 2);
        assert_eq!(driver.unprepare(&nics).await.unwrap()["c1"], Ok(()));
        assert_eq!(world.worker.records().len(), 0);
    }
}

#[tokio::test]
async fn each_claim_has_its_own_answer() {
    let (world, _kubelet, driver) = World::registered().await;
    world.api.add_claim(claim("good", "c1", &["eth1"], &[]));
    world.api.add_claim(claim("renewed", "c2b", &["eth2"], &[]));
    world.api.add_claim(claim("taken", "c4", &["busy"], &[]));
    let mut foreign = claim("foreign", "c5", &["gpu-0"], &[]);
    foreign["status"]["allocation"]["devices"]["results"][0]["driver"] = json!("gpu.example.com");
    world.api.add_claim(foreign);
    let mut shared = claim("shared", "c6", &["eth2"], &[]);
    let pod = json!({"resource": "pods", "name": "pod-b", "uid": "0b"});
    shared["status"]["reservedFor"].as_array_mut().unwrap().push(pod);
    world.api.add_claim(shared);
    let names = ["good", "renewed", "missing", "taken", "foreign", "shared"];
    let claims: Vec<_> =
        names.iter().zip(1..).map(|(name, n)| claim_ref(name, &format!("c{n}"))).collect();

    let answers = driver.prepare(&claims).await.unwrap();

    assert_eq!(answers["c1"], Ok(vec![prepared("r0", "eth1")]));
    let error = |uid: &str| answers[uid].clone().unwrap_err();
    assert_eq!(error("c2"), "claim default/renewed has the UID c2b now, c2 was asked for");
    assert_eq!(error("c3"), "fetch claim default/missing: no such claim (404 Test)");
    assert_eq!(
        error("c4"),
        "claim default/taken: device busy is in use by claim default/other (f0)"
    );
    assert_eq!(answers["c5"], Ok(vec![]), "another driver's devices are not ours to prepare");
    assert_eq!(
        error("c6"),
        "claim default/shared is reserved for 2 consumers, it must be exactly one pod: \
         give each pod a claim of its own, by a ResourceClaimTemplate"
    );
}

#[tokio::test]
async fn a_malformed_configuration_is_told_with_all_its_problems() {
    let (world, _kubelet, driver) = World::registered().await;
    let config = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": {"mtu": 1, "name": "far-too-long-a-name"}, "nonsense": true,
    });
    world.api.add_claim(claim("nics", "c1", &["eth1", "eth2"], &[config]));

    let answers = driver.prepare(&[claim_ref("nics", "c1")]).await.unwrap();

    let error = answers["c1"].clone().unwrap_err();
    for part in ["device eth1", "device eth2", "interface.mtu: ", "interface.name: ", "nonsense: "]
    {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(world.worker.records().len(), 0, "nothing was prepared");
}

#[tokio::test]
async fn prepare_refuses_while_the_runtime_is_away() {
    let (world, _kubelet, driver) = World::registered().await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[]));
    let nics = [claim_ref("nics", "c1")];
    world.runtime.send_replace(false);

    let refused = driver.prepare(&nics).await.unwrap();

    assert_eq!(
        refused["c1"].clone().unwrap_err(),
        "the container runtime's NRI connection is down, a pod started now would miss its device"
    );
    assert_eq!(driver.unprepare(&nics).await.unwrap()["c1"], Ok(()), "a pod can always end");
    world.runtime.send_replace(true);
    assert!(driver.prepare(&nics).await.unwrap()["c1"].is_ok());
}

#[tokio::test]
async fn asked_again_the_answer_is_the_same() {
    let (world, _kubelet, driver) = World::registered().await;
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[]));
    let nics = [claim_ref("nics", "c1")];

    let first = driver.prepare(&nics).await.unwrap();

    assert_eq!(driver.prepare(&nics).await.unwrap(), first);
    assert_eq!(world.worker.records().len(), 1);
}

#[tokio::test]
async fn a_claim_that_nobody_knows_is_unprepared() {
    let (world, _kubelet, driver) = World::registered().await;
    let answers = driver.unprepare(&[claim_ref("gone", "c1"), claim_ref("gone-too", "c2")]).await;
    assert!(answers.unwrap().values().all(Result::is_ok));
    assert_eq!(world.api.requests(), [""; 0], "the claim may be gone, so nobody asks for it");
}

#[tokio::test]
async fn work_that_kubelet_gave_up_on_is_finished() {
    let world = World::start(Duration::from_millis(300));
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[]));
    let path = service_path(world.root.path(), DRIVER);
    eventually("the service listens", || path.exists()).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let mut client = DraPluginClient::new(endpoint.connect().await.unwrap());
    let nics =
        Claim { namespace: "default".to_owned(), uid: "c1".to_owned(), name: "nics".to_owned() };
    let mut request = Request::new(NodePrepareResourcesRequest { claims: vec![nics] });
    request.set_timeout(Duration::from_millis(100));

    let status = client.node_prepare_resources(request).await.unwrap_err();

    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    eventually("the claim is prepared", || world.worker.records().len() == 1).await;
}

/// Sends and receives bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

/// Written out by hand from the field numbers of Kubernetes' api.proto, so that a slip in our
/// transcription cannot hide behind itself. Each field is its number, wire type 2 and its length.
#[tokio::test]
async fn the_bytes_on_the_wire_are_kubelets() {
    let world = World::start(Duration::ZERO);
    world.api.add_claim(claim("nics", "c1", &["eth1"], &[]));
    let path = service_path(world.root.path(), DRIVER);
    eventually("the service listens", || path.exists()).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();

    // claims=1 { namespace=1 "default", uid=2 "c1", name=3 "nics" }
    let request = b"\x0a\x13\x0a\x07default\x12\x02c1\x1a\x04nics";
    // claims=1 { key=1 "c1", value=2 { devices=1 {
    //     request_names=1 "r0", pool_name=2 "node-a", device_name=3 "eth1",
    //     cdi_device_ids=4 "weir.dev/nic=c1-eth1" } } }
    let response = b"\x0a\x30\x0a\x02c1\x12\x2a\x0a\x28\x0a\x02r0\x12\x06node-a\x1a\x04eth1\
        \x22\x14weir.dev/nic=c1-eth1";

    for version in ["v1", "v1beta1"] {
        let method =
            format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin/NodePrepareResources");
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let answer =
            client.unary(Request::new(request.to_vec()), method.parse().unwrap(), Raw).await;
        assert_eq!(answer.unwrap().into_inner(), response.as_slice(), "{version}");
    }
}
