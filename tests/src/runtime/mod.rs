//! Stub, until the runtime is there.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Options {}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodSandbox {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub netns: Option<PathBuf>,
    pub pid: u32,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no runtime yet")]
pub struct HookError;

#[derive(Debug)]
pub struct Runtime {}

impl Runtime {
    pub fn start(_socket: &Path, _options: Options) -> io::Result<Self> {
        Ok(Self {})
    }

    pub fn wait_for_plugin(&self, _limit: Duration) -> bool {
        false
    }

    pub fn run_pod_sandbox(&self, _sandbox: &PodSandbox) -> Result<Duration, HookError> {
        Err(HookError)
    }

    pub fn stop_pod_sandbox(&self, _id: &str) -> Result<Duration, HookError> {
        Err(HookError)
    }

    pub fn remove_pod_sandbox(&self, _id: &str) -> Result<Duration, HookError> {
        Err(HookError)
    }
}
