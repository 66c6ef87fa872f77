//! What a move means for the stacks that use the volumes.

use std::collections::BTreeSet;

use wharfie_compose::model::{MountKind, Project};
use wharfie_core::Stack;
use wharfie_core::assignment::Assignment;
use wharfie_core::heal::Policy;
use wharfie_core::reconcile::lifecycle;
use wharfie_core::schedule::{self, Verdict};
use wharfie_host::{Engine, Event, ExecuteContext, LocalVolume, Progress, Scope};

use super::super::coordinate::{Assigned, waits};
use super::super::fleet::unreachable;
use super::super::keeper::{Keeper, STACK, with_replica};
use super::super::slot::Kept;
use super::super::world::{self, Entry, Side};
use crate::api::{MoveVolumes, Node};
use crate::failure::Failure;

/// A task: stack, service, number.
pub(super) type Task = (String, String, u32);

/// The node that volumes are to go to.
pub(super) fn target(keeper: &Keeper, wanted: &MoveVolumes) -> Result<Node, Failure> {
    let to = keeper.fleet.find(&wanted.to)?;
    if to.me {
        let names = wanted.names.join(" and ");
        let text = format!("{names}: that is on node {} already", to.name);
        return Err(Failure::usage(text));
    }
    if !to.may_answer() {
        return Err(unreachable(to.away()));
    }
    let report = keeper.fleet.report_of(&to);
    if let Some(why) = report.and_then(|r| r.engine_away.clone()) {
        return Err(unreachable(format!("node {}: {why}", to.name)));
    }
    if keeper.view().side() != Side::Larger {
        return Err(Failure::failed(
            "volumes are moved only while more than half of the nodes answer",
        )
        .help("`wharfie node ls` shows which are away"));
    }
    Ok(to)
}

/// A volume of this node whose content can be read.
pub(super) async fn own(
    keeper: &Keeper,
    engine: &Engine,
    name: &str,
) -> Result<LocalVolume, Failure> {
    let me = keeper.fleet.me();
    let Some(volume) = engine.volume(name).await? else {
        let text = format!("there is no volume {name} on node {}", me.name);
        return Err(Failure::failed(text).help("`wharfie volume ls` shows what there is"));
    };
    if let Some(other) = keeper.tied_to(name).filter(|id| *id != me.id) {
        let other = keeper.fleet.by_id(&other).map_or(other, |n| n.name);
        return Err(Failure::failed(format!(
            "the volume {name} that is used is on node {other}, not the one on {}",
            me.name
        )));
    }
    if let Some(why) = volume.foreign() {
        return Err(Failure::failed(format!("volume {name} stays: {why}"))
            .help("only what the Engine itself keeps on its host can be moved"));
    }
    // Whether it can be read at all.
    volume.is_empty()?;
    Ok(volume)
}

/// Whether a service mounts any of the volumes.
fn mounts(project: &Project, service: &str, names: &[String]) -> bool {
    let Some(service) = project.any_service(service) else {
        return false;
    };
    let of = service.volumes.iter();
    let mut of = of.filter(|m| m.kind == MountKind::Volume && !m.source.is_empty());
    of.any(|m| {
        let volume = project.volumes.get(&m.source);
        names.contains(volume.map_or(&m.source, |v| &v.name))
    })
}

/// The services of a stack that mount any of the volumes.
fn services(stack: &Stack, names: &[String]) -> Vec<String> {
    let active = stack.active.iter();
    let those = active.filter(|s| mounts(&stack.project, s, names));
    those.cloned().collect()
}

/// Whether a stack has a service.
pub(super) fn has(kept: &Kept, service: &str) -> bool {
    kept.stack
        .as_ref()
        .is_some_and(|s| s.active.contains(service))
}

/// The stacks that use any of the volumes. One that a volume was made for comes last: what is written
/// last says whose it is.
pub(super) fn users(keeper: &Keeper, names: &[String]) -> Vec<String> {
    let known = keeper.book.volumes();
    let owners: BTreeSet<&str> = names
        .iter()
        .filter_map(|n| known.get(n))
        .map(|place| place.stack.as_str())
        .collect();
    let stacks = keeper.book.stacks().into_iter();
    let using = stacks.filter(|(_, entry)| !services(&entry.stack, names).is_empty());
    let mut using: Vec<String> = using.map(|(name, _)| name).collect();
    using.sort_by_key(|name| (owners.contains(name.as_str()), name.clone()));
    using
}

/// Reads where a stack's tasks are; fails if the stack itself was changed and that is not taken over
/// yet.
pub(super) async fn refresh(keeper: &Keeper, name: &str, kept: &mut Kept) -> Result<(), Failure> {
    let of = name.to_owned();
    let (record, assignments) = with_replica(&keeper.replica, move |r| {
        Ok((r.get(STACK, &of)?, world::assignments(r, &of)?))
    })
    .await?;
    if kept.stack.is_none() || record.is_none_or(|r| r.revision != kept.revision) {
        return Err(Failure::failed(format!(
            "stack {name} was changed meanwhile: its volumes stay where they are"
        ))
        .help("try again"));
    }
    kept.assignments = assignments;
    Ok(())
}

/// The other volumes of services that mount any of these.
pub(super) fn others(kept: &Kept, names: &[String]) -> BTreeSet<String> {
    let Some(stack) = &kept.stack else {
        return BTreeSet::new();
    };
    let project = &stack.project;
    let using = services(stack, names);
    let using = using.iter().filter_map(|s| project.any_service(s));
    let mounts = using.flat_map(|s| &s.volumes);
    let named = mounts.filter(|m| m.kind == MountKind::Volume && !m.source.is_empty());
    let all = named.map(|m| {
        let volume = project.volumes.get(&m.source);
        volume.map_or(&m.source, |v| &v.name).clone()
    });
    all.filter(|v| !names.contains(v)).collect()
}

/// Whether nobody but people starts a task (`heal: never`).
pub(super) fn by_hand(kept: &Kept, service: &str) -> bool {
    kept.stack.as_ref().is_some_and(|stack| {
        let service = stack.project.any_service(service);
        service.is_some_and(|s| Policy::within(&stack.project, s) == Policy::HandsOff)
    })
}

/// Where a stack's tasks are once the volumes are on a node.
///
/// # Errors
/// Some could not run then.
pub(super) fn assigned(
    keeper: &Keeper,
    name: &str,
    kept: &Kept,
    names: &[String],
    to: &Node,
) -> Result<Assigned, Failure> {
    let Some(stack) = &kept.stack else {
        return Ok(Assigned::default());
    };
    let used: Vec<String> = names
        .iter()
        .filter(|n| !services(stack, std::slice::from_ref(n)).is_empty())
        .cloned()
        .collect();
    let waiting: BTreeSet<(String, u32)> = keeper
        .explain(name, stack)
        .into_iter()
        .filter(|d| matches!(d.verdict, Verdict::Waits { .. }))
        .map(|d| (d.service, d.slot))
        .collect();
    let mut view = keeper.view();
    let tied = used.iter().map(|v| (v.clone(), to.id.clone()));
    view.volumes.extend(tied.clone());
    let mut stacks = keeper.book.stacks();
    let entry = Entry {
        stack: stack.clone().into(),
        assignments: kept.assignments.clone().into(),
    };
    stacks.insert(name.to_owned(), entry);
    let (tasks, running) = (world::tasks(&kept.assignments), view.running(name));
    let placed = schedule::explain(stack, &tasks, &running, &view.cluster(&stacks));
    for d in &placed.decisions {
        let is_user = mounts(&stack.project, &d.service, names);
        let why = match &d.verdict {
            Verdict::Waits { why, .. }
                if is_user || !waiting.contains(&(d.service.clone(), d.slot)) =>
            {
                waits(why)
            }
            Verdict::Stays { on } | Verdict::Chosen { on, .. } | Verdict::Moved { to: on, .. }
                if is_user && *on != to.id =>
            {
                "it has a volume of its own on each node".to_owned()
            }
            _ => continue,
        };
        let help = match why.contains("data to be on one node") {
            true => {
                "volumes that are used together are moved together: `wharfie volume move A B NODE`"
            }
            false => "`wharfie plan` says where tasks can run, and why",
        };
        return Err(Failure::failed(format!(
            "{}/{} of stack {name} could not run on node {}: {why}",
            d.service, d.slot, to.name
        ))
        .help(help));
    }
    let each = stack.active.iter().map(|service| {
        let tasks = placed.tasks.get(service).cloned().unwrap_or_default();
        let before = kept.assignments.get(service);
        let rollout = before.and_then(|a| a.rollout.clone());
        (service.clone(), Assignment { tasks, rollout })
    });
    Ok(Assigned {
        assignments: each.collect(),
        volumes: tied.collect(),
    })
}

/// Stops the tasks here that mount any of the volumes, each with the time it may take.
pub(super) async fn stop(engine: &Engine, stack: &Stack, names: &[String]) -> Result<(), Failure> {
    let services = services(stack, names);
    let seen = engine.observe(Scope::Name(&stack.project.name)).await?;
    let plan = lifecycle::stop(&seen, &services, None);
    let context = ExecuteContext {
        project: Some(&stack.project),
        seen: &seen,
        build: Default::default(),
        parallel: 0,
        cancel: None,
        elsewhere: None,
        addresses: None,
        leave: None,
    };
    let stopped = engine.execute(&context, &plan, &Nobody).await;
    stopped.map_err(|errors| Failure::all(errors.into_iter().map(Failure::from)))
}

/// A task that does not run on a node, as is reported.
pub(super) fn missing(keeper: &Keeper, tasks: &BTreeSet<Task>, node: &str) -> Option<String> {
    let view = keeper.view();
    let missing = tasks.iter().find(|(stack, service, number)| {
        let running = view.running(stack);
        let on = running.get(service).and_then(|of| of.get(number));
        on.is_none_or(|on| on != node)
    });
    missing.map(|(stack, service, number)| format!("{stack}: {service}/{number}"))
}

/// Whom nothing needs to be told.
struct Nobody;

impl Progress for Nobody {
    fn event(&self, _: usize, _: Event) {}
}
