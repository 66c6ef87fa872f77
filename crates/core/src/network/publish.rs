//! Ports that are published on every node (`ports` with `mode: ingress`), and the tasks behind them.
//!
//! A port with `mode: host` is the Engine's to publish, on the nodes of the tasks. So is one without a
//! port of the host, which the Engine then chooses: nobody could know it on another node.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use wharfie_compose::model::{Port, Service};

use super::balance::{Backend, backend};
use super::firewall::Protocol;
use super::world::Index;
use super::{Networks, World};
use crate::wanted::Stack;

/// A port of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Address of the host, as the file says; empty for all.
    pub ip: String,
}

/// What is behind a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Stack.
    pub stack: String,
    /// Service.
    pub service: String,
    /// The network by which every node reaches the tasks.
    pub network: String,
    /// Port of the tasks.
    pub target: u16,
    /// The tasks.
    pub backends: Vec<Backend>,
}

/// All ports that every node publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// By port.
    pub ports: BTreeMap<PublishedPort, Published>,
    /// Ports that somebody else publishes already, in words.
    pub clashes: Vec<String>,
}

/// Whether a port is published on every node.
#[must_use]
pub fn is_everywhere(port: &Port) -> bool {
    port.mode != "host" && !port.published.is_empty()
}

/// The network by which a service's published ports are reached from every node: of those that are
/// over several nodes one with a way out, then as the file ranks them.
#[must_use]
pub fn network_of<'a>(stack: &'a Stack, service: &Service, networks: &Networks) -> Option<&'a str> {
    let named = service.networks.iter().filter_map(|(key, attachment)| {
        let name = stack.project.networks.get(key)?.name.as_str();
        let network = networks.get(name)?;
        let rank = attachment
            .as_ref()
            .map_or((0, 0), |a| (a.gw_priority, a.priority));
        Some(((network.internal, -rank.0, -rank.1), name))
    });
    named.min().map(|(_, name)| name)
}

/// Networks that every node takes part in, since it publishes ports of services on them.
pub(super) fn networks_everywhere<'a>(world: &World<'a>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for stack in world.stacks {
        for name in &stack.active {
            let service = stack.project.any_service(name);
            let publishes = |s: &&Service| s.ports.iter().any(is_everywhere);
            if let Some(service) = service.filter(publishes) {
                found.extend(network_of(stack, service, world.networks));
            }
        }
    }
    found
}

/// All ports that every node publishes, and the tasks behind them. Of two services that publish the
/// same, the first by stack and name has it.
#[must_use]
pub fn publish(world: &World) -> Table {
    let index = Index::of(world);
    let mut table = Table::default();
    let mut stacks: Vec<&&Stack> = world.stacks.iter().collect();
    stacks.sort_by_key(|s| &s.project.name);
    for stack in stacks {
        let project = &stack.project;
        for name in &stack.active {
            let Some(service) = project.any_service(name) else {
                continue;
            };
            let Some(network) = network_of(stack, service, world.networks) else {
                continue;
            };
            let group = index.group(network, &project.name, name);
            let ready = || group.map(super::world::Group::ready).unwrap_or_default();
            for port in service.ports.iter().filter(|p| is_everywhere(p)) {
                let first = port.published.split('-').next().unwrap_or_default();
                let protocol = match port.protocol.as_str() {
                    "" => Some(Protocol::Tcp),
                    text => Protocol::of(text),
                };
                let (Ok(number), Some(protocol)) = (first.parse(), protocol) else {
                    continue;
                };
                let key = PublishedPort {
                    protocol,
                    port: number,
                    ip: port.host_ip.clone(),
                };
                if let Some((other, holder)) = table.ports.iter().find(|(k, _)| clash(k, &key)) {
                    table.clashes.push(format!(
                        "{}/{name}: port {}/{} is published by {}/{} already",
                        project.name,
                        other.port,
                        other.protocol.as_str(),
                        holder.stack,
                        holder.service
                    ));
                    continue;
                }
                let published = Published {
                    stack: project.name.clone(),
                    service: name.clone(),
                    network: network.to_owned(),
                    target: port.target,
                    backends: ready().into_iter().map(backend).collect(),
                };
                table.ports.insert(key, published);
            }
        }
    }
    table
}

fn clash(a: &PublishedPort, b: &PublishedPort) -> bool {
    let all = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    a.protocol == b.protocol && a.port == b.port && (a.ip == b.ip || all(&a.ip) || all(&b.ip))
}
