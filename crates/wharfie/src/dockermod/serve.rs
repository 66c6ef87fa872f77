//! Who may come in, and what a request looks like: `POST /` with JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::act::Service;
use super::listen::Token;
use super::reply;

/// Bytes of a request that are read at most.
pub(super) const LARGEST: usize = 1 << 20;
/// How long a request may take to come in.
const SLOWEST: Duration = Duration::from_secs(30);
/// Requests at work at a time; others wait.
const AT_WORK: usize = 64;

/// What `GET /` says; it begins as DockerMod's did.
const ABOUT: &str = concat!(
    "DockerMod HttpService, spoken by Wharfie ",
    env!("CARGO_PKG_VERSION"),
    "\nPOST {\"action\": …} here; docs/dockermod.md lists the actions.\n"
);

/// What handlers work with.
#[derive(Clone)]
pub(super) struct Served {
    service: Arc<Service>,
    token: Arc<std::sync::RwLock<Option<Token>>>,
    at_work: Arc<Semaphore>,
}

impl Served {
    pub(super) fn new(service: Arc<Service>, token: Option<Token>) -> Self {
        Self {
            service,
            token: Arc::new(std::sync::RwLock::new(token)),
            at_work: Arc::new(Semaphore::new(AT_WORK)),
        }
    }

    /// The token that is required.
    pub(super) fn token(&self) -> Option<Token> {
        let required = self.token.read();
        required
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// From now on this token is required, or none.
    pub(super) fn require(&self, token: Option<Token>) {
        let mut required = self
            .token
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *required = token;
    }

    /// The answer to who may not come in.
    fn refuse(&self, headers: &HeaderMap) -> Option<Response> {
        let Some(token) = self.token() else {
            // Any page in a browser on this host could send a request; browsers say so.
            return headers.contains_key(header::ORIGIN).then(|| {
                let said = "requests of web pages are not taken: set dockermod-token";
                error(StatusCode::FORBIDDEN, said)
            });
        };
        let shown = headers.get(header::AUTHORIZATION).map(|v| v.as_bytes());
        if shown.and_then(bearer).is_some_and(|s| token.is(s)) {
            return None;
        }
        let said = "a token is required: send the header `Authorization: Bearer …`";
        let mut refused = error(StatusCode::UNAUTHORIZED, said);
        let how = header::HeaderValue::from_static("Bearer");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        Some(refused)
    }
}

/// The token of an `Authorization` header (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// The routes.
pub(super) fn router(served: Served) -> Router {
    Router::new()
        .route("/", get(about).post(act))
        .fallback(nowhere)
        .with_state(served)
}

async fn about(State(served): State<Served>, headers: HeaderMap) -> Response {
    match served.refuse(&headers) {
        Some(refused) => refused,
        None => ABOUT.into_response(),
    }
}

async fn nowhere() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "there is only /: POST requests go there",
    )
}

async fn act(State(served): State<Served>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    if let Some(refused) = served.refuse(&head.headers) {
        return refused;
    }
    let body = axum::body::to_bytes(body, LARGEST);
    let body = match tokio::time::timeout(SLOWEST, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let said = format!("the request is larger than {LARGEST} bytes, or was cut off");
            return error(StatusCode::PAYLOAD_TOO_LARGE, said);
        }
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the request came too slowly"),
    };
    let request = match serde_json::from_slice(&body) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return error(StatusCode::BAD_REQUEST, "the request is no JSON object"),
        Err(e) => {
            let said = format!("the request is no JSON: {e}");
            return error(StatusCode::BAD_REQUEST, said);
        }
    };
    // What was begun comes to its end, also if whoever asked goes away.
    let work = tokio::spawn(async move {
        let _turn = served.at_work.acquire().await;
        served.service.reply(&request).await
    });
    match work.await {
        Ok(reply) => Json(reply).into_response(),
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending"),
    }
}

fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(reply::error(message))).into_response()
}
