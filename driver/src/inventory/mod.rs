//! Stands in for the inventory until that is merged.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::Device;

/// What is on the node.
#[derive(Clone, Debug)]
pub struct Inventory {
    devices: Arc<watch::Sender<Arc<Vec<Device>>>>,
}

impl Inventory {
    pub fn fixed(devices: Vec<Device>) -> Self {
        Self { devices: Arc::new(watch::Sender::new(Arc::new(devices))) }
    }

    pub fn devices(&self) -> Arc<Vec<Device>> {
        Arc::clone(&self.devices.borrow())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Device>>> {
        self.devices.subscribe()
    }

    pub fn rescan(&self) {}
}
