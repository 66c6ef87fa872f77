//! The records of a zone from what there is in the cluster: services, nodes, and what people added.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::content::{Content, Start};
use super::name::{Name, is_host_label};
use super::record::{Data, Record, kind_name};
use crate::dns::wire::kind;

/// A service of a stack, or a container of none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Stack; of a container the node.
    pub stack: String,
    /// Name in the stack, or on the node.
    pub name: String,
    /// Whether it is a container that is of no stack.
    pub container: bool,
    /// Since when it is there, in milliseconds since 1970: of two the older one has the short name.
    pub since: u64,
    /// Addresses where it is reached now. Without any it has its names all the same.
    pub addresses: Vec<IpAddr>,
    /// Ports that it offers.
    pub ports: Vec<Port>,
    /// Who cares for it.
    pub owner: Option<String>,
    /// Further names in the zone: `@` is the zone itself, `*.apps` all names below `apps`.
    pub names: Vec<String>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name (`http`); the number if it is empty.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Number.
    pub number: u16,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Addresses where it is reached.
    pub addresses: Vec<IpAddr>,
    /// Whether it answers for the zone.
    pub serves: bool,
}

/// What a zone is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Services.
    pub services: Vec<Service>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Records that people added: there may be very many, and they are shared by whoever has them.
    pub fixed: Arc<Vec<Record>>,
    /// Seconds that addresses of services and nodes may be kept.
    pub ttl: u32,
}

/// Who has a name: of two the lower one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// Without its nodes a zone is not found.
    Node(String),
    /// What people say counts before what is derived.
    Fixed,
    /// By age, then by the names of the stack and of the service. First the names that are made of
    /// both: they are had by one only.
    Service(u8, u64, String, String, bool),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Fixed => f.write_str("a record that was added"),
            Self::Service(_, _, stack, name, container) => describe(f, stack, name, *container),
        }
    }
}

fn describe(
    f: &mut impl std::fmt::Write,
    stack: &str,
    name: &str,
    container: bool,
) -> std::fmt::Result {
    match container {
        true => write!(f, "container {name} of node {stack}"),
        false => write!(f, "service {name} of stack {stack}"),
    }
}

impl Service {
    fn described(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = describe(&mut out, &self.stack, &self.name, self.container);
        out
    }
}

/// The names that are claimed, with the records each would have.
struct Claims {
    of: BTreeMap<Name, BTreeMap<Holder, Vec<Record>>>,
    words: Vec<String>,
}

impl Claims {
    fn claim(&mut self, name: &Name, holder: &Holder, records: impl IntoIterator<Item = Record>) {
        let claims = self.of.entry(name.clone()).or_default();
        claims.entry(holder.clone()).or_default().extend(records);
    }

    /// A label for a host, from a name that people gave.
    fn label(&mut self, of: &str, what: &str) -> Option<String> {
        // Names of hosts have no underscore (RFC 952), names of services often.
        let label = of.to_ascii_lowercase().replace('_', "-");
        if !is_host_label(label.as_bytes()) {
            self.words.push(format!(
                "{what} `{of}` has no name in the zone: names of hosts have up to 63 letters, digits and hyphens between them"
            ));
            return None;
        }
        Some(label)
    }
}

impl Entries {
    /// The records of the zone; and in words what could not have its name, and why.
    #[must_use]
    pub fn forward(&self, start: Start) -> (Content, Vec<String>) {
        let mut start = start;
        let (Claims { of, mut words }, servers) = self.claims(&start.origin);
        let mut records = Vec::new();
        for (name, holders) in of {
            let is_apex = name == start.origin;
            settle((&name, is_apex), holders, &mut records, &mut words);
        }
        if let Some(first) = servers.first() {
            start.primary = first.clone();
        }
        let servers: Vec<Name> = servers.into_iter().collect();
        let (content, faults) = Content::new(start, &servers, records);
        words.extend(faults);
        words.sort();
        words.dedup();
        (content, words)
    }

    /// Who has each name of a zone, beside what people added there, in words.
    #[must_use]
    pub fn holders(&self, origin: &Name) -> BTreeMap<Name, String> {
        let (claims, _) = self.claims(origin);
        let first = claims.of.into_iter().filter_map(|(name, holders)| {
            let mut derived = holders.into_keys().filter(|h| *h != Holder::Fixed);
            Some((name, derived.next()?.to_string()))
        });
        first.collect()
    }

    /// Who wants which name, and the nodes that answer for the zone.
    fn claims(&self, origin: &Name) -> (Claims, BTreeSet<Name>) {
        let mut claims = Claims {
            of: BTreeMap::new(),
            words: Vec::new(),
        };
        let mut servers = BTreeSet::new();
        for node in &self.nodes {
            let what = format!("node {}", node.name);
            let Some(name) = claims
                .label(&node.name, &what)
                .and_then(|l| origin.child(&l))
            else {
                continue;
            };
            let holder = Holder::Node(node.name.clone());
            claims.claim(&name, &holder, self.addresses(&name, &node.addresses));
            if node.serves && !node.addresses.is_empty() {
                servers.insert(name);
            }
        }
        for record in &*self.fixed {
            claims.claim(&record.name, &Holder::Fixed, [record.clone()]);
        }
        for service in &self.services {
            self.service(service, origin, &mut claims);
        }
        (claims, servers)
    }

    fn addresses(&self, name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
        let record = |a: &IpAddr| Record::new(name.clone(), self.ttl, &Data::Address(*a));
        addresses.iter().map(record).collect()
    }

    fn service(&self, service: &Service, origin: &Name, claims: &mut Claims) {
        let what = service.described();
        let Some(label) = claims.label(&service.name, &what) else {
            return;
        };
        let holder = |rank| {
            let (stack, name) = (service.stack.clone(), service.name.clone());
            Holder::Service(rank, service.since, stack, name, service.container)
        };
        let above = if service.container { "node" } else { "stack" };
        let stack = claims.label(&service.stack, &format!("{above} {}", service.stack));
        let whole = stack.and_then(|s| origin.child(&s)?.child(&label));
        let short = origin.child(&label);
        for (rank, name) in [(0, &whole), (1, &short)] {
            let Some(name) = name else { continue };
            let mut records = self.addresses(name, &service.addresses);
            let mut texts = vec![format!("{above}={}", service.stack).into_bytes()];
            texts.extend(
                service
                    .owner
                    .iter()
                    .map(|o| format!("owner={o}").into_bytes()),
            );
            for text in texts {
                records.push(Record::new(name.clone(), self.ttl, &Data::Text(vec![text])));
            }
            claims.claim(name, &holder(rank), records);
            for port in &service.ports {
                self.port(port, name, &holder(rank), &what, claims);
            }
        }
        for name in &service.names {
            let read = Name::read(name, origin).ok().filter(|n| n.is_in(origin));
            let Some(name) = read.filter(is_host_or_wildcard) else {
                claims
                    .words
                    .push(format!("{what}: `{name}` is no name in {origin}"));
                continue;
            };
            let records = self.addresses(&name, &service.addresses);
            claims.claim(&name, &holder(1), records);
        }
    }

    /// `_http._tcp.name` leads to the name and the port (RFC 2782).
    fn port(&self, port: &Port, target: &Name, holder: &Holder, what: &str, claims: &mut Claims) {
        let label = match port.name.as_str() {
            "" => port.number.to_string(),
            name => name.to_ascii_lowercase().replace('_', "-"),
        };
        let protocol = port.protocol.to_ascii_lowercase();
        let named = is_host_label(label.as_bytes()) && is_host_label(protocol.as_bytes());
        let name = target.child(&format!("_{protocol}"));
        let name = name
            .and_then(|n| n.child(&format!("_{label}")))
            .filter(|_| named);
        let Some(name) = name else {
            claims.words.push(format!(
                "{what}: port `{}` has no name in the zone",
                port.name
            ));
            return;
        };
        let data = Data::Service {
            priority: 0,
            weight: 1,
            port: port.number,
            target: target.clone(),
        };
        let record = Record::new(name.clone(), self.ttl, &data);
        claims.claim(&name, holder, [record]);
    }
}

fn is_host_or_wildcard(name: &Name) -> bool {
    let mut labels = name.labels().peekable();
    labels.next_if(|l| *l == b"*");
    labels.all(is_host_label)
}

/// Gives a name to the first of its holders. What people added stands beside what the others have
/// of other types.
fn settle(
    (name, is_apex): (&Name, bool),
    mut holders: BTreeMap<Holder, Vec<Record>>,
    out: &mut Vec<Record>,
    words: &mut Vec<String>,
) {
    let fixed = holders.remove(&Holder::Fixed);
    let mut rest = holders.into_iter();
    let first = rest.next();
    let losers: Vec<String> = rest.map(|(h, _)| h.to_string()).collect();
    if let Some((first, _)) = first.as_ref().filter(|_| !losers.is_empty()) {
        let why = match first {
            Holder::Node(_) => "a node's name goes before",
            _ => "the older one has it",
        };
        words.push(format!(
            "{name} is {first}, not {}: {why}",
            losers.join(", ")
        ));
    }
    let mut records = first.as_ref().map(|f| f.1.clone()).unwrap_or_default();
    if let Some(fixed) = fixed {
        let is_node = matches!(first, Some((Holder::Node(_), _)));
        // NS of the zone itself lead to more servers of it, not away.
        let alias = |r: &Record| r.kind == kind::CNAME || r.kind == kind::NS && !is_apex;
        for record in fixed {
            let clash = |r: &Record| {
                let addresses = r.address().is_some() && record.address().is_some();
                r.kind == record.kind || addresses || alias(&record)
            };
            let shown = first.as_ref().map(|f| f.0.to_string()).unwrap_or_default();
            let kind = kind_name(record.kind);
            if is_node && records.iter().any(clash) {
                words.push(format!(
                    "{name} {kind} that was added is left out: the name is {shown}"
                ));
                continue;
            }
            if records.iter().any(clash) {
                words.push(format!(
                    "{name} {kind} is as was added, not as {shown} has it"
                ));
                records.retain(|r| !clash(r));
            }
            out.push(record);
        }
    }
    out.extend(records);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::file::export;

    fn service(stack: &str, name: &str, since: u64, address: &str) -> Service {
        Service {
            stack: stack.to_owned(),
            name: name.to_owned(),
            since,
            addresses: vec![address.parse().unwrap()],
            ..Service::default()
        }
    }

    fn lines(entries: &Entries) -> (Vec<String>, Vec<String>) {
        let start = Start::new("z".parse().unwrap());
        let (content, words) = entries.forward(start);
        let shown = export(&"z".parse().unwrap(), None, content.records());
        (
            shown
                .lines()
                .skip(1)
                .map(|l| l.replace('\t', " "))
                .collect(),
            words,
        )
    }

    #[test]
    fn services_and_nodes_have_names() {
        let mut web = service("shop", "web", 5, "10.0.0.1");
        web.owner = Some("it".to_owned());
        web.names = vec!["@".to_owned(), "*.apps".to_owned(), "no one".to_owned()];
        web.ports = vec![Port {
            name: "http".to_owned(),
            protocol: "tcp".to_owned(),
            number: 80,
        }];
        let node = Node {
            name: "n1".to_owned(),
            addresses: vec!["10.0.0.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
            serves: true,
        };
        let entries = Entries {
            services: vec![web],
            nodes: vec![node],
            fixed: Arc::default(),
            ttl: 5,
        };
        let (lines, words) = lines(&entries);
        assert_eq!(
            lines,
            [
                "z. 5 IN A 10.0.0.1",
                "z. 300 IN NS n1.z.",
                "*.apps.z. 5 IN A 10.0.0.1",
                "n1.z. 5 IN A 10.0.0.9",
                "n1.z. 5 IN AAAA 2001:db8::9",
                "web.shop.z. 5 IN A 10.0.0.1",
                "web.shop.z. 5 IN TXT \"owner=it\"",
                "web.shop.z. 5 IN TXT \"stack=shop\"",
                "_http._tcp.web.shop.z. 5 IN SRV 0 1 80 web.shop.z.",
                "web.z. 5 IN A 10.0.0.1",
                "web.z. 5 IN TXT \"owner=it\"",
                "web.z. 5 IN TXT \"stack=shop\"",
                "_http._tcp.web.z. 5 IN SRV 0 1 80 web.z.",
            ]
        );
        assert_eq!(
            words,
            ["service web of stack shop: `no one` is no name in z."]
        );
    }

    #[test]
    fn a_container_is_named_with_its_node() {
        let entries = Entries {
            services: vec![
                Service {
                    container: true,
                    ..service("n1", "jenkins", 5, "10.0.0.1")
                },
                service("ci", "jenkins", 6, "10.0.0.2"),
            ],
            ttl: 5,
            ..Entries::default()
        };
        let (lines, words) = lines(&entries);
        for wanted in [
            "jenkins.z. 5 IN A 10.0.0.1",
            "jenkins.n1.z. 5 IN A 10.0.0.1",
            "jenkins.n1.z. 5 IN TXT \"node=n1\"",
            "jenkins.ci.z. 5 IN A 10.0.0.2",
        ] {
            assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
        }
        assert_eq!(
            words,
            [
                "jenkins.z. is container jenkins of node n1, not service jenkins of stack ci: the older one has it"
            ]
        );
        let holders = entries.holders(&"z".parse().unwrap());
        let of = |name: &str| holders[&name.parse::<Name>().unwrap()].clone();
        assert_eq!(of("jenkins.z"), "container jenkins of node n1");
        assert_eq!(of("jenkins.ci.z"), "service jenkins of stack ci");
    }

    #[test]
    fn servers_of_others_stand_beside_the_nodes() {
        let server = |name: &str, target: &str| {
            let data = Data::Server(target.parse().unwrap());
            Record::new(name.parse().unwrap(), 9, &data)
        };
        let mut web = service("shop", "web", 5, "10.0.0.1");
        web.names = vec!["@".to_owned()];
        let entries = Entries {
            services: vec![web],
            nodes: vec![Node {
                name: "n1".to_owned(),
                addresses: vec!["10.0.0.9".parse().unwrap()],
                serves: true,
            }],
            fixed: Arc::new(vec![server("z", "ns.it.example"), server("z", "n9.z")]),
            ttl: 5,
        };
        let (lines, words) = lines(&entries);
        let apex: Vec<&String> = lines.iter().filter(|l| l.starts_with("z. ")).collect();
        assert_eq!(
            apex,
            [
                "z. 5 IN A 10.0.0.1",
                "z. 9 IN NS n1.z.",
                "z. 9 IN NS ns.it.example."
            ]
        );
        assert_eq!(words.len(), 1, "{words:?}");
    }

    #[test]
    fn one_of_two_has_a_name() {
        let mut fixed = Record::new(
            "db.z".parse().unwrap(),
            9,
            &Data::Alias("x.y".parse().unwrap()),
        );
        let entries = Entries {
            services: vec![
                service("b", "web", 5, "10.0.0.1"),
                service("a", "web", 6, "10.0.0.2"),
                service("a", "db", 6, "10.0.0.3"),
                service("c", "my_n1", 6, "10.0.0.4"),
                service("c", "n1", 1, "10.0.0.5"),
                service("c", "a.b", 1, "10.0.0.5"),
            ],
            nodes: vec![Node {
                name: "n1".to_owned(),
                addresses: vec!["10.0.0.9".parse().unwrap()],
                serves: true,
            }],
            fixed: Arc::new(vec![fixed.clone(), {
                fixed.name = "n1.z".parse().unwrap();
                fixed
            }]),
            ttl: 5,
        };
        let (lines, words) = lines(&entries);
        let has = |l: &str| lines.iter().any(|o| o == l);
        assert!(has("web.z. 5 IN A 10.0.0.1") && !has("web.z. 5 IN A 10.0.0.2"));
        assert!(has("web.a.z. 5 IN A 10.0.0.2") && has("db.z. 9 IN CNAME x.y."));
        assert!(has("n1.z. 5 IN A 10.0.0.9") && has("my-n1.z. 5 IN A 10.0.0.4"));
        for want in [
            "web.z. is service web of stack b, not service web of stack a: the older one has it",
            "n1.z. is node n1, not service n1 of stack c: a node's name goes before",
            "db.z. CNAME is as was added, not as service db of stack a has it",
            "n1.z. CNAME that was added is left out: the name is node n1",
        ] {
            assert!(words.iter().any(|w| w == want), "{want}: {words:#?}");
        }
        assert!(
            words
                .iter()
                .any(|w| w.starts_with("service a.b of stack c `a.b` has no name"))
        );
    }
}
