//! Whom to call, and when again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IteratorRandom;
use tokio::sync::Semaphore;

use super::{FANOUT, Mesh, Presence, ring};
use crate::id::NodeId;
use crate::swim::Liveness;
use crate::transport::Why;

/// How often is looked who must be called.
const TICK: Duration = Duration::from_millis(250);
/// The pause after a call without an answer; it doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(500);
/// After so long without an answer there are pauses of [`RARELY`].
const PATIENCE: Duration = Duration::from_secs(120);
const RARELY: Duration = Duration::from_secs(3);
/// The node with the greater id waits so long for the other's call.
const COURTESY: Duration = Duration::from_millis(400);
/// Calls at a time.
const AT_A_TIME: usize = 64;
/// In large clusters a link that nobody needed for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

struct Line {
    since: Instant,
    next: Instant,
    pause: Duration,
}

pub(super) async fn run(mesh: Arc<Mesh>) {
    let lines = Arc::new(Semaphore::new(AT_A_TIME));
    let mut open: BTreeMap<NodeId, Line> = BTreeMap::new();
    let mut chosen = Instant::now();
    loop {
        tokio::select! {
            () = mesh.dial.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        let now = Instant::now();
        let large = mesh.is_large();
        let wanted = if large {
            // Those just called have not answered yet: others in their place would be too many.
            let choose = chosen.elapsed() >= TICK;
            chosen = if choose { now } else { chosen };
            wanted_in_large(&mesh, choose)
        } else {
            missing(&mesh)
        };
        open.retain(|id, _| wanted.contains(id));
        for id in wanted {
            let line = open.entry(id).or_insert_with(|| Line {
                since: now,
                // In large clusters two hardly ever call each other at once, and somebody waits.
                next: if large || mesh.me < id {
                    now
                } else {
                    now + COURTESY
                },
                pause: SHORTEST,
            });
            if line.next > now {
                continue;
            }
            let Ok(place) = Arc::clone(&lines).try_acquire_owned() else {
                break;
            };
            line.pause = if now - line.since > PATIENCE {
                RARELY
            } else {
                (line.pause * 2).min(LONGEST)
            };
            // A call takes a while by itself: the next does not begin before it has ended.
            line.next = now + line.pause + Duration::from_millis(1_000);
            let mesh = Arc::clone(&mesh);
            tokio::spawn(async move {
                call(&mesh, id).await;
                drop(place);
            });
        }
        if large {
            close_idle(&mesh);
        }
    }
}

/// Members to whom there is no link.
fn missing(mesh: &Mesh) -> Vec<NodeId> {
    let roster = mesh.door.roster();
    let links = mesh.links();
    let others = roster.members.keys().filter(|id| **id != mesh.me);
    others
        .filter(|id| !links.contains_key(id))
        .copied()
        .collect()
}

/// The members who are called in a large cluster: those to whom somebody wants a link, the next of
/// the ring, and, if more are to be chosen, a few at random. It looks at all only for these.
fn wanted_in_large(mesh: &Mesh, choose: bool) -> Vec<NodeId> {
    let mut wanted = std::mem::take(&mut *mesh.wishes());
    let roster = mesh.door.roster();
    let presence = mesh.presence();
    let up = |id: &NodeId, known: &Presence| {
        known.liveness != Liveness::Down && roster.members.contains_key(id)
    };
    let next = ring::around(mesh.me, &presence).find(|(id, known)| up(id, known));
    wanted.extend(next.map(|(id, _)| *id));
    let links = mesh.links();
    let missing =
        |id: &NodeId| *id != mesh.me && roster.members.contains_key(id) && !links.contains_key(id);
    wanted.retain(missing);
    let lacking = FANOUT.saturating_sub(links.len());
    if choose && lacking > 0 {
        let members = roster.members.keys().copied().filter(missing);
        let there = members.filter(|id| presence.get(id).is_none_or(|known| up(id, known)));
        wanted.extend(there.sample(&mut super::rng(), lacking));
    }
    wanted.into_iter().collect()
}

async fn call(mesh: &Arc<Mesh>, id: NodeId) {
    if let Err(e) = mesh.link(id).await {
        tracing::trace!(peer = id.short(), "no link: {e}");
    }
}

fn close_idle(mesh: &Mesh) {
    let links = mesh.links();
    let neighbours = ring::neighbours(mesh.me, &links);
    let mut idle: Vec<_> = links
        .iter()
        .filter(|(id, p)| p.used.elapsed() > IDLE && !neighbours.contains(id))
        .filter(|(_, p)| Arc::strong_count(&p.streams) == 1)
        .map(|(_, p)| (p.used, Arc::clone(&p.link)))
        .collect();
    let spare = links.len().saturating_sub(2 * FANOUT);
    drop(links);
    idle.sort_by_key(|(used, _)| *used);
    for (_, link) in idle.into_iter().take(spare) {
        link.close(Why::Spare);
    }
}

impl Mesh {
    /// A link to a node is wanted, sooner or later.
    pub(super) fn want(&self, node: NodeId) {
        self.wishes().insert(node);
        self.dial.notify_one();
    }
}
