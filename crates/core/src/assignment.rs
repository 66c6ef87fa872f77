//! Which node runs which task: written by a stack's coordinator, read by all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::extension::{self, WhenIsolated};
use crate::rollout::{self, Rollout};
use crate::schedule::Tasks;
use crate::seen::Container;
use crate::share::Share;
use crate::wanted::Stack;

/// The tasks of one service, and how far its rollout is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Ids of nodes by task number.
    #[serde(with = "by_node")]
    pub tasks: BTreeMap<u32, String>,
    /// The rollout that is going on, or the last one if it came to a halt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// The tasks of a stack, by service.
pub type Assignments = BTreeMap<String, Assignment>;

/// Kind of the objects that say where a service's tasks are; their names are `stack/service`.
pub const ASSIGNMENT: &str = "assignment";
/// Kind of the objects that say how far a service's rollout is, named alike. They stand alone: whoever
/// moves tasks on one side of a cut must not take away what was begun on the other.
pub const ROLLOUT: &str = "rollout";

/// What must be written of a service for its tasks and its rollout to become others, by the kind of the
/// object; without a value the object goes.
#[must_use]
pub fn changes(
    old: Option<&Assignment>,
    new: Option<&Assignment>,
) -> Vec<(&'static str, Option<serde_json::Value>)> {
    let mut changes = Vec::new();
    let tasks = |a: Option<&Assignment>| a.map(|a| a.tasks.clone());
    if tasks(old) != tasks(new) {
        let alone = tasks(new).map(|tasks| Assignment {
            tasks,
            rollout: None,
        });
        let value = alone.and_then(|a| serde_json::to_value(a).ok());
        changes.push((ASSIGNMENT, value));
    }
    let rollout = |a: Option<&Assignment>| a.and_then(|a| a.rollout.clone());
    if rollout(old) != rollout(new) {
        let value = rollout(new).and_then(|r| serde_json::to_value(r).ok());
        changes.push((ROLLOUT, value));
    }
    changes
}

/// Whether a service runs on the smaller side of a cluster that is cut in two.
#[must_use]
pub fn runs_isolated(stack: &Stack, service: &str) -> bool {
    let Some(service) = stack.project.any_service(service) else {
        return true;
    };
    let project = &stack.project;
    !extension::singleton(project, service)
        && extension::when_isolated(project, service) == WhenIsolated::Keep
}

/// Assignments with a placement in them. What is not to run on a smaller side is not moved there.
#[must_use]
pub fn merged(stack: &Stack, old: &Assignments, placed: &Tasks, majority: bool) -> Assignments {
    let mut assignments = Assignments::new();
    for service in &stack.active {
        let before = old.get(service);
        if !majority && !runs_isolated(stack, service) {
            assignments.extend(before.map(|a| (service.clone(), a.clone())));
            continue;
        }
        let tasks = placed.get(service).cloned().unwrap_or_default();
        let rollout = before.and_then(|a| a.rollout.clone());
        assignments.insert(service.clone(), Assignment { tasks, rollout });
    }
    assignments
}

/// Ids are long, and there are few nodes beside many tasks: they are written once each.
mod by_node {
    use super::{BTreeMap, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        tasks: &BTreeMap<u32, String>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let mut nodes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (number, node) in tasks {
            nodes.entry(node).or_default().push(*number);
        }
        nodes.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<u32, String>, D::Error> {
        let nodes: BTreeMap<String, Vec<u32>> = BTreeMap::deserialize(d)?;
        let tasks = nodes.into_iter().flat_map(|(node, numbers)| {
            let of = move |number| (number, node.clone());
            numbers.into_iter().map(of)
        });
        Ok(tasks.collect())
    }
}

/// A container that another node reports.
#[derive(Debug, Clone, Copy)]
pub struct Reported<'a> {
    /// Id of the node.
    pub node: &'a str,
    /// Whether the node answers.
    pub live: bool,
    /// The container.
    pub container: &'a Container,
}

/// A node's whole share of a stack: what is assigned to it, and what others have. A task that runs on
/// another node as well runs on both only if it is to start before the other ends
/// (`deploy.update_config.order`, [`start-first`]): `others` has the other nodes' containers of the
/// stack, `own` those of this node.
///
/// [`start-first`]: https://github.com/compose-spec/compose-spec/blob/main/deploy.md#update_config
#[must_use]
pub fn share(
    stack: &Stack,
    assignments: &Assignments,
    me: &str,
    own: &[Container],
    others: &[Reported],
) -> Share {
    let mut share = Share::default();
    // A stack may have many thousands of tasks.
    let mut there: BTreeMap<(&str, u32), Vec<&Reported>> = BTreeMap::new();
    for r in others.iter().filter(|r| !r.container.oneoff) {
        let task = (r.container.service.as_str(), r.container.number);
        there.entry(task).or_default().push(r);
    }
    for service in &stack.active {
        let mine = own.iter().filter(|c| c.service == *service && !c.oneoff);
        let Some(assignment) = assignments.get(service) else {
            // Nothing is decided yet: what runs goes on.
            let numbers: BTreeSet<u32> = mine.map(|c| c.number).collect();
            share.aside.insert(service.clone(), numbers);
            continue;
        };
        let running = mine.filter(|c| c.is_running()).map(|c| c.number);
        let running: BTreeSet<u32> = running.collect();
        let first = starts_first(stack, service);
        for (number, node) in &assignment.tasks {
            let (number, runs) = (*number, running.contains(number));
            let reported = there.get(&(service.as_str(), number));
            let mut reported = reported.into_iter().flatten();
            if node == me {
                // It comes when it is gone there; a node that is lost is not asked.
                let still = reported.any(|r| r.live && r.container.is_running());
                let numbers = match still && !first && !runs {
                    true => &mut share.aside,
                    false => &mut share.here,
                };
                numbers.entry(service.clone()).or_default().insert(number);
                continue;
            }
            let found = reported.find(|r| r.node == node);
            let ready = found.is_some_and(|r| {
                use crate::seen::Health::{Healthy, None};
                r.container.is_running() && matches!(r.container.health, None | Healthy)
            });
            if first && !ready && runs {
                let aside = share.aside.entry(service.clone()).or_default();
                aside.insert(number);
            }
            let container = found.map(|r| r.container.clone());
            let elsewhere = share.elsewhere.entry(service.clone()).or_default();
            elsewhere.insert(number, container);
        }
    }
    share
}

/// Whether a new container of a service runs before the old one goes.
fn starts_first(stack: &Stack, service: &str) -> bool {
    let service = stack.project.any_service(service);
    let deploy = service.and_then(|s| s.deploy.as_ref());
    let update = deploy.and_then(|d| d.update_config.as_ref());
    update.is_some_and(|u| u.order == "start-first")
}

/// One part of a node's share: tasks that one version of the stack is the measure of.
#[derive(Debug, Clone)]
pub struct Part {
    /// What is wanted.
    pub stack: Stack,
    /// The tasks.
    pub share: Share,
}

/// The parts of a share. While a service is rolled out, its tasks that were not updated yet are kept
/// as they were before. As long as the stack and the rollout do not go together, since one of them has
/// not arrived yet, the service's containers are left as they are.
#[must_use]
pub fn parts(stack: &Stack, assignments: &Assignments, whole: &Share) -> Vec<Part> {
    let mut new = Part {
        stack: stack.clone(),
        share: whole.clone(),
    };
    let mut parts = Vec::new();
    for (service, assignment) in assignments {
        let Some(rollout) = assignment.rollout.as_ref().filter(|r| !r.is_over()) else {
            continue;
        };
        let wanted = rollout::revision(stack, service);
        let late = wanted.is_some_and(|r| r != rollout.revision);
        let held: BTreeSet<u32> = whole
            .here(service)
            .filter(|n| late || rollout.held(*n).is_some())
            .collect();
        if held.is_empty() {
            continue;
        }
        if let Some(here) = new.share.here.get_mut(service) {
            here.retain(|n| !held.contains(n));
        }
        let aside = new.share.aside.entry(service.clone()).or_default();
        aside.extend(&held);
        if late {
            continue;
        }
        for version in &rollout.before {
            let kept = |n: &u32| rollout.held(*n).is_some_and(|v| std::ptr::eq(v, version));
            let kept: BTreeSet<u32> = held.iter().copied().filter(kept).collect();
            if kept.is_empty() {
                continue;
            }
            let mut old = rollout::graft(stack, &version.stack, service);
            old.active.retain(|s| s == service);
            let others = whole.all(service).difference(&kept).copied().collect();
            let share = Share {
                here: [(service.clone(), kept)].into(),
                aside: [(service.clone(), others)].into(),
                elsewhere: BTreeMap::new(),
            };
            parts.push(Part { stack: old, share });
        }
    }
    parts.insert(0, new);
    parts
}
