//! What keeps networks apart on a host.
//!
//! Containers of one network reach those of another nowhere: not the other's gateway address on
//! the host, which Docker leaves open; not by routing between two bridges (Docker closes that as
//! well, until someone flushes its rules); and not by making VXLAN packets of their own, which
//! would get them into any network.

use std::net::IpAddr;

use super::nft::{
    At, Chain, End, Family, Field, Hook, Live, Load, Rule, Set, Table, TableId, Type, UDP, concat,
};
use super::{Error, Namespace};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_isolation",
};
/// Before connection tracking, and before destinations are replaced.
const RAW: i32 = -300;
/// Before rules of others, none of which can then accept what is dropped here.
const EARLY_FILTER: i32 = -10;

/// The networks of a host, and who sends to its VXLAN ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// The networks that are kept apart.
    pub networks: Vec<IsolatedNetwork>,
    /// The UDP ports of overlays.
    pub ports: Vec<u16>,
    /// UDP ports of this host that are not reached from networks: the cluster's own, which would take
    /// its connections over the networks that it carries.
    pub closed: Vec<u16>,
    /// The hosts that may send to them. If there are none, nobody may.
    pub peers: Vec<IpAddr>,
    /// The only device that overlays' packets of some hosts come by: a WireGuard device, when
    /// traffic with them is encrypted. Those of others come by any but those of containers.
    pub underlay: Option<String>,
    /// These hosts, all of them peers.
    pub encrypted: Vec<IpAddr>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolatedNetwork {
    /// Its bridge.
    pub bridge: String,
    /// The addresses of the host on it.
    pub gateways: Vec<IpAddr>,
    /// Whether nothing leaves it, or comes in from outside. Docker could be told so, but then its
    /// resolver would hand on no questions to ours (since Engine 26).
    pub internal: bool,
}

/// The table that keeps networks apart.
pub struct Isolator {
    live: Live,
}

impl Isolator {
    /// That of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        let live = Live::open(host, TABLE)?;
        Ok(Self { live })
    }

    /// Keeps just these apart, in one transaction; repairs what others changed.
    pub fn apply(&mut self, isolation: &Isolation) -> Result<bool, Error> {
        self.live.set(table(isolation))
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

fn named(what: &str, ipv6: bool) -> String {
    format!("{what}{}", if ipv6 { 6 } else { 4 })
}

fn table(isolation: &Isolation) -> Table {
    let mut table = Table::default();
    let networks = &isolation.networks;
    let bridge = |network: &IsolatedNetwork| Field::Interface(network.bridge.clone());
    let mut set = |name: &str, set: Set| drop(table.sets.insert(name.to_owned(), set));
    let bridges = networks.iter().map(|network| concat(&[bridge(network)]));
    set("bridges", Set::of([Type::Interface]).with(bridges));
    let internal = networks.iter().filter(|network| network.internal);
    let internal = internal.map(|network| concat(&[bridge(network)]));
    set("internal", Set::of([Type::Interface]).with(internal));
    let same = networks
        .iter()
        .map(|network| concat(&[bridge(network), bridge(network)]));
    set(
        "same",
        Set::of([Type::Interface, Type::Interface]).with(same),
    );
    let ports = isolation
        .ports
        .iter()
        .map(|port| concat(&[Field::Port(*port)]));
    set("vxlan", Set::of([Type::Port]).with(ports));
    let closed = isolation.closed.iter();
    let closed = closed.map(|port| concat(&[Field::Port(*port)]));
    set("closed", Set::of([Type::Port]).with(closed));
    for ipv6 in [false, true] {
        let kind = if ipv6 { Type::Ip6 } else { Type::Ip4 };
        let own = |address: &&IpAddr| address.is_ipv6() == ipv6;
        let all = networks.iter().flat_map(|network| {
            network
                .gateways
                .iter()
                .filter(own)
                .map(move |gateway| (bridge(network), *gateway))
        });
        let all: Vec<(Field, IpAddr)> = all.collect();
        let addresses = all.iter().map(|(_, gateway)| concat(&[(*gateway).into()]));
        set(&named("gateways", ipv6), Set::of([kind]).with(addresses));
        let pairs = all
            .iter()
            .map(|(bridge, gateway)| concat(&[bridge.clone(), (*gateway).into()]));
        set(
            &named("own", ipv6),
            Set::of([Type::Interface, kind]).with(pairs),
        );
        let peers = isolation
            .peers
            .iter()
            .filter(own)
            .map(|peer| concat(&[(*peer).into()]));
        set(&named("peers", ipv6), Set::of([kind]).with(peers));
        let encrypted = isolation.encrypted.iter().filter(own);
        let encrypted = encrypted.map(|peer| concat(&[(*peer).into()]));
        set(&named("encrypted", ipv6), Set::of([kind]).with(encrypted));
    }
    let chains = [
        (
            "prerouting",
            Hook::filter(At::Prerouting, RAW),
            prerouting(),
        ),
        (
            "input",
            Hook::filter(At::Input, EARLY_FILTER),
            input(isolation.underlay.as_deref()),
        ),
        (
            "forward",
            Hook::filter(At::Forward, EARLY_FILTER),
            forward(),
        ),
        (
            "output",
            Hook::filter(At::Output, EARLY_FILTER),
            output(isolation.underlay.as_deref()),
        ),
    ];
    for (name, hook, rules) in chains {
        let hook = Some(hook);
        table.chains.insert(name.to_owned(), Chain { hook, rules });
    }
    table
}

fn to(ipv6: bool) -> Load {
    Load::Address {
        end: End::Destination,
        ipv6,
    }
}

fn vxlan() -> Rule {
    Rule::new()
        .protocol(UDP)
        .in_set(&[Load::DestinationPort], "vxlan", true)
}

fn prerouting() -> Vec<Rule> {
    // A packet to a container's gateway has come by the container's own bridge, or is the host's.
    let mut rules = vec![Rule::new().in_interface("lo").accept()];
    for ipv6 in [false, true] {
        let rule = Rule::new().family(ipv6);
        let rule = rule.in_set(&[to(ipv6)], &named("gateways", ipv6), true);
        let rule = rule.in_set(&[Load::InInterface, to(ipv6)], &named("own", ipv6), false);
        rules.push(rule.counter().drop().note("another network's gateway"));
    }
    let forged = vxlan().in_set(&[Load::InInterface], "bridges", true);
    rules.push(forged.counter().drop().note("VXLAN made by a container"));
    rules
}

fn input(underlay: Option<&str>) -> Vec<Rule> {
    let mut rules = vec![Rule::new().in_interface("lo").accept()];
    let closed = Rule::new()
        .protocol(UDP)
        .in_set(&[Load::DestinationPort], "closed", true)
        .in_set(&[Load::InInterface], "bridges", true);
    rules.push(
        closed
            .counter()
            .drop()
            .note("the cluster's port, by a network"),
    );
    for ipv6 in [false, true] {
        let from = Load::Address {
            end: End::Source,
            ipv6,
        };
        if let Some(device) = underlay {
            let rule = vxlan().not_in_interface(device).for_this_host();
            let rule = rule.family(ipv6);
            let rule = rule.in_set(&[from], &named("encrypted", ipv6), true);
            rules.push(rule.counter().drop().note("VXLAN beside the encryption"));
        }
        let rule = Rule::new().family(ipv6).protocol(UDP);
        let rule = rule.in_set(&[Load::DestinationPort], "vxlan", true);
        let rule = rule.in_set(&[from], &named("peers", ipv6), false);
        rules.push(rule.counter().drop().note("VXLAN from a stranger"));
    }
    rules
}

/// What is to be encrypted leaves by the device that does it, whatever the routing says.
fn output(underlay: Option<&str>) -> Vec<Rule> {
    let Some(device) = underlay else {
        return Vec::new();
    };
    let rule = |ipv6| {
        let rule = Rule::new().family(ipv6).protocol(UDP);
        let rule = rule.in_set(&[Load::DestinationPort], "vxlan", true);
        let rule = rule.in_set(&[to(ipv6)], &named("encrypted", ipv6), true);
        let rule = rule.not_out_interface(device);
        rule.counter().drop().note("VXLAN in clear")
    };
    vec![rule(false), rule(true)]
}

fn forward() -> Vec<Rule> {
    let both = [Load::InInterface, Load::OutInterface];
    // What was published is reached from other networks too, as with Docker.
    let between = Rule::new()
        .in_set(&[Load::InInterface], "bridges", true)
        .in_set(&[Load::OutInterface], "bridges", true)
        .in_set(&both, "same", false)
        .destination_was_kept();
    let mut rules = vec![between.counter().drop().note("between networks")];
    for device in [Load::InInterface, Load::OutInterface] {
        let rule = Rule::new().in_set(&[device], "internal", true);
        let rule = rule.in_set(&both, "same", false);
        rules.push(rule.counter().drop().note("an internal network's way out"));
    }
    for ipv6 in [false, true] {
        // Whatever a container sends out gets the host's address: peers would take it for the host's.
        let rule = Rule::new().family(ipv6).protocol(UDP);
        let rule = rule.in_set(&[Load::DestinationPort], "vxlan", true);
        let rule = rule.in_set(&[to(ipv6)], &named("peers", ipv6), true);
        rules.push(rule.counter().drop().note("VXLAN made by others"));
    }
    rules
}
