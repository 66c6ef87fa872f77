//! The table of a container's firewall.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::super::Protocol;
use super::super::drops::GROUP;
use super::super::nft::{
    At, Chain, Counted, End, Hook, Load, Policy, Rule, Set, TCP, Table, Type, UDP, Verdict,
    range_of, ranges,
};
use super::{Action, Firewall, FirewallRule, Hits, Way};

/// Where filters are; services' addresses were replaced before.
const FILTER: i32 = 0;
/// Multicast listener messages, router and neighbour discovery, redirects; and the newer reports.
const NEIGHBOURS: [(u8, u8); 2] = [(130, 137), (143, 143)];
/// More than that of what is dropped is not logged.
const LOGGED_A_SECOND: u64 = 20;
const LOGGED_AT_ONCE: u32 = 50;

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn end(self) -> End {
        match self {
            Self::Ingress => End::Source,
            Self::Egress => End::Destination,
        }
    }
}

pub(super) fn table(firewall: &Firewall) -> Table {
    let mut table = Table::default();
    let ways = [
        (Way::Ingress, &firewall.ingress, firewall.default_ingress),
        (Way::Egress, &firewall.egress, firewall.default_egress),
    ];
    for (way, rules, default) in ways {
        for (index, rule) in rules.iter().enumerate() {
            sets(&mut table, way, index, rule);
        }
        // What passes in may still not be sent on: accepting ends one question only.
        let name = way.name();
        let decided = chain(firewall, way, rules, default, Verdict::Accept);
        table.chains.insert(
            name.into(),
            Chain {
                hook: None,
                rules: decided,
            },
        );
        if way == Way::Ingress {
            let passed = chain(firewall, way, rules, default, Verdict::Return);
            table.chains.insert(
                "forwarded".into(),
                Chain {
                    hook: None,
                    rules: passed,
                },
            );
        }
    }
    let jump = |chain: &str| Rule::new().verdict(Verdict::Jump(chain.into()));
    let mut input = vec![
        Rule::new().established().accept(),
        Rule::new().in_interface("lo").accept(),
    ];
    let mut output = vec![
        Rule::new().established().accept(),
        Rule::new().out_interface("lo").accept(),
    ];
    for chain in [&mut input, &mut output] {
        let neighbours = |(low, high): (u8, u8)| Rule::new().icmpv6_types(low, high).accept();
        chain.extend(NEIGHBOURS.map(neighbours));
    }
    input.push(jump("ingress"));
    output.push(jump("egress"));
    let forward = vec![
        Rule::new().established().accept(),
        jump("forwarded"),
        jump("egress"),
    ];
    let both = match (firewall.default_ingress, firewall.default_egress) {
        (Action::Accept, Action::Accept) => Action::Accept,
        _ => Action::Drop,
    };
    // The chains decide about everything; should someone empty them, the policy does.
    let base = [
        ("input", At::Input, firewall.default_ingress, input),
        ("output", At::Output, firewall.default_egress, output),
        ("forward", At::Forward, both, forward),
    ];
    for (name, at, default, rules) in base {
        let policy = match default {
            Action::Accept => Policy::Accept,
            Action::Drop => Policy::Drop,
        };
        let hook = Some(Hook::filter(at, FILTER).policy(policy));
        table.chains.insert(name.into(), Chain { hook, rules });
    }
    table
}

fn chain(
    firewall: &Firewall,
    way: Way,
    rules: &[FirewallRule],
    default: Action,
    accepted: Verdict,
) -> Vec<Rule> {
    let mut all = Vec::new();
    let mut decide = |matches: Vec<Rule>, action: Action, note: &str| {
        for rule in matches {
            if action == Action::Drop && firewall.log {
                let prefix = format!("wharfie {} {note} drop: ", firewall.name);
                let prefix: String = prefix.chars().take(100).collect();
                let log = rule.clone().limit(LOGGED_A_SECOND, LOGGED_AT_ONCE);
                all.push(log.log(prefix, Some(GROUP)));
            }
            let verdict = match action {
                Action::Accept => accepted.clone(),
                Action::Drop => Verdict::Drop,
            };
            all.push(rule.counter().verdict(verdict).note(note));
        }
    };
    for (index, rule) in rules.iter().enumerate() {
        decide(
            matches(way, index, rule),
            rule.action,
            &format!("{} {index}", way.name()),
        );
    }
    decide(
        vec![Rule::new()],
        default,
        &format!("{} default", way.name()),
    );
    all
}

fn set_name(way: Way, index: usize, what: &str) -> String {
    format!("{}_{index}_{what}", way.name())
}

fn peers_of(rule: &FirewallRule, ipv6: bool) -> Vec<IpNet> {
    let own = rule
        .peers
        .iter()
        .filter(|peer| peer.addr().is_ipv6() == ipv6);
    own.copied().collect()
}

/// Several ranges of ports, or subnets, are looked up in a set.
fn sets(table: &mut Table, way: Way, index: usize, rule: &FirewallRule) {
    if rule.ports.len() > 1 {
        let port = |port: u16| port.to_be_bytes().to_vec();
        let ends = ranges(
            rule.ports
                .iter()
                .map(|(low, high)| (port(*low), port(*high))),
        );
        let set = Set::of([Type::Port]).with_ranges(ends);
        table.sets.insert(set_name(way, index, "ports"), set);
    }
    for ipv6 in [false, true] {
        let peers = peers_of(rule, ipv6);
        if peers.len() > 1 {
            let kind = if ipv6 { Type::Ip6 } else { Type::Ip4 };
            let ends = ranges(peers.into_iter().map(range_of));
            let set = Set::of([kind]).with_ranges(ends);
            let what = if ipv6 { "peers6" } else { "peers4" };
            table.sets.insert(set_name(way, index, what), set);
        }
    }
}

/// What the rule matches: one or several of the kernel's, for it knows no "IPv4 or IPv6".
fn matches(way: Way, index: usize, rule: &FirewallRule) -> Vec<Rule> {
    let families: Vec<Option<bool>> = if rule.peers.is_empty() {
        vec![None]
    } else {
        let has = |ipv6: &bool| !peers_of(rule, *ipv6).is_empty();
        [false, true].into_iter().filter(has).map(Some).collect()
    };
    let mut all = Vec::new();
    for family in families {
        let ipv6 = family.unwrap_or(false);
        let protocols: Vec<Option<u8>> = match rule.protocol {
            Some(Protocol::Icmp) if family.is_none() => [false, true]
                .map(|ipv6| Some(Protocol::Icmp.number(ipv6)))
                .into(),
            Some(protocol) => vec![Some(protocol.number(ipv6))],
            None if rule.ports.is_empty() => vec![None],
            None => vec![Some(TCP), Some(UDP)],
        };
        for protocol in protocols {
            let mut one = Rule::new();
            if let Some(interface) = &rule.interface {
                one = match way {
                    Way::Ingress => one.in_interface(interface),
                    Way::Egress => one.out_interface(interface),
                };
            }
            if let Some(ipv6) = family {
                one = one.family(ipv6);
                one = match peers_of(rule, ipv6)[..] {
                    [peer] => one.within(way.end(), peer),
                    _ => {
                        let load = Load::Address {
                            end: way.end(),
                            ipv6,
                        };
                        let what = if ipv6 { "peers6" } else { "peers4" };
                        one.in_set(&[load], &set_name(way, index, what), true)
                    }
                };
            }
            if let Some(protocol) = protocol {
                one = one.protocol(protocol);
            }
            one = match rule.ports[..] {
                [] => one,
                [(low, high)] if low == high => one.destination_port(low),
                [(low, high)] => one.destination_ports(low, high),
                _ => one.in_set(
                    &[Load::DestinationPort],
                    &set_name(way, index, "ports"),
                    true,
                ),
            };
            all.push(one);
        }
    }
    all
}

/// What was counted, by our rules: each may be several of the kernel's.
pub(super) fn hits(counted: Vec<Counted>) -> Vec<Hits> {
    let mut sums: BTreeMap<(Way, Option<usize>), (u64, u64)> = BTreeMap::new();
    for one in counted {
        let Some((way, rule)) = of_comment(&one.comment) else {
            continue;
        };
        let sum = sums.entry((way, rule)).or_default();
        sum.0 += one.packets;
        sum.1 += one.bytes;
    }
    let hits = sums
        .into_iter()
        .map(|((way, rule), (packets, bytes))| Hits {
            way,
            rule,
            packets,
            bytes,
        });
    hits.collect()
}

/// `ingress 3 (…)` or `egress default (…)`.
fn of_comment(comment: &str) -> Option<(Way, Option<usize>)> {
    let mut words = comment.split(' ');
    let way = match words.next()? {
        "ingress" => Way::Ingress,
        "egress" => Way::Egress,
        _ => return None,
    };
    match words.next()? {
        "default" => Some((way, None)),
        number => Some((way, Some(number.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: Option<Protocol>, ports: &[(u16, u16)], peers: &[&str]) -> FirewallRule {
        FirewallRule {
            protocol,
            ports: ports.to_vec(),
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            interface: None,
            action: Action::Accept,
        }
    }

    #[test]
    fn one_rule_is_as_many_of_the_kernels_as_it_takes() {
        let count = |rule: &FirewallRule| matches(Way::Egress, 0, rule).len();
        assert_eq!(count(&rule(None, &[], &[])), 1);
        assert_eq!(count(&rule(None, &[(53, 53)], &[])), 2);
        assert_eq!(count(&rule(Some(Protocol::Icmp), &[], &[])), 2);
        assert_eq!(
            count(&rule(Some(Protocol::Tcp), &[], &["10.0.0.0/8", "fd00::/8"])),
            2
        );
        assert_eq!(
            count(&rule(None, &[(1, 9)], &["10.0.0.0/8", "fd00::/8"])),
            4
        );
    }

    #[test]
    fn what_was_counted_is_summed_by_rule() {
        let counted = |comment: &str, packets| Counted {
            chain: "egress".into(),
            comment: comment.into(),
            packets,
            bytes: packets * 100,
        };
        let all = vec![
            counted("egress 0 (wharfie 1)", 1),
            counted("egress 0 (wharfie 2)", 2),
            counted("ingress default (wharfie 3)", 5),
            counted("wharfie 4", 9),
        ];
        let hit = |way, rule, packets| Hits {
            way,
            rule,
            packets,
            bytes: packets * 100,
        };
        let expected = [hit(Way::Ingress, None, 5), hit(Way::Egress, Some(0), 3)];
        assert_eq!(hits(all), expected);
    }
}
