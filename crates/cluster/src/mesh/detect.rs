//! The failure detector's task: links and datagrams go in, who is there comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::Member;
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use tokio::sync::{mpsc, oneshot};

use super::{Event, Mesh, Presence, now_millis};
use crate::id::NodeId;
use crate::swim::{Life, Liveness, Swim};
use crate::wire::Lives;

/// Something that the detector should know.
pub(super) enum Sign {
    /// A datagram.
    Datagram(Bytes),
    /// A link stands; what the peer knows of others.
    Linked(Life, Vec<Member<Life>>),
    /// The link to a peer was lost.
    Lost(NodeId),
    /// A peer left, or was sent away.
    Left(NodeId),
    /// Somebody wants to tell a peer what is known.
    Known(oneshot::Sender<Vec<Member<Life>>>),
    /// The same in short.
    Digest(oneshot::Sender<u64>),
    /// What a peer knows of others.
    Told(Vec<Member<Life>>),
    /// This node leaves.
    Leave(oneshot::Sender<()>),
}

/// What changes within this time is told together; in a large cluster, where a list of all takes
/// longer to make, within the other.
const TOGETHER: Duration = Duration::from_millis(10);
const TOGETHER_LARGE: Duration = Duration::from_millis(100);
/// Members of whom a peer is told at most.
const TOLD: usize = 2_000;

pub(super) async fn run(mesh: Arc<Mesh>, mut signs: mpsc::UnboundedReceiver<Sign>) {
    let rng =
        StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(now_millis()));
    let mut swim = Swim::new(mesh.life, &mesh.setup.timing, rng);
    let (mut changed, mut published) = (false, Instant::now());
    loop {
        let large = mesh.is_large();
        swim.set_large(large);
        let together = if large { TOGETHER_LARGE } else { TOGETHER };
        let publish_at = changed.then(|| published + together);
        let next = swim.next().into_iter().chain(publish_at).min();
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => tokio::time::sleep(Duration::from_secs(3600)).await,
            }
        };
        let mut outgoing = tokio::select! {
            sign = signs.recv() => match sign {
                None => return,
                Some(sign) => note(&mut swim, sign),
            },
            () = sleep => Vec::new(),
        };
        // Those that wait already are looked at together.
        while let Ok(sign) = signs.try_recv() {
            outgoing.extend(note(&mut swim, sign));
        }
        // After them: nobody is silent whose answer waits here.
        outgoing.extend(swim.tick(Instant::now()));
        for (to, datagram) in outgoing {
            mesh.datagram(to, datagram);
        }
        changed |= swim.has_changed();
        // In a large cluster many come up at once: they are told of together.
        if changed && published.elapsed() >= together {
            let news = swim.news();
            publish(&mesh, &news);
            if large && !news.is_empty() {
                mesh.broadcast(&Lives(news), None);
            }
            (changed, published) = (false, Instant::now());
        }
    }
}

fn note(swim: &mut Swim, sign: Sign) -> Vec<crate::swim::Outgoing> {
    let now = Instant::now();
    match sign {
        Sign::Datagram(datagram) => swim.heard(&datagram, now),
        Sign::Linked(life, known) => swim.linked(life, known, now),
        Sign::Lost(node) => swim.lost(node, now),
        Sign::Left(node) => swim.left(node, now),
        Sign::Known(answer) => {
            let _ = answer.send(swim.known(TOLD));
            Vec::new()
        }
        Sign::Digest(answer) => {
            let _ = answer.send(swim.digest());
            Vec::new()
        }
        Sign::Told(known) => swim.told(known, now),
        Sign::Leave(done) => {
            let outgoing = swim.leave(now);
            let _ = done.send(());
            outgoing
        }
    }
}

/// Takes news over into who is there.
fn publish(mesh: &Mesh, news: &[Member<Life>]) {
    let before = mesh.presence();
    let mut presence = BTreeMap::clone(&before);
    let mut came_up = false;
    for member in news.iter().filter(|m| m.id().node != mesh.me) {
        let node = member.id().node;
        let liveness = crate::swim::liveness(member);
        let same = before.get(&node).filter(|p| p.liveness == liveness);
        came_up |= same.is_none() && liveness == Liveness::Up;
        let known = Presence {
            life: *member.id(),
            liveness,
            since: same.map_or_else(now_millis, |p| p.since),
        };
        presence.insert(node, known);
    }
    if presence == *before {
        return;
    }
    mesh.presence.send_replace(Arc::new(presence));
    mesh.tell(Event::Liveness);
    if came_up {
        mesh.dial.notify_one();
    }
}

impl Mesh {
    /// What is known of members.
    pub(super) async fn known(&self) -> Vec<Member<Life>> {
        let (known, tell) = oneshot::channel();
        self.sign(Sign::Known(known));
        tell.await.unwrap_or_default()
    }

    /// The same in short.
    pub(super) async fn known_in_short(&self) -> u64 {
        let (digest, tell) = oneshot::channel();
        self.sign(Sign::Digest(digest));
        tell.await.unwrap_or_default()
    }
}
