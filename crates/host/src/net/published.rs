//! Published ports that every host answers, wherever the tasks are (`mode: ingress`).
//!
//! The destination is replaced on the host that was asked. A task of another host is on the same
//! subnet: the overlay brings the packet there. The client's address is kept: where a task's
//! namespace has its [`Replies`](super::Replies), its answers come back by the host that was asked,
//! wherever its default route leads. Only where there is no such way back the host's own address
//! takes the client's place; and for clients in containers, whose answer would take a shortcut.
//!
//! `ports4` (protocol . port → chain) leads to a chain that draws a number, and takes address and
//! port of a task from `tasks4` (protocol . port . number). The same with 6 for IPv6. As with
//! services' addresses, a changed task is a few changed entries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::nft::{
    At, Chain, Data, Draw, Edit, End, Family, Field, Hook, Key, Live, Load, NewPort, Rule, Set,
    Table, TableId, Type, Value, Verdict, concat,
};
use super::turns::{Turns, kind, named, way_back};
use super::{Error, Namespace, Protocol};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_published",
};
/// Before Docker's rules at -100.
const BEFORE_NAT: i32 = -105;
/// Before Docker's masquerading at 100.
const BEFORE_MASQUERADE: i32 = 95;

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port of the hosts.
    pub port: u16,
    /// The tasks' port.
    pub target: u16,
    /// The tasks' addresses, on any host, IPv4 and IPv6. If there are none, the port is not
    /// answered.
    pub tasks: Vec<IpAddr>,
}

/// The published ports of a host.
///
/// 127.0.0.1 and ::1 are not answered: a packet from there cannot leave the host.
pub struct Publisher {
    live: Live,
    salt: u64,
}

/// All published ports, and where clients and tasks are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publishing {
    /// The ports.
    pub ports: Vec<Published>,
    /// The subnets of containers on this host.
    pub subnets: Vec<IpNet>,
    /// Tasks of other hosts from which no way leads back to this one.
    pub no_way_back: Vec<IpAddr>,
}

impl Publisher {
    /// Those of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            live: Live::open(host, TABLE)?,
            salt: host.id(),
        })
    }

    /// Publishes these ports and no others, in one transaction; repairs what others changed.
    pub fn apply(&mut self, publishing: &Publishing) -> Result<bool, Error> {
        let mut seen = BTreeSet::new();
        for port in &publishing.ports {
            check(port)?;
            if !seen.insert((port.protocol, port.port)) {
                let words = format!("port {}/{} is published twice", port.port, port.protocol);
                return Err(Error::Invalid(words));
            }
        }
        let table = table(publishing, self.live.known(), self.salt);
        self.live.set(table)
    }

    /// Publishes or changes one port, in one transaction; costs the same whatever others there are.
    pub fn set(&mut self, port: &Published) -> Result<bool, Error> {
        check(port)?;
        self.begin()?;
        let salt = self.salt;
        self.live.edit(|edit| {
            change(edit, port, salt);
            Ok(())
        })
    }

    /// Stops to publish one.
    pub fn remove(&mut self, protocol: Protocol, port: u16) -> Result<bool, Error> {
        let (target, tasks) = (port, Vec::new());
        self.set(&Published {
            protocol,
            port,
            target,
            tasks,
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.live.known().is_none() {
            self.apply(&Publishing::default())?;
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

fn check(port: &Published) -> Result<(), Error> {
    match port.protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Ok(()),
        other => Err(Error::Invalid(format!(
            "the protocol {other} has no ports to publish"
        ))),
    }
}

/// What the keys of a port's elements begin with.
fn prefix(port: &Published) -> Vec<u8> {
    concat(&[
        Field::Protocol(port.protocol.number(false)),
        Field::Port(port.port),
    ])
}

/// What one port has of its own in the table, for one family.
struct Parts {
    chain: Option<(String, Rule)>,
    port: BTreeMap<Key, Value>,
    tasks: BTreeMap<Key, Value>,
}

fn parts(port: &Published, ipv6: bool, known: Option<&Set>, salt: u64) -> Parts {
    let own = prefix(port);
    let wanted = port.tasks.iter().filter(|task| task.is_ipv6() == ipv6);
    let wanted: BTreeSet<IpAddr> = wanted.copied().collect();
    let turns = Turns::new(&own, &wanted, Some(port.target), (known, salt), ipv6);
    if wanted.is_empty() {
        let (chain, port) = (None, BTreeMap::new());
        let tasks = turns.tasks;
        return Parts { chain, port, tasks };
    }
    let fields = [Load::Protocol, Load::DestinationPort];
    let draw = Draw::InTurn(turns.modulus);
    let map = named("tasks", ipv6);
    // What follows the protocol tells the kernel's listing that there is a port.
    let rule = Rule::new().dnat(&fields, draw, &map, ipv6, NewPort::FromMap);
    Parts {
        chain: Some((turns.chain, rule)),
        port: BTreeMap::from([(own.into(), turns.verdict)]),
        tasks: turns.tasks,
    }
}

fn table(publishing: &Publishing, known: Option<&Table>, salt: u64) -> Table {
    let mut table = Table::default();
    let mut nat = Vec::new();
    let led = |ipv6| Rule::new().family(ipv6).destination_was_changed();
    let (subnets, lost) = (&publishing.subnets, &publishing.no_way_back);
    let masquerade = way_back(&mut table, subnets, lost, led);
    for ipv6 in [false, true] {
        let family = || Rule::new().family(ipv6);
        let fields = [Load::Protocol, Load::DestinationPort];
        nat.push(
            family()
                .for_this_host()
                .verdict_map(&fields, &named("ports", ipv6)),
        );
        let both = [Type::Protocol, Type::Port];
        let ports = Set::map(both, Data::Verdict);
        let data = Data::Fields(vec![kind(ipv6), Type::Port]);
        let tasks = Set::map([Type::Protocol, Type::Port, Type::Mark], data);
        for (name, set) in [("ports", ports), ("tasks", tasks)] {
            table.sets.insert(named(name, ipv6), set);
        }
    }
    for port in &publishing.ports {
        for ipv6 in [false, true] {
            let set = known.and_then(|known| known.sets.get(&named("tasks", ipv6)));
            let parts = parts(port, ipv6, set, salt);
            for (name, elements) in [("ports", parts.port), ("tasks", parts.tasks)] {
                if let Some(set) = table.sets.get_mut(&named(name, ipv6)) {
                    set.elements.extend(elements);
                }
            }
            if let Some((name, rule)) = parts.chain {
                let (hook, rules) = (None, vec![rule]);
                table.chains.insert(name, Chain { hook, rules });
            }
        }
    }
    // A loopback address stays the source, and cannot leave the host.
    let loopback = ["127.0.0.0/8", "::1/128"]
        .into_iter()
        .filter_map(|net| net.parse().ok());
    let loopback = loopback.map(|net: IpNet| {
        let rule = Rule::new().family(net.addr().is_ipv6());
        rule.within(End::Destination, net).verdict(Verdict::Return)
    });
    let output: Vec<Rule> = loopback.chain(nat.clone()).collect();
    let base = [
        ("prerouting", Hook::nat(At::Prerouting, BEFORE_NAT), nat),
        ("output", Hook::nat(At::Output, BEFORE_NAT), output),
        (
            "postrouting",
            Hook::nat(At::Postrouting, BEFORE_MASQUERADE),
            masquerade,
        ),
    ];
    for (name, hook, rules) in base {
        let hook = Some(hook);
        table.chains.insert(name.into(), Chain { hook, rules });
    }
    table
}

fn change(edit: &mut Edit<'_>, port: &Published, salt: u64) {
    for ipv6 in [false, true] {
        let own = prefix(port);
        let parts = parts(
            port,
            ipv6,
            edit.table().sets.get(&named("tasks", ipv6)),
            salt,
        );
        if let Some((name, rule)) = parts.chain {
            edit.rules(&name, &[rule]);
        }
        edit.part(&named("tasks", ipv6), &own, &parts.tasks);
        edit.part(&named("ports", ipv6), &own, &parts.port);
    }
}

#[cfg(test)]
mod tests {
    use super::super::turns::numbered;
    use super::*;

    #[test]
    fn tasks_of_both_families_have_numbers() {
        let task = |last: u8| IpAddr::from([10, 0, 0, last]);
        let port = Published {
            protocol: Protocol::Udp,
            port: 53,
            target: 5353,
            tasks: vec![task(1), task(2), "fd00::1".parse().unwrap()],
        };
        let publishing = Publishing {
            ports: vec![port.clone()],
            ..Publishing::default()
        };
        let table = table(&publishing, None, 3);
        let own = prefix(&port);
        assert_eq!(own, [17, 0, 0, 0, 0, 53, 0, 0]);
        let four: BTreeSet<_> = numbered(&table.sets["tasks4"], &own, false)
            .into_iter()
            .collect();
        assert_eq!(four, BTreeSet::from([task(1), task(2)]));
        assert_eq!(
            numbered(&table.sets["tasks6"], &own, true),
            [port.tasks[2]; 12]
        );
    }
}
