//! The resolvers that are asked for what is not here: the host's.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);
/// A resolver that failed is asked last for so long.
const REST: Duration = Duration::from_secs(10);
/// Larger files are no resolv.conf.
const MOST_BYTES: u64 = 64 * 1024;
/// Where resolvers are asked.
const PORT: u16 = 53;
/// More are not asked (resolv.conf(5): 3).
const MOST: usize = 3;

/// Where the resolvers are said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// In a file such as `/etc/resolv.conf` (resolv.conf(5)); it is read again when it changes.
    File(PathBuf),
    /// Here.
    Fixed(Vec<SocketAddr>),
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::File(PathBuf::from("/etc/resolv.conf"))
    }
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    stamp: Option<(SystemTime, u64)>,
    servers: Vec<SocketAddr>,
    /// Those that failed, until when they rest.
    resting: Vec<(SocketAddr, Instant)>,
}

/// The resolvers and how they did.
#[derive(Debug)]
pub(crate) struct Resolvers {
    from: Upstreams,
    state: Mutex<State>,
}

impl Resolvers {
    pub(crate) fn new(from: Upstreams) -> Arc<Self> {
        Arc::new(Self {
            from,
            state: Mutex::default(),
        })
    }

    /// The resolvers in the order in which they are asked, and whether they are others than before.
    /// Those that are ourselves (`own`) are left out: a question would come back for ever.
    /// In place of the host's there may be others (`via`).
    pub(crate) fn order(
        &self,
        via: &[IpAddr],
        own: &BTreeSet<SocketAddr>,
        now: Instant,
    ) -> (Vec<SocketAddr>, bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.look(&mut state, now);
        state.resting.retain(|(_, until)| *until > now);
        let rests = |s: &SocketAddr| state.resting.iter().any(|(r, _)| r == s);
        let is_own = |s: &SocketAddr| {
            let all = |o: &SocketAddr| o.ip().is_unspecified() && s.ip().is_loopback();
            own.iter()
                .any(|o| o == s || (o.port() == s.port() && all(o)))
        };
        let others: Vec<SocketAddr> = via.iter().map(|a| (*a, PORT).into()).collect();
        let all = if others.is_empty() {
            &state.servers
        } else {
            &others
        };
        let usable = all.iter().filter(|s| !is_own(s)).take(MOST);
        let mut order: Vec<SocketAddr> = usable.copied().collect();
        order.sort_by_key(rests);
        (order, changed)
    }

    /// Takes note of a resolver that did not answer, or did again.
    pub(crate) fn note(&self, server: SocketAddr, failed: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.resting.retain(|(s, _)| *s != server);
        if failed {
            state.resting.push((server, now + REST));
        }
    }

    fn look(&self, state: &mut State, now: Instant) -> bool {
        let path = match &self.from {
            Upstreams::Fixed(servers) => {
                state.servers.clone_from(servers);
                return false;
            }
            Upstreams::File(path) => path,
        };
        let recent = |t: Instant| now.saturating_duration_since(t) < LOOK;
        if state.looked.is_some_and(recent) {
            return false;
        }
        state.looked = Some(now);
        // A file that is away for a moment (it is being replaced) leaves everything as it was.
        let Ok(about) = std::fs::metadata(path) else {
            return false;
        };
        let stamp = about.modified().ok().map(|t| (t, about.len()));
        if stamp.is_some() && stamp == state.stamp {
            return false;
        }
        if about.len() > MOST_BYTES {
            tracing::warn!(path = %path.display(), "too large for a list of resolvers");
            return false;
        }
        let Ok(text) = std::fs::read(path) else {
            return false;
        };
        state.stamp = stamp;
        let servers = servers(&String::from_utf8_lossy(&text));
        let changed = servers != state.servers;
        if changed {
            tracing::info!(?servers, "resolvers of the host");
            state.servers = servers;
            state.resting.clear();
        }
        changed
    }
}

/// The `nameserver` lines of a resolv.conf. Without any the host asks itself (resolv.conf(5)).
fn servers(text: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(server) else {
            tracing::debug!(line, "no address of a resolver");
            continue;
        };
        if !found.contains(&server) {
            found.push(server);
        }
    }
    if found.is_empty() {
        found.push(SocketAddr::from(([127, 0, 0, 1], 53)));
    }
    found
}

/// An address, for IPv6 with the number of an interface (`fe80::1%2`) if need be.
fn server(text: &str) -> Option<SocketAddr> {
    let (address, scope) = text.split_once('%').unwrap_or((text, "0"));
    match address.parse().ok()? {
        IpAddr::V4(address) => Some(SocketAddr::from((address, 53))),
        IpAddr::V6(address) => {
            let scope = scope.parse().ok()?;
            Some(std::net::SocketAddrV6::new(address, 53, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let text = "# x\nsearch a b\nnameserver 192.0.2.1\n nameserver  2001:db8::1 \nnameserver fe80::1%3\nnameserver nope\nnameserver 192.0.2.1\nnameserver";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%3]:53"];
        assert_eq!(servers(text), expected.map(|s| s.parse().unwrap()));
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_resolver_that_failed_is_asked_last_and_we_never() {
        let all = ["192.0.2.1:53", "192.0.2.2:53", "10.0.0.1:53"].map(|s| s.parse().unwrap());
        let [a, b, own] = all;
        let resolvers = Resolvers::new(Upstreams::Fixed(all.to_vec()));
        let now = Instant::now();
        let order = |now| resolvers.order(&[], &BTreeSet::from([own]), now).0;
        assert_eq!(order(now), [a, b]);
        resolvers.note(a, true, now);
        assert_eq!(order(now), [b, a]);
        assert_eq!(order(now + REST), [a, b]);
        resolvers.note(a, true, now);
        resolvers.note(a, false, now);
        assert_eq!(order(now), [a, b]);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let path = std::env::temp_dir().join(format!("wharfie-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let resolvers = Resolvers::new(Upstreams::File(path.clone()));
        let now = Instant::now();
        let none = BTreeSet::new();
        assert_eq!(
            resolvers.order(&[], &none, now).0,
            ["192.0.2.1:53".parse().unwrap()]
        );
        std::fs::write(&path, "nameserver 192.0.2.2\nnameserver 192.0.2.3\n").unwrap();
        // Not at every question.
        assert!(!resolvers.order(&[], &none, now).1);
        let (order, changed) = resolvers.order(&[], &none, now + LOOK);
        assert_eq!((order.len(), changed), (2, true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(resolvers.order(&[], &none, now + 2 * LOOK).0.len(), 2);
    }

    #[test]
    fn a_service_may_have_resolvers_of_its_own() {
        let host = SocketAddr::from(([10, 0, 0, 1], 53));
        let resolvers = Resolvers::new(Upstreams::Fixed(vec![host]));
        let own = SocketAddr::from(([10, 0, 0, 3], 53));
        let via = [IpAddr::from([10, 0, 0, 2]), own.ip()];
        let order = |via: &[IpAddr]| {
            let own = BTreeSet::from([own]);
            resolvers.order(via, &own, Instant::now()).0
        };
        assert_eq!(order(&via), [SocketAddr::from(([10, 0, 0, 2], 53))]);
        assert_eq!(order(&[]), [host]);
    }
}
