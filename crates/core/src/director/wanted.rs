//! Who wants an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharfie_compose::model::Service;

use super::settings::{Director, For};
use super::{Candidate, Families, Owner, lead};
use crate::assignment::Assignments;
use crate::extension::{self, LanAddress};
use crate::network::{Node, World, publish};
use crate::report::ReportedContainer;
use crate::wanted::Stack;

/// Label of a container that says whether it wants an address: as `x-wharfie.address` of a service.
pub const LABEL: &str = "io.wharfie.address";

/// Somebody who wants an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub owner: Owner,
    /// What it is called: an address may be reserved for that.
    pub names: Vec<String>,
    /// These, and no others.
    pub asked: Vec<IpAddr>,
    /// In which families a way leads to it.
    pub families: Families,
    /// Nodes that may hold it.
    pub candidates: Vec<Candidate>,
}

/// Who of a stack wants an address, and which nodes may hold it. `world` holds the stack.
#[must_use]
pub fn wanted(
    stack: &Stack,
    assignments: &Assignments,
    world: &World,
    director: &Director,
) -> Vec<Claim> {
    let mut claims = Vec::new();
    for name in &stack.active {
        let Some(service) = stack.project.any_service(name) else {
            continue;
        };
        let mode = service.network_mode.as_str();
        if mode == "none" || mode.starts_with("service:") || mode.starts_with("container:") {
            continue;
        }
        let asked = match (
            extension::address(&stack.project, service),
            director.default,
        ) {
            // What nobody understands is refused when the file is read.
            (LanAddress::No | LanAddress::Wrong, _)
            | (_, For::None)
            | (LanAddress::Unsaid, For::Labelled) => continue,
            (LanAddress::Unsaid, For::All | For::Services) => Vec::new(),
            (LanAddress::Yes(asked), _) => asked,
        };
        let none = BTreeMap::new();
        let tasks = assignments.get(name).map_or(&none, |a| &a.tasks);
        let network = publish::network_of(stack, service, world.networks);
        let candidate = |node: &Node, task: Option<u32>| {
            let own = |number: u32| task.is_none_or(|t| t == number);
            let containers = node.containers.iter();
            let ready = containers.filter(|c| {
                let same = c.stack == stack.project.name && c.service == *name && !c.oneoff;
                same && own(c.number) && lead::is_ready(c)
            });
            let to_be = tasks.iter().filter(|(n, at)| own(**n) && **at == node.id);
            Candidate {
                node: node.id.clone(),
                ready: ready.count(),
                tasks: to_be.count(),
                reaches: network.is_some_and(|n| node.own.contains_key(n)),
                drained: node.drained,
            }
        };
        let live = || world.nodes.iter().filter(|n| n.live);
        let mut claim = |task| {
            claims.push(Claim {
                owner: Owner::Service {
                    stack: stack.project.name.clone(),
                    service: name.clone(),
                    task,
                },
                names: match task {
                    Some(number) => vec![format!("{name}-{number}")],
                    None => vec![name.clone()],
                },
                asked: asked.clone(),
                families: families_of(stack, service, world),
                candidates: live().map(|n| candidate(n, task)).collect(),
            });
        };
        match extension::address_per_task(&stack.project, service) {
            true => tasks.keys().for_each(|number| claim(Some(*number))),
            false => claim(None),
        }
    }
    claims
}

/// In which families a way leads to a service of a stack.
#[must_use]
pub fn families_of(stack: &Stack, service: &Service, world: &World) -> Families {
    let network = publish::network_of(stack, service, world.networks);
    if let Some(network) = network.and_then(|name| world.networks.get(name)) {
        return Families::of_network(network);
    }
    let containers = world.nodes.iter().flat_map(|n| &n.containers);
    let own = containers
        .filter(|c| c.stack == stack.project.name && c.service == service.name && !c.oneoff);
    let said = Families::said(&stack.project, service);
    Families::of_local(own.flat_map(|c| &c.networks), said)
}

/// The same of a container that is of no stack.
#[must_use]
pub fn families_of_container(container: &ReportedContainer) -> Families {
    Families::of_local(&container.attachments, Families::default())
}

/// What is wrong with a container's label, in words.
#[must_use]
pub fn wrong_label(container: &ReportedContainer) -> Option<String> {
    let (name, said) = (&container.name, &container.address);
    let wrong = LanAddress::read(said) == LanAddress::Wrong;
    wrong.then(|| {
        format!(
            "container {name} has no address: its label {LABEL} says {said:?}, which is neither an address nor true or false"
        )
    })
}

/// Whether a container of a node that is of no stack of ours wants an address, and which.
#[must_use]
pub fn of_container(
    node: &str,
    container: &ReportedContainer,
    director: &Director,
) -> Option<Claim> {
    let (name, service) = (&container.name, &container.service);
    let asked = match (LanAddress::read(&container.address), director.default) {
        (LanAddress::No | LanAddress::Wrong, _) | (_, For::None) => return None,
        (LanAddress::Unsaid, For::Services | For::Labelled) => return None,
        (LanAddress::Unsaid, For::All) => Vec::new(),
        (LanAddress::Yes(asked), _) => asked,
    };
    Some(Claim {
        owner: Owner::Container {
            node: node.to_owned(),
            name: name.clone(),
        },
        names: [name, service]
            .into_iter()
            .filter(|n| !n.is_empty())
            .cloned()
            .collect(),
        asked,
        families: families_of_container(container),
        candidates: vec![Candidate {
            node: node.to_owned(),
            tasks: 1,
            ..Candidate::default()
        }],
    })
}
