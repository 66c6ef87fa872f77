//! Streams between nodes: what serves them here, and what hands them on.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, UPGRADE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use wharfie_host::BoxedStream;

use super::fleet::{AGENT, ENGINE, Fleet, Serving};
use super::http::{AtWork, refused};
use crate::api::Node;
use crate::failure::Failure;

/// What a stream between nodes is asked for with.
pub(crate) const PROTOCOL: &str = "wharfie-stream";
/// Says that a request was handed on by the agent of this node: it is not handed on once more.
pub(super) const HANDED_ON: &str = "x-wharfie-handed-on-by";
/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// Offers the Engine whose address is told each time.
pub(super) fn offer_engine(fleet: &Fleet, address: impl Fn() -> String + Send + Sync + 'static) {
    fleet.offer(ENGINE, move || {
        let address = address();
        Box::pin(async move {
            let path = address.strip_prefix("unix://").unwrap_or(&address);
            let engine = wharfie_host::Dialer::unix(path).dial().await;
            let engine = engine.map_err(|e| {
                super::fleet::unreachable(format!(
                    "the Docker Engine is not running: nothing answers at {address} ({e})"
                ))
            })?;
            let serving: Serving = Box::new(|peer| Box::pin(join(peer, engine)));
            Ok(serving)
        })
    });
}

/// Offers the agent's API.
pub(super) fn offer_agent(fleet: &Fleet, router: Router) {
    fleet.offer(AGENT, move || {
        let router = router.clone();
        let serving: Serving = Box::new(|peer| Box::pin(serve(peer, router)));
        Box::pin(async { Ok(serving) })
    });
}

/// Serves the API on one stream.
async fn serve(peer: BoxedStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(peer), service)
        .with_upgrades();
    if let Err(e) = connection.await {
        tracing::debug!("a peer's connection ended: {e}");
    }
}

/// Copies both ways until both have ended.
async fn join(mut one: BoxedStream, mut other: BoxedStream) {
    // Who breaks off is told by their own side.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, PIECE, PIECE).await;
}

/// Hands a client's connection over to a stream to a service of a node.
pub(super) async fn upgrade(
    fleet: &Fleet,
    node: &Node,
    service: &str,
    mut request: Request,
    at_work: AtWork,
) -> Response {
    let asked = request.headers().get(UPGRADE);
    if asked.is_none_or(|u| !u.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes())) {
        let failure = Failure::usage(format!("ask for it with `Upgrade: {PROTOCOL}`"));
        return refused(StatusCode::UPGRADE_REQUIRED, failure);
    }
    let stream = match fleet.open(node, service).await {
        Ok(stream) => stream,
        Err(failure) => return refused(StatusCode::BAD_GATEWAY, failure),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // If it fails the client is gone.
        if let Ok(client) = upgrade.await {
            join(Box::new(TokioIo::new(client)), stream).await;
        }
        drop(at_work);
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// A task that ends with its owner.
struct Tied(tokio::task::JoinHandle<()>);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets the agent of a node answer a request. If whoever asked goes away, so does the connection.
///
/// # Errors
/// The node cannot be reached, or goes away before it answers.
pub(super) async fn hand_on(
    fleet: &Arc<Fleet>,
    node: &Node,
    request: Request,
) -> Result<Response, Failure> {
    let stream = fleet.open(node, AGENT).await?;
    let gone =
        |e: hyper::Error| super::fleet::unreachable(format!("node {} went away: {e}", node.name));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(gone)?;
    let connection = Tied(tokio::spawn(async move {
        // A broken connection is told by the answer.
        let _ = connection.await;
    }));
    let (mut parts, body) = request.into_parts();
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = Uri::from(path.clone());
    }
    parts
        .headers
        .insert(HOST, HeaderValue::from_static("agent"));
    let by = HeaderValue::from_str(&fleet.me().name);
    let by = by.unwrap_or_else(|_| HeaderValue::from_static("another"));
    parts.headers.insert(HANDED_ON, by);
    let answer = sender.send_request(Request::from_parts(parts, body)).await;
    let (parts, body) = answer.map_err(gone)?.into_parts();
    let pieces = Body::new(body).into_data_stream();
    // The connection must live as long as the answer, and not longer.
    let pieces = pieces.map(move |piece| {
        let _tied = &connection;
        piece
    });
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}
