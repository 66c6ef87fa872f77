//! Templates in the agent's API: `/v1/templates`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::http::{Served, refused};
use crate::dockermod::template;
use crate::dockermod::templates::Templates;
use crate::failure::Failure;

/// The routes.
pub(super) fn routes() -> Router<Served> {
    let one = get(show).put(put).delete(remove);
    Router::new()
        .route("/v1/templates", get(list))
        .route("/v1/templates/{name}", one)
}

fn templates(served: &Served) -> Templates {
    let keeper = served.keeper();
    Templates::new(Arc::clone(&keeper.replica), Arc::clone(&keeper.fleet))
}

fn history(served: &Served) -> usize {
    served.keeper().settings.borrow().history
}

fn failed(failure: Failure) -> Response {
    let status = match failure {
        Failure::Usage(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(status, failure)
}

fn none(name: &str) -> Response {
    let failure = Failure::failed(format!("there is no template {name}"))
        .help("`wharfie template ls` lists them");
    refused(StatusCode::NOT_FOUND, failure)
}

async fn list(State(served): State<Served>) -> Response {
    match templates(&served).list().await {
        Ok(list) => Json(list).into_response(),
        Err(failure) => failed(failure),
    }
}

async fn show(State(served): State<Served>, Path(name): Path<String>) -> Response {
    match templates(&served).get(&name).await {
        Ok(Some(template)) => Json(template).into_response(),
        Ok(None) => none(&name),
        Err(failure) => failed(failure),
    }
}

async fn put(State(served): State<Served>, Path(name): Path<String>, body: String) -> Response {
    let body = match template::parse(&body) {
        Ok(body) => body,
        Err(fault) => return failed(Failure::usage(fault.of(&format!("template {name}")))),
    };
    match templates(&served).put(&name, body, history(&served)).await {
        Ok(info) => Json(info).into_response(),
        Err(failure) => failed(failure),
    }
}

async fn remove(State(served): State<Served>, Path(name): Path<String>) -> Response {
    match templates(&served).remove(&name, history(&served)).await {
        Ok(true) => Json(()).into_response(),
        Ok(false) => none(&name),
        Err(failure) => failed(failure),
    }
}
