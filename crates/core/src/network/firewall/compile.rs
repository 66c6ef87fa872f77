//! The firewall of a container as plain rules: services and networks are addresses by now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Action, Firewall, Ports, Protocol, Rule};
use crate::network::world::Index;
use crate::network::{Cidr, VipKey, World};
use crate::wanted::Stack;

/// The rules of one container. They are for connections that are new: see [`Match`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// What comes in; none if it is not filtered.
    pub ingress: Option<Chain>,
    /// What goes out; none if it is not filtered.
    pub egress: Option<Chain>,
    /// Whether drops are logged.
    pub log: bool,
}

/// The rules of one direction, first match wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The rules.
    pub lines: Vec<Line>,
    /// What becomes of what matches none.
    pub default: Action,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What matches.
    pub matches: Match,
    /// What becomes of it.
    pub action: Action,
    /// Where the rule comes from, for people and as a comment: `egress[2]`, `established`.
    pub why: String,
}

/// What a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Packets of the loopback interface.
    Loopback,
    /// Packets of connections that are open, and errors about them (`ct state established,related`).
    Established,
    /// ICMPv6 133 to 137 (RFC 4861): without these there is no IPv6.
    Discovery,
    /// All of these; what is empty matches everything.
    Fields {
        /// Protocols.
        protocols: Vec<Protocol>,
        /// Destination ports.
        ports: Vec<Ports>,
        /// Addresses of the other side; none is everybody, an empty list is nobody.
        peers: Option<BTreeSet<Cidr>>,
        /// Interfaces; a `*` at the end stands for anything.
        interfaces: Vec<String>,
    },
}

/// The first packet of a connection, as one direction's rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port, where the protocol has ports.
    pub port: u16,
    /// Address of the other side.
    pub peer: IpAddr,
    /// The interface in the container.
    pub interface: &'a str,
}

impl Chain {
    /// What becomes of the first packet of a connection, and by which rule.
    #[must_use]
    pub fn verdict(&self, packet: &Packet) -> (Action, &str) {
        let line = self.lines.iter().find(|l| l.matches.is(packet));
        line.map_or((self.default, "default"), |l| (l.action, l.why.as_str()))
    }
}

impl Match {
    fn is(&self, packet: &Packet) -> bool {
        match self {
            Self::Loopback => packet.interface == "lo",
            // The first packet of a connection is of none that is open.
            Self::Established | Self::Discovery => false,
            Self::Fields {
                protocols,
                ports,
                peers,
                interfaces,
            } => {
                let named = |i: &String| match i.strip_suffix('*') {
                    Some(start) => packet.interface.starts_with(start),
                    None => packet.interface == i,
                };
                let protocol = protocols.is_empty() || protocols.contains(&packet.protocol);
                let has_ports = packet.protocol != Protocol::Icmp;
                let within = |p: &Ports| (p.first..=p.last).contains(&packet.port);
                let port = ports.is_empty() || (has_ports && ports.iter().any(within));
                let peers = peers.as_ref();
                let peer = peers.is_none_or(|p| p.iter().any(|c| c.contains(packet.peer)));
                let interface = interfaces.is_empty() || interfaces.iter().any(named);
                protocol && port && peer && interface
            }
        }
    }
}

/// Makes rules of firewalls, as things are now: made once and used for all containers of a node.
pub struct Compiler<'a> {
    world: &'a World<'a>,
    index: Index<'a>,
}

impl std::fmt::Debug for Compiler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

impl<'a> Compiler<'a> {
    /// Takes what is known.
    #[must_use]
    pub fn new(world: &'a World<'a>) -> Self {
        Self {
            world,
            index: Index::of(world),
        }
    }

    /// The rules of the containers of a service of a stack. `resolvers` are the addresses that they ask
    /// for names.
    #[must_use]
    pub fn compile(
        &self,
        firewall: &Firewall,
        stack: &Stack,
        resolvers: &BTreeSet<IpAddr>,
    ) -> Ruleset {
        let chain = |rules: &Option<Vec<Rule>>, direction: &str| {
            let rules = rules.as_ref()?;
            let line = |matches, why: &str| Line {
                matches,
                action: Action::Accept,
                why: why.to_owned(),
            };
            let mut lines = vec![
                line(Match::Loopback, "loopback"),
                line(Match::Established, "established"),
                line(Match::Discovery, "neighbours"),
            ];
            if direction == "egress" && firewall.dns && !resolvers.is_empty() {
                let dns = Match::Fields {
                    protocols: vec![Protocol::Udp, Protocol::Tcp],
                    ports: vec![Ports {
                        first: 53,
                        last: 53,
                    }],
                    peers: Some(resolvers.iter().map(|a| Cidr::host(*a)).collect()),
                    interfaces: Vec::new(),
                };
                lines.push(line(dns, "dns"));
            }
            for (i, rule) in rules.iter().enumerate() {
                lines.push(Line {
                    matches: self.rule(stack, rule),
                    action: rule.action,
                    why: format!("{direction}[{i}]"),
                });
            }
            Some(Chain {
                lines,
                default: firewall.default,
            })
        };
        Ruleset {
            ingress: chain(&firewall.ingress, "ingress"),
            egress: chain(&firewall.egress, "egress"),
            log: firewall.log,
        }
    }

    fn rule(&self, stack: &Stack, rule: &Rule) -> Match {
        let anybody = rule.cidrs.is_empty() && rule.services.is_empty() && rule.networks.is_empty();
        let mut peers: BTreeSet<Cidr> = rule.cidrs.iter().copied().collect();
        let project = &stack.project;
        let name = |key: &String| project.networks.get(key).map_or("", |n| n.name.as_str());
        let named: Vec<&str> = rule.networks.iter().map(name).collect();
        if rule.services.is_empty() {
            let networks = named.iter().filter_map(|n| self.world.networks.get(*n));
            peers.extend(networks.flat_map(|n| n.pools().map(|p| p.subnet)));
        }
        for service in &rule.services {
            let on = |network: &str| named.is_empty() || named.contains(&network);
            for network in self.index.zones.keys().filter(|n| on(n)) {
                peers.extend(self.service(network, &project.name, service));
            }
        }
        let mut protocols = rule.protocols.clone();
        if protocols.is_empty() && !rule.ports.is_empty() {
            protocols = vec![Protocol::Tcp, Protocol::Udp];
        }
        Match::Fields {
            protocols,
            ports: rule.ports.clone(),
            peers: (!anybody).then_some(peers),
            interfaces: rule.interfaces.clone(),
        }
    }

    /// Addresses of a service on a network: of its tasks in any state, as one that just starts may
    /// connect already, and its own.
    fn service(&self, network: &str, stack: &str, service: &str) -> Vec<Cidr> {
        let group = self.index.group(network, stack, service);
        let members = group.into_iter().flat_map(|g| &g.members);
        let tasks = members.flat_map(|m| m.at.addresses());
        let key = VipKey {
            network: network.to_owned(),
            stack: stack.to_owned(),
            service: service.to_owned(),
        };
        let own = self.world.vips.get(&key);
        let own = own.into_iter().flat_map(super::super::Vip::addresses);
        tasks.chain(own).map(Cidr::host).collect()
    }
}

impl Ruleset {
    /// The rules for a container whose settings cannot be understood: nothing passes.
    #[must_use]
    pub fn closed() -> Self {
        let chain = || {
            Some(Chain {
                lines: Vec::new(),
                default: Action::Drop,
            })
        };
        Self {
            ingress: chain(),
            egress: chain(),
            log: false,
        }
    }
}
