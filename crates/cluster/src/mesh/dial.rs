//! Whom to call, and when again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use tokio::sync::Semaphore;

use super::{FANOUT, Mesh};
use crate::id::NodeId;
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
    loop {
        tokio::select! {
            () = mesh.dial.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        let now = Instant::now();
        let wanted = wanted(&mesh);
        open.retain(|id, _| wanted.contains(id));
        for id in wanted {
            let line = open.entry(id).or_insert_with(|| Line {
                since: now,
                next: if mesh.me < id { now } else { now + COURTESY },
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
        if mesh.is_large() {
            close_idle(&mesh);
        }
    }
}

/// Members to whom there should be a link and is none.
fn wanted(mesh: &Mesh) -> Vec<NodeId> {
    let roster = mesh.door.roster();
    let large = mesh.is_large();
    let links = mesh.links();
    let others = roster.members.keys().filter(|id| **id != mesh.me);
    let missing: Vec<NodeId> = others
        .filter(|id| !links.contains_key(id))
        .copied()
        .collect();
    if !large {
        return missing;
    }
    // A few at random keep a large cluster together; others are called as they are needed.
    let mut wishes = mesh.wishes();
    let wished: Vec<NodeId> = missing
        .iter()
        .filter(|id| wishes.contains(id))
        .copied()
        .collect();
    wishes.clear();
    drop(wishes);
    let lacking = FANOUT.saturating_sub(links.len());
    drop(links);
    let presence = mesh.presence();
    let down = |id: &&NodeId| {
        let known = presence.get(*id);
        known.is_some_and(|p| p.liveness == crate::swim::Liveness::Down)
    };
    let up: Vec<NodeId> = missing.iter().filter(|id| !down(id)).copied().collect();
    let random = up.sample(&mut super::rng(), lacking).copied();
    wished.into_iter().chain(random).collect()
}

async fn call(mesh: &Arc<Mesh>, id: NodeId) {
    if let Err(e) = mesh.link(id).await {
        tracing::trace!(peer = id.short(), "no link: {e}");
    }
}

fn close_idle(mesh: &Mesh) {
    let links = mesh.links();
    let mut idle: Vec<_> = links
        .values()
        .filter(|p| p.used.elapsed() > IDLE && Arc::strong_count(&p.streams) == 1)
        .map(|p| (p.used, Arc::clone(&p.link)))
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
