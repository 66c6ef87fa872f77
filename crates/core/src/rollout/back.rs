//! The way back to what last ran as a whole.

use super::versions::graft;
use super::{Phase, Rollout, Version};
use crate::assignment::Assignment;
use crate::heal::Millis;
use crate::wanted::Stack;

/// The rollout that brings back the former revision, and what is to be wanted for it; none if there is
/// nothing to go back to. The stack is the one that the rollout goes to.
pub(super) fn back(
    stack: &Stack,
    service: &str,
    assignment: &Assignment,
    rollout: &Rollout,
    why: &str,
    now: Millis,
) -> Option<(Rollout, Box<Stack>)> {
    let tasks = assignment.tasks.keys().copied().collect();
    let mut before = rollout.split(&tasks);
    if before.is_empty() {
        return None;
    }
    let former = before.remove(0);
    let updated = tasks.iter().filter(|n| rollout.held(**n).is_none());
    before.push(Version::of(stack, service, updated.copied().collect())?);
    let restore = Box::new(graft(stack, &former.stack, service));
    let next = Rollout {
        before,
        updated: former.tasks,
        phase: Phase::RollingBack(why.to_owned()),
        back: Some(why.to_owned()),
        restore: Some(former.stack),
        began: rollout.began,
        ..Rollout::new(rollout.revision.clone(), former.revision, now)
    };
    Some((next, restore))
}
