//! Ports that every node publishes, wherever the tasks are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use wharfie_core::director::{Led, Owner};
use wharfie_core::network::firewall::Protocol;
use wharfie_core::network::publish::{PublishedPort, network_of, publish};
use wharfie_core::network::{Running, bridge_name};
use wharfie_edge::forward::Port;
use wharfie_host::net::{
    self, Error, Gate, Gateway, Mac, Namespace, Published, Publisher, Publishing,
};

use super::flows::Flows;
use super::view::Scene;

/// What is published here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Doors {
    publishing: Publishing,
    /// What is behind each port, for programs of this host.
    pub(super) forwards: BTreeMap<Port, Vec<SocketAddr>>,
    /// Whose port it is.
    owners: BTreeMap<PublishedPort, String>,
    /// Networks by which connections come to tasks of a service, by stack and service.
    ways: BTreeMap<(String, String), BTreeSet<String>>,
    /// The port at which this node answers for the zone.
    zone: Option<u16>,
    /// What cannot be, in words.
    pub(super) clashes: Vec<String>,
}

fn protocol(protocol: Protocol) -> net::Protocol {
    match protocol {
        Protocol::Udp => net::Protocol::Udp,
        Protocol::Sctp => net::Protocol::Sctp,
        Protocol::Tcp | Protocol::Icmp => net::Protocol::Tcp,
    }
}

impl Doors {
    /// What this node publishes: ports whose network has its bridge here.
    pub(super) fn of(scene: &Scene) -> Self {
        let table = scene.with(publish);
        let settings = scene.director.settings.iter();
        let mut zone = settings.filter(|s| !s.zone.is_empty()).map(|s| s.dns_port);
        let mut doors = Self {
            zone: zone.next(),
            clashes: table.clashes,
            ..Self::default()
        };
        for (port, of) in table.ports {
            let Some(object) = scene.book.networks.get(&of.network) else {
                continue;
            };
            if !scene.bridges.contains(&bridge_name(object.vni)) {
                continue;
            }
            let owner = (of.stack.clone(), of.service.clone());
            doors.ways.entry(owner).or_default().insert(of.network);
            let tasks = of.backends.iter().flat_map(|b| {
                let (v4, v6) = (b.v4.map(IpAddr::V4), b.v6.map(IpAddr::V6));
                v4.into_iter().chain(v6)
            });
            let tasks: Vec<IpAddr> = tasks.collect();
            let key = Port {
                udp: port.protocol == Protocol::Udp,
                number: port.port,
            };
            if matches!(port.protocol, Protocol::Tcp | Protocol::Udp) {
                let targets = tasks.iter().map(|a| SocketAddr::new(*a, of.target));
                doors.forwards.insert(key, targets.collect());
            }
            doors.publishing.ports.push(Published {
                protocol: protocol(port.protocol),
                port: port.port,
                target: of.target,
                tasks,
            });
            let owner = format!("{}/{}", of.stack, of.service);
            doors.owners.insert(port, owner);
        }
        doors.addressed(scene);
        let spanning = scene.book.networks.values();
        let here = spanning.filter(|n| scene.bridges.contains(&bridge_name(n.vni)));
        let subnets = here.flat_map(|n| n.pools().map(|p| p.subnet.to_string()));
        doors.publishing.subnets = subnets.filter_map(|s| s.parse().ok()).collect();
        doors
    }

    /// Connections come by addresses of the surrounding network too.
    fn addressed(&mut self, scene: &Scene) {
        let networks = &scene.book.networks;
        let given = scene.director.addresses.iter();
        for (owner, _) in given.filter(|(_, a)| a.freed.is_none()) {
            let Owner::Service { stack, service, .. } = owner else {
                continue;
            };
            let named = scene.stacks().iter().find(|s| s.project.name == *stack);
            let network = named.and_then(|s| {
                let definition = s.project.any_service(service)?;
                network_of(s, definition, networks)
            });
            if let Some(network) = network {
                let ways = self.ways.entry((stack.clone(), service.clone()));
                ways.or_default().insert(network.to_owned());
            }
        }
    }

    /// Leaves out the ports that this host has for somebody else; says so.
    pub(super) fn without(&mut self, taken: &BTreeMap<Port, io::Error>) -> Vec<String> {
        let mut said = Vec::new();
        for (port, error) in taken {
            let kind = if port.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            };
            let key = PublishedPort {
                protocol: kind,
                port: port.number,
            };
            let owner = self.owners.get(&key).map_or("", String::as_str);
            let why = match error.kind() {
                io::ErrorKind::AddrInUse if self.zone == Some(port.number) => {
                    "this node answers for the zone there; `wharfie director init --dns-port PORT` takes another port".to_owned()
                }
                io::ErrorKind::AddrInUse => "another program of this host has it".to_owned(),
                _ => error.to_string(),
            };
            said.push(format!(
                "port {key} of {owner} is not published here: {why}"
            ));
            let kind = protocol(kind);
            let others = |p: &Published| (p.protocol, p.port) != (kind, port.number);
            self.publishing.ports.retain(others);
        }
        said
    }

    /// Hosts that connections to a container may come by: each one's gateway on the network.
    pub(super) fn gateways(&self, scene: &Scene, container: &Running) -> Vec<Gateway> {
        let of = (container.stack.clone(), container.service.clone());
        if container.oneoff {
            return Vec::new();
        }
        let ways = self.ways.get(&of).into_iter().flatten();
        let ways = ways.filter(|name| container.networks.contains_key(*name));
        let gateways = ways.flat_map(|name| {
            let nodes = scene.nodes().filter_map(move |n| n.own.get(name));
            nodes.filter_map(|at| {
                Some(Gateway {
                    mac: Mac(at.mac?.0),
                    addresses: at.addresses().collect(),
                })
            })
        });
        gateways.collect()
    }
}

/// The kernel's part of it.
#[derive(Default)]
pub(super) struct Ports {
    open: Option<(Publisher, Gate)>,
    wanted: Publishing,
    flows: Flows,
}

impl Ports {
    /// Whether nothing is published.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Ends this host's UDP flows to tasks that are not there any more: by published ports, and by
    /// services' addresses of the surrounding network (`led`).
    ///
    /// # Errors
    /// The kernel does not say where this is.
    pub(super) fn end_flows(
        &mut self,
        led: &[Led],
        there: &BTreeSet<IpAddr>,
        late: bool,
    ) -> Result<(), Error> {
        let published = self.wanted.ports.iter().flat_map(|p| &p.tasks);
        let led = led.iter().flat_map(|l| &l.tasks);
        self.flows.lead(published.chain(led).copied());
        self.flows.end(&Namespace::here()?, there, late);
        Ok(())
    }

    /// Has the kernel publish these.
    pub(super) fn apply(&mut self, doors: &Doors, repair: bool) -> Result<(), Error> {
        if doors.publishing.ports.is_empty() {
            return match self.open.take() {
                Some((mut publisher, mut gate)) => {
                    publisher.purge()?;
                    gate.set_open(false).map(drop)
                }
                None => Ok(()),
            };
        }
        if self.wanted == doors.publishing && self.open.is_some() && !repair {
            return Ok(());
        }
        let (mut publisher, mut gate) = match self.open.take() {
            Some(open) => open,
            None => {
                let host = Namespace::here()?;
                (Publisher::open(&host)?, Gate::open(&host)?)
            }
        };
        if gate.set_open(true)? {
            publisher.apply(&doors.publishing)?;
        } else {
            // What is answered by way of connections of our own goes on.
            publisher.purge()?;
        }
        self.open = Some((publisher, gate));
        self.wanted = doors.publishing.clone();
        Ok(())
    }
}
