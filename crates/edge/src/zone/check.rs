//! Whether a zone can be found and is answered, seen from outside in: who is asked what, and what
//! the answers mean; and what IT has to enter. Asking is the one thing here that is not pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use super::ask::{Question, Reply};
use super::name::Name;
use super::record::{Record, kind_name};
use super::zones::Zone;
use crate::dns::wire::{code, kind};

/// Questions under way at a time.
const AT_A_TIME: usize = 32;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The zone as it is here.
    pub zone: Arc<Zone>,
    /// Servers of the zone above, with their port: they have to lead to ours.
    pub parents: Vec<SocketAddr>,
    /// Resolvers that people use, with their port: they have to find each name.
    pub resolvers: Vec<SocketAddr>,
    /// Where our servers answer: 53.
    pub port: u16,
    /// Names that are asked for, at most; the first ones.
    pub names: usize,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// It works, but not as it should.
    Warning,
    /// It does not work.
    Fault,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// What it is, and what to do.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Fault => "fault",
        };
        write!(f, "{level}: {}", self.what)
    }
}

/// Answers to questions; none where nothing came back.
pub type Replies = BTreeMap<Question, Option<Reply>>;

impl Plan {
    /// The servers of the zone, each with its addresses; those of others have none here.
    fn servers(&self) -> BTreeMap<Name, BTreeSet<IpAddr>> {
        let records = self.zone.content().records();
        let named = records
            .iter()
            .filter(|r| r.kind == kind::NS && r.name == *self.zone.origin());
        let mut servers: BTreeMap<Name, BTreeSet<IpAddr>> = BTreeMap::new();
        for name in named.filter_map(Record::target) {
            let of_it = records.iter().filter(|r| r.name == name);
            servers.insert(name.clone(), of_it.filter_map(Record::address).collect());
        }
        servers
    }

    /// The names that are looked at, with their addresses.
    fn expected(&self) -> BTreeMap<(Name, u16), BTreeSet<IpAddr>> {
        let mut expected: BTreeMap<_, BTreeSet<IpAddr>> = BTreeMap::new();
        for record in self.zone.content().records() {
            let wild = record.name.labels().next() == Some(b"*");
            let Some(address) = record.address().filter(|_| !wild) else {
                continue;
            };
            let key = (record.name.clone(), record.kind);
            if expected.len() == self.names && !expected.contains_key(&key) {
                break;
            }
            expected.entry(key).or_default().insert(address);
        }
        expected
    }

    /// What has to be asked.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let mut out = Vec::new();
        let mut add = |to, by_tcp, recursive, name: &Name, kind| {
            out.push(Question {
                to,
                by_tcp,
                recursive,
                name: name.clone(),
                kind,
            });
        };
        let origin = self.zone.origin();
        for address in self.servers().into_values().flatten() {
            let to = SocketAddr::new(address, self.port);
            add(to, false, false, origin, kind::SOA);
            add(to, true, false, origin, kind::SOA);
        }
        for parent in &self.parents {
            add(*parent, false, false, origin, kind::NS);
        }
        for resolver in &self.resolvers {
            add(*resolver, false, true, origin, kind::SOA);
            for (name, kind) in self.expected().keys() {
                add(*resolver, false, true, name, *kind);
            }
        }
        out
    }

    /// Asks all of it.
    pub async fn ask(&self, wait: Duration) -> Replies {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut asked = JoinSet::new();
        for question in self.questions() {
            let places = Arc::clone(&places);
            asked.spawn(async move {
                // It is never closed.
                let _place = places.acquire().await;
                let reply = question.ask(wait).await;
                (question, reply)
            });
        }
        let mut replies = Replies::new();
        while let Some(done) = asked.join_next().await {
            replies.extend(done.ok());
        }
        replies
    }

    /// What the answers mean.
    #[must_use]
    pub fn judge(&self, replies: &Replies) -> Vec<Finding> {
        let mut out = Vec::new();
        self.judge_servers(replies, &mut out);
        self.judge_parents(replies, &mut out);
        self.judge_resolvers(replies, &mut out);
        out
    }

    fn reply<'r>(
        &self,
        replies: &'r Replies,
        (to, by_tcp, recursive): (SocketAddr, bool, bool),
        (name, kind): (&Name, u16),
    ) -> Option<&'r Reply> {
        let question = Question {
            to,
            by_tcp,
            recursive,
            name: name.clone(),
            kind,
        };
        replies.get(&question)?.as_ref()
    }

    fn judge_servers(&self, replies: &Replies, out: &mut Vec<Finding>) {
        let origin = self.zone.origin();
        let mut add = |level, what| out.push(Finding { level, what });
        let servers = self.servers();
        match servers.len() {
            0 => add(
                Level::Fault,
                format!("{origin} has no server: no node has an address and answers for it"),
            ),
            1 => add(
                Level::Warning,
                format!(
                    "{origin} has one server: if that node is down, no name is found; let a second node answer, or have secondaries"
                ),
            ),
            _ => {}
        }
        let mut serials: BTreeMap<u32, BTreeSet<&Name>> = BTreeMap::new();
        for (name, addresses) in &servers {
            if addresses.is_empty() && name.is_in(origin) {
                add(
                    Level::Fault,
                    format!("{name} answers for {origin}, but has no address in it"),
                );
            }
            for address in addresses {
                let to = SocketAddr::new(*address, self.port);
                let port = self.port;
                for by_tcp in [false, true] {
                    let way = if by_tcp { "tcp" } else { "udp" };
                    let at = format!("{name} ({address}) port {port}/{way}");
                    let reply = self.reply(replies, (to, by_tcp, false), (origin, kind::SOA));
                    let what = match reply {
                        None => format!(
                            "{at} does not answer: is a firewall before it, or another program at the port?"
                        ),
                        Some(r) if r.recurses => {
                            format!("{at} is answered by a resolver, not by the cluster")
                        }
                        Some(r) if r.code != 0 => {
                            format!(
                                "{at} answers with code {} for {origin}: it does not have the zone",
                                r.code
                            )
                        }
                        Some(r) if !r.authoritative => {
                            format!("{at} does not have the zone {origin} itself")
                        }
                        Some(r) => {
                            let soa = r.sections[0].iter().find(|r| r.kind == kind::SOA);
                            if let Some(serial) = soa.and_then(serial) {
                                serials.entry(serial).or_default().insert(name);
                            }
                            add(Level::Good, format!("{at} answers"));
                            continue;
                        }
                    };
                    add(Level::Fault, what);
                }
            }
        }
        if serials.len() > 1 {
            let shown = serials.iter().map(|(serial, names)| {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                format!("{serial} at {}", names.join(", "))
            });
            let shown: Vec<String> = shown.collect();
            add(
                Level::Warning,
                format!(
                    "the servers have different versions: {}; that passes when they have heard of each other",
                    shown.join("; ")
                ),
            );
        }
    }

    fn judge_parents(&self, replies: &Replies, out: &mut Vec<Finding>) {
        let origin = self.zone.origin();
        let mut add = |level, what| out.push(Finding { level, what });
        let servers = self.servers();
        for parent in &self.parents {
            let reply = self.reply(replies, (*parent, false, false), (origin, kind::NS));
            let Some(reply) = reply else {
                add(
                    Level::Fault,
                    format!("{parent}, a server of the zone above, does not answer"),
                );
                continue;
            };
            let [answer, authority, more] = &reply.sections;
            let named = answer.iter().chain(authority);
            let named: BTreeSet<Name> = named
                .filter(|r| r.kind == kind::NS && r.name == *origin)
                .filter_map(Record::target)
                .collect();
            if named.is_empty() {
                let why = match reply.code {
                    code::NO_NAME => "it says there is no such name".to_owned(),
                    0 => "it knows the name, but no servers for it".to_owned(),
                    code => format!("it answers with code {code}"),
                };
                add(
                    Level::Fault,
                    format!(
                        "{parent} does not delegate {origin}: {why}; IT has to enter the records below"
                    ),
                );
                continue;
            }
            let ours: BTreeSet<Name> = servers.keys().cloned().collect();
            let shown = |names: Vec<&Name>| {
                names
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let missing: Vec<&Name> = ours.difference(&named).collect();
            let others: Vec<&Name> = named.difference(&ours).collect();
            let differs = !missing.is_empty() || !others.is_empty();
            if !missing.is_empty() {
                // Some lead to it: the others are found when these answer.
                let level = if missing.len() == ours.len() {
                    Level::Fault
                } else {
                    Level::Warning
                };
                add(
                    level,
                    format!(
                        "{parent} does not lead to {}: IT has to add NS and addresses",
                        shown(missing)
                    ),
                );
            }
            if !others.is_empty() {
                add(
                    Level::Warning,
                    format!(
                        "{parent} leads to {} for {origin}, which are no servers of it here; if they are secondaries of IT, `wharfie dns add @ NS NAME.` puts them into the zone as well",
                        shown(others)
                    ),
                );
            }
            let mut wrong = false;
            for (name, addresses) in servers
                .iter()
                .filter(|(n, _)| named.contains(*n) && n.is_in(origin))
            {
                let glue = more
                    .iter()
                    .filter(|r| r.name == *name)
                    .filter_map(Record::address);
                let glue: BTreeSet<IpAddr> = glue.collect();
                let lost: Vec<&IpAddr> = glue.difference(addresses).collect();
                if glue.is_empty() {
                    wrong = true;
                    add(
                        Level::Fault,
                        format!(
                            "{parent} has no address for {name}: IT has to enter it, as it is in the zone itself (glue)"
                        ),
                    );
                } else if !lost.is_empty() {
                    wrong = true;
                    add(
                        Level::Fault,
                        format!(
                            "{parent} has {lost:?} for {name}, which it does not have: {addresses:?} is right"
                        ),
                    );
                }
            }
            if !differs && !wrong {
                add(
                    Level::Good,
                    format!("{parent} delegates {origin} to all its servers"),
                );
            }
        }
    }

    fn judge_resolvers(&self, replies: &Replies, out: &mut Vec<Finding>) {
        let origin = self.zone.origin();
        let mut add = |level, what| out.push(Finding { level, what });
        for resolver in &self.resolvers {
            let way = (*resolver, false, true);
            match self.reply(replies, way, (origin, kind::SOA)) {
                None => {
                    add(
                        Level::Fault,
                        format!("the resolver {resolver} does not answer"),
                    );
                    continue;
                }
                Some(r) if r.code != 0 || r.sections[0].is_empty() => {
                    add(
                        Level::Fault,
                        format!(
                            "the resolver {resolver} does not find {origin} (code {}): the delegation is missing, or it does not reach our servers",
                            r.code
                        ),
                    );
                    continue;
                }
                Some(_) => {}
            }
            let expected = self.expected();
            let mut good = 0;
            for ((name, kind), addresses) in &expected {
                let shown = kind_name(*kind);
                let Some(reply) = self.reply(replies, way, (name, *kind)) else {
                    add(
                        Level::Fault,
                        format!("{name} {shown}: {resolver} does not answer in time"),
                    );
                    continue;
                };
                let found: BTreeSet<IpAddr> = reply.sections[0]
                    .iter()
                    .filter_map(Record::address)
                    .collect();
                if found == *addresses {
                    good += 1;
                } else if found.is_empty() {
                    add(
                        Level::Fault,
                        format!(
                            "{name} {shown} is not found by {resolver} (code {}): {addresses:?} is right",
                            reply.code
                        ),
                    );
                } else {
                    let ttl = reply.sections[0]
                        .iter()
                        .map(|r| r.ttl)
                        .min()
                        .unwrap_or_default();
                    add(
                        Level::Warning,
                        format!(
                            "{name} {shown} is {found:?} at {resolver}, which keeps that for {ttl} s more: {addresses:?} is right"
                        ),
                    );
                }
            }
            if good > 0 {
                add(
                    Level::Good,
                    format!("{resolver} finds {good} of {} names", expected.len()),
                );
            }
        }
    }

    /// What IT has to enter, in words and records.
    #[must_use]
    pub fn delegation(&self) -> String {
        let origin = self.zone.origin();
        let above = origin.parent().unwrap_or_else(Name::root);
        let mut out = format!(
            "; Delegation of {origin} to the cluster: to be entered in the zone {above}\n\
             ; Each server answers at port {} by UDP and TCP.\n",
            self.port
        );
        let ttl = 3600;
        let servers = self.servers();
        for name in servers.keys() {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{origin}\t{ttl}\tIN\tNS\t{name}");
        }
        for (name, addresses) in servers.iter().filter(|(n, _)| n.is_in(origin)) {
            for address in addresses {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                let _ = writeln!(out, "{name}\t{ttl}\tIN\t{kind}\t{address}");
            }
        }
        out
    }
}

fn serial(soa: &Record) -> Option<u32> {
    let at = soa.data.len().checked_sub(20)?;
    let bytes: [u8; 4] = soa.data[at..at + 4].try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// The servers of the zone above, as a resolver knows them.
pub async fn parents(zone: &Name, resolver: SocketAddr, wait: Duration) -> Vec<SocketAddr> {
    let ask = async |name: &Name, kind| {
        let question = Question {
            to: resolver,
            by_tcp: false,
            recursive: true,
            name: name.clone(),
            kind,
        };
        question.ask(wait).await.unwrap_or_default().sections
    };
    let mut above = zone.parent();
    while let Some(name) = above {
        let [answer, ..] = ask(&name, kind::NS).await;
        let named = answer
            .iter()
            .filter(|r| r.kind == kind::NS && r.name == name);
        let named: Vec<Name> = named.filter_map(Record::target).collect();
        let mut found = Vec::new();
        for server in &named {
            for kind in [kind::A, kind::AAAA] {
                let [answer, ..] = ask(server, kind).await;
                let addresses = answer.iter().filter_map(Record::address);
                found.extend(addresses.map(|a| SocketAddr::new(a, 53)));
            }
        }
        if !named.is_empty() {
            return found;
        }
        above = name.parent();
    }
    Vec::new()
}
