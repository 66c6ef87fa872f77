//! What a server listens at, and who is connected to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::dns::forward::Forwarder;
use crate::places::Places;

/// How long is waited after a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(50);

/// What answers at one address.
pub(crate) trait Listening: Send {
    /// The address, with the port that was found if none was asked for.
    fn at(&self) -> SocketAddr;

    /// Ends it, and waits until its sockets are closed: the address may be wanted again at once.
    fn end(self) -> impl Future<Output = ()> + Send;
}

/// The addresses of a server, with what answers there.
#[derive(Debug)]
pub(crate) struct Addresses<L>(Mutex<BTreeMap<SocketAddr, L>>);

impl<L> Default for Addresses<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Listening> Addresses<L> {
    /// Answers at these addresses, and no longer at others. Those that fail are returned with the
    /// reason; others are not affected, and calling again tries again. Questions are never sent on to
    /// them by `forwarder`.
    pub(crate) async fn set(
        &self,
        wanted: &BTreeSet<SocketAddr>,
        forwarder: &Forwarder,
        open: impl Fn(SocketAddr) -> io::Result<L>,
    ) -> Vec<(SocketAddr, io::Error)> {
        let mut listening = self.0.lock().await;
        let gone = |address: &SocketAddr, _: &mut L| !wanted.contains(address);
        let gone: Vec<_> = listening.extract_if(.., gone).collect();
        for (_, gone) in gone {
            gone.end().await;
        }
        // Before anything is answered: what is asked at a new address must not be sent to it.
        let known = listening.values().map(L::at);
        forwarder.set_own(known.chain(wanted.iter().copied()).collect());
        let mut failed = Vec::new();
        for address in wanted {
            if listening.contains_key(address) {
                continue;
            }
            match open(*address) {
                Ok(new) => drop(listening.insert(*address, new)),
                Err(error) => failed.push((*address, error)),
            }
        }
        forwarder.set_own(listening.values().map(L::at).collect());
        failed
    }

    /// The addresses that are answered at.
    pub(crate) async fn all(&self) -> BTreeSet<SocketAddr> {
        self.0.lock().await.values().map(L::at).collect()
    }
}

/// Converses with whoever connects, until the task is aborted: connections end with the listener. One
/// too many is closed at once, and told to `refused`.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    places: &Arc<Places>,
    refused: impl Fn(),
    converse: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
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
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(source.ip()) else {
            refused();
            continue;
        };
        let conversation = converse(stream, source);
        connections.spawn(async move {
            // However it ends, it is the asker's to ask again.
            let _ = conversation.await;
            drop(place);
        });
    }
}
