//! The side that takes an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, future};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::gather::{Peer, Thing, gather, staged};
use super::here::Name;
use super::load::Parcel;
use super::receive::describe;
use super::split::present;
use super::staging::{Staging, sweep};
use super::status::{Phase, Status, Tracker};
use super::{Contents, Digest, Source};
use crate::{Engine, Error};

/// Time between two reports of progress.
const REPORT: Duration = Duration::from_millis(100);

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
                        _ = flight.result.clone() => {}
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
            let gathered = gather(&mut peers, kept, &staging, &self.tracker).await;
            gathered.map_err(|why| self.failed(why))?;
            self.tracker.phase(Phase::Loading);
            let parcel = parcel(&peers, kept, &staging, name.clone());
            match self.engine().load(parcel).await {
                Ok(()) => break,
                // It may not do without those that are here.
                Err(Error::Refused { message, .. }) if kept > 0 && !is_full(&message) => {
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
        let by_id = Digest::parse(&self.image);
        let (mut peers, mut reasons) = (Vec::new(), Vec::new());
        for (source, contents) in future::join_all(asked).await {
            match contents {
                // Whoever asks by id gets that or nothing.
                Ok(contents)
                    if by_id
                        .as_ref()
                        .is_some_and(|id| *id != contents.id && *id != contents.config) =>
                {
                    reasons.push(format!("{} gives another image", source.name()));
                }
                Ok(contents) => peers.push(Peer::new(source, contents)),
                Err(trouble) => reasons.push(trouble.of(source.name())),
            }
        }
        for reason in &reasons {
            self.tracker.note(reason.clone());
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
            return Err(self.failed(reasons.join(", ")));
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

/// Whether the Engine's disk is full.
fn is_full(message: &str) -> bool {
    message.contains("no space left")
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
