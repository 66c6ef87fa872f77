//! What placement knows of a node.

use std::collections::{BTreeMap, BTreeSet};

/// A node, as placement sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Id.
    pub id: String,
    /// Name, for people and for `node.hostname`.
    pub name: String,
    /// Labels given to the node (`node.labels.…`).
    pub labels: BTreeMap<String, String>,
    /// Labels of its Engine (`engine.labels.…`).
    pub engine_labels: BTreeMap<String, String>,
    /// Operating system, such as `linux`; empty if unknown.
    pub os: String,
    /// Architecture, such as `amd64`; empty if unknown.
    pub arch: String,
    /// Processors, in thousandths; 0 if unknown.
    pub cpus: u64,
    /// Memory, in bytes; 0 if unknown.
    pub memory: u64,
    /// Resources and devices that it declares, by kind (`SSD`, `gpu`).
    pub generic: BTreeMap<String, i64>,
    /// Whether it takes tasks.
    pub standing: Standing,
    /// Names of its images, as Engines list them.
    pub images: BTreeSet<String>,
    /// Host ports taken by what is no task of Wharfie.
    pub ports: BTreeSet<Port>,
}

/// Whether a node takes tasks. The reasons are for people, with their verb: `is away since 12:30`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    #[default]
    Ready,
    /// Its tasks go elsewhere: it was asked to be empty.
    Drained,
    /// Its tasks stay, nothing new comes: it is just away, or its Engine restarts.
    Unsure(String),
    /// Its tasks go elsewhere.
    Gone(String),
}

impl Standing {
    /// Why it takes nothing new, as in `is drained`; none if it does.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Drained => Some("is drained"),
            Self::Unsure(why) | Self::Gone(why) => Some(why),
        }
    }
}

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    number: u16,
    protocol: String,
    /// Empty for all addresses.
    ip: String,
}

impl Port {
    /// A port. No address, `0.0.0.0` and `::` are all addresses; no protocol is `tcp`.
    #[must_use]
    pub fn new(ip: &str, number: u16, protocol: &str) -> Self {
        let all = matches!(ip, "" | "0.0.0.0" | "::" | "[::]");
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        Self {
            number,
            protocol: protocol.to_ascii_lowercase(),
            ip: if all { String::new() } else { ip.to_owned() },
        }
    }

    /// Whether two cannot be held at the same time.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        self.number == other.number
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip.is_empty() || other.ip.is_empty())
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.ip.is_empty() {
            write!(f, "{}:", self.ip)?;
        }
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// What tasks take of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Number of tasks.
    pub tasks: u32,
    /// Reserved processors, in thousandths.
    pub cpus: u64,
    /// Reserved memory, in bytes.
    pub memory: u64,
    /// Reserved resources and devices.
    pub generic: BTreeMap<String, i64>,
    /// Host ports.
    pub ports: BTreeSet<Port>,
}
