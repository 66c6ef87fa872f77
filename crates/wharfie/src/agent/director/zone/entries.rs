//! What the zone has, from what the cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use wharfie_compose::model;
use wharfie_core::director::{
    Address, Addresses, Director, Owner, Range, RecordSet, record_of_name,
};
use wharfie_core::extension;
use wharfie_core::network::publish::PublishedPort;
use wharfie_core::report::Report;
use wharfie_core::{Stack, network};
use wharfie_edge::zone::{Entries, Name, Node, Port, Record, Service, Span, Start, read_record};

use crate::api::host_of;

/// A node as the zone takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Id.
    pub(super) id: String,
    /// Name.
    pub(super) name: String,
    /// Addresses where it is reached.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether it is believed to be up.
    pub(super) up: bool,
    /// Whether it answers for the zone.
    pub(super) serves: bool,
    /// What it said last.
    pub(super) report: Option<Arc<Report>>,
}

/// All that names come from.
pub(super) struct Sight<'a> {
    /// What people say of the director.
    pub(super) settings: &'a Director,
    /// Who has which address.
    pub(super) addresses: &'a Addresses,
    /// What people added.
    pub(super) added: &'a Added,
    /// What is wanted.
    pub(super) stacks: &'a [Arc<Stack>],
    /// The nodes.
    pub(super) nodes: &'a [Seen],
}

/// The records that people added.
#[derive(Debug, Clone, Default)]
pub(super) struct Added {
    /// Those that can be read.
    pub(super) records: Arc<Vec<Record>>,
    /// What cannot be, in words.
    pub(super) bad: Vec<String>,
}

impl Added {
    /// Reads them. There may be very many.
    pub(super) fn read(sets: &BTreeMap<String, RecordSet>, zone: &Name) -> Self {
        let (mut read, mut bad) = (Vec::new(), Vec::new());
        for (object, set) in sets {
            match records(object, set, zone) {
                Ok(records) => read.extend(records),
                Err(fault) => bad.push(format!("{fault}; it was added, and is left out")),
            }
        }
        Self {
            records: Arc::new(read),
            bad,
        }
    }
}

/// How the zone begins.
///
/// # Errors
/// In words, if its name is none, or somebody cannot be written to.
pub(in crate::agent::director) fn start(settings: &Director) -> Result<Start, String> {
    match begin(settings)? {
        (start, None) => Ok(start),
        (_, Some(why)) => Err(why),
    }
}

/// The same as far as it goes: names are found whoever cares for the zone. What is wrong with him is said.
///
/// # Errors
/// In words, if its name is none.
pub(super) fn begin(settings: &Director) -> Result<(Start, Option<String>), String> {
    let origin: Name = settings.zone.parse()?;
    let mut start = Start::new(origin);
    let mut wrong = None;
    match contact(&settings.contact) {
        Ok(contact) => start.contact = contact.unwrap_or(start.contact),
        Err(why) => wrong = Some(why),
    }
    Ok((start, wrong))
}

/// An e-mail address as a name (RFC 1035 section 8); none if it is empty.
fn contact(text: &str) -> Result<Option<Name>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("contact: {text:?} is no e-mail address such as it@example.org");
    let (person, host) = text.rsplit_once('@').ok_or_else(wrong)?;
    let host: Name = host.parse().map_err(|_| wrong())?;
    if !host.is_host() || host == Name::root() {
        return Err(wrong());
    }
    // A dot before the `@` is no end of a label.
    let name = format!("{}.{host}", person.replace('.', "\\."));
    name.parse().map(Some).map_err(|_| wrong())
}

/// The records that one object stands for.
///
/// # Errors
/// In words, with what it is about.
pub(super) fn records(object: &str, set: &RecordSet, zone: &Name) -> Result<Vec<Record>, String> {
    let fault = |what: String| format!("{object}: {what}");
    let (name, kind) = record_of_name(object).ok_or_else(|| fault("it has no type".to_owned()))?;
    let name = Name::read(name, zone).map_err(fault)?;
    let each = set.values.iter();
    each.map(|value| read_record(&name, set.ttl, kind, value, zone).map_err(fault))
        .collect()
}

impl Sight<'_> {
    /// What the zone is made of.
    pub(super) fn entries(&self) -> Entries {
        let mut services = self.addressed();
        services.extend(self.published(&services));
        services.extend(self.containers());
        let nodes = self.nodes.iter().map(|node| Node {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            serves: node.serves,
        });
        Entries {
            services,
            nodes: nodes.collect(),
            fixed: Arc::clone(&self.added.records),
            ttl: self.settings.ttl,
        }
    }

    /// Services that have no address of their own, but whose ports every node publishes.
    pub(super) fn published_only(&self) -> Vec<Service> {
        self.published(&self.addressed())
    }

    fn stack(&self, name: &str) -> Option<&Stack> {
        let stack = self.stacks.iter().find(|s| s.project.name == name);
        stack.map(|s| &**s)
    }

    /// Addresses that somebody has; what was freed leads to nobody.
    fn held(&self) -> impl Iterator<Item = (&Owner, &Address)> {
        self.addresses.iter().filter(|(_, a)| a.freed.is_none())
    }

    /// Services with addresses of their own, or of their tasks.
    fn addressed(&self) -> Vec<Service> {
        let mut of: BTreeMap<_, Vec<(Option<u32>, &Address)>> = BTreeMap::new();
        for (owner, address) in self.held() {
            if let Owner::Service {
                stack,
                service,
                task,
            } = owner
            {
                let all = of.entry((stack.as_str(), service.as_str())).or_default();
                all.push((*task, address));
            }
        }
        let mut services = Vec::new();
        for ((stack, name), all) in of {
            let definition = self.stack(stack);
            let model = definition.and_then(|s| s.project.any_service(name));
            let oldest = all.iter().map(|(_, a)| a.made).min();
            let mut service = self.service(stack, name, model);
            service.since = age(oldest.unwrap_or_default());
            service.ports = model.map(offered).unwrap_or_default();
            for (task, address) in &all {
                if let Some(number) = task {
                    services.push(Service {
                        name: format!("{name}-{number}"),
                        since: age(address.made),
                        addresses: address.all().collect(),
                        names: Vec::new(),
                        ..service.clone()
                    });
                }
                service.addresses.extend(address.all());
            }
            services.push(service);
        }
        services
    }

    fn service(&self, stack: &str, name: &str, model: Option<&model::Service>) -> Service {
        let definition = self.stack(stack).zip(model);
        let owner = definition.and_then(|(s, m)| extension::owner(&s.project, m));
        let names = model.into_iter().flat_map(extension::names);
        Service {
            stack: stack.to_owned(),
            name: name.to_owned(),
            owner: owner.map(str::to_owned),
            names: names.map(str::to_owned).collect(),
            ..Service::default()
        }
    }

    /// Services whose ports every node publishes, and that have no address of their own: the nodes
    /// answer for them.
    fn published(&self, known: &[Service]) -> Vec<Service> {
        let up = self.nodes.iter().filter(|n| n.up);
        let addresses: Vec<IpAddr> = up.flat_map(|n| n.addresses.clone()).collect();
        let mut services = Vec::new();
        for stack in self.stacks {
            for name in &stack.active {
                let of = &stack.project.name;
                if known.iter().any(|s| s.stack == *of && s.name == *name) {
                    continue;
                }
                let Some(model) = stack.project.any_service(name) else {
                    continue;
                };
                let ports = model.ports.iter().filter_map(|p| {
                    let public = PublishedPort::of(p)?;
                    Some(port(&p.name, public.protocol.as_str(), public.port))
                });
                let ports: Vec<Port> = ports.collect();
                if !ports.is_empty() {
                    services.push(Service {
                        addresses: addresses.clone(),
                        ports,
                        // Those with an address are known to be older.
                        since: u64::MAX,
                        ..self.service(of, name, Some(model))
                    });
                }
            }
        }
        services
    }

    /// Containers that are of no stack. Those of a project that others keep are named as services of
    /// it, as the file says.
    fn containers(&self) -> Vec<Service> {
        let mut services = Vec::new();
        let mut projects: BTreeMap<(String, String), Service> = BTreeMap::new();
        for (owner, address) in self.held() {
            let Owner::Container { node, name } = owner else {
                continue;
            };
            let Some(seen) = self.nodes.iter().find(|n| n.id == *node) else {
                continue;
            };
            let mut containers = seen.report.iter().flat_map(|r| &r.containers);
            let container = containers.find(|c| c.name == *name);
            let ports = container.iter().flat_map(|c| &c.ports);
            let ports: BTreeSet<(u16, &str)> =
                ports.map(|p| (p.private, p.protocol.as_str())).collect();
            let ports = ports.into_iter().map(|(n, p)| port("", p, n)).collect();
            let service = Service {
                since: age(address.made),
                addresses: address.all().collect(),
                ports,
                ..Service::default()
            };
            let of = container.filter(|c| {
                let foreign = !c.project.is_empty() && self.stack(&c.project).is_none();
                foreign && !c.service.is_empty()
            });
            let Some(container) = of else {
                services.push(Service {
                    stack: seen.name.clone(),
                    name: name.clone(),
                    container: true,
                    ..service
                });
                continue;
            };
            let key = (container.project.clone(), container.service.clone());
            let (stack, name) = key.clone();
            let one = projects.entry(key).or_insert_with(|| Service {
                stack,
                name,
                since: service.since,
                ports: service.ports,
                ..Service::default()
            });
            one.since = one.since.min(service.since);
            one.addresses.extend(service.addresses);
        }
        services.extend(projects.into_values());
        services
    }
}

fn age(made: i64) -> u64 {
    u64::try_from(made).unwrap_or(0)
}

fn port(name: &str, protocol: &str, number: u16) -> Port {
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    Port {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        number,
    }
}

/// The ports that a service's own address has: those of its containers, by their names or else by number.
fn offered(service: &model::Service) -> Vec<Port> {
    let ports = network::offered(service).into_iter();
    let each = ports.flat_map(|p| match p.names.is_empty() {
        true => vec![port("", &p.protocol, p.number)],
        false => {
            let names = p.names.iter();
            names.map(|n| port(n, &p.protocol, p.number)).collect()
        }
    });
    each.collect()
}

/// The addresses of a node that others reach it at. `given` are addresses of services, which are on
/// its devices for a while.
pub(super) fn reached_at(listed: &[String], given: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in listed {
        let Some(address) = host_of(text) else {
            continue;
        };
        let address = address.to_canonical();
        let local = address.is_loopback() || address.is_unspecified();
        if !local && !given.contains(&address) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_unstable();
    addresses
}

/// Networks as the library takes them.
pub(super) fn shown<T: std::str::FromStr>(networks: &[network::Cidr]) -> Vec<T> {
    let each = networks.iter().map(ToString::to_string);
    each.filter_map(|n| n.parse().ok()).collect()
}

/// Ranges as the library takes them.
pub(super) fn spans(ranges: &[Range]) -> Vec<Span> {
    ranges.iter().map(|r| r.first()..=r.last()).collect()
}

#[cfg(test)]
mod tests;
