//! Who has which address, for people.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::director::{Address, Director, Families, Owner, families_of, is_ready};
use wharfie_core::network::{Running, offered};
use wharfie_core::seen::Health;

use crate::agent::keeper::Keeper;
use crate::api_director::{DirectorContainer, DirectorLine, DirectorTable};

/// Whether a container of a node is somebody's.
type Owns<'a> = dyn Fn(&str, &Running) -> bool + 'a;

impl Keeper {
    /// All of it.
    pub(super) fn director_table(&self) -> DirectorTable {
        let book = self.book.director();
        let scene = self.scene();
        let stacks = self.book.stacks();
        let names: BTreeMap<String, String> = self
            .fleet
            .members()
            .into_iter()
            .map(|n| (n.id, n.name))
            .collect();
        let containers = |is_own: &Owns| -> Vec<DirectorContainer> {
            let live = scene.nodes().filter(|n| n.live);
            let each = live.flat_map(|node| {
                let own = node.containers.iter().filter(|c| is_own(&node.id, c));
                own.map(|c| DirectorContainer {
                    name: c.name.clone(),
                    id: c.id.clone(),
                    node: node.name.clone(),
                    state: state(c),
                    ready: is_ready(c),
                })
            });
            each.collect()
        };
        let line = |(owner, address): (&Owner, &Address)| {
            let mut line = DirectorLine {
                owner: owner.to_string(),
                addresses: address.all().collect(),
                node: names.get(&address.node).cloned().unwrap_or_default(),
                reserved: address.freed.is_some(),
                ..DirectorLine::default()
            };
            let is_own: Box<Owns> = match owner {
                Owner::Container { node, name } => {
                    line.name.clone_from(name);
                    line.owner.clone_from(name);
                    Box::new(move |at, c| at == node && c.name == *name)
                }
                Owner::Service {
                    stack,
                    service,
                    task,
                } => {
                    line.stack.clone_from(stack);
                    line.name = match task {
                        Some(number) => format!("{service}-{number}"),
                        None => service.clone(),
                    };
                    let of = stacks
                        .get(stack)
                        .and_then(|e| e.stack.project.any_service(service));
                    let ports = of.map(offered).unwrap_or_default().into_iter();
                    line.ports = ports.map(|p| (p.number, p.protocol)).collect();
                    Box::new(move |_, c| {
                        let same = c.stack == *stack && c.service == *service && !c.oneoff;
                        same && task.is_none_or(|t| t == c.number)
                    })
                }
            };
            if let Some(director) = &book.settings {
                let families = || match owner {
                    Owner::Service { stack, service, .. } => stacks.get(stack).and_then(|e| {
                        let of = e.stack.project.any_service(service)?;
                        Some(scene.with(|world| families_of(&e.stack, of, world)))
                    }),
                    Owner::Container { node, .. } => {
                        let node = scene.nodes().find(|n| n.id == *node)?;
                        let own = node.containers.iter().find(|c| is_own(&node.id, c))?;
                        Some(Families::of_local(&own.networks, Families::default()))
                    }
                };
                line.lacks = lacks(address, director, families);
            }
            line.containers = containers(&*is_own);
            line
        };
        let mut lines: Vec<DirectorLine> = book.addresses.iter().map(line).collect();
        let published = self.published_services().into_iter().map(|service| {
            let is_own = |_: &str, c: &Running| {
                c.stack == service.stack && c.service == service.name && !c.oneoff
            };
            let ports = service.ports.iter();
            DirectorLine {
                owner: format!("{}/{}", service.stack, service.name),
                containers: containers(&is_own),
                ports: ports.map(|p| (p.number, p.protocol.clone())).collect(),
                addresses: service.addresses,
                stack: service.stack.clone(),
                name: service.name.clone(),
                published: true,
                ..DirectorLine::default()
            }
        });
        lines.extend(published);
        if let Some(zone) = book
            .settings
            .as_ref()
            .map(|s| &s.zone)
            .filter(|z| !z.is_empty())
        {
            // Of two with one name the older has it, as in the zone.
            // Those without an address of their own come last.
            let ages = book.addresses.values().map(|a| a.made);
            let ages = ages.chain(std::iter::repeat(i64::MAX));
            let mut by_age: Vec<(i64, usize)> = ages.zip(0..lines.len()).collect();
            by_age.sort_unstable();
            let mut had = BTreeSet::new();
            for (_, at) in by_age {
                let line = &mut lines[at];
                let label = line.name.to_ascii_lowercase().replace('_', "-");
                line.dns_name = match (had.insert(label.clone()), line.stack.as_str()) {
                    (true, _) | (false, "") => format!("{label}.{zone}"),
                    (false, stack) => format!("{label}.{stack}.{zone}"),
                };
            }
        }
        let faults = self.fleet.nodes().into_iter().flat_map(|node| {
            let said = node.report.iter().flat_map(|r| r.network_faults.clone());
            let said: Vec<_> = said.filter(|f| f.network.is_empty()).collect();
            said.into_iter()
                .map(move |f| format!("node {}: {}", node.name, f.what))
        });
        let faults = faults.collect();
        lines.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        DirectorTable {
            settings: book.settings.clone().map(|settings| Director {
                // Nobody needs the secrets there.
                keys: Vec::new(),
                ..settings
            }),
            lines,
            faults,
        }
    }
}

/// Why somebody has no address of a family that there are addresses of.
fn lacks(
    address: &Address,
    director: &Director,
    families: impl FnOnce() -> Option<Families>,
) -> Vec<String> {
    let there = |ipv6: &bool| director.ranges.iter().any(|r| r.range.is_ipv6() == *ipv6);
    let missing = |ipv6: &bool| there(ipv6) && address.of(*ipv6).is_none();
    // Who asks for an address has just that.
    if address.asked || address.freed.is_some() || ![false, true].iter().any(missing) {
        return Vec::new();
    }
    let families = families().unwrap_or_default();
    let each = [false, true].into_iter().filter(missing);
    let each = each.filter(|ipv6| !families.leads(*ipv6, None));
    let words = |ipv6| {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        format!("no {family} address: {}", Families::lacking(ipv6))
    };
    each.map(words).collect()
}

fn state(container: &Running) -> String {
    let state = container.state.as_str().to_owned();
    match container.health {
        Health::None => state,
        Health::Starting => format!("{state} (starting)"),
        Health::Healthy => format!("{state} (healthy)"),
        Health::Unhealthy => format!("{state} (unhealthy)"),
    }
}
