//! Takes connections: so many at a time, and none for long that says nothing.

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

/// Connections at a time; others wait.
const MOST: usize = 256;
/// How long a connection may say nothing before a request has begun, or between two.
const SILENT: Duration = Duration::from_secs(30);
/// How long is waited after a connection could not be taken: it may be for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `end`; then lets the port go at once, and returns when requests at work are done.
pub(super) async fn serve(listener: TcpListener, router: Router, end: Arc<Notify>) {
    let room = Arc::new(Semaphore::new(MOST));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SILENT);
    loop {
        let taken = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            () = end.notified() => break,
            taken = taken => taken,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!("DockerMod: cannot take a connection: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                debug!("DockerMod: a connection ended: {e}");
            }
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}
