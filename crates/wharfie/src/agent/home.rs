//! Requests about stacks: each is answered by the stack's home, the node that keeps it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio_stream::wrappers::UnboundedReceiverStream;

use wharfie_core::Stack;

use super::fleet::{Fleet, PATIENCE, unreachable};
use super::http::{AtWork, LARGEST_BODY, Served, refused};
use super::tunnel::{HANDED_ON, hand_on};
use crate::api::{Message, Node, NodeState, Request, StackInfo, Version};
use crate::failure::Failure;

/// Where a stack is kept.
enum Home {
    /// On this node, or nowhere yet.
    Here,
    /// On another one.
    There(Box<Node>),
}

impl Served {
    /// Where a stack is kept, or is to be if it is on no node yet and one is named.
    async fn home(&self, stack: &str, on: Option<&str>) -> Result<Home, Failure> {
        let fleet = self.fleet();
        let named = on.map(|on| fleet.find(on)).transpose()?;
        let home = match self.keeper().home(stack).await? {
            // It is from the time before there were others.
            Some(id) if id.is_empty() => Some(fleet.me()),
            // What was kept by a node that is gone for good may be kept by any.
            Some(id) => fleet.by_id(&id).filter(|n| n.state != NodeState::Removed),
            None => None,
        };
        let node = match (home, named) {
            (Some(home), Some(named)) if home.id != named.id => {
                return Err(Failure::usage(format!(
                    "stack {stack} is on node {}, not on {}",
                    home.name, named.name
                ))
                .help("take it down first (`wharfie down`); volumes stay where they are"));
            }
            (Some(node), _) | (None, Some(node)) => node,
            (None, None) => return Ok(Home::Here),
        };
        Ok(if node.me {
            Home::Here
        } else {
            Home::There(Box::new(node))
        })
    }
}

/// Lets the home answer.
async fn there(fleet: &Arc<Fleet>, stack: &str, node: &Node, request: HttpRequest) -> Response {
    if let Some(by) = request.headers().get(HANDED_ON) {
        let by = by.to_str().unwrap_or("another");
        let failure = Failure::failed(format!(
            "node {by} takes {} for the home of stack {stack}, which is on {}",
            fleet.me().name,
            node.name
        ));
        let failure = failure.help("they are just learning it: try again");
        return refused(StatusCode::CONFLICT, failure);
    }
    if !node.may_answer() {
        let failure = unreachable(format!("stack {stack} is out of reach: {}", node.away()));
        let failure =
            failure.help("what runs there goes on; `wharfie ls` shows what can be reached");
        return refused(StatusCode::BAD_GATEWAY, failure);
    }
    match hand_on(fleet, node, request).await {
        Ok(response) => response,
        Err(failure) => {
            let failure = unreachable(format!("stack {stack} is out of reach: {}", failure.text()));
            refused(StatusCode::BAD_GATEWAY, failure)
        }
    }
}

/// What is asked of a listing.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    /// Only those that this node keeps.
    #[serde(default)]
    here: bool,
}

/// All stacks, by name.
pub(super) async fn stacks(
    State(served): State<Served>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<StackInfo>>, Response> {
    let fleet = served.fleet();
    let me = fleet.me();
    let slots = served.keeper().slots();
    let mut all: Vec<StackInfo> = slots.iter().filter_map(|s| s.shown()).collect();
    all.iter_mut().for_each(|s| s.node.clone_from(&me.name));
    if which.here || fleet.count() < 2 {
        return Ok(Json(all));
    }
    let nodes = fleet.nodes();
    let others = nodes.iter().filter(|n| !n.me && n.may_answer());
    let asked = join_all(others.map(|node| stacks_of(fleet, node))).await;
    all.extend(asked.into_iter().flatten().flatten());
    // Of those whose home does not answer is known what is wanted of them.
    let known: BTreeSet<String> = all.iter().map(|s| s.name.clone()).collect();
    let stored = served.keeper().stored().await;
    let stored = stored.map_err(|f| refused(StatusCode::INTERNAL_SERVER_ERROR, f))?;
    for (name, revision, stack) in stored {
        if known.contains(&name) || stack.home.is_empty() || stack.home == me.id {
            continue;
        }
        let node = nodes.iter().find(|n| n.id == stack.home);
        all.push(out_of_reach(name, revision, stack, node));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all))
}

/// What is known of a stack whose home does not answer.
fn out_of_reach(name: String, revision: u64, stack: Stack, home: Option<&Node>) -> StackInfo {
    StackInfo {
        name,
        revision,
        services: stack.active.iter().cloned().collect(),
        halted: stack.halted.iter().cloned().collect(),
        troubles: Vec::new(),
        trouble: Some(match home {
            Some(node) if !node.may_answer() => node.away(),
            Some(node) => format!("node {} does not answer", node.name),
            None => "its node is of the cluster no longer".to_owned(),
        }),
        node: home.map(|n| n.name.clone()).unwrap_or_default(),
        home: stack.home,
    }
}

/// The stacks that a node keeps, if it answers in time.
async fn stacks_of(fleet: &Arc<Fleet>, node: &Node) -> Option<Vec<StackInfo>> {
    let ask = async {
        let request = HttpRequest::get("/v1/stacks?here=true").body(Body::empty());
        let response = hand_on(fleet, node, request.ok()?).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}

/// One stack.
pub(super) async fn stack(
    State(served): State<Served>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    match served.home(&name, None).await {
        Err(failure) => refused(StatusCode::NOT_FOUND, failure),
        // What is wanted of it is known here too.
        Ok(Home::There(node)) if !node.may_answer() => {
            match served.keeper().stored_one(&name).await {
                Ok(Some((revision, stack))) => {
                    Json(out_of_reach(name, revision, stack, Some(&node))).into_response()
                }
                Ok(None) => refused(
                    StatusCode::NOT_FOUND,
                    Failure::failed(format!("stack {name} is not wanted")),
                ),
                Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, failure),
            }
        }
        Ok(Home::There(node)) => there(served.fleet(), &name, &node, request).await,
        Ok(Home::Here) => {
            let slots = served.keeper().slots();
            let slot = slots.iter().find(|s| s.name == name);
            match slot.and_then(|s| s.shown()) {
                Some(info) => {
                    let node = served.fleet().me().name;
                    Json(StackInfo { node, ..info }).into_response()
                }
                None => refused(
                    StatusCode::NOT_FOUND,
                    Failure::failed(format!("stack {name} is not wanted")),
                ),
            }
        }
    }
}

/// The history of a stack. Without its home what this node knows of it is told.
pub(super) async fn history(
    State(served): State<Served>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    if let Ok(Home::There(node)) = served.home(&name, None).await
        && node.may_answer()
        && !request.headers().contains_key(HANDED_ON)
        && let Ok(response) = hand_on(served.fleet(), &node, request).await
    {
        return response;
    }
    match served.keeper().history(&name).await {
        Ok(versions) => Json::<Vec<Version>>(versions).into_response(),
        Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// Gives up the work when it is dropped.
struct Ends(tokio::sync::watch::Sender<bool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The answer is one message a line. If whoever asked goes away, the work ends.
pub(super) async fn act(
    State(served): State<Served>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(e) => {
            let failure = Failure::usage(format!("the request cannot be read: {e}"));
            return refused(StatusCode::PAYLOAD_TOO_LARGE, failure);
        }
    };
    let asked: Request = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(e) => {
            let failure = Failure::usage(format!("the request cannot be understood: {e}"))
                .help("`wharfie version` shows both versions: they should be the same");
            return refused(StatusCode::BAD_REQUEST, failure);
        }
    };
    let at_work = AtWork::new(&served.agent.at_work);
    match served.home(&name, asked.on.as_deref()).await {
        Err(failure) => refused(StatusCode::BAD_REQUEST, failure),
        Ok(Home::There(node)) if !node.may_answer() && !parts.headers.contains_key(HANDED_ON) => {
            let noted = served.keeper().note_for(&name, &node, asked).await;
            let last = match noted {
                Ok((revision, durable)) => vec![
                    Message::Noted { home: node.away() },
                    Message::Done { revision, durable },
                ],
                Err(fault) => vec![Message::Failed {
                    failures: vec![fault],
                }],
            };
            let mut lines = Vec::new();
            for message in last {
                lines.extend(serde_json::to_vec(&message).unwrap_or_default());
                lines.push(b'\n');
            }
            let kind = [(axum::http::header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, lines).into_response()
        }
        Ok(Home::There(node)) => {
            let request = HttpRequest::from_parts(parts, Body::from(body));
            let answer = there(served.fleet(), &name, &node, request).await;
            let (parts, body) = answer.into_parts();
            let pieces = body.into_data_stream().map(move |piece| {
                let _at_work = &at_work;
                piece
            });
            Response::from_parts(parts, Body::from_stream(pieces))
        }
        Ok(Home::Here) => {
            let (tell, told) = tokio::sync::mpsc::unbounded_channel();
            let keeper = Arc::clone(served.keeper());
            let (cancel, cancelled) = tokio::sync::watch::channel(false);
            tokio::spawn(async move {
                keeper.act(name, asked, tell, cancelled).await;
                drop(at_work);
            });
            let ends = Ends(cancel);
            let lines = UnboundedReceiverStream::new(told).map(move |message| {
                let _ends = &ends;
                let mut line = serde_json::to_vec(&message).unwrap_or_default();
                line.push(b'\n');
                Ok::<_, Infallible>(Bytes::from(line))
            });
            let kind = [(axum::http::header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, Body::from_stream(lines)).into_response()
        }
    }
}
