//! Healing: what must be done so that a stack is again as it is wanted.
//!
//! It is the plan of an `up` of what is wanted already, without what is meant to stay as it is
//! (tasks that were stopped, or that ended and whose policy accepts it) and without what was
//! tried just now.

mod ledger;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

pub use ledger::{Backoff, End, Ledger, Millis, Record, Signs};
pub use policy::Policy;
use serde::{Deserialize, Serialize};
use wharfie_compose::model::Condition;

use crate::names;
use crate::plan::{Operation, Plan};
use crate::reconcile::{Refusal, UpOptions, lifecycle, up};
use crate::seen::{Container, Health, Seen};
use crate::share::Share;
use crate::wanted::{Stack, service_of, task};

/// What is said of a task that was not on this node before.
const NEW: &str = "it is new here";
/// What is wrong with who shares the network of a container that has another one by now.
const STRANDED: &str = "the container whose network it shares was started again";

/// What is to be done now, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Healing {
    /// What is to be done.
    pub plan: Plan,
    /// Tasks that the plan is an attempt at, with what is wrong with each.
    pub attempts: BTreeMap<String, String>,
    /// When something that waits now may be tried.
    pub wake: Option<Millis>,
}

/// A task that is not as it is wanted, for people to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The task, as `service/number`.
    pub task: String,
    /// Attempts since it was last well.
    pub attempts: u32,
    /// What was wrong, or what the last attempt failed with.
    pub reason: String,
    /// Whether the last attempt failed.
    #[serde(default)]
    pub failed: bool,
    /// When the next attempt may be made, in milliseconds since 1970.
    pub next: Millis,
}

/// Decides what to do, for all of a stack or for a share of it. The ledger has observed the same
/// `seen`; `attempts` of the result are to be entered into it.
///
/// # Errors
/// A [`Refusal`] if something outside is missing, such as an external network.
pub fn heal(
    (stack, share): (&Stack, Option<&Share>),
    seen: &Seen,
    ledger: &Ledger,
    signs: &Signs,
    now: Millis,
) -> Result<Healing, Refusal> {
    if stack.active.is_empty() {
        return Ok(Healing::default());
    }
    let known = with_images_that_cannot_be_had(stack, seen);
    let options = UpOptions {
        pull: Some("missing".to_owned()),
        replace: to_replace(stack, seen, signs),
        share: share.cloned(),
        ..stack.options()
    };
    let whole = up(&stack.project, &known, &options)?;
    let tasks = task_names(stack, share, seen, &whole);
    let mut healing = Healing::default();
    let mut made: BTreeSet<String> = BTreeSet::new();
    let updates = whole
        .steps
        .iter()
        .map(|s| &s.operation)
        .filter(|o| is_update(o));
    let updated: BTreeSet<&String> = updates
        .filter_map(|o| tasks.get(o.container()?.1))
        .collect();
    let plan = lifecycle::filter_map(&whole, |operation| {
        let key = operation.container().and_then(|(_, name)| tasks.get(name));
        let Some(key) = key else {
            return Some(operation.clone());
        };
        if let Operation::Wait { condition, .. } = operation {
            return (!is_settled(stack, ledger, key, *condition)).then(|| operation.clone());
        }
        if !is_attempt(operation) {
            return Some(operation.clone());
        }
        // What is made anew is started too, however the one before it ended.
        if stays(
            stack,
            ledger,
            key,
            is_update(operation) || updated.contains(key),
        ) {
            return None;
        }
        let next = ledger.tasks.get(key).map_or(0, |r| r.next);
        if next > now {
            healing.wake = Some(healing.wake.map_or(next, |w: Millis| w.min(next)));
            return None;
        }
        if makes(operation) {
            made.extend(
                stack
                    .project
                    .any_service(service_of(key))
                    .map(|s| names::image(&stack.project, s)),
            );
        }
        let known = ledger
            .tasks
            .get(key)
            .is_some_and(|r| !r.container.is_empty());
        let reason = match operation {
            Operation::CreateContainer { .. } if share.is_some() && !known => NEW.to_owned(),
            _ => why(operation, seen),
        };
        healing.attempts.entry(key.clone()).or_insert(reason);
        Some(operation.clone())
    });
    healing.plan = without_idle_steps(&plan, &made);
    let again = to_start_again(stack, share, seen, ledger, now, &mut healing);
    healing.plan.append(&again);
    healing.plan.append(&to_stop(stack, share, seen, ledger));
    Ok(healing)
}

/// Starts those again that were left in a network namespace that leads nowhere.
fn to_start_again(
    stack: &Stack,
    share: Option<&Share>,
    seen: &Seen,
    ledger: &Ledger,
    now: Millis,
    healing: &mut Healing,
) -> Plan {
    let mut plan = Plan::default();
    for container in seen.containers.iter().filter(|c| c.stranded && !c.oneoff) {
        let key = task(&container.service, container.number);
        let service = stack.project.any_service(&container.service);
        let policy = service.map(|s| Policy::within(&stack.project, s));
        let is_kept = policy.is_some_and(|p| !matches!(p, Policy::HandsOff | Policy::Never));
        let here = share.is_none_or(|s| s.is_here(&container.service, container.number));
        // What is done with it anyway gives it another one.
        let is_done = healing.attempts.contains_key(&key);
        if !is_kept || !here || is_done || stack.halted.contains(&key) {
            continue;
        }
        let next = ledger.tasks.get(&key).map_or(0, |r| r.next);
        if next > now {
            healing.wake = Some(healing.wake.map_or(next, |w: Millis| w.min(next)));
            continue;
        }
        healing.attempts.insert(key, STRANDED.to_owned());
        let again = Operation::RestartContainer {
            service: container.service.clone(),
            name: container.name.clone(),
            reason: STRANDED.to_owned(),
            timeout: None,
        };
        plan.push(again, Vec::new());
    }
    plan
}

/// Stops what another node was told to stop, while this one could not be asked.
fn to_stop(stack: &Stack, share: Option<&Share>, seen: &Seen, ledger: &Ledger) -> Plan {
    let due = |container: &Container| {
        let key = task(&container.service, container.number);
        let done = ledger.tasks.get(&key).is_some_and(|r| r.halted);
        let here = share.is_none_or(|s| s.is_here(&container.service, container.number));
        here && stack.halted.contains(&key) && !done
    };
    let due: BTreeSet<&str> = seen
        .containers
        .iter()
        .filter(|c| !c.oneoff && c.is_running() && due(c))
        .map(|c| c.id.as_str())
        .collect();
    if due.is_empty() {
        return Plan::default();
    }
    let all = lifecycle::stop(seen, &[], None);
    lifecycle::filter_map(&all, |operation| match operation {
        Operation::StopContainer { id, .. } if due.contains(id.as_str()) => Some(operation.clone()),
        _ => None,
    })
}

/// The tasks that were not well, for people to see.
#[must_use]
pub fn troubles(ledger: &Ledger) -> Vec<Trouble> {
    // To be begun is no trouble.
    let begun = |r: &Record| r.attempts > 1 || r.reason != NEW;
    let sick = ledger.tasks.iter();
    let sick = sick.filter(|(_, r)| r.attempts > 0 && begun(r));
    sick.map(|(task, r)| Trouble {
        task: task.clone(),
        attempts: r.attempts,
        reason: r.reason.clone(),
        failed: r.failed,
        next: r.next,
    })
    .collect()
}

/// An image that is neither here nor to be fetched must not keep the others from being healed:
/// making its containers fails, and says so.
fn with_images_that_cannot_be_had(stack: &Stack, seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    for name in &stack.active {
        let Some(service) = stack.project.any_service(name) else {
            continue;
        };
        let never = matches!(service.pull_policy.as_str(), "never" | "build");
        if service.build.is_some() || never {
            let image = names::image(&stack.project, service);
            seen.images.entry(image).or_default();
        }
    }
    seen
}

/// Containers that run, but are to be replaced.
fn to_replace(stack: &Stack, seen: &Seen, signs: &Signs) -> BTreeMap<String, String> {
    let mut replace = BTreeMap::new();
    for container in seen.containers.iter().filter(|c| !c.oneoff) {
        let Some(service) = stack.project.any_service(&container.service) else {
            continue;
        };
        let policy = Policy::within(&stack.project, service);
        if policy == Policy::HandsOff {
            continue;
        }
        let name = names::container(&stack.project.name, service, container.number);
        let sick = container.health == Health::Unhealthy && container.is_running();
        let reason = if signs.changed.contains(&container.id) {
            "somebody else changed it"
        } else if container.name != name {
            "somebody else renamed it"
        } else if sick && policy != Policy::Never {
            "it is unhealthy"
        } else {
            continue;
        };
        replace.insert(container.id.clone(), reason.to_owned());
    }
    replace
}

/// Keys of tasks by the names that their containers have or get.
fn task_names(
    stack: &Stack,
    share: Option<&Share>,
    seen: &Seen,
    plan: &Plan,
) -> BTreeMap<String, String> {
    let mut tasks = BTreeMap::new();
    for (name, numbers) in share.into_iter().flat_map(|s| &s.elsewhere) {
        let Some(service) = stack.project.any_service(name) else {
            continue;
        };
        for number in numbers.keys() {
            let container = names::container(&stack.project.name, service, *number);
            tasks.insert(container, task(name, *number));
        }
    }
    for c in seen.containers.iter().filter(|c| !c.oneoff) {
        let key = task(&c.service, c.number);
        if let Some(service) = stack.project.any_service(&c.service) {
            let name = names::container(&stack.project.name, service, c.number);
            tasks.insert(name, key.clone());
        }
        tasks.insert(c.name.clone(), key);
    }
    for step in &plan.steps {
        if let Operation::CreateContainer {
            service,
            number,
            name,
        } = &step.operation
        {
            tasks.insert(name.clone(), task(service, *number));
        }
    }
    tasks
}

fn makes(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::CreateContainer { .. } | Operation::RecreateContainer { .. }
    )
}

fn is_attempt(operation: &Operation) -> bool {
    makes(operation)
        || matches!(
            operation,
            Operation::StartContainer { .. } | Operation::RestartContainer { .. }
        )
}

/// Whether a task need not be waited for: it has done what others wait for, though its container may
/// be gone, or it was decided that it stays as it is.
fn is_settled(stack: &Stack, ledger: &Ledger, key: &str, condition: Condition) -> bool {
    let service = stack.project.any_service(service_of(key));
    let policy = service.map(|s| Policy::within(&stack.project, s));
    let record = ledger.tasks.get(key).filter(|r| !r.asked);
    let done = record.is_some_and(|r| r.end == Some(End::Own(0)));
    stack.halted.contains(key)
        || policy == Some(Policy::HandsOff)
        || (done && condition == Condition::CompletedSuccessfully)
}

/// Whether a task is meant to stay as it is.
fn stays(stack: &Stack, ledger: &Ledger, key: &str, is_update: bool) -> bool {
    if stack.halted.contains(key) {
        return true;
    }
    let Some(service) = stack.project.any_service(service_of(key)) else {
        return true;
    };
    let policy = Policy::within(&stack.project, service);
    if policy == Policy::HandsOff {
        return true;
    }
    let record = ledger.tasks.get(key).filter(|r| !r.asked);
    match record.and_then(|r| r.end) {
        // What is out of date is made anew, however it ended.
        Some(End::Own(code)) => policy.accepts(code) && !is_update,
        Some(End::Cut(_)) => policy == Policy::Never && !is_update,
        None => false,
    }
}

fn is_update(operation: &Operation) -> bool {
    matches!(operation, Operation::RecreateContainer { reason, .. } if reason.contains("configuration"))
}

/// What is wrong, in words.
fn why(operation: &Operation, seen: &Seen) -> String {
    let named = |name: &str| seen.containers.iter().find(|c| c.name == name);
    match operation {
        Operation::CreateContainer { .. } => "it was gone".to_owned(),
        Operation::RecreateContainer { reason, .. }
        | Operation::RestartContainer { reason, .. } => reason.clone(),
        Operation::StartContainer { name, .. } => named(name).map_or_else(String::new, ended),
        _ => String::new(),
    }
}

fn ended(container: &Container) -> String {
    match container.exit_code {
        Some(code) if container.state != crate::State::Created => {
            format!("it ended with code {code}")
        }
        _ => "it had not been started".to_owned(),
    }
}

/// Without pulls for containers that are not made, and without waits that nothing comes after.
fn without_idle_steps(plan: &Plan, made: &BTreeSet<String>) -> Plan {
    let plan = lifecycle::filter_map(plan, |operation| match operation {
        Operation::PullImage { image, .. } if !made.contains(image) => None,
        _ => Some(operation.clone()),
    });
    // From the end: a wait may be there for another wait only.
    let mut needed: BTreeSet<usize> = BTreeSet::new();
    let mut idle: BTreeSet<usize> = BTreeSet::new();
    for (i, step) in plan.steps.iter().enumerate().rev() {
        if matches!(step.operation, Operation::Wait { .. }) && !needed.contains(&i) {
            idle.insert(i);
        } else {
            needed.extend(&step.after);
        }
    }
    let mut index = 0;
    lifecycle::filter_map(&plan, |operation| {
        index += 1;
        (!idle.contains(&(index - 1))).then(|| operation.clone())
    })
}
