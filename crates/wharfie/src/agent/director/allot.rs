//! What is written of addresses of the surrounding network: by the coordinator of a stack for its services,
//! by each node for containers that are of no stack.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;
use wharfie_cluster::Key;
use wharfie_core::Stack;
use wharfie_core::assignment::Assignments;
use wharfie_core::director::{
    ADDRESS, Address, Changes, Claim, Director, Lan, Owner, allot, of_container, wanted,
    wrong_label,
};
use wharfie_core::network::Cidr;
use wharfie_core::report::NetworkFault;
use wharfie_core::schedule::Standing;

use crate::agent::keeper::{Keeper, Puts, now};
use crate::agent::networks;
use crate::api::host_of;
use crate::failure::Failure;

fn puts(changes: &Changes) -> Puts {
    let value = |address: &Address| serde_json::to_value(address).ok();
    let put = changes.put.iter();
    let put = put.map(|(owner, a)| (Key::new(ADDRESS, owner.to_string()), value(a)));
    let gone = changes.delete.iter();
    put.chain(gone.map(|owner| (Key::new(ADDRESS, owner.to_string()), None)))
        .collect()
}

/// What goes wrong, as all nodes are told of it.
pub(super) fn faults(words: impl IntoIterator<Item = String>) -> BTreeSet<NetworkFault> {
    let fault = |what| NetworkFault {
        what,
        ..NetworkFault::default()
    };
    words.into_iter().map(fault).collect()
}

impl Keeper {
    /// What is to be written before a stack is started: of its networks, and of its addresses.
    ///
    /// # Errors
    /// Something of it cannot be; then nothing is to be written.
    pub(in crate::agent) fn allot_all(
        &self,
        stack: &Stack,
        assignments: &Assignments,
    ) -> Result<Puts, Failure> {
        let mut puts = self.allot_networks(stack)?;
        puts.extend(self.allot_addresses(stack, assignments)?);
        Ok(puts)
    }

    /// What is to be written so that services of a stack have their addresses, before they are started.
    ///
    /// # Errors
    /// The file asks for an address that cannot be had; then nothing is to be written.
    fn allot_addresses(&self, stack: &Stack, assignments: &Assignments) -> Result<Puts, Failure> {
        let changes = self.addresses_of(stack, assignments);
        match changes.refused.is_empty() {
            true => Ok(puts(&changes)),
            false => Err(Failure::failed(changes.refused.join("\n"))
                .help("`wharfie director status` shows which addresses there are")),
        }
    }

    /// The same while it runs: an address follows its service. What cannot be is said.
    pub(in crate::agent) fn mend_addresses(
        &self,
        stack: &Stack,
        assignments: &Assignments,
    ) -> Puts {
        let changes = self.addresses_of(stack, assignments);
        let all = changes.faults.iter().chain(&changes.refused).cloned();
        let source = format!("address/{}", stack.project.name);
        self.set_network_faults(&source, faults(all));
        puts(&changes)
    }

    fn addresses_of(&self, stack: &Stack, assignments: &Assignments) -> Changes {
        let book = self.book.director();
        let Some(director) = &book.settings else {
            return Changes::default();
        };
        let all_here;
        let assignments = match self.is_alone() {
            true => {
                all_here = self.all_here(stack, assignments);
                &all_here
            }
            false => assignments,
        };
        let scene = self.scene();
        let claims = scene.with(|world| wanted(stack, assignments, world, director));
        let name = stack.project.name.as_str();
        let mine = |owner: &Owner| owner.stack() == Some(name);
        let view = self.view();
        // Whoever is expected back keeps what it holds; and all do as long as one who is back since a
        // moment may know what this node does not.
        let places = view.places.iter();
        let waited_for = places.filter(|p| match p.standing {
            Standing::Unsure(_) => true,
            Standing::Gone(_) => false,
            _ => view.unsettled,
        });
        let lan = Lan {
            waited_for: waited_for.map(|p| p.id.clone()).collect(),
            ..self.lan()
        };
        let changes = allot(&claims, mine, &book.addresses, director, &lan, now());
        for (owner, address) in &changes.put {
            let before = book.addresses.get(owner).filter(|a| a.freed.is_none());
            if let Some(before) = before.filter(|b| b.node != address.node) {
                let called = |id: &str| {
                    self.fleet
                        .by_id(id)
                        .map_or_else(|| id.to_owned(), |n| n.name)
                };
                let (from, to) = (called(&before.node), called(&address.node));
                debug!(%owner, from, to, "its address moves");
            }
        }
        changes
    }

    /// What is to be written of this node's containers that are of no stack.
    pub(super) fn own_addresses_changes(&self, director: &Director) -> (Puts, Vec<String>) {
        let book = self.book.director();
        let stacks = self.book.stacks();
        let me = self.fleet.id();
        let report = self.fleet.report();
        let report = report.borrow().clone();
        if report.engine.is_empty() || report.engine_away.is_some() {
            // What there is was not seen.
            return (Puts::new(), Vec::new());
        }
        let own = report
            .containers
            .iter()
            .filter(|c| !stacks.contains_key(&c.project) && c.joined.is_empty() && !c.oneoff)
            // Those of a stack that is just being taken down are none.
            .filter(|c| c.revision.is_empty() && !c.dying)
            // Who has ended may come back, and finds its address: until then others may need it more.
            .filter(|c| c.is_running() && !c.attachments.contains_key("none"));
        let wrong = own.clone().filter_map(wrong_label);
        let claims = own.clone().filter_map(|c| of_container(&me, c, director));
        let claims: Vec<Claim> = claims.collect();
        let mine = |owner: &Owner| matches!(owner, Owner::Container { node, .. } if *node == me);
        let changes = allot(&claims, mine, &book.addresses, director, &self.lan(), now());
        let words = changes.faults.iter().chain(&changes.refused).cloned();
        (puts(&changes), words.chain(wrong).collect())
    }

    /// What is to be written when a stack is wanted no longer: its addresses are reserved for a while.
    pub(in crate::agent) fn release_addresses(&self, stack: &str) -> Puts {
        self.freed(|owner| owner.stack() == Some(stack))
    }

    /// Addresses of stacks and nodes that are no more. One node writes it.
    pub(super) fn tidy_addresses(&self) -> Puts {
        let stacks = self.book.stacks();
        let members = self.fleet.members();
        let live = members.iter().filter(|n| n.me || n.may_answer());
        if live.map(|n| &n.id).min() != Some(&self.fleet.id()) {
            return Puts::new();
        }
        let nodes: BTreeSet<&str> = members.iter().map(|n| n.id.as_str()).collect();
        self.freed(|owner| match owner {
            Owner::Service { stack, .. } => !stacks.contains_key(stack),
            Owner::Container { node, .. } => !nodes.contains(node.as_str()),
        })
    }

    fn freed(&self, gone: impl Fn(&Owner) -> bool) -> Puts {
        let book = self.book.director();
        match &book.settings {
            Some(director) => {
                let none = Lan::default();
                puts(&allot(&[], gone, &book.addresses, director, &none, now()))
            }
            None => Puts::new(),
        }
    }

    /// What is known of the network around.
    fn lan(&self) -> Lan {
        let mut lan = Lan::default();
        // Which of them are services' and not nodes' own.
        let book = self.book.director();
        let given = book.given();
        // The default route is everybody's.
        let subnets = |routes: &[(Cidr, String)], devices: Option<&BTreeSet<String>>| {
            let routes = routes.iter().filter(|(to, _)| to.prefix() > 0);
            let fit = routes.filter(|(_, on)| devices.is_none_or(|devices| devices.contains(on)));
            fit.map(|(to, _)| *to).collect()
        };
        let mut said: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
        for node in self.fleet.members() {
            lan.names.insert(node.id.clone(), node.name.clone());
            let own = node.addresses.iter().filter_map(|a| host_of(a));
            lan.taken.extend(own.filter(|ip| !given.contains(ip)));
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            let of = subnets(&report.routes, report.devices.as_ref());
            lan.subnets.insert(node.id.clone(), of);
            said.insert(node.id.clone(), report.devices.clone());
            lan.taken.extend(&report.taken);
        }
        // What was reported may be of a moment ago.
        let own = self.own_devices();
        let of = subnets(&networks::routes(), own.as_ref());
        lan.subnets.insert(self.fleet.id(), of);
        said.insert(self.fleet.id(), own);
        let said = said.into_iter();
        lan.devices = said.filter_map(|(id, of)| Some((id, of?))).collect();
        lan.taken.extend(self.taken());
        lan.taken.extend(&book.reserved);
        let newer = book.newer.iter();
        lan.unreadable = newer.filter_map(|name| Owner::read(name)).collect();
        lan
    }
}
