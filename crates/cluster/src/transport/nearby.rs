//! Nodes of one LAN say by multicast where they are (mDNS, RFC 6762), so that one whose address has changed
//! is found. What they say is only where to call: who answers there must have the key.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_discovery::{Discoverer, DropGuard, Peer, SpawnError};

use crate::id::NodeId;

/// The service, as others on the LAN see it: `_wharfie._udp.local`.
const SERVICE: &str = "wharfie";
/// Peers that are heard of at a time: anybody on the LAN may say that there are more.
const MOST: usize = 1_024;
/// Addresses of one node that are looked at.
const ADDRESSES: usize = 8;

#[derive(Default)]
struct Heard {
    known: HashMap<String, Vec<SocketAddr>>,
    /// There were more than [`MOST`].
    crowded: bool,
}

/// Who is on the LAN.
pub(super) struct Nearby {
    me: NodeId,
    heard: Arc<Mutex<Heard>>,
    speaker: Mutex<Speaker>,
}

struct Speaker {
    library: DropGuard,
    said: Vec<SocketAddr>,
}

/// A label of the domain name system holds 63 bytes: half of the key is as good.
fn label(node: NodeId) -> String {
    node.to_string().chars().take(32).collect()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nearby {
    /// Begins to hear of others; must be called in a runtime.
    ///
    /// # Errors
    /// There is no multicast.
    pub(super) fn begin(me: NodeId) -> Result<Self, Box<SpawnError>> {
        let heard = Arc::<Mutex<Heard>>::default();
        let speaker = Mutex::new(speaker(me, &heard)?);
        Ok(Self { me, heard, speaker })
    }

    /// Says these addresses from now on; must be called in a runtime.
    pub(super) fn say(&self, addresses: &[SocketAddr]) {
        let mut speaker = lock(&self.speaker);
        if std::mem::take(&mut lock(&self.heard).crowded) {
            // The library remembers all of them, and asks the less the more there are.
            lock(&self.heard).known.clear();
            match self::speaker(self.me, &self.heard) {
                Ok(new) => *speaker = new,
                Err(e) => tracing::warn!("nodes of this LAN are not looked for any more: {e}"),
            }
        }
        if speaker.said == addresses {
            return;
        }
        speaker.library.remove_all();
        let mut by_port: HashMap<u16, Vec<IpAddr>> = HashMap::new();
        for address in addresses.iter().take(ADDRESSES) {
            by_port
                .entry(address.port())
                .or_default()
                .push(address.ip());
        }
        for (port, ips) in by_port {
            speaker.library.add(port, ips);
        }
        speaker.said = addresses.to_vec();
    }

    /// Where a node said that it is.
    pub(super) fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        let heard = lock(&self.heard);
        heard.known.get(&label(node)).cloned().unwrap_or_default()
    }
}

fn speaker(me: NodeId, heard: &Arc<Mutex<Heard>>) -> Result<Speaker, Box<SpawnError>> {
    let heard = Arc::clone(heard);
    let library = Discoverer::new_interactive(SERVICE.to_owned(), label(me))
        .with_callback(move |who, peer| note(&mut lock(&heard), who, peer))
        .spawn(&tokio::runtime::Handle::current());
    Ok(Speaker {
        library: library.map_err(Box::new)?,
        said: Vec::new(),
    })
}

fn note(heard: &mut Heard, who: &str, peer: &Peer) {
    if peer.is_expiry() {
        heard.known.remove(who);
    } else if heard.known.len() < MOST || heard.known.contains_key(who) {
        let addresses = peer.addrs().iter().take(ADDRESSES);
        let addresses = addresses.map(|at| SocketAddr::from(*at));
        heard.known.insert(who.to_owned(), addresses.collect());
    } else {
        heard.crowded = true;
    }
}
