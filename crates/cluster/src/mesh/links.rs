//! Links to peers: what becomes of each, from its handshake to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::detect::Sign;
use super::{Event, Mesh, Peered, now_millis, sync};
use crate::id::NodeId;
use crate::join;
use crate::replica::Replica;
use crate::roster::{MEMBER, REMOVED};
use crate::transport::{Ended, Link, Purpose, Stream, Unreachable, Why};
use crate::wire::{self, Durable, Hello, Opened, Opening, Records, Report, WireError};

/// Service on which peers greet each other and tell what changes.
pub(super) const PUSH: &str = "push";
/// Service on which two nodes compare what they have.
pub(super) const SYNC: &str = "sync";
/// Frames that wait for a peer at most; if there are more, what they said is repaired later.
const OUTBOX: usize = 1_024;
/// How long a peer may take to say what a new stream is for.
const OPENING: Duration = Duration::from_secs(10);
/// How long is tried to reach a node to which there is no link.
const REACH: Duration = Duration::from_secs(3);
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
    while let Some(link) = mesh.transport.accept().await {
        match link.purpose() {
            Purpose::Member => adopt(&mesh, link),
            Purpose::Join => {
                let mesh = Arc::clone(&mesh);
                tokio::spawn(async move { join::answer(&mesh, &*link).await });
            }
        }
    }
}

/// Puts a link to use. Of two to the same peer one stays, the same on both sides.
pub(super) fn adopt(mesh: &Arc<Mesh>, link: Arc<dyn Link>) {
    let peer = link.peer();
    let (outbox, frames) = mpsc::channel(OUTBOX);
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
            other.link.close(Why::Spare);
        }
        let peered = Peered {
            link: Arc::clone(&link),
            outbox,
            skew: None,
            used: Instant::now(),
        };
        links.insert(peer, peered);
    }
    debug!(peer = peer.short(), "linked");
    let work = serve(Arc::clone(mesh), link, frames);
    tokio::spawn(Arc::clone(mesh).until_over(work));
}

/// Everything that a link carries, until it ends.
async fn serve(mesh: Arc<Mesh>, link: Arc<dyn Link>, frames: mpsc::Receiver<Arc<Vec<u8>>>) {
    let peer = link.peer();
    let streams = {
        let (mesh, link) = (Arc::clone(&mesh), Arc::clone(&link));
        async move {
            while let Ok(stream) = link.accept().await {
                let work = take(Arc::clone(&mesh), Arc::clone(&link), stream);
                tokio::spawn(Arc::clone(&mesh).until_over(work));
            }
        }
    };
    let datagrams = async {
        while let Ok(datagram) = link.receive().await {
            mesh.sign(Sign::Datagram(datagram));
        }
    };
    let push = async {
        if let Err(e) = push(&mesh, &*link, frames).await {
            debug!(peer = peer.short(), "cannot tell what changes: {e}");
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = link.ended() => ended,
        () = async { tokio::join!(streams, datagrams, push); } => Ended::Lost,
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

/// A stream that the peer opened.
async fn take(mesh: Arc<Mesh>, link: Arc<dyn Link>, mut stream: Stream) {
    let peer = link.peer();
    let opening = tokio::time::timeout(OPENING, wire::expect::<Opening>(&mut stream)).await;
    let Ok(Ok(Opening { service })) = opening else {
        return;
    };
    mesh.use_link(peer);
    let outcome = match service.as_str() {
        PUSH => listen(&mesh, &link, stream).await,
        SYNC => sync::answer(&mesh, peer, stream).await,
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
    mut frames: mpsc::Receiver<Arc<Vec<u8>>>,
) -> Result<(), WireError> {
    let lost = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let mut stream = link.open().await.map_err(lost)?;
    let service = PUSH.to_owned();
    wire::send(&mut stream, &Opening { service }).await?;
    let (known, tell) = oneshot::channel();
    mesh.sign(Sign::Known(known));
    let hello = Hello {
        version: wire::VERSION,
        software: mesh.setup.software.clone(),
        cluster: mesh.setup.cluster,
        life: mesh.life,
        time: now_millis(),
        stale: mesh.with_replica(|r| r.is_stale(now_millis())).await == Some(true),
        known: tell.await.unwrap_or_default(),
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
async fn listen(mesh: &Arc<Mesh>, link: &Arc<dyn Link>, stream: Stream) -> Result<(), WireError> {
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
    let ours = i128::from(now_millis());
    let skew = i64::try_from(i128::from(hello.time) - ours).unwrap_or(i64::MAX);
    if skew.abs() > SKEW {
        warn!(
            peer = peer.short(),
            "its clock differs by {} s from the one here",
            skew / 1000
        );
    }
    if let Some(peered) = mesh.links().get_mut(&peer) {
        peered.skew = Some(skew);
    }
    info!(peer = peer.short(), version = hello.software, "connected");
    mesh.sign(Sign::Linked(hello.life, hello.known));
    if !hello.stale {
        mesh.forsake_if_stale().await;
    }
    // What was missed is fetched at once, by one side.
    if link.outgoing() {
        let mesh = Arc::clone(mesh);
        tokio::spawn(async move {
            if let Err(e) = sync::with(&mesh, peer).await {
                debug!(peer = peer.short(), "cannot compare: {e}");
            }
        });
    }
    loop {
        let frame = wire::next(&mut read).await?;
        mesh.use_link(peer);
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
        }
    }
}

impl Mesh {
    pub(super) fn use_link(&self, peer: NodeId) {
        if let Some(peered) = self.links().get_mut(&peer) {
            peered.used = Instant::now();
        }
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

    /// The link to a node; one is made if there is none.
    pub(super) async fn link(self: &Arc<Self>, node: NodeId) -> Result<Arc<dyn Link>, OpenError> {
        let known = |mesh: &Self| {
            let links = mesh.links();
            let peered = links.get(&node)?;
            let link = &peered.link;
            link.has_ended().is_none().then(|| Arc::clone(link))
        };
        if let Some(link) = known(self) {
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
                Ok(known(self).unwrap_or(link))
            }
            Ok(Err(Unreachable::Refused(why))) => Err(OpenError::Refused(why.to_string())),
            Ok(Err(Unreachable::Silent(why))) => Err(OpenError::Unreachable(why)),
            Err(_) => Err(OpenError::Unreachable("no answer".to_owned())),
        }
    }

    /// Opens a stream to a service of a node.
    ///
    /// # Errors
    /// The node cannot be reached within three seconds, or refuses.
    pub async fn open(self: &Arc<Self>, node: NodeId, service: &str) -> Result<Stream, OpenError> {
        let opening = Opening {
            service: service.to_owned(),
        };
        let open = async {
            loop {
                let link = self.link(node).await?;
                match open_on(&*link, &opening).await {
                    // The end of a link says nothing of the node: it may have come back, or called
                    // itself, and then there is another.
                    Err(OpenError::Unreachable(_)) if link.has_ended().is_some() => {}
                    outcome => return outcome,
                }
            }
        };
        match tokio::time::timeout(REACH, open).await {
            Ok(opened) => opened,
            Err(_) => Err(OpenError::Unreachable("no answer".to_owned())),
        }
    }
}

async fn open_on(link: &dyn Link, opening: &Opening) -> Result<Stream, OpenError> {
    let mut stream = link.open().await.map_err(|e| match e {
        Ended::ByPeer(why) if why != Why::Spare => OpenError::Refused(why.to_string()),
        _ => OpenError::Unreachable("the connection was lost".to_owned()),
    })?;
    let broken = |e: WireError| OpenError::Unreachable(e.to_string());
    wire::send(&mut stream, opening).await.map_err(broken)?;
    let opened: Opened = wire::expect(&mut stream).await.map_err(broken)?;
    match opened.refusal {
        None => Ok(stream),
        Some(refusal) => Err(OpenError::Refused(refusal)),
    }
}
