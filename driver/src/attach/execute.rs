//! Carries plans out: all or nothing on the way in, as much as possible on the way out.

use std::time::Instant;

use crate::model::Dad;
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
            Err(source) => {
                if let Step::RemoveAddress { at, address } = step {
                    // It may be gone all the same, and must not come back after its secondaries.
                    let (at, address) = (at.clone(), *address);
                    done.undo.push(Step::AddAddress { at, address, dad: Dad::Skip });
                }
                return Err(Stopped::Failed { step: Box::new(step.clone()), source });
            }
        }
    }
    Ok(())
}

/// Takes everything back, newest first. Never stops early: a step that cannot be undone is
/// answered as residue, and those before it are still tried.
pub(super) fn roll_back(node: &mut impl Node, done: Done) -> Vec<Residue> {
    put_back(node, done.undo.into_iter().rev())
}

/// Applies all steps of a way back, whichever fail, and tries each that fails once more: the reason
/// may be gone by then, such as a device that was busy. At once, because the order means something:
/// the first address of a network is its primary one.
pub(super) fn put_back(
    node: &mut impl Node,
    steps: impl IntoIterator<Item = Step>,
) -> Vec<Residue> {
    let mut failed = Vec::new();
    for step in steps {
        let first = try_each(node, [step]);
        failed.extend(try_each(node, first.into_iter().map(|residue| residue.step)));
    }
    told(failed)
}

/// Applies a step that may be refused, for which there is another way; twice, as [`put_back`] does.
pub(super) fn is_taken(node: &mut impl Node, step: &Step) -> bool {
    (0..2).any(|_| match node.apply(step) {
        Ok(was) => {
            tracing::debug!(%step, ?was, "applied");
            true
        }
        Err(error) => {
            tracing::debug!(%step, %error, "refused");
            false
        }
    })
}

/// Applies all steps, whichever fail. What comes after a failed move is about an interface that is
/// not there, so it fails as well and is residue too.
pub(super) fn try_all(node: &mut impl Node, steps: impl IntoIterator<Item = Step>) -> Vec<Residue> {
    told(try_each(node, steps))
}

fn told(failed: Vec<Residue>) -> Vec<Residue> {
    for Residue { step, error } in &failed {
        tracing::error!(%step, %error, "left behind");
    }
    failed
}

fn try_each(node: &mut impl Node, steps: impl IntoIterator<Item = Step>) -> Vec<Residue> {
    let mut failed = Vec::new();
    for step in steps {
        match node.apply(&step) {
            Ok(was) => tracing::debug!(%step, ?was, "applied"),
            Err(error) => failed.push(Residue { step, error }),
        }
    }
    failed
}

impl std::fmt::Display for Residue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.step, self.error)
    }
}
