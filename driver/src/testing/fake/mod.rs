//! A model of the kernel, as far as attaching touches it.
//!
//! It knows what the kernel ring has shown to be true: a move takes the link down and loses its
//! addresses, routes, neighbours, settings of the network stack and filters, going down loses routes
//! and neighbours, a name is taken only once, an untrusted virtual function keeps the address that its
//! physical one was told (`igb_set_vf_mac_addr()` in `igb_main.c`, Linux 6.12; with other drivers, which
//! never take it back, it may have that one: `bnx2x_set_vf_mac()`), an RDMA device that is
//! not shared is in one namespace, falls back to the host, and gets its files anew with each move under
//! the lowest numbers that are free (`rdma_dev_change_netns()` in `drivers/infiniband/core/device.c` and
//! `ib_uverbs_add_one()` in `uverbs_main.c`), a route needs its link up, links of programs and what
//! ethtool sets stay with an interface wherever it goes. Teach it something new only together with a
//! test against the real kernel.

mod apply;
mod function;
mod world;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use self::function::{FakeRdma, FakeVf};
pub use self::world::{FakeInterface, World};
use crate::model::NetnsId;
use crate::node::{Errand, Node, StepError};
use crate::plan::{Observed, Step, Subject, Was};

/// What goes wrong, and when: steps are counted from 0 over the node's whole life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The step fails, nothing changed.
    FailAt(usize),
    /// The step fails, but has changed what it should: of several links that it replaces, say, all
    /// but the last.
    FailAfter(usize),
    /// The driver dies before the step.
    DieBefore(usize),
    /// The driver dies after the step, before it learns of it.
    DieAfter(usize),
}

/// A handle to a [`World`], shared so that it outlives the driver that works on it.
#[derive(Clone, Debug)]
pub struct FakeNode {
    world: Arc<Mutex<World>>,
    fault: Option<Fault>,
    applied: usize,
    /// Whether errands have to wait, and where they do.
    errands: Arc<(Mutex<bool>, Condvar)>,
}

impl FakeNode {
    /// A host with these interfaces, up, with two addresses, a route and more each, and no pods.
    pub fn with(names: &[&str]) -> Self {
        let world = World::with(names);
        let world = Arc::new(Mutex::new(world));
        Self { world, fault: None, applied: 0, errands: Arc::default() }
    }

    /// The same world for a driver that is to meet `fault`.
    #[must_use]
    pub fn meeting(&self, fault: Option<Fault>) -> Self {
        Self { fault, applied: 0, ..self.clone() }
    }

    /// How many steps this driver has had applied.
    pub fn applied(&self) -> usize {
        self.applied
    }

    /// Lets no errand go on until it is told otherwise.
    pub fn hold_errands(&self, is_held: bool) {
        *self.errands.0.lock().unwrap_or_else(PoisonError::into_inner) = is_held;
        self.errands.1.notify_all();
    }

    /// Makes the namespace of a sandbox.
    pub fn add_netns(&self, id: NetnsId) {
        self.world().interfaces.entry(Some(id)).or_default();
    }

    /// Ends a namespace. Hardware falls back to the host, other interfaces end with it; datapaths
    /// stay behind, severed.
    pub fn remove_netns(&self, id: NetnsId) {
        self.world().remove_netns(id);
    }

    pub fn snapshot(&self) -> World {
        self.world().clone()
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        // A driver that was made to die has left the world as it was, which is the point.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a step; fails or ends the thread when its time has come.
    fn tick(&mut self, moment: fn(usize) -> Fault) -> Result<(), StepError> {
        if self.fault != Some(moment(self.applied)) {
            return Ok(());
        }
        match self.fault.take() {
            Some(Fault::FailAt(at) | Fault::FailAfter(at)) => {
                Err(error(format!("injected fault at step {at}")))
            }
            _ => std::panic::panic_any(Death),
        }
    }
}

/// What a thread that met [`Fault::DieBefore`] or [`Fault::DieAfter`] panics with.
#[derive(Clone, Copy, Debug)]
pub struct Death;

impl Node for FakeNode {
    fn observe(&mut self, subject: &Subject) -> Result<Observed, StepError> {
        self.world().observe(subject)
    }

    fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        if self.world().is_written(step) {
            return Ok(Was::Same);
        }
        self.tick(Fault::FailAt)?;
        self.tick(Fault::DieBefore)?;
        let was = self.world().apply(step)?;
        self.tick(Fault::DieAfter)?;
        self.tick(Fault::FailAfter)?;
        self.applied += 1;
        Ok(was)
    }

    fn errand(&self, step: &Step) -> Errand {
        let (mut node, step) = (self.clone(), step.clone());
        Box::new(move || {
            let held = node.errands.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(node.errands.1.wait_while(held, |is_held| *is_held));
            node.apply(&step)
        })
    }
}

fn error(message: String) -> StepError {
    StepError { message }
}
