//! Carries plans out: all or nothing on the way in, as much as possible on the way out.

use std::time::Instant;

use crate::node::{Node, StepError};
use crate::plan::Step;

/// What was done, newest last: enough to take it back.
#[derive(Debug, Default)]
pub(super) struct Done {
    undo: Vec<Step>,
}

/// A step could not be undone, and why.
#[derive(Clone, Debug)]
pub(super) struct Residue {
    pub(super) step: Step,
    pub(super) error: StepError,
}

/// Why a plan stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    Failed { step: Box<Step>, source: StepError },
    OutOfTime { step: Box<Step> },
}

/// Applies `steps` in order and notes in `done` how to take each back. Stops at the first failure,
/// and before a step once `deadline` has passed; what was done until then is left to the caller.
pub(super) fn execute(
    node: &mut impl Node,
    steps: &[Step],
    deadline: Option<Instant>,
    done: &mut Done,
) -> Result<(), Stopped> {
    for step in steps {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Stopped::OutOfTime { step: Box::new(step.clone()) });
        }
        match node.apply(step) {
            Ok(was) => {
                tracing::debug!(%step, ?was, "applied");
                done.undo.extend(step.undo(&was));
            }
            Err(source) => return Err(Stopped::Failed { step: Box::new(step.clone()), source }),
        }
    }
    Ok(())
}

/// Takes everything back, newest first. Never stops early: a step that cannot be undone is
/// answered as residue, and those before it are still tried.
pub(super) fn roll_back(node: &mut impl Node, done: Done) -> Vec<Residue> {
    try_all(node, done.undo.into_iter().rev())
}

/// Applies all steps, whichever fail. What comes after a failed move is about an interface that is
/// not there, so it fails as well and is residue too.
pub(super) fn try_all(node: &mut impl Node, steps: impl IntoIterator<Item = Step>) -> Vec<Residue> {
    steps
        .into_iter()
        .filter_map(|step| match node.apply(&step) {
            Ok(was) => {
                tracing::debug!(%step, ?was, "applied");
                None
            }
            Err(error) => {
                tracing::error!(%step, %error, "left behind");
                Some(Residue { step, error })
            }
        })
        .collect()
}

impl std::fmt::Display for Residue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.step, self.error)
    }
}
