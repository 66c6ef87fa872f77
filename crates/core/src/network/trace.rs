//! Why a container reaches another, or does not: hop by hop.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::firewall::{self, Action, Packet, Protocol, Ruleset};
use super::world::{Member, Readiness};
use super::{Attachment, Node, Running, World};
use crate::seen::State;

/// What is asked: whether new connections to a port pass.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who connects: a container's name or id, `stack/service/number`, `stack/service` or `service`.
    pub from: &'a str,
    /// To whom; as `from`.
    pub to: &'a str,
    /// Protocol and port; TCP and 80 unless said.
    pub port: Option<(Protocol, u16)>,
}

/// What becomes of a packet at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Where it is.
    pub place: String,
    /// Whether it passes.
    pub passes: bool,
    /// Why.
    pub why: String,
}

/// The way of a packet. It arrives if all hops let it pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Hop by hop; the last one is where it ends.
    pub hops: Vec<Hop>,
}

impl Way {
    /// Whether the packet arrives.
    #[must_use]
    pub fn arrives(&self) -> bool {
        !self.hops.is_empty() && self.hops.iter().all(|h| h.passes)
    }

    fn pass(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.hop(place, true, why);
    }

    fn stop(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.hop(place, false, why);
    }

    fn hop(&mut self, place: impl Into<String>, passes: bool, why: impl Into<String>) {
        self.hops.push(Hop {
            place: place.into(),
            passes,
            why: why.into(),
        });
    }
}

type Place<'a> = (&'a Node, &'a Running);

/// Containers that a name means, those that run first.
fn find<'a>(world: &World<'a>, name: &str) -> Vec<Place<'a>> {
    let all = || {
        world
            .nodes
            .iter()
            .flat_map(|n| n.containers.iter().map(move |c| (n, c)))
    };
    let by = |is: &dyn Fn(&Running) -> bool| -> Vec<Place<'a>> {
        let mut found: Vec<Place> = all().filter(|(_, c)| is(c)).collect();
        found.sort_by_key(|(n, c)| (c.state != State::Running, !n.live, c.number, &c.id));
        found
    };
    let tries: [&dyn Fn(&Running) -> bool; 4] = [
        &|c| c.name == name,
        &|c| name.len() >= 4 && c.id.starts_with(name),
        &|c| {
            let mut parts = name.split('/');
            let own =
                !c.oneoff && parts.next() == Some(&c.stack) && parts.next() == Some(&c.service);
            let number = parts.next().is_none_or(|n| n.parse() == Ok(c.number));
            own && number && parts.next().is_none()
        },
        &|c| !c.oneoff && c.service == name,
    ];
    let mut found = tries.iter().map(|is| by(*is));
    found.find(|f| !f.is_empty()).unwrap_or_default()
}

/// The container whose namespace a container is in: its own, or the one it joined.
fn seat((node, container): Place<'_>) -> Place<'_> {
    // The Engine lets nobody join who has joined another: one step is enough.
    let joined = |c: &&Running| !container.joined.is_empty() && c.id == container.joined;
    let other = node.containers.iter().find(joined);
    (node, other.unwrap_or(container))
}

fn called((node, container): Place) -> String {
    match container.service.is_empty() || container.oneoff {
        true => format!("{} on {}", container.name, node.name),
        false => format!(
            "{}/{}/{} on {}",
            container.stack, container.service, container.number, node.name
        ),
    }
}

/// Why a container reaches another, or does not. `firewall_of` gives the rules of a container, if it
/// has any; `encrypted` says whether packets to a host are encrypted.
#[must_use]
pub fn trace(
    world: &World,
    question: &Question,
    firewall_of: impl Fn(&Node, &Running) -> Option<Ruleset>,
    encrypted: impl Fn(IpAddr) -> bool,
) -> Way {
    let mut way = Way::default();
    let mut ends = Vec::new();
    for (role, name) in [("from", question.from), ("to", question.to)] {
        match find(world, name).first() {
            Some(place) => ends.push(*place),
            None => {
                way.stop(role, format!("there is no container `{name}`"));
                return way;
            }
        }
    }
    let (from, to) = (ends[0], ends[1]);
    for place in [from, to] {
        if !runs(&mut way, place) {
            return way;
        }
    }
    let (source, target) = (seat(from), seat(to));
    if source.1.id == target.1.id {
        way.pass(
            called(from),
            "both are in one network namespace: it is 127.0.0.1",
        );
        return way;
    }
    let Some((network, a, b)) = common(world, source, target) else {
        let list = |(_, c): Place| {
            let names: Vec<&str> = c.networks.keys().map(String::as_str).collect();
            match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            }
        };
        let why = format!(
            "no network in common: {} is on {}, {} on {}",
            called(from),
            list(source),
            called(to),
            list(target)
        );
        way.stop("networks", why);
        return way;
    };
    let (address, own) = match (a.v4, b.v4, a.v6, b.v6) {
        (Some(a), Some(b), _, _) => (IpAddr::V4(b), IpAddr::V4(a)),
        (_, _, Some(a), Some(b)) => (IpAddr::V6(b), IpAddr::V6(a)),
        _ => {
            way.stop(network, "they have no addresses of one family on it");
            return way;
        }
    };
    way.pass(
        "networks",
        format!("both are on {network}: {own} to {address}"),
    );
    names(&mut way, network, target, b);
    let packet = |peer| {
        let (protocol, port) = question.port.unwrap_or((Protocol::Tcp, 80));
        Packet {
            protocol,
            port,
            peer,
            interface: "eth0",
        }
    };
    let rules = firewall_of(source.0, source.1);
    let rules = rules.map(|r| r.egress);
    if !filter(
        &mut way,
        called(source),
        "egress",
        rules,
        &packet(address),
        question,
    ) {
        return way;
    }
    if !between(&mut way, world, network, source.0, target.0, b, encrypted) {
        return way;
    }
    let rules = firewall_of(target.0, target.1);
    let rules = rules.map(|r| r.ingress);
    if filter(
        &mut way,
        called(target),
        "ingress",
        rules,
        &packet(own),
        question,
    ) {
        way.pass(called(to), "it arrives");
    }
    way
}

fn runs(way: &mut Way, place: Place) -> bool {
    let (node, container) = place;
    if container.state != State::Running {
        let why = format!("it does not run: it is {}", container.state.as_str());
        way.stop(called(place), why);
    } else if !node.live {
        way.stop(called(place), format!("node {} does not answer", node.name));
    } else {
        way.pass(called(place), "it runs");
        return true;
    }
    false
}

/// A network that both are on; over several nodes only one that spans them.
fn common<'a>(
    world: &World<'a>,
    (from, source): Place<'a>,
    (to, target): Place<'a>,
) -> Option<(&'a str, &'a Attachment, &'a Attachment)> {
    let mut both = source.networks.iter().filter_map(|(name, a)| {
        let b = target.networks.get(name)?;
        let spans = from.id == to.id || world.networks.contains_key(name);
        spans.then_some((name.as_str(), a, b))
    });
    both.next()
}

fn names(way: &mut Way, network: &str, (node, container): Place, at: &Attachment) {
    let member = Member {
        node,
        number: 0,
        container,
        at,
    };
    if container.service.is_empty() || container.oneoff {
        return;
    }
    // It does not decide whether a packet to the address arrives.
    let why = match member.readiness() {
        Readiness::Ready => format!("{} leads to it on {network}", container.service),
        Readiness::Leaving => format!(
            "{} leads to it only if there is no other: {} is being emptied",
            container.service, node.name
        ),
        _ => format!(
            "{} does not lead to it: it is not ready; {}.{} does",
            container.service, container.number, container.service
        ),
    };
    way.pass("names", why);
}

fn filter(
    way: &mut Way,
    place: String,
    direction: &str,
    rules: Option<Option<firewall::Chain>>,
    packet: &Packet,
    question: &Question,
) -> bool {
    let place = format!("firewall of {place}, {direction}");
    let Some(chain) = rules.flatten() else {
        way.pass(place, "it is not filtered");
        return true;
    };
    let (action, rule) = chain.verdict(packet);
    let what = match (packet.protocol, question.port) {
        (Protocol::Icmp, _) => "icmp".to_owned(),
        (protocol, Some(_)) => format!("{}/{}", packet.port, protocol.as_str()),
        (protocol, None) => format!("{}/{} (no port was named)", packet.port, protocol.as_str()),
    };
    match action {
        Action::Accept => way.pass(place, format!("{rule} accepts {what} with {}", packet.peer)),
        Action::Drop => way.stop(place, format!("{rule} drops {what} with {}", packet.peer)),
    }
    action == Action::Accept
}

/// From one host to the other.
fn between(
    way: &mut Way,
    world: &World,
    network: &str,
    from: &Node,
    to: &Node,
    at: &Attachment,
    encrypted: impl Fn(IpAddr) -> bool,
) -> bool {
    if from.id == to.id {
        way.pass(
            format!("node {}", from.name),
            "both are here: over its bridge",
        );
        return true;
    }
    let place = format!("node {} to {}", from.name, to.name);
    let vni = world.networks.get(network).map_or(0, |n| n.vni);
    let (Some(host), Some(own)) = (to.address, from.address) else {
        let unknown = match to.address {
            None => &to.name,
            Some(_) => &from.name,
        };
        way.stop(place, format!("no address of {unknown} is known"));
        return false;
    };
    if own.is_ipv4() != host.is_ipv4() {
        way.stop(place, format!("{own} and {host} are not of one family"));
        return false;
    }
    let Some(mac) = at.mac else {
        way.stop(
            place,
            format!("{} has not said its hardware address yet", to.name),
        );
        return false;
    };
    let how = match encrypted(host) {
        true => "encrypted",
        false => "in clear",
    };
    let seen: BTreeSet<&str> = world
        .nodes
        .iter()
        .filter(|n| {
            n.containers
                .iter()
                .any(|c| c.networks.contains_key(network))
        })
        .map(|n| n.name.as_str())
        .collect();
    let nodes: Vec<&str> = seen.into_iter().collect();
    let why = format!(
        "VXLAN {vni} over {own} to {host}, {how}, to {mac}; the network is on {}",
        nodes.join(", ")
    );
    way.pass(place, why);
    true
}
