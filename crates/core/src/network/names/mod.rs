//! Names inside containers: what a container finds by name, and what it does not.
//!
//! A container sees those it shares a network with, and nobody else. With `web` a service of stack
//! `shop`, it may ask for:
//!
//! | name | is answered with |
//! | --- | --- |
//! | `web`, an alias of it, `web.shop`, `web.shop.internal` | the service's address; with `endpoint_mode: dnsrr` its ready tasks |
//! | `tasks.web…` | all ready tasks |
//! | `healthy.web…` | ready tasks that have a health check which says so |
//! | `nearest.web…` | ready tasks on the asker's node, else at its place (zone), else all |
//! | `2.web…` | task number 2, as long as it runs, whatever its health |
//! | `shop-web-1`, the container's id (12 digits), its service's `hostname` | that container, as long as it runs |
//! | `_http._tcp.web…` | SRV: ports by name, application protocol or number |
//! | any name followed by `.` and the network's, as `web.shop_default` | the same, on that network |
//!
//! *Ready* is a task that runs on a node that answers, is not about to stop, and is healthy or has no
//! health check. Tasks on a node that is being emptied are left out unless there are no others. If
//! none is ready the name still is: the answer is no address (NOERROR), not that there is no such name.
//! A task that asks for its own service finds itself in any case: health checks do so.
//!
//! The asker's own stack goes first: `web` is that of another stack, on a network that both are on,
//! only if its own has none there. What no container may see is not forwarded where others could
//! learn of it: names below `.internal`, names `service.stack` of a service that there is, and services
//! of the asker's own stack. Everything else is the host's resolvers' to answer.

mod build;
mod lookup;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Cidr, Offered};
use crate::schedule::hash::Map;

/// The zone below which all full names are; it is reserved for private use (ICANN resolution
/// 2024.07.29.06).
pub const ZONE: &str = "internal";

/// Seconds that an address of a service may be kept.
const VIP_TTL: u32 = 5;
/// Tasks come and go: answers with their addresses are not kept.
const TASK_TTL: u32 = 0;

/// All names, and who may see which. Made anew whenever anything changes.
#[derive(Debug, Default)]
pub struct Catalog {
    zones: Vec<Zone>,
    /// Containers of this node by address.
    askers: Map<IpAddr, Arc<Seat>>,
    /// Subnets and their zones, for those who are not known yet.
    subnets: Vec<(Cidr, u32)>,
    /// Services there are, whoever sees them: `service.stack` in lower case.
    services: Map<String, ()>,
    /// What has an address, by network.
    reverse: Map<IpAddr, Few<(u32, Target)>>,
    /// Places of the nodes, by their numbers.
    places: Vec<String>,
    outside: Outside,
}

/// Names below `.internal` that are the host's resolvers' to answer: clouds have some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside(pub Vec<String>);

impl Default for Outside {
    fn default() -> Self {
        let clouds = ["google.internal", "ec2.internal", "compute.internal"];
        Self(clouds.map(str::to_owned).to_vec())
    }
}

/// What names lead to on one network.
#[derive(Debug)]
struct Zone {
    /// Name of the network, in lower case.
    name: String,
    internal: bool,
    groups: Vec<Group>,
    /// Containers that are no tasks, with their full names.
    singles: Vec<(Single, String)>,
    /// In lower case.
    names: Map<String, Few<Target>>,
}

/// One thing, and rarely more: there are many thousands of these.
#[derive(Debug)]
struct Few<T> {
    first: T,
    more: Vec<T>,
}

impl<T: Copy + PartialEq> Few<T> {
    fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    /// Adds one that is not there. What is the same comes in a row, so only the last is looked at:
    /// thousands of tasks may have one `hostname`.
    fn add(&mut self, value: T) {
        if *self.more.last().unwrap_or(&self.first) != value {
            self.more.push(value);
        }
    }
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Group(u32),
    /// Task of a group.
    Task(u32, u32),
    Single(u32),
}

/// A service on a network.
#[derive(Debug)]
struct Group {
    stack: String,
    /// `service.stack.internal`
    full: String,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    members: Vec<Task>,
    /// Numbers of ready members.
    ready: Vec<u32>,
    ports: Vec<Offered>,
}

impl Group {
    fn has_vip(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }
}

/// Any container on a network.
#[derive(Debug)]
struct Single {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// Whether it can be reached at all.
    runs: bool,
}

/// A task of a service.
#[derive(Debug)]
struct Task {
    single: Single,
    number: u32,
    /// Whether a health check says that it is well.
    checked: bool,
    /// Number of its node.
    node: u32,
}

/// Where an asker is.
#[derive(Debug)]
struct Seat {
    zones: Vec<u32>,
    stack: String,
    node: u32,
    /// Names that only it knows (`links`): alias to a name that others know.
    links: Map<String, String>,
    /// Who is asked for what is not here, if its service says so (`dns`).
    resolvers: Arc<[IpAddr]>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asker {
    seat: Arc<Seat>,
    source: IpAddr,
}

/// Kind of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports and hosts (RFC 2782).
    Srv,
    /// The name of an address.
    Ptr,
    /// Both kinds of addresses.
    Any,
    /// Something that no name here has.
    Other,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records.
    Found {
        /// Of the name itself.
        records: Vec<Data>,
        /// Of names in them.
        more: Vec<Record>,
        /// Seconds that they may be kept.
        ttl: u32,
    },
    /// There is such a name, but nothing of that kind (NOERROR without records, RFC 2308
    /// section 2.2).
    Nothing,
    /// There is no such name (NXDOMAIN).
    NoName,
    /// It is somebody else's to answer.
    Elsewhere,
}

/// A record of another name than the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name, without a dot at its end.
    pub name: String,
    /// What it has.
    pub data: Data,
}

/// Data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A port of a host; all have the same priority and weight.
    Srv {
        /// The port.
        port: u16,
        /// The host's name, without a dot at its end.
        target: String,
    },
    /// A name, without a dot at its end.
    Ptr(String),
}
