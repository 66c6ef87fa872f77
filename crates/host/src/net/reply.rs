//! The way back of published connections, in a task's namespace.
//!
//! A connection that came in by another host comes from that host's gateway on the network: its
//! packets have the gateway's hardware address. That gives the connection a mark; answers get it
//! too, and a rule for the mark has them leave by the same gateway. So the client's own address can
//! arrive, and need not be replaced. The last packet counts: when an address goes over to another
//! host, those who talk to it go on by that one, and their answers follow.
//!
//! The overlay must know other hosts' gateways as it knows containers: as endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::balance;
use super::nft::{
    At, Chain, Data, Direction, Family, Field, Hook, Live, Load, Rule, Set, Table, TableId, Type,
    Value, concat,
};
use super::route::{Change, PROTOCOL, Route, family};
use super::{Error, Mac, Namespace};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_reply",
};
/// After connection tracking.
const MANGLE: i32 = -150;
/// Marks, and routing tables, are this and 16 bits of the gateway's.
const MARK: u32 = 0x5748_0000;
const MARK_MASK: u32 = 0xffff_0000;
const SLOTS: u32 = 0xffff;
/// Before the main table, and before what VPN programs put there.
const PRIORITY: u32 = 5700;

/// A host's gateway on a network of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its hardware address: the bridge's.
    pub mac: Mac,
    /// Its addresses on the network, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
}

/// The ways back in one task's namespace.
pub struct Replies {
    live: Live,
    route: Route,
}

impl Replies {
    /// Those of a container's namespace.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            live: Live::open(namespace, TABLE)?,
            route: Route::open(namespace)?,
        })
    }

    /// Makes these the gateways of other hosts that connections may come by; repairs what others
    /// changed. Says whether anything had to be done.
    pub fn apply(&mut self, gateways: &[Gateway]) -> Result<bool, Error> {
        let slots = slots(gateways);
        let wanted: Vec<Way> = ways(gateways, &slots);
        let seen = read(&mut self.route)?;
        let come: Vec<&Way> = wanted.iter().filter(|way| !seen.contains(way)).collect();
        let gone: Vec<&Way> = seen.iter().filter(|way| !wanted.contains(way)).collect();
        // The way is there before a packet is marked for it, and goes after the last was.
        carry_out(&mut self.route, &come, Way::addition)?;
        let changed = self.live.set(table(&slots))?;
        carry_out(&mut self.route, &gone, Way::removal)?;
        Ok(changed || !come.is_empty() || !gone.is_empty())
    }

    /// Takes it all away.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.live.remove()?;
        let seen = read(&mut self.route)?;
        carry_out(
            &mut self.route,
            &seen.iter().collect::<Vec<_>>(),
            Way::removal,
        )
    }
}

/// How many routes and rules of ours there are.
pub(crate) fn all(namespace: &Namespace) -> Result<usize, Error> {
    Ok(read(&mut Route::open(namespace)?)?.len())
}

/// Removes all routes and rules of ours: how many.
pub(crate) fn remove_all(namespace: &Namespace) -> Result<usize, Error> {
    let mut route = Route::open(namespace)?;
    let seen = read(&mut route)?;
    carry_out(&mut route, &seen.iter().collect::<Vec<_>>(), Way::removal)?;
    Ok(seen.len())
}

fn carry_out(route: &mut Route, ways: &[&Way], change: fn(&Way) -> Change) -> Result<(), Error> {
    let changes: Vec<Change> = ways.iter().map(|way| change(way)).collect();
    route.change(&changes, |index| match ways[index] {
        Way::Rule { mark, .. } => format!("the routing rule for the mark {mark:#x}"),
        Way::Route { gateway, .. } => format!("the route back by {gateway}"),
    })
}

/// A number for each gateway that stays the same whatever others there are, but for two in 65,535.
fn slots(gateways: &[Gateway]) -> BTreeMap<Mac, u32> {
    let mut slots = BTreeMap::new();
    let mut sorted: Vec<Mac> = gateways.iter().map(|gateway| gateway.mac).collect();
    sorted.sort();
    sorted.dedup();
    for mac in sorted {
        let first = balance::mix(0, &mac.0) % u64::from(SLOTS);
        let mut slot = u32::try_from(first).unwrap_or(0);
        while slots.values().any(|taken| *taken == slot + 1) {
            slot = (slot + 1) % SLOTS;
        }
        slots.insert(mac, slot + 1);
    }
    slots
}

/// What the routing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What has the mark looks into the table of the same number.
    Rule { ipv6: bool, mark: u32 },
    /// In that table everything goes by the gateway.
    Route { table: u32, gateway: IpAddr },
}

fn ways(gateways: &[Gateway], slots: &BTreeMap<Mac, u32>) -> Vec<Way> {
    let mut ways = Vec::new();
    for gateway in gateways {
        let Some(slot) = slots.get(&gateway.mac) else {
            continue;
        };
        let mark = MARK | slot;
        for ipv6 in [false, true] {
            let own = gateway
                .addresses
                .iter()
                .find(|address| address.is_ipv6() == ipv6);
            if let Some(address) = own {
                let (table, gateway) = (mark, *address);
                let both = [Way::Route { table, gateway }, Way::Rule { ipv6, mark }];
                ways.extend(
                    both.into_iter()
                        .filter(|way| !ways.contains(way))
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
    ways
}

impl Way {
    fn addition(&self) -> Change {
        match self {
            // Rules with the same content would be refused, which is as good.
            Self::Rule { .. } => Change::create(RouteNetlinkMessage::NewRule(self.rule())),
            Self::Route { .. } => Change::replace(RouteNetlinkMessage::NewRoute(self.route())),
        }
    }

    fn removal(&self) -> Change {
        match self {
            Self::Rule { .. } => Change::remove(RouteNetlinkMessage::DelRule(self.rule())),
            Self::Route { .. } => Change::remove(RouteNetlinkMessage::DelRoute(self.route())),
        }
    }

    fn rule(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        if let Self::Rule { ipv6, mark } = self {
            message.header.family = family(*ipv6);
            message.header.action = RuleAction::ToTable;
            message.attributes = vec![
                RuleAttribute::Priority(PRIORITY),
                RuleAttribute::FwMark(*mark),
                RuleAttribute::FwMask(u32::MAX),
                RuleAttribute::Table(*mark),
                RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
            ];
        }
        message
    }

    fn route(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        if let Self::Route { table, gateway } = self {
            message.header.address_family = family(gateway.is_ipv6());
            message.header.protocol = RouteProtocol::Other(PROTOCOL);
            message.header.scope = RouteScope::Universe;
            message.header.kind = RouteType::Unicast;
            let gateway = match gateway {
                IpAddr::V4(address) => RouteAddress::Inet(*address),
                IpAddr::V6(address) => RouteAddress::Inet6(*address),
            };
            message.attributes = vec![
                RouteAttribute::Table(*table),
                RouteAttribute::Gateway(gateway),
            ];
        }
        message
    }

    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewRule(message) => {
                let (mut mark, mut is_ours) = (None, false);
                for attribute in &message.attributes {
                    match attribute {
                        RuleAttribute::FwMark(seen) => mark = Some(*seen),
                        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)) => is_ours = true,
                        _ => {}
                    }
                }
                let ipv6 = message.header.family == AddressFamily::Inet6;
                let mark = mark.filter(|_| is_ours)?;
                Some(Self::Rule { ipv6, mark })
            }
            RouteNetlinkMessage::NewRoute(message) => {
                let (mut table, mut gateway) = (None, None);
                for attribute in &message.attributes {
                    match attribute {
                        RouteAttribute::Table(seen) => table = Some(*seen),
                        RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                            gateway = Some(IpAddr::from(*address));
                        }
                        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                            gateway = Some(IpAddr::from(*address));
                        }
                        _ => {}
                    }
                }
                let is_ours = message.header.protocol == RouteProtocol::Other(PROTOCOL);
                let (table, gateway) = (table?, gateway?);
                is_ours.then_some(Self::Route { table, gateway })
            }
            _ => None,
        }
    }
}

/// The rules and routes of ours that are there.
fn read(route: &mut Route) -> Result<Vec<Way>, Error> {
    let all = route.rules_and_routes()?;
    Ok(all.iter().filter_map(Way::of).collect())
}

fn table(slots: &BTreeMap<Mac, u32>) -> Table {
    let mut table = Table::default();
    let mut gateways = Set::map([Type::Mac], Data::Fields(vec![Type::Mark]));
    let element = |(mac, slot): (&Mac, &u32)| {
        let mark = Value::Bytes(concat(&[Field::Mark(MARK | slot)]));
        (concat(&[Field::Mac(*mac)]).into(), mark)
    };
    gateways.elements = slots.iter().map(element).collect();
    table.sets.insert("gateways".into(), gateways);
    let mark = Rule::new()
        .direction(Direction::Original)
        .mark_connection(&[Load::SourceMac], "gateways")
        .accept();
    // What comes by this host's own gateway goes back by it.
    let unmark = Rule::new()
        .direction(Direction::Original)
        .connection_mark(MARK_MASK, MARK)
        .set_connection_mark(u32::MAX, 0);
    let restore = Rule::new()
        .direction(Direction::Reply)
        .connection_mark(MARK_MASK, MARK)
        .restore_mark();
    let chains = [
        (
            "prerouting",
            Hook::filter(At::Prerouting, MANGLE),
            vec![mark, unmark],
        ),
        ("output", Hook::route(At::Output, MANGLE), vec![restore]),
    ];
    for (name, hook, rules) in chains {
        let hook = Some(hook);
        table.chains.insert(name.into(), Chain { hook, rules });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_keeps_its_number() {
        let gateway = |last: u8| Gateway {
            mac: Mac([2, 0, 0, 0, 0, last]),
            addresses: vec![[10, 0, last, 1].into(), "fd00::1".parse().unwrap()],
        };
        let all: Vec<Gateway> = (1..=20).map(gateway).collect();
        let (many, few) = (slots(&all), slots(&all[7..9]));
        assert!(few.iter().all(|(mac, slot)| many[mac] == *slot));
        assert!(many.values().all(|slot| (1..=SLOTS).contains(slot)));
        assert_eq!(ways(&all[..1], &many).len(), 4);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let route = Way::Route {
            table: MARK | 5,
            gateway,
        };
        let message = RouteNetlinkMessage::NewRoute(route.route());
        assert_eq!(Way::of(&message), Some(route));
        let rule = Way::Rule {
            ipv6: true,
            mark: MARK | 5,
        };
        let message = RouteNetlinkMessage::NewRule(rule.rule());
        assert_eq!(Way::of(&message), Some(rule));
    }
}
