//! Addresses that files give to tasks (`ipv4_address`, `ipv6_address`): one task in the whole
//! cluster can have each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Network, Networks, Vips};
use crate::wanted::Stack;

/// Who is to have a static address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Stack.
    pub stack: String,
    /// Service.
    pub service: String,
    /// Number of the task.
    pub number: u32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.stack, self.service, self.number)
    }
}

/// Why a task does not get the address that its file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no address of the network.
    #[error("{holder}: {address} is not in the subnets of network {network} ({subnets})")]
    Outside {
        /// The task.
        holder: Holder,
        /// What the file says.
        address: String,
        /// The network.
        network: String,
        /// Its subnets.
        subnets: String,
    },
    /// It is the network's own, a gateway, or kept for something else.
    #[error("{holder}: {address} on network {network} is not free: it is {what}")]
    Kept {
        /// The task.
        holder: Holder,
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// What it is.
        what: String,
    },
    /// Another task has it; this one waits.
    #[error(
        "{holder} waits: {address} on network {network} is {other}'s; a service with a static address can have one task only"
    )]
    Taken {
        /// The task.
        holder: Holder,
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// Who has it.
        other: Holder,
    },
}

impl Fault {
    /// The task.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        match self {
            Self::Outside { holder, .. }
            | Self::Kept { holder, .. }
            | Self::Taken { holder, .. } => holder,
        }
    }
}

/// Static addresses of all stacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed {
    /// By network: who has which.
    pub holders: BTreeMap<String, BTreeMap<IpAddr, Holder>>,
    /// What cannot be.
    pub faults: Vec<Fault>,
}

impl Fixed {
    /// The static addresses on a network.
    #[must_use]
    pub fn on(&self, network: &str) -> BTreeSet<IpAddr> {
        let holders = self.holders.get(network);
        holders
            .into_iter()
            .flat_map(|h| h.keys().copied())
            .collect()
    }

    /// Why a task waits, if it does.
    #[must_use]
    pub fn why_not(&self, stack: &str, service: &str, number: u32) -> Option<&Fault> {
        let is = |h: &Holder| h.stack == stack && h.service == service && h.number == number;
        self.faults.iter().find(|f| is(f.holder()))
    }
}

/// Static addresses of the tasks of all stacks. Of several tasks that are to have the same address,
/// the first by stack, service and number has it, and the others wait; a task that has it already
/// keeps it (`has`: network and address to task). `own` are the addresses that nodes have
/// themselves: network and address to name of the node.
#[must_use]
pub fn fixed<'a>(
    stacks: impl IntoIterator<Item = &'a Stack>,
    networks: &Networks,
    vips: &Vips,
    own: &BTreeMap<(String, IpAddr), String>,
    has: &BTreeMap<(String, IpAddr), Holder>,
) -> Fixed {
    let mut found = Fixed::default();
    let mut wanted: BTreeMap<(String, IpAddr), Vec<Holder>> = BTreeMap::new();
    for stack in stacks {
        for service in &stack.active {
            let Some(definition) = stack.project.any_service(service) else {
                continue;
            };
            for (key, attachment) in &definition.networks {
                let Some(attachment) = attachment else {
                    continue;
                };
                let name = stack.project.networks.get(key).map_or("", |n| &n.name);
                let Some(network) = networks.get(name) else {
                    continue;
                };
                for text in [&attachment.ipv4_address, &attachment.ipv6_address] {
                    // One that has no tasks needs none.
                    if text.is_empty() || stack.count(service) == 0 {
                        continue;
                    }
                    let holders = (1..=stack.count(service)).map(|number| Holder {
                        stack: stack.project.name.clone(),
                        service: service.clone(),
                        number,
                    });
                    match text.parse().ok().filter(|a| network.contains(*a)) {
                        Some(address) => {
                            let key = (name.to_owned(), address);
                            wanted.entry(key).or_default().extend(holders);
                        }
                        None => found.faults.extend(holders.map(|holder| Fault::Outside {
                            holder,
                            address: text.clone(),
                            network: name.to_owned(),
                            subnets: subnets(network),
                        })),
                    }
                }
            }
        }
    }
    for ((name, address), mut holders) in wanted {
        holders.sort();
        let node = own.get(&(name.clone(), address));
        let node = node.map(|n| format!("the address of node {n}"));
        let of_network = || {
            networks
                .get(&name)
                .and_then(|n| kept(n, &name, address, vips))
        };
        if let Some(what) = node.or_else(of_network) {
            found
                .faults
                .extend(holders.into_iter().map(|holder| Fault::Kept {
                    holder,
                    address,
                    network: name.clone(),
                    what: what.clone(),
                }));
            continue;
        }
        let having = has.get(&(name.clone(), address));
        let having = having.and_then(|h| holders.iter().position(|o| o == h));
        let first = holders.remove(having.unwrap_or(0));
        found
            .faults
            .extend(holders.into_iter().map(|holder| Fault::Taken {
                holder,
                address,
                network: name.clone(),
                other: first.clone(),
            }));
        found
            .holders
            .entry(name)
            .or_default()
            .insert(address, first);
    }
    found
}

fn subnets(network: &Network) -> String {
    let subnets: Vec<String> = network.pools().map(|p| p.subnet.to_string()).collect();
    subnets.join(", ")
}

/// What an address is that no task can have.
fn kept(network: &Network, name: &str, address: IpAddr, vips: &Vips) -> Option<String> {
    for pool in network.pools() {
        if pool.gateway == Some(address) {
            return Some("the gateway".to_owned());
        }
        if pool.subnet.base() == address {
            return Some("the network's own address".to_owned());
        }
        if !pool.subnet.is_ipv6() && pool.subnet.last() == address {
            return Some("the broadcast address".to_owned());
        }
        if let Some((host, _)) = pool.kept.iter().find(|(_, a)| **a == address) {
            return Some(format!("kept for {host} (`aux_addresses`)"));
        }
    }
    let of_service = |(key, vip): &(&super::VipKey, &super::Vip)| {
        key.network == name && vip.addresses().any(|a| a == address)
    };
    let (key, _) = vips.iter().find(of_service)?;
    Some(format!(
        "the address of service {}/{}",
        key.stack, key.service
    ))
}
