//! Networks that span nodes: what is written of them, and what this node does about them.

mod allot;
mod bridges;
mod change;
mod drops;
mod encrypt;
mod explain;
mod faults;
mod flows;
mod host;
mod inside;
mod laps;
mod leave;
mod local;
mod plane;
mod ports;
mod processes;
mod repair;
mod routes;
mod shorten;
mod show;
mod spans;
mod underlay;
mod view;
mod walls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wharfie_cluster::Replica;
use wharfie_core::Stack;
use wharfie_core::network::{
    self, Fixed, Holder, NETWORK, Networks, Own, SLICE, Slice, Slices, VIP, Vip, Vips,
    slice_of_name, vip_of_name,
};

use super::world::read_all;

pub(super) use drops::Logged;
pub(super) use encrypt::Keys;
pub(super) use faults::Faults;
pub(super) use host::routes;
pub(super) use local::Addressing;
pub(super) use plane::keep;
pub(super) use routes::routes as api;
pub(super) use underlay::{Base, keep as keep_underlay};
pub(super) use walls::Holds;

/// What the store says of networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NetworkBook {
    pub(super) networks: Networks,
    pub(super) slices: Slices,
    pub(super) vips: Vips,
}

/// Whether objects of a kind are about networks.
pub(super) fn is_of_networks(kind: &str) -> bool {
    matches!(kind, NETWORK | SLICE | VIP)
}

impl NetworkBook {
    /// Reads it. What cannot be understood is left out: it is of a newer version, or damaged.
    pub(super) fn read(replica: &Replica) -> Result<Self, wharfie_cluster::Error> {
        let mut slices = Slices::new();
        for (name, slice) in read_all::<Slice>(replica, SLICE)? {
            if let Some((network, index)) = slice_of_name(&name) {
                let of = slices.entry(network.to_owned()).or_default();
                of.insert(index, slice);
            }
        }
        let vips = read_all::<Vip>(replica, VIP)?.into_iter();
        let vips = vips.filter_map(|(name, vip)| Some((vip_of_name(&name)?, vip)));
        Ok(Self {
            networks: read_all(replica, NETWORK)?.into_iter().collect(),
            slices,
            vips: vips.collect(),
        })
    }

    /// A node's own addresses on a network; none if it has no slice of it.
    pub(super) fn own(&self, name: &str, node: &str, fixed: &Fixed) -> Option<Own> {
        let (object, claims) = (self.networks.get(name)?, self.slices.get(name)?);
        network::own(object, claims, node, &fixed.on(name))
    }

    /// Static addresses of the tasks of all stacks. `seen` are the containers that there are; they are
    /// looked at if several tasks are to have one address.
    pub(super) fn fixed<'a>(
        &self,
        stacks: impl Iterator<Item = &'a Stack> + Clone,
        seen: impl FnOnce() -> Has,
    ) -> Fixed {
        let none = BTreeMap::new();
        let find =
            |stacks, has: &Has| network::fixed(stacks, &self.networks, &self.vips, &none, has);
        let found = find(stacks.clone(), &Has::new());
        if found.faults.is_empty() {
            return found;
        }
        find(stacks, &seen())
    }
}

/// Which tasks have which addresses, by network and address.
pub(super) type Has = BTreeMap<(String, IpAddr), Holder>;

/// The task that a container is.
pub(super) fn holder_of(container: &network::Running) -> Holder {
    Holder {
        stack: container.stack.clone(),
        service: container.service.clone(),
        number: container.number,
    }
}

/// Which tasks have which addresses, as seen.
pub(super) fn has<'a>(containers: impl Iterator<Item = &'a network::Running>) -> Has {
    let tasks = containers.filter(|c| !c.oneoff && !c.service.is_empty());
    let each = tasks.flat_map(|c| {
        let on = c.networks.iter();
        let at = on.flat_map(|(name, at)| at.addresses().map(|a| (name.clone(), a)));
        at.map(|key| (key, holder_of(c)))
    });
    let mut has = Has::new();
    for (key, holder) in each {
        // Of several, after a cut, the same one in the eyes of all nodes.
        let first = has.entry(key).or_insert_with(|| holder.clone());
        if holder < *first {
            *first = holder;
        }
    }
    has
}

/// Who answers for names on a network where a node's own addresses are these: its gateway there.
fn resolver(own: &Own) -> Option<IpAddr> {
    own.gateway.all().next()
}

/// Names of the networks that a stack's services are on.
fn used_by(stack: &Stack) -> BTreeSet<&str> {
    let services = stack.active.iter();
    let services = services.filter_map(|s| stack.project.any_service(s));
    services
        .flat_map(|s| s.networks.keys().map(String::as_str))
        .collect()
}

/// Addresses by the name of the network.
type Used = BTreeMap<String, BTreeSet<IpAddr>>;
