//! The cluster as an agent has it: one node, or many.
//!
//! Until a token is made or used here nothing listens, and everything works for this node alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::bridges::Bridges;
use crate::id::NodeId;
use crate::identity::{Identity, IdentityError};
use crate::join::{self, JoinError};
use crate::mesh::{self, Event, Mesh, OpenError, Services, Setup, now_millis};
use crate::replica::{Key, Record, Replica};
use crate::roster::{Door, MEMBER, Member, REMOVED};
use crate::store;
use crate::swim::{Liveness, Timing};
use crate::token::Token;
use crate::transport::{BindError, Listen, QuicTransport, Stream, Transport, own_addresses};
use crate::wire::{ClusterId, JoinRequest, VERSION};

/// Where the store remembers which cluster the node is of.
const CLUSTER: &str = "cluster";
/// How long a node that has joined waits for its first link.
const LINKED: Duration = Duration::from_secs(3);
/// How long is waited for the address to listen at.
const FREED: Duration = Duration::from_secs(6);
/// How often members' own addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(20);
/// How often expired deletions are let go.
const COLLECT: Duration = Duration::from_secs(3_600);

/// How the node takes part.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Directory of the key.
    pub dir: PathBuf,
    /// The node's name, as long as it is in no cluster.
    pub name: String,
    /// Where to listen for other nodes, UDP.
    pub listen: SocketAddr,
    /// Where others can reach it; found out if empty.
    pub advertise: Vec<SocketAddr>,
    /// Whether nodes on the same LAN are looked for by multicast.
    pub discover: bool,
    /// Patience.
    pub timing: Timing,
    /// Version of the program, for people.
    pub software: String,
}

/// What the node remembers of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Belongs {
    id: ClusterId,
    /// It was removed: it takes part no more.
    #[serde(default)]
    expelled: bool,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers.
    Up,
    /// It has not answered just now.
    Suspect,
    /// It does not answer.
    Down,
}

/// A node, as this one sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Name, addresses, labels.
    pub member: Member,
    /// Whether it is this one.
    pub me: bool,
    /// Whether it is there.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// By how many milliseconds its clock is ahead of the one here, as far as is known.
    pub skew: Option<i64>,
}

/// Where a node is, as far as it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// All addresses of its host but the loopback's.
    pub here: Vec<IpAddr>,
    /// Those at which others may reach it.
    pub open: Vec<IpAddr>,
    /// Where others are told to look for it, if that is set.
    pub advertised: Vec<IpAddr>,
    /// Those that others are linked to now, one for each link.
    pub reached: Vec<IpAddr>,
}

/// Something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address to listen at.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Joining.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It makes no sense as things are.
    #[error("{0}")]
    Refused(String),
}

/// The cluster as an agent has it.
pub struct Cluster {
    config: Config,
    identity: RwLock<Identity>,
    replica: Arc<Replica>,
    services: Arc<dyn Services>,
    /// None as long as the node is in no cluster.
    running: RwLock<Option<Arc<Mesh>>>,
    events: broadcast::Sender<Event>,
    /// What this node says of itself, also while it is alone.
    own: Mutex<Option<Vec<u8>>>,
    /// Addresses of this host that are not told to others.
    hidden: Mutex<BTreeSet<IpAddr>>,
    began: u64,
    /// It was removed from its cluster, and is in none since.
    expelled: AtomicBool,
    /// One at a time joins, founds or leaves.
    changing: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// Begins: with the cluster that the node is of, if it is of one. Must be called in a runtime.
    ///
    /// # Errors
    /// The key, the store or the address cannot be used.
    pub async fn open(
        config: Config,
        replica: Arc<Replica>,
        services: Arc<dyn Services>,
    ) -> Result<Arc<Self>, ClusterError> {
        let identity = Identity::load_or_make(&config.dir)?;
        replica.set_me(identity.id())?;
        let cluster = Arc::new(Self {
            config,
            identity: RwLock::new(identity),
            replica,
            services,
            running: RwLock::default(),
            events: broadcast::channel(1024).0,
            own: Mutex::default(),
            hidden: Mutex::default(),
            began: now_millis(),
            expelled: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
        });
        if let Some(belongs) = cluster.belongs()? {
            if belongs.expelled {
                cluster.expelled.store(true, Ordering::SeqCst);
                warn!("this node was removed from its cluster: it goes on alone");
            } else {
                cluster.start(belongs.id).await?;
            }
        }
        Ok(cluster)
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.identity().id()
    }

    /// Whether it was removed from its cluster, and is in none since.
    #[must_use]
    pub fn is_expelled(&self) -> bool {
        self.expelled.load(Ordering::SeqCst)
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

    /// The mesh, if the node is among others.
    #[must_use]
    pub fn mesh(&self) -> Option<Arc<Mesh>> {
        let running = self.running.read();
        let running = running.unwrap_or_else(PoisonError::into_inner);
        running.clone()
    }

    fn belongs(&self) -> Result<Option<Belongs>, store::Error> {
        let bytes = self.replica.store().local(CLUSTER)?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    fn remember(&self, belongs: &Belongs) -> Result<(), store::Error> {
        let bytes = serde_json::to_vec(belongs).unwrap_or_default();
        self.replica.store().set_local(CLUSTER, Some(&bytes))
    }

    async fn bind(
        &self,
        door: &Arc<Door>,
        identity: &Identity,
    ) -> Result<Arc<QuicTransport>, BindError> {
        let listen = Listen {
            address: self.config.listen,
            silence: self.config.timing.silence(),
            discover: self.config.discover,
        };
        let deadline = tokio::time::Instant::now() + FREED;
        loop {
            let bound = QuicTransport::bind(identity.secret(), &listen, door.gate()).await;
            match bound {
                // It may be this node's own, which was given up just now.
                Err(BindError::InUse(_)) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                bound => return Ok(Arc::new(bound?)),
            }
        }
    }

    fn identity(&self) -> Identity {
        let identity = self.identity.read();
        identity.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn start(self: &Arc<Self>, id: ClusterId) -> Result<Arc<Mesh>, ClusterError> {
        let door = Arc::new(Door::default());
        let transport = self.bind(&door, &self.identity()).await?;
        self.run(id, transport, door)
    }

    fn run(
        self: &Arc<Self>,
        id: ClusterId,
        transport: Arc<dyn Transport>,
        door: Arc<Door>,
    ) -> Result<Arc<Mesh>, ClusterError> {
        door.set_joining(join::any_open(&self.replica, now_millis())?);
        let setup = Setup {
            cluster: id,
            software: self.config.software.clone(),
            timing: self.config.timing,
            ..Setup::default()
        };
        let (replica, services) = (Arc::clone(&self.replica), Arc::clone(&self.services));
        let mesh = Mesh::start(setup, replica, transport, services, door)?;
        if let Some(own) = &*self.own.lock().unwrap_or_else(PoisonError::into_inner) {
            mesh.publish(own.clone());
        }
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&mesh));
        tokio::spawn(Arc::clone(self).attend(Arc::clone(&mesh)));
        info!(node = mesh.me().short(), cluster = %id, "taking part in the cluster");
        Ok(mesh)
    }

    /// Hands on what happens, and does what is due now and then, as long as the mesh runs.
    async fn attend(self: Arc<Self>, mesh: Arc<Mesh>) {
        let mut events = mesh.events();
        let mut addresses = tokio::time::interval(ADDRESSES);
        let mut collect = tokio::time::interval(COLLECT);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Expelled) => return self.expelled(&mesh).await,
                    Ok(event) => drop(self.events.send(event)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // The event that it was removed may be among those that were missed.
                        if mesh.door().roster().removed.contains(&mesh.me()) {
                            return self.expelled(&mesh).await;
                        }
                        let _ = self.events.send(Event::Missed);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = mesh.stopped() => return,
                _ = addresses.tick() => {
                    self.tell_addresses(&mesh).await;
                    self.close_door(&mesh).await;
                }
                _ = collect.tick() => {
                    let done = mesh.with_replica(|r| r.collect(now_millis())).await;
                    if let Some(Err(e)) = done {
                        warn!("what was deleted long ago cannot be forgotten: {e}");
                    }
                }
            }
        }
    }

    /// The door is shut for strangers once there is no token any more.
    async fn close_door(&self, mesh: &Mesh) {
        // A token that is being made opens it.
        let _one = self.changing.lock().await;
        let open = mesh.with_replica(|r| join::any_open(r, now_millis())).await;
        if let Some(Ok(open)) = open {
            mesh.door().set_joining(open);
        }
    }

    /// Others must know where this node is.
    async fn tell_addresses(&self, mesh: &Arc<Mesh>) {
        let here = mesh.addresses();
        let mut addresses = self.addresses(here.clone());
        mesh.say(&addresses);
        let roster = mesh.door().roster();
        let Some(member) = roster.members.get(&self.me()) else {
            return;
        };
        // Where others saw it, as long as it is still there.
        let told = !self.config.advertise.is_empty();
        let seen = member.addresses.iter();
        let seen = seen.filter(|a| !told && !addresses.contains(a) && here.contains(a));
        let seen = self.addresses(seen.copied().collect());
        addresses.extend(seen);
        let (mut old, mut new) = (member.addresses.clone(), addresses.clone());
        old.sort();
        new.sort();
        if old == new || addresses.is_empty() {
            return;
        }
        let member = Member {
            addresses,
            ..member.clone()
        };
        let key = Key::new(MEMBER, self.me().to_string());
        let value = serde_json::to_value(&member).unwrap_or_default();
        if let Err(e) = mesh.put(key, Some(value), "addresses").await {
            warn!("others cannot be told where this node is: {e}");
        }
    }

    /// Where this node is to be reached: as it is told, or as it looks.
    fn addresses(&self, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.clone();
        }
        self.found_here(found)
    }

    /// Those that others can reach of what was found.
    fn found_here(&self, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let bridges = Bridges::now();
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .into_iter()
            .filter(|a| is_reachable(a.ip()) && !bridges.have(a.ip()))
            .filter(|a| !hidden.contains(&a.ip()))
            .take(8)
            .collect()
    }

    /// Addresses that this host may have, and that are not where it is to be reached: they come and go.
    pub fn hide(&self, addresses: BTreeSet<IpAddr>) {
        *self.hidden.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// What is known of this node's place among others; none while it is alone. The kernel may have
    /// whoever asks wait.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let mesh = self.mesh()?;
        let here = own_addresses();
        let open = self.found_here(mesh.addresses());
        let open = open.iter().map(SocketAddr::ip);
        Some(Place {
            open: open.filter(|a| here.contains(a)).collect(),
            advertised: self.config.advertise.iter().map(SocketAddr::ip).collect(),
            reached: mesh.reached(),
            here,
        })
    }

    async fn expelled(&self, mesh: &Mesh) {
        // Before it is alone.
        self.expelled.store(true, Ordering::SeqCst);
        warn!("this node was removed from the cluster: it goes on alone");
        let belongs = Belongs {
            id: mesh.cluster(),
            expelled: true,
        };
        if let Err(e) = self.remember(&belongs) {
            warn!("{e}");
        }
        self.end(mesh).await;
        let _ = self.events.send(Event::Expelled);
    }

    /// Makes a token that lets one node in, for so long. The first one founds the cluster.
    ///
    /// # Errors
    /// The address to listen at, or the store, cannot be used.
    pub async fn token(self: &Arc<Self>, ttl: Duration) -> Result<Token, ClusterError> {
        let _one = self.changing.lock().await;
        let mesh = match self.mesh() {
            Some(mesh) => mesh,
            None => self.found().await?,
        };
        let token = Token {
            issuer: self.me(),
            addresses: self.addresses(mesh.addresses()),
            secret: rand::rng().random(),
            expires: now_millis() / 1000 + ttl.as_secs(),
        };
        let remembered = token.clone();
        let done = mesh.with_replica(move |r| join::remember(r, &remembered, now_millis()));
        done.await.unwrap_or(Ok(()))?;
        mesh.door().set_joining(true);
        Ok(token)
    }

    /// Makes a cluster of this node.
    async fn found(self: &Arc<Self>) -> Result<Arc<Mesh>, ClusterError> {
        if self.belongs()?.is_some_and(|b| b.expelled) {
            return Err(ClusterError::Refused(
                "this node was removed from its cluster: `wharfie join` with a token of another node lets it in again"
                    .to_owned(),
            ));
        }
        let id = ClusterId(rand::rng().random());
        let door = Arc::new(Door::default());
        // The address first: if it is not to be had, nothing is founded.
        let transport = self.bind(&door, &self.identity()).await?;
        let member = Member {
            name: self.config.name.clone(),
            addresses: self.addresses(transport.addresses()),
            labels: BTreeMap::new(),
            joined: now_millis(),
        };
        // What an attempt to join left behind: nobody is taken over from there.
        self.replica.forget(&[MEMBER, REMOVED])?;
        self.write_member(&member)?;
        self.remember(&Belongs {
            id,
            expelled: false,
        })?;
        self.run(id, transport, door)
    }

    fn write_member(&self, member: &Member) -> Result<Record, store::Error> {
        self.replica.put(
            (MEMBER, &self.me().to_string()),
            serde_json::to_value(member).ok(),
            ("found", now_millis()),
            crate::Options::default(),
            None,
        )
    }

    /// Joins a cluster with a token; with `new_key` as a node that was never seen before. It is
    /// brought to its end even if whoever waits for it gives up.
    ///
    /// # Errors
    /// It is not let in; then nothing has changed.
    pub async fn join(
        self: &Arc<Self>,
        token: &Token,
        name: Option<String>,
        new_key: bool,
    ) -> Result<(), ClusterError> {
        let (this, token) = (Arc::clone(self), token.clone());
        let work = tokio::spawn(async move {
            let _one = this.changing.lock().await;
            this.may_join(&token)?;
            // A cluster that this node founded has no other members: it is given up.
            let own = this.mesh().map(|mesh| mesh.cluster());
            if let Some(mesh) = this.mesh() {
                this.end(&mesh).await;
            }
            let joined = this.join_with(&token, name, new_key).await;
            if let (Err(_), Some(own)) = (&joined, own)
                && this.mesh().is_none()
                && this.belongs()?.is_some_and(|b| b.id == own)
                && let Err(e) = this.start(own).await
            {
                warn!("the cluster of this node cannot be taken up again: {e}");
            }
            joined
        });
        let ended = |e| ClusterError::Refused(format!("joining was given up: {e}"));
        work.await.unwrap_or_else(|e| Err(ended(e)))
    }

    /// The node takes part no more.
    async fn end(&self, mesh: &Mesh) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = None;
        mesh.stop().await;
    }

    fn may_join(&self, token: &Token) -> Result<(), ClusterError> {
        let belongs = self.belongs()?;
        let alone = self
            .mesh()
            .is_none_or(|m| m.door().roster().members.len() <= 1);
        if belongs.as_ref().is_some_and(|b| !b.expelled) && !alone {
            let mesh = self.mesh();
            let own = mesh.is_some_and(|m| m.door().roster().members.contains_key(&token.issuer));
            if own {
                return Err(ClusterError::Refused(
                    "this node is in the cluster of this token already: use the token on the node that is to join"
                        .to_owned(),
                ));
            }
            return Err(ClusterError::Refused(
                "this node is in a cluster already, and two clusters do not merge: remove it there first (`wharfie node rm`), or join the other's nodes one by one"
                    .to_owned(),
            ));
        }
        if token.issuer == self.me() {
            return Err(ClusterError::Refused(
                "this token was made here: use it on the node that is to join".to_owned(),
            ));
        }
        let now = now_millis() / 1000;
        if token.expires <= now {
            let ago = now - token.expires;
            return Err(ClusterError::Refused(format!(
                "the token expired {ago} s ago by the clock of this node: make a new one with `wharfie token`, and check the clock"
            )));
        }
        Ok(())
    }

    async fn join_with(
        self: &Arc<Self>,
        token: &Token,
        name: Option<String>,
        new_key: bool,
    ) -> Result<(), ClusterError> {
        let dir = &self.config.dir;
        let expelled = self.belongs()?.is_some_and(|b| b.expelled);
        let fresh = new_key || expelled || Identity::has_next(dir);
        let identity = if fresh {
            Identity::next(dir)?
        } else {
            self.identity()
        };
        let door = Arc::new(Door::default());
        let transport = self.bind(&door, &identity).await?;
        let (brings, leaves) = self.brings(expelled)?;
        let request = JoinRequest {
            version: VERSION,
            software: self.config.software.clone(),
            secret: token.secret,
            name: name.unwrap_or_else(|| self.config.name.clone()),
            port: self.config.listen.port(),
            addresses: self.addresses(transport.addresses()),
            time: now_millis(),
            brings: brings.iter().map(|r| (r.key(), r.stamp)).collect(),
        };
        let mut asked = join::ask(&*transport, token, &request).await;
        if matches!(asked, Err(JoinError::Broken(..))) {
            // A busy machine may have been silent for too long: the token is good for this node still.
            asked = join::ask(&*transport, token, &request).await;
        }
        let (id, records) = match asked {
            Ok(welcome) => welcome,
            Err(e) => {
                transport.close().await;
                // Only if the answer got lost it may have been let in, and must come back as it is.
                if fresh && !matches!(e, JoinError::Broken(..)) {
                    Identity::drop_next(dir);
                }
                return Err(e.into());
            }
        };
        // If this ends in the midst of it, the node is in no cluster, and the same token lets it in
        // once more.
        self.replica.store().set_local(CLUSTER, None)?;
        if fresh {
            Identity::renew(dir)?;
            self.replica.set_me(identity.id())?;
            let mut own = self.identity.write();
            *own.as_deref_mut()
                .unwrap_or_else(|poisoned| poisoned.get_mut()) = identity;
        }
        // What was deleted is forgotten at once: nothing of it concerns the others.
        for key in leaves {
            let note = ("left behind", now_millis());
            let options = crate::Options::default();
            let id = (key.kind.as_str(), key.name.as_str());
            self.replica.put(id, None, note, options, None)?;
        }
        self.replica.forget(&[MEMBER, REMOVED])?;
        join::forget_tokens(&self.replica)?;
        let merged = self.replica.merge(records, now_millis())?;
        for (key, refusal) in merged.refused {
            warn!("{} {} is refused: {refusal}", key.kind, key.name);
        }
        self.remember(&Belongs {
            id,
            expelled: false,
        })?;
        self.expelled.store(false, Ordering::SeqCst);
        let mesh = self.run(id, transport, door)?;
        // As if it were written now: what others once deleted under these names does not count.
        for record in brings {
            mesh.put(record.key(), record.value, "join").await?;
        }
        let _ = self.events.send(Event::Roster);
        mesh.linked_to(token.issuer, LINKED).await;
        mesh.compare_with(token.issuer, LINKED).await;
        Ok(())
    }

    /// What this node has of its own, and what it has of a cluster that it was of.
    fn brings(&self, expelled: bool) -> Result<(Vec<Record>, Vec<Key>), store::Error> {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let all = self.replica.keys().into_iter();
        for key in all.filter(|k| k.kind != MEMBER && k.kind != REMOVED) {
            let Some(record) = self.replica.get(&key.kind, &key.name)? else {
                continue;
            };
            if expelled && !self.services.is_own(self.me(), &record) {
                others.push(key);
            } else {
                own.push(record);
            }
        }
        Ok((own, others))
    }

    /// What another node says of itself.
    #[must_use]
    pub fn report(&self, node: NodeId) -> Option<Vec<u8>> {
        self.mesh()?.report(node)
    }

    /// All members, this node first.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let Some(mesh) = self.mesh() else {
            return vec![Node {
                id: self.me(),
                member: Member {
                    name: self.config.name.clone(),
                    ..Member::default()
                },
                me: true,
                state: State::Up,
                since: self.began,
                skew: None,
            }];
        };
        let roster = mesh.door().roster();
        let presence = mesh.presence();
        let mut nodes: Vec<Node> = roster
            .members
            .iter()
            .map(|(id, member)| {
                let me = *id == self.me();
                let known = presence.get(id);
                let state = match known.map(|p| p.liveness) {
                    _ if me => State::Up,
                    Some(Liveness::Up) => State::Up,
                    Some(Liveness::Suspect) => State::Suspect,
                    // Others say so who do not reach it, or did not a moment ago; this one does.
                    Some(Liveness::Down) if mesh.is_linked(*id) => State::Suspect,
                    // There was no time yet to hear of it.
                    None if mesh.is_new(*id) => State::Suspect,
                    Some(Liveness::Down) | None => State::Down,
                };
                Node {
                    id: *id,
                    member: member.clone(),
                    me,
                    state,
                    since: known.map_or(self.began, |p| p.since),
                    skew: mesh.skew(*id),
                }
            })
            .collect();
        nodes.sort_by(|a, b| (!a.me, &a.member.name).cmp(&(!b.me, &b.member.name)));
        nodes
    }

    /// Opens a stream to a service of another node.
    ///
    /// # Errors
    /// The node cannot be reached within three seconds, or refuses.
    pub async fn stream(&self, node: NodeId, service: &str) -> Result<Stream, OpenError> {
        match self.mesh() {
            Some(mesh) => mesh.open(node, service).await,
            None => Err(OpenError::Refused("this node is in no cluster".to_owned())),
        }
    }

    /// What this node says of itself from now on.
    pub fn publish(&self, body: Vec<u8>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(body.clone());
        match self.mesh() {
            Some(mesh) => mesh.publish(body),
            None => drop(self.events.send(Event::Report(self.me()))),
        }
    }

    /// Others are told of what was written here; on how many nodes it is durable when that many are
    /// wanted, or the time is over.
    pub async fn replicate(&self, records: &[Record], wanted: usize, patience: Duration) -> usize {
        match self.mesh() {
            Some(mesh) => mesh.replicate(records, wanted, patience).await,
            None => 1,
        }
    }

    /// Writes an object here and tells all others.
    ///
    /// # Errors
    /// It cannot be written, or may not be as it is.
    pub async fn put(
        &self,
        key: Key,
        value: Option<serde_json::Value>,
        note: &str,
    ) -> Result<Record, store::Error> {
        if let Some(mesh) = self.mesh() {
            return mesh.put(key, value, note).await;
        }
        mesh::write(Arc::clone(&self.replica), key, value, note.to_owned()).await
    }

    /// Changes a member's labels; none as a value removes one.
    ///
    /// # Errors
    /// There is no such member, or the store cannot be written.
    pub async fn label(
        &self,
        node: NodeId,
        labels: BTreeMap<String, Option<String>>,
    ) -> Result<(), ClusterError> {
        let Some(mesh) = self.mesh() else {
            return Err(ClusterError::Refused(
                "this node is in no cluster: `wharfie token` makes one".to_owned(),
            ));
        };
        let roster = mesh.door().roster();
        let Some(member) = roster.members.get(&node) else {
            return Err(ClusterError::Refused("there is no such node".to_owned()));
        };
        let mut member = member.clone();
        for (key, value) in labels {
            match value {
                Some(value) => drop(member.labels.insert(key, value)),
                None => drop(member.labels.remove(&key)),
            }
        }
        let key = Key::new(MEMBER, node.to_string());
        mesh.put(key, serde_json::to_value(&member).ok(), "node label")
            .await?;
        Ok(())
    }

    /// Removes a member: it is cut off at once, everywhere, and its key is not let in again.
    ///
    /// # Errors
    /// There is no such member, or it is this node, or the store cannot be written.
    pub async fn remove(&self, node: NodeId) -> Result<(), ClusterError> {
        let unknown = || ClusterError::Refused("there is no such node".to_owned());
        let mesh = self.mesh().ok_or_else(unknown)?;
        let roster = mesh.door().roster();
        let member = roster.members.get(&node).ok_or_else(unknown)?;
        if node == self.me() {
            return Err(ClusterError::Refused(
                "a node does not remove itself: do it on another one".to_owned(),
            ));
        }
        let value = serde_json::json!({ "name": member.name, "time": now_millis() });
        mesh.put(Key::new(REMOVED, node.to_string()), Some(value), "node rm")
            .await?;
        mesh.put(Key::new(MEMBER, node.to_string()), None, "node rm")
            .await?;
        Ok(())
    }

    /// Leaves the others in peace: the agent ends.
    pub async fn stop(&self) {
        if let Some(mesh) = self.mesh() {
            self.end(&mesh).await;
        }
    }
}

/// Whether an address of this machine may be of use to others.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_link_local(),
        // fe80::/10 needs an interface, which means nothing elsewhere.
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}
