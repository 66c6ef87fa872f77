//! What people ask of nodes and of placement: to be empty, to be even, to say why.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wharfie_cluster::Options;
use wharfie_core::assignment::Assignments;
use wharfie_core::schedule::{self, Verdict};

use super::coordinate::{Assigned, waits};
use super::http::{Served, refused};
use super::keeper::{Keeper, now, with_replica};
use super::world::{self, NODE, NodeWanted};
use crate::api::{Drain, Explained, Moved, Rebalance};
use crate::failure::Failure;

impl Keeper {
    /// Has everything that runs on a node go elsewhere, or lets tasks come to it again.
    async fn drain(self: &Arc<Self>, id: String, drained: bool) -> Result<(), Failure> {
        let value = serde_json::to_value(NodeWanted { drained }).ok();
        let record = with_replica(&self.replica, move |r| {
            let at = u64::try_from(now()).unwrap_or(0);
            let word = if drained {
                "node drain"
            } else {
                "node undrain"
            };
            r.put((NODE, &id), value, (word, at), Options::default(), None)
        })
        .await?;
        self.reread()?;
        self.fleet.tell(vec![record]);
        self.review_all();
        Ok(())
    }

    /// Moves that even out where tasks run; made, unless it is only asked which.
    async fn rebalance(self: &Arc<Self>, wanted: &Rebalance) -> Result<Vec<Moved>, Failure> {
        let known = self.book.stacks();
        if let Some(name) = wanted.stacks.iter().find(|s| !known.contains_key(*s)) {
            return Err(Failure::usage(format!("stack {name} is not wanted")));
        }
        let called = |id: &str| {
            self.fleet
                .by_id(id)
                .map_or_else(|| id.to_owned(), |n| n.name)
        };
        let mut all = Vec::new();
        for (name, entry) in &known {
            if !(wanted.stacks.is_empty() || wanted.stacks.contains(name)) {
                continue;
            }
            let slot = self.slot(name);
            let _asking = slot.ask();
            let mut kept = slot.kept.lock().await;
            let view = self.view();
            // With what the moves before this one changed.
            let cluster = view.cluster(&self.book.stacks());
            let tasks = world::tasks(&kept.assignments);
            let moves = schedule::rebalance(&entry.stack, &tasks, &cluster);
            all.extend(moves.iter().map(|m| Moved {
                stack: name.clone(),
                task: format!("{}/{}", m.service, m.slot),
                from: called(&m.from),
                to: called(&m.to),
            }));
            if wanted.dry_run || moves.is_empty() {
                continue;
            }
            let mut assignments: Assignments = kept.assignments.clone();
            for m in moves {
                if let Some(assignment) = assignments.get_mut(&m.service) {
                    assignment.tasks.insert(m.slot, m.to);
                }
            }
            let assigned = Assigned {
                assignments,
                ..Assigned::default()
            };
            let records = self.write_assigned(name, &mut kept, assigned, "rebalance");
            self.fleet.tell(records.await?);
        }
        Ok(all)
    }
}

/// Drains a node, or takes that back.
pub(super) async fn drain(
    State(served): State<Served>,
    Path(wanted): Path<String>,
    Json(Drain { drained }): Json<Drain>,
) -> Response {
    let node = match served.fleet().find(&wanted) {
        Ok(node) => node,
        Err(failure) => return refused(StatusCode::NOT_FOUND, failure),
    };
    match served.keeper().drain(node.id, drained).await {
        Ok(()) => Json(()).into_response(),
        Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// Evens out.
pub(super) async fn rebalance(
    State(served): State<Served>,
    Json(wanted): Json<Rebalance>,
) -> Response {
    match served.keeper().rebalance(&wanted).await {
        Ok(moved) => Json(moved).into_response(),
        Err(failure) => refused(StatusCode::BAD_REQUEST, failure),
    }
}

/// Why each task of a stack is where it is, or would be if the stack were so.
pub(super) async fn explain(
    State(served): State<Served>,
    Path(name): Path<String>,
    Json(stack): Json<Option<wharfie_core::Stack>>,
) -> Response {
    let keeper = served.keeper();
    let entry = keeper.book.stack(&name);
    let stack = stack.or_else(|| entry.map(|e| e.stack.as_ref().clone()));
    let Some(mut stack) = stack else {
        let failure = Failure::failed(format!("stack {name} is not wanted"));
        return refused(StatusCode::NOT_FOUND, failure);
    };
    if stack.home.is_empty() {
        stack.home = keeper.fleet.id();
    }
    let called = |id: String| keeper.fleet.by_id(&id).map_or(id, |n| n.name);
    let decisions = match keeper.is_alone() {
        true => Vec::new(),
        false => keeper.explain(&name, &stack),
    };
    let each = decisions.into_iter().map(|d| {
        let (node, why) = match d.verdict {
            Verdict::Stays { on } => (Some(called(on)), "it stays".to_owned()),
            Verdict::Chosen { on, why } => (Some(called(on)), why),
            Verdict::Moved { from, to, why } => {
                let why = format!("moved from {}: {why}", called(from));
                (Some(called(to)), why)
            }
            Verdict::Waits { on, why } => (on.map(&called), waits(&why)),
        };
        Explained {
            task: format!("{}/{}", d.service, d.slot),
            node,
            why,
        }
    });
    Json::<Vec<Explained>>(each.collect()).into_response()
}
