//! The catalog from what is wanted and seen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use wharfie_compose::model::Service;

use super::{Catalog, Few, Group, Outside, Seat, Single, Target, Task, ZONE, Zone};
use crate::network::vip::has_vip;
use crate::network::world::{self, Index, Member, Readiness};
use crate::network::{Vip, VipKey, World, offered};
use crate::schedule::hash::Map;
use crate::seen::{Health, State};
use crate::wanted::Stack;

/// Digits of an id that are a container's name as well.
const SHORT_ID: usize = 12;

impl Catalog {
    /// All names as they are now. `outside` are names below `.internal` that are not ours.
    #[must_use]
    pub fn of(world: &World, outside: Outside) -> Self {
        let index = Index::of(world);
        let mut builder = Builder {
            world,
            vips: vips(world),
            catalog: Self {
                outside,
                places: world.nodes.iter().map(|n| n.zone.clone()).collect(),
                ..Self::default()
            },
        };
        let mut zones: Vec<(&str, &world::Zone)> =
            index.zones.iter().map(|(n, z)| (*n, z)).collect();
        zones.sort_by_key(|(name, _)| *name);
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        for (number, (name, zone)) in (0..).zip(zones) {
            numbers.insert(name, number);
            let zone = builder.zone(number, name, zone);
            builder.catalog.zones.push(zone);
        }
        builder.subnets(&numbers);
        builder.local_subnets(&numbers);
        builder.askers(&numbers);
        builder.services();
        builder.catalog
    }
}

struct Builder<'a> {
    world: &'a World<'a>,
    /// Addresses of services by network, stack and service.
    vips: Map<(&'a str, &'a str, &'a str), &'a Vip>,
    catalog: Catalog,
}

fn vips<'a>(world: &World<'a>) -> Map<(&'a str, &'a str, &'a str), &'a Vip> {
    let key = |k: &'a VipKey| (k.network.as_str(), k.stack.as_str(), k.service.as_str());
    world.vips.iter().map(|(k, vip)| (key(k), vip)).collect()
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

fn full(service: &str, stack: &str) -> String {
    let mut full = format!("{service}.{stack}.{ZONE}");
    full.make_ascii_lowercase();
    full
}

fn few<T>(first: T) -> Few<T> {
    Few {
        first,
        more: Vec::new(),
    }
}

fn task(member: &Member) -> Task {
    Task {
        single: single(member),
        number: member.container.number,
        checked: member.container.health == Health::Healthy,
        node: member.number,
    }
}

fn single(member: &Member) -> Single {
    Single {
        v4: member.at.v4,
        v6: member.at.v6,
        runs: member.readiness() < Readiness::Away,
    }
}

impl<'a> Builder<'a> {
    fn zone(&mut self, number: u32, name: &str, from: &world::Zone) -> Zone {
        let mut zone = Zone {
            name: lower(name),
            internal: match self.world.networks.get(name) {
                Some(network) => network.internal,
                None => self.world.local.get(name).is_some_and(|l| l.internal),
            },
            groups: Vec::with_capacity(from.groups.len()),
            singles: Vec::with_capacity(from.others.len()),
            names: Map::default(),
        };
        let mut lead = |name: &str, target: Target| {
            if name.is_empty() {
                return;
            }
            let entry = zone.names.entry(lower(name));
            entry
                .and_modify(|f| f.add(target))
                .or_insert_with(|| few(target));
        };
        // In an order that is the same each time, and on all nodes.
        let mut groups: Vec<_> = from.groups.iter().collect();
        groups.sort_unstable_by_key(|(name, _)| **name);
        for ((stack, service), group) in groups {
            let at = zone.groups.len() as u32;
            lead(service, Target::Group(at));
            for alias in group.aliases {
                lead(alias, Target::Group(at));
            }
            let hostname = group.definition.map_or("", |d| &d.hostname);
            let built = self.group(name, stack, service, group);
            for (index, member) in (0..).zip(&group.members) {
                let target = Target::Task(at, index);
                lead(&member.container.name, target);
                lead(short(&member.container.id), target);
                lead(hostname, target);
                self.reverse(number, member, target);
            }
            let own = [built.v4.map(IpAddr::V4), built.v6.map(IpAddr::V6)];
            for address in own.into_iter().flatten() {
                self.lead_back(address, number, Target::Group(at));
            }
            zone.groups.push(built);
        }
        for member in &from.others {
            let target = Target::Single(zone.singles.len() as u32);
            lead(&member.container.name, target);
            lead(short(&member.container.id), target);
            let full = format!("{}.{}", lower(&member.container.name), zone.name);
            self.reverse(number, member, target);
            zone.singles.push((single(member), full));
        }
        zone
    }

    fn lead_back(&mut self, address: IpAddr, zone: u32, target: Target) {
        let entry = self.catalog.reverse.entry(address);
        let target = (zone, target);
        entry
            .and_modify(|f| f.add(target))
            .or_insert_with(|| few(target));
    }

    fn reverse(&mut self, zone: u32, member: &Member, target: Target) {
        if member.readiness() == Readiness::Away {
            return;
        }
        for address in member.at.addresses() {
            self.lead_back(address, zone, target);
        }
    }

    fn group(&self, network: &str, stack: &str, service: &str, group: &world::Group) -> Group {
        let vip = self.vips.get(&(network, stack, service));
        let vip = vip.filter(|_| group.definition.is_none_or(has_vip));
        let members: Vec<Task> = group.members.iter().map(task).collect();
        let ready = group.ready();
        // `ready` is in the order of the members: one walk over both.
        let mut numbers = Vec::with_capacity(ready.len());
        let mut rest = ready.iter().peekable();
        for (index, member) in (0..).zip(&group.members) {
            if rest.peek().is_some_and(|r| std::ptr::eq(**r, member)) {
                rest.next();
                numbers.push(index);
            }
        }
        Group {
            stack: stack.to_owned(),
            full: full(service, stack),
            v4: vip.and_then(|v| v.v4),
            v6: vip.and_then(|v| v.v6),
            members,
            ready: numbers,
            ports: group.definition.map(offered).unwrap_or_default(),
        }
    }

    fn subnets(&mut self, numbers: &BTreeMap<&str, u32>) {
        for (name, network) in self.world.networks {
            if let Some(number) = numbers.get(name.as_str()) {
                let pools = network.pools().map(|p| (p.subnet, *number));
                self.catalog.subnets.extend(pools);
            }
        }
    }

    fn local_subnets(&mut self, numbers: &BTreeMap<&str, u32>) {
        let is_local = |n: &&str| !self.world.networks.contains_key(*n);
        for (name, number) in numbers.iter().filter(|(n, _)| is_local(n)) {
            let local = self.world.local.get(*name);
            let subnets = local.into_iter().flat_map(|l| &l.subnets);
            self.catalog.subnets.extend(subnets.map(|s| (*s, *number)));
        }
    }

    fn askers(&mut self, numbers: &BTreeMap<&str, u32>) {
        let mut nodes = (0..).zip(self.world.nodes);
        let Some((node, me)) = nodes.find(|(_, n)| n.id == self.world.me) else {
            return;
        };
        for container in &me.containers {
            let networks = container.networks.keys();
            let zones = networks.filter_map(|n| numbers.get(n.as_str()).copied());
            let seat = Arc::new(Seat {
                zones: zones.collect(),
                stack: container.stack.clone(),
                node,
                links: self.links(&container.stack, &container.service),
                resolvers: self.resolvers(&container.stack, &container.service),
            });
            // Of two that are to have one address, the one that runs asks.
            let runs = container.state == State::Running;
            for at in container.networks.values() {
                for address in at.addresses() {
                    if runs || !self.catalog.askers.contains_key(&address) {
                        self.catalog.askers.insert(address, Arc::clone(&seat));
                    }
                }
            }
        }
    }

    fn definition(&self, stack: &str, service: &str) -> Option<&'a Service> {
        let named = |s: &&&Stack| s.project.name == stack;
        let definition = self.world.stacks.iter().find(named);
        definition.and_then(|s| s.project.any_service(service))
    }

    fn resolvers(&self, stack: &str, service: &str) -> Arc<[IpAddr]> {
        let service = self.definition(stack, service);
        let said = service.into_iter().flat_map(|s| &s.dns);
        said.filter_map(|text| text.parse().ok()).collect()
    }

    fn links(&self, stack: &str, service: &str) -> Map<String, String> {
        let mut links = Map::default();
        let Some(service) = self.definition(stack, service) else {
            return links;
        };
        for link in &service.links {
            if let Some((name, alias)) = link.split_once(':') {
                links.insert(lower(alias), lower(&format!("{name}.{stack}")));
            }
        }
        for link in &service.external_links {
            if let Some((name, alias)) = link.split_once(':') {
                links.insert(lower(alias), lower(name));
            }
        }
        links
    }

    fn services(&mut self) {
        for stack in self.world.stacks {
            for service in &stack.active {
                let name = lower(&format!("{service}.{}", stack.project.name));
                self.catalog.services.insert(name, ());
            }
        }
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or_default()
}
