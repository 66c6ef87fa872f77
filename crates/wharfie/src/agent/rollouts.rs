//! Rollouts, as far as this node decides about them: their next steps, and what people ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tracing::{info, warn};
use wharfie_core::Stack;
use wharfie_core::assignment::Assignments;
use wharfie_core::heal::Millis;
use wharfie_core::rollout::{self, Observed, Phase, Step};
use wharfie_core::wanted::task;

use super::coordinate::Assigned;
use super::home::Decides;
use super::http::{LARGEST_BODY, Served, refused};
use super::keeper::{Keeper, now};
use super::slot::{Kept, Slot};
use super::tunnel::hand_on;
use super::world::{Side, View};
use crate::api::{Change, Fault, Message, Rollout, RolloutChange};
use crate::failure::{Failure, Message as Words};

/// How often those who wait for a rollout are told how far it is.
const TELL: Duration = Duration::from_millis(100);

impl Keeper {
    /// What is seen of the tasks of a service, on the nodes that they are assigned to.
    fn observed(
        &self,
        view: &View,
        stack: &str,
        service: &str,
        tasks: &BTreeMap<u32, String>,
    ) -> BTreeMap<u32, Observed> {
        let each = tasks.iter().map(|(number, id)| {
            let found = view.nodes.iter().find(|(n, _)| n.id == *id);
            let report = found.and_then(|(_, report)| report.as_deref());
            let engine = report.is_some_and(|r| r.engine_away.is_none());
            let up = found.is_some_and(|(n, _)| n.me || n.may_answer());
            let mut seen = Observed {
                reachable: up && engine,
                ..Observed::default()
            };
            let Some(report) = report else {
                return (*number, seen);
            };
            let own = report.containers.iter().filter(|c| {
                c.project == stack && c.service == service && c.number == *number && !c.oneoff
            });
            // While one takes the other's place there are two.
            if let Some(c) = own.max_by_key(|c| c.state == wharfie_core::State::Running) {
                seen.revision.clone_from(&c.revision);
                seen.running = c.state == wharfie_core::State::Running;
                seen.health = c.health;
                seen.exit_code = c.exit_code;
            }
            let troubles = report.troubles.get(stack);
            let key = task(service, *number);
            let trouble = troubles.into_iter().flatten().find(|t| t.task == key);
            seen.trouble = trouble.filter(|t| t.failed).map(|t| t.reason.clone());
            (*number, seen)
        });
        each.collect()
    }

    /// Takes the next steps of a stack's rollouts; when to look again.
    pub(super) async fn step_rollouts(&self, slot: &Slot, kept: &mut Kept) -> Option<Millis> {
        let stack = kept.stack.clone()?;
        let going = |a: &wharfie_core::assignment::Assignment| {
            a.rollout.as_ref().is_some_and(|r| !r.is_over())
        };
        if !kept.assignments.values().any(going) {
            return None;
        }
        let view = self.view();
        let mut wake: Option<Millis> = None;
        for (service, assignment) in kept.assignments.clone() {
            if !going(&assignment) {
                continue;
            }
            let tasks = self.observed(&view, &slot.name, &service, &assignment.tasks);
            let memory = kept.memories.entry(service.clone()).or_default();
            let step = rollout::step(&stack, &service, &assignment, &tasks, memory, now());
            wake = wake.into_iter().chain(step.wake).min();
            if let Err(e) = self.take_step(slot, kept, &service, step).await {
                warn!(stack = slot.name, "{}", e.text());
                wake = Some(now() + 1_000);
            }
        }
        wake
    }

    /// Writes what follows from a step.
    async fn take_step(
        &self,
        slot: &Slot,
        kept: &mut Kept,
        service: &str,
        step: Step,
    ) -> Result<(), Failure> {
        let name = slot.name.as_str();
        if let Some(note) = &step.note {
            info!(stack = name, service, "rollout: {note}");
        }
        let mut assignments = kept.assignments.clone();
        assignments.extend(step.change.map(|a| (service.to_owned(), a)));
        let restored = step.restore.map(|stack| *stack);
        if let Some(after) = &restored {
            rollout::begin(kept.stack.as_ref(), after, &mut assignments, now());
        }
        let assigned = Assigned {
            assignments,
            ..Assigned::default()
        };
        let mut records = self.write_assigned(name, kept, assigned, "rollout").await?;
        if let Some(stack) = restored {
            let record = self.put_stack(name, Some(&stack), "rollback", None).await?;
            kept.revision = record.revision;
            kept.stack = Some(stack);
            records.push(record);
        }
        self.show(slot, kept);
        self.fleet.tell(records);
        slot.wake.notify_one();
        Ok(())
    }

    /// The rollouts of a stack, by service: those that go on, and the last ones.
    pub(super) fn rollouts(&self, name: &str) -> Vec<Rollout> {
        let Some(entry) = self.book.stack(name) else {
            return Vec::new();
        };
        let view = self.view();
        let with = entry
            .assignments
            .iter()
            .filter(|(_, a)| a.rollout.is_some());
        let each = with.filter_map(|(service, assignment)| {
            let tasks = self.observed(&view, name, service, &assignment.tasks);
            let status = rollout::status(&entry.stack, service, assignment, &tasks)?;
            Some(Rollout {
                over: assignment
                    .rollout
                    .as_ref()
                    .is_some_and(rollout::Rollout::is_over),
                status,
            })
        });
        each.collect()
    }

    /// Tells how the rollouts of a stack go that were begun, until they have ended; fails if one came
    /// to a halt.
    pub(super) async fn follow_rollouts(
        &self,
        name: &str,
        since: Millis,
        tell: &UnboundedSender<Message>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<(), Vec<Fault>> {
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let entry = self.book.stack(name);
            let assignments = entry.map(|e| e.assignments).unwrap_or_default();
            let mine = |a: &wharfie_core::assignment::Assignment| {
                a.rollout.as_ref().is_some_and(|r| r.began >= since)
            };
            let mut left = false;
            let mut faults = Vec::new();
            for rollout in self.rollouts(name) {
                let assignment = assignments.get(&rollout.status.service).filter(|a| mine(a));
                let Some(of) = assignment.and_then(|a| a.rollout.as_ref()) else {
                    continue;
                };
                let line = rollout.status.to_string();
                if told.get(&rollout.status.service) != Some(&line) {
                    let _ = tell.send(Message::Rollout {
                        service: rollout.status.service.clone(),
                        status: line.clone(),
                        over: rollout.over,
                    });
                    told.insert(rollout.status.service.clone(), line.clone());
                }
                match &of.phase {
                    Phase::Updating | Phase::RollingBack(_) if view_is_smaller(self) => {
                        let why = "less than half of the nodes answer: it goes on with the others";
                        faults.push(halted(name, &rollout.status.service, "waits", why));
                    }
                    Phase::Updating | Phase::RollingBack(_) => left = true,
                    Phase::Completed => {}
                    Phase::Paused(why) => {
                        faults.push(halted(name, &rollout.status.service, "came to a halt", why));
                    }
                    Phase::RolledBack(why) => {
                        faults.push(halted(name, &rollout.status.service, "was taken back", why));
                    }
                }
            }
            if !left {
                return match faults.is_empty() {
                    true => Ok(()),
                    false => Err(faults),
                };
            }
            tokio::select! {
                () = tokio::time::sleep(TELL) => {}
                // The rollout goes on.
                _ = cancel.wait_for(|c| *c) => return Err(Vec::new()),
            }
        }
    }

    /// Pauses, resumes or takes back rollouts.
    async fn change_rollouts(
        self: &Arc<Self>,
        name: &str,
        change: &RolloutChange,
    ) -> Result<Vec<Rollout>, Failure> {
        let slot = self.slot(name);
        let _asking = slot.ask();
        let mut kept = slot.kept.lock().await;
        let Some(stack) = kept.stack.clone() else {
            return Err(Failure::failed(format!("stack {name} is not wanted")));
        };
        for service in &change.services {
            if !stack.active.contains(service) {
                return Err(Failure::usage(format!("no such service: {service}")));
            }
        }
        let services = chosen(&kept.assignments, change);
        if services.is_empty() {
            return Err(Failure::failed(format!(
                "stack {name} has no rollout to {}",
                change.change.word()
            )));
        }
        for service in services {
            let step = self.asked_step(&stack, &kept, &service, change.change)?;
            self.take_step(&slot, &mut kept, &service, step).await?;
        }
        drop(kept);
        Ok(self.rollouts(name))
    }

    fn asked_step(
        &self,
        stack: &Stack,
        kept: &Kept,
        service: &str,
        change: Change,
    ) -> Result<Step, Failure> {
        let none = wharfie_core::assignment::Assignment::default();
        let assignment = kept.assignments.get(service).unwrap_or(&none);
        let step = match change {
            Change::Pause => rollout::pause(service, assignment, "it was asked to pause"),
            Change::Resume => rollout::resume(service, assignment),
            Change::Undo => rollout::undo(stack, service, assignment, "it was asked for", now()),
        };
        step.map_err(|refused| Failure::failed(refused.to_string()))
    }
}

fn view_is_smaller(keeper: &Keeper) -> bool {
    !keeper.is_alone() && keeper.view().side() == Side::Smaller
}

fn halted(stack: &str, service: &str, what: &str, why: &str) -> Fault {
    Failure::Failed(Words {
        what: format!("the rollout of {service} {what}: {why}"),
        help: Some(format!(
            "`wharfie -p {stack} rollout status` tells more; `rollout resume` or `rollout undo` goes on"
        )),
    })
    .into()
}

/// The services that are meant: those that are named, or all that the change applies to.
fn chosen(assignments: &Assignments, change: &RolloutChange) -> Vec<String> {
    if !change.services.is_empty() {
        return change.services.clone();
    }
    let applies = |phase: &Phase| match change.change {
        Change::Pause => matches!(phase, Phase::Updating | Phase::RollingBack(_)),
        Change::Resume => matches!(phase, Phase::Paused(_)),
        Change::Undo => matches!(phase, Phase::Updating | Phase::Paused(_)),
    };
    let with = assignments.iter();
    let with = with.filter(|(_, a)| a.rollout.as_ref().is_some_and(|r| applies(&r.phase)));
    with.map(|(service, _)| service.clone()).collect()
}

/// The rollouts of a stack.
pub(super) async fn status(State(served): State<Served>, Path(name): Path<String>) -> Response {
    Json(served.keeper().rollouts(&name)).into_response()
}

/// Changes rollouts of a stack.
pub(super) async fn change(
    State(served): State<Served>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    if let Decides::Other(node) = served.decides(&name, &request) {
        let (parts, body) = request.into_parts();
        let request = HttpRequest::from_parts(parts, Body::new(body));
        return match hand_on(served.fleet(), &node, request).await {
            Ok(answer) => answer,
            Err(failure) => refused(StatusCode::BAD_GATEWAY, failure),
        };
    }
    let body = axum::body::to_bytes(request.into_body(), LARGEST_BODY).await;
    let change = body.ok().and_then(|b| serde_json::from_slice(&b).ok());
    let Some(change) = change else {
        let failure = Failure::usage("the request cannot be understood");
        return refused(StatusCode::BAD_REQUEST, failure);
    };
    match served.keeper().change_rollouts(&name, &change).await {
        Ok(rollouts) => Json(rollouts).into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}
