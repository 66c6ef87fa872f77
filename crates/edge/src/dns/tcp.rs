//! Questions by TCP (RFC 7766): each behind its length, several on one connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Shared;

/// A connection on which nothing is asked is closed after so long.
const IDLE: Duration = Duration::from_secs(10);

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
        // One too many is closed at once.
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            super::Metrics::add(&shared.metrics.limited);
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // However it ends, it is the asker's to ask again.
            let _ = converse(stream, source, &shared).await;
            drop(permit);
        });
    }
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
