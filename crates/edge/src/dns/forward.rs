//! Asks the host's resolvers: by UDP, by TCP if the answer did not fit, one after the other.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::cache::{Answer, Cache, Key};
use super::metrics::Metrics;
use super::upstreams::{Resolvers, Upstreams};
use super::wire::{self, HEADER, Query, code, flag, kind};

/// Bounds of what is asked of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Answers of others that are kept.
    pub cached: usize,
    /// Questions that wait for others at a time, of all askers.
    pub waiting: usize,
    /// Of these, of one asker.
    pub waiting_of_one: usize,
    /// How long one resolver may take before the next is asked.
    pub attempt: Duration,
    /// How long all of them may take.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cached: 10_000,
            waiting: 2000,
            waiting_of_one: 200,
            attempt: Duration::from_millis(1500),
            // Clients give up after 5 s (resolv.conf(5)).
            whole: Duration::from_millis(4500),
        }
    }
}

/// Addresses of those who are asked in place of the host's resolvers; none for these.
pub(crate) type Via = Arc<[IpAddr]>;

type Waiters = Vec<oneshot::Sender<Option<Arc<Answer>>>>;

/// Asks others.
#[derive(Debug)]
pub(crate) struct Forwarder {
    resolvers: Arc<Resolvers>,
    pub(crate) cache: Cache,
    limits: Limits,
    /// Addresses that we answer at.
    own: RwLock<BTreeSet<SocketAddr>>,
    /// Questions under way: who asks the same meanwhile waits for the same answer.
    under_way: Mutex<HashMap<Key, Waiters>>,
    waiting: Mutex<HashMap<IpAddr, usize>>,
}

/// A place among those who wait, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    forwarder: Arc<Forwarder>,
    asker: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let waiting = &self.forwarder.waiting;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.asker) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.asker);
            }
        }
    }
}

impl Forwarder {
    pub(crate) fn new(from: Upstreams, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            resolvers: Resolvers::new(from),
            cache: Cache::new(limits.cached),
            limits,
            own: RwLock::default(),
            under_way: Mutex::default(),
            waiting: Mutex::default(),
        })
    }

    /// Sets the addresses that we answer at: none of them is asked.
    pub(crate) fn set_own(&self, own: BTreeSet<SocketAddr>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Whether an address is one that we answer at.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.iter().any(|o| o.ip() == address)
    }

    /// A place among those who wait; none if there are too many.
    pub(crate) fn place(self: &Arc<Self>, asker: IpAddr) -> Option<Place> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(&asker).copied().unwrap_or(0);
        if all >= self.limits.waiting || own >= self.limits.waiting_of_one {
            return None;
        }
        waiting.insert(asker, own + 1);
        Some(Place {
            forwarder: Arc::clone(self),
            asker,
        })
    }

    /// The answer of others to a question; none if nobody has one.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        query: &Query<'_>,
        via: &Via,
        metrics: &Arc<Metrics>,
    ) -> Option<Arc<Answer>> {
        let key = Key::of(query, via);
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut under_way = self
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let waiters = under_way.entry(key.clone()).or_default();
            waiters.push(sender);
            waiters.len() == 1
        };
        if first {
            let this = Arc::clone(self);
            let metrics = Arc::clone(metrics);
            let question = Question::of(query);
            let via = Arc::clone(via);
            // A task of its own: who asked first may go away, and others wait.
            tokio::spawn(async move {
                Metrics::add(&metrics.forwarded);
                let asked = timeout(this.limits.whole, this.ask_all(&question, &via, &metrics));
                let answer = asked.await.ok().flatten().map(Arc::new);
                match &answer {
                    Some(answer) => {
                        this.cache
                            .put(key.clone(), Arc::clone(answer), Instant::now());
                    }
                    None => Metrics::add(&metrics.unanswered),
                }
                let mut under_way = this
                    .under_way
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                for waiter in under_way.remove(&key).into_iter().flatten() {
                    // Who does not wait any longer needs no answer.
                    let _ = waiter.send(answer.clone());
                }
            });
        }
        receiver.await.ok().flatten()
    }

    async fn ask_all(&self, question: &Question, via: &Via, metrics: &Metrics) -> Option<Answer> {
        let own = self
            .own
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (order, changed) = self.resolvers.order(via, &own, Instant::now());
        if changed {
            // Other resolvers may know other names, as those of a VPN do.
            self.cache.clear();
        }
        let mut last = None;
        // Twice: a packet may be lost.
        for server in order.iter().chain(&order) {
            let asked = timeout(self.limits.attempt, self.ask_one(*server, question));
            let answer = asked.await.ok().and_then(Result::ok);
            let now = Instant::now();
            self.resolvers.note(*server, answer.is_none(), now);
            match answer {
                // It has no answer, but another one may.
                Some(answer) if matches!(answer.code(), code::FAILED | code::REFUSED) => {
                    Metrics::add(&metrics.failed_attempts);
                    let again = last.is_some() && order.len() == 1;
                    last = Some(answer);
                    if again {
                        break;
                    }
                }
                Some(answer) => return Some(answer),
                None => Metrics::add(&metrics.failed_attempts),
            }
        }
        last
    }

    /// Asks one resolver, without EDNS if it does not know that.
    async fn ask_one(&self, server: SocketAddr, question: &Question) -> std::io::Result<Answer> {
        let answer = self.exchange(server, question, true).await?;
        match answer.code() {
            code::MALFORMED | code::NOT_IMPLEMENTED => self.exchange(server, question, false).await,
            _ => Ok(answer),
        }
    }

    /// One question and its answer. The port is another one each time, and so is the number: who
    /// wants to answer in the resolver's place has to guess both (RFC 5452).
    async fn exchange(
        &self,
        server: SocketAddr,
        question: &Question,
        edns: bool,
    ) -> std::io::Result<Answer> {
        let id = rand::random();
        let packet = question.packet(id, edns);
        let any: IpAddr = match server {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0_u16; 8].into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(&packet).await?;
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let Some(bytes) = buffer.get(..length).filter(|b| question.is_answer(id, b)) else {
                continue;
            };
            if bytes[2] & (flag::TRUNCATED >> 8) as u8 != 0 {
                return self.exchange_by_tcp(server, question, edns).await;
            }
            if let Some(answer) = Answer::read(bytes.to_vec()) {
                return Ok(answer);
            }
        }
    }

    async fn exchange_by_tcp(
        &self,
        server: SocketAddr,
        question: &Question,
        edns: bool,
    ) -> std::io::Result<Answer> {
        let id = rand::random();
        let packet = question.packet(id, edns);
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let length = u16::try_from(packet.len()).map_err(std::io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&packet);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await?;
        let answer = question.is_answer(id, &bytes).then_some(bytes);
        let answer = answer.and_then(Answer::read);
        answer.ok_or_else(|| std::io::Error::other("no answer to the question"))
    }
}

/// What is asked of others.
#[derive(Debug)]
struct Question {
    /// Name, type and class.
    bytes: Vec<u8>,
    unchecked: bool,
    signed: bool,
}

impl Question {
    fn of(query: &Query) -> Self {
        Self {
            bytes: query.question.to_vec(),
            unchecked: query.flags & flag::UNCHECKED != 0,
            signed: query.edns.is_some_and(|e| e.signed),
        }
    }

    fn packet(&self, id: u16, edns: bool) -> Vec<u8> {
        let unchecked = if self.unchecked { flag::UNCHECKED } else { 0 };
        let mut packet = Vec::with_capacity(HEADER + self.bytes.len() + 11);
        let additional = u16::from(edns);
        for word in [id, flag::RECURSION | unchecked, 1, 0, 0, additional] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(&self.bytes);
        if edns {
            let [high, low] = (wire::MOST_UDP as u16).to_be_bytes();
            let signed = if self.signed { 0x80 } else { 0 };
            packet.extend_from_slice(&[0, 0, kind::OPT as u8, high, low, 0, 0, signed, 0, 0, 0]);
        }
        packet
    }

    /// Whether a message is an answer to this question. Letters may have changed their case. Servers
    /// that do not understand a question may leave it out of their answer.
    fn is_answer(&self, id: u16, message: &[u8]) -> bool {
        let Some(header) = message.get(..HEADER) else {
            return false;
        };
        let flags = u16::from_be_bytes([header[2], header[3]]);
        if header[..2] != id.to_be_bytes() || flags & flag::RESPONSE == 0 {
            return false;
        }
        let questions = u16::from_be_bytes([header[4], header[5]]);
        if questions == 0 {
            return flags & flag::CODE == code::MALFORMED;
        }
        let same = message.get(HEADER..HEADER + self.bytes.len());
        questions == 1 && same.is_some_and(|s| s.eq_ignore_ascii_case(&self.bytes))
    }
}
