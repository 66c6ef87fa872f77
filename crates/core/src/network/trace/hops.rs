//! The single places that a packet passes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::end::{End, Place, answered, called, is_hosts, seat, task};
use super::{Step, Target, Tracer};
use crate::network::encrypt::{Plan, Reason};
use crate::network::firewall::{Action, Chain, Line, Match, Packet, Protocol};
use crate::network::world::{Member, Readiness};
use crate::network::{Attachment, Node, Running, World};

/// Addresses of a rule that are named at most.
const NAMED: usize = 4;

impl<'a> Tracer<'a> {
    /// What the name leads to that was asked for. Only where the service itself is meant does it
    /// decide whether anything arrives.
    pub(super) fn names(&mut self, from: Place<'a>, to: Place<'a>, of_service: bool) -> Step {
        let world = self.world;
        let (source, container) = (seat(from), to.1);
        let shared = source.1.networks.keys();
        let mut shared = shared.filter(|n| seat(to).1.networks.contains_key(*n));
        let Some(network) = shared.next() else {
            // It is said where networks are compared.
            return Ok(());
        };
        if !world.networks.contains_key(network) {
            let why =
                format!("{network} is this node's own: its Engine answers for the names on it");
            self.way.pass("names", why);
            return Ok(());
        }
        if container.service.is_empty() || container.oneoff {
            return Ok(());
        }
        let word = match container.stack == from.1.stack {
            true => container.service.clone(),
            false => format!("{}.{}", container.service, container.stack),
        };
        let found = answered(world, source, &word);
        let own = seat(to).1.networks.get(network);
        let is_own = |a: &IpAddr| own.is_some_and(|o| o.addresses().any(|own| own == *a));
        let list = |all: &[IpAddr]| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(", ")
        };
        let why = match found.as_deref() {
            None => format!("{word} is no name for {}", task(source.1)),
            Some([]) => format!(
                "{word} is answered without an address: no task of it is ready{}",
                unready(world, &container.stack, &container.service)
            ),
            Some(found) if found.iter().any(is_own) => format!("{word} is {}", list(found)),
            Some(found) => {
                let has = |vip: &crate::network::Vip| vip.addresses().any(|a| found.contains(&a));
                match world.vips.values().any(has) {
                    true => format!("{word} is {}, the service's own address", list(found)),
                    false => format!(
                        "{word} is {}: it does not lead to {}",
                        list(found),
                        task(container)
                    ),
                }
            }
        };
        if of_service && found.as_ref().is_none_or(Vec::is_empty) {
            return self.stop("names", why);
        }
        let why = match (of_service, readiness(to, own)) {
            (false, Some(why)) => format!("{why}; {}.{word} leads to it", container.number),
            _ => why,
        };
        self.way.pass("names", why);
        Ok(())
    }

    pub(super) fn egress(&mut self, place: Place<'a>, network: &str, peer: IpAddr) -> Step {
        let rules = (self.facts.firewall)(place.0, place.1);
        let chain = rules.and_then(|r| r.egress);
        self.filter(place, "egress", chain, network, peer)
    }

    pub(super) fn ingress(&mut self, place: Place<'a>, network: &str, peer: IpAddr) -> Step {
        let rules = (self.facts.firewall)(place.0, place.1);
        let chain = rules.and_then(|r| r.ingress);
        self.filter(place, "ingress", chain, network, peer)
    }

    fn filter(
        &mut self,
        place: Place<'a>,
        direction: &str,
        chain: Option<Chain>,
        network: &str,
        peer: IpAddr,
    ) -> Step {
        let what = task(place.1);
        let place_name = format!("firewall of {what}, {direction}");
        let Some(chain) = chain else {
            self.way.pass(place_name, "it is not filtered");
            return Ok(());
        };
        let (protocol, port) = self.question.port.unwrap_or((Protocol::Tcp, 80));
        let interface = interface(place.1, network);
        let packet = Packet {
            protocol,
            port,
            peer,
            interface: &interface,
        };
        let (action, rule) = chain.verdict(&packet);
        let said = match chain.lines.iter().find(|l| l.why == rule) {
            Some(line) if rule.contains('[') => {
                format!("x-wharfie.firewall.{rule} ({})", describe(line))
            }
            Some(_) => format!("what always passes ({rule})"),
            None => {
                format!("the {rule} of x-wharfie.firewall: no rule of {direction} matches, and it")
            }
        };
        let what = match (protocol, self.question.port) {
            (Protocol::Icmp, _) => "icmp".to_owned(),
            (protocol, Some(_)) => format!("{port}/{}", protocol.as_str()),
            (protocol, None) => format!("{port}/{} (no port was named)", protocol.as_str()),
        };
        let word = if direction == "egress" { "to" } else { "from" };
        match action {
            Action::Accept => {
                let why = format!("{said} accepts {what} {word} {peer}");
                self.way.pass(place_name, why);
                Ok(())
            }
            Action::Drop => self.stop(place_name, format!("{said} drops {what} {word} {peer}")),
        }
    }

    /// From one host to the other.
    pub(super) fn between(
        &mut self,
        network: &str,
        from: &Node,
        to: &Node,
        at: &Attachment,
    ) -> Step {
        if from.id == to.id {
            let place = format!("node {}", from.name);
            self.way.pass(place, "both are here: over its bridge");
            return Ok(());
        }
        let place = format!("node {} to {}", from.name, to.name);
        for node in [from, to] {
            let faults = (self.facts.faults)(node);
            if let Some(fault) = faults
                .into_iter()
                .find(|f| f.between || f.network == network)
            {
                return self.stop(place, format!("node {} says: {}", node.name, fault.what));
            }
        }
        if let (Some(own), true) = (from.address, from.address == to.address) {
            let why = format!("both nodes say that {own} is theirs");
            return self.stop(place, why);
        }
        let vni = self.world.networks.get(network).map_or(0, |n| n.vni);
        let (Some(host), Some(own)) = (to.address, from.address) else {
            let unknown = match to.address {
                None => &to.name,
                Some(_) => &from.name,
            };
            return self.stop(place, format!("no address of {unknown} is known"));
        };
        if own.is_ipv4() != host.is_ipv4() {
            let why = format!("{own} and {host} are not of one family");
            return self.stop(place, why);
        }
        let Some(mac) = at.mac else {
            let why = format!("{} has not said its hardware address yet", to.name);
            return self.stop(place, why);
        };
        let how = match (self.facts.plan)(from, to) {
            Some(Plan::Encrypted { .. }) => "encrypted",
            Some(Plan::Clear) | None => "in clear",
            Some(Plan::Blocked(reason)) => {
                let (who, other) = match reason {
                    Reason::OtherCannot => (from, to),
                    Reason::OwnCannot => (to, from),
                };
                let why = format!(
                    "{} demands encryption (`network-encrypt`), and {} has no key for it",
                    who.name, other.name
                );
                return self.stop(place, why);
            }
        };
        let on = |n: &&Node| {
            n.containers
                .iter()
                .any(|c| c.networks.contains_key(network))
        };
        let seen = self.world.nodes.iter().filter(on);
        let nodes: BTreeSet<&str> = seen.map(|n| n.name.as_str()).collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let why = format!(
            "VXLAN {vni} over {own} to {host}, {how}, to {mac}; the network is on {}",
            nodes.join(", ")
        );
        self.way.pass(place, why);
        Ok(())
    }

    /// From a container to a host, its own or another.
    pub(super) fn reach_host(&mut self, source: Place<'a>, node: &'a Node) -> Step {
        let (own, container) = source;
        let Some((network, _)) = container.networks.iter().next() else {
            return self.stop("networks", format!("{} is on no network", called(source)));
        };
        let here = own.id == node.id;
        if !here {
            self.has_way_out(source)?;
        }
        let at = node.own.get(network).filter(|_| here);
        let address = at.and_then(|a| a.addresses().next()).or(node.address);
        let Some(address) = address else {
            return self.stop(format!("node {}", node.name), "no address of it is known");
        };
        self.egress(source, network, address)?;
        let why = match here {
            true => format!("{address} is its own host: all but the cluster's own ports is let in"),
            false => format!("it leaves {} as that host's, to {address}", own.name),
        };
        self.way.pass(format!("node {}", node.name), why);
        self.way.target = Some(Target {
            node: node.id.clone(),
            container: String::new(),
            address,
        });
        Ok(())
    }

    /// From a container to an address that nobody of the cluster has.
    pub(super) fn reach_outside(&mut self, source: Place<'a>, address: IpAddr) -> Step {
        self.has_way_out(source)?;
        let network = source.1.networks.keys().next().map_or("", String::as_str);
        self.egress(source, network, address)?;
        let why = format!(
            "{address} is outside: it leaves as this host's; what is beyond is not known here"
        );
        self.way.pass(format!("node {}", source.0.name), why);
        Ok(())
    }

    /// Whether a container has a network with a way out.
    fn has_way_out(&mut self, source: Place<'a>) -> Step {
        let internal = |name: &String| {
            let local = || self.world.local.get(name).is_some_and(|l| l.internal);
            let object = self.world.networks.get(name);
            object.map_or_else(local, |n| n.internal)
        };
        let names: Vec<&str> = source.1.networks.keys().map(String::as_str).collect();
        if source.1.networks.keys().any(|n| !internal(n)) {
            return Ok(());
        }
        let why = match names.is_empty() {
            true => format!("{} is on no network", called(source)),
            false => format!(
                "{} is on internal networks only, which have no way out: {}",
                called(source),
                names.join(", ")
            ),
        };
        self.stop("networks", why)
    }

    /// From a host, which has an address of its own on networks that have containers on it.
    pub(super) fn begin_on_host(&mut self, node: &'a Node, to: End<'a>) -> Step {
        let place = format!("node {}", node.name);
        let to = match to {
            End::Container(to, _) => to,
            End::Service(key) => {
                let why = format!(
                    "the address of {}/{} is one inside containers only; name a task, or publish a port",
                    key.stack, key.service
                );
                return self.stop(place, why);
            }
            End::Host(other) if other.id == node.id => {
                self.way.pass(place, "it is the same host");
                return Ok(());
            }
            End::Host(other) => {
                let why = format!(
                    "the hosts' own network leads to {}; it is not Wharfie's",
                    other.name
                );
                self.way.pass(place, why);
                return Ok(());
            }
            End::Outside(address) => {
                let why = format!("{address} is outside: what leads there is not Wharfie's");
                self.way.pass(place, why);
                return Ok(());
            }
        };
        self.runs(to)?;
        let target = seat(to);
        if is_hosts(target.1) {
            let why = format!("{} is on the network of {}", called(to), target.0.name);
            self.way.pass(place, why);
            return Ok(());
        }
        let same = node.id == target.0.id;
        let reached = |name: &String| same || node.own.contains_key(name);
        let found = target.1.networks.iter().find(|(name, _)| reached(name));
        let Some((network, at)) = found else {
            let why = format!(
                "it has no part of a network of {}: no container on it is here",
                called(to)
            );
            return self.stop(place, why);
        };
        let Some(address) = at.addresses().next() else {
            return self.stop(place, format!("{} has no address on {network}", called(to)));
        };
        let own = node.own.get(network).and_then(|a| a.addresses().next());
        let own = own.or(node.address).unwrap_or(address);
        self.way
            .pass(place, format!("it has {own} on {network}: to {address}"));
        self.between(network, node, target.0, at)?;
        self.ingress(target, network, own)?;
        self.way.target = Some(Target {
            node: target.0.id.clone(),
            container: target.1.id.clone(),
            address,
        });
        Ok(())
    }
}

/// The interface by which a container is on a network, as the Engine names them: in order.
fn interface(container: &Running, network: &str) -> String {
    let place = container.networks.keys().position(|n| n == network);
    format!("eth{}", place.unwrap_or(0))
}

/// A rule in a few words.
fn describe(line: &Line) -> String {
    let Match::Fields {
        protocols,
        ports,
        peers,
        interfaces,
    } = &line.matches
    else {
        return line.why.clone();
    };
    let mut parts: Vec<String> = Vec::new();
    let protocols: Vec<&str> = protocols.iter().map(|p| p.as_str()).collect();
    if !protocols.is_empty() {
        parts.push(protocols.join(", "));
    }
    let ports: Vec<String> = ports
        .iter()
        .map(|p| match p.first == p.last {
            true => p.first.to_string(),
            false => format!("{}-{}", p.first, p.last),
        })
        .collect();
    if !ports.is_empty() {
        parts.push(format!("ports {}", ports.join(", ")));
    }
    if let Some(peers) = peers {
        let named: Vec<String> = peers.iter().take(NAMED).map(ToString::to_string).collect();
        parts.push(match peers.len() {
            0 => "nobody, as who is named has no address".to_owned(),
            n if n > NAMED => format!("{} and {} more", named.join(", "), n - NAMED),
            _ => named.join(", "),
        });
    }
    if !interfaces.is_empty() {
        parts.push(format!("interface {}", interfaces.join(", ")));
    }
    match parts.is_empty() {
        true => "everything".to_owned(),
        false => parts.join("; "),
    }
}

/// Why a task is not given to those who ask for its service, if so.
fn readiness((node, container): Place, at: Option<&Attachment>) -> Option<String> {
    let member = Member {
        node,
        number: 0,
        container,
        at: at?,
    };
    match member.readiness() {
        Readiness::Ready => None,
        Readiness::Leaving => Some(format!(
            "{} leads to it only if there is no other: {} is being emptied",
            container.service, node.name
        )),
        _ => Some(format!(
            "{} does not lead to it: {}",
            container.service,
            state(container)
        )),
    }
}

/// How a task is, where that keeps it from being ready.
fn state(container: &Running) -> String {
    use crate::seen::{Health, State};
    match (container.state, container.health) {
        (State::Running, Health::Starting) => "its health check has not passed yet".to_owned(),
        (State::Running, Health::Unhealthy) => "it is unhealthy".to_owned(),
        (State::Running, _) if container.dying => "it is about to be stopped".to_owned(),
        (State::Running, _) => "its node does not answer".to_owned(),
        (state, _) => format!("it is {}", state.as_str()),
    }
}

/// How the tasks of a service are of which none is ready.
pub(super) fn unready(world: &World, stack: &str, service: &str) -> String {
    let own = |c: &&Running| c.stack == stack && c.service == service && !c.oneoff;
    let mut each = Vec::new();
    for node in world.nodes {
        for container in node.containers.iter().filter(own) {
            let why = match node.live {
                true => state(container),
                false => format!("node {} does not answer", node.name),
            };
            each.push(format!("{} on {}: {why}", container.number, node.name));
        }
    }
    match each.is_empty() {
        true => ": it has none".to_owned(),
        false => format!(" ({})", each.join("; ")),
    }
}
