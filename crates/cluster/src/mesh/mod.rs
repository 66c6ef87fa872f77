//! A node among others: keeps links to its peers, tells them what changes, repairs what was
//! missed, and knows who is alive.

mod detect;
mod dial;
mod held;
mod links;
mod push;
mod ring;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tracing::{error, warn};

use crate::clock::Stamp;
use crate::id::NodeId;
use crate::replica::{Batch, Key, Lost, Record, Replica};
use crate::roster::{Door, MEMBER, REMOVED, Roster};
use crate::swim::{Life, Liveness, Timing};
use crate::transport::{BoxFuture, Link, Stream, Transport, Why};
use crate::wire::{self, ClusterId};

pub use links::OpenError;

/// Up to so many members each node has a link to every other; in larger clusters it keeps a few,
/// makes others as they are needed, and what changes is told further by those who hear it.
pub const FULL_MESH: usize = 200;
/// How many are told in a larger cluster, by each who hears something new.
const FANOUT: usize = 6;
/// Datagrams that wait for a link to a node at most.
const UNSENT: usize = 8;

/// Where the epoch of the last life is kept, among what concerns this node alone.
const EPOCH: &str = "cluster/epoch";
/// How often a node may have refuted that it is down, in one life.
const REFUTED: u64 = 10_000;

/// So many edits of this node that lost are remembered, for peers that come later.
const MOST_LOST: usize = 64;

/// The time, in milliseconds since 1970.
#[must_use]
pub fn now_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Chance.
fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

/// The epoch of a new life: later than all before it, also if the clock was set back. Others go by
/// the life that began last, and by what it says of itself.
fn next_epoch(replica: &Replica, now: u64) -> Result<u64, crate::store::Error> {
    let last = replica.store().local(EPOCH)?;
    let last = last.and_then(|b| Some(u64::from_be_bytes(b.try_into().ok()?)));
    // A node that refutes that it is down adds one each time.
    let epoch = last.map_or(now, |last| now.max(last.saturating_add(REFUTED)));
    replica
        .store()
        .set_local(EPOCH, Some(&epoch.to_be_bytes()))?;
    Ok(epoch)
}

/// What answers the streams that peers open.
pub trait Services: Send + Sync + 'static {
    /// Serves a stream to its end. The first thing to send is [`wire::Opened`].
    fn serve(&self, peer: NodeId, service: String, stream: Stream) -> BoxFuture<'static, ()>;

    /// Whether an object is of this node alone, rather than of the cluster that it was removed from.
    fn is_own(&self, _me: NodeId, _record: &Record) -> bool {
        true
    }
}

/// Something that happened in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Others wrote these objects.
    Changed(Vec<Key>),
    /// Edits of one object crossed each other, and these lost.
    Lost(Vec<Lost>),
    /// Members came, went, or changed.
    Roster,
    /// Somebody came up or went down.
    Liveness,
    /// A node's report is another.
    Report(NodeId),
    /// This node was removed from the cluster.
    Expelled,
    /// There was more than could be told: everything may have changed.
    Missed,
}

/// Whether a node is there, since when, and in which life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// The newest life that is known.
    pub life: Life,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterId,
    /// Version of the program, for people.
    pub software: String,
    /// Patience.
    pub timing: Timing,
    /// Pause between reconciliations with a random peer.
    pub reconcile: Duration,
    /// Up to so many members are all linked to each other: [`FULL_MESH`].
    pub full_mesh: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            cluster: ClusterId::default(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            timing: Timing::default(),
            reconcile: Duration::from_secs(3),
            full_mesh: FULL_MESH,
        }
    }
}

/// Bytes and messages so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of frames and datagrams sent, without what QUIC adds.
    pub sent: AtomicU64,
    /// Reconciliations begun here.
    pub reconciliations: AtomicU64,
}

/// A peer to which there is a link.
struct Peered {
    link: Arc<dyn Link>,
    outbox: mpsc::Sender<Arc<Vec<u8>>>,
    /// When something was last asked of the link.
    used: std::time::Instant,
    /// Held by each stream between services: a link in use is not idle.
    streams: Arc<()>,
    /// Whether the peer has said that it is of this cluster, and may be asked for something.
    greeted: watch::Receiver<bool>,
}

/// A node among others.
pub struct Mesh {
    me: NodeId,
    setup: Setup,
    replica: Arc<Replica>,
    transport: Arc<dyn Transport>,
    services: Arc<dyn Services>,
    door: Arc<Door>,
    links: Mutex<BTreeMap<NodeId, Peered>>,
    /// Milliseconds that peers' clocks were ahead of ours when they last said so, also of those that
    /// are away by now.
    skews: Mutex<BTreeMap<NodeId, i64>>,
    reports: Mutex<BTreeMap<NodeId, wire::Report>>,
    detector: mpsc::UnboundedSender<detect::Sign>,
    presence: watch::Sender<Arc<BTreeMap<NodeId, Presence>>>,
    events: broadcast::Sender<Event>,
    /// Edits of this node that lost, the latest last.
    lost: Mutex<VecDeque<Lost>>,
    acks: Mutex<BTreeMap<Stamp, watch::Sender<BTreeSet<NodeId>>>>,
    /// Somebody may have to be called.
    dial: Notify,
    /// Nodes to which somebody wants a link.
    wishes: Mutex<BTreeSet<NodeId>>,
    /// Datagrams that wait for a link.
    unsent: Mutex<BTreeMap<NodeId, Vec<Bytes>>>,
    /// One at a time calls a node.
    lines: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
    /// One at a time reads who the members are.
    following: tokio::sync::Mutex<()>,
    /// One at a time is let in: a token lets in one node, and a name is of one.
    pub(crate) admitting: Mutex<()>,
    over: watch::Sender<bool>,
    life: Life,
    began: std::time::Instant,
    traffic: Traffic,
}

impl Mesh {
    /// Starts a node; must be called in a runtime. `door` is the one whose gate the transport asks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        setup: Setup,
        replica: Arc<Replica>,
        transport: Arc<dyn Transport>,
        services: Arc<dyn Services>,
        door: Arc<Door>,
    ) -> Result<Arc<Self>, crate::store::Error> {
        door.set_roster(Arc::new(Roster::read(&replica)?));
        let (detector, signs) = mpsc::unbounded_channel();
        let me = transport.id();
        let life = Life {
            node: me,
            epoch: next_epoch(&replica, now_millis())?,
        };
        let mesh = Arc::new(Self {
            me,
            setup,
            replica,
            transport,
            services,
            door,
            links: Mutex::default(),
            skews: Mutex::default(),
            reports: Mutex::default(),
            detector,
            presence: watch::Sender::default(),
            events: broadcast::channel(1024).0,
            lost: Mutex::default(),
            acks: Mutex::default(),
            dial: Notify::new(),
            wishes: Mutex::default(),
            unsent: Mutex::default(),
            lines: Mutex::default(),
            following: tokio::sync::Mutex::default(),
            admitting: Mutex::default(),
            over: watch::Sender::new(false),
            life,
            began: std::time::Instant::now(),
            traffic: Traffic::default(),
        });
        tokio::spawn(mesh.clone().until_over(detect::run(mesh.clone(), signs)));
        tokio::spawn(mesh.clone().until_over(links::welcome(mesh.clone())));
        tokio::spawn(mesh.clone().until_over(dial::run(mesh.clone())));
        tokio::spawn(mesh.clone().until_over(sync::run(mesh.clone())));
        Ok(mesh)
    }

    async fn until_over(self: Arc<Self>, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            () = self.stopped() => {}
        }
    }

    /// Leaves: peers are told, and everything ends.
    pub async fn stop(&self) {
        let (done, told) = tokio::sync::oneshot::channel();
        if self.detector.send(detect::Sign::Leave(done)).is_ok() {
            let _ = tokio::time::timeout(Duration::from_millis(200), told).await;
        }
        for peered in self.links().values() {
            peered.link.close(Why::Leaving);
        }
        self.over.send_replace(true);
        let closed = self.transport.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    }

    /// Returns when the node was stopped.
    pub async fn stopped(&self) {
        let mut over = self.over.subscribe();
        // The sender is the mesh's own: it outlives this.
        let _ = over.wait_for(|over| *over).await;
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// This life of the node; its epoch is when it began.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether there was no time yet to hear of a member: it came, or this node started, just now.
    #[must_use]
    pub fn is_new(&self, node: NodeId) -> bool {
        let joined = self
            .door
            .roster()
            .members
            .get(&node)
            .map_or(0, |m| m.joined);
        let patience = self.setup.timing.failure_timeout;
        let since = Duration::from_millis(now_millis().abs_diff(joined));
        since.min(self.began.elapsed()) < patience
    }

    /// Waits until a node is known to be up, or the time is over.
    pub async fn linked_to(&self, node: NodeId, patience: Duration) {
        let mut presence = self.presence.subscribe();
        let up = presence.wait_for(|all| {
            let known = all.get(&node);
            known.is_some_and(|p| p.liveness == Liveness::Up)
        });
        let _ = tokio::time::timeout(patience, up).await;
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.setup.cluster
    }

    /// The door, which knows the members.
    #[must_use]
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// What is replicated.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Who is there, by id; it is not limited to members.
    #[must_use]
    pub fn presence(&self) -> Arc<BTreeMap<NodeId, Presence>> {
        Arc::clone(&self.presence.borrow())
    }

    /// Where this node can be reached.
    #[must_use]
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.transport.addresses()
    }

    /// Says to nodes that are near where this one is to be reached.
    pub fn say(&self, addresses: &[std::net::SocketAddr]) {
        self.transport.say(addresses);
    }

    /// Whether there is a link to a node.
    #[must_use]
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.links().contains_key(&node)
    }

    /// The addresses of this host that peers are linked to, one for each link.
    #[must_use]
    pub fn reached(&self) -> Vec<std::net::IpAddr> {
        let links: Vec<_> = self.links().values().map(|p| Arc::clone(&p.link)).collect();
        links.iter().filter_map(|link| link.local()).collect()
    }

    /// By how many milliseconds a peer's clock was ahead when it last said so; none if it never did.
    #[must_use]
    pub fn skew(&self, node: NodeId) -> Option<i64> {
        self.skews().get(&node).copied()
    }

    /// What was sent so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How many links there are.
    #[must_use]
    pub fn link_count(&self) -> usize {
        self.links().len()
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peered>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skews(&self) -> MutexGuard<'_, BTreeMap<NodeId, i64>> {
        self.skews.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsent(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Bytes>>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Does something with the replica where it may wait for the disk.
    pub(crate) async fn with_replica<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> Option<T> {
        let replica = Arc::clone(&self.replica);
        tokio::task::spawn_blocking(move || f(&replica)).await.ok()
    }

    /// Takes over what others wrote; the stamps of what is durable here now. Whoever waits for it
    /// may give up in the midst of it: it is done to its end all the same, since what is written
    /// must be acted on.
    async fn absorb(self: &Arc<Self>, batch: Batch, from: NodeId) -> Vec<Stamp> {
        let mesh = Arc::clone(self);
        let work = tokio::spawn(async move { mesh.take_over(batch, from).await });
        work.await.unwrap_or_default()
    }

    async fn take_over(&self, batch: Batch, from: NodeId) -> Vec<Stamp> {
        let merged = self.with_replica(move |r| {
            let told: Vec<(Key, Stamp)> =
                batch.records.iter().map(|r| (r.key(), r.stamp)).collect();
            let merged = r.merge(batch, now_millis())?;
            // What was refused before is not named again, but it is not here.
            let here = |(key, stamp): (Key, Stamp)| (r.newest(&key)? >= stamp).then_some(stamp);
            let durable: Vec<Stamp> = told.into_iter().filter_map(here).collect();
            Ok::<_, crate::store::Error>((merged, durable))
        });
        let (merged, durable) = match merged.await {
            Some(Ok(done)) => done,
            Some(Err(e)) => {
                error!("what node {} wrote cannot be kept: {e}", from.short());
                return Vec::new();
            }
            None => return Vec::new(),
        };
        // The replica tells of each but once.
        for (key, refusal) in merged.refused {
            warn!(
                from = from.short(),
                "{} {} is refused: {refusal}", key.kind, key.name
            );
        }
        self.follow(&merged.applied).await;
        if !merged.applied.is_empty() {
            self.tell(Event::Changed(merged.applied.clone()));
            self.forward(&merged.applied, from).await;
        }
        if !merged.lost.is_empty() {
            self.tell_of_lost(&merged.lost).await;
            self.tell(Event::Lost(merged.lost));
        }
        durable
    }

    /// An edit of ours that lost must be in the history everywhere: reconciliation is about what
    /// counts, and would not bring it there.
    async fn tell_of_lost(&self, lost: &[Lost]) {
        let own = lost.iter().filter(|l| l.stamp.node == self.me);
        let own: Vec<Lost> = own.cloned().collect();
        {
            let mut all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(own.iter().cloned());
            let surplus = all.len().saturating_sub(MOST_LOST);
            all.drain(..surplus);
        }
        let records = self.versions(own).await;
        if !records.is_empty() {
            self.push(&records);
        }
    }

    /// The edits of ours that lost so far: peers that were not there have not heard of them.
    async fn lost_so_far(&self) -> Vec<Record> {
        let lost = {
            let all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().cloned().collect()
        };
        self.versions(lost).await
    }

    /// What was lost, as far as it is kept.
    async fn versions(&self, lost: Vec<Lost>) -> Vec<Record> {
        if lost.is_empty() {
            return Vec::new();
        }
        let find = move |replica: &Replica| -> Vec<Record> {
            let versions = lost
                .iter()
                .map(|lost| replica.version(&lost.key, lost.stamp));
            versions.filter_map(|found| found.ok().flatten()).collect()
        };
        self.with_replica(find).await.unwrap_or_default()
    }

    /// Acts on changes of the members.
    pub(crate) async fn follow(&self, changed: &[Key]) {
        if !changed
            .iter()
            .any(|k| k.kind == MEMBER || k.kind == REMOVED)
        {
            return;
        }
        // Of two that read at the same time the one with the older list must not come last.
        let _one = self.following.lock().await;
        let roster = match self.with_replica(Roster::read).await {
            Some(Ok(roster)) => roster,
            Some(Err(e)) => return error!("who the members are cannot be read: {e}"),
            None => return,
        };
        let roster = Arc::new(roster);
        self.door.set_roster(Arc::clone(&roster));
        let strangers: Vec<(NodeId, Arc<dyn Link>)> = {
            let links = self.links();
            let all = links.iter().map(|(id, p)| (*id, Arc::clone(&p.link)));
            all.filter(|(id, _)| !roster.members.contains_key(id))
                .collect()
        };
        for (id, link) in strangers {
            let removed = roster.removed.contains(&id);
            link.close(if removed { Why::Removed } else { Why::Stranger });
            self.sign(detect::Sign::Left(id));
        }
        self.reports()
            .retain(|id, _| roster.members.contains_key(id));
        self.unsent()
            .retain(|id, _| roster.members.contains_key(id));
        self.lines().retain(|id, _| roster.members.contains_key(id));
        self.tell(Event::Roster);
        if roster.removed.contains(&self.me) {
            self.tell(Event::Expelled);
        }
        self.dial.notify_one();
    }

    fn sign(&self, sign: detect::Sign) {
        // It ends only with the mesh.
        let _ = self.detector.send(sign);
    }

    /// A datagram of the failure detector.
    fn datagram(&self, to: NodeId, datagram: Bytes) {
        use std::sync::atomic::Ordering;
        let links = self.links();
        if let Some(peered) = links.get(&to) {
            let bytes = datagram.len() as u64;
            self.traffic.sent.fetch_add(bytes, Ordering::Relaxed);
            peered.link.send(datagram);
        } else {
            // In the meantime it must not be taken for dead because it was not asked.
            let mut unsent = self.unsent();
            let waiting = unsent.entry(to).or_default();
            if waiting.len() < UNSENT {
                waiting.push(datagram);
            }
            drop((unsent, links));
            self.want(to);
        }
    }

    fn is_large(&self) -> bool {
        self.door.roster().members.len() > self.setup.full_mesh
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<NodeId, wire::Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest report of a node.
    #[must_use]
    pub fn report(&self, node: NodeId) -> Option<Vec<u8>> {
        self.reports().get(&node).map(|r| r.body.clone())
    }

    /// Writes an object, on the disk of this node and to all others; to its end, even if whoever
    /// waits for it gives up.
    ///
    /// # Errors
    /// It cannot be written, or may not be as it is.
    pub async fn put(
        self: &Arc<Self>,
        key: Key,
        value: Option<serde_json::Value>,
        note: &str,
    ) -> Result<Record, crate::store::Error> {
        let (mesh, note) = (Arc::clone(self), note.to_owned());
        let work = tokio::spawn(async move {
            let record = write(Arc::clone(&mesh.replica), key, value, note).await?;
            mesh.follow(&[record.key()]).await;
            mesh.push(std::slice::from_ref(&record));
            Ok(record)
        });
        work.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Writes an object on the disk of this node.
pub(crate) async fn write(
    replica: Arc<Replica>,
    key: Key,
    value: Option<serde_json::Value>,
    note: String,
) -> Result<Record, crate::store::Error> {
    let written = tokio::task::spawn_blocking(move || {
        replica.put(
            (&key.kind, &key.name),
            value,
            (&note, now_millis()),
            crate::Options::default(),
            None,
        )
    });
    written.await.unwrap_or_else(|_| Err(ended()))
}

fn ended() -> crate::store::Error {
    crate::store::Error::Damaged("the writer ended".to_owned())
}
