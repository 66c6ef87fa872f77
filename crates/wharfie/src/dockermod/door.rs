//! The port at which DockerMod's protocol is spoken: opened, moved and closed as the settings say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tracing::{info, warn};
use wharfie_host::Engine;

use super::act::Service;
use super::listen::Token;
use super::serve::{Served, router};
use crate::accept::{Limits, Room};
use crate::failure::Failure;

/// How long is waited for our own former listener to let the port go.
const LET_GO: Duration = Duration::from_secs(2);

/// Programs of this host's talk here, at length.
const LIMITS: Limits = Limits {
    all: 256,
    each: 256,
    silent: Duration::from_secs(30),
    life: None,
};

/// The door.
pub(crate) struct Door {
    service: Arc<Service>,
    open: Mutex<Option<Open>>,
}

/// An open door.
struct Open {
    /// As it was asked for.
    wanted: SocketAddr,
    #[cfg(test)]
    address: SocketAddr,
    served: Served,
    end: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Door {
    /// A closed one.
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service: Arc::new(service),
            open: Mutex::default(),
        }
    }

    /// Opens it at an address, moves it there, or closes it; a token may be required. `engine` is
    /// asked for the owner of a port that is taken.
    ///
    /// # Errors
    /// The address cannot be had; then it stays as it was.
    pub(crate) async fn set(
        &self,
        wanted: Option<SocketAddr>,
        token: Option<Token>,
        engine: Option<&Engine>,
    ) -> Result<(), Failure> {
        let mut open = self.open.lock().await;
        let Some(wanted) = wanted else {
            if let Some(open) = open.take() {
                info!(address = %open.wanted, "DockerMod: closed");
                open.close();
            }
            return Ok(());
        };
        if let Some(open) = open.as_ref().filter(|o| o.wanted == wanted) {
            open.served.require(token);
            return Ok(());
        }
        // Two listeners of one port would be in each other's way.
        let former = open.take_if(|o| o.wanted.port() == wanted.port());
        let Some(former) = former else {
            let new = self.open_at(wanted, token, engine).await?;
            if let Some(former) = open.replace(new) {
                former.close();
            }
            return Ok(());
        };
        let (back, back_token) = (former.wanted, former.served.token());
        former.close();
        let deadline = tokio::time::Instant::now() + LET_GO;
        loop {
            match self.open_at(wanted, token.clone(), engine).await {
                Ok(new) => {
                    *open = Some(new);
                    return Ok(());
                }
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(failure) => {
                    match self.open_at(back, back_token, engine).await {
                        Ok(again) => *open = Some(again),
                        Err(f) => warn!("DockerMod: cannot go back to {back}: {}", f.text()),
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        // Whoever holds it is about to open it.
        self.open.try_lock().map_or(true, |open| open.is_some())
    }

    /// Closes it, and waits for requests at work.
    pub(crate) async fn close(&self) {
        if let Some(open) = self.open.lock().await.take() {
            open.end.notify_one();
            let _ = open.serving.await; // it may have been aborted: closed is closed
        }
    }

    #[cfg(test)]
    pub(super) async fn address(&self) -> Option<SocketAddr> {
        self.open.lock().await.as_ref().map(|o| o.address)
    }

    async fn open_at(
        &self,
        wanted: SocketAddr,
        token: Option<Token>,
        engine: Option<&Engine>,
    ) -> Result<Open, Failure> {
        let listener = match TcpListener::bind(wanted).await {
            Ok(listener) => listener,
            Err(e) => return Err(taken(wanted, &e, engine).await),
        };
        let address = listener.local_addr().unwrap_or(wanted);
        info!(%address, token = token.is_some(), "DockerMod: listening");
        let served = Served::new(Arc::clone(&self.service), token);
        let end = Arc::new(Notify::new());
        let serving = {
            let (router, end) = (router(served.clone()), Arc::clone(&end));
            let room = Room::new("DockerMod", LIMITS);
            tokio::spawn(async move { room.serve(listener, router, end).await })
        };
        Ok(Open {
            wanted,
            #[cfg(test)]
            address,
            served,
            end,
            serving,
        })
    }
}

impl Open {
    /// Takes no more requests; those at work come to their end.
    fn close(self) {
        self.end.notify_one();
    }
}

async fn taken(wanted: SocketAddr, error: &std::io::Error, engine: Option<&Engine>) -> Failure {
    use std::io::ErrorKind;
    let help = match error.kind() {
        ErrorKind::AddrInUse => {
            let owner = wharfie_host::port_owner(wanted.port(), engine).await;
            return Failure::failed(format!(
                "dockermod-listen: port {} is already taken: {owner} has it",
                wanted.port()
            ))
            .help("stop that, or set `dockermod-listen` to another port");
        }
        ErrorKind::AddrNotAvailable => "set `dockermod-listen` to an address of this host",
        ErrorKind::PermissionDenied => "ports below 1024 are root's: set another one",
        _ => "set `dockermod-listen` to another address",
    };
    Failure::failed(format!(
        "dockermod-listen: cannot listen at {wanted}: {error}"
    ))
    .help(help)
}
