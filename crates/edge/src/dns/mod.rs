//! The DNS server of a node: names of the cluster by who asks, everything else from the host's
//! resolvers.
//!
//! ```text
//! let (names, catalog) = watch::channel(Arc::new(Catalog::default()));
//! let server = Server::new(Settings::default(), catalog);
//! server.listen(&addresses).await;         // again whenever the list changes
//! names.send_replace(Arc::new(new));       // whenever names change: the next question sees it
//! ```
//!
//! What is in the catalog is answered where the packet is read, without a lock and without a task:
//! the same thread reads a packet, looks up and writes. Only questions for others become tasks.

mod answer;
pub(crate) mod cache;
pub(crate) mod forward;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod reply;
mod tcp;
mod udp;
mod upstreams;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wharfie_core::network::Catalog;

pub use forward::Limits;
pub use message::{Answered, Message, Value};
pub use metrics::Metrics;
pub use upstreams::Upstreams;
pub use wire::question;

use answer::{Desk, Outcome, Way};
use forward::{Forwarder, Via};
use wire::{Query, code};

use crate::listening::{self, Addresses};
use crate::places::Places;

/// Connections by TCP at a time.
const CONNECTIONS: usize = 256;
/// Those of one address.
const OF_ONE: usize = 64;

/// How the server does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who is asked for what is not here.
    pub upstreams: Upstreams,
    /// Bounds of that.
    pub limits: Limits,
    /// Sockets per address: the kernel spreads askers over them, so that several threads answer.
    pub sockets: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            upstreams: Upstreams::default(),
            limits: Limits::default(),
            sockets: threads.min(4),
        }
    }
}

/// A DNS server. It answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    sockets: usize,
    listening: Addresses<Listening>,
}

/// What all sockets have in common.
#[derive(Debug)]
struct Shared {
    catalog: watch::Receiver<Arc<Catalog>>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
    connections: Arc<Places>,
}

/// What answers at one address.
#[derive(Debug)]
struct Listening {
    /// The address, with the port that was found if none was asked for.
    at: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl listening::Listening for Listening {
    fn at(&self) -> SocketAddr {
        self.at
    }

    async fn end(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Server {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(settings: Settings, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                catalog,
                forwarder: Forwarder::new(settings.upstreams, settings.limits),
                metrics: Arc::default(),
                connections: Places::new(CONNECTIONS, OF_ONE),
            }),
            sockets: settings.sockets.max(1),
            listening: Addresses::default(),
        }
    }

    /// Answers at these addresses, and no longer at others: by UDP and TCP. An address need not be
    /// on any interface yet. Those that fail are returned with the reason; others are not affected,
    /// and calling again tries again.
    ///
    /// Addresses must be real ones, not 0.0.0.0 or ::, or answers may come from another address of
    /// the host than was asked.
    pub async fn listen(&self, addresses: &BTreeSet<SocketAddr>) -> Vec<(SocketAddr, io::Error)> {
        let open = |address| self.open(address);
        let forwarder = &self.shared.forwarder;
        self.listening.set(addresses, forwarder, open).await
    }

    fn open(&self, address: SocketAddr) -> io::Result<Listening> {
        let (listener, at, sockets) = crate::bind::both(address, self.sockets)?;
        let mut tasks = vec![tokio::spawn(tcp::serve(listener, Arc::clone(&self.shared)))];
        for socket in sockets {
            let socket = UdpSocket::from_std(socket)?;
            let task = udp::serve(socket, Arc::clone(&self.shared));
            tasks.push(tokio::spawn(task));
        }
        Ok(Listening { at, tasks })
    }

    /// The addresses that are answered at.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.all().await.into_iter().collect()
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Asks as somebody at an address would; types are those of [`question`]. None if it is no name.
    pub async fn query(&self, source: IpAddr, name: &str, kind: u16) -> Option<Message> {
        let packet = question(rand::random(), name, kind)?;
        let answer = self.shared.answer(&packet, source).await?;
        Message::read(&answer)
    }
}

impl Shared {
    /// Whether somebody is a program of this host.
    fn is_here(&self, source: IpAddr) -> bool {
        source.is_loopback() || self.forwarder.is_own(source)
    }

    fn desk<'a>(&'a self, catalog: &'a Catalog, way: Way) -> Desk<'a, impl Fn(IpAddr) -> bool> {
        Desk {
            catalog,
            is_here: |a| self.is_here(a),
            way,
            metrics: &self.metrics,
        }
    }

    /// The answer to a packet that came by TCP.
    async fn answer(&self, packet: &[u8], source: IpAddr) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let outcome = {
            let catalog = Arc::clone(&self.catalog.borrow());
            let desk = self.desk(&catalog, Way::Tcp);
            desk.answer(packet, source, rand::random(), &mut out)
        };
        match outcome {
            Outcome::Answered => Some(out),
            Outcome::Silence => None,
            Outcome::Elsewhere(query, via) => {
                if !self.cached(&query, &via, Way::Tcp, &mut out) {
                    self.ask(&query, &via, source, Way::Tcp, &mut out).await;
                }
                Some(out)
            }
        }
    }

    /// Answers from the cache, if it can.
    fn cached(&self, query: &Query, via: &Via, way: Way, out: &mut Vec<u8>) -> bool {
        let key = cache::Key::of(query, via);
        let Some((answer, age)) = self.forwarder.cache.get(&key, Instant::now()) else {
            return false;
        };
        Metrics::add(&self.metrics.cached);
        if answer.write(query, way.limit(query), age, out) {
            Metrics::add(&self.metrics.truncated);
        }
        true
    }

    /// Answers with what others say.
    async fn ask(&self, query: &Query<'_>, via: &Via, source: IpAddr, way: Way, out: &mut Vec<u8>) {
        let Some(place) = self.forwarder.place(source) else {
            Metrics::add(&self.metrics.limited);
            reply::empty(query, code::FAILED, out);
            return;
        };
        let answer = self.forwarder.ask(query, via, &self.metrics).await;
        drop(place);
        match answer {
            Some(answer) => {
                if answer.write(query, way.limit(query), 0, out) {
                    Metrics::add(&self.metrics.truncated);
                }
            }
            None => reply::empty(query, code::FAILED, out),
        }
    }
}
