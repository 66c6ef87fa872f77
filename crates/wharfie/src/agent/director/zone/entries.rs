//! What the zone has, from what the cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use wharfie_compose::model;
use wharfie_core::director::{Address, Addresses, Director, Owner, RecordSet, record_of_name};
use wharfie_core::extension;
use wharfie_core::network::publish::PublishedPort;
use wharfie_core::report::Report;
use wharfie_core::{Stack, network};
use wharfie_edge::zone::{Entries, Name, Node, Port, Record, Service, Start, read_record};

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
    pub(super) records: &'a BTreeMap<String, RecordSet>,
    /// What is wanted.
    pub(super) stacks: &'a [Arc<Stack>],
    /// The nodes.
    pub(super) nodes: &'a [Seen],
}

/// How the zone begins.
///
/// # Errors
/// In words, if its name is none.
pub(super) fn start(settings: &Director) -> Result<Start, String> {
    let origin: Name = settings.zone.parse()?;
    let mut start = Start::new(origin);
    if let Some((person, host)) = settings.contact.rsplit_once('@') {
        // A dot before the `@` is no end of a label (RFC 1035 section 8).
        let contact = format!("{}.{host}", person.replace('.', "\\."));
        start.contact = contact.parse()?;
    }
    Ok(start)
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
    /// What the zone is made of; and in words what was added and cannot be read.
    pub(super) fn entries(&self, zone: &Name) -> (Entries, Vec<String>) {
        let mut words = Vec::new();
        let mut fixed = Vec::new();
        for (object, set) in self.records {
            match records(object, set, zone) {
                Ok(records) => fixed.extend(records),
                Err(fault) => words.push(format!("{fault}; it was added, and is left out")),
            }
        }
        let mut services = self.addressed();
        services.extend(self.published(&services));
        services.extend(self.containers());
        let nodes = self.nodes.iter().map(|node| Node {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            serves: node.serves,
        });
        let entries = Entries {
            services,
            nodes: nodes.collect(),
            fixed,
            ttl: self.settings.ttl,
        };
        (entries, words)
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
        let mut of: BTreeMap<(&str, &str), Vec<(Option<u32>, &Address)>> = BTreeMap::new();
        for (owner, address) in self.held() {
            if let Owner::Service {
                stack,
                service,
                task,
            } = owner
            {
                let all = of.entry((stack, service)).or_default();
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

/// The ports that a service's own address has: those of its containers. Ranges have no name.
fn offered(service: &model::Service) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    let declared = service.ports.iter();
    let declared = declared.map(|p| port(&p.name, &p.protocol, p.target));
    let exposed = service.expose.iter().filter_map(|text| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
        Some(port("", protocol, number.parse().ok()?))
    });
    for port in declared.chain(exposed) {
        let same = |p: &Port| (p.number, &p.protocol) == (port.number, &port.protocol);
        if port.number != 0 && !ports.iter().any(same) {
            ports.push(port);
        }
    }
    ports
}

/// The addresses of a node that others reach it at. `given` are addresses of services, which are on
/// its devices for a while.
pub(super) fn reached_at(listed: &[String], given: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in listed {
        let socket = text.parse::<std::net::SocketAddr>().map(|s| s.ip());
        let Ok(address) = socket.or_else(|_| text.parse::<IpAddr>()) else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use wharfie_core::report::ReportedContainer;
    use wharfie_edge::zone::export;

    fn stack(name: &str, services: Value) -> Arc<Stack> {
        let active: Vec<String> = services.as_object().unwrap().keys().cloned().collect();
        let project = json!({ "project": { "name": name, "services": services } });
        let stack = json!({ "project": project, "active": active });
        Arc::new(serde_json::from_value(stack).unwrap())
    }

    fn address(last: u8, made: i64) -> Address {
        Address {
            v4: Some([10, 0, 0, last].into()),
            made,
            ..Address::default()
        }
    }

    fn node(name: &str, last: u8) -> Seen {
        Seen {
            id: format!("id-{name}"),
            name: name.to_owned(),
            addresses: vec![[10, 0, 0, last].into()],
            up: true,
            serves: true,
            report: None,
        }
    }

    /// The names with addresses and services, without the nodes' own; and what could not be.
    fn names(
        addresses: &[(&str, Address)],
        records: &[(&str, &[&str])],
        stacks: &[Arc<Stack>],
        nodes: &[Seen],
    ) -> (Vec<String>, Vec<String>) {
        let settings = Director {
            zone: "z.example".to_owned(),
            ..Director::default()
        };
        let addresses = addresses.iter();
        let addresses = addresses.map(|(owner, a)| (Owner::read(owner).unwrap(), a.clone()));
        let records = records.iter().map(|(object, values)| {
            let set = RecordSet {
                ttl: 60,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            };
            ((*object).to_owned(), set)
        });
        let start = start(&settings).unwrap();
        let sight = Sight {
            settings: &settings,
            addresses: &addresses.collect(),
            records: &records.collect(),
            stacks,
            nodes,
        };
        let (entries, mut words) = sight.entries(&start.origin);
        let origin = start.origin.clone();
        let (content, more) = entries.forward(start);
        words.extend(more);
        let shown = export(&origin, None, content.records());
        let lines = shown.lines().skip(1).map(|l| {
            let line = l.replace(".z.example.", "").replace('\t', " ");
            line.replace(" IN ", " ")
        });
        let quiet = |l: &String| !l.contains(" TXT ") && !l.contains(" NS ");
        (lines.filter(quiet).collect(), words)
    }

    #[test]
    fn a_service_has_the_names_of_its_addresses() {
        let web = json!({
            "ports": [{"name": "http", "target": 80, "published": "8080", "protocol": "tcp"}, {"target": 81}],
            "expose": ["80", "53/udp", "90-99"],
            "x-wharfie": {"names": ["@"], "owner": "it"},
        });
        let shop = stack("shop", json!({ "web": web, "db": {} }));
        let mut gone = address(9, 1);
        gone.freed = Some(5);
        let (lines, words) = names(
            &[("shop/web", address(1, 1)), ("shop/db", gone)],
            &[],
            &[shop],
            &[],
        );
        let of_web = [
            "web 5 A 10.0.0.1",
            "_http._tcp.web 5 SRV 0 1 80 web",
            "_81._tcp.web 5 SRV 0 1 81 web",
            "_53._udp.web 5 SRV 0 1 53 web",
            "web.shop 5 A 10.0.0.1",
            "z.example. 5 A 10.0.0.1",
        ];
        for wanted in of_web {
            assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
        }
        assert!(!lines.iter().any(|l| l.contains("db")), "{lines:#?}");
        assert_eq!(lines.len(), 9, "{lines:#?}");
        assert_eq!(words, [""; 0]);
    }

    #[test]
    fn tasks_with_addresses_are_named_by_number() {
        let (lines, words) = names(
            &[("shop/web/1", address(1, 1)), ("shop/web/2", address(2, 1))],
            &[],
            &[],
            &[],
        );
        assert_eq!(
            lines
                .iter()
                .filter(|l| !l.contains(".shop"))
                .collect::<Vec<_>>(),
            [
                "web 5 A 10.0.0.1",
                "web 5 A 10.0.0.2",
                "web-1 5 A 10.0.0.1",
                "web-2 5 A 10.0.0.2",
            ]
        );
        assert_eq!(words, [""; 0]);
    }

    #[test]
    fn the_nodes_that_are_up_answer_for_published_ports() {
        let web = json!({ "ports": [{"target": 80, "published": "8080", "mode": "ingress"}] });
        let own = json!({ "ports": [{"target": 80, "published": "81", "mode": "host"}] });
        let shop = stack("shop", json!({ "web": web, "own": own, "db": {} }));
        let away = Seen {
            up: false,
            ..node("h2", 8)
        };
        let nodes = [node("h1", 7), away, node("h3", 9)];
        let (lines, _) = names(&[], &[], &[shop.clone()], &nodes);
        let of_web: Vec<_> = lines.iter().filter(|l| l.starts_with("web ")).collect();
        assert_eq!(of_web, ["web 5 A 10.0.0.7", "web 5 A 10.0.0.9"]);
        assert!(lines.contains(&"_8080._tcp.web 5 SRV 0 1 8080 web".to_owned()));
        // The name of a node stays its own, up or not.
        assert!(lines.contains(&"h2 5 A 10.0.0.8".to_owned()));
        assert!(
            !lines
                .iter()
                .any(|l| l.starts_with("own") || l.starts_with("db"))
        );
        // One with an address of its own has that, however young it is.
        let (lines, words) = names(&[("late/web", address(1, 99))], &[], &[shop], &nodes);
        assert!(lines.contains(&"web 5 A 10.0.0.1".to_owned()), "{lines:#?}");
        assert_eq!(words.len(), 1, "{words:#?}");
    }

    #[test]
    fn containers_have_the_name_of_their_node_or_project() {
        let container = |name: &str, project: &str, service: &str| ReportedContainer {
            name: name.to_owned(),
            project: project.to_owned(),
            service: service.to_owned(),
            ..ReportedContainer::default()
        };
        let report = Report {
            containers: vec![
                container("jenkins", "", ""),
                container("old-web-1", "old", "web"),
                container("old-web-2", "old", "web"),
            ],
            ..Report::default()
        };
        let h1 = Seen {
            report: Some(Arc::new(report)),
            ..node("h1", 7)
        };
        let (lines, _) = names(
            &[
                ("@id-h1/jenkins", address(1, 1)),
                ("@id-h1/old-web-1", address(2, 1)),
                ("@id-h1/old-web-2", address(3, 1)),
                ("@removed/x", address(4, 1)),
            ],
            &[],
            &[],
            &[h1],
        );
        for wanted in [
            "h1 5 A 10.0.0.7",
            "jenkins.h1 5 A 10.0.0.1",
            "jenkins 5 A 10.0.0.1",
            "web.old 5 A 10.0.0.2",
            "web.old 5 A 10.0.0.3",
            "web 5 A 10.0.0.2",
            "web 5 A 10.0.0.3",
        ] {
            assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
        }
        assert_eq!(lines.len(), 7, "{lines:#?}");
    }

    #[test]
    fn what_was_added_is_there_or_said_to_be_bad() {
        let (lines, words) = names(
            &[],
            &[
                ("www A", &["192.0.2.1", "192.0.2.2"]),
                ("mail A", &["192.0.2"]),
                ("nonsense", &["x"]),
            ],
            &[],
            &[],
        );
        assert_eq!(lines, ["www 60 A 192.0.2.1", "www 60 A 192.0.2.2"]);
        assert_eq!(
            words,
            [
                "mail A: `192.0.2` is no IPv4 address; it was added, and is left out",
                "nonsense: it has no type; it was added, and is left out",
            ]
        );
    }

    #[test]
    fn who_cares_for_the_zone_is_in_its_start() {
        let settings = Director {
            zone: "z.example".to_owned(),
            contact: "it.desk@example.org".to_owned(),
            ..Director::default()
        };
        let start = start(&settings).unwrap();
        assert_eq!(start.contact.to_string(), "it\\.desk.example.org.");
    }

    #[test]
    fn addresses_of_services_are_no_nodes_own() {
        let listed = [
            "10.0.0.5:7700",
            "127.0.0.1:7700",
            "[fd00::5]:7700",
            "10.0.0.9:7700",
            "10.0.0.5:9",
        ];
        let listed = listed.map(str::to_owned);
        let given = BTreeSet::from([[10, 0, 0, 9].into()]);
        let all: Vec<String> = reached_at(&listed, &given)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(all, ["10.0.0.5", "fd00::5"]);
    }
}
