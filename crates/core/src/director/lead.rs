//! To which tasks a node leads the addresses that it holds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Address, Addresses, Owner};
use crate::heal::Millis;
use crate::network::publish;
use crate::network::{Node, Running, World};
use crate::seen::{Health, State};
use crate::wanted::Stack;

/// An address that a node holds, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// Whose it is.
    pub owner: Owner,
    /// The address.
    pub address: IpAddr,
    /// Ready tasks, of the same family. If there are none, whoever connects is refused.
    pub tasks: Vec<IpAddr>,
    /// A task is on the network of the host itself: packets are the host's.
    pub here: bool,
    /// The network of the cluster by which tasks are reached; none if it is one of this node alone.
    pub network: Option<String>,
}

/// Whether a container is given to those who look for its service.
#[must_use]
pub fn is_ready(container: &Running) -> bool {
    let well = matches!(container.health, Health::None | Health::Healthy);
    container.state == State::Running && well && !container.dying
}

/// What this node does with the addresses that it holds.
#[must_use]
pub fn lead(world: &World, addresses: &Addresses) -> Vec<Led> {
    let is_held = |address: &Address| address.node == world.me;
    all(world, addresses, is_held)
}

/// Addresses that containers of this node reach without a way around by the node that holds them: those
/// of services on networks that they are on, and their own. A packet of a container that would come back to
/// it by the port of the bridge that it came by is not sent.
#[must_use]
pub fn beside(world: &World, addresses: &Addresses) -> Vec<Led> {
    let mut all = all(world, addresses, |_| true);
    let of_cluster = |l: &Led| l.network.is_some();
    let held = |l: &Led| addresses.get(&l.owner).is_some_and(|a| a.node == world.me);
    all.retain(|l| !l.tasks.is_empty() && !l.here && (of_cluster(l) || held(l)));
    all
}

fn all(world: &World, addresses: &Addresses, which: impl Fn(&Address) -> bool) -> Vec<Led> {
    let given = addresses.iter();
    let held = given.filter(|(_, a)| a.freed.is_none() && which(a));
    let stacks: BTreeMap<&str, &&Stack> = world
        .stacks
        .iter()
        .map(|s| (s.project.name.as_str(), s))
        .collect();
    let Some(me) = world.nodes.iter().find(|n| n.id == world.me) else {
        return Vec::new();
    };
    let first = first_owners(addresses);
    let mut all = Vec::new();
    for (owner, address) in held {
        let (tasks, here, network) = match owner {
            Owner::Container { name, .. } => {
                let containers = me.containers.iter().filter(|c| c.name == *name);
                of_host(containers.collect())
            }
            Owner::Service {
                stack,
                service,
                task,
            } => {
                let is_own = |c: &&Running| {
                    let same = c.stack == *stack && c.service == *service && !c.oneoff;
                    same && task.is_none_or(|t| t == c.number)
                };
                let definition = stacks.get(stack.as_str());
                let network = definition.and_then(|s| {
                    let of = s.project.any_service(service)?;
                    publish::network_of(s, of, world.networks)
                });
                match network {
                    // It is not there yet.
                    Some(name) if !me.own.contains_key(name) => (Vec::new(), false, Some(name)),
                    Some(name) => {
                        let tasks = over_nodes(world.nodes, name, is_own);
                        (tasks, false, Some(name))
                    }
                    None => of_host(me.containers.iter().filter(is_own).collect()),
                }
            }
        };
        for address in address.all().filter(|ip| first.get(ip) == Some(&owner)) {
            let of = |t: &&IpAddr| t.is_ipv6() == address.is_ipv6();
            all.push(Led {
                owner: owner.clone(),
                address,
                tasks: tasks.iter().filter(of).copied().collect(),
                here,
                network: network.map(str::to_owned),
            });
        }
    }
    all
}

/// Of owners that have the same address, as two sides of a cut may give it, the one that keeps it.
fn first_owners(addresses: &Addresses) -> BTreeMap<IpAddr, &Owner> {
    let mut first: BTreeMap<IpAddr, (bool, Millis, &Owner)> = BTreeMap::new();
    for (owner, address) in addresses.iter().filter(|(_, a)| a.freed.is_none()) {
        let rank = (!address.asked, address.since, owner);
        for ip in address.all() {
            let entry = first.entry(ip).or_insert(rank);
            *entry = rank.min(*entry);
        }
    }
    first
        .into_iter()
        .map(|(ip, (_, _, owner))| (ip, owner))
        .collect()
}

/// Ready tasks of a service by a network of the cluster, on whatever node.
fn over_nodes(nodes: &[Node], network: &str, is_own: impl Fn(&&Running) -> bool) -> Vec<IpAddr> {
    let on = |node: &Node| -> Vec<IpAddr> {
        let ready = node.containers.iter().filter(|c| is_own(c) && is_ready(c));
        ready
            .filter_map(|c| c.networks.get(network))
            .flat_map(crate::network::Attachment::addresses)
            .collect()
    };
    let live = |drained: bool| nodes.iter().filter(move |n| n.live && n.drained == drained);
    let mut tasks: Vec<IpAddr> = live(false).flat_map(on).collect();
    if tasks.is_empty() {
        tasks = live(true).flat_map(on).collect();
    }
    tasks.sort_unstable();
    tasks
}

/// Containers of this host by its own networks; whether one is on the host's.
fn of_host(containers: Vec<&Running>) -> (Vec<IpAddr>, bool, Option<&'static str>) {
    let ready: Vec<&Running> = containers.into_iter().filter(|c| is_ready(c)).collect();
    let here = ready.iter().any(|c| c.networks.contains_key("host"));
    let mut tasks: Vec<IpAddr> = Vec::new();
    for container in ready {
        for ipv6 in [false, true] {
            let all = container
                .networks
                .values()
                .flat_map(crate::network::Attachment::addresses);
            tasks.extend(all.filter(|a| a.is_ipv6() == ipv6).take(1));
        }
    }
    tasks.sort_unstable();
    (tasks, here, None)
}
