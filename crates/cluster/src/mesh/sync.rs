//! Two nodes compare what they have, and give each other what is missing: whatever was not heard
//! is repaired.
//!
//! The one who begins sends a summary; the other answers with what it has where the summaries
//! differ. Both then send what the other lacks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IteratorRandom;
use tracing::{debug, warn};

use super::detect::Sign;
use super::{Mesh, links, now_millis, rng};
use crate::id::NodeId;
use crate::replica::Key;
use crate::transport::Stream;
use crate::wire::{self, Compare, Differences, Missing, Opening, Records, Report, WireError};

/// Bytes of records in one frame, about.
const BATCH: usize = 4 << 20;
/// Batches that are taken from a peer at most, in one go.
const BATCHES: u32 = 4_096;
/// How long a comparison may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compares with a random peer now and then.
pub(super) async fn run(mesh: Arc<Mesh>) {
    loop {
        let pause = mesh.setup.reconcile.mul_f64(rng().random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        let peer = mesh.links().keys().choose(&mut rng()).copied();
        if let Some(peer) = peer
            && let Err(e) = with(&mesh, peer).await
        {
            debug!(peer = peer.short(), "cannot compare: {e}");
        }
    }
}

/// Compares with a peer.
pub(super) async fn with(mesh: &Arc<Mesh>, peer: NodeId) -> Result<(), WireError> {
    mesh.traffic.reconciliations.fetch_add(1, Ordering::Relaxed);
    match tokio::time::timeout(PATIENCE, begin(mesh, peer)).await {
        Ok(done) => done,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

impl Mesh {
    /// Compares with a node now, as far as the time allows: what it knows is known here then.
    pub async fn compare_with(self: &Arc<Self>, node: NodeId, patience: Duration) {
        if let Ok(Err(e)) = tokio::time::timeout(patience, with(self, node)).await {
            debug!(peer = node.short(), "cannot compare: {e}");
        }
    }
}

fn gone<E>(_: E) -> WireError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

async fn begin(mesh: &Arc<Mesh>, peer: NodeId) -> Result<(), WireError> {
    let (link, _held) = mesh.greeted(peer).await.map_err(gone)?;
    let mut stream = link.open().await.map_err(gone)?;
    let service = links::SYNC.to_owned();
    wire::send(&mut stream, &Opening { service }).await?;
    let compare = Compare {
        summary: mesh
            .with_replica(|r| r.summary(now_millis()))
            .await
            .ok_or_else(|| gone(()))?,
        reports: versions(mesh),
        lives: mesh.known_in_short().await,
    };
    say(mesh, &mut stream, &compare).await?;
    let theirs: Differences = wire::expect(&mut stream).await?;
    // Those who differ tell each other all they know of who is there.
    let known = match theirs.known.is_empty() {
        true => Vec::new(),
        false => mesh.known().await,
    };
    mesh.sign(Sign::Told(theirs.known));
    take_reports(mesh, &mut stream, theirs.reports, peer).await?;
    let (versions, buckets) = (theirs.versions, theirs.buckets);
    let difference = mesh.with_replica(move |r| r.compare(&versions, &buckets, now_millis()));
    let difference = difference.await.ok_or_else(|| gone(()))?;
    let batches = batches(mesh, difference.have).await;
    let reports = newest(mesh, &theirs.wanted);
    let missing = Missing {
        wanted: difference.want,
        batches: batches.len() as u32,
        reports: reports.len() as u32,
        known,
    };
    let nothing = missing.wanted.is_empty();
    say(mesh, &mut stream, &missing).await?;
    for batch in batches {
        say(mesh, &mut stream, &batch).await?;
    }
    for report in reports {
        say(mesh, &mut stream, &report).await?;
    }
    if !nothing {
        let theirs: Missing = wire::expect(&mut stream).await?;
        take_records(mesh, &mut stream, theirs.batches, peer).await?;
    }
    mesh.synced().await;
    Ok(())
}

/// The other side of [`begin`].
pub(super) async fn answer(
    mesh: &Arc<Mesh>,
    peer: NodeId,
    mut stream: Stream,
) -> Result<(), WireError> {
    let Compare {
        summary,
        reports,
        lives,
    } = wire::expect(&mut stream).await?;
    let found = mesh.with_replica(move |r| {
        let buckets = r.summary(now_millis()).differing(&summary);
        let versions = r.versions(&buckets, now_millis());
        (buckets, versions)
    });
    let (buckets, versions) = found.await.ok_or_else(|| gone(()))?;
    let (newer, wanted) = compare_reports(mesh, &reports);
    let newer = newest(mesh, &newer);
    let differences = Differences {
        buckets,
        versions,
        reports: newer.len() as u32,
        wanted,
        known: match mesh.known_in_short().await == lives {
            true => Vec::new(),
            false => mesh.known().await,
        },
    };
    say(mesh, &mut stream, &differences).await?;
    for report in newer {
        say(mesh, &mut stream, &report).await?;
    }
    let missing: Missing = wire::expect(&mut stream).await?;
    let wanted = missing.wanted.clone();
    mesh.sign(Sign::Told(missing.known));
    take_records(mesh, &mut stream, missing.batches, peer).await?;
    take_reports(mesh, &mut stream, missing.reports, peer).await?;
    if wanted.is_empty() {
        return Ok(());
    }
    let batches = batches(mesh, wanted).await;
    let ours = Missing {
        wanted: Vec::new(),
        batches: batches.len() as u32,
        reports: 0,
        known: Vec::new(),
    };
    say(mesh, &mut stream, &ours).await?;
    for batch in batches {
        say(mesh, &mut stream, &batch).await?;
    }
    // The stream must not go before the other has read it.
    let _ = wire::next(&mut stream).await;
    Ok(())
}

async fn say(mesh: &Mesh, stream: &mut Stream, said: &impl wire::Said) -> Result<(), WireError> {
    use tokio::io::AsyncWriteExt;
    let bytes = wire::encode(said)?;
    let sent = &mesh.traffic.sent;
    sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn take_records(
    mesh: &Arc<Mesh>,
    stream: &mut Stream,
    batches: u32,
    peer: NodeId,
) -> Result<(), WireError> {
    for _ in 0..batches.min(BATCHES) {
        let Records(bytes) = wire::expect(stream).await?;
        match crate::replica::decode(&bytes) {
            Ok(batch) => drop(mesh.absorb(batch, peer).await),
            Err(e) => warn!(peer = peer.short(), "what it wrote is refused: {e}"),
        }
    }
    Ok(())
}

async fn take_reports(
    mesh: &Arc<Mesh>,
    stream: &mut Stream,
    count: u32,
    peer: NodeId,
) -> Result<(), WireError> {
    for _ in 0..count.min(BATCHES) {
        let report: Report = wire::expect(stream).await?;
        mesh.take_report(report, Some(peer));
    }
    Ok(())
}

/// Records of objects, in frames of a bearable size.
async fn batches(mesh: &Mesh, keys: Vec<Key>) -> Vec<Records> {
    let read = mesh.with_replica(move |r| {
        let mut batches = Vec::new();
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            // Small steps, so that what does not fit is not forgotten.
            let (step, later) = rest.split_at(rest.len().min(64));
            let mut left = step.to_vec();
            while !left.is_empty() {
                let Ok(records) = r.records(&left, BATCH) else {
                    return batches;
                };
                if records.is_empty() {
                    break;
                }
                left.retain(|key| !records.iter().any(|r| r.key() == *key));
                batches.push(Records(crate::replica::encode(&records)));
            }
            rest = later;
        }
        batches
    });
    read.await.unwrap_or_default()
}

fn versions(mesh: &Mesh) -> Vec<(NodeId, (u64, u64))> {
    let reports = mesh.reports();
    reports.iter().map(|(id, r)| (*id, r.version)).collect()
}

/// Reports of which we have a newer version, and those of which the other has.
fn compare_reports(mesh: &Mesh, theirs: &[(NodeId, (u64, u64))]) -> (Vec<NodeId>, Vec<NodeId>) {
    let theirs: std::collections::BTreeMap<_, _> = theirs.iter().copied().collect();
    let reports = mesh.reports();
    let newer = reports
        .iter()
        .filter(|(id, r)| theirs.get(id).is_none_or(|v| *v < r.version));
    let newer = newer.map(|(id, _)| *id).collect();
    let wanted = theirs
        .iter()
        .filter(|(id, v)| reports.get(id).is_none_or(|r| r.version < **v));
    (newer, wanted.map(|(id, _)| *id).collect())
}

fn newest(mesh: &Mesh, nodes: &[NodeId]) -> Vec<Report> {
    let reports = mesh.reports();
    nodes
        .iter()
        .filter_map(|id| reports.get(id).cloned())
        .collect()
}
