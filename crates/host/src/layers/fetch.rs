//! The side that takes an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, future};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::here::Name;
use super::load::Parcel;
use super::receive::{Taken, Trouble, Want, describe, take};
use super::split::{present, split};
use super::staging::{Staging, sweep};
use super::status::{LayerStatus, Phase, Status, Tracker};
use super::{Contents, Digest, Source};
use crate::{Engine, Error};

/// How often a node may fail in a row without giving anything.
const FAILURES: u32 = 3;
/// Rest after a failure, times the failures in a row.
const REST: Duration = Duration::from_millis(400);
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_millis(100);
/// Bytes for which another node is worth asking.
const SHARE: u64 = 4 << 20;

/// What came of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The image's id on this Engine.
    pub id: String,
    /// Bytes that came from each node.
    pub from: BTreeMap<String, u64>,
    /// Layers that were here already.
    pub kept: usize,
}

/// Takes images from other nodes; clones share their transfers.
#[derive(Debug, Clone)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    staging: PathBuf,
    flights: Mutex<BTreeMap<String, Weak<Flight>>>,
    /// One lock for each image that is on its way: it may have several names.
    images: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// A transfer that may have several waiting for it. It ends when nobody does.
#[derive(Debug)]
struct Flight {
    status: watch::Receiver<Status>,
    result: Shared<BoxFuture<'static, Result<Fetched, Error>>>,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetcher {
    /// Takes images to this Engine; `staging` is a directory for what is not whole yet.
    #[must_use]
    pub fn new(engine: Engine, staging: &Path) -> Self {
        Self(Arc::new(Inner {
            engine,
            staging: staging.to_owned(),
            flights: Mutex::default(),
            images: Mutex::default(),
        }))
    }

    /// Takes an image, by reference or id, from nodes that may have it; `progress` is told how
    /// far it is. If it is on its way already, the sources of whoever was first count.
    ///
    /// Dropping the future ends it, unless others wait for it as well; what came is kept for a
    /// week, and the next transfer goes on from there.
    ///
    /// # Errors
    /// No source has the image or could give all of it, there is no room for it, or the Engine
    /// refuses it.
    pub async fn fetch(
        &self,
        image: &str,
        sources: Vec<Arc<dyn Source>>,
        progress: &mut (dyn FnMut(&Status) + Send),
    ) -> Result<Fetched, Error> {
        let flight = self.flight(image, sources);
        let mut status = flight.status.clone();
        let mut result = flight.result.clone();
        loop {
            tokio::select! {
                biased;
                result = &mut result => {
                    progress(&status.borrow_and_update().clone());
                    return result;
                }
                // Whoever could change it is done: so is the result.
                Ok(()) = status.changed() => {
                    let now = status.borrow_and_update().clone();
                    progress(&now);
                    tokio::select! {
                        _ = &mut result => {}
                        () = tokio::time::sleep(REPORT) => {}
                    }
                }
            }
        }
    }

    fn flight(&self, image: &str, sources: Vec<Arc<dyn Source>>) -> Arc<Flight> {
        let mut flights = lock(&self.0.flights);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(image).and_then(Weak::upgrade)
            && flight.result.peek().is_none()
        {
            return flight;
        }
        let (tracker, status) = Tracker::new();
        let (inner, name) = (Arc::clone(&self.0), image.to_owned());
        let work = async move {
            let fetch = Fetch {
                fetcher: inner,
                image: name,
                tracker,
            };
            fetch.run(sources).await
        };
        let task = tokio::spawn(work);
        let abort = task.abort_handle();
        let result = task.map(|done| {
            done.unwrap_or_else(|_| Err(Error::Cancelled("taking an image".to_owned())))
        });
        let flight = Arc::new(Flight {
            status,
            result: result.boxed().shared(),
            task: abort,
        });
        flights.insert(image.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One transfer.
struct Fetch {
    fetcher: Arc<Inner>,
    image: String,
    tracker: Tracker,
}

/// A node that has the image.
struct Peer {
    source: Arc<dyn Source>,
    contents: Contents,
    /// Failures in a row.
    failures: u32,
    /// Whether it is not asked any more.
    out: bool,
    bytes: u64,
}

/// A node, what it was asked for, and what came; nothing came if it only rested.
type Outcome = (usize, Vec<Thing>, Option<Taken>);

/// What is taken from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Config,
    /// By its place in the image.
    Layer(usize),
}

impl Peer {
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

impl Fetch {
    fn engine(&self) -> &Engine {
        &self.fetcher.engine
    }

    /// An error of the whole transfer.
    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::Local(format!("cannot fetch {}: {why}", self.image))
    }

    async fn run(&self, sources: Vec<Arc<dyn Source>>) -> Result<Fetched, Error> {
        let mut peers = self.ask(sources).await?;
        let contents = peers[0].contents.clone();
        let name = Name::of(&self.image, &[&contents.id, &contents.config]);
        // An image that comes under two names at a time comes once.
        let gate = {
            let mut images = lock(&self.fetcher.images);
            images.retain(|_, gate| gate.strong_count() > 0);
            let gate = images.get(&contents.config).and_then(Weak::upgrade);
            let gate = gate.unwrap_or_default();
            images.insert(contents.config.clone(), Arc::downgrade(&gate));
            gate
        };
        let _only = gate.lock().await;
        for id in [&contents.id, &contents.config] {
            if let Some(here) = self.engine().image_here(&id.to_string()).await? {
                if let Some(name) = &name {
                    self.engine().name_image(&here.id, name).await?;
                }
                self.tracker.phase(Phase::Done);
                return Ok(Fetched {
                    id: here.id.to_string(),
                    from: BTreeMap::new(),
                    kept: contents.layers.len(),
                });
            }
        }
        let staging = self.staging(&contents.config).await?;
        let mut kept = self.kept(&contents).await?;
        loop {
            self.take(&mut peers, kept, &staging).await?;
            self.tracker.phase(Phase::Loading);
            let parcel = parcel(&peers, kept, &staging, name.clone());
            match self.engine().load(parcel).await {
                Ok(()) => break,
                // It may not do without those that are here.
                Err(Error::Refused { message, .. }) if kept > 0 => {
                    self.tracker
                        .note(format!("all layers are taken: {message}"));
                    kept = 0;
                }
                Err(e) => {
                    if matches!(&e, Error::Refused { message, .. } if message.contains("diffID")) {
                        // What is here is spoiled; the next attempt is to begin anew.
                        let _ = staging.remove();
                    }
                    return Err(e);
                }
            }
        }
        let here = self.here(&contents, name.as_ref()).await?;
        // What cannot be removed now is removed after a week.
        let _ = staging.remove();
        self.tracker.phase(Phase::Done);
        let from = peers.iter().filter(|p| p.bytes > 0);
        Ok(Fetched {
            id: here.to_string(),
            from: from
                .map(|p| (p.source.name().to_owned(), p.bytes))
                .collect(),
            kept,
        })
    }

    /// Asks all nodes for the image. Those that have the same one under this name as most are
    /// those it is taken from.
    async fn ask(&self, sources: Vec<Arc<dyn Source>>) -> Result<Vec<Peer>, Error> {
        if sources.is_empty() {
            return Err(self.failed("there is no other node to take it from"));
        }
        let asked = sources.into_iter().map(|source| {
            let image = self.image.clone();
            let ask = async move {
                let contents = describe(&*source, &image).await;
                (source, contents)
            };
            ask.boxed()
        });
        let (mut peers, mut reasons) = (Vec::new(), Vec::new());
        for (source, contents) in future::join_all(asked).await {
            match contents {
                Ok(contents) => peers.push(Peer {
                    source,
                    contents,
                    failures: 0,
                    out: false,
                    bytes: 0,
                }),
                Err(trouble) => reasons.push(self.tell(&*source, &trouble)),
            }
        }
        let same = |a: &Peer, b: &Peer| {
            let diffs = |p: &Peer| p.contents.layers.iter().map(|l| l.diff.clone()).collect();
            let (x, y): (Vec<_>, Vec<_>) = (diffs(a), diffs(b));
            a.contents.config == b.contents.config && x == y
        };
        // The first of those with the most of their kind.
        let chosen = (0..peers.len()).rev().max_by_key(|&i| {
            let kind = peers.iter().filter(|p| same(p, &peers[i]));
            kind.count()
        });
        let Some(chosen) = chosen else {
            return Err(self.failed(reasons.join("; ")));
        };
        let mut kind = Vec::new();
        peers.swap(0, chosen);
        for peer in peers {
            if kind.first().is_none_or(|first| same(first, &peer)) {
                kind.push(peer);
            } else {
                let name = peer.source.name();
                self.tracker
                    .note(format!("{name} has another image under this name"));
            }
        }
        Ok(kind)
    }

    /// Notes what is wrong with a node, and gives it in words.
    fn tell(&self, source: &dyn Source, trouble: &Trouble) -> String {
        let why = match trouble {
            Trouble::Missing => "has no such image",
            Trouble::Broken(why) | Trouble::Corrupt(why) | Trouble::Here(why) => why,
        };
        let words = match trouble {
            Trouble::Missing => format!("{} {why}", source.name()),
            _ => format!("{}: {why}", source.name()),
        };
        self.tracker.note(words.clone());
        words
    }

    async fn staging(&self, image: &Digest) -> Result<Staging, Error> {
        let root = self.fetcher.staging.clone();
        let in_use: Vec<Digest> = lock(&self.fetcher.images).keys().cloned().collect();
        let image = image.clone();
        let opened = tokio::task::spawn_blocking(move || {
            sweep(&root, &in_use, SystemTime::now());
            Staging::open(&root, &image)
        });
        let opened = opened
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        let dir = self.fetcher.staging.display();
        opened.map_err(|e| self.failed(format!("cannot make a directory in {dir}: {e}")))
    }

    /// How many layers, from the lowest on, the Engine has and needs not be given.
    async fn kept(&self, contents: &Contents) -> Result<usize, Error> {
        if self.engine().keeps_in_containerd().await? {
            return Ok(0);
        }
        let wanted: Vec<Digest> = contents.layers.iter().map(|l| l.diff.clone()).collect();
        let images = self.engine().images_here().await?;
        let here: Vec<Vec<Digest>> = images.into_iter().map(|image| image.layers).collect();
        Ok(present(&wanted, &here))
    }

    /// Takes what is missing from all nodes at once.
    async fn take(&self, peers: &mut [Peer], kept: usize, staging: &Staging) -> Result<(), Error> {
        let count = peers[0].contents.layers.len();
        let whole = |peers: &[Peer], thing| staged(peers, thing, staging).is_some();
        let mut waiting: BTreeSet<Thing> = (kept..count).map(Thing::Layer).collect();
        waiting.insert(Thing::Config);
        self.announce(&peers[0], kept, staging);
        waiting.retain(|thing| !whole(peers, *thing));
        // The same layer twice is taken once.
        let mut once = BTreeSet::new();
        let first = &peers[0];
        waiting.retain(|thing| first.want(*thing).is_some_and(|w| once.insert(w.blob)));
        self.tracker.phase(Phase::Fetching);

        let mut reasons = Vec::new();
        let mut working = 0_usize;
        let mut idle: Vec<usize> = (0..peers.len()).filter(|&p| !peers[p].out).collect();
        let mut busy: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
        while working > 0 || !waiting.is_empty() {
            let shares = share(peers, &idle, &waiting, staging);
            for (peer, things) in shares {
                idle.retain(|&i| i != peer);
                waiting.retain(|thing| !things.contains(thing));
                let source = Arc::clone(&peers[peer].source);
                let id = peers[peer].contents.id.clone();
                let wants: Vec<Want> = things.iter().filter_map(|t| peers[peer].want(*t)).collect();
                let (staging, tracker) = (staging.clone(), self.tracker.clone());
                let work = async move {
                    let taken = take(&*source, &id, &wants, &staging, &tracker).await;
                    (peer, things, Some(taken))
                };
                working += 1;
                busy.push(work.boxed());
            }
            // No work and no rest: nobody is left.
            let Some((peer, things, taken)) = busy.next().await else {
                break;
            };
            let Some(taken) = taken else {
                // It has rested.
                idle.push(peer);
                continue;
            };
            working -= 1;
            waiting.extend(things.into_iter().filter(|thing| !whole(peers, *thing)));
            let this = &mut peers[peer];
            let failed = self.judge(this, taken)?;
            if let Some(reason) = failed {
                reasons.push(reason);
            }
            if this.out {
                continue;
            }
            let rest = REST * this.failures.min(FAILURES);
            busy.push(
                async move {
                    tokio::time::sleep(rest).await;
                    (peer, Vec::new(), None)
                }
                .boxed(),
            );
        }
        drop(busy);
        if waiting.is_empty() {
            return Ok(());
        }
        reasons.dedup();
        Err(self.failed(format!(
            "{}; what came is kept, and the next attempt goes on from there",
            reasons.join("; ")
        )))
    }

    /// Tells what is to be taken, and what of it is here.
    fn announce(&self, peer: &Peer, kept: usize, staging: &Staging) {
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
        self.tracker.layers(told.collect());
    }

    /// What a node's answer means for it; why it failed, if it did.
    fn judge(&self, peer: &mut Peer, taken: Taken) -> Result<Option<String>, Error> {
        peer.bytes += taken.bytes;
        let Some(trouble) = taken.trouble else {
            peer.failures = 0;
            return Ok(None);
        };
        match &trouble {
            Trouble::Here(why) => return Err(self.failed(why)),
            Trouble::Missing | Trouble::Corrupt(_) => peer.out = true,
            Trouble::Broken(_) => {
                peer.failures = if taken.bytes > 0 {
                    1
                } else {
                    peer.failures + 1
                };
                peer.out = peer.failures >= FAILURES;
            }
        }
        Ok(Some(self.tell(&*peer.source, &trouble)))
    }

    /// The image on this Engine, once it is loaded.
    async fn here(&self, contents: &Contents, name: Option<&Name>) -> Result<Digest, Error> {
        let layers: Vec<Digest> = contents.layers.iter().map(|l| l.diff.clone()).collect();
        let called = match name {
            Some(name) => name.to_string(),
            None => contents.config.to_string(),
        };
        if let Some(here) = self.engine().image_here(&called).await?
            && here.layers == layers
        {
            return Ok(here.id);
        }
        // An Engine that keeps images in containerd gives it an id of its own.
        let images = self.engine().images_here().await?;
        let found = images.into_iter().find(|image| image.layers == layers);
        found.map(|image| image.id).ok_or_else(|| {
            self.failed("the Engine took it and does not have it; look at the Engine's log")
        })
    }
}

/// The file of something that is here and whole: nodes may name the same layer differently.
fn staged(peers: &[Peer], thing: Thing, staging: &Staging) -> Option<PathBuf> {
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

/// What the Engine is to get.
fn parcel(peers: &[Peer], kept: usize, staging: &Staging, name: Option<Name>) -> Parcel {
    let contents = &peers[0].contents;
    let file = |thing| staged(peers, thing, staging);
    let config = contents.config.clone();
    let layers = contents.layers.iter().enumerate();
    Parcel {
        // Without a file there it is the loading that says so.
        config: (
            config.clone(),
            file(Thing::Config).unwrap_or_else(|| staging.file(&config)),
        ),
        layers: layers
            .map(|(at, layer)| {
                let needed = at >= kept;
                (
                    layer.diff.clone(),
                    file(Thing::Layer(at)).filter(|_| needed),
                )
            })
            .collect(),
        name,
    }
}
