//! What stands behind the addresses of services: the tasks that new connections go to.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::world::{Index, Member};
use super::{Vip, VipKey, World};
use crate::extension::{self, Affinity};

/// A service's address and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    /// The address.
    pub vip: Vip,
    /// Whether a client always gets the same task.
    pub affinity: Affinity,
    /// Tasks that new connections go to, in order of their numbers. Without any, connections are
    /// refused. Those that are open stay where they are, also when their task is no longer listed.
    pub backends: Vec<Backend>,
}

/// A task behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Number of the task.
    pub number: u32,
    /// Id of its node.
    pub node: String,
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

pub(super) fn backend(member: &Member) -> Backend {
    Backend {
        number: member.container.number,
        node: member.node.id.clone(),
        v4: member.at.v4,
        v6: member.at.v6,
    }
}

/// The services with an address on the networks that containers of this node are on. Clients reach
/// all ports of the tasks through it.
#[must_use]
pub fn balance(world: &World) -> BTreeMap<VipKey, Balanced> {
    let here = super::overlay::networks_here(world);
    let index = Index::of(world);
    let mut all = BTreeMap::new();
    for (key, vip) in world
        .vips
        .iter()
        .filter(|(k, _)| here.contains(k.network.as_str()))
    {
        let Some(group) = index.group(&key.network, &key.stack, &key.service) else {
            continue;
        };
        if !group.definition.is_none_or(super::vip::has_vip) {
            continue;
        }
        let of_stack = |s: &&&crate::Stack| s.project.name == key.stack;
        let project = world.stacks.iter().find(of_stack).map(|s| &s.project);
        let affinity = project.zip(group.definition);
        let balanced = Balanced {
            vip: vip.clone(),
            affinity: affinity.map_or(Affinity::None, |(p, s)| extension::affinity(p, s)),
            backends: group.ready().into_iter().map(backend).collect(),
        };
        all.insert(key.clone(), balanced);
    }
    all
}
