//! Who has which address, as it is kept in the replicated store.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::heal::Millis;

/// Kind of the objects that hold an [`Address`]; named by [`Owner`]'s text.
pub const ADDRESS: &str = "address";

/// All addresses that were given, by owner.
pub type Addresses = BTreeMap<Owner, Address>;

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A service of a stack, or one of its tasks.
    Service {
        /// Stack.
        stack: String,
        /// Service.
        service: String,
        /// Number of the task, if each has its own.
        task: Option<u32>,
    },
    /// A container that is of no stack, on its node.
    Container {
        /// Id of the node.
        node: String,
        /// Name of the container.
        name: String,
    },
}

impl Owner {
    /// A service as a whole.
    #[must_use]
    pub fn service(stack: &str, service: &str) -> Self {
        Self::Service {
            stack: stack.to_owned(),
            service: service.to_owned(),
            task: None,
        }
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('@') {
            let (node, name) = rest.split_once('/')?;
            return Some(Self::Container {
                node: node.to_owned(),
                name: name.to_owned(),
            });
        }
        let mut parts = text.split('/');
        let (stack, service) = (parts.next()?, parts.next()?);
        let task = parts.next().map(str::parse).transpose().ok()?;
        parts.next().is_none().then(|| Self::Service {
            stack: stack.to_owned(),
            service: service.to_owned(),
            task,
        })
    }

    /// What people call it, on its node.
    #[must_use]
    pub fn called(&self) -> String {
        match self {
            Self::Service { .. } => self.to_string(),
            Self::Container { name, .. } => format!("container {name}"),
        }
    }

    /// The stack; none for a container of no stack.
    #[must_use]
    pub fn stack(&self) -> Option<&str> {
        match self {
            Self::Service { stack, .. } => Some(stack),
            Self::Container { .. } => None,
        }
    }
}

impl fmt::Display for Owner {
    /// The name of its object: `stack/service`, `stack/service/2` or `@node/container`. Names of stacks
    /// have no `@`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service {
                stack,
                service,
                task,
            } => match task {
                Some(number) => write!(f, "{stack}/{service}/{number}"),
                None => write!(f, "{stack}/{service}"),
            },
            Self::Container { node, name } => write!(f, "@{node}/{name}"),
        }
    }
}

/// The address of somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
    /// Id of the node that holds it; empty if none does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Since when it is this address, in milliseconds since 1970. Of two that are the same the older stays.
    pub since: Millis,
    /// Since when its owner has one: of two with one name the older has it.
    pub made: Millis,
    /// The file says this address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
    /// Since when nobody wants it any more; it stays reserved for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed: Option<Millis>,
}

impl Address {
    /// Its addresses, IPv4 first.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }

    /// The one of a family.
    #[must_use]
    pub fn of(&self, ipv6: bool) -> Option<IpAddr> {
        match ipv6 {
            true => self.v6.map(IpAddr::V6),
            false => self.v4.map(IpAddr::V4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_and_written() {
        for text in ["shop/web", "shop/web/2", "@k51/jenkins", "@k51/a/b"] {
            assert_eq!(Owner::read(text).unwrap().to_string(), text);
        }
        for bad in ["", "shop", "shop/web/x", "shop/web/1/2", "@node"] {
            assert_eq!(Owner::read(bad), None, "{bad}");
        }
    }
}
