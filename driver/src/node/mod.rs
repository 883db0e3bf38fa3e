//! The node, as far as attaching needs it: the one port behind which privileges begin.

mod linux;

pub use self::linux::LinuxNode;

use crate::plan::{Observed, Step, Subject, Was};

/// Two verbs on purpose. Everything that can be decided is decided from an [`Observed`] by pure
/// code; everything that must be done is a [`Step`], which can be logged, stored and compared.
///
/// `LinuxNode` is the real one; `testing::FakeNode` models what kernel tests have shown to be true.
pub trait Node {
    /// What is there now. Changes nothing.
    fn observe(&mut self, subject: &Subject) -> Result<Observed, StepError>;

    /// Makes one change and tells what it replaced, so that the change can be undone.
    ///
    /// Applying a step whose result is already there succeeds and reports [`Was::Same`].
    fn apply(&mut self, step: &Step) -> Result<Was, StepError>;

    /// The same for a thread of its own. Only for [`Step::SetVfCount`], which may keep the kernel busy
    /// for seconds, and touches what no other step is about at the same time.
    fn errand(&self, step: &Step) -> Errand;

    /// Lets go of what was kept open to make the next call quicker, such as a socket in a pod's
    /// namespace, which keeps that namespace alive. Called when a command has come to its end.
    fn rest(&mut self) {}
}

/// A change that is made by whoever calls it.
pub type Errand = Box<dyn FnOnce() -> Result<Was, StepError> + Send>;

/// Why the node could not do or show something. Carries the cause's text: the executor only ever
/// logs it, records it or passes it on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// The cause with all its own causes, `: ` between them.
    pub message: String,
}
