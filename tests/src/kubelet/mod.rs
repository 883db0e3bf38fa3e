//! Stub, until kubelet is there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use driver::model::ClaimRef;

#[derive(Debug, thiserror::Error)]
#[error("there is no kubelet yet")]
pub struct DriverError;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PreparedDevice {
    pub requests: Vec<String>,
    pub pool: String,
    pub device: String,
    pub cdi_device_ids: Vec<String>,
}

pub type Answers<T> = BTreeMap<String, Result<T, String>>;

#[derive(Clone, Debug)]
pub struct Driver {}

#[derive(Debug)]
pub struct Kubelet {}

#[expect(clippy::unused_async, reason = "a stub")]
impl Driver {
    pub async fn prepare(
        &self,
        _claims: &[ClaimRef],
    ) -> Result<Answers<Vec<PreparedDevice>>, DriverError> {
        Err(DriverError)
    }

    pub async fn unprepare(&self, _claims: &[ClaimRef]) -> Result<Answers<()>, DriverError> {
        Err(DriverError)
    }
}

#[expect(clippy::unused_async, reason = "a stub")]
impl Kubelet {
    pub fn start(_root: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    pub async fn wait_for_driver(
        &self,
        _name: &str,
        _limit: Duration,
    ) -> Result<Driver, DriverError> {
        Err(DriverError)
    }
}
