//! Answers for the zone that IT delegates to the cluster, on every node.
//!
//! What the zone has follows from what is stored and reported ([`entries`]), so that all nodes have
//! the same; it is made anew only when that is something else.

mod check;
mod entries;
mod here;
mod records;
mod routes;
mod served;
mod versions;

pub(super) use entries::start;
pub(super) use here::addresses as addresses_here;
pub(super) use records::merged;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use wharfie_core::director::{self, Director, Range};
use wharfie_core::network::Cidr;
use wharfie_core::report::NetworkFault;
use wharfie_edge::zone::{
    Allowed, Content, Entries, Key, Name, Secondary, Server, Settings, Start, Version, Zone, Zones,
    reverse_zones, serial,
};

use super::DirectorBook;
use crate::agent::keeper::Keeper;
use crate::api::NodeState;
use entries::{Added, Seen, Sight, begin, reached_at, shown, spans};
use records::Sets;
use versions::Versions;

pub(in crate::agent) use routes::routes as api;
pub(in crate::agent) use served::Answering;

/// Changes come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(3);
/// How often is looked all the same: what is wrong is said again, and addresses of the host change.
const LOOK: Duration = Duration::from_secs(10);
/// The pause before an address is tried again that could not be listened at.
const AGAIN: Duration = Duration::from_secs(1);
/// After its start an agent waits so long for what other nodes say.
const HEARING: Duration = Duration::from_secs(2);
/// Who says what is wrong with the zone.
const SOURCE: &str = "zone";

/// What zones are made of.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    start: Start,
    entries: Entries,
    /// Networks with reverse zones.
    reverse: Vec<Cidr>,
    /// Addresses whose names are ours.
    named: Vec<Range>,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rights {
    keys: Vec<director::TsigKey>,
    transfer: Vec<director::Transfer>,
    secondaries: Vec<director::Secondary>,
    forward_for: Vec<Cidr>,
}

/// The server, and what it answers from.
struct Keeping {
    server: Server,
    sender: watch::Sender<Arc<Zones>>,
    plan: Option<Plan>,
    rights: Option<Rights>,
    /// The zone itself first.
    zones: Vec<Arc<Zone>>,
    /// What of the plan cannot be.
    conflicts: Vec<String>,
    /// What was added, as it was read last, and of what.
    added: Option<(Arc<Sets>, Name, Arc<Added>)>,
    /// What of it cannot be read.
    bad: Vec<String>,
    /// What of the rights cannot be.
    wrong: Vec<String>,
    wanted: BTreeSet<SocketAddr>,
    /// Addresses that could not be listened at, with the reason, and when they are tried again.
    deaf: BTreeMap<SocketAddr, String>,
    again: Instant,
    versions: Versions,
}

/// Keeps the zone as it is to be, for ever.
pub(in crate::agent) async fn keep(keeper: Arc<Keeper>) {
    let mut keeping = None;
    let begun = Instant::now();
    // Whether this node answers; believed until it is tried.
    let mut answers = true;
    let mut said = BTreeSet::new();
    loop {
        let book = keeper.book.director();
        let settings = book.settings.as_ref().filter(|s| !s.zone.is_empty());
        let Some(settings) = settings else {
            if keeping.take().is_some() {
                info!("there is no zone any more");
            }
            answers = true;
            keeper.show_zone(None);
            keeper.set_network_faults(SOURCE, BTreeSet::new());
            keeper.zone_news.notified().await;
            continue;
        };
        if begun.elapsed() < HEARING && !keeper.heard_all() {
            // A zone without the others would be another one.
            tokio::select! {
                () = keeper.zone_news.notified() => {}
                () = tokio::time::sleep(HEARING / 10) => {}
            }
            continue;
        }
        let mut faults = BTreeSet::new();
        let pause = match begin(settings) {
            Err(why) => {
                // What was answered before goes on: an old zone is better than none.
                faults.insert(format!("zone {}: {why}", settings.zone));
                LOOK
            }
            Ok((start, wrong)) => {
                faults.extend(wrong.map(|why| format!("zone {}: {why}", settings.zone)));
                let keeping = match &mut keeping {
                    Some(keeping) => keeping,
                    None => keeping.insert(Keeping::new(keeper.zone_versions().await)),
                };
                let now = keeping
                    .round(&keeper, (&book, settings), start, answers)
                    .await;
                if now != answers {
                    answers = now;
                    continue;
                }
                faults.extend(keeping.faults(&keeper, settings));
                if keeping.deaf.is_empty() { LOOK } else { AGAIN }
            }
        };
        faults.difference(&said).for_each(|f| warn!("{f}"));
        let told = faults.iter().map(|what| NetworkFault {
            what: what.clone(),
            ..NetworkFault::default()
        });
        keeper.set_network_faults(SOURCE, told.collect());
        said = faults;
        tokio::select! {
            () = keeper.zone_news.notified() => tokio::time::sleep(CROWD).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Keeping {
    fn new(versions: Versions) -> Self {
        let (sender, receiver) = watch::channel(Arc::default());
        Self {
            server: Server::new(Settings::default(), receiver),
            sender,
            plan: None,
            rights: None,
            zones: Vec::new(),
            conflicts: Vec::new(),
            added: None,
            bad: Vec::new(),
            wrong: Vec::new(),
            wanted: BTreeSet::new(),
            deaf: BTreeMap::new(),
            again: Instant::now(),
            versions,
        }
    }

    /// Has the server answer as things are now. `answers` says whether this node is believed to; whether it
    /// does is returned.
    async fn round(
        &mut self,
        keeper: &Arc<Keeper>,
        (book, settings): (&DirectorBook, &Director),
        start: Start,
        answers: bool,
    ) -> bool {
        let origin = start.origin.clone();
        let nodes = keeper.nodes_for_zone(book, &origin, answers);
        let stacks: Vec<_> = keeper
            .book
            .stacks()
            .into_values()
            .map(|e| e.stack)
            .collect();
        let added = self.added(book, &origin).await;
        let sight = Sight {
            settings,
            addresses: &book.addresses,
            added: &added,
            stacks: &stacks,
            nodes: &nodes,
        };
        let plan = Plan {
            start,
            entries: sight.entries(),
            reverse: settings.reversed(),
            named: settings.named(),
        };
        let rights = Rights::of(settings);
        let peers = keeper.peers_of_zones();
        let mut changed = self.rights.as_ref() != Some(&rights);
        let contents = match self.plan.as_ref() == Some(&plan) {
            true => self.zones.iter().map(|z| z.content().clone()).collect(),
            false => {
                let (made, conflicts) = made(plan.clone()).await;
                self.conflicts = conflicts;
                self.plan = Some(plan);
                changed = true;
                made
            }
        };
        if self.bad != added.bad {
            self.bad.clone_from(&added.bad);
            changed = true;
        }
        let zones = self.next(contents, book.changed, &peers);
        let same = |(a, b): (&Arc<Zone>, &Arc<Zone>)| Arc::ptr_eq(a, b);
        changed |= zones.len() != self.zones.len() || !zones.iter().zip(&self.zones).all(same);
        if changed {
            self.zones = zones;
            let (all, wrong) = rights.zones(self.zones.clone());
            (self.wrong, self.rights) = (wrong, Some(rights));
            self.sender.send_replace(Arc::new(all));
        }
        let me = nodes.iter().find(|n| n.id == keeper.fleet.id());
        let own = me.map(|n| n.addresses.as_slice()).unwrap_or_default();
        self.listen(keeper, own, settings.dns_port).await;
        let before = answers;
        let answers = !self.server.addresses().await.is_empty();
        if changed || answers != before {
            keeper.show_zone(self.served(answers));
        }
        self.versions.note(keeper, &self.zones).await;
        answers
    }

    /// What people added. It is read again only when it is something else: there may be very much.
    async fn added(&mut self, book: &DirectorBook, origin: &Name) -> Arc<Added> {
        let known = self.added.as_ref();
        let known = known.filter(|(sets, of, _)| Arc::ptr_eq(sets, &book.records) && of == origin);
        if let Some((_, _, added)) = known {
            return Arc::clone(added);
        }
        let (sets, of) = (Arc::clone(&book.records), origin.clone());
        let read = tokio::task::spawn_blocking(move || Added::read(&sets, &of));
        // It ends early only if it panics.
        let added = Arc::new(read.await.unwrap_or_default());
        self.added = Some((
            Arc::clone(&book.records),
            origin.clone(),
            Arc::clone(&added),
        ));
        added
    }

    /// The zones with their contents, each of which is the old one if nothing changed.
    fn next(
        &self,
        contents: Vec<Content>,
        changed: u64,
        peers: &BTreeMap<String, Vec<Version>>,
    ) -> Vec<Arc<Zone>> {
        let none = Vec::new();
        let zones = contents.into_iter().map(|content| {
            let origin = content.start().origin.clone();
            let peers = peers.get(&origin.to_string()).unwrap_or(&none);
            match self.zones.iter().find(|z| *z.origin() == origin) {
                Some(zone) => zone.then(content, changed, peers),
                None => {
                    let last = self.versions.last(&origin, &content);
                    let version = serial::next(last, &content, changed, peers);
                    Zone::new(content, version)
                }
            }
        });
        zones.collect()
    }

    /// Listens at these addresses of this node.
    async fn listen(&mut self, keeper: &Keeper, own: &[IpAddr], port: u16) {
        let wanted: BTreeSet<_> = own.iter().map(|a| SocketAddr::new(*a, port)).collect();
        let due = !self.deaf.is_empty() && Instant::now() >= self.again;
        if wanted == self.wanted && !due {
            return;
        }
        let failed = self.server.listen(&wanted).await;
        self.wanted = wanted;
        self.again = Instant::now() + AGAIN;
        let mut deaf = BTreeMap::new();
        let mut owner = None;
        for (at, error) in failed {
            let why = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    if owner.is_none() {
                        let engine = keeper.engine().ok();
                        owner = Some(wharfie_host::port_owner(port, engine.as_ref()).await);
                    }
                    let owner = owner.as_deref().unwrap_or_default();
                    format!("{owner} has it; stop that, or set another port")
                }
                _ => error.to_string(),
            };
            deaf.insert(at, why);
        }
        self.deaf = deaf;
    }

    /// What is not as it should be. What is wrong for all nodes is said by one of them.
    fn faults(&self, keeper: &Keeper, settings: &Director) -> BTreeSet<String> {
        let zone = &settings.zone;
        let deaf = self.deaf.iter();
        let mut faults: BTreeSet<String> = deaf
            .map(|(at, why)| {
                let (address, port) = (at.ip(), at.port());
                format!("zone {zone}: port {port} of {address} is not answered: {why}")
            })
            .collect();
        if self.wanted.is_empty() {
            faults.insert(format!("zone {zone}: no address of this node is known"));
        }
        if keeper.is_first() {
            let all = self.conflicts.iter().chain(&self.bad).chain(&self.wrong);
            faults.extend(all.map(|what| format!("zone {zone}: {what}")));
        }
        faults
    }
}

/// The contents of all zones, and what cannot be. Large ones take their time.
async fn made(plan: Plan) -> (Vec<Content>, Vec<String>) {
    let work = move || {
        let (content, mut words) = plan.entries.forward(plan.start);
        let reverse: Vec<_> = shown(&plan.reverse);
        let (back, more) = reverse_zones(&content, &reverse, &spans(&plan.named));
        words.extend(more);
        let mut contents = vec![content];
        contents.extend(back);
        (contents, words)
    };
    // It ends early only if it panics.
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_default()
}

impl Rights {
    fn of(settings: &Director) -> Self {
        Self {
            keys: settings.keys.clone(),
            transfer: settings.transfer.clone(),
            secondaries: settings.secondaries.clone(),
            forward_for: settings.forward_for.clone(),
        }
    }

    /// Zones with these rights; and what of them cannot be.
    fn zones(&self, zones: Vec<Arc<Zone>>) -> (Zones, Vec<String>) {
        let mut all = Zones::new(zones);
        let mut wrong = Vec::new();
        for key in &self.keys {
            match Key::new(&key.name, &key.algorithm, &key.secret) {
                Ok(key) => all.keys.push(Arc::new(key)),
                Err(why) => wrong.push(why),
            }
        }
        let named = |key: &str, wrong: &mut Vec<String>| match key {
            "" => Some(None),
            name => match name.parse::<Name>() {
                Ok(read) => {
                    if !self.keys.iter().any(|k| k.name.parse() == Ok(read.clone())) {
                        wrong.push(format!("there is no key {name}"));
                    }
                    Some(Some(read))
                }
                Err(why) => {
                    wrong.push(format!("key {name}: {why}"));
                    None
                }
            },
        };
        for allowed in &self.transfer {
            // Whose key cannot be read gets nothing.
            if let Some(key) = named(&allowed.key, &mut wrong) {
                let from = shown(&[allowed.from]).into_iter();
                all.allowed.extend(from.map(|from| Allowed {
                    from,
                    key: key.clone(),
                }));
            }
        }
        for secondary in &self.secondaries {
            if let Some(key) = named(&secondary.key, &mut wrong) {
                all.secondaries.push(Secondary {
                    at: secondary.at,
                    key,
                });
            }
        }
        all.forward_for = shown(&self.forward_for);
        wrong.sort();
        wrong.dedup();
        (all, wrong)
    }
}

impl Keeper {
    /// Whether every other node said what it has.
    fn heard_all(&self) -> bool {
        let nodes = self.fleet.members().into_iter();
        let mut others = nodes.filter(|n| !n.me && n.state != NodeState::Removed);
        others.all(|n| self.fleet.report_of(&n).is_some())
    }

    /// Whether of the nodes that are up this one comes first.
    fn is_first(&self) -> bool {
        let me = self.fleet.id();
        let nodes = self.fleet.members().into_iter();
        let mut others = nodes.filter(|n| !n.me && n.may_answer());
        others.all(|n| n.id > me)
    }

    /// The nodes, as the zone takes them. `answers` is whether this one answers.
    fn nodes_for_zone(&self, book: &DirectorBook, origin: &Name, answers: bool) -> Vec<Seen> {
        let given = book.given();
        let origin = origin.to_string();
        let nodes = self.fleet.members().into_iter();
        let nodes = nodes.filter(|n| n.state != NodeState::Removed);
        let mut seen: Vec<Seen> = nodes
            .map(|node| {
                let report = self.fleet.report_of(&node);
                let zones = report.iter().flat_map(|r| &r.zones);
                let up = node.me || node.may_answer();
                let said = || zones.map(|z| &z.origin).any(|o| *o == origin);
                let mut addresses = reached_at(&node.addresses, &given);
                if addresses.is_empty() && node.me {
                    // It is of no cluster.
                    addresses = here::addresses(book);
                    addresses.retain(|a| !given.contains(a));
                }
                Seen {
                    addresses,
                    up,
                    serves: if node.me { answers } else { up && said() },
                    id: node.id,
                    name: node.name,
                    report,
                }
            })
            .collect();
        // The same on all nodes.
        seen.sort_by(|a, b| a.id.cmp(&b.id));
        seen
    }

    /// What versions of which zone other nodes have.
    fn peers_of_zones(&self) -> BTreeMap<String, Vec<Version>> {
        let mut peers: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        let nodes = self.fleet.members().into_iter();
        for node in nodes.filter(|n| !n.me && n.may_answer()) {
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            for zone in &report.zones {
                let version = Version {
                    serial: zone.serial,
                    digest: zone.digest,
                };
                peers.entry(zone.origin.clone()).or_default().push(version);
            }
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_was_said() {
        let settings: Director = serde_json::from_value(serde_json::json!({
            "keys": [
                {"name": "to-it", "algorithm": "hmac-sha256", "secret": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA=="},
                {"name": "weak", "algorithm": "hmac-sha256", "secret": "eA=="},
            ],
            "transfer": [{"from": "10.0.0.0/8", "key": "to-it"}, {"from": "192.0.2.1/32"}, {"from": "192.0.2.2/32", "key": "a..b"}],
            "secondaries": [{"at": "10.0.0.53:53", "key": "lost"}],
            "forward_for": ["10.0.0.0/8"],
        }))
        .unwrap();
        let (zones, wrong) = Rights::of(&settings).zones(Vec::new());
        assert_eq!(zones.keys.len(), 1);
        let allowed: Vec<_> = zones
            .allowed
            .iter()
            .map(|a| (a.from.to_string(), a.key.is_some()))
            .collect();
        assert_eq!(
            allowed,
            [
                ("10.0.0.0/8".to_owned(), true),
                ("192.0.2.1/32".to_owned(), false)
            ]
        );
        assert_eq!((zones.secondaries.len(), zones.forward_for.len()), (1, 1));
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }
}
