//! A change that concerns several nodes: its coordinator has each do its part, and each does it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wharfie_cluster::Record;
use wharfie_core::assignment::Assignments;
use wharfie_core::{Intent, Stack};

use super::act::{Work, unfinished};
use super::http::{AtWork, Served};
use super::keeper::{Keeper, now, with_replica};
use super::tunnel::hand_on;
use crate::api::{Fault, Message, Node, ShareRequest};
use crate::failure::Failure;

/// Somebody else may be at work on the stack: so long is waited until they are done.
const TURN: std::time::Duration = std::time::Duration::from_secs(20);

/// Records as they are sent.
pub(super) fn packed(records: &[Record]) -> String {
    STANDARD.encode(wharfie_cluster::encode(records))
}

impl Keeper {
    /// The other nodes that a change concerns: those that have tasks before or after it, or containers.
    pub(super) fn involved(
        &self,
        name: &str,
        intent: &Intent,
        before: &Assignments,
        after: &Assignments,
    ) -> Vec<Node> {
        if self.is_alone() {
            return Vec::new();
        }
        let assigned = |id: &str| {
            let mut all = before.values().chain(after.values());
            all.any(|a| a.tasks.values().any(|n| n == id))
        };
        let has = |node: &Node| {
            let report = self.fleet.report_of(node);
            report.is_some_and(|r| r.containers.iter().any(|c| c.project == name))
        };
        // Networks and volumes may be where tasks once were.
        let all = matches!(intent, Intent::Down { .. });
        let others = self.fleet.members().into_iter().filter(|n| !n.me);
        let concerned = |n: &Node| assigned(&n.id) || has(n) || (all && n.may_answer());
        others.filter(concerned).collect()
    }

    /// Asks other nodes to do their parts of a change, all at once. Those that have taken it do nothing
    /// else for the stack until they are done. Nodes that do not answer do theirs when they are back.
    pub(super) async fn ask_others(
        self: &Arc<Self>,
        name: &str,
        nodes: Vec<Node>,
        request: &ShareRequest,
        tell: &UnboundedSender<Message>,
    ) -> Vec<(Node, Response)> {
        if nodes.is_empty() {
            return Vec::new();
        }
        let body = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        let path = format!("/v1/stacks/{name}/share");
        let asked = nodes.into_iter().map(|node| {
            let built = HttpRequest::post(&path)
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body.clone()));
            async move {
                let why = match built {
                    _ if !node.may_answer() => node.away(),
                    Err(e) => format!("node {} cannot be asked: {e}", node.name),
                    Ok(request) => match hand_on(&self.fleet, &node, request).await {
                        Ok(answer) => return Some((node, answer)),
                        Err(failure) => failure.text(),
                    },
                };
                let _ = tell.send(Message::Noted { why });
                None
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Hears how other nodes do their parts; what went wrong.
    pub(super) async fn hear_others(
        answers: Vec<(Node, Response)>,
        tell: &UnboundedSender<Message>,
        mut cancel: watch::Receiver<bool>,
    ) -> Vec<Fault> {
        let heard = answers
            .into_iter()
            .map(|(node, answer)| hear(node, answer, tell));
        tokio::select! {
            faults = join_all(heard) => faults.into_iter().flatten().collect(),
            // The others give up as well: whoever asked them is gone.
            _ = cancel.wait_for(|c| *c) => Vec::new(),
        }
    }

    /// Does this node's part of a change that its coordinator has written.
    async fn do_share(
        self: &Arc<Self>,
        name: &str,
        request: ShareRequest,
        tell: &UnboundedSender<Message>,
        cancel: watch::Receiver<bool>,
    ) -> Result<(), Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let failed = |failure: Failure| vec![Fault::from(failure)];
        let slot = self.slot(name);
        // Two that take themselves for the coordinator must not wait for each other for ever.
        let kept = tokio::time::timeout(TURN, slot.kept.lock()).await;
        let mut kept = kept.map_err(|_| {
            failed(Failure::failed(
                "another change of the stack is at work there: try again",
            ))
        })?;
        if self.is_closing() {
            return Err(one(
                Failure::failed("the agent is just ending: try again").into()
            ));
        }
        let records = STANDARD.decode(&request.records).ok();
        let batch = records.and_then(|bytes| wharfie_cluster::decode(&bytes).ok());
        let Some(batch) = batch else {
            return Err(failed(Failure::failed("what was written cannot be read")));
        };
        let merged = with_replica(&self.replica, move |r| {
            r.merge(batch, u64::try_from(now()).unwrap_or(0)).map(drop)
        });
        if let Err(failure) = merged.await {
            self.set_unwritable(true);
            return Err(failed(failure));
        }
        // Where volumes are may be among it.
        self.reread().map_err(failed)?;
        self.read_kept(name, &mut kept).await.map_err(failed)?;
        let ShareRequest {
            intent,
            before,
            anew,
            halted,
            parallel,
            ..
        } = request;
        let project = intent
            .project()
            .or_else(|| kept.stack.as_ref().map(|s| s.project.clone()))
            .or_else(|| before.as_ref().map(|s| s.project.clone()));
        self.note_unfinished(
            name,
            &mut kept,
            unfinished(&intent, project.as_ref()).as_ref(),
        )
        .await
        .map_err(failed)?;
        let engine = self.engine().map_err(one)?;
        let look = async || {
            let scope = super::act::scope(&intent, name, project.as_ref());
            engine.observe(scope).await.map_err(|e| one(e.into()))
        };
        let mut seen = look().await?;
        let share = kept
            .stack
            .as_ref()
            .map(|stack| self.share_now(name, stack, &kept.assignments));
        let local = match project.clone() {
            Some(project) if share.is_some() => {
                let local = self.localize(project, share.as_ref()).await;
                Some(local.map_err(failed)?)
            }
            project => project,
        };
        let decide = |seen: &wharfie_core::Seen| {
            let plan = intent.plan(before.as_deref(), local.as_ref(), seen, share.as_ref());
            plan.map_err(|refusal| one(refusal.into()))
        };
        let mut plan = decide(&seen)?;
        if let Some(project) = project.as_ref().filter(|_| plan.makes_containers()) {
            let of = Stack {
                project: project.clone(),
                images: kept
                    .stack
                    .as_ref()
                    .map(|s| s.images.clone())
                    .unwrap_or_default(),
                ..Stack::default()
            };
            if self.take_images(&of, share.as_ref(), &seen).await {
                seen = look().await?;
                plan = decide(&seen)?;
            }
        }
        let work = Work {
            intent: &intent,
            project: local.as_ref(),
            seen: &seen,
            plan: &plan,
            anew: &anew,
            halted: &halted,
            parallel,
        };
        self.execute_here(&slot, &mut kept, work, tell, cancel)
            .await
    }
}

/// Hears how another node does its part; what went wrong.
async fn hear(node: Node, answer: Response, tell: &UnboundedSender<Message>) -> Vec<Fault> {
    let noted = |why: String| {
        let _ = tell.send(Message::Noted { why });
        Vec::new()
    };
    let mut pieces = answer.into_body().into_data_stream();
    let mut line = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        for byte in piece {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let message = serde_json::from_slice(&line);
            line.clear();
            let node = node.name.clone();
            match message {
                Ok(Message::Plan { plan, .. }) => {
                    let _ = tell.send(Message::Plan { plan, node });
                }
                Ok(Message::Step { step, event, .. }) => {
                    let _ = tell.send(Message::Step { node, step, event });
                }
                Ok(Message::Failed { failures }) => {
                    return failures
                        .into_iter()
                        .map(|fault| Fault {
                            what: format!("node {node}: {}", fault.what),
                            ..fault
                        })
                        .collect();
                }
                Ok(Message::Done { .. }) => return Vec::new(),
                Ok(Message::Waiting | Message::Noted { .. } | Message::Rollout { .. }) => {}
                Err(e) => {
                    return noted(format!("node {node}: its answer cannot be read: {e}"));
                }
            }
        }
    }
    noted(format!("node {} went away", node.name))
}

/// Gives up the work when it is dropped.
pub(super) struct Ends(pub(super) watch::Sender<bool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// An answer of one message a line. `work` is given what to tell with and what ends it when whoever
/// asked goes away.
pub(super) fn lines<M, F>(
    work: impl FnOnce(UnboundedSender<M>, watch::Receiver<bool>) -> F,
) -> Response
where
    M: serde::Serialize + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (tell, told) = unbounded_channel();
    let (cancel, cancelled) = watch::channel(false);
    tokio::spawn(work(tell, cancelled));
    let ends = Ends(cancel);
    let lines = UnboundedReceiverStream::new(told).map(move |message: M| {
        let _ends = &ends;
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

/// A node's part of a change. The answer is one message a line.
pub(super) async fn share(
    State(served): State<Served>,
    Path(name): Path<String>,
    Json(request): Json<ShareRequest>,
) -> Response {
    let at_work = AtWork::new(&served.agent.at_work);
    let keeper = Arc::clone(served.keeper());
    // From before it is said that the change is taken.
    let asking = keeper.slot(&name).ask();
    lines(|tell, cancelled| async move {
        let _asking = asking;
        let done = keeper.do_share(&name, request, &tell, cancelled).await;
        let last = match done {
            Ok(()) => Message::Done {
                revision: None,
                durable: None,
            },
            Err(failures) => Message::Failed { failures },
        };
        // Nobody may be left to hear it.
        let _ = tell.send(last);
        drop(at_work);
    })
}
