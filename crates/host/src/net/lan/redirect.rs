//! Services' addresses on the LAN, of which everything is led on to their tasks.
//!
//! The destination is replaced on the host that has the address: of TCP, UDP, ICMP and whatever
//! else is sent there, so that pings too are answered by a task. As with published ports the
//! client's address is kept where a way leads back.
//!
//! `addresses4` (address → number of a chain) and `turns4` (0 . number → chain) lead to a chain that draws
//! a number, marks the connection, and takes a task from `tasks4` (address . number → task). There are
//! few chains for all addresses: so no element with a verdict comes with an address, for which the
//! kernel would go through all others. An address without tasks leads to itself:
//! that settles where the connection goes, so that nobody else who publishes ports on all addresses
//! of the host gets it, and what then still has an address of `refused4` is refused. The same with 6
//! for IPv6. Neighbour discovery is no connection, and comes through none of this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::nft::{
    At, Chain, Data, Draw, Edit, End, Family, Field, Hook, Key, Live, Load, NewPort, Reject, Rule,
    Set, TCP, Table, TableId, Type, Value, concat,
};
use super::super::turns::{Turns, kind, named, way_back};
use super::super::{Error, Namespace};
use super::{MARK, MARK_MASK};

const TABLE: TableId<'static> = TableId {
    family: Family::Inet,
    name: "wharfie_director",
};
/// Before published ports (-105) and Docker's rules (-100): who comes first decides.
const BEFORE_NAT: i32 = -108;
/// Before the masquerading of published ports (95) and Docker's (100).
const BEFORE_MASQUERADE: i32 = 94;
/// Before rules that accept.
const EARLY_FILTER: i32 = -10;

/// An address, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirected {
    /// The service's address on the LAN.
    pub address: IpAddr,
    /// The tasks' addresses, on any host, all of the same family. They take turns. If there are
    /// none, whoever asks is refused at once.
    pub tasks: Vec<IpAddr>,
    /// Whether a task shares this host's own network: it takes turns with the others, and its turn is
    /// that the host keeps the packet.
    pub here: bool,
}

/// All addresses of a host, and where clients and tasks are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirecting {
    /// The addresses.
    pub addresses: Vec<Redirected>,
    /// The subnets of containers on this host.
    pub subnets: Vec<IpNet>,
    /// Tasks of other hosts from which no way leads back to this one.
    pub no_way_back: Vec<IpAddr>,
}

/// What leads addresses on.
///
/// It does so whether the host has them or not: give every host all of the cluster's, with the one that
/// has them as with the others. What comes to the wrong host, as from clients that did not hear of a
/// move, is then led on as well; a connection that passed without being led stays so until it is
/// forgotten (see [`forget`](super::super::forget), with the service's address for the backend).
///
/// A task that asks its own service's address gets no answer from itself where bridges call iptables
/// (`net.bridge.bridge-nf-call-iptables`): what came by a port of the bridge would go back by it. There
/// the address belongs among the [`Vips`](super::super::Vips) of the task's namespace as well.
///
/// The packets of IPv6 are only led on if the host forwards at all (`net.ipv6.conf.all.forwarding`).
/// Docker's filter lets them through once its [`Gate`](super::super::Gate) is open for them.
pub struct Redirector {
    live: Live,
    /// Makes hosts begin with different tasks.
    salt: u64,
}

impl Redirector {
    /// That of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            live: Live::open(host, TABLE)?,
            salt: host.id(),
        })
    }

    /// Leads these addresses on and no others, in one transaction; repairs what others changed. Says
    /// whether anything had to be done.
    pub fn apply(&mut self, redirecting: &Redirecting) -> Result<bool, Error> {
        let mut seen = BTreeSet::new();
        for one in &redirecting.addresses {
            check(one)?;
            if !seen.insert(one.address) {
                let words = format!("the address {} is given to two services", one.address);
                return Err(Error::Invalid(words));
            }
        }
        let table = table(redirecting, self.live.known(), self.salt);
        self.live.set(table)
    }

    /// Leads one address on, or elsewhere, in one transaction; costs the same whatever others there
    /// are. Connections that are open stay with their task.
    pub fn set(&mut self, one: &Redirected) -> Result<bool, Error> {
        check(one)?;
        self.begin()?;
        let salt = self.salt;
        self.live.edit(|edit| {
            change(edit, one, salt);
            Ok(())
        })
    }

    /// Has nothing more to do with an address.
    pub fn remove(&mut self, address: IpAddr) -> Result<bool, Error> {
        self.begin()?;
        self.live.edit(|edit| {
            let own = prefix(address);
            for name in ["addresses", "refused", "tasks"] {
                let set = named(name, address.is_ipv6());
                edit.part(&set, &own, &BTreeMap::new());
            }
            Ok(())
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.live.known().is_none() {
            self.apply(&Redirecting::default())?;
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

fn check(one: &Redirected) -> Result<(), Error> {
    let address = one.address;
    let odd = |task: &&IpAddr| task.is_ipv4() != address.is_ipv4();
    match one.tasks.iter().find(odd) {
        Some(task) => Err(Error::Invalid(format!(
            "{task} cannot be behind {address}: one is IPv4 and one is IPv6"
        ))),
        None => Ok(()),
    }
}

/// What the keys of an address's elements begin with.
fn prefix(address: IpAddr) -> Vec<u8> {
    concat(&[address.into()])
}

/// What one address has of its own in the table.
struct Parts {
    chain: String,
    rule: Rule,
    /// Elements of sets, by their names.
    elements: [(&'static str, BTreeMap<Key, Value>); 3],
    /// The element that leads to the chain, and is not of this address alone.
    turn: (Key, Value),
}

fn parts(one: &Redirected, known: Option<&Set>, salt: u64) -> Parts {
    let (own, ipv6) = (prefix(one.address), one.address.is_ipv6());
    let mut wanted: BTreeSet<IpAddr> = one.tasks.iter().copied().collect();
    let is_refused = wanted.is_empty() && !one.here;
    if one.here || is_refused {
        wanted.insert(one.address);
    }
    let turns = Turns::new(&own, &wanted, None, (known, salt), ipv6);
    let to = [Load::Address {
        end: End::Destination,
        ipv6,
    }];
    let draw = Draw::InTurn(turns.modulus);
    let rule = Rule::new().set_connection_mark(MARK_MASK, MARK).dnat(
        &to,
        draw,
        &named("tasks", ipv6),
        ipv6,
        NewPort::Same,
    );
    let refused = is_refused.then(|| (own.clone().into(), Value::None));
    let number = concat(&[Field::Mark(turns.number)]);
    Parts {
        chain: turns.chain,
        rule,
        elements: [
            ("tasks", turns.tasks),
            ("refused", refused.into_iter().collect()),
            (
                "addresses",
                BTreeMap::from([(own.into(), Value::Bytes(number))]),
            ),
        ],
        turn: (
            concat(&[Field::Mark(0), Field::Mark(turns.number)]).into(),
            turns.verdict,
        ),
    }
}

/// The table that does not depend on which addresses there are.
fn frame(redirecting: &Redirecting) -> Table {
    let mut table = Table::default();
    let led = |ipv6| {
        let family = Rule::new().family(ipv6);
        family.connection_mark(MARK_MASK, MARK)
    };
    let (subnets, lost) = (&redirecting.subnets, &redirecting.no_way_back);
    let mut masquerade = way_back(&mut table, subnets, lost, led);
    let (mut nat, mut unanswered) = (Vec::new(), Vec::new());
    for ipv6 in [false, true] {
        let address = kind(ipv6);
        let addresses = Set::map([address], Data::Fields(vec![Type::Mark]));
        let turns = Set::map([Type::Mark, Type::Mark], Data::Verdict);
        let tasks = Set::map([address, Type::Mark], Data::Fields(vec![address]));
        let refused = Set::of([address]);
        for (name, set) in [
            ("addresses", addresses),
            ("turns", turns),
            ("tasks", tasks),
            ("refused", refused),
        ] {
            table.sets.insert(named(name, ipv6), set);
        }
        let to = [Load::Address {
            end: End::Destination,
            ipv6,
        }];
        let family = || Rule::new().family(ipv6);
        let [addresses, turns] = ["addresses", "turns"].map(|name| named(name, ipv6));
        nat.push(family().numbered_verdict(&to, &addresses, &turns));
        // What the host itself sends there has the same address as its source: an answer must not
        // depend on where that address is by then.
        masquerade.push(led(ipv6).sent_by_this_host().masquerade());
        let refused = || {
            let new = family().begins_connection();
            new.in_set(&to, &named("refused", ipv6), true)
        };
        unanswered.push(refused().protocol(TCP).counter().reject(Reject::TcpReset));
        unanswered.push(refused().counter().reject(Reject::PortUnreachable));
    }
    let base = [
        (
            "prerouting",
            Hook::nat(At::Prerouting, BEFORE_NAT),
            nat.clone(),
        ),
        ("output", Hook::nat(At::Output, BEFORE_NAT), nat),
        (
            "postrouting",
            Hook::nat(At::Postrouting, BEFORE_MASQUERADE),
            masquerade,
        ),
        (
            "unanswered",
            Hook::filter(At::Input, EARLY_FILTER),
            unanswered,
        ),
    ];
    for (name, hook, rules) in base {
        let hook = Some(hook);
        table.chains.insert(name.into(), Chain { hook, rules });
    }
    table
}

/// The whole table. Tasks keep the numbers they have in the known one.
fn table(redirecting: &Redirecting, known: Option<&Table>, salt: u64) -> Table {
    let mut table = frame(redirecting);
    for one in &redirecting.addresses {
        let ipv6 = one.address.is_ipv6();
        let set = known.and_then(|known| known.sets.get(&named("tasks", ipv6)));
        let parts = parts(one, set, salt);
        for (name, elements) in parts.elements {
            if let Some(set) = table.sets.get_mut(&named(name, ipv6)) {
                set.elements.extend(elements);
            }
        }
        if let Some(turns) = table.sets.get_mut(&named("turns", ipv6)) {
            turns.elements.extend([parts.turn]);
        }
        let (hook, rules) = (None, vec![parts.rule]);
        table.chains.insert(parts.chain, Chain { hook, rules });
    }
    table
}

/// Changes one address. Chains that nothing leads to any more stay until the whole table is looked
/// at.
fn change(edit: &mut Edit<'_>, one: &Redirected, salt: u64) {
    let (own, ipv6) = (prefix(one.address), one.address.is_ipv6());
    let known = edit.table().sets.get(&named("tasks", ipv6));
    let parts = parts(one, known, salt);
    edit.rules(&parts.chain, &[parts.rule]);
    let (number, turn) = parts.turn;
    edit.put(&named("turns", ipv6), number, turn);
    for (name, elements) in parts.elements {
        edit.part(&named(name, ipv6), &own, &elements);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::turns::numbered;
    use super::*;

    fn redirected(tasks: &[u8], here: bool) -> Redirected {
        let task = |last: &u8| IpAddr::from([10, 0, 0, *last]);
        Redirected {
            address: [192, 0, 2, 7].into(),
            tasks: tasks.iter().map(task).collect(),
            here,
        }
    }

    fn led(one: Redirected) -> (BTreeSet<IpAddr>, usize) {
        let own = prefix(one.address);
        let redirecting = Redirecting {
            addresses: vec![one],
            ..Redirecting::default()
        };
        let table = table(&redirecting, None, 5);
        let tasks = numbered(&table.sets["tasks4"], &own, false);
        let refused = table.sets["refused4"].elements.len();
        (tasks.into_iter().collect(), refused)
    }

    #[test]
    fn without_tasks_an_address_leads_to_itself_and_is_refused() {
        let own = IpAddr::from([192, 0, 2, 7]);
        let task = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(led(redirected(&[], false)), (BTreeSet::from([own]), 1));
        assert_eq!(led(redirected(&[], true)), (BTreeSet::from([own]), 0));
        assert_eq!(led(redirected(&[1], false)), (BTreeSet::from([task]), 0));
        let both = BTreeSet::from([task, own]);
        assert_eq!(led(redirected(&[1], true)), (both, 0));
    }
}
