//! Telling secondaries that there is something new (RFC 1996).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::metrics::Metrics;
use super::name::Name;
use super::server::{Shared, unix_time};
use super::tsig::{Key, Signer};
use super::zones::{Secondary, Zone};
use crate::dns::wire::{HEADER, IN, flag, kind};

/// Seconds that an answer is waited for, each time. Who has not answered then asks by himself when
/// his time has come (the SOA's refresh).
const WAITS: [u64; 6] = [1, 2, 4, 8, 16, 32];
const OPCODE: u16 = 4 << 11;

/// Tells secondaries of each new version, until the zones end.
pub(super) async fn run(shared: Arc<Shared>, mut at: watch::Receiver<BTreeSet<SocketAddr>>) {
    let mut zones = shared.zones.clone();
    // Who was told of which version, and who is still at it.
    let mut told: HashMap<(Name, SocketAddr), (u32, AbortHandle)> = HashMap::new();
    let mut running = tokio::task::JoinSet::new();
    loop {
        let current = Arc::clone(&zones.borrow_and_update());
        let own = at.borrow_and_update().clone();
        // Who is told asks back: not before there is an answer.
        if !own.is_empty() {
            // What others have names in is theirs: nobody keeps what we have of it.
            let zones = current.zones().iter();
            for zone in zones.filter(|z| !z.content().start().shared) {
                for secondary in &current.secondaries {
                    let who = (zone.origin().clone(), secondary.at);
                    let serial = zone.version().serial;
                    if told.get(&who).is_some_and(|t| t.0 == serial) {
                        continue;
                    }
                    let key = secondary.key.as_ref();
                    let key = key.map(|k| current.key(k.wire()).cloned());
                    let (shared, zone) = (Arc::clone(&shared), Arc::clone(zone));
                    let (secondary, own) = (secondary.clone(), own.clone());
                    let task = running
                        .spawn(async move { tell(&shared, &zone, &secondary, key, &own).await });
                    if let Some((_, before)) = told.insert(who, (serial, task)) {
                        before.abort();
                    }
                }
            }
            told.retain(|(_, at), _| current.secondaries.iter().any(|s| s.at == *at));
        }
        let wait = async {
            tokio::select! {
                changed = zones.changed() => changed.is_ok(),
                changed = at.changed() => changed.is_ok(),
            }
        };
        tokio::pin!(wait);
        loop {
            tokio::select! {
                more = &mut wait => if more { break } else { return },
                Some(_) = running.join_next() => {}
            }
        }
    }
}

/// A secondary whose key is not known (`Some(None)`) is not told.
async fn tell(
    shared: &Shared,
    zone: &Zone,
    secondary: &Secondary,
    key: Option<Option<Arc<Key>>>,
    own: &BTreeSet<SocketAddr>,
) {
    let (origin, serial, to) = (zone.origin(), zone.version().serial, secondary.at);
    let Ok(key) = key.map_or(Ok(None), |k| k.map(Some).ok_or(())) else {
        Metrics::add(&shared.metrics.not_notified);
        tracing::warn!(%to, "a secondary is not told of changes: its TSIG key is not known");
        return;
    };
    for wait in WAITS {
        let asked = ask(zone, to, key.as_ref(), own);
        match timeout(Duration::from_secs(wait), asked).await {
            Ok(Ok(0)) => {
                Metrics::add(&shared.metrics.notified);
                tracing::info!(zone = %origin, serial, %to, "a secondary knows of the change");
                return;
            }
            Ok(Ok(code)) => {
                Metrics::add(&shared.metrics.not_notified);
                tracing::warn!(zone = %origin, %to, code, "a secondary does not want to be told of changes");
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(%to, %error, "a secondary could not be told");
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
            Err(_) => {}
        }
    }
    Metrics::add(&shared.metrics.not_notified);
    tracing::warn!(zone = %origin, serial, %to, "a secondary does not answer when told of a change");
}

/// A socket to a secondary. They listen to their primaries only: it must come from where we answer; of several
/// such addresses from the one that the way there begins at, as that is the one they know.
async fn socket(to: SocketAddr, own: &BTreeSet<SocketAddr>) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0_u16; 8].into(),
    };
    let routed = UdpSocket::bind((any, 0)).await?;
    routed.connect(to).await?;
    let from = routed.local_addr()?.ip();
    let answers = || own.iter().map(SocketAddr::ip);
    if answers().any(|a| a == from) {
        return Ok(routed);
    }
    let Some(other) = answers().find(|a| a.is_ipv4() == to.is_ipv4()) else {
        return Ok(routed);
    };
    let socket = UdpSocket::bind((other, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// The code of the answer.
async fn ask(
    zone: &Zone,
    to: SocketAddr,
    key: Option<&Arc<Key>>,
    own: &BTreeSet<SocketAddr>,
) -> io::Result<u16> {
    let socket = socket(to, own).await?;
    let id = rand::random();
    let mut packet = message(zone, id);
    let mut signer = key.map(|k| Signer::new(Arc::clone(k)));
    if let Some(signer) = &mut signer {
        signer.sign(&mut packet, unix_time());
    }
    socket.send(&packet).await?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if length < HEADER || answer[..2] != id.to_be_bytes() {
            continue;
        }
        let flags = u16::from_be_bytes([answer[2], answer[3]]);
        if flags & (flag::RESPONSE | flag::OPCODE) != flag::RESPONSE | OPCODE {
            continue;
        }
        // What says that it worked must be signed; a refusal may be by one who does not know the key.
        let code = flags & flag::CODE;
        if code == 0
            && signer
                .as_ref()
                .is_some_and(|s| !s.is_answer(answer, unix_time()))
        {
            continue;
        }
        return Ok(code);
    }
}

fn message(zone: &Zone, id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [id, OPCODE | flag::AUTHORITATIVE, 1, 1, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(zone.origin().wire());
    out.extend_from_slice(&[0, kind::SOA as u8, 0, IN as u8]);
    let soa = zone.soa();
    out.extend_from_slice(&(0xc000 | HEADER as u16).to_be_bytes());
    out.extend_from_slice(&[0, kind::SOA as u8, 0, IN as u8]);
    out.extend_from_slice(&soa.ttl.to_be_bytes());
    out.extend_from_slice(&(soa.data.len() as u16).to_be_bytes());
    out.extend_from_slice(&soa.data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secondaries_are_told_from_the_address_that_the_way_begins_at() {
        let own = |all: &[&str]| -> BTreeSet<SocketAddr> {
            let each = all.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 53));
            each.collect()
        };
        let to = SocketAddr::from(([127, 0, 0, 1], 53));
        // The lower one is another network's: nobody there knows it.
        for (all, from) in [
            (&["10.255.255.1", "127.0.0.1", "::1"][..], "127.0.0.1"),
            (&["::1", "127.0.0.5"][..], "127.0.0.5"),
            (&["::1"][..], "127.0.0.1"),
        ] {
            let socket = socket(to, &own(all)).await.unwrap();
            let found = socket.local_addr().unwrap().ip();
            assert_eq!(found, from.parse::<IpAddr>().unwrap(), "{all:?}");
        }
    }
}
