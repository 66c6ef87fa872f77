//! Links to peers: what becomes of each, from its handshake to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{debug, info, warn};

use super::detect::Sign;
use super::held::Held;
use super::{Event, Mesh, Peered, now_millis, sync};
use crate::id::NodeId;
use crate::join;
use crate::replica::Replica;
use crate::roster::{MEMBER, REMOVED};
use crate::swim::Liveness;
use crate::transport::{Ended, Link, Purpose, Stream, Unreachable, Why};
use crate::wire::{self, Durable, Hello, Lives, Opened, Opening, Records, Report, WireError};

/// Service on which peers greet each other and tell what changes.
pub(super) const PUSH: &str = "push";
/// Service on which two nodes compare what they have.
pub(super) const SYNC: &str = "sync";
/// Frames that wait for a peer at most; if there are more, what they said is repaired later.
const OUTBOX: usize = 1_024;
/// How long a peer may take to say what a new stream is for.
const OPENING: Duration = Duration::from_secs(10);
/// Strangers who are listened to at a time.
const STRANGERS: usize = 16;
/// Pause before a peer is greeted once more.
const AGAIN: Duration = Duration::from_secs(1);
/// So often is looked, with pauses of [`AGAIN`], whether anything is still under way on a link that
/// another has taken the place of.
const RETIRES: u32 = 60;
/// How long is tried to reach a node to which there is no link.
const REACH: Duration = Duration::from_secs(3);
/// Pause before another link is looked for.
const SOON: Duration = Duration::from_millis(20);
/// How often another link is looked for.
const ATTEMPTS: usize = 5;
/// Clocks that differ by more are complained of. In milliseconds.
const SKEW: i64 = 60_000;

/// Why a service of another node is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The node cannot be reached.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The node is there, and refuses.
    #[error("{0}")]
    Refused(String),
}

/// Takes the links that peers make.
pub(super) async fn welcome(mesh: Arc<Mesh>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    while let Some(link) = mesh.transport.accept().await {
        match link.purpose() {
            Purpose::Member => adopt(&mesh, link),
            Purpose::Join => {
                let Ok(place) = Arc::clone(&strangers).try_acquire_owned() else {
                    link.close(Why::Spare);
                    continue;
                };
                let mesh = Arc::clone(&mesh);
                tokio::spawn(async move {
                    join::answer(&mesh, &*link).await;
                    drop(place);
                });
            }
        }
    }
}

/// Puts a link to use. Of two to the same peer one stays, the same on both sides.
pub(super) fn adopt(mesh: &Arc<Mesh>, link: Arc<dyn Link>) {
    let peer = link.peer();
    let (outbox, frames) = mpsc::channel(OUTBOX);
    let greeted = Arc::new(watch::Sender::new(false));
    {
        let dialler = |link: &dyn Link| if link.outgoing() { mesh.me } else { peer };
        let mut links = mesh.links();
        if let Some(other) = links.get(&peer).filter(|p| p.link.has_ended().is_none()) {
            let (old, new) = (dialler(&*other.link), dialler(&*link));
            // A second call of the same node is one after its restart: the first is dead.
            if old != new && old == mesh.me.min(peer) {
                link.close(Why::Spare);
                return;
            }
            match old == new {
                true => other.link.close(Why::Spare),
                // Both called at once, maybe some time ago: what is under way on the other one ends first.
                false => {
                    let retire = retire(Arc::clone(mesh), other);
                    tokio::spawn(Arc::clone(mesh).until_over(retire));
                }
            }
        }
        let peered = Peered {
            link: Arc::clone(&link),
            outbox,
            used: Instant::now(),
            streams: Arc::default(),
            greeted: greeted.subscribe(),
        };
        links.insert(peer, peered);
        // It may have been removed since it was let in: whoever does that looks at the links later.
        if !mesh.door.roster().members.contains_key(&peer) {
            links.remove(&peer);
            link.close(Why::Stranger);
            return;
        }
        for datagram in mesh.unsent().remove(&peer).unwrap_or_default() {
            link.send(datagram);
        }
    }
    debug!(peer = peer.short(), "linked");
    let of = Carrier {
        mesh: Arc::clone(mesh),
        link,
        greeted,
    };
    let work = serve(of, frames);
    tokio::spawn(Arc::clone(mesh).until_over(work));
}

/// Closes a link that another has taken the place of, once nothing is under way on it.
fn retire(mesh: Arc<Mesh>, of: &Peered) -> impl Future<Output = ()> + use<> {
    let (link, streams) = (Arc::clone(&of.link), Arc::clone(&of.streams));
    async move {
        for _ in 0..RETIRES {
            // The peer takes the other one into use as well.
            tokio::time::sleep(AGAIN).await;
            let member = mesh.door.roster().members.contains_key(&link.peer());
            if Arc::strong_count(&streams) == 1 || !member || link.has_ended().is_some() {
                break;
            }
        }
        link.close(Why::Spare);
    }
}

/// What the work on a link needs.
#[derive(Clone)]
struct Carrier {
    mesh: Arc<Mesh>,
    link: Arc<dyn Link>,
    greeted: Arc<watch::Sender<bool>>,
}

/// Everything that a link carries, until it ends.
async fn serve(of: Carrier, mut frames: mpsc::Receiver<Arc<Vec<u8>>>) {
    let (mesh, link) = (Arc::clone(&of.mesh), Arc::clone(&of.link));
    let peer = link.peer();
    let streams = async {
        while let Ok(stream) = link.accept().await {
            tokio::spawn(Arc::clone(&mesh).until_over(take(of.clone(), stream)));
        }
    };
    let datagrams = async {
        of.known().await;
        while let Ok(datagram) = link.receive().await {
            mesh.sign(Sign::Datagram(datagram));
        }
    };
    let push = async {
        loop {
            if let Err(e) = push(&mesh, &*link, &mut frames).await {
                debug!(peer = peer.short(), "cannot tell what changes: {e}");
            }
            if frames.is_closed() {
                // Another link took its place.
                std::future::pending::<()>().await;
            }
            // A link that stands but tells nothing would stay so.
            tokio::time::sleep(AGAIN).await;
        }
    };
    let ended = tokio::select! {
        ended = link.ended() => ended,
        // The same end, seen from another side: one that was closed is not lost.
        ((), ()) = async { tokio::join!(streams, datagrams) } => link.has_ended().unwrap_or(Ended::Lost),
        () = push => Ended::Lost,
    };
    let current = {
        let mut links = mesh.links();
        let is_current = links
            .get(&peer)
            .is_some_and(|p| Arc::ptr_eq(&p.link, &link));
        if is_current {
            links.remove(&peer);
        }
        is_current
    };
    if !current {
        return;
    }
    debug!(peer = peer.short(), ?ended, "link ended");
    let known = mesh.presence().get(&peer).map(|p| p.liveness);
    if known == Some(Liveness::Down) {
        // As long as the link stood it was not taken for down here (`Cluster::nodes`), and the
        // detector has nothing new to say of it.
        mesh.tell(Event::Liveness);
    }
    match ended {
        Ended::ByPeer(Why::Leaving) => mesh.sign(Sign::Left(peer)),
        Ended::ByPeer(Why::Removed) => {
            warn!(
                peer = peer.short(),
                "this node was removed from the cluster"
            );
            mesh.tell(Event::Expelled);
        }
        // It is no failure: nobody needed it, or there is another.
        Ended::ByPeer(Why::Spare) | Ended::Here => {}
        Ended::ByPeer(Why::Stranger | Why::Protocol) | Ended::Lost => {
            mesh.sign(Sign::Lost(peer));
        }
    }
    mesh.dial.notify_one();
}

impl Carrier {
    /// Waits until the peer has said that it is of this cluster.
    async fn known(&self) {
        let mut greeted = self.greeted.subscribe();
        // The sender is held here.
        let _ = greeted.wait_for(|greeted| *greeted).await;
    }
}

/// A stream that the peer opened.
async fn take(of: Carrier, mut stream: Stream) {
    let peer = of.link.peer();
    let opening = tokio::time::timeout(OPENING, wire::expect::<Opening>(&mut stream)).await;
    let Ok(Ok(Opening { service })) = opening else {
        return;
    };
    // A key may be a member of two clusters: who does not say which it means gets nothing.
    if service != PUSH {
        tokio::select! {
            () = of.known() => {}
            _ = of.link.ended() => return,
        }
    }
    let mesh = &of.mesh;
    mesh.use_link(peer);
    let _held = (service != PUSH).then(|| mesh.hold(&of.link));
    let outcome = match service.as_str() {
        PUSH => listen(&of, stream).await,
        SYNC => sync::answer(mesh, peer, stream).await,
        _ => {
            mesh.services.serve(peer, service, stream).await;
            Ok(())
        }
    };
    if let Err(e) = outcome {
        debug!(peer = peer.short(), "a stream ended: {e}");
    }
}

/// Greets the peer, and tells it everything that changes from now on.
async fn push(
    mesh: &Arc<Mesh>,
    link: &dyn Link,
    frames: &mut mpsc::Receiver<Arc<Vec<u8>>>,
) -> Result<(), WireError> {
    let lost = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let mut stream = link.open().await.map_err(lost)?;
    let service = PUSH.to_owned();
    wire::send(&mut stream, &Opening { service }).await?;
    // In a large cluster it would be much for each of many links: the comparison tells it if need be.
    let known = match mesh.is_large() {
        true => Vec::new(),
        false => mesh.known().await,
    };
    let hello = Hello {
        version: wire::VERSION,
        software: mesh.setup.software.clone(),
        cluster: mesh.setup.cluster,
        life: mesh.life,
        time: now_millis(),
        stale: mesh.with_replica(|r| r.is_stale(now_millis())).await == Some(true),
        known,
    };
    wire::send(&mut stream, &hello).await?;
    for record in mesh.lost_so_far().await {
        let records = Records(crate::replica::encode(std::slice::from_ref(&record)));
        wire::send(&mut stream, &records).await?;
    }
    let peer = link.peer();
    let (mut read, mut write) = tokio::io::split(stream);
    let tell = async {
        while let Some(frame) = frames.recv().await {
            mesh.traffic
                .sent
                .fetch_add(frame.len() as u64, Ordering::Relaxed);
            write.write_all(&frame).await?;
            if frames.is_empty() {
                write.flush().await?;
            }
        }
        Ok::<(), WireError>(())
    };
    let hear = async {
        loop {
            let Durable(stamps) = wire::expect(&mut read).await?;
            mesh.acknowledge(peer, &stamps);
        }
    };
    tokio::select! {
        done = tell => done,
        failed = hear => failed,
    }
}

/// Hears the peer's greeting, and everything that changes from now on.
async fn listen(of: &Carrier, stream: Stream) -> Result<(), WireError> {
    let (mesh, link) = (&of.mesh, &of.link);
    let peer = link.peer();
    let (mut read, mut write): (ReadHalf<Stream>, WriteHalf<Stream>) = tokio::io::split(stream);
    let hello: Hello = wire::expect(&mut read).await?;
    if hello.cluster != mesh.setup.cluster {
        warn!(
            peer = peer.short(),
            "it is of another cluster ({}): nothing is taken from it", hello.cluster
        );
        link.close(Why::Stranger);
        return Ok(());
    }
    if hello.life.node != peer {
        warn!(peer = peer.short(), "it says that it is another node");
        link.close(Why::Protocol);
        return Ok(());
    }
    let ours = i128::from(now_millis());
    let skew = i64::try_from(i128::from(hello.time) - ours).unwrap_or(i64::MAX);
    if skew.abs() > SKEW {
        warn!(
            peer = peer.short(),
            "its clock differs by {} s from the one here",
            skew / 1000
        );
    }
    mesh.skews().insert(peer, skew);
    info!(peer = peer.short(), version = hello.software, "connected");
    let known_up = mesh.presence().get(&peer).is_some_and(|known| {
        known.life.epoch >= hello.life.epoch && known.liveness == Liveness::Up
    });
    mesh.sign(Sign::Linked(hello.life, hello.known));
    if !hello.stale {
        mesh.forsake_if_stale().await;
    }
    // Not before: the peer must not be given what is to be put aside.
    of.greeted.send_replace(true);
    // What was missed is fetched at once, by one side. In a large cluster most links are made to
    // nodes that were there all the time, and there is nothing to fetch.
    if link.outgoing() && !(mesh.is_large() && known_up) {
        let mesh = Arc::clone(mesh);
        tokio::spawn(async move {
            // Another link may take the place of this one just now.
            for _ in 0..ATTEMPTS {
                match sync::with(&mesh, peer).await {
                    Ok(()) => return,
                    Err(e) => debug!(peer = peer.short(), "cannot compare: {e}"),
                }
                tokio::time::sleep(AGAIN).await;
                if mesh.linked(peer).is_none() {
                    return;
                }
            }
        });
    }
    loop {
        // It does not keep the link from being idle: what is told goes over whatever link there is.
        let frame = wire::next(&mut read).await?;
        if let Some(Records(bytes)) = frame.read()? {
            match crate::replica::decode(&bytes) {
                Ok(batch) => {
                    let durable = mesh.absorb(batch, peer).await;
                    wire::send(&mut write, &Durable(durable)).await?;
                }
                Err(e) => warn!(peer = peer.short(), "what it wrote is refused: {e}"),
            }
        } else if let Some(report) = frame.read::<Report>()? {
            mesh.take_report(report, Some(peer));
        } else if let Some(Lives(lives)) = frame.read()? {
            mesh.sign(Sign::Told(lives));
        }
    }
}

impl Mesh {
    pub(super) fn use_link(&self, peer: NodeId) {
        if let Some(peered) = self.links().get_mut(&peer) {
            peered.used = Instant::now();
        }
    }

    /// As long as this is held, the link is not idle.
    fn hold(&self, link: &Arc<dyn Link>) -> Option<Arc<()>> {
        let links = self.links();
        let peered = links.get(&link.peer())?;
        Arc::ptr_eq(&peered.link, link).then(|| Arc::clone(&peered.streams))
    }

    /// A node that was away for long takes everything from one that was not.
    async fn forsake_if_stale(&self) {
        let forsake = |replica: &Replica| {
            let now = now_millis();
            let stale = replica.is_stale(now);
            stale.then(|| replica.forsake(&[MEMBER, REMOVED], now))
        };
        match self.with_replica(forsake).await.flatten() {
            Some(Ok(forsaken)) => warn!(
                "this node was away from the others for a week: all is taken from them, and {} objects of its own are in the history",
                forsaken.len()
            ),
            Some(Err(e)) => warn!("what is old here cannot be put aside: {e}"),
            None => {}
        }
    }

    /// The link to a node, if there is one.
    fn linked(&self, node: NodeId) -> Option<Arc<dyn Link>> {
        let links = self.links();
        let link = &links.get(&node)?.link;
        link.has_ended().is_none().then(|| Arc::clone(link))
    }

    /// The link to a node; one is made if there is none.
    pub(super) async fn link(self: &Arc<Self>, node: NodeId) -> Result<Arc<dyn Link>, OpenError> {
        if let Some(link) = self.linked(node) {
            return Ok(link);
        }
        // Of two calls at the same time each side might keep another, and so none.
        let line = Arc::clone(self.lines().entry(node).or_default());
        let _one = line.lock().await;
        if let Some(link) = self.linked(node) {
            return Ok(link);
        }
        let Some(member) = self.door.roster().members.get(&node).cloned() else {
            return Err(OpenError::Refused(
                "it is no member of the cluster".to_owned(),
            ));
        };
        let call = self
            .transport
            .connect(node, member.addresses, Purpose::Member);
        match tokio::time::timeout(REACH, call).await {
            Ok(Ok(link)) => {
                adopt(self, Arc::clone(&link));
                // It may be that the peer called at the same moment.
                Ok(self.linked(node).unwrap_or(link))
            }
            Ok(Err(Unreachable::Refused(why))) => Err(OpenError::Refused(why.to_string())),
            Ok(Err(Unreachable::Silent(why))) => Err(OpenError::Unreachable(why)),
            Err(_) => Err(OpenError::Unreachable("no answer".to_owned())),
        }
    }

    /// The link to a node that has said that it is of this cluster, and what is to be held by a
    /// stream on it.
    pub(super) async fn greeted(
        self: &Arc<Self>,
        node: NodeId,
    ) -> Result<(Arc<dyn Link>, Arc<()>), OpenError> {
        for _ in 0..ATTEMPTS {
            let link = self.link(node).await?;
            let peered = {
                let links = self.links();
                let peered = links.get(&node).filter(|p| Arc::ptr_eq(&p.link, &link));
                peered.map(|p| (p.greeted.clone(), Arc::clone(&p.streams)))
            };
            if let Some((mut greeted, streams)) = peered {
                let ended = tokio::select! {
                    done = greeted.wait_for(|greeted| *greeted) => done.is_err().then(|| link.has_ended()).flatten(),
                    ended = link.ended() => Some(ended),
                };
                match ended {
                    None if link.has_ended().is_none() => return Ok((link, streams)),
                    Some(ended) => spare_or(ended)?,
                    None => {}
                }
            } else if let Some(ended) = link.has_ended() {
                spare_or(ended)?;
            }
            tokio::time::sleep(SOON).await;
        }
        Err(OpenError::Unreachable(
            "connections to it do not last".to_owned(),
        ))
    }

    /// Opens a stream to a service of a node.
    ///
    /// # Errors
    /// The node cannot be reached within three seconds, or refuses.
    pub async fn open(self: &Arc<Self>, node: NodeId, service: &str) -> Result<Stream, OpenError> {
        let opening = Opening {
            service: service.to_owned(),
        };
        let try_once = async || {
            let (link, held) = self.greeted(node).await?;
            let ended = |why: String| match link.has_ended() {
                Some(ended) => spare_or(ended).err(),
                None => Some(OpenError::Unreachable(why)),
            };
            let opened = async {
                let mut stream = link.open().await.map_err(|_| gone())?;
                wire::send(&mut stream, &opening).await?;
                let Opened { refusal } = wire::expect(&mut stream).await?;
                Ok::<_, WireError>((stream, refusal))
            };
            match opened.await {
                Ok((stream, None)) => Ok(Some(Box::new(Held::new(stream, held)) as Stream)),
                Ok((_, Some(refusal))) => Err(OpenError::Refused(refusal)),
                Err(e) => ended(e.to_string()).map_or(Ok(None), Err),
            }
        };
        let open = async {
            // A link may have ended because there is another: then that one is taken.
            loop {
                if let Some(stream) = try_once().await? {
                    return Ok(stream);
                }
                tokio::time::sleep(SOON).await;
            }
        };
        match tokio::time::timeout(REACH, open).await {
            Ok(opened) => opened,
            Err(_) => Err(OpenError::Unreachable("no answer".to_owned())),
        }
    }
}

fn gone() -> WireError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

/// Nothing if the end of a link says nothing of the node: there is another link, or the node has
/// come back and will answer a new call.
fn spare_or(ended: Ended) -> Result<(), OpenError> {
    match ended {
        Ended::ByPeer(Why::Spare) | Ended::Here | Ended::Lost => Ok(()),
        Ended::ByPeer(why @ Why::Leaving) => Err(OpenError::Unreachable(why.to_string())),
        Ended::ByPeer(why) => Err(OpenError::Refused(why.to_string())),
    }
}
