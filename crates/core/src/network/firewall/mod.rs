//! `x-wharfie.firewall`: what may reach a container and what it may reach, as files say it.
//!
//! ```yaml
//! x-wharfie:
//!   firewall:
//!     default: drop          # what matches no rule: drop (unless said) or accept
//!     egress:                # a direction that is not there is not filtered; with neither, both are
//!       - interface: tun0
//!       - {protocol: [tcp, udp], ports: 1198}
//!     ingress:
//!       - {protocol: tcp, ports: 22}
//! ```
//!
//! Rules are tried in order. Never filtered are the loopback interface, packets of connections that
//! are open (and errors about them), IPv6 neighbour discovery, and, unless `dns: false`, questions to
//! the container's resolvers.

mod compile;

use serde_json::Value;
use wharfie_compose::model::{Project, Service};

pub use compile::{Chain, Compiler, Line, Match, Packet, Ruleset};

use super::Cidr;
use crate::extension;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, and ICMPv6 in IPv6.
    Icmp,
}

impl Protocol {
    /// The protocol with a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            "icmp" => Self::Icmp,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        }
    }
}

/// A range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; the same for one port.
    pub last: u16,
}

impl std::str::FromStr for Ports {
    type Err = String;

    /// Reads `80` or `8000-8010`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let wrong = || format!("{text:?} is no port or range of ports such as 8000-8010");
        let first = first.parse().map_err(|_| wrong())?;
        let last = last.parse().map_err(|_| wrong())?;
        match first <= last {
            true => Ok(Self { first, last }),
            false => Err(wrong()),
        }
    }
}

/// One rule. What is empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of packets that match.
    pub action: Action,
    /// Protocols.
    pub protocols: Vec<Protocol>,
    /// Ports of the side that is connected to.
    pub ports: Vec<Ports>,
    /// Addresses of the other side.
    pub cidrs: Vec<Cidr>,
    /// Services of the stack, as the other side; on the rule's networks, if it names any.
    pub services: Vec<String>,
    /// Networks of the stack (keys of its file) that the other side is on.
    pub networks: Vec<String>,
    /// Interfaces in the container that packets come in by, or go out by.
    pub interfaces: Vec<String>,
}

/// The firewall of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What becomes of packets that match no rule.
    pub default: Action,
    /// Whether the container's resolvers may be asked in any case.
    pub dns: bool,
    /// Whether drops are logged.
    pub log: bool,
    /// Rules for what comes in; none if that is not filtered.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for what goes out; none if that is not filtered.
    pub egress: Option<Vec<Rule>>,
}

/// The firewall of a service, if it has one: its own, or the stack's. On the network of its host, or of
/// another container, it has none: that would be the firewall of all who are there.
///
/// # Errors
/// What cannot be understood, in words; the loader has refused it before, unless the file was read
/// by another version. Then nothing may pass rather than everything.
pub fn firewall(project: &Project, service: &Service) -> Result<Option<Firewall>, String> {
    let mode = service.network_mode.as_str();
    if mode == "host" || mode.starts_with("service:") || mode.starts_with("container:") {
        return Ok(None);
    }
    let Some(value) = extension::setting(project, service, "firewall") else {
        return Ok(None);
    };
    let known = ["default", "dns", "log", "ingress", "egress"];
    let fields = fields(value, "firewall", &known)?;
    let flag = |name: &str, unless: bool| match fields.get(name) {
        None => Ok(unless),
        Some(value) => {
            let flag = value.as_bool();
            flag.ok_or_else(|| format!("`firewall.{name}` must be true or false"))
        }
    };
    let rules = |name: &str| -> Result<Option<Vec<Rule>>, String> {
        let Some(value) = fields.get(name) else {
            return Ok(None);
        };
        let list = value.as_array();
        let list = list.ok_or_else(|| format!("`firewall.{name}` must be a list"))?;
        let rules: Result<Vec<Rule>, String> = list.iter().map(rule).collect();
        rules.map(Some)
    };
    let (mut ingress, mut egress) = (rules("ingress")?, rules("egress")?);
    if ingress.is_none() && egress.is_none() {
        ingress = Some(Vec::new());
        egress = Some(Vec::new());
    }
    Ok(Some(Firewall {
        default: action(fields.get("default"), Action::Drop)?,
        dns: flag("dns", true)?,
        log: flag("log", false)?,
        ingress,
        egress,
    }))
}

type Fields = serde_json::Map<String, Value>;

fn fields<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Fields, String> {
    let fields = value.as_object();
    let fields = fields.ok_or_else(|| format!("`{what}` must be a mapping"))?;
    // A rule of which something is not understood would let through what it should not.
    match fields.keys().find(|k| !known.contains(&k.as_str())) {
        Some(key) => Err(format!("`{key}` is not an attribute of `{what}`")),
        None => Ok(fields),
    }
}

fn action(value: Option<&Value>, unless: Action) -> Result<Action, String> {
    match value.map(Value::as_str) {
        None => Ok(unless),
        Some(Some("accept")) => Ok(Action::Accept),
        Some(Some("drop")) => Ok(Action::Drop),
        Some(_) => Err("an action is accept or drop".to_owned()),
    }
}

fn rule(value: &Value) -> Result<Rule, String> {
    const KNOWN: [&str; 7] = [
        "action",
        "cidr",
        "interface",
        "network",
        "ports",
        "protocol",
        "service",
    ];
    let fields = fields(value, "a firewall rule", &KNOWN)?;
    let texts = |name: &str| -> Result<Vec<String>, String> {
        let values = match fields.get(name) {
            None => &[][..],
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(format!("`{name}` of a firewall rule must be text")),
        };
        values.iter().map(text).collect()
    };
    let protocol = |t: &String| Protocol::of(t).ok_or_else(|| format!("{t:?} is no protocol"));
    Ok(Rule {
        action: action(fields.get("action"), Action::Accept)?,
        protocols: texts("protocol")?
            .iter()
            .map(protocol)
            .collect::<Result<_, _>>()?,
        ports: texts("ports")?
            .iter()
            .map(|t| t.parse())
            .collect::<Result<_, _>>()?,
        cidrs: texts("cidr")?
            .iter()
            .map(|t| range(t))
            .collect::<Result<_, _>>()?,
        services: texts("service")?,
        networks: texts("network")?,
        interfaces: texts("interface")?,
    })
}

/// A range of addresses, or one address.
fn range(text: &str) -> Result<Cidr, String> {
    match text.parse() {
        Ok(address) => Ok(Cidr::host(address)),
        Err(_) => text.parse(),
    }
}
