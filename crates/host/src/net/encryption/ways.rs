//! How packets of overlays, and no others, come to the device that encrypts them.
//!
//! Two rules: for packets to the overlays' UDP port, and, since a strict `rp_filter` looks for the
//! way back with ports exchanged, for those from it (`__fib_validate_source`). The kernel looks for
//! the way of VXLAN packets with their ports (`udp_tunnel_dst_lookup`; rules with ports since 4.17).

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::super::Error;
use super::super::route::{Change, PROTOCOL, Route, family};
use super::Encryption;

/// The routing table; those of `reply` are below.
const TABLE: u32 = 0x5749_0001;
/// Before the rules of `reply`, and those of others.
const PRIORITY: u32 = 5690;
/// Of ways through the device, and of those behind them that lead nowhere.
const METRICS: [u32; 2] = [1, 1_000];

/// What the routing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Packets to a port, or from it, look into the table.
    Rule { ipv6: bool, port: u16, back: bool },
    /// In it a host is behind a device.
    Through { host: IpAddr, device: u32 },
    /// Or nowhere.
    Nowhere { host: IpAddr },
}

/// All ways there are to be, in the order in which they are made.
pub(super) fn ways(wanted: &Encryption, device: Option<u32>) -> Vec<Way> {
    let encrypted = wanted.peers.iter().map(|peer| peer.address);
    let all: BTreeSet<IpAddr> = encrypted.clone().chain(wanted.blocked.clone()).collect();
    let mut ways: Vec<Way> = all
        .iter()
        .map(|host| Way::Nowhere { host: *host })
        .collect();
    let port = wanted.overlay_port;
    for ipv6 in [false, true] {
        if all.iter().any(|host| host.is_ipv6() == ipv6) {
            ways.extend([false, true].map(|back| Way::Rule { ipv6, port, back }));
        }
    }
    if let Some(device) = device {
        let through: BTreeSet<IpAddr> = encrypted.collect();
        ways.extend(
            through
                .into_iter()
                .map(|host| Way::Through { host, device }),
        );
    }
    ways
}

pub(super) fn carry_out(
    route: &mut Route,
    ways: &[&Way],
    change: fn(&Way) -> Change,
) -> Result<(), Error> {
    let changes: Vec<Change> = ways.iter().map(|way| change(way)).collect();
    route.change(&changes, |index| match ways[index] {
        Way::Rule { port, .. } => format!("the routing rule for the UDP port {port}"),
        Way::Through { host, .. } => format!("the encrypted way to {host}"),
        Way::Nowhere { host } => format!("the route that keeps packets to {host} from leaving"),
    })
}

/// The rules and routes of ours that are there.
pub(super) fn read(route: &mut Route) -> Result<Vec<Way>, Error> {
    let all = route.rules_and_routes()?;
    Ok(all.iter().filter_map(Way::of).collect())
}

impl Way {
    pub(super) fn is_through(&self) -> bool {
        matches!(self, Self::Through { .. })
    }

    pub(super) fn addition(&self) -> Change {
        match self {
            Self::Rule { ipv6, port, back } => {
                let rule = rule(*ipv6, *port, *back);
                Change::create(RouteNetlinkMessage::NewRule(rule))
            }
            _ => Change::replace(RouteNetlinkMessage::NewRoute(self.route())),
        }
    }

    pub(super) fn removal(&self) -> Change {
        match self {
            Self::Rule { ipv6, port, back } => {
                let rule = rule(*ipv6, *port, *back);
                Change::remove(RouteNetlinkMessage::DelRule(rule))
            }
            _ => Change::remove(RouteNetlinkMessage::DelRoute(self.route())),
        }
    }

    fn route(&self) -> RouteMessage {
        let (host, device) = match self {
            Self::Through { host, device } => (*host, Some(*device)),
            Self::Nowhere { host } => (*host, None),
            Self::Rule { .. } => return RouteMessage::default(),
        };
        let mut message = RouteMessage::default();
        message.header.address_family = family(host.is_ipv6());
        message.header.destination_prefix_length = if host.is_ipv6() { 128 } else { 32 };
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.attributes = vec![
            RouteAttribute::Table(TABLE),
            RouteAttribute::Destination(RouteAddress::from(host)),
            RouteAttribute::Priority(METRICS[usize::from(device.is_none())]),
        ];
        if let Some(device) = device {
            message.header.kind = RouteType::Unicast;
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(device));
        } else {
            message.header.kind = RouteType::Unreachable;
            message.header.scope = RouteScope::Universe;
        }
        message
    }

    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewRule(message) => of_rule(message),
            RouteNetlinkMessage::NewRoute(message) => of_route(message),
            _ => None,
        }
    }
}

fn rule(ipv6: bool, port: u16, back: bool) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(ipv6);
    message.header.action = RuleAction::ToTable;
    let (start, end) = (port, port);
    let range = RulePortRange { start, end };
    message.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::IpProtocol(IpProtocol::Udp),
        match back {
            true => RuleAttribute::SourcePortRange(range),
            false => RuleAttribute::DestinationPortRange(range),
        },
        RuleAttribute::Table(TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

fn of_rule(message: &RuleMessage) -> Option<Way> {
    let (mut port, mut is_ours, mut table) = (None, false, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::DestinationPortRange(range) => port = Some((range.start, false)),
            RuleAttribute::SourcePortRange(range) => port = Some((range.start, true)),
            RuleAttribute::Table(seen) => table = Some(*seen),
            RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)) => is_ours = true,
            _ => {}
        }
    }
    let ipv6 = message.header.family == AddressFamily::Inet6;
    let (port, back) = port.filter(|_| is_ours && table == Some(TABLE))?;
    Some(Way::Rule { ipv6, port, back })
}

fn of_route(message: &RouteMessage) -> Option<Way> {
    let (mut table, mut host, mut device) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(seen) => table = Some(*seen),
            RouteAttribute::Oif(seen) => device = Some(*seen),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                host = Some(IpAddr::from(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                host = Some(IpAddr::from(*address));
            }
            _ => {}
        }
    }
    let host = host.filter(|_| table == Some(TABLE))?;
    match message.header.kind {
        RouteType::Unicast => device.map(|device| Way::Through { host, device }),
        RouteType::Unreachable => Some(Way::Nowhere { host }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for host in ["192.0.2.1", "2001:db8::1"] {
            let host: IpAddr = host.parse().unwrap();
            for way in [Way::Through { host, device: 7 }, Way::Nowhere { host }] {
                let message = RouteNetlinkMessage::NewRoute(way.route());
                assert_eq!(Way::of(&message), Some(way));
            }
        }
        for back in [false, true] {
            let message = RouteNetlinkMessage::NewRule(rule(false, 4789, back));
            let (ipv6, port) = (false, 4789);
            assert_eq!(Way::of(&message), Some(Way::Rule { ipv6, port, back }));
        }
    }
}
