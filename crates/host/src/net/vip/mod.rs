//! Addresses of services, answered in the client's own network namespace: the destination is
//! replaced there before the packet leaves, so that there is no proxy, no detour for a task that
//! meets itself, and the backend sees the true client.

mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::nft::{Family, Live, TableId};
use super::{Error, Namespace, Protocol};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_vip",
};

/// A service's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Its address.
    pub address: IpAddr,
    /// The ports it answers on. If there are none: on all, and to pings.
    pub ports: Vec<VipPort>,
    /// The tasks' addresses, of the same family. If there are none, connections are refused at
    /// once.
    pub backends: Vec<IpAddr>,
    /// Whether a client always meets the same backend, as long as that is there.
    pub affinity: bool,
}

/// A port of a service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port of the address.
    pub port: u16,
    /// The tasks' port.
    pub target: u16,
}

/// The services' addresses as one container sees them.
///
/// Connections that are open go on to their backend, whatever is changed here: the kernel's
/// connection tracking has them. UDP clients that never stop talking to a backend that is dead
/// are helped by [`forget`](super::forget).
pub struct Vips {
    live: Live,
    /// Makes namespaces begin with different backends.
    salt: u64,
}

impl Vips {
    /// Those of a container's namespace.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            live: Live::open(namespace, TABLE)?,
            salt: namespace.id(),
        })
    }

    /// Makes these the addresses that are answered, and no others, in one transaction; repairs
    /// what others changed. Says whether anything had to be done.
    pub fn apply(&mut self, vips: &[Vip]) -> Result<bool, Error> {
        let mut seen = BTreeSet::new();
        for vip in vips {
            check(vip)?;
            if !seen.insert(vip.address) {
                let words = format!("the address {} is given to two services", vip.address);
                return Err(Error::Invalid(words));
            }
        }
        let table = rules::table(vips, self.live.known(), self.salt);
        self.live.set(table)
    }

    /// Makes or changes one address, in one transaction; costs the same whatever others there are.
    pub fn set(&mut self, vip: &Vip) -> Result<bool, Error> {
        check(vip)?;
        self.begin()?;
        let salt = self.salt;
        self.live.edit(|edit| {
            rules::change(edit, vip, salt);
            Ok(())
        })
    }

    /// Stops to answer an address.
    pub fn remove(&mut self, address: IpAddr) -> Result<bool, Error> {
        self.begin()?;
        self.live.edit(|edit| {
            rules::remove(edit, address);
            Ok(())
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.live.known().is_none() {
            self.apply(&[])?;
        }
        Ok(())
    }

    /// Whether the kernel still has what was written.
    pub fn is_intact(&mut self) -> Result<bool, Error> {
        self.live.is_intact()
    }

    /// Takes it all away.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.live.remove()
    }
}

fn check(vip: &Vip) -> Result<(), Error> {
    let address = vip.address;
    let odd = |backend: &&IpAddr| backend.is_ipv4() != address.is_ipv4();
    if let Some(backend) = vip.backends.iter().find(odd) {
        let words = format!("{backend} cannot be behind {address}: one is IPv4 and one is IPv6");
        return Err(Error::Invalid(words));
    }
    let has_ports = |port: &VipPort| {
        matches!(
            port.protocol,
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp
        )
    };
    if let Some(port) = vip.ports.iter().find(|port| !has_ports(port)) {
        let words = format!("{address}: the protocol {} has no ports", port.protocol);
        return Err(Error::Invalid(words));
    }
    let mut seen = BTreeSet::new();
    let twice = |port: &&VipPort| !seen.insert((port.protocol, port.port));
    if let Some(port) = vip.ports.iter().find(twice) {
        let words = format!(
            "{address}: port {}/{} is given twice",
            port.port, port.protocol
        );
        return Err(Error::Invalid(words));
    }
    Ok(())
}
