//! What the coordinator of a stack writes about its networks.

use std::collections::BTreeSet;

use tracing::warn;
use wharfie_cluster::Key;
use wharfie_compose::model::Network;
use wharfie_core::Stack;
use wharfie_core::network::encrypt::{Demand, ENCRYPTED_MTU};
use wharfie_core::network::publish;
use wharfie_core::network::{
    self, Asked, NETWORK, Networks, Refusal, Route, SLICE, Settings, VIP, slice_name, vip_name,
};

use super::show::wanting;
use super::{NetworkBook, Used, used_by};
use crate::agent::keeper::{Keeper, Puts, now};
use crate::failure::Failure;

fn failure(refusal: &Refusal) -> Failure {
    Failure::failed(refusal.to_string())
}

impl Keeper {
    /// What is to be written so that the networks of a stack, and its services on them, have their
    /// addresses. Nothing while there is one node: its networks are its Engine's own affair.
    ///
    /// # Errors
    /// A network of it cannot be; then nothing is to be written.
    pub(in crate::agent) fn allot_networks(&self, stack: &Stack) -> Result<Puts, Failure> {
        if self.is_alone() {
            return Ok(Puts::new());
        }
        let stacks = self.book.stacks();
        let others = stacks.values().map(|e| &*e.stack);
        let others = others.filter(|s| s.project.name != stack.project.name);
        publish::check(stack, others).map_err(|taken| Failure::failed(taken.to_string()))?;
        let book = self.book.networks();
        let (networks, mut puts) = self.allotted(stack, &book)?;
        puts.extend(self.addressed(stack, &networks, &book));
        Ok(puts)
    }

    /// The addresses of a stack's services, as far as they change.
    fn addressed(&self, stack: &Stack, networks: &Networks, book: &NetworkBook) -> Puts {
        let changes = network::vip::changes(stack, networks, &book.vips, &self.used(), now());
        let value = |v: &network::Vip| serde_json::to_value(v).ok();
        let made = changes.put.iter();
        let made = made.map(|(key, vip)| (Key::new(VIP, vip_name(key)), value(vip)));
        let gone = changes.delete.iter();
        made.chain(gone.map(|key| (Key::new(VIP, vip_name(key)), None)))
            .collect()
    }

    /// What the coordinator of a stack has to put right of its networks: two that were made on both sides
    /// of a cut may have chosen the same.
    pub(in crate::agent) fn mend_networks(&self, stack: &Stack) -> Puts {
        let book = self.book.networks();
        if book.networks.is_empty() {
            return Puts::new();
        }
        let mut puts = Puts::new();
        let mut networks = book.networks.clone();
        if !network::conflicts(&book.networks).is_empty() {
            let changed = network::renumber(&book.networks, &self.routes(), &self.pools(), now());
            let own = changed.into_iter();
            for (name, object) in own.filter(|(_, n)| n.stack == stack.project.name) {
                warn!(
                    network = name,
                    "another network has the same: it is changed"
                );
                let value = serde_json::to_value(&object).ok();
                puts.push((Key::new(NETWORK, &name), value));
                networks.insert(name, object);
            }
        }
        puts.extend(self.addressed(stack, &networks, &book));
        puts
    }

    /// Where subnets come from.
    pub(super) fn pools(&self) -> Settings {
        let settings = self.settings.borrow();
        Settings {
            pools: settings.network.pools.clone(),
            prefix: settings.network.prefix,
            mtu: (settings.network.encrypt != Demand::Never).then_some(ENCRYPTED_MTU),
            cluster: self.fleet.id(),
        }
    }

    fn allotted(&self, stack: &Stack, book: &NetworkBook) -> Result<(Networks, Puts), Failure> {
        let settings = self.pools();
        let routes = self.routes();
        let mut networks = book.networks.clone();
        let mut puts = Puts::new();
        for key in used_by(stack) {
            let Some(definition) = stack.project.networks.get(key) else {
                continue;
            };
            if !network::spans(definition) {
                continue;
            }
            self.check_encrypted(key, definition)?;
            let asked = Asked {
                stack: &stack.project.name,
                key,
                network: definition,
            };
            let other = networks.get(&definition.name).map(|n| n.stack.as_str());
            let kept = |other: &str| other.is_empty() || self.book.stacks().contains_key(other);
            if let Some(other) = other.filter(|o| *o != stack.project.name && kept(o)) {
                let owner = match other {
                    "" => "there already, of no stack".to_owned(),
                    other => format!("stack {other}'s"),
                };
                return Err(Failure::failed(format!(
                    "networks.{key}: network {} is {owner}: declare it `external: true` to use it, or give this one another `name`",
                    definition.name
                )));
            }
            let made = network::allot(asked, &networks, &routes, &settings, now());
            let made = made.map_err(|refusal| failure(&refusal))?;
            if networks.get(&definition.name) != Some(&made) {
                let value = serde_json::to_value(&made).ok();
                puts.push((Key::new(NETWORK, &definition.name), value));
                networks.insert(definition.name.clone(), made);
            }
        }
        Ok((networks, puts))
    }

    /// Whether a network that is to be encrypted (Swarm's option of overlays) will be.
    fn check_encrypted(&self, key: &str, network: &Network) -> Result<(), Failure> {
        let asked = network.driver_opts.get("encrypted");
        if asked.is_none_or(|a| a == "false") {
            return Ok(());
        }
        let settings = self.settings.borrow();
        match settings.network.encrypt {
            Demand::Always => return Ok(()),
            Demand::Auto if settings.network.private.is_empty() => return Ok(()),
            _ => {}
        }
        Err(Failure::failed(format!(
            "networks.{key}: `driver_opts.encrypted` asks for what the settings of this node do not promise: packets \
             between nodes may go in clear"
        ))
        .help("set `network-encrypt = \"always\"` on all nodes, or leave the option out"))
    }

    /// What is to be written when a stack is wanted no longer: nobody else has its networks. Those that
    /// other stacks use stay, for whoever declares them next.
    pub(in crate::agent) fn release_networks(&self, stack: &str) -> Puts {
        let book = self.book.networks();
        let mut puts = Puts::new();
        let entries = self.book.stacks();
        let others = || {
            let others = entries.values().map(|e| &*e.stack);
            others.filter(|s| s.project.name != stack)
        };
        let is_used = |name: &str| !wanting(others(), name).is_empty();
        let own = book.networks.iter().filter(|(_, n)| n.stack == stack);
        let own = own.filter(|(name, _)| !is_used(name));
        let own: BTreeSet<&String> = own.map(|(name, _)| name).collect();
        for name in &own {
            puts.push((Key::new(NETWORK, *name), None));
            let slices = book.slices.get(*name).into_iter().flatten();
            puts.extend(slices.map(|(i, _)| (Key::new(SLICE, slice_name(name, *i)), None)));
        }
        let gone = book.vips.keys().filter(|k| {
            let network = book.networks.get(&k.network);
            k.stack == stack || network.is_none() || own.contains(&k.network)
        });
        puts.extend(gone.map(|key| (Key::new(VIP, vip_name(key)), None)));
        puts
    }

    /// Routes of all nodes' hosts.
    pub(super) fn routes(&self) -> Vec<Route> {
        let nodes = self.fleet.members().into_iter();
        let each = nodes.filter_map(|n| Some((n.name.clone(), self.fleet.report_of(&n)?)));
        each.flat_map(|(node, report)| {
            let routes = report.routes.clone().into_iter();
            routes.map(move |(to, device)| Route {
                node: node.clone(),
                to,
                device,
            })
        })
        .collect()
    }

    /// Addresses that containers of all nodes have.
    fn used(&self) -> Used {
        let mut used = Used::new();
        for node in self.fleet.members() {
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            for container in &report.containers {
                for (network, at) in &container.attachments {
                    let of = used.entry(network.clone()).or_default();
                    of.extend(at.addresses());
                }
            }
        }
        used
    }
}
