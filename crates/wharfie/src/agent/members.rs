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

fn cluster(served: &Served) -> Result<&Arc<Cluster>, Response> {
    served.agent.cluster.as_ref().ok_or_else(|| {
        let failure = Failure::failed("this agent takes part in no cluster");
        refused(StatusCode::CONFLICT, failure)
    })
}

async fn failed(error: ClusterError) -> Response {
    refused(StatusCode::CONFLICT, failure(error).await)
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
            match text.split_once(": ").or_else(|| text.split_once("; ")) {
                Some((what, help)) if !help.is_empty() => Failure::failed(what).help(help),
                _ => Failure::failed(text),
            }
        }
    }
}

async fn token(State(served): State<Served>, Json(request): Json<TokenRequest>) -> Response {
    let cluster = match cluster(&served) {
        Ok(cluster) => cluster,
        Err(response) => return response,
    };
    if request.ttl == 0 || request.ttl > LONGEST {
        let failure = Failure::usage("a token is good for a second at least and a week at most");
        return refused(StatusCode::BAD_REQUEST, failure);
    }
    match cluster.token(Duration::from_secs(request.ttl)).await {
        Ok(token) => Json(TokenReply {
            token: token.to_string(),
            expires: token.expires,
            addresses: token.addresses.iter().map(ToString::to_string).collect(),
        })
        .into_response(),
        Err(e) => failed(e).await,
    }
}

async fn join(State(served): State<Served>, Json(request): Json<JoinRequest>) -> Response {
    let cluster = match cluster(&served) {
        Ok(cluster) => cluster,
        Err(response) => return response,
    };
    let token: Token = match request.token.parse() {
        Ok(token) => token,
        Err(e) => return refused(StatusCode::BAD_REQUEST, Failure::usage(format!("{e}"))),
    };
    let former = served.fleet().me().id;
    match cluster.join(&token, request.name, request.new_key).await {
        Ok(()) => {
            served.keeper().follow_me(&former).await;
            Json(served.fleet().nodes()).into_response()
        }
        Err(e) => failed(e).await,
    }
}

fn node(served: &Served, wanted: &str) -> Result<NodeId, Response> {
    let found = served.fleet().find(wanted);
    let node = found.map_err(|f| refused(StatusCode::NOT_FOUND, f))?;
    let id = node.id.parse();
    id.map_err(|_| {
        refused(
            StatusCode::CONFLICT,
            Failure::failed("this node is in no cluster"),
        )
    })
}

async fn label(
    State(served): State<Served>,
    Path(wanted): Path<String>,
    Json(Labels { labels }): Json<Labels>,
) -> Response {
    let done = async {
        let cluster = cluster(&served)?;
        let node = node(&served, &wanted)?;
        match cluster.label(node, labels).await {
            Ok(()) => Ok(Json(served.fleet().find(&wanted).ok()).into_response()),
            Err(e) => Err(failed(e).await),
        }
    };
    done.await.unwrap_or_else(|response| response)
}

async fn remove(State(served): State<Served>, Path(wanted): Path<String>) -> Response {
    let done = async {
        let cluster = cluster(&served)?;
        let node = node(&served, &wanted)?;
        match cluster.remove(node).await {
            Ok(()) => Ok(Json(()).into_response()),
            Err(e) => Err(failed(e).await),
        }
    };
    done.await.unwrap_or_else(|response| response)
}
