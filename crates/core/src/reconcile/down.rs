//! `down`: everything of a project is stopped and removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharfie_compose::model::Project;

use super::select::dependencies_first;
use crate::labels;
use crate::names;
use crate::plan::{Operation, Plan};
use crate::seen::{Container, Seen};

/// Which images `down` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoveImages {
    /// Those without a name of the user's.
    Local,
    /// All that the services use.
    All,
}

/// How `down` goes about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownOptions {
    /// Only these services; all when empty. Networks and volumes stay if any is named.
    pub services: Vec<String>,
    /// Remove volumes too: named ones of the project, and anonymous ones.
    pub volumes: bool,
    /// Remove images too.
    pub images: Option<RemoveImages>,
    /// Remove containers of services that are not in the project.
    pub remove_orphans: bool,
    /// Seconds to stop containers in, in place of each service's own.
    pub timeout: Option<i64>,
}

/// Plans `down`. Without the project's file everything with its label goes.
#[must_use]
pub fn down(project: Option<&Project>, seen: &Seen, options: &DownOptions) -> Plan {
    let mut plan = Plan::default();
    let known = |c: &Container| project.is_none_or(|p| p.any_service(&c.service).is_some());
    let wanted =
        |c: &Container| options.services.is_empty() || options.services.contains(&c.service);
    let mut orphans = Vec::new();
    let mut by_service: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in &seen.containers {
        if !known(container) && !options.remove_orphans && options.services.is_empty() {
            orphans.push(container.name.as_str());
        } else if wanted(container) {
            by_service
                .entry(&container.service)
                .or_default()
                .push(container);
        }
    }
    if !orphans.is_empty() {
        plan.notices.push(super::up::orphan_notice(&orphans));
    }
    // What depends on a service stops before it, as its containers' labels say.
    let mut order = dependencies_first(by_service.keys().copied(), |name| {
        by_service
            .get(name)
            .into_iter()
            .flatten()
            .flat_map(|c| c.depends_on.iter().map(String::as_str))
            .collect()
    });
    order.reverse();
    let mut removed: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &service in &order {
        let after: Vec<usize> = by_service
            .iter()
            .filter(|(_, cs)| cs.iter().any(|c| c.depends_on.iter().any(|d| d == service)))
            .filter_map(|(name, _)| removed.get(name))
            .flatten()
            .copied()
            .collect();
        for container in &by_service[service] {
            let step = plan.push(
                Operation::RemoveContainer {
                    service: container.service.clone(),
                    id: container.id.clone(),
                    name: container.name.clone(),
                    reason: "down".to_owned(),
                    running: container.is_running(),
                    volumes: options.volumes,
                    timeout: options.timeout,
                },
                after.clone(),
            );
            removed.entry(service).or_default().push(step);
        }
    }
    if options.services.is_empty() {
        let all: Vec<usize> = (0..plan.steps.len()).collect();
        resources(project, seen, options, &all, &mut plan);
    }
    plan
}

fn resources(
    project: Option<&Project>,
    seen: &Seen,
    options: &DownOptions,
    after: &[usize],
    plan: &mut Plan,
) {
    let orphans_stay = !plan.notices.is_empty();
    let external_networks: Vec<&str> = project
        .iter()
        .flat_map(|p| p.networks.values())
        .filter(|n| n.external)
        .map(|n| n.name.as_str())
        .collect();
    // What is not labelled as the project's was made by somebody else, whatever its name.
    let is_ours = |labels: &BTreeMap<String, String>| {
        project.is_none_or(|p| labels.get(labels::PROJECT) == Some(&p.name))
    };
    for (name, network) in &seen.networks {
        if !is_ours(&network.labels) {
            continue;
        }
        // An orphan that stays may still be on the network.
        let in_use = orphans_stay
            && seen.containers.iter().any(|c| {
                c.networks.contains_key(name)
                    && project.is_some_and(|p| p.any_service(&c.service).is_none())
            });
        if !external_networks.contains(&name.as_str()) && !in_use {
            let reason = "down".to_owned();
            plan.push(
                Operation::RemoveNetwork {
                    name: name.clone(),
                    reason,
                },
                after.to_vec(),
            );
        }
    }
    if options.volumes {
        let external: Vec<&str> = project
            .iter()
            .flat_map(|p| p.volumes.values())
            .filter(|v| v.external)
            .map(|v| v.name.as_str())
            .collect();
        for (name, volume) in &seen.volumes {
            if external.contains(&name.as_str()) || !is_ours(&volume.labels) {
                continue;
            }
            plan.push(
                Operation::RemoveVolume { name: name.clone() },
                after.to_vec(),
            );
        }
    }
    if options.volumes {
        // An anonymous volume that a recreated container took over is no longer removed with it.
        let removed = |c: &&Container| plan_removes(plan, &c.id);
        let mut anonymous: Vec<String> = seen
            .containers
            .iter()
            .filter(removed)
            .flat_map(|c| &c.mounts)
            .map(|(source, _)| source.clone())
            .filter(|s| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()))
            .collect();
        anonymous.sort();
        anonymous.dedup();
        for name in anonymous {
            plan.push(Operation::RemoveVolume { name }, after.to_vec());
        }
    }
    let (Some(which), Some(project)) = (options.images, project) else {
        return;
    };
    let mut images: Vec<String> = project
        .services
        .values()
        .filter(|s| which == RemoveImages::All || s.image.is_empty())
        .map(|s| names::image(project, s))
        .filter(|i| seen.images.contains_key(i))
        .collect();
    images.sort();
    images.dedup();
    for image in images {
        plan.push(Operation::RemoveImage { image }, after.to_vec());
    }
}

fn plan_removes(plan: &Plan, id: &str) -> bool {
    plan.steps.iter().any(
        |s| matches!(&s.operation, Operation::RemoveContainer { id: removed, .. } if removed == id),
    )
}
