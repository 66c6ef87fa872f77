//! Requests about stacks: each is decided by the stack's coordinator, among the nodes that answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::http::{AtWork, LARGEST_BODY, Served, refused};
use super::keeper::Keeper;
use super::spread;
use super::tunnel::{HANDED_ON, hand_on};
use crate::api::{Node, Request, StackInfo, Version};
use crate::failure::Failure;

/// Who decides for a stack.
pub(super) enum Decides {
    /// This node.
    Me,
    /// Another one.
    Other(Box<Node>),
}

impl Served {
    /// Who decides for a stack. A request that was handed on is decided here: whoever handed it on has
    /// heard of something that this node has not, or the other way round.
    pub(super) fn decides(&self, stack: &str, request: &HttpRequest) -> Decides {
        let fleet = self.fleet();
        if self.keeper().is_alone() || request.headers().contains_key(HANDED_ON) {
            return Decides::Me;
        }
        let coordinator = self.keeper().coordinator(stack);
        match coordinator.and_then(|id| fleet.by_id(&id)) {
            Some(node) if !node.me => Decides::Other(Box::new(node)),
            _ => Decides::Me,
        }
    }
}

/// What is known on this node of a stack: what is wanted, where its tasks are, why some wait.
fn known(keeper: &Keeper, name: &str, shown: Option<StackInfo>) -> Option<StackInfo> {
    let entry = keeper.book.stack(name)?;
    let nodes = keeper.fleet.members();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let tasks = entry.assignments.values().flat_map(|a| a.tasks.values());
    tasks.for_each(|id| *count.entry(id).or_default() += 1);
    let mut on: Vec<&Node> = nodes
        .iter()
        .filter(|n| count.contains_key(n.id.as_str()))
        .collect();
    if keeper.is_alone() {
        on = nodes.iter().filter(|n| n.me).collect();
    }
    on.sort_by(|a, b| a.name.cmp(&b.name));
    // The one with most of it, of those that answer.
    let most = on.iter().filter(|n| n.me || n.may_answer());
    let most = most.max_by_key(|n| (count.get(n.id.as_str()), n.id == entry.stack.home));
    let reasons = keeper.waiting(name, &entry.stack);
    let trouble = shown.as_ref().and_then(|s| s.trouble.clone());
    let mut troubles = shown.map(|s| s.troubles).unwrap_or_default();
    for node in nodes.iter().filter(|n| !n.me && n.may_answer()) {
        let report = keeper.fleet.report_of(node);
        let of = report.and_then(|r| r.troubles.get(name).cloned());
        troubles.extend(of.unwrap_or_default());
    }
    Some(StackInfo {
        name: name.to_owned(),
        revision: keeper.revision(name),
        services: entry.stack.active.iter().cloned().collect(),
        halted: entry.stack.halted.iter().cloned().collect(),
        troubles,
        trouble: trouble.or_else(|| (!reasons.is_empty()).then(|| reasons.join("; "))),
        node: on
            .iter()
            .map(|n| n.name.clone())
            .collect::<Vec<_>>()
            .join(","),
        home: most.map_or_else(|| entry.stack.home.clone(), |n| n.id.clone()),
    })
}

/// All stacks, by name.
pub(super) async fn stacks(State(served): State<Served>) -> Json<Vec<StackInfo>> {
    let keeper = served.keeper();
    let slots = keeper.slots();
    let all = slots
        .iter()
        .filter_map(|s| known(keeper, &s.name, s.shown()));
    Json(all.collect())
}

/// One stack.
pub(super) async fn stack(State(served): State<Served>, Path(name): Path<String>) -> Response {
    let keeper = served.keeper();
    let slots = keeper.slots();
    let slot = slots.iter().find(|s| s.name == name);
    match slot.and_then(|s| known(keeper, &name, s.shown())) {
        Some(info) => Json(info).into_response(),
        None => refused(
            StatusCode::NOT_FOUND,
            Failure::failed(format!("stack {name} is not wanted")),
        ),
    }
}

/// The history of a stack.
pub(super) async fn history(State(served): State<Served>, Path(name): Path<String>) -> Response {
    match served.keeper().history(&name).await {
        Ok(versions) => Json::<Vec<Version>>(versions).into_response(),
        Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// The answer is one message a line. If whoever asked goes away, the work ends.
pub(super) async fn act(
    State(served): State<Served>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    let decides = served.decides(&name, &request);
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(e) => {
            let failure = Failure::usage(format!("the request cannot be read: {e}"));
            return refused(StatusCode::PAYLOAD_TOO_LARGE, failure);
        }
    };
    let mut asked: Request = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(e) => {
            let failure = Failure::usage(format!("the request cannot be understood: {e}"))
                .help("`wharfie version` shows both versions: they should be the same");
            return refused(StatusCode::BAD_REQUEST, failure);
        }
    };
    let on = asked.on.as_deref().map(|on| served.fleet().find(on));
    if let Some(Err(failure)) = on {
        return refused(StatusCode::BAD_REQUEST, failure);
    }
    let at_work = AtWork::new(&served.agent.at_work);
    if let Decides::Other(node) = decides {
        // What is new is at home where it was asked for.
        asked.on = asked.on.or_else(|| Some(served.fleet().id()));
        let body = serde_json::to_vec(&asked).unwrap_or_default();
        let mut request = HttpRequest::from_parts(parts, Body::from(body));
        request.headers_mut().remove(CONTENT_LENGTH);
        match hand_on(served.fleet(), &node, request).await {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let pieces = body.into_data_stream().map(move |piece| {
                    let _at_work = &at_work;
                    piece
                });
                return Response::from_parts(parts, Body::from_stream(pieces));
            }
            // It went away a moment ago: then it is this node's to decide.
            Err(failure) => tracing::warn!(stack = name, "{}; it is done here", failure.text()),
        }
    }
    let keeper = Arc::clone(served.keeper());
    spread::lines(|tell, cancelled| async move {
        keeper.act(name, asked, tell, cancelled).await;
        drop(at_work);
    })
}
