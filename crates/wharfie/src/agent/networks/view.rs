//! All that decisions about networks take: stacks, and what nodes report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use wharfie_core::network::encrypt::Encryption;
use wharfie_core::network::{Fixed, Node, Running, World};
use wharfie_core::report::ReportedContainer;
use wharfie_core::{Stack, State};

use super::walls::has_wall;
use super::{NetworkBook, has};
use crate::agent::director::DirectorBook;
use crate::agent::keeper::Keeper;
use crate::agent::world::Entry;
use crate::api::{self, NodeState};

/// Label of a node that says which place it is at.
const ZONE: &str = "zone";

/// What a [`World`] borrows.
pub(in crate::agent) struct Scene {
    pub(super) me: String,
    nodes: Vec<Node>,
    stacks: Vec<Arc<Stack>>,
    pub(in crate::agent) book: Arc<NetworkBook>,
    /// Addresses of the surrounding network.
    pub(in crate::agent) director: Arc<DirectorBook>,
    /// How nodes encrypt, by their ids, as they say.
    pub(super) said: BTreeMap<String, Encryption>,
    /// Names of this host's bridges.
    pub(super) bridges: BTreeSet<String>,
}

impl Scene {
    /// Does something with the world.
    pub(in crate::agent) fn with<T>(&self, f: impl FnOnce(&World) -> T) -> T {
        let stacks: Vec<&Stack> = self.stacks.iter().map(|s| &**s).collect();
        f(&World {
            me: &self.me,
            nodes: &self.nodes,
            stacks: &stacks,
            networks: &self.book.networks,
            // Networks of one node are its Engine's own affair: it answers for the names on them.
            local: &BTreeMap::new(),
            vips: &self.book.vips,
        })
    }

    /// Static addresses of the tasks of all stacks.
    pub(super) fn fixed(&self) -> Fixed {
        let seen = || has(self.nodes.iter().flat_map(|n| &n.containers));
        self.book.fixed(self.stacks.iter().map(|s| &**s), seen)
    }

    /// What is wanted.
    pub(super) fn stacks(&self) -> &[Arc<Stack>] {
        &self.stacks
    }

    /// Addresses of the other nodes.
    pub(super) fn peers(&self) -> impl Iterator<Item = IpAddr> {
        let others = self.nodes.iter().filter(|n| n.id != self.me);
        others.filter_map(|n| n.address)
    }

    /// Addresses of containers that run on nodes which answer. Networks of one node's Engine alone have
    /// the same addresses everywhere: only those of this node are meant.
    pub(super) fn there(&self) -> BTreeSet<IpAddr> {
        let mut there = BTreeSet::new();
        for node in self.nodes.iter().filter(|n| n.live) {
            let spans = |name: &String| self.book.networks.contains_key(name);
            let containers = node.containers.iter();
            let running = containers.filter(|c| c.state == State::Running);
            let at = running.flat_map(|c| &c.networks);
            let at = at.filter(|(name, _)| node.id == self.me || spans(name));
            there.extend(at.flat_map(|(_, at)| at.addresses()));
        }
        there
    }

    /// All nodes.
    pub(in crate::agent) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// This node.
    pub(in crate::agent) fn here(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == self.me)
    }
}

impl Keeper {
    /// Whether there is a network that spans nodes, a service with a firewall, or an address of the
    /// surrounding network held here.
    pub(super) fn has_networks(&self) -> bool {
        let walled = |entry: &Entry| {
            let project = &entry.stack.project;
            project.services.values().any(|s| has_wall(project, s))
        };
        let director = self.book.director();
        let held = director
            .addresses
            .values()
            .any(|a| a.node == self.fleet.id());
        !self.book.networks().networks.is_empty() || self.book.stacks().values().any(walled) || held
    }

    /// Everything as it is now.
    pub(in crate::agent) fn scene(&self) -> Scene {
        let members = self.fleet.members();
        let entries = self.book.stacks();
        let me = self.fleet.id();
        let director = self.book.director();
        let given = director.given();
        let said = members.iter().filter_map(|node| {
            let said = self.fleet.report_of(node)?.encryption.clone()?;
            Some((node.id.clone(), said))
        });
        let mut said: BTreeMap<String, Encryption> = said.collect();
        // What was reported may be of a moment ago.
        said.insert(me.clone(), self.own_encryption());
        Scene {
            said,
            me,
            nodes: members
                .iter()
                .filter(|n| n.state != NodeState::Removed)
                .map(|n| self.seen_of(n, &given))
                .collect(),
            stacks: entries.values().map(|e| Arc::clone(&e.stack)).collect(),
            book: self.book.networks(),
            director,
            bridges: super::host::bridges().into_keys().collect(),
        }
    }

    /// `given` are addresses of services, which are on nodes' devices for a while.
    fn seen_of(&self, node: &api::Node, given: &BTreeSet<IpAddr>) -> Node {
        let report = self.fleet.report_of(node);
        let report = report.as_deref();
        // Its own, so that what it sends from is what the others send to.
        let underlay = report.and_then(|r| r.underlay);
        let containers = report.map(|r| r.containers.iter().map(running).collect());
        Node {
            id: node.id.clone(),
            name: node.name.clone(),
            zone: node.labels.get(ZONE).cloned().unwrap_or_default(),
            address: underlay.or_else(|| address(node, given)),
            live: node.me || node.may_answer(),
            heard: node.me || report.is_some(),
            drained: self.book.is_drained(&node.id),
            own: report.map(|r| r.own.clone()).unwrap_or_default(),
            containers: containers.unwrap_or_default(),
        }
    }
}

/// Where other nodes send packets of a node's containers to that does not say so itself, since it was
/// not heard yet or is of an older version: the first of its addresses that is no service's, all know
/// them in the same order.
fn address(node: &api::Node, given: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let all = node.addresses.iter().filter_map(|a| api::host_of(a));
    let all: Vec<IpAddr> = all.filter(|ip| !given.contains(ip)).collect();
    let v4 = all.iter().find(|a| a.is_ipv4());
    v4.or(all.first()).copied()
}

pub(super) fn running(c: &ReportedContainer) -> Running {
    Running {
        id: c.id.clone(),
        name: c.name.clone(),
        stack: c.project.clone(),
        service: c.service.clone(),
        number: c.number,
        oneoff: c.oneoff,
        state: c.state,
        health: c.health,
        dying: c.dying,
        joined: c.joined.clone(),
        networks: c
            .attachments
            .iter()
            .map(|(n, a)| (n.clone(), *a))
            .collect::<BTreeMap<_, _>>(),
    }
}
