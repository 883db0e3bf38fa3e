//! A client of the Container Runtime Interface: what kubelet asks a runtime for a pod.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use self::proto::runtime_service_client::RuntimeServiceClient;
use self::proto::{
    CdiDevice, ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest,
    ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest, VersionRequest,
};

/// The messages, generated from `proto/cri.proto`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
mod proto {
    tonic::include_proto!("runtime.v1");
}

/// How long a call may take. Kubelet gives it two minutes (`--runtime-request-timeout`).
const DEADLINE: Duration = Duration::from_mins(2);

/// How long a command in a container may take, also in an emulated machine.
const EXEC_SECONDS: i64 = 100;

/// A connection to a runtime. Calls wait for their answers.
#[derive(Debug)]
pub struct Cri {
    client: RuntimeServiceClient<Channel>,
    handle: Handle,
}

/// A sandbox that runs.
#[derive(Debug)]
pub struct Pod {
    pub id: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// Connects to `socket`; the tasks of the connection run on `handle`.
    pub fn connect(socket: &Path, handle: Handle) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = handle.block_on(endpoint.timeout(DEADLINE).connect());
        let channel = channel.with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self { client: RuntimeServiceClient::new(channel), handle })
    }

    /// The runtime's name and version.
    pub fn version(&self) -> Result<String, Status> {
        let request = VersionRequest::default();
        let answer = self.wait(async |client| client.version(request).await)?;
        Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    }

    /// Makes a sandbox for a pod, its `attempt`th, counted from 0.
    ///
    /// # Errors
    ///
    /// What the runtime answers; it has removed the sandbox then.
    pub fn run(&self, name: &str, uid: &str, attempt: u32) -> Result<Pod, Status> {
        let options = NamespaceOption { pid: NamespaceMode::Container.into() };
        let context = LinuxSandboxSecurityContext { namespace_options: Some(options) };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: "default".to_owned(),
                attempt,
            }),
            hostname: name.to_owned(),
            log_directory: "/run/pod-logs".to_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/pod{uid}"),
                security_context: Some(context),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let answer = self.wait(async |client| client.run_pod_sandbox(request).await)?;
        Ok(Pod { id: answer.pod_sandbox_id, config })
    }

    /// Makes a container that does nothing, with these CDI devices, and answers its id.
    pub fn create(&self, pod: &Pod, name: &str, cdi_ids: &[String]) -> Result<String, Status> {
        self.create_with(pod, name, cdi_ids, &[])
    }

    /// As [`Self::create`], for a container that can read these folders, each in its place.
    pub fn create_with(
        &self,
        pod: &Pod,
        name: &str,
        cdi_ids: &[String],
        folders: &[&Path],
    ) -> Result<String, Status> {
        let mount = |folder: &&Path| {
            let path = folder.display().to_string();
            Mount { container_path: path.clone(), host_path: path, readonly: true }
        };
        let device = |id: &String| CdiDevice { name: id.clone() };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: "localhost/busybox:1".to_owned() }),
            command: ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec(),
            mounts: folders.iter().map(mount).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {}),
            cdi_devices: cdi_ids.iter().map(device).collect(),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        Ok(self.wait(async |client| client.create_container(request).await)?.container_id)
    }

    pub fn start(&self, container: &str) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: container.to_owned() };
        self.wait(async |client| client.start_container(request).await).map(drop)
    }

    /// Runs a command in a container and answers what it wrote.
    ///
    /// # Errors
    ///
    /// Also when the command fails.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout: EXEC_SECONDS,
        };
        let answer = self.wait(async |client| client.exec_sync(request).await)?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        anyhow::ensure!(answer.exit_code == 0, "{command:?}: {}", said(&answer.stderr));
        Ok(said(&answer.stdout))
    }

    /// Ends a sandbox with its containers, and removes it.
    pub fn remove(&self, pod: &Pod) -> Result<(), Status> {
        self.stop(pod)?;
        let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.wait(async |client| client.remove_pod_sandbox(request).await).map(drop)
    }

    /// Ends a sandbox with its containers.
    pub fn stop(&self, pod: &Pod) -> Result<(), Status> {
        let request = StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.wait(async |client| client.stop_pod_sandbox(request).await).map(drop)
    }

    fn wait<T>(
        &self,
        call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut client = self.client.clone();
        Ok(self.handle.block_on(call(&mut client))?.into_inner())
    }
}
