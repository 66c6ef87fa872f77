//! Takes connections of HTTP from the network: so many at a time, and none for long that says nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};
use wharfie_edge::Places;

/// How long is waited after a connection could not be taken: it may be for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How much those who connect get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at a time; others wait.
    pub(crate) all: usize,
    /// Connections of one address at a time; more are closed at once.
    pub(crate) each: usize,
    /// How long a request's head may take, and how long nothing may be said between two.
    pub(crate) silent: Duration,
    /// How long a connection may last, if not for as long as it likes: somebody may ask and never read.
    pub(crate) life: Option<Duration>,
}

/// Room for connections, of one listener or of several.
#[derive(Debug)]
pub(crate) struct Room {
    /// Who says what goes wrong.
    name: &'static str,
    limits: Limits,
    free: Arc<Semaphore>,
    places: Arc<Places>,
}

impl Room {
    pub(crate) fn new(name: &'static str, limits: Limits) -> Self {
        Self {
            name,
            limits,
            free: Arc::new(Semaphore::new(limits.all)),
            places: Places::new(limits.all, limits.each),
        }
    }

    /// Serves until `end`; then lets the port go at once, and returns when requests at work are done.
    pub(crate) async fn serve(&self, listener: TcpListener, router: Router, end: Arc<Notify>) {
        let open = GracefulShutdown::new();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.silent);
        let (name, life) = (self.name, self.limits.life);
        loop {
            let taken = async {
                let permit = Arc::clone(&self.free).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, stream) = tokio::select! {
                () = end.notified() => break,
                taken = taken => taken,
            };
            let (stream, source) = match stream {
                Ok(stream) => stream,
                Err(e) => {
                    warn!("{name}: cannot take a connection: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.places.take(source.ip()) else {
                debug!("{name}: {source} has too many connections");
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                let done = match life {
                    Some(life) => tokio::time::timeout(life, connection).await,
                    None => Ok(connection.await),
                };
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => debug!("{name}: a connection ended: {e}"),
                    Err(_) => debug!("{name}: {source} took too long"),
                }
                // In this order: whoever waited for the permit finds the place free.
                drop(place);
                drop(permit);
            });
        }
        drop(listener);
        open.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn served(limits: Limits, answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(move || async move { answer }));
        tokio::spawn(async move {
            let room = Room::new("test", limits);
            room.serve(listener, router, Arc::default()).await;
        });
        at
    }

    /// What is said on a connection until it is closed; a reset is an end as well.
    async fn heard(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all);
        let read: io::Result<usize> = tokio::time::timeout(PATIENCE, read).await.unwrap();
        drop(read);
        String::from_utf8_lossy(&all).into_owned()
    }

    #[tokio::test]
    async fn who_says_nothing_or_little_is_not_waited_for() {
        let limits = Limits {
            all: 8,
            each: 8,
            silent: Duration::from_millis(200),
            life: None,
        };
        let at = served(limits, "well").await;
        let mut silent = TcpStream::connect(at).await.unwrap();
        assert_eq!(heard(&mut silent).await, "");
        // A line now and then, and never the end: each is in time, all together are not.
        let mut slow = TcpStream::connect(at).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n")
            .await
            .unwrap();
        let (mut reader, mut writer) = slow.split();
        let trickle = async {
            while writer.write_all(b"X-More: 1\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, trickle).await.unwrap();
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
        // Who asks is answered, and let go when he asks nothing more.
        let mut good = TcpStream::connect(at).await.unwrap();
        good.write_all(GET).await.unwrap();
        assert!(heard(&mut good).await.ends_with("well"));
    }

    #[tokio::test]
    async fn one_address_does_not_have_all_connections() {
        let limits = Limits {
            all: 8,
            each: 2,
            silent: PATIENCE,
            life: None,
        };
        let at = served(limits, "well").await;
        let first = TcpStream::connect(at).await.unwrap();
        let _second = TcpStream::connect(at).await.unwrap();
        let mut third = TcpStream::connect(at).await.unwrap();
        assert_eq!(heard(&mut third).await, "");
        // When it gives one back it gets another.
        drop(first);
        let answered = async {
            loop {
                let mut next = TcpStream::connect(at).await.unwrap();
                let asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                if next.write_all(asked).await.is_ok() && heard(&mut next).await.ends_with("well") {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_read_is_let_go() {
        let limits = Limits {
            all: 1,
            each: 1,
            silent: PATIENCE,
            life: Some(Duration::from_millis(300)),
        };
        // More than fits between the two.
        let at = served(limits, Box::leak("x".repeat(32 << 20).into_boxed_str())).await;
        let mut deaf = TcpStream::connect(at).await.unwrap();
        deaf.write_all(GET).await.unwrap();
        // There is room for one: this one waits until the other is let go.
        let mut next = TcpStream::connect(at).await.unwrap();
        next.write_all(GET).await.unwrap();
        let mut first = [0; 12];
        let read = next.read_exact(&mut first);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        drop(deaf);
    }
}
