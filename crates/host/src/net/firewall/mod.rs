//! A container's firewall, in its own network namespace and set from outside: the container needs
//! no capability for it, and cannot change it.

mod rules;

use ipnet::IpNet;

use super::nft::{Family, Live, TableId};
use super::{Error, Namespace, Protocol};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_firewall",
};
/// `IFNAMSIZ`, less its zero.
const LONGEST_INTERFACE: usize = 15;

/// What may come into a container, and what may leave it.
///
/// Always allowed: answers within what was allowed, the loopback device (so Docker's resolver at
/// 127.0.0.11, and a task that meets itself) and neighbour discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What the container is called; for the log.
    pub name: String,
    /// For what comes in; the first that matches decides.
    pub ingress: Vec<FirewallRule>,
    /// For what goes out; the first that matches decides.
    pub egress: Vec<FirewallRule>,
    /// For what comes in and no rule matches.
    pub default_ingress: Action,
    /// For what goes out and no rule matches.
    pub default_egress: Action,
    /// Whether what is dropped is logged; see [`Drops`](super::Drops).
    pub log: bool,
}

/// One rule. What is left open matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// Ranges of destination ports, both ends included. Without a protocol: of TCP and UDP.
    pub ports: Vec<(u16, u16)>,
    /// Where it comes from, or goes to. Services' addresses are not seen here: what goes to one
    /// has a task's address already.
    pub peers: Vec<IpNet>,
    /// The device that it comes in by, or leaves by.
    pub interface: Option<String>,
    /// What is done with it.
    pub action: Action,
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Accept,
    /// It is gone.
    Drop,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Into the container.
    Ingress,
    /// Out of it.
    Egress,
}

/// How often a rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hits {
    /// Which way.
    pub way: Way,
    /// The rule's number from zero; none is the default.
    pub rule: Option<usize>,
    /// Packets. Those that follow within an allowed connection are not counted.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The firewall of one namespace.
pub struct ContainerFirewall {
    live: Live,
}

impl ContainerFirewall {
    /// That of a container's namespace.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        let live = Live::open(namespace, TABLE)?;
        Ok(Self { live })
    }

    /// Makes this the firewall, in one transaction; repairs what others changed. Says whether
    /// anything had to be done. What is open stays open.
    pub fn apply(&mut self, firewall: &Firewall) -> Result<bool, Error> {
        check(firewall)?;
        self.live.set(rules::table(firewall))
    }

    /// What the rules and defaults did. Counting begins anew when rules change.
    pub fn hits(&mut self) -> Result<Vec<Hits>, Error> {
        Ok(rules::hits(self.live.counted()?))
    }

    /// Whether the kernel still has what was written.
    pub fn is_intact(&mut self) -> Result<bool, Error> {
        self.live.is_intact()
    }

    /// Takes the firewall away: everything passes.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.live.remove()
    }
}

fn check(firewall: &Firewall) -> Result<(), Error> {
    for rule in firewall.ingress.iter().chain(&firewall.egress) {
        if let Some((low, high)) = rule.ports.iter().find(|(low, high)| low > high) {
            return Err(Error::Invalid(format!(
                "the ports {low}-{high} end before they begin"
            )));
        }
        let name = rule.interface.as_deref().unwrap_or("lo");
        if name.is_empty() || name.len() > LONGEST_INTERFACE {
            let words = format!("{name:?} cannot be a device: 1 to {LONGEST_INTERFACE} letters");
            return Err(Error::Invalid(words));
        }
        let with_ports = [
            None,
            Some(Protocol::Tcp),
            Some(Protocol::Udp),
            Some(Protocol::Sctp),
        ];
        if !rule.ports.is_empty() && !with_ports.contains(&rule.protocol) {
            let protocol = rule
                .protocol
                .map_or_else(String::new, |protocol| protocol.to_string());
            return Err(Error::Invalid(format!(
                "the protocol {protocol} has no ports"
            )));
        }
    }
    Ok(())
}
