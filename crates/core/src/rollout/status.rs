//! What people ask of a rollout: how it is, to wait, to go on, to go back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::back::back;
use super::observe::NOTHING;
use super::{Observed, Phase, Rollout, Step, revision};
use crate::assignment::Assignment;
use crate::heal::Millis;
use crate::wanted::{Stack, task};

/// Why a rollout cannot be told to do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error(
        "service {0} has no rollout: it has one when `up` changes it and its file has `deploy.update_config`"
    )]
    None(String),
    /// It is over.
    #[error("the rollout of {0} is over: `wharfie undo` brings back what the stack was before")]
    Over(String),
    /// It waits already.
    #[error("the rollout of {service} is paused already: {why}")]
    Paused {
        /// Service.
        service: String,
        /// Why it waits.
        why: String,
    },
    /// It does not wait.
    #[error("the rollout of {0} is not paused: it goes on by itself")]
    NotPaused(String),
    /// It goes back already.
    #[error("the rollout of {service} goes back already: {why}")]
    GoingBack {
        /// Service.
        service: String,
        /// Why it goes back.
        why: String,
    },
    /// The stack was changed, and the rollout does not know yet.
    #[error("service {0} was changed just now: try again in a moment")]
    Changing(String),
}

/// How a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Service.
    pub service: String,
    /// Revision that the tasks come from.
    pub from: String,
    /// Revision that the tasks go to.
    pub to: String,
    /// Number of tasks.
    pub tasks: usize,
    /// Number of those that are to be of the new revision by now.
    pub updated: usize,
    /// Number of those that run well at the new revision.
    pub well: usize,
    /// Tasks that failed at the new revision, with the reason.
    pub failed: BTreeMap<u32, String>,
    /// Tasks whose node is away.
    pub away: Vec<u32>,
    /// State.
    pub phase: Phase,
    /// When it began, in milliseconds since 1970.
    pub began: Millis,
    /// When tasks were let go on last, in milliseconds since 1970.
    pub stepped: Millis,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            tasks,
            updated,
            well,
            ..
        } = self;
        match &self.phase {
            Phase::Updating => write!(f, "{updated} of {tasks} updated, {well} run well"),
            Phase::Paused(why) => write!(f, "paused with {updated} of {tasks} updated: {why}"),
            Phase::RollingBack(why) => {
                write!(f, "goes back, {updated} of {tasks} are: {why}")
            }
            Phase::Completed => write!(f, "all {tasks} updated"),
            Phase::RolledBack(why) => write!(f, "went back: {why}"),
        }
    }
}

/// Keeps a rollout from letting more tasks go on, until it is resumed; `why` is for people to see.
///
/// # Errors
/// [`Refused`]
pub fn pause(service: &str, assignment: &Assignment, why: &str) -> Result<Step, Refused> {
    let rollout = going(service, assignment)?;
    if let Phase::Paused(why) = &rollout.phase {
        return Err(Refused::Paused {
            service: service.to_owned(),
            why: why.clone(),
        });
    }
    let note = format!("rollout of {service} is paused: {why}");
    Ok(put(
        assignment,
        rollout,
        Phase::Paused(why.to_owned()),
        note,
    ))
}

/// Lets a paused rollout go on with the next tasks, whatever failed so far.
///
/// # Errors
/// [`Refused`]
pub fn resume(service: &str, assignment: &Assignment) -> Result<Step, Refused> {
    let rollout = going(service, assignment)?;
    if !matches!(rollout.phase, Phase::Paused(_)) {
        return Err(Refused::NotPaused(service.to_owned()));
    }
    // What is known to have failed is not looked at again.
    let note = format!("rollout of {service} goes on");
    Ok(put(assignment, rollout, rollout.going(), note))
}

/// Brings back the former revision, as `rollback_config` says; `why` is for people to see.
///
/// # Errors
/// [`Refused`]
pub fn undo(
    stack: &Stack,
    service: &str,
    assignment: &Assignment,
    why: &str,
    now: Millis,
) -> Result<Step, Refused> {
    let rollout = going(service, assignment)?;
    let service_name = || service.to_owned();
    if let Some(why) = &rollout.back {
        return Err(Refused::GoingBack {
            service: service_name(),
            why: why.clone(),
        });
    }
    if revision(stack, service).as_ref() != Some(&rollout.revision) {
        return Err(Refused::Changing(service_name()));
    }
    let Some((next, restore)) = back(stack, service, assignment, rollout, why, now) else {
        return Err(Refused::Over(service_name()));
    };
    let note = format!(
        "rollout of {service} goes back to revision {}: {why}",
        next.revision
    );
    let phase = next.phase.clone();
    Ok(Step {
        restore: Some(restore),
        ..put(assignment, &next, phase, note)
    })
}

/// How the rollout of a service is; none if there is none.
#[must_use]
pub fn status(
    stack: &Stack,
    service: &str,
    assignment: &Assignment,
    tasks: &BTreeMap<u32, Observed>,
) -> Option<Status> {
    let rollout = assignment.rollout.as_ref()?;
    let seen = |n: &u32| tasks.get(n).unwrap_or(&NOTHING);
    let numbers = || assignment.tasks.keys();
    let failed = rollout.failed.iter().filter(|n| numbers().any(|m| m == *n));
    let why = |n: &u32| {
        let seen = seen(n);
        let fault = seen.fault(&rollout.revision);
        fault.unwrap_or_else(|| match seen.is_well(&rollout.revision) {
            true => "it runs by now".to_owned(),
            false if stack.halted.contains(&task(service, *n)) => "it was stopped since".to_owned(),
            false => "it does not run".to_owned(),
        })
    };
    Some(Status {
        service: service.to_owned(),
        from: rollout.from.clone(),
        to: rollout.revision.clone(),
        tasks: assignment.tasks.len(),
        updated: numbers().filter(|n| rollout.held(**n).is_none()).count(),
        well: numbers()
            .filter(|n| seen(n).is_well(&rollout.revision))
            .count(),
        failed: failed.map(|n| (*n, why(n))).collect(),
        away: numbers().filter(|n| !seen(n).reachable).copied().collect(),
        phase: rollout.phase.clone(),
        began: rollout.began,
        stepped: rollout.stepped,
    })
}

/// The rollout that goes on.
fn going<'a>(service: &str, assignment: &'a Assignment) -> Result<&'a Rollout, Refused> {
    match &assignment.rollout {
        None => Err(Refused::None(service.to_owned())),
        Some(rollout) if rollout.is_over() => Err(Refused::Over(service.to_owned())),
        Some(rollout) => Ok(rollout),
    }
}

fn put(assignment: &Assignment, rollout: &Rollout, phase: Phase, note: String) -> Step {
    let rollout = Rollout {
        phase,
        ..rollout.clone()
    };
    Step {
        change: Some(Assignment {
            rollout: Some(rollout),
            ..assignment.clone()
        }),
        note: Some(note),
        ..Step::default()
    }
}
