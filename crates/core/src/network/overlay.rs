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
    // By network, so that a network costs what is on it, however many others there are.
    let nodes: Vec<(&Node, BTreeMap<&str, Vec<On>>)> = nodes
        .into_iter()
        .map(|node| (node, on_networks(node)))
        .collect();
    for name in networks_here(world) {
        let Some(network) = world.networks.get(name) else {
            continue;
        };
        let mut overlay = Overlay {
            vni: network.vni,
            remote: BTreeMap::new(),
        };
        for (node, on) in &nodes {
            let Some(host) = node.address else {
                continue;
            };
            let containers = on.get(name).into_iter().flatten();
            let attachments = containers.map(|(_, _, at)| *at);
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

/// Somebody on a network: whether it runs, its id, and how it is there.
type On<'a> = (bool, &'a str, &'a Attachment);

/// The containers of a node by network: those that run come last.
fn on_networks(node: &Node) -> BTreeMap<&str, Vec<On<'_>>> {
    let mut on: BTreeMap<&str, Vec<On<'_>>> = BTreeMap::new();
    for container in &node.containers {
        let runs = container.state == crate::State::Running;
        for (name, at) in &container.networks {
            let all = on.entry(name).or_default();
            all.push((runs, &container.id, at));
        }
    }
    for all in on.values_mut() {
        all.sort_by_key(|(runs, id, _)| (*runs, *id));
    }
    on
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
