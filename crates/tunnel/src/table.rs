//! Who the peers are, which addresses lead to them, and the keys agreed on with them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519;
use ipnet::IpNet;

use crate::uapi::{PeerSet, PeerState, Set, State};
use crate::{PrivateKey, PublicKey};

/// Handshakes in a second that are answered without asking for a proof of the address (5.3 of the
/// WireGuard paper); each costs some 0.1 ms.
const HANDSHAKES: u64 = 200;
/// After so long nothing that was encrypted with old keys is taken (`Reject-After-Time`, 6.1).
const RETIRED: Duration = Duration::from_secs(180);

/// All that packets need.
pub(crate) struct Table {
    pub(crate) identity: Option<Identity>,
    pub(crate) port: u16,
    peers: BTreeMap<PublicKey, (Arc<Peer>, Option<Arc<Link>>)>,
    links: HashMap<u32, Arc<Link>>,
    retired: Vec<(Instant, u32)>,
    allowed: Allowed,
    next: u32,
}

/// This device's own key.
pub(crate) struct Identity {
    key: PrivateKey,
    pub(crate) secret: x25519::StaticSecret,
    pub(crate) public: x25519::PublicKey,
    pub(crate) limiter: Arc<RateLimiter>,
    /// The same for what was let through: it never has enough.
    open: Arc<RateLimiter>,
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    endpoint: Mutex<Option<SocketAddr>>,
    keepalive: AtomicU16,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

/// What is agreed on with a peer under one key of this device.
pub(crate) struct Link {
    pub(crate) peer: Arc<Peer>,
    index: u32,
    tunn: Mutex<Tunn>,
}

impl Peer {
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        *lock(&self.endpoint)
    }

    /// It is where something came from that only it can have sent.
    pub(crate) fn is_at(&self, endpoint: SocketAddr) {
        *lock(&self.endpoint) = Some(endpoint);
    }
}

impl Link {
    pub(crate) fn tunn(&self) -> MutexGuard<'_, Tunn> {
        lock(&self.tunn)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    pub(crate) fn new() -> Self {
        // Numbers of links are seen by everybody on the wire, and need not be guessed.
        let random = PrivateKey::generate();
        let next = u32::from_le_bytes([random.bytes()[0], random.bytes()[1], random.bytes()[2], 0]);
        Self {
            identity: None,
            port: 0,
            peers: BTreeMap::new(),
            links: HashMap::new(),
            retired: Vec::new(),
            allowed: Allowed::default(),
            next,
        }
    }

    /// The link that leads to an address.
    pub(crate) fn route(&self, address: IpAddr) -> Option<&Arc<Link>> {
        let key = self.allowed.find(address)?;
        self.peers.get(key)?.1.as_ref()
    }

    /// Whether a peer may send from an address.
    pub(crate) fn may_send(&self, peer: &PublicKey, address: IpAddr) -> bool {
        self.allowed.find(address) == Some(peer)
    }

    /// The link with a number, as packets have it: the number is the upper 24 bits.
    pub(crate) fn numbered(&self, index: u32) -> Option<&Arc<Link>> {
        self.links.get(&(index >> 8))
    }

    /// The link with a peer.
    pub(crate) fn with(&self, key: &PublicKey) -> Option<&Arc<Link>> {
        self.peers.get(key)?.1.as_ref()
    }

    /// All links, those under the key before included.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }

    /// Whether there is a link that nobody needs any more.
    pub(crate) fn has_retired(&self) -> bool {
        self.retired.iter().any(|(at, _)| at.elapsed() >= RETIRED)
    }

    /// Forgets such links.
    pub(crate) fn expire(&mut self) {
        let links = &mut self.links;
        self.retired.retain(|(at, index)| {
            let stays = at.elapsed() < RETIRED;
            if !stays {
                links.remove(index);
            }
            stays
        });
    }

    /// Changes what is to change. Links that are to begin at once are told.
    pub(crate) fn set(&mut self, set: &Set) -> Vec<Arc<Link>> {
        if let Some(port) = set.listen_port {
            self.port = port;
        }
        let key = set.private_key.as_ref();
        if let Some(key) = key.filter(|key| self.identity.as_ref().map(|i| &i.key) != Some(key)) {
            self.identify(key);
        }
        if set.replace_peers {
            let stay: BTreeSet<PublicKey> = set.peers.iter().map(|p| p.key).collect();
            let gone = self.peers.keys().filter(|key| !stay.contains(key));
            for key in gone.copied().collect::<Vec<_>>() {
                self.remove(&key);
            }
        }
        let known: BTreeSet<PublicKey> = self.peers.keys().copied().collect();
        for peer in &set.peers {
            self.set_peer(peer, set.replace_peers);
        }
        let new = self
            .peers
            .iter()
            .filter(|(key, _)| !known.contains(key) || set.private_key.is_some());
        let ready =
            |peer: &Peer| peer.keepalive.load(Ordering::Relaxed) > 0 && peer.endpoint().is_some();
        new.filter(|(_, (peer, _))| ready(peer))
            .filter_map(|(_, (_, link))| link.clone())
            .collect()
    }

    fn identify(&mut self, key: &PrivateKey) {
        let secret = key.secret();
        let public = x25519::PublicKey::from(&secret);
        self.identity = Some(Identity {
            key: key.clone(),
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES)),
            open: Arc::new(RateLimiter::new(&public, u64::MAX)),
            secret,
            public,
        });
        // What comes under the old key is still understood, so that nothing under way is lost.
        let keys: Vec<PublicKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.link(&key);
        }
    }

    fn set_peer(&mut self, set: &PeerSet, replace: bool) {
        let own = self.identity.as_ref().map(|i| i.key.public());
        if set.remove || own == Some(set.key) {
            self.remove(&set.key);
            return;
        }
        let known = self.peers.contains_key(&set.key);
        if !known {
            if set.update_only {
                return;
            }
            let peer = Peer {
                key: set.key,
                endpoint: Mutex::new(None),
                keepalive: AtomicU16::new(0),
                received: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            };
            self.peers.insert(set.key, (Arc::new(peer), None));
        }
        let mut keepalive_changed = false;
        if let Some((peer, _)) = self.peers.get(&set.key) {
            if let Some(endpoint) = set.endpoint {
                peer.is_at(endpoint);
            }
            if let Some(seconds) = set.keepalive {
                keepalive_changed = peer.keepalive.swap(seconds, Ordering::Relaxed) != seconds;
            }
        }
        if set.replace_allowed || replace {
            self.allowed.clear(&set.key);
        }
        for net in &set.allowed {
            self.allowed.add(*net, set.key);
        }
        if !known || keepalive_changed {
            self.link(&set.key);
        }
    }

    fn remove(&mut self, key: &PublicKey) {
        if let Some((_, Some(link))) = self.peers.remove(key) {
            self.links.remove(&link.index);
        }
        self.links.retain(|_, link| link.peer.key != *key);
        self.allowed.clear(key);
    }

    /// Begins anew with a peer; what was agreed on before is still understood for a while.
    fn link(&mut self, key: &PublicKey) {
        let (Some(identity), Some((peer, link))) = (&self.identity, self.peers.get_mut(key)) else {
            return;
        };
        if let Some(old) = link.take() {
            self.retired.push((Instant::now(), old.index));
        }
        let index = loop {
            self.next = (self.next + 1) & 0x00ff_ffff;
            if !self.links.contains_key(&self.next) {
                break self.next;
            }
        };
        let keepalive = peer.keepalive.load(Ordering::Relaxed);
        let tunn = Tunn::new(
            identity.secret.clone(),
            x25519::PublicKey::from(key.0),
            None,
            (keepalive > 0).then_some(keepalive),
            index,
            Some(Arc::clone(&identity.open)),
        );
        let new = Arc::new(Link {
            peer: Arc::clone(peer),
            index,
            tunn: Mutex::new(tunn),
        });
        self.links.insert(index, Arc::clone(&new));
        *link = Some(new);
    }

    /// What there is to know.
    pub(crate) fn state(&self) -> State {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let peers = self.peers.values().map(|(peer, link)| {
            let since = link
                .as_ref()
                .and_then(|l| l.tunn().time_since_last_handshake());
            PeerState {
                key: peer.key,
                endpoint: peer.endpoint(),
                keepalive: peer.keepalive.load(Ordering::Relaxed),
                allowed: self.allowed.of(&peer.key),
                received: peer.received.load(Ordering::Relaxed),
                sent: peer.sent.load(Ordering::Relaxed),
                last_handshake: since.map_or(0, |since| now.saturating_sub(since).as_secs()),
            }
        });
        State {
            private_key: self.identity.as_ref().map(|i| i.key.clone()),
            listen_port: self.port,
            peers: peers.collect(),
        }
    }
}

/// Addresses by peer: the longest prefix counts.
#[derive(Debug, Default)]
struct Allowed {
    nets: HashMap<IpNet, PublicKey>,
    /// Lengths of prefixes that there are, the longest first.
    lengths: [Vec<u8>; 2],
}

impl Allowed {
    fn find(&self, address: IpAddr) -> Option<&PublicKey> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?;
            self.nets.get(&net.trunc())
        })
    }

    /// An address has one peer: it is taken from another.
    fn add(&mut self, net: IpNet, peer: PublicKey) {
        self.nets.insert(net.trunc(), peer);
        self.measure();
    }

    fn clear(&mut self, peer: &PublicKey) {
        self.nets.retain(|_, of| of != peer);
        self.measure();
    }

    fn of(&self, peer: &PublicKey) -> Vec<IpNet> {
        let own = self.nets.iter().filter(|(_, of)| *of == peer);
        let mut nets: Vec<IpNet> = own.map(|(net, _)| *net).collect();
        nets.sort();
        nets
    }

    fn measure(&mut self) {
        for (at, lengths) in self.lengths.iter_mut().enumerate() {
            let same = self
                .nets
                .keys()
                .filter(|net| usize::from(net.addr().is_ipv6()) == at);
            let all: BTreeSet<u8> = same.map(IpNet::prefix_len).collect();
            *lengths = all.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_counts_and_an_address_has_one_peer() {
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let mut allowed = Allowed::default();
        allowed.add(net("10.0.0.0/8"), a);
        allowed.add(net("10.1.0.0/16"), b);
        let find = |allowed: &Allowed, text: &str| allowed.find(text.parse().unwrap()).copied();
        assert_eq!(find(&allowed, "10.1.2.3"), Some(b));
        assert_eq!(find(&allowed, "10.2.2.3"), Some(a));
        assert_eq!(find(&allowed, "11.2.2.3"), None);
        assert_eq!(find(&allowed, "fd00::1"), None);
        allowed.add(net("10.1.0.0/16"), a);
        assert_eq!(find(&allowed, "10.1.2.3"), Some(a));
        assert!(allowed.of(&b).is_empty());
        allowed.clear(&a);
        assert_eq!(find(&allowed, "10.1.2.3"), None);
    }

    #[test]
    fn a_new_key_begins_new_links_and_old_ones_are_still_understood() {
        let mut table = Table::new();
        let peer = PrivateKey::generate().public();
        let mut one = PeerSet::new(peer);
        one.allowed = vec![net("10.0.0.2/32")];
        let set = |key: PrivateKey, peers: Vec<PeerSet>| Set {
            private_key: Some(key),
            replace_peers: true,
            peers,
            ..Set::default()
        };
        let key = PrivateKey::generate();
        table.set(&set(key.clone(), vec![one.clone()]));
        let before = table.with(&peer).unwrap().index;
        table.set(&set(key, vec![one.clone()]));
        assert_eq!(table.with(&peer).unwrap().index, before, "nothing changed");
        let own = PrivateKey::generate();
        table.set(&set(own.clone(), vec![one.clone()]));
        let after = table.with(&peer).unwrap().index;
        assert_ne!(after, before);
        assert!(table.numbered(before << 8).is_some());
        assert_eq!(
            table.route("10.0.0.2".parse().unwrap()).unwrap().index,
            after
        );
        // The device itself is no peer of it.
        table.set(&set(own.clone(), vec![PeerSet::new(own.public())]));
        assert!(table.state().peers.is_empty());
        assert_eq!(table.links().count(), 0);
    }
}
