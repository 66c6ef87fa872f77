//! Questions by TCP (RFC 7766): each behind its length, several on one connection, answered in turn.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::answer::{self, Desk, Outcome, Way};
use super::metrics::Metrics;
use super::server::{Shared, unix_time};
use super::transfer::{Messages, Transfer};
use super::tsig::Signer;
use super::zones::Zone;
use super::{forward, query};
use crate::dns::wire::code;
use crate::listening::accept;

/// A connection on which nothing is asked is closed after so long.
const IDLE: Duration = Duration::from_secs(10);
/// The same if many others are open.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(2);
/// Answers that wait to be written together.
const TOGETHER: usize = 1 << 15;

/// Answers until the task is aborted.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let refused = || Metrics::add(&shared.metrics.connections_refused);
    let answer = |stream, source| {
        let shared = Arc::clone(&shared);
        async move { converse(stream, source, &shared).await }
    };
    accept(listener, &shared.connections, refused, answer).await;
}

/// How long a connection may say nothing.
fn idle(shared: &Shared) -> Duration {
    match shared.connections.is_crowded() {
        true => IDLE_WHEN_FULL,
        false => IDLE,
    }
}

async fn converse(stream: TcpStream, source: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (mut packet, mut out, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let read = timeout(idle(shared), async {
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
            // Who sends noise is not talked to, but gets what he asked for before.
            Outcome::Silence => return write(&mut writer, &mut framed).await,
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
