//! Taking what is missing from several nodes at once, whatever becomes of some of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::receive::{Taken, Trouble, Want, take};
use super::split::split;
use super::staging::Staging;
use super::status::{LayerStatus, Phase, Tracker};
use super::{Contents, Source};

/// How often a node may fail in a row without giving anything.
const FAILURES: u32 = 3;
/// Rest after a failure, times the failures in a row.
const REST: Duration = Duration::from_millis(400);
/// Bytes for which another node is worth asking.
const SHARE: u64 = 4 << 20;

/// A node that has the image.
pub(super) struct Peer {
    pub(super) source: Arc<dyn Source>,
    pub(super) contents: Contents,
    /// Failures in a row.
    failures: u32,
    /// Whether it is not asked any more.
    out: bool,
    /// Bytes that came from it.
    pub(super) bytes: u64,
}

/// A node, what it was asked for, and what came; nothing came if it only rested.
type Outcome = (usize, Vec<Thing>, Option<Taken>);

/// What is taken from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Config,
    /// By its place in the image.
    Layer(usize),
}

impl Peer {
    pub(super) fn new(source: Arc<dyn Source>, contents: Contents) -> Self {
        Self {
            source,
            contents,
            failures: 0,
            out: false,
            bytes: 0,
        }
    }

    /// What is wrong, in words that name the node.
    fn tell(&self, trouble: &Trouble) -> String {
        trouble.of(self.source.name())
    }

    /// What a failure means for whether it is asked again.
    fn judge(&mut self, trouble: &Trouble, bytes: u64) {
        match trouble {
            Trouble::Broken(_) => {
                self.failures = if bytes > 0 { 1 } else { self.failures + 1 };
                self.out = self.failures >= FAILURES;
            }
            Trouble::Missing | Trouble::Corrupt(_) | Trouble::Here(_) => self.out = true,
        }
    }

    fn want(&self, thing: Thing) -> Option<Want> {
        Some(match thing {
            Thing::Config => Want {
                blob: self.contents.config.clone(),
                diff: self.contents.config.clone(),
            },
            Thing::Layer(at) => {
                let layer = self.contents.layers.get(at)?;
                Want {
                    blob: layer.blob.clone(),
                    diff: layer.diff.clone(),
                }
            }
        })
    }

    fn size(&self, thing: Thing) -> u64 {
        match thing {
            Thing::Config => 0,
            Thing::Layer(at) => self.contents.layers.get(at).map_or(0, |l| l.size),
        }
    }
}

/// The file of something that is here and whole: nodes may name the same layer differently.
pub(super) fn staged(peers: &[Peer], thing: Thing, staging: &Staging) -> Option<PathBuf> {
    let blobs = peers.iter().filter_map(|p| p.want(thing));
    let mut whole = blobs.filter(|want| staging.whole(&want.blob).is_some());
    whole.next().map(|want| staging.file(&want.blob))
}

/// Divides what is missing among nodes that have nothing to do. Each of them reads the whole image
/// for its share, so that little is not divided.
fn share(
    peers: &[Peer],
    idle: &[usize],
    waiting: &BTreeSet<Thing>,
    staging: &Staging,
) -> Vec<(usize, Vec<Thing>)> {
    let Some(&first) = idle.first() else {
        return Vec::new();
    };
    let things: Vec<Thing> = waiting.iter().copied().collect();
    let begun = |thing| {
        peers[first]
            .want(thing)
            .map_or(0, |w| staging.begun(&w.blob))
    };
    let size = |thing: &Thing| peers[first].size(*thing).saturating_sub(begun(*thing));
    let sizes: Vec<u64> = things.iter().map(size).collect();
    let worth = sizes.iter().sum::<u64>() / SHARE;
    let parts = usize::try_from(worth)
        .unwrap_or(usize::MAX)
        .clamp(1, idle.len());
    let shares = split(&sizes, parts).into_iter().zip(idle);
    shares
        .map(|(share, &peer)| (peer, share.into_iter().map(|i| things[i]).collect()))
        .filter(|(_, things): &(usize, Vec<Thing>)| !things.is_empty())
        .collect()
}

/// Takes everything from layer `kept` on that is not in the staging directory, and the
/// configuration. What came of what failed stays there.
///
/// # Errors
/// Why it is not all there, in words that go on from "cannot fetch …: ".
pub(super) async fn gather(
    peers: &mut [Peer],
    kept: usize,
    staging: &Staging,
    tracker: &Tracker,
) -> Result<(), String> {
    let Some(first) = peers.first() else {
        return Err("no node has it".to_owned());
    };
    announce(first, kept, staging, tracker);
    let layers = kept..first.contents.layers.len();
    let all = std::iter::once(Thing::Config).chain(layers.map(Thing::Layer));
    // The same layer twice is taken once.
    let mut once = BTreeSet::new();
    let mut waiting: BTreeSet<Thing> = all
        .filter(|thing| staged(peers, *thing, staging).is_none())
        .filter(|thing| first.want(*thing).is_some_and(|w| once.insert(w.blob)))
        .collect();
    tracker.phase(Phase::Fetching);

    let mut reasons = Vec::new();
    let mut working = 0_usize;
    let mut idle: Vec<usize> = (0..peers.len()).filter(|&p| !peers[p].out).collect();
    let mut busy: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
    while working > 0 || !waiting.is_empty() {
        for (peer, things) in share(peers, &idle, &waiting, staging) {
            idle.retain(|&i| i != peer);
            waiting.retain(|thing| !things.contains(thing));
            working += 1;
            busy.push(asking(peer, &peers[peer], things, staging, tracker));
        }
        // No work and no rest: nobody is left.
        let Some((peer, things, taken)) = busy.next().await else {
            reasons.dedup();
            let reasons = reasons.join(", ");
            return Err(format!(
                "{reasons}; what came is kept, and the next attempt goes on from there"
            ));
        };
        let Some(taken) = taken else {
            // It has rested.
            idle.push(peer);
            continue;
        };
        working -= 1;
        let missing = |thing: &Thing| staged(peers, *thing, staging).is_none();
        waiting.extend(things.into_iter().filter(missing));
        let this = &mut peers[peer];
        this.bytes += taken.bytes;
        if let Some(trouble) = &taken.trouble {
            if let Trouble::Here(why) = trouble {
                return Err(why.clone());
            }
            this.judge(trouble, taken.bytes);
            let why = this.tell(trouble);
            tracker.note(why.clone());
            reasons.push(why);
        } else {
            this.failures = 0;
        }
        if !this.out {
            let rest = REST * this.failures;
            let resting = async move {
                tokio::time::sleep(rest).await;
                (peer, Vec::new(), None)
            };
            busy.push(resting.boxed());
        }
    }
    Ok(())
}

/// A node at work.
fn asking(
    index: usize,
    peer: &Peer,
    things: Vec<Thing>,
    staging: &Staging,
    tracker: &Tracker,
) -> BoxFuture<'static, Outcome> {
    let source = Arc::clone(&peer.source);
    let id = peer.contents.id.clone();
    let wants: Vec<Want> = things.iter().filter_map(|t| peer.want(*t)).collect();
    let (staging, tracker) = (staging.clone(), tracker.clone());
    let work = async move {
        let taken = take(&*source, &id, &wants, &staging, &tracker).await;
        (index, things, Some(taken))
    };
    work.boxed()
}

/// Tells what is to be taken, and what of it is here.
fn announce(peer: &Peer, kept: usize, staging: &Staging, tracker: &Tracker) {
    let layers = peer.contents.layers.iter().skip(kept);
    let told = layers.map(|layer| {
        let whole = staging.whole(&layer.blob);
        let done = whole.unwrap_or_else(|| staging.begun(&layer.blob));
        LayerStatus {
            digest: layer.diff.clone(),
            done,
            total: whole.unwrap_or(layer.size),
            from: None,
            whole: whole.is_some(),
        }
    });
    tracker.layers(told.collect());
}
