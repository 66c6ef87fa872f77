//! Who has which address, for people.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::director::{Address, Director, Owner, is_ready};
use wharfie_core::network::Running;
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
                    line.ports = of.map(ports).unwrap_or_default();
                    Box::new(move |_, c| {
                        let same = c.stack == *stack && c.service == *service && !c.oneoff;
                        same && task.is_none_or(|t| t == c.number)
                    })
                }
            };
            for node in scene.nodes().filter(|n| n.live) {
                for c in node.containers.iter().filter(|c| is_own(&node.id, c)) {
                    line.containers.push(DirectorContainer {
                        name: c.name.clone(),
                        node: node.name.clone(),
                        state: state(c),
                        ready: node.live && is_ready(c),
                    });
                }
            }
            line
        };
        let mut lines: Vec<DirectorLine> = book.addresses.iter().map(line).collect();
        if let Some(zone) = book
            .settings
            .as_ref()
            .map(|s| &s.zone)
            .filter(|z| !z.is_empty())
        {
            // Of two with one name the older has it, as in the zone.
            let mut by_age: Vec<(i64, usize)> =
                book.addresses.values().map(|a| a.made).zip(0..).collect();
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

fn state(container: &Running) -> String {
    let state = container.state.as_str().to_owned();
    match container.health {
        Health::None => state,
        Health::Starting => format!("{state} (starting)"),
        Health::Healthy => format!("{state} (healthy)"),
        Health::Unhealthy => format!("{state} (unhealthy)"),
    }
}

/// Ports that a service offers, as its file says.
fn ports(service: &wharfie_compose::model::Service) -> Vec<(u16, String)> {
    let published = service.ports.iter();
    let published = published.map(|p| (p.target, p.protocol.clone()));
    let exposed = service.expose.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some((port.parse().ok()?, protocol.to_owned()))
    });
    let mut all: Vec<(u16, String)> = published.chain(exposed).collect();
    for (_, protocol) in &mut all {
        if protocol.is_empty() {
            "tcp".clone_into(protocol);
        }
    }
    all.sort();
    all.dedup();
    all
}
