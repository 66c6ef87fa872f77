//! Holding the line: nothing goes to or from a container before its namespace has its rules.
//!
//! Its address is chosen before it starts, so the host can drop what has it from the first packet
//! on. Between containers of one bridge packets never come to the IP layer: the `bridge` table
//! sees those (and what the host itself sends there), the `inet` table what is routed to
//! containers that are on no bridge. ARP and neighbour discovery pass: whoever asks meanwhile would
//! otherwise take the container for dead for a while longer.

use std::net::IpAddr;

use super::nft::{
    At, Chain, End, Family, Hook, Live, Load, Rule, Set, Table, TableId, Type, Value, concat,
};
use super::{Error, Namespace};

const ROUTED: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_hold",
};
const BRIDGED: TableId<'static> = TableId {
    family: Family::Bridge,
    name: "wharfie_hold",
};
/// Before anything is made of the packet.
const FIRST: i32 = -310;
/// After destinations were replaced.
const LAST: i32 = 90;

/// Containers that are cut off on a host until they are let go.
pub struct Hold {
    bridged: Live,
    routed: Live,
}

impl Hold {
    /// Those of a host. Call [`Hold::apply`] first: an earlier run may have left some.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            bridged: Live::open(host, BRIDGED)?,
            routed: Live::open(host, ROUTED)?,
        })
    }

    /// Makes these the addresses that are cut off, and no others; repairs what others changed.
    pub fn apply(&mut self, addresses: &[IpAddr]) -> Result<bool, Error> {
        let bridged = self.bridged.set(table(Family::Bridge, addresses))?;
        let routed = self.routed.set(table(Family::Inet, addresses))?;
        Ok(bridged | routed)
    }

    /// Cuts addresses off.
    pub fn hold(&mut self, addresses: &[IpAddr]) -> Result<bool, Error> {
        self.change(addresses, |edit, set, key| edit.put(set, key, Value::None))
    }

    /// Lets addresses go.
    pub fn lift(&mut self, addresses: &[IpAddr]) -> Result<bool, Error> {
        self.change(addresses, |edit, set, key| edit.take(set, key))
    }

    fn change(
        &mut self,
        addresses: &[IpAddr],
        one: impl Fn(&mut super::nft::Edit<'_>, &str, Vec<u8>),
    ) -> Result<bool, Error> {
        if self.bridged.known().is_none() || self.routed.known().is_none() {
            self.apply(&[])?;
        }
        let mut changed = false;
        for live in [&mut self.bridged, &mut self.routed] {
            changed |= live.edit(|edit| {
                for address in addresses {
                    one(edit, held(address.is_ipv6()), concat(&[(*address).into()]));
                }
                Ok(())
            })?;
        }
        Ok(changed)
    }

    /// Whether the kernel still has what was written.
    pub fn is_intact(&mut self) -> Result<bool, Error> {
        Ok(self.bridged.is_intact()? && self.routed.is_intact()?)
    }

    /// Lets all go.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.bridged.remove()?;
        self.routed.remove()
    }
}

fn held(ipv6: bool) -> &'static str {
    if ipv6 { "held6" } else { "held4" }
}

fn table(family: Family, addresses: &[IpAddr]) -> Table {
    let mut table = Table::default();
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for ipv6 in [false, true] {
        let kind = if ipv6 { Type::Ip6 } else { Type::Ip4 };
        let own = addresses.iter().filter(|address| address.is_ipv6() == ipv6);
        let keys = own.map(|address| concat(&[(*address).into()]));
        table
            .sets
            .insert(held(ipv6).into(), Set::of([kind]).with(keys));
        let rule = |end| {
            let rule = match family {
                Family::Bridge => Rule::new().ethertype(ipv6),
                _ => Rule::new().family(ipv6),
            };
            let load = Load::Address { end, ipv6 };
            rule.in_set(&[load], held(ipv6), true).counter().drop()
        };
        if ipv6 {
            // Without it an IPv6 address cannot even be checked for uniqueness.
            for chain in [&mut from, &mut to] {
                let family = match family {
                    Family::Bridge => Rule::new().ethertype(true),
                    _ => Rule::new().family(true),
                };
                chain.push(family.icmpv6_types(133, 136).accept());
            }
        }
        from.push(rule(End::Source));
        to.push(rule(End::Destination));
    }
    let hook = Some(Hook::filter(At::Prerouting, FIRST));
    table
        .chains
        .insert("from".into(), Chain { hook, rules: from });
    let hook = Some(Hook::filter(At::Postrouting, LAST));
    table.chains.insert("to".into(), Chain { hook, rules: to });
    table
}
