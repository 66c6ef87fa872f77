//! What decisions about names, services and forwarding take: what is wanted, and what nodes see.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use wharfie_compose::model::Service;

use super::{Cidr, Networks, Vips};
use crate::schedule::hash::Map;
use crate::seen::{Health, State};
use crate::wanted::Stack;

/// A hardware address (48 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hardware address such as 02:42:0a:80:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2);
            let part = part.filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(wrong()),
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// How somebody is on a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
    /// Hardware address; the Engine says it once the container runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Attachment {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }
}

/// A container on a node, whether it runs or not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Running {
    /// Id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Stack; empty if it is of none.
    pub stack: String,
    /// Service; empty if it is of none.
    pub service: String,
    /// Number of the task, from 1.
    pub number: u32,
    /// Whether `run` made it: it does not answer for its service.
    pub oneoff: bool,
    /// State.
    pub state: State,
    /// Health.
    pub health: Health,
    /// It is about to be stopped: nothing new is sent to it.
    pub dying: bool,
    /// Id of the container whose network namespace it shares.
    pub joined: String,
    /// The networks it is on, by their names on the Engine. One that does not run yet has the
    /// addresses that it will have.
    pub networks: BTreeMap<String, Attachment>,
}

/// A node and what it reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// The place it is at, if it is labelled with one: `nearest` prefers the same.
    pub zone: String,
    /// The address that other nodes send packets of containers to.
    pub address: Option<IpAddr>,
    /// Whether it answers.
    pub live: bool,
    /// Whether it has said what it has.
    pub heard: bool,
    /// Whether its tasks are on their way to other nodes.
    pub drained: bool,
    /// Its own addresses on networks: those of the bridges, by network.
    pub own: BTreeMap<String, Attachment>,
    /// Its containers.
    pub containers: Vec<Running>,
}

/// A network of this node alone: one that no object stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Its subnets.
    pub subnets: Vec<Cidr>,
    /// No way out of it.
    pub internal: bool,
}

/// All that is known, as one node sees it.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Id of this node.
    pub me: &'a str,
    /// All nodes, this one too.
    pub nodes: &'a [Node],
    /// All stacks.
    pub stacks: &'a [&'a Stack],
    /// All networks that span nodes. Others are each node's own, whatever they are called.
    pub networks: &'a Networks,
    /// Networks of this node alone, by name, as far as something is known of them.
    pub local: &'a BTreeMap<String, Local>,
    /// Addresses of services.
    pub vips: &'a Vips,
}

/// Whether a task is given to those who look for its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It is.
    Ready,
    /// It would be, but its node is being emptied: only if there is no other.
    Leaving,
    /// It runs, but is starting, unhealthy or about to stop.
    NotReady,
    /// It does not run, or its node is away.
    Away,
}

/// A task on a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) node: &'a Node,
    /// The node's place in the world's list.
    pub(super) number: u32,
    pub(super) container: &'a Running,
    pub(super) at: &'a Attachment,
}

impl Member<'_> {
    pub(super) fn readiness(&self) -> Readiness {
        let runs = self.container.state == State::Running;
        if !runs || !self.node.live || self.at.addresses().next().is_none() {
            return Readiness::Away;
        }
        let well = matches!(self.container.health, Health::None | Health::Healthy);
        match well && !self.container.dying {
            false => Readiness::NotReady,
            true if self.node.drained => Readiness::Leaving,
            true => Readiness::Ready,
        }
    }
}

/// A service on a network.
#[derive(Debug, Clone, Default)]
pub(super) struct Group<'a> {
    /// What its stack's file says, if there is one.
    pub(super) definition: Option<&'a Service>,
    /// Its names on the network besides its own.
    pub(super) aliases: &'a [String],
    /// Its tasks, in order of their numbers.
    pub(super) members: Vec<Member<'a>>,
}

impl<'a> Group<'a> {
    /// The tasks that are given to those who look for the service. Those on nodes that are being
    /// emptied count as long as there is no other.
    pub(super) fn ready(&self) -> Vec<&Member<'a>> {
        let of = |r: Readiness| self.members.iter().filter(move |m| m.readiness() == r);
        let ready: Vec<_> = of(Readiness::Ready).collect();
        match ready.is_empty() {
            true => of(Readiness::Leaving).collect(),
            false => ready,
        }
    }
}

/// A stack's name and a service's.
pub(super) type ServiceName<'a> = (&'a str, &'a str);

/// Who is on a network.
#[derive(Debug, Clone, Default)]
pub(super) struct Zone<'a> {
    pub(super) groups: Map<ServiceName<'a>, Group<'a>>,
    /// Containers of no service, and those that do not answer for theirs.
    pub(super) others: Vec<Member<'a>>,
}

/// Everything by network.
pub(super) struct Index<'a> {
    pub(super) zones: Map<&'a str, Zone<'a>>,
}

/// Networks of the Engine that have no names.
fn is_nameless(network: &str) -> bool {
    matches!(network, "" | "bridge" | "host" | "none")
}

impl<'a> Index<'a> {
    pub(super) fn of(world: &World<'a>) -> Self {
        let mut zones: Map<&str, Zone> = Map::default();
        let local = world.local.keys().filter(|n| !is_nameless(n));
        for name in world.networks.keys().chain(local) {
            zones.insert(name, Zone::default());
        }
        for stack in world.stacks {
            for name in &stack.active {
                let Some(service) = stack.project.any_service(name) else {
                    continue;
                };
                for (key, attachment) in &service.networks {
                    let network = stack.project.networks.get(key).map_or("", |n| &n.name);
                    if is_nameless(network) {
                        continue;
                    }
                    let group = Group {
                        definition: Some(service),
                        aliases: attachment.as_ref().map_or(&[], |a| &a.aliases),
                        members: Vec::new(),
                    };
                    let zone = zones.entry(network).or_default();
                    zone.groups.insert((&stack.project.name, name), group);
                }
            }
        }
        for (number, node) in (0..).zip(world.nodes) {
            for container in &node.containers {
                for (network, at) in &container.networks {
                    // What is called the same on another node is another network.
                    let shared = node.id == world.me || world.networks.contains_key(network);
                    if is_nameless(network) || !shared {
                        continue;
                    }
                    let member = Member {
                        node,
                        number,
                        container,
                        at,
                    };
                    let zone = zones.entry(network).or_default();
                    if container.service.is_empty() || container.oneoff {
                        zone.others.push(member);
                    } else {
                        let name = (container.stack.as_str(), container.service.as_str());
                        zone.groups.entry(name).or_default().members.push(member);
                    }
                }
            }
        }
        for zone in zones.values_mut() {
            for group in zone.groups.values_mut() {
                let order = |m: &Member<'a>| (m.container.number, m.container.id.as_str());
                group.members.sort_by(|a, b| order(a).cmp(&order(b)));
            }
        }
        Self { zones }
    }

    /// A service on a network.
    pub(super) fn group<'s>(
        &'s self,
        network: &str,
        stack: &'s str,
        service: &'s str,
    ) -> Option<&'s Group<'s>> {
        let zone: &'s Zone<'s> = self.zones.get(network)?;
        zone.groups.get(&(stack, service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_written() {
        let mac: Mac = "02:42:0A:80:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:80:00:02");
        for bad in [
            "",
            "02:42",
            "02:42:0a:80:00:02:03",
            "02:42:0a:80:00:+2",
            "2:42:0a:80:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
