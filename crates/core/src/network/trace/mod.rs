//! Why somebody reaches somebody, or does not: hop by hop.
//!
//! It follows the first packet of a connection the way that the nodes make it go: what the name leads
//! to, the service's address, what may leave the container, the way between the hosts, and what may
//! come in at the other end.

mod end;
mod hops;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::balance::{Balanced, balance};
use super::encrypt::Plan;
use super::firewall::{Protocol, Ruleset};
use super::{Attachment, Node, Running, VipKey, World};
use crate::report::NetworkFault;
use crate::seen::State;
use end::{End, Place, called, end, is_hosts, seat, task};

/// What is asked: whether new connections to a port pass.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who connects: `service`, `stack/service`, `stack/service/number`, a container's name or id, an
    /// address, a node, or `host`.
    pub from: &'a str,
    /// To whom; as `from`, or a name outside.
    pub to: &'a str,
    /// Protocol and port; TCP and 80 unless said.
    pub port: Option<(Protocol, u16)>,
    /// Addresses that the hosts' resolvers have for `to`, should it be nobody's here.
    pub outside: &'a [IpAddr],
}

/// What is known besides the world.
pub struct Facts<'a> {
    /// The firewall of a container, if it has one.
    pub firewall: &'a dyn Fn(&Node, &Running) -> Option<Ruleset>,
    /// What becomes of packets from one node to another; none while it is not known.
    pub plan: &'a dyn Fn(&Node, &Node) -> Option<Plan>,
    /// What a node says that it cannot do.
    pub faults: &'a dyn Fn(&Node) -> Vec<NetworkFault>,
}

/// What becomes of a packet at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where it is.
    pub place: String,
    /// Whether it passes.
    pub passes: bool,
    /// Why.
    pub why: String,
}

/// Where a packet arrives: whether somebody listens there is seen there only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Id of the node.
    pub node: String,
    /// Id of the container whose namespace it is; empty for the host itself.
    pub container: String,
    /// The address.
    pub address: IpAddr,
}

/// The way of a packet. It arrives if all hops let it pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Hop by hop; the last one is where it ends.
    pub hops: Vec<Hop>,
    /// Where it arrives, if that is in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What else is to be known, such as of a service's other tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Way {
    /// Whether the packet arrives.
    #[must_use]
    pub fn arrives(&self) -> bool {
        !self.hops.is_empty() && self.hops.iter().all(|h| h.passes)
    }

    /// Why it does not arrive, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<&Hop> {
        self.hops.iter().find(|h| !h.passes)
    }

    /// Adds a place that it passes.
    pub fn pass(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.hop(place, true, why);
    }

    /// Adds the place where it ends.
    pub fn stop(&mut self, place: impl Into<String>, why: impl Into<String>) {
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

/// It goes no further: why is the last hop.
struct Stopped;

type Step = Result<(), Stopped>;

/// What all hops look at.
struct Tracer<'a> {
    world: &'a World<'a>,
    question: &'a Question<'a>,
    facts: &'a Facts<'a>,
    way: Way,
}

/// Why somebody reaches somebody, or does not.
#[must_use]
pub fn trace(world: &World, question: &Question, facts: &Facts) -> Way {
    let mut tracer = Tracer {
        world,
        question,
        facts,
        way: Way::default(),
    };
    // Where it stopped is among the hops.
    let _ = tracer.go();
    tracer.way
}

impl<'a> Tracer<'a> {
    fn stop(&mut self, place: impl Into<String>, why: impl Into<String>) -> Step {
        self.way.stop(place, why);
        Err(Stopped)
    }

    fn go(&mut self) -> Step {
        let (world, question) = (self.world, self.question);
        let unknown = |word: &str| format!("`{word}` is no container, service, node or address");
        let Some(from) = end(world, question.from, None, &[]) else {
            return self.stop("from", unknown(question.from));
        };
        let Some(to) = end(world, question.to, Some(&from), question.outside) else {
            return self.stop("to", unknown(question.to));
        };
        match (from, to) {
            (End::Container(from, _), to) => {
                self.runs(from)?;
                match is_hosts(seat(from).1) {
                    true => self.begin_on_host(from.0, to),
                    false => self.begin_inside(from, to),
                }
            }
            (End::Host(node), to) => self.begin_on_host(node, to),
            (End::Service(key), _) => {
                let why = format!(
                    "it is the address of {}/{}: nobody connects from it; name a task, such as {}/{}/1",
                    key.stack, key.service, key.stack, key.service
                );
                self.stop("from", why)
            }
            (End::Outside(address), End::Container(to, _)) => {
                let why = format!(
                    "{address} is outside: {} is reached from there by published ports only",
                    called(to)
                );
                self.stop("from", why)
            }
            (End::Outside(address), _) => {
                self.stop("from", format!("{address} is nobody's in the cluster"))
            }
        }
    }

    fn runs(&mut self, place: Place) -> Step {
        let (node, container) = place;
        if container.state != State::Running {
            let why = format!("it does not run: it is {}", container.state.as_str());
            return self.stop(called(place), why);
        }
        if !node.live {
            let why = format!("node {} does not answer", node.name);
            return self.stop(called(place), why);
        }
        self.way.pass(called(place), "it runs");
        Ok(())
    }

    fn begin_inside(&mut self, from: Place<'a>, to: End<'a>) -> Step {
        match to {
            End::Container(to, of_service) => {
                self.names(from, to, of_service)?;
                let behind = match of_service {
                    true => self.behind(from, to)?,
                    false => None,
                };
                let to = behind.unwrap_or(to);
                self.reach_container(from, to)?;
                if of_service {
                    self.siblings(from, to);
                }
                Ok(())
            }
            End::Service(key) => {
                let balanced = balanced(self.world, seat(from), &key);
                let to = self.through(&key, balanced, seat(from))?;
                self.reach_container(from, to)
            }
            End::Host(node) => self.reach_host(seat(from), node),
            End::Outside(address) => self.reach_outside(seat(from), address),
        }
    }

    /// From a container to another one's address.
    fn reach_container(&mut self, from: Place<'a>, to: Place<'a>) -> Step {
        self.runs(to)?;
        let (source, target) = (seat(from), seat(to));
        if source.1.id == target.1.id {
            let why = "both are in one network namespace: it is 127.0.0.1";
            self.way.pass(called(from), why);
            let address = std::net::Ipv4Addr::LOCALHOST.into();
            self.arrive(target, address);
            return Ok(());
        }
        if is_hosts(target.1) {
            return self.reach_host(source, target.0);
        }
        let (network, a, b) = self.common(from, to)?;
        let (own, address) = match (a.v4, b.v4, a.v6, b.v6) {
            (Some(a), Some(b), _, _) => (IpAddr::V4(a), IpAddr::V4(b)),
            (_, _, Some(a), Some(b)) => (IpAddr::V6(a), IpAddr::V6(b)),
            _ => return self.stop(network, "they have no addresses of one family on it"),
        };
        let why = format!("both are on {network}: {own} to {address}");
        self.way.pass("networks", why);
        self.egress(source, network, address)?;
        self.between(network, source.0, target.0, b)?;
        self.ingress(target, network, own)?;
        self.arrive(target, address);
        Ok(())
    }

    /// A network that both are on; over several nodes only one that spans them.
    fn common(
        &mut self,
        from: Place<'a>,
        to: Place<'a>,
    ) -> Result<(&'a str, &'a Attachment, &'a Attachment), Stopped> {
        let (source, target) = (seat(from), seat(to));
        let mut both = source.1.networks.iter().filter_map(|(name, a)| {
            let b = target.1.networks.get(name)?;
            let spans = source.0.id == target.0.id || self.world.networks.contains_key(name);
            spans.then_some((name.as_str(), a, b))
        });
        if let Some(found) = both.next() {
            return Ok(found);
        }
        let list = |(_, c): Place| {
            let names: Vec<&str> = c.networks.keys().map(String::as_str).collect();
            match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            }
        };
        let mut why = format!(
            "no network in common: {} is on {}, {} on {}",
            called(from),
            list(source),
            called(to),
            list(target)
        );
        let mut same = source.1.networks.keys();
        let same = same.find(|n| target.1.networks.contains_key(*n));
        if let Some(name) = same {
            why.push_str(&format!(
                "; {name} is each node's own, not one of the cluster"
            ));
        }
        self.way.stop("networks", why);
        Err(Stopped)
    }

    /// The task that a service's address leads to, if the service has one on a network of both.
    fn behind(
        &mut self,
        from: Place<'a>,
        (_, task): Place<'a>,
    ) -> Result<Option<Place<'a>>, Stopped> {
        let source = seat(from);
        let mut keys = source.1.networks.keys().map(|network| VipKey {
            network: network.clone(),
            stack: task.stack.clone(),
            service: task.service.clone(),
        });
        let Some(key) = keys.find(|k| self.world.vips.contains_key(k)) else {
            return Ok(None);
        };
        let balanced = balanced(self.world, source, &key);
        if balanced.is_none() {
            return Ok(None);
        }
        self.through(&key, balanced, source).map(Some)
    }

    /// Through the address of a service, to the first of its tasks.
    fn through(
        &mut self,
        key: &VipKey,
        balanced: Option<Balanced>,
        source: Place<'a>,
    ) -> Result<Place<'a>, Stopped> {
        let name = format!("{}/{}", key.stack, key.service);
        let place = format!("address of {name}");
        let Some(balanced) = balanced else {
            let why = format!(
                "it is on network {}, and {} is not",
                key.network,
                called(source)
            );
            self.way.stop(place, why);
            return Err(Stopped);
        };
        let addresses: Vec<String> = balanced.vip.addresses().map(|a| a.to_string()).collect();
        let addresses = addresses.join(" and ");
        let node = |id: &str| self.world.nodes.iter().find(|n| n.id == id);
        let each = balanced.backends.iter();
        let each: Vec<String> = each
            .map(|b| {
                let node = node(&b.node).map_or("?", |n| n.name.as_str());
                format!("{} on {node}", b.number)
            })
            .collect();
        let first = balanced.backends.first().and_then(|b| {
            let node = node(&b.node)?;
            let of = |c: &&Running| {
                let own = c.stack == key.stack && c.service == key.service;
                own && c.number == b.number && !c.oneoff
            };
            Some((node, node.containers.iter().find(of)?))
        });
        let Some(first) = first else {
            let why = format!(
                "{addresses} refuses connections: no task of {name} is ready{}",
                hops::unready(self.world, &key.stack, &key.service)
            );
            self.way.stop(place, why);
            return Err(Stopped);
        };
        let why = match each.len() {
            1 => format!("{addresses} leads to task {}", each[0]),
            n => format!(
                "{addresses} leads to {n} tasks in turn: {}",
                each.join(", ")
            ),
        };
        self.way.pass(place, why);
        Ok(first)
    }

    /// Says of a service's other tasks which of them are not reached.
    fn siblings(&mut self, from: Place<'a>, (_, first): Place<'a>) {
        if !self.way.arrives() {
            return;
        }
        let world = self.world;
        let own = |c: &&Running| c.stack == first.stack && c.service == first.service && !c.oneoff;
        for node in world.nodes {
            let others = node.containers.iter().filter(own);
            for other in others.filter(|c| c.id != first.id) {
                let mut tracer = Tracer {
                    way: Way::default(),
                    ..*self
                };
                let _ = tracer.reach_container(from, (node, other));
                if let Some(hop) = tracer.way.stopped() {
                    let what = task(other);
                    let note = format!("{what} is not reached: {}: {}", hop.place, hop.why);
                    self.way.notes.push(note);
                }
            }
        }
    }

    fn arrive(&mut self, (node, container): Place, address: IpAddr) {
        let hosts = is_hosts(container);
        self.way.target = Some(Target {
            node: node.id.clone(),
            container: match hosts {
                true => String::new(),
                false => container.id.clone(),
            },
            address,
        });
    }
}

/// What stands behind a service's address, for a container on the network.
fn balanced(world: &World, (node, container): Place, key: &VipKey) -> Option<Balanced> {
    let there = World {
        me: &node.id,
        ..*world
    };
    container.networks.get(&key.network)?;
    balance(&there).remove(key)
}
