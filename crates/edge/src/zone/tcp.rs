//! Questions by TCP (RFC 7766): each behind its length, several on one connection, answered in turn.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::answer::{self, Desk, Outcome, Way};
use super::metrics::Metrics;
use super::server::{CONNECTIONS, Shared, unix_time};
use super::transfer::{Messages, Transfer};
use super::tsig::Signer;
use super::zones::Zone;
use super::{forward, query};
use crate::dns::wire::code;

/// A connection on which nothing is asked is closed after so long.
const IDLE: Duration = Duration::from_secs(10);
/// The same if many others are open.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(2);
/// Connections of one address.
const OF_ONE: usize = 64;
/// Answers that wait to be written together.
const TOGETHER: usize = 1 << 15;

/// Who has connections.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<IpAddr, usize>>);

/// A place of a connection, given back when it is dropped.
struct Place<'a>(&'a Places, IpAddr);

impl Places {
    fn take(&self, of: IpAddr) -> Option<Place<'_>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = places.values().sum();
        let own = places.get(&of).copied().unwrap_or(0);
        if all >= CONNECTIONS || own >= OF_ONE {
            return None;
        }
        places.insert(of, own + 1);
        Some(Place(self, of))
    }

    fn idle(&self) -> Duration {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.values().sum::<usize>() > CONNECTIONS / 2 {
            true => IDLE_WHEN_FULL,
            false => IDLE,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = places.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                places.remove(&self.1);
            }
        }
    }
}

/// Answers until the task is aborted.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: it gets better, or it does not.
                tracing::debug!(%error, "no connection was accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // One too many is closed at once.
            let Some(_place) = shared.connections.take(source.ip()) else {
                Metrics::add(&shared.metrics.connections_refused);
                return;
            };
            // However it ends, it is the asker's to ask again.
            let _ = converse(stream, source, &shared).await;
        });
    }
}

async fn converse(stream: TcpStream, source: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (mut packet, mut out, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let read = timeout(shared.connections.idle(), async {
            let length = reader.read_u16().await?;
            packet.resize(usize::from(length), 0);
            reader.read_exact(&mut packet).await
        });
        read.await??;
        Metrics::add(&shared.metrics.tcp);
        let zones = Arc::clone(&shared.zones.borrow());
        let desk = Desk {
            zones: &zones,
            metrics: &shared.metrics,
            limiter: &shared.limiter,
            micros: 0,
            source: source.ip(),
            way: Way::Tcp,
            spin: rand::random(),
            now: unix_time,
        };
        match desk.answer(&packet, &mut out) {
            Outcome::Answered => frame(&out, &mut framed)?,
            // Who sends noise is not talked to.
            Outcome::Silence => return Ok(()),
            Outcome::Transfer(zone, signer) => {
                write(&mut writer, &mut framed).await?;
                transfer(&mut writer, &packet, &zone, signer, source.ip(), shared).await?;
            }
            Outcome::Elsewhere => {
                if forward::ask(shared, &packet, source.ip(), Way::Tcp, &mut out).await {
                    frame(&out, &mut framed)?;
                }
            }
        }
        // What was asked together is answered together.
        if reader.buffer().is_empty() || framed.len() > TOGETHER {
            write(&mut writer, &mut framed).await?;
        }
    }
}

fn frame(message: &[u8], framed: &mut Vec<u8>) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Ok(())
}

async fn write(writer: &mut OwnedWriteHalf, framed: &mut Vec<u8>) -> io::Result<()> {
    if !framed.is_empty() {
        timeout(IDLE, writer.write_all(framed)).await??;
        framed.clear();
    }
    Ok(())
}

async fn transfer(
    writer: &mut OwnedWriteHalf,
    packet: &[u8],
    zone: &Zone,
    mut signer: Option<Signer>,
    to: IpAddr,
    shared: &Shared,
) -> io::Result<()> {
    // It was read once already.
    let Ok(query) = query::parse(packet) else {
        return Ok(());
    };
    let (mut out, mut framed) = (Vec::new(), Vec::new());
    let Ok(_place) = shared.transfers.try_acquire() else {
        answer::plain(&query, code::FAILED, &mut out);
        if let Some(signer) = &mut signer {
            signer.sign(&mut out, unix_time());
        }
        frame(&out, &mut framed)?;
        return write(writer, &mut framed).await;
    };
    let what = shared.given.choose(zone, to, query.serial);
    let counter = match &what {
        Transfer::Current => None,
        Transfer::Differences(_) => Some(&shared.metrics.differences),
        Transfer::Whole => Some(&shared.metrics.transfers),
    };
    let mut messages = Messages::new(&query, zone, what);
    while messages.next(&mut out) {
        if let Some(signer) = &mut signer {
            signer.sign(&mut out, unix_time());
        }
        frame(&out, &mut framed)?;
        write(writer, &mut framed).await?;
    }
    if let Some(counter) = counter {
        Metrics::add(counter);
        shared.given.note(zone, to);
        tracing::info!(zone = %zone.origin(), serial = zone.version().serial, %to, "the zone was transferred");
    }
    Ok(())
}
