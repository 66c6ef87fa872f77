//! The start of rollouts: what changes between two versions of a stack.

use std::collections::BTreeSet;

use super::versions::only;
use super::{Rollout, Version, revision};
use crate::assignment::{Assignment, Assignments};
use crate::heal::Millis;
use crate::wanted::Stack;

/// Begins rollouts of the services whose revision changes from one version of a stack to the next,
/// if they have an `update_config`; others change at once. To be called on every change of a stack,
/// before tasks are assigned anew; to call it again with the same versions changes nothing.
///
/// A service that is changed again while it is rolled out keeps each task at what it is, so that
/// none goes back on its way to the newest. To put up again what ran before is to go back
/// ([`super::undo`]).
pub fn begin(before: Option<&Stack>, after: &Stack, assignments: &mut Assignments, now: Millis) {
    for (service, assignment) in assignments {
        let last = assignment.rollout.take();
        assignment.rollout = rollout(before, after, (service, assignment, last), now);
    }
}

fn rollout(
    before: Option<&Stack>,
    after: &Stack,
    (service, assignment, last): (&str, &Assignment, Option<Rollout>),
    now: Millis,
) -> Option<Rollout> {
    let to = revision(after, service)?;
    let from = before.and_then(|b| revision(b, service));
    let same = from.as_ref() == Some(&to);
    let (going, over): (Option<Rollout>, _) = match last {
        Some(last) if last.is_over() => (None, Some(last)),
        last => (last, None),
    };
    if let Some(going) = &going {
        // The former revision is about to be wanted again, and this change is about something else.
        let restoring = going.restore.is_some() && same && going.from == to;
        if going.revision == to || restoring {
            return Some(going.clone());
        }
    } else if over.as_ref().is_some_and(|o| o.revision == to) {
        // It goes on to tell of the last one.
        return over.filter(|_| from.is_some());
    } else if same || from.is_none() {
        return None;
    }
    let definition = after.project.any_service(service)?;
    definition.deploy.as_ref()?.update_config.as_ref()?;

    let counted = |stack: Option<&Stack>| stack.map_or(0, |s| s.count(service));
    // Those that did not run before cannot be missed: they come first, and at the new revision.
    let new: BTreeSet<u32> = match before {
        Some(_) => (counted(before) + 1..=counted(Some(after))).collect(),
        None => BTreeSet::new(),
    };
    let tasks = assignment.tasks.keys().filter(|n| !new.contains(n));
    let tasks: BTreeSet<u32> = tasks.copied().collect();
    if tasks.is_empty() {
        return None;
    }
    let mut next = Rollout::new(from.unwrap_or_default(), to, now);
    if let Some(going) = &going {
        next.from.clone_from(&going.revision);
    }
    let (versions, unknown) = versions(before, service, going.as_ref(), &tasks);
    next.updated = unknown;
    let back = going.is_some()
        && versions
            .first()
            .is_some_and(|v| v.revision == next.revision);
    for (i, version) in versions.into_iter().enumerate() {
        if version.revision == next.revision {
            next.updated.extend(version.tasks);
        } else if i == 0 || !version.tasks.is_empty() {
            next.before.push(version);
        }
    }
    if back {
        next.back = Some("what ran before is wanted again".to_owned());
        next.phase = next.going();
    } else {
        next.updated.extend(&new);
        next.group = new;
    }
    Some(next)
}

/// What the tasks are now, the version first that last ran as a whole; and those of which that is not
/// known.
fn versions(
    before: Option<&Stack>,
    service: &str,
    going: Option<&Rollout>,
    tasks: &BTreeSet<u32>,
) -> (Vec<Version>, BTreeSet<u32>) {
    let former = before.and_then(|b| Version::of(b, service, tasks.clone()));
    let Some(going) = going else {
        return (former.into_iter().collect(), BTreeSet::new());
    };
    let mut versions = going.split(tasks);
    let updated = tasks.iter().filter(|n| going.held(**n).is_none());
    let updated: BTreeSet<u32> = updated.copied().collect();
    let target = match &going.restore {
        Some(stack) => Version::of(stack, service, updated.clone()),
        None => former.filter(|v| v.revision == going.revision),
    };
    let Some(target) = target else {
        // Nothing to keep them as: they change at once.
        return (versions, updated);
    };
    let target = Version {
        tasks: updated,
        ..target
    };
    let place = if going.back.is_some() {
        0
    } else {
        versions.len()
    };
    versions.insert(place, target);
    (versions, BTreeSet::new())
}

impl Version {
    /// A service as a stack says; none if it is not to run.
    pub(super) fn of(stack: &Stack, service: &str, tasks: BTreeSet<u32>) -> Option<Self> {
        Some(Self {
            revision: revision(stack, service)?,
            stack: Box::new(only(stack, service)),
            tasks,
        })
    }
}
