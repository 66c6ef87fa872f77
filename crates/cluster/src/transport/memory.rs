//! Nodes of one process, joined by channels: for tests of clusters larger than a machine bears.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex as Held, mpsc, watch};

use super::{
    BoxFuture, Ended, Gate, LARGEST_DATAGRAM, Link, Purpose, Stream, Transport, Unreachable, Why,
};
use crate::id::NodeId;

/// Bytes that a stream holds before its writer waits.
const BUFFER: usize = 64 << 10;

/// A network that nodes are plugged into.
#[derive(Debug, Clone, Default)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, Node>,
    /// Sides of a partition; nodes of different sides do not hear each other.
    sides: BTreeMap<NodeId, usize>,
    links: Vec<Weak<Shared>>,
    bytes: u64,
}

struct Node {
    gate: Gate,
    incoming: mpsc::UnboundedSender<Arc<dyn Link>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

impl Network {
    /// Plugs a node in.
    #[must_use]
    pub fn plug(&self, id: NodeId, gate: Gate) -> MemoryTransport {
        let (incoming, accepted) = mpsc::unbounded_channel();
        self.lock().nodes.insert(id, Node { gate, incoming });
        MemoryTransport {
            network: self.clone(),
            id,
            accepted: Held::new(accepted),
        }
    }

    /// Pulls a node's plug: it falls silent, and its links end as lost.
    pub fn unplug(&self, id: NodeId) {
        let mut state = self.lock();
        state.nodes.remove(&id);
        state.cut(|link| link.ends.contains(&id));
    }

    /// Cuts the network into sides. Nodes that are not named stay on a side of their own.
    pub fn partition(&self, sides: &[Vec<NodeId>]) {
        let mut state = self.lock();
        let numbered = sides.iter().enumerate();
        state.sides = numbered
            .flat_map(|(i, side)| side.iter().map(move |n| (*n, i + 1)))
            .collect();
        let sides = state.sides.clone();
        let side = |id: NodeId| sides.get(&id).copied().unwrap_or(0);
        state.cut(|link| side(link.ends[0]) != side(link.ends[1]));
    }

    /// Heals the partition.
    pub fn heal(&self) {
        self.lock().sides.clear();
    }

    /// Bytes of datagrams so far. Streams count their own.
    #[must_use]
    pub fn datagram_bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self, which: impl Fn(&Shared) -> bool) {
        self.links.retain(|link| {
            let Some(link) = link.upgrade() else {
                return false;
            };
            if which(&link) {
                link.end(Cause::Lost);
                return false;
            }
            true
        });
    }

    fn connected(&self, a: NodeId, b: NodeId) -> bool {
        let side = |id| self.sides.get(&id).copied().unwrap_or(0);
        side(a) == side(b) && self.nodes.contains_key(&a)
    }
}

/// A node's plug.
#[derive(Debug)]
pub struct MemoryTransport {
    network: Network,
    id: NodeId,
    accepted: Held<mpsc::UnboundedReceiver<Arc<dyn Link>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Lost,
    By(usize, Why),
}

#[derive(Debug)]
struct Shared {
    ends: [NodeId; 2],
    over: watch::Sender<Option<Cause>>,
}

impl Shared {
    fn end(&self, cause: Cause) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            over.get_or_insert(cause);
            first
        });
    }
}

struct MemoryLink {
    shared: Arc<Shared>,
    network: Network,
    /// Which of the two ends this is.
    end: usize,
    purpose: Purpose,
    streams: (
        mpsc::UnboundedSender<DuplexStream>,
        Held<mpsc::UnboundedReceiver<DuplexStream>>,
    ),
    datagrams: (mpsc::Sender<Bytes>, Held<mpsc::Receiver<Bytes>>),
}

impl MemoryLink {
    fn pair(network: &Network, ends: [NodeId; 2], purpose: Purpose) -> (Arc<Self>, Arc<Self>) {
        let shared = Arc::new(Shared {
            ends,
            over: watch::Sender::new(None),
        });
        let (to_b, at_b) = mpsc::unbounded_channel();
        let (to_a, at_a) = mpsc::unbounded_channel();
        // What is not fetched in time is lost, as on a real network.
        let (datagram_to_b, datagram_at_b) = mpsc::channel(256);
        let (datagram_to_a, datagram_at_a) = mpsc::channel(256);
        let make = |end, streams, datagrams| {
            Arc::new(Self {
                shared: Arc::clone(&shared),
                network: network.clone(),
                end,
                purpose,
                streams,
                datagrams,
            })
        };
        let a = make(
            0,
            (to_b, Held::new(at_a)),
            (datagram_to_b, Held::new(datagram_at_a)),
        );
        let b = make(
            1,
            (to_a, Held::new(at_b)),
            (datagram_to_a, Held::new(datagram_at_b)),
        );
        (a, b)
    }

    fn seen_from_here(&self, cause: Cause) -> Ended {
        match cause {
            Cause::Lost => Ended::Lost,
            Cause::By(end, _) if end == self.end => Ended::Here,
            Cause::By(_, why) => Ended::ByPeer(why),
        }
    }
}

impl Link for MemoryLink {
    fn peer(&self) -> NodeId {
        self.shared.ends[1 - self.end]
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn outgoing(&self) -> bool {
        self.end == 0
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            if let Some(ended) = self.has_ended() {
                return Err(ended);
            }
            let (here, there) = tokio::io::duplex(BUFFER);
            self.streams.0.send(there).map_err(|_| Ended::Lost)?;
            Ok(Box::new(here) as Stream)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let mut streams = self.streams.1.lock().await;
            tokio::select! {
                ended = self.ended() => Err(ended),
                stream = streams.recv() => stream.map(|s| Box::new(s) as Stream).ok_or(Ended::Lost),
            }
        })
    }

    fn send(&self, datagram: Bytes) {
        if datagram.len() <= LARGEST_DATAGRAM && self.has_ended().is_none() {
            self.network.lock().bytes += datagram.len() as u64;
            let _ = self.datagrams.0.try_send(datagram);
        }
    }

    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Ended>> {
        Box::pin(async {
            let mut datagrams = self.datagrams.1.lock().await;
            tokio::select! {
                ended = self.ended() => Err(ended),
                datagram = datagrams.recv() => datagram.ok_or(Ended::Lost),
            }
        })
    }

    fn close(&self, why: Why) {
        self.shared.end(Cause::By(self.end, why));
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            let mut over = self.shared.over.subscribe();
            let cause = over.wait_for(Option::is_some).await;
            let cause = cause.ok().and_then(|c| *c).unwrap_or(Cause::Lost);
            self.seen_from_here(cause)
        })
    }

    fn has_ended(&self) -> Option<Ended> {
        let cause = *self.shared.over.borrow();
        cause.map(|cause| self.seen_from_here(cause))
    }
}

impl Transport for MemoryTransport {
    fn id(&self) -> NodeId {
        self.id
    }

    fn connect(
        &self,
        peer: NodeId,
        _addresses: Vec<SocketAddr>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Unreachable>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut state = self.network.lock();
            let silent = || Unreachable::Silent("no answer".to_owned());
            if !state.connected(self.id, peer) {
                return Err(silent());
            }
            let node = state.nodes.get(&peer).ok_or_else(silent)?;
            (node.gate)(self.id, purpose).map_err(Unreachable::Refused)?;
            let (here, there) = MemoryLink::pair(&self.network, [self.id, peer], purpose);
            node.incoming.send(there).map_err(|_| silent())?;
            state.links.push(Arc::downgrade(&here.shared));
            Ok(here as Arc<dyn Link>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Link>>> {
        Box::pin(async { self.accepted.lock().await.recv().await })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![(Ipv4Addr::LOCALHOST, 1).into()]
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut state = self.network.lock();
            state.nodes.remove(&self.id);
            state.links.retain(|link| {
                let Some(link) = link.upgrade() else {
                    return false;
                };
                if let Some(end) = link.ends.iter().position(|id| *id == self.id) {
                    link.end(Cause::By(end, Why::Leaving));
                }
                true
            });
        })
    }
}
