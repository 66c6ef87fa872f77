//! Rollouts: a service goes from one revision to the next, some tasks at a time, by their health.
//!
//! Nodes keep the tasks in [`Rollout::updated`] as the wanted stack says, and the others as they were
//! ([`crate::assignment::parts`]). Here is decided which tasks are let go on, when, and whether to
//! stop or to go back: [`begin`] when a stack is changed, [`step`] whenever something was seen. Who
//! decides may die at any moment, so all that counts is in the [`Rollout`]; a successor only watches
//! for as long as [`Memory`] covers once more.
//!
//! Two objects have to agree, the stack and its assignments, and they arrive one after the other. As
//! long as they do not, nodes leave the service's containers as they are. So assignments are written
//! first, then the stack.

mod back;
mod begin;
mod observe;
mod pace;
mod status;
mod step;
mod versions;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use begin::begin;
pub use observe::{Memory, Observed};
pub use status::{Refused, Status, pause, resume, status, undo};
pub use step::{Step, step};
pub(crate) use versions::{graft, revision};

use crate::heal::Millis;
use crate::wanted::Stack;

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// What the tasks that were not updated yet are kept as. The first is what last ran as a whole;
    /// there are more if the service was changed again before all tasks were updated. Empty once the
    /// rollout is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Version>,
    /// Revision that the tasks come from; of several the last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Revision that the tasks go to ([`crate::shared::revision`]).
    pub revision: String,
    /// Tasks that are to be of that revision by now. Empty once the rollout is over: all are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub updated: BTreeSet<u32>,
    /// Those of them that were let go on last: the next wait for them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub group: BTreeSet<u32>,
    /// Those of them that are not waited for: their node was away for too long.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skipped: BTreeSet<u32>,
    /// Those of them that are known to have failed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failed: BTreeSet<u32>,
    /// State.
    pub phase: Phase,
    /// Why the former revision comes back, if it does: also while that is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<String>,
    /// What is to be wanted again, until the stack was seen to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<Stack>>,
    /// When the rollout began, in milliseconds since 1970.
    pub began: Millis,
    /// When tasks were let go on last, in milliseconds since 1970.
    pub stepped: Millis,
}

/// A definition of a service that some of its tasks are still kept as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Revision of the service.
    pub revision: String,
    /// The stack: only the service itself is in it, with what it refers to.
    pub stack: Box<Stack>,
    /// Tasks that are of it. What stands in no version is of the one that last ran as a whole: the
    /// first, or, on the way back, the one that comes back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tasks: BTreeSet<u32>,
}

/// State of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "why")]
pub enum Phase {
    /// It goes on.
    Updating,
    /// It waits for somebody: why.
    Paused(String),
    /// The former revision comes back: why.
    RollingBack(String),
    /// All tasks were updated.
    Completed,
    /// The former revision is back: why.
    RolledBack(String),
}

impl Rollout {
    fn new(from: String, revision: String, now: Millis) -> Self {
        Self {
            before: Vec::new(),
            from,
            revision,
            updated: BTreeSet::new(),
            group: BTreeSet::new(),
            skipped: BTreeSet::new(),
            failed: BTreeSet::new(),
            phase: Phase::Updating,
            back: None,
            restore: None,
            began: now,
            stepped: now,
        }
    }

    /// Whether it has come to its end: all tasks are of one revision.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Completed | Phase::RolledBack(_))
    }

    /// The version that a task is kept at; none if it was updated.
    #[must_use]
    pub fn held(&self, number: u32) -> Option<&Version> {
        if self.is_over() || self.updated.contains(&number) {
            return None;
        }
        let mut versions = self.before.iter();
        let of = versions.find(|v| v.tasks.contains(&number));
        let whole = || self.before.first().filter(|_| self.back.is_none());
        of.or_else(whole)
    }

    /// The versions that tasks are kept at, each with all of its tasks.
    fn split(&self, tasks: &BTreeSet<u32>) -> Vec<Version> {
        let of = |version: &Version| {
            let kept = |n: &&u32| self.held(**n).is_some_and(|v| std::ptr::eq(v, version));
            Version {
                tasks: tasks.iter().filter(kept).copied().collect(),
                ..version.clone()
            }
        };
        self.before.iter().map(of).collect()
    }

    /// The phase of a rollout that goes on.
    fn going(&self) -> Phase {
        let back = self.back.clone();
        back.map_or(Phase::Updating, Phase::RollingBack)
    }
}
