//! Members in the agent's API: tokens, joining, labels, removal.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use wharfie_cluster::transport::BindError;
use wharfie_cluster::{Cluster, ClusterError, NodeId, Token};

use super::http::{Served, refused};
use crate::api::{JoinRequest, Labels, TokenReply, TokenRequest};
use crate::failure::Failure;

/// The longest life of a token, in seconds: a week.
const LONGEST: u64 = 7 * 24 * 3600;

/// The routes.
pub(super) fn routes() -> Router<Served> {
    Router::new()
        .route("/v1/cluster/token", post(token))
        .route("/v1/cluster/join", post(join))
        .route("/v1/nodes/{node}", post(label).delete(remove))
}

/// What cannot be done, and how it is answered.
type Refused = (StatusCode, Failure);

fn cluster(served: &Served) -> Result<&Arc<Cluster>, Refused> {
    let none = || Failure::failed("this agent takes part in no cluster");
    let cluster = served.agent.cluster.as_ref();
    cluster.ok_or_else(|| (StatusCode::CONFLICT, none()))
}

/// What is wrong, and what to do.
pub(super) async fn failure(error: ClusterError) -> Failure {
    match error {
        ClusterError::Store(e) => e.into(),
        ClusterError::Bind(BindError::InUse(address)) => {
            let owner = wharfie_host::port_owner(address.port(), None).await;
            Failure::failed(format!(
                "cannot listen for other nodes at {address}: {owner} has the port"
            ))
            .help("stop that, or set `cluster-listen` in the agent's settings")
        }
        other => {
            let text = other.to_string();
            match text.rsplit_once(": ").or_else(|| text.rsplit_once("; ")) {
                Some((what, help)) if !help.is_empty() => Failure::failed(what).help(help),
                _ => Failure::failed(text),
            }
        }
    }
}

async fn conflict(error: ClusterError) -> Refused {
    (StatusCode::CONFLICT, failure(error).await)
}

fn answer(outcome: Result<Response, Refused>) -> Response {
    outcome.unwrap_or_else(|(status, failure)| refused(status, failure))
}

async fn token(State(served): State<Served>, Json(request): Json<TokenRequest>) -> Response {
    let make = async {
        let cluster = cluster(&served)?;
        if request.ttl == 0 || request.ttl > LONGEST {
            let failure =
                Failure::usage("a token is good for a second at least and a week at most");
            return Err((StatusCode::BAD_REQUEST, failure));
        }
        let token = match cluster.token(Duration::from_secs(request.ttl)).await {
            Ok(token) => token,
            Err(e) => return Err(conflict(e).await),
        };
        let reply = TokenReply {
            token: token.to_string(),
            expires: token.expires,
            addresses: token.addresses.iter().map(ToString::to_string).collect(),
        };
        Ok(Json(reply).into_response())
    };
    answer(make.await)
}

async fn join(State(served): State<Served>, Json(request): Json<JoinRequest>) -> Response {
    let join = async {
        let cluster = cluster(&served)?;
        let token: Result<Token, _> = request.token.parse();
        let bad = |e| (StatusCode::BAD_REQUEST, Failure::usage(format!("{e}")));
        let token = token.map_err(bad)?;
        // Of a cluster that it was removed from nothing goes to another.
        if served.fleet().count() == 1 {
            let parted = served.keeper().part().await;
            parted.map_err(|f| (StatusCode::INTERNAL_SERVER_ERROR, f))?;
        }
        let former = served.fleet().id();
        if let Err(e) = cluster.join(&token, request.name, request.new_key).await {
            return Err(conflict(e).await);
        }
        served.keeper().follow_me(&former).await;
        Ok(Json(served.fleet().nodes()).into_response())
    };
    answer(join.await)
}

fn node(served: &Served, wanted: &str) -> Result<NodeId, Refused> {
    let found = served.fleet().find(wanted);
    let node = found.map_err(|f| (StatusCode::NOT_FOUND, f))?;
    let none = |_| Failure::failed("this node is in no cluster");
    node.id.parse().map_err(|e| (StatusCode::CONFLICT, none(e)))
}

async fn label(
    State(served): State<Served>,
    Path(wanted): Path<String>,
    Json(Labels { labels }): Json<Labels>,
) -> Response {
    let label = async {
        let (cluster, node) = (cluster(&served)?, node(&served, &wanted)?);
        match cluster.label(node, labels).await {
            Ok(()) => Ok(Json(served.fleet().find(&wanted).ok()).into_response()),
            Err(e) => Err(conflict(e).await),
        }
    };
    answer(label.await)
}

async fn remove(State(served): State<Served>, Path(wanted): Path<String>) -> Response {
    let remove = async {
        let (cluster, node) = (cluster(&served)?, node(&served, &wanted)?);
        match cluster.remove(node).await {
            Ok(()) => Ok(Json(()).into_response()),
            Err(e) => Err(conflict(e).await),
        }
    };
    answer(remove.await)
}
