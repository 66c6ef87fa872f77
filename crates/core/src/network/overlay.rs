//! Who of a network is on another node, and behind which host: the forwarding entries of its VXLAN.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Attachment, Mac, Node, World};

/// A network on this node that needs a VXLAN, since somebody else of it is on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Who is elsewhere, by address: neighbours and forwarding entries are set from this.
    pub remote: BTreeMap<IpAddr, Remote>,
}

/// Somebody on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Hardware address.
    pub mac: Mac,
    /// Address of the host that it is behind.
    pub host: IpAddr,
}

impl Overlay {
    /// Hosts that somebody is behind.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<IpAddr> {
        self.remote.values().map(|r| r.host).collect()
    }

    /// Forwarding entries: hardware address to host.
    #[must_use]
    pub fn forwarding(&self) -> BTreeMap<Mac, IpAddr> {
        self.remote.values().map(|r| (r.mac, r.host)).collect()
    }
}

/// Networks that containers of a node are on, running or about to.
fn used_by(node: &Node) -> impl Iterator<Item = &str> {
    let used: BTreeSet<&str> = node
        .containers
        .iter()
        .flat_map(|c| c.networks.keys().map(String::as_str))
        .collect();
    used.into_iter()
}

/// The networks of the cluster that this node takes part in: where its containers are, and those of
/// services whose ports every node publishes.
#[must_use]
pub fn networks_here<'a>(world: &World<'a>) -> BTreeSet<&'a str> {
    let me = world.nodes.iter().find(|n| n.id == world.me);
    let used = me.into_iter().flat_map(used_by);
    let used = used.filter(|n| world.networks.contains_key(*n));
    let stacks = world.stacks.iter();
    let everywhere =
        stacks.flat_map(|stack| super::publish::networks_everywhere(stack, world.networks));
    used.chain(everywhere).collect()
}

/// The networks of this node that span others, and who is there. Nodes that do not answer are kept:
/// what they run may well be reached, and names do not lead there meanwhile.
#[must_use]
pub fn overlays(world: &World) -> BTreeMap<String, Overlay> {
    let mut all: BTreeMap<String, Overlay> = BTreeMap::new();
    // Whoever answers, then whoever runs, comes last and so counts where two have one address.
    let mut nodes: Vec<&Node> = world.nodes.iter().filter(|n| n.id != world.me).collect();
    nodes.sort_by_key(|n| (n.live, &n.id));
    for name in networks_here(world) {
        let Some(network) = world.networks.get(name) else {
            continue;
        };
        let mut overlay = Overlay {
            vni: network.vni,
            remote: BTreeMap::new(),
        };
        for node in &nodes {
            let Some(host) = node.address else {
                continue;
            };
            let mut containers: Vec<&super::Running> = node.containers.iter().collect();
            containers.sort_by_key(|c| (c.state == crate::State::Running, &c.id));
            let attachments = containers.iter().filter_map(|c| c.networks.get(name));
            let all = node.own.get(name).into_iter().chain(attachments);
            for at in all.filter(|at| at.mac.is_some()) {
                add(&mut overlay, at, host, network);
            }
        }
        if !overlay.remote.is_empty() {
            all.insert(name.to_owned(), overlay);
        }
    }
    all
}

fn add(overlay: &mut Overlay, at: &Attachment, host: IpAddr, network: &super::Network) {
    let Some(mac) = at.mac else {
        return;
    };
    let shared = |a: &IpAddr| network.pools().any(|p| p.gateway == Some(*a));
    // A gateway that the file says is on every node: each uses its own.
    for address in at.addresses().filter(|a| !shared(a)) {
        overlay.remote.insert(address, Remote { mac, host });
    }
}
