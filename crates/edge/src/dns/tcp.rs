//! Questions by TCP (RFC 7766): each behind its length, several on one connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Shared;
use crate::listening::accept;

/// A connection on which nothing is asked is closed after so long.
const IDLE: Duration = Duration::from_secs(10);

/// Answers until the task is aborted.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let refused = || super::Metrics::add(&shared.metrics.limited);
    let answer = |stream, source| {
        let shared = Arc::clone(&shared);
        async move { converse(stream, source, &shared).await }
    };
    accept(listener, &shared.connections, refused, answer).await;
}

async fn converse(mut stream: TcpStream, source: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let packet = timeout(IDLE, async {
            let length = stream.read_u16().await?;
            let mut packet = vec![0; usize::from(length)];
            stream.read_exact(&mut packet).await?;
            io::Result::Ok(packet)
        });
        let packet = packet.await??;
        super::Metrics::add(&shared.metrics.tcp);
        // Who sends noise is not talked to.
        let Some(answer) = shared.answer(&packet, source.ip()).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
