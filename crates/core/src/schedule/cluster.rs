//! All nodes and what is taken of them, made once and used for many stacks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::hash::{self, Map};
use super::needs::{Needs, Taken};
use super::{Load, Node, Port, Standing, Tasks};
use crate::wanted::Stack;

/// In place of the stack of a port that is held by what is no task.
const FOREIGN: u32 = u32::MAX;

/// All nodes, what the tasks of all stacks take of them, and where local volumes are.
///
/// Inside, nodes are numbers: their order is that of their ids.
#[derive(Debug)]
pub struct Cluster<'a> {
    pub(super) nodes: Vec<&'a Node>,
    /// Hashes of the ids of the nodes.
    pub(super) hashes: Vec<u64>,
    pub(super) volumes: &'a BTreeMap<String, String>,
    /// Kinds of resources that any node declares.
    pub(super) kinds: Vec<&'a str>,
    /// What nodes declare of them, node by node.
    pub(super) declared: Vec<i64>,
    /// What all stacks take.
    pub(super) taken: Taken,
    ids: Map<&'a str, u32>,
    images: Map<Cow<'a, str>, Vec<u32>>,
    stacks: BTreeMap<String, Own>,
    next: u32,
    /// Who holds ports, by node and number.
    ports: Map<(u32, u16), Vec<Holder>>,
}

/// What is accounted of one stack.
#[derive(Debug, Default)]
struct Own {
    id: u32,
    /// What a task needs, service by service.
    needs: Vec<Needs>,
    /// The node of each task, and its service.
    tasks: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Holder {
    stack: u32,
    port: Port,
}

impl<'a> Cluster<'a> {
    /// A cluster without tasks. `volumes` says which node has a volume: name on the Engine, id
    /// of the node.
    pub fn new(
        nodes: impl IntoIterator<Item = &'a Node>,
        volumes: &'a BTreeMap<String, String>,
    ) -> Self {
        let mut nodes: Vec<&Node> = nodes.into_iter().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes.dedup_by(|a, b| a.id == b.id);
        let mut kinds: Vec<&str> = nodes
            .iter()
            .flat_map(|n| n.generic.keys().map(String::as_str))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut ids = Map::default();
        let mut images: Map<Cow<'_, str>, Vec<u32>> = Map::default();
        let mut ports: Map<_, Vec<Holder>> = Map::default();
        let mut declared = Vec::with_capacity(nodes.len() * kinds.len());
        for (index, node) in (0..).zip(&nodes) {
            ids.insert(node.id.as_str(), index);
            for image in &node.images {
                images.entry(full_name(image)).or_default().push(index);
            }
            for port in &node.ports {
                let holder = Holder {
                    stack: FOREIGN,
                    port: port.clone(),
                };
                ports
                    .entry((index, port.number()))
                    .or_default()
                    .push(holder);
            }
            declared.extend(
                kinds
                    .iter()
                    .map(|k| node.generic.get(*k).copied().unwrap_or(0)),
            );
        }
        Self {
            hashes: nodes.iter().map(|n| hash::text(&n.id)).collect(),
            taken: Taken::new(nodes.len(), kinds.len()),
            volumes,
            kinds,
            declared,
            ids,
            images,
            stacks: BTreeMap::new(),
            next: 0,
            ports,
            nodes,
        }
    }

    /// Accounts the tasks of a stack, in place of what was accounted of it before.
    pub fn add(&mut self, stack: &Stack, tasks: &Tasks) {
        let name = &stack.project.name;
        self.remove(name);
        let mut own = Own {
            id: self.next,
            ..Own::default()
        };
        self.next += 1;
        for (service, slots) in tasks {
            let Some(service) = stack.project.any_service(service) else {
                continue;
            };
            let needs = Needs::of(&stack.project, service, &self.kinds);
            for node in slots
                .values()
                .filter_map(|id| self.ids.get(id.as_str()).copied())
            {
                self.taken.add(node, &needs, 1, &self.declared);
                for port in &needs.ports {
                    let key = (node, port.number());
                    self.ports.entry(key).or_default().push(Holder {
                        stack: own.id,
                        port: port.clone(),
                    });
                }
                own.tasks.push((node, own.needs.len() as u32));
            }
            own.needs.push(needs);
        }
        self.stacks.insert(name.clone(), own);
    }

    /// Accounts nothing of a stack any longer.
    pub fn remove(&mut self, stack: &str) {
        let Some(own) = self.stacks.remove(stack) else {
            return;
        };
        for (node, service) in own.tasks {
            let needs = &own.needs[service as usize];
            self.taken.sub(node, needs, 1, &self.declared);
            for port in &needs.ports {
                if let Some(holders) = self.ports.get_mut(&(node, port.number())) {
                    holders.retain(|h| h.stack != own.id);
                }
            }
        }
    }

    /// What the tasks of all stacks take of a node; none if there is no such node.
    #[must_use]
    pub fn load(&self, node: &str) -> Option<Load> {
        let node = self.index(node)?;
        let mut load = self.taken.of(node, &self.kinds);
        for own in self.stacks.values() {
            let here = own.tasks.iter().filter(|(n, _)| *n == node);
            load.ports
                .extend(here.flat_map(|(_, s)| own.needs[*s as usize].ports.iter().cloned()));
        }
        Some(load)
    }

    /// The number of the node with an id.
    pub(super) fn index(&self, id: &str) -> Option<u32> {
        self.ids.get(id).copied()
    }

    pub(super) fn node(&self, node: u32) -> &'a Node {
        self.nodes[node as usize]
    }

    pub(super) fn is_ready(&self, node: u32) -> bool {
        self.node(node).standing == Standing::Ready
    }

    /// Nodes that have an image.
    pub(super) fn with_image(&self, image: &str) -> &[u32] {
        let nodes = self.images.get(full_name(image).as_ref());
        nodes.map_or(&[], Vec::as_slice)
    }

    /// What all stacks but one take.
    pub(super) fn taken_but(&self, stack: &str) -> Taken {
        let mut taken = self.taken.clone();
        if let Some(own) = self.stacks.get(stack) {
            for (node, service) in &own.tasks {
                taken.sub(*node, &own.needs[*service as usize], 1, &self.declared);
            }
        }
        taken
    }

    /// Whether a port of a node is held by something else than a stack.
    pub(super) fn is_held(&self, node: u32, port: &Port, but: &str) -> bool {
        let own = self.stacks.get(but).map(|o| o.id);
        let holders = self.ports.get(&(node, port.number()));
        holders.is_some_and(|h| (h.iter()).any(|h| Some(h.stack) != own && h.port.clashes(port)))
    }

    /// Whether a port of a node is held by a stack that comes before another. Of two that hold
    /// it (two coordinators placed at the same time) just one has to leave.
    pub(super) fn is_held_before(&self, node: u32, port: &Port, stack: &str) -> bool {
        let Some(holders) = self.ports.get(&(node, port.number())) else {
            return false;
        };
        let mut before = self
            .stacks
            .iter()
            .take_while(|(name, _)| name.as_str() < stack)
            .map(|(_, own)| own.id);
        before.any(|id| (holders.iter()).any(|h| h.stack == id && h.port.clashes(port)))
    }

    /// Processors and memory that stacks with smaller shares take of a node. Of those that take
    /// too much together, the one that takes most has to leave: it is who raised, and all agree.
    pub(super) fn smaller_shares(&self, node: u32, stack: &str, own: (u64, u64)) -> (u64, u64) {
        let (mut cpus, mut memory) = (0, 0);
        for (name, other) in &self.stacks {
            if name == stack {
                continue;
            }
            let here = other.tasks.iter().filter(|(n, _)| *n == node);
            let (c, m) = here
                .map(|(_, s)| &other.needs[*s as usize])
                .fold((0, 0), |(c, m), n| (c + n.cpus, m + n.memory));
            if (c, name.as_str()) < (own.0, stack) {
                cpus += c;
            }
            if (m, name.as_str()) < (own.1, stack) {
                memory += m;
            }
        }
        (cpus, memory)
    }
}

/// An image's name as Engines list it: short, and with a tag.
fn full_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("{name}:latest"))
    }
}
