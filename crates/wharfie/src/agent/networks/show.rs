//! Networks of the cluster as people look at them.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::Stack;
use wharfie_core::network::{
    self, Claims, Layout, Network, Route, barred, bridge_name, conflicts, slices_of,
};
use wharfie_core::report::ReportedContainer;

use super::{NetworkBook, host, used_by};
use crate::agent::keeper::Keeper;
use crate::api::Node;
use crate::api_network::{Attached, NetworkInfo, NodePart};

impl Keeper {
    /// All networks of the cluster, by name.
    pub(super) fn network_infos(&self) -> Vec<NetworkInfo> {
        let book = self.book.networks();
        let nodes = self.fleet.nodes();
        let stacks = self.book.stacks();
        let fixed = self.fixed();
        let bridges = host::bridges();
        let each = book.networks.iter().map(|(name, object)| {
            let none = Claims::new();
            let claims = book.slices.get(name).unwrap_or(&none);
            let mut parts = BTreeMap::new();
            let mut containers = Vec::new();
            for node in &nodes {
                let on = on(node, name);
                let slices = slices_of(claims, &node.id);
                if on.is_empty() && slices.is_empty() {
                    continue;
                }
                let own = network::own(object, claims, &node.id, &fixed.on(name));
                let reported = node.report.as_ref().and_then(|r| r.own.get(name));
                let here = bridges.get(&bridge_name(object.vni)).filter(|_| node.me);
                let part = NodePart {
                    slices: slices.iter().map(|s| ranges(object, *s)).collect(),
                    gateway: own.iter().flat_map(|o| o.gateway.all()).collect(),
                    own: own.iter().flat_map(|o| o.own.all()).collect(),
                    bridge: here.copied().or(reported.and_then(|r| r.mac)),
                    away: (!node.me && !node.may_answer()).then(|| node.away()),
                };
                parts.insert(node.name.clone(), part);
                containers.extend(on.into_iter().map(|c| attached(node, name, c)));
            }
            containers.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
            NetworkInfo {
                name: name.clone(),
                object: object.clone(),
                encrypted: false,
                stacks: wanting(stacks.values().map(|e| &*e.stack), name),
                nodes: parts,
                services: services(&book, name),
                containers,
                faults: self.faults_of(name, &book, &nodes),
            }
        });
        each.collect()
    }

    /// What is not as it should be with a network, on any node.
    fn faults_of(&self, name: &str, book: &NetworkBook, nodes: &[Node]) -> Vec<String> {
        let mut faults = BTreeSet::new();
        for node in nodes.iter().filter(|n| n.me || n.may_answer()) {
            let Some(report) = &node.report else { continue };
            let own = report.network_faults.iter();
            let own = own.filter(|f| f.between || f.network == name);
            faults.extend(own.map(|f| format!("node {}: {}", node.name, f.what)));
            let routes = report.routes.iter().map(|(to, device)| Route {
                node: node.name.clone(),
                to: *to,
                device: device.clone(),
            });
            let routes: Vec<Route> = routes.collect();
            let alone = book.networks.get_key_value(name);
            let alone = alone.map(|(n, o)| (n.clone(), o.clone()));
            let barred = barred(&alone.into_iter().collect(), &routes);
            // The node itself says so as well, in the same words.
            faults.extend(
                barred
                    .into_iter()
                    .filter(|_| own_is_silent(report, name))
                    .map(|(_, subnet, route)| {
                        format!("its subnet {subnet} overlaps the route {route}")
                    }),
            );
        }
        let of = |c: &network::Conflict| c.stays == name || c.other == name;
        let clashes = conflicts(&book.networks).into_iter().filter(of);
        faults.extend(clashes.map(|c| c.to_string()));
        faults.into_iter().collect()
    }
}

fn own_is_silent(report: &wharfie_core::report::Report, network: &str) -> bool {
    !report.network_faults.iter().any(|f| f.network == network)
}

/// Containers of a node on a network.
fn on<'a>(node: &'a Node, network: &str) -> Vec<&'a ReportedContainer> {
    let containers = node.report.iter().flat_map(|r| &r.containers);
    containers
        .filter(|c| c.attachments.contains_key(network))
        .collect()
}

fn attached(node: &Node, network: &str, c: &ReportedContainer) -> Attached {
    let at = c.attachments.get(network).copied().unwrap_or_default();
    Attached {
        id: c.id.clone(),
        name: c.name.clone(),
        node: node.name.clone(),
        stack: c.project.clone(),
        service: c.service.clone(),
        state: c.state.as_str().to_owned(),
        addresses: at.addresses().collect(),
        mac: at.mac,
    }
}

/// First and last address of a slice, for each family.
fn ranges(object: &Network, slice: u32) -> String {
    let layout = Layout::of(object);
    let first = slice * layout.slice_size();
    let (first, last) = (
        layout.addresses(first),
        layout.addresses(first + layout.slice_size() - 1),
    );
    let pairs = first.all().zip(last.all());
    let pairs: Vec<String> = pairs.map(|(a, b)| format!("{a}-{b}")).collect();
    pairs.join(", ")
}

/// Stacks whose services are on a network.
pub(super) fn wanting<'a>(stacks: impl Iterator<Item = &'a Stack>, network: &str) -> Vec<String> {
    let on = |stack: &&Stack| {
        let mut keys = used_by(stack).into_iter();
        let named = |key: &str| stack.project.networks.get(key).map(|n| n.name.as_str());
        keys.any(|key| named(key) == Some(network))
    };
    stacks.filter(on).map(|s| s.project.name.clone()).collect()
}

fn services(book: &NetworkBook, network: &str) -> BTreeMap<String, Vec<std::net::IpAddr>> {
    let own = book.vips.iter().filter(|(key, _)| key.network == network);
    let each = own.map(|(key, vip)| {
        let name = format!("{}/{}", key.stack, key.service);
        (name, vip.addresses().collect())
    });
    each.collect()
}
