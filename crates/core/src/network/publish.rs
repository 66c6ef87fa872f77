//! Ports that are published on every node (`ports` with `mode: ingress`), and the tasks behind them.
//!
//! A port with `mode: host` is the Engine's to publish, on the nodes of the tasks. So is one for a single
//! address of a host, which other nodes do not have, and one whose port the Engine chooses: nobody could
//! know it on another node.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use wharfie_compose::model::{Port, Project, Service};

use super::balance::{Backend, backend};
use super::firewall::Protocol;
use super::world::Index;
use super::{Networks, World};
use crate::labels;
use crate::wanted::Stack;

/// A port of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

impl PublishedPort {
    /// What a port of a file is on every node, if it is published there (compose-spec, `ports`).
    #[must_use]
    pub fn of(port: &Port) -> Option<Self> {
        let all = matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
        let number = port.published.parse().ok().filter(|n| *n != 0)?;
        let protocol = match port.protocol.as_str() {
            "" => Protocol::Tcp,
            text => Protocol::of(text)?,
        };
        (all && port.mode != "host").then_some(Self {
            protocol,
            port: number,
        })
    }
}

impl PublishedPort {
    /// How a label says it: with the port of the tasks.
    #[must_use]
    pub fn mapping(&self, target: u16) -> String {
        format!("{}:{target}/{}", self.port, self.protocol.as_str())
    }

    /// What a label says: port of the nodes, port of the tasks and protocol.
    pub fn mappings(label: &str) -> impl Iterator<Item = (u16, u16, &str)> {
        label.split(' ').filter_map(|text| {
            let (ports, protocol) = text.split_once('/')?;
            let (port, target) = ports.split_once(':')?;
            Some((port.parse().ok()?, target.parse().ok()?, protocol))
        })
    }
}

impl std::fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
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

/// Whether the cluster publishes ports of a service of a project that is one node's part of a stack
/// ([`localize`](super::localize)): else its Engine does.
#[must_use]
pub fn is_clusters(project: &Project, service: &Service) -> bool {
    let networks = service.networks.keys();
    let mut networks = networks.filter_map(|key| project.networks.get(key));
    networks.any(|n| n.labels.contains_key(labels::RESOLVER))
}

/// Whether the cluster publishes ports of a service once there are several nodes.
#[must_use]
pub fn will_be_clusters(project: &Project, service: &Service) -> bool {
    let networks = service.networks.keys();
    let mut networks = networks.filter_map(|key| project.networks.get(key));
    networks.any(super::spans)
}

/// The ports of a service that every node publishes, with the port of its tasks.
pub fn everywhere(service: &Service) -> impl Iterator<Item = (PublishedPort, u16)> + '_ {
    let ports = service.ports.iter();
    ports.filter_map(|p| Some((PublishedPort::of(p)?, p.target)))
}

/// The network by which a service's published ports are reached from every node: of those that are
/// over several nodes one with a way out, then as the file ranks them, then one with IPv6.
#[must_use]
pub fn network_of<'a>(stack: &'a Stack, service: &Service, networks: &Networks) -> Option<&'a str> {
    let named = service.networks.iter().filter_map(|(key, attachment)| {
        let name = stack.project.networks.get(key)?.name.as_str();
        let network = networks.get(name)?;
        let rank = attachment
            .as_ref()
            .map_or((0, 0), |a| (a.gw_priority, a.priority));
        Some((
            (network.internal, -rank.0, -rank.1, network.v6.is_none()),
            name,
        ))
    });
    named.min().map(|(_, name)| name)
}

/// Networks of a stack that every node takes part in, since it publishes ports of services on them.
#[must_use]
pub fn networks_everywhere<'a>(stack: &'a Stack, networks: &Networks) -> BTreeSet<&'a str> {
    let services = stack.active.iter();
    let services = services.filter_map(|name| stack.project.any_service(name));
    let publishing = services.filter(|s| everywhere(s).next().is_some());
    publishing
        .filter_map(|service| network_of(stack, service, networks))
        .collect()
}

/// A port that a stack wants and another has already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "services.{service}.ports: every node publishes {port} for {holder} already; choose another port, or `mode: host`"
)]
pub struct PortTaken {
    /// The service that wants it.
    pub service: String,
    /// The port.
    pub port: PublishedPort,
    /// Who has it: stack and service.
    pub holder: String,
}

/// Whether all ports can be had that a stack wants to be published on every node.
///
/// # Errors
/// The first that cannot.
pub fn check<'a>(
    stack: &Stack,
    others: impl IntoIterator<Item = &'a Stack>,
) -> Result<(), PortTaken> {
    let mut taken: BTreeMap<PublishedPort, String> = BTreeMap::new();
    let of = |stack: &'a Stack| ports_of(stack).map(move |(name, port)| (port, name, stack));
    for (port, service, other) in others.into_iter().flat_map(of) {
        taken.insert(port, format!("{}/{service}", other.project.name));
    }
    for (service, port) in ports_of(stack) {
        let name = format!("{}/{service}", stack.project.name);
        match taken.get(&port) {
            Some(holder) if *holder != name => {
                return Err(PortTaken {
                    service: service.to_owned(),
                    port,
                    holder: holder.clone(),
                });
            }
            _ => drop(taken.insert(port, name)),
        }
    }
    Ok(())
}

/// The ports that every node publishes for a stack, with their services.
fn ports_of(stack: &Stack) -> impl Iterator<Item = (&str, PublishedPort)> {
    let services = stack.active.iter();
    let services = services.filter_map(|name| stack.project.any_service(name));
    let services = services.filter(|s| will_be_clusters(&stack.project, s));
    services.flat_map(|s| everywhere(s).map(|(port, _)| (s.name.as_str(), port)))
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
            for (key, target) in everywhere(service) {
                if let Some(holder) = table.ports.get(&key) {
                    table.clashes.push(format!(
                        "{}/{name}: port {key} is published by {}/{} already",
                        project.name, holder.stack, holder.service
                    ));
                    continue;
                }
                let published = Published {
                    stack: project.name.clone(),
                    service: name.clone(),
                    network: network.to_owned(),
                    target,
                    backends: ready().into_iter().map(backend).collect(),
                };
                table.ports.insert(key, published);
            }
        }
    }
    table
}
