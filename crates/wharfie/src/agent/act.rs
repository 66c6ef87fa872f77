//! Carries out what somebody asks for: writes down what is wanted, then does it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tracing::info;
use wharfie_cluster::{Options, Record};
use wharfie_compose::model::Project;
use wharfie_core::assignment::Assignments;
use wharfie_core::intent::Change;
use wharfie_core::reconcile::Refusal;
use wharfie_core::rollout;
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, Plan, Seen, Stack};
use wharfie_host::{Engine, Event, ExecuteContext, Progress, Scope};

use super::coordinate::Assigned;
use super::keeper::{Keeper, STACK, UNFINISHED, now, with_replica};
use super::slot::{Kept, Slot};
use super::spread;
use super::world::Side;
use crate::api::{Durable, Fault, FaultKind, Message, Request, ShareRequest, Version, What};
use crate::failure::Failure;

/// How long is waited until a change is durable on all nodes that are up; and on as many as were
/// asked for.
const USUAL: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(30);

/// After this time somebody who waits for others is told so.
const TELL: Duration = Duration::from_millis(300);

impl Keeper {
    /// Carries out a request, and tells how it goes. When `cancel` becomes true the work is given up
    /// in order; what is wanted stays, and healing goes on with it.
    pub(super) async fn act(
        self: Arc<Self>,
        name: String,
        request: Request,
        tell: UnboundedSender<Message>,
        mut cancel: watch::Receiver<bool>,
    ) {
        let since = now();
        let carried = self.carry_out(&name, request, &tell, cancel.clone()).await;
        let followed = match carried {
            Ok(done) => {
                let rollouts = self.follow_rollouts(&name, since, &tell, &mut cancel);
                rollouts.await.map(|()| done)
            }
            Err(faults) => Err(faults),
        };
        let last = match followed {
            Ok((revision, durable)) => Message::Done { revision, durable },
            Err(failures) => Message::Failed { failures },
        };
        // Nobody may be left to hear it.
        let _ = tell.send(last);
    }

    async fn carry_out(
        self: &Arc<Self>,
        name: &str,
        request: Request,
        tell: &UnboundedSender<Message>,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<(Option<u64>, Option<Durable>), Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let slot = self.slot(name);
        let _asking = slot.ask();
        let mut kept = match tokio::time::timeout(TELL, slot.kept.lock()).await {
            Ok(kept) => kept,
            Err(_) => {
                let _ = tell.send(Message::Waiting);
                tokio::select! {
                    kept = slot.kept.lock() => kept,
                    _ = cancel.wait_for(|c| *c) => return Err(Vec::new()),
                }
            }
        };
        if self.is_closing() {
            return Err(one(
                Failure::failed("the agent is just ending: try again").into()
            ));
        }
        self.check_replicated(request.replicated)
            .map_err(|failure| one(failure.into()))?;
        let intent = self.intent(name, request.what).await.map_err(one)?;
        let project = intent
            .project()
            .or_else(|| kept.stack.as_ref().map(|s| s.project.clone()));
        let mut seen = self
            .look(name, &intent, project.as_ref())
            .await
            .map_err(one)?;
        let before = kept.stack.clone();
        let (_, others) = self.view().containers(name);
        let mut all = seen.clone().unwrap_or_default();
        all.containers
            .extend(others.into_iter().map(|o| o.container));
        // Networks of the cluster are made where somebody comes to be on them.
        let book = self.book.networks();
        for (network, _) in book.networks.iter().filter(|(_, n)| n.stack != name) {
            all.networks.entry(network.clone()).or_default();
        }
        let former = before
            .as_ref()
            .map(|stack| self.share(name, stack, &kept.assignments));
        let decision = intent.decide(before.as_ref(), project.as_ref(), &all, former.as_ref());
        let decision = decision.map_err(|refusal| one(refusal.into()))?;
        let mut change = self.at_home(decision.change, before.as_ref(), request.on.as_deref());
        if let Change::Put(stack) = &mut change
            && !self.is_alone()
        {
            stack.images.extend(request.images);
            let project = &stack.project;
            let named = project.services.values();
            let named = named.map(|s| wharfie_core::names::image(project, s));
            let named: BTreeSet<String> = named.collect();
            stack.images.retain(|name, _| named.contains(name));
        }
        let after = match &change {
            Change::Put(stack) => Some(stack.as_ref().clone()),
            Change::Keep => before.clone(),
            Change::Delete => None,
        };
        let assigned = match &after {
            Some(stack) => self.assign_changed(name, before.as_ref(), stack, &kept.assignments),
            None => Assigned::default(),
        };
        let share = after
            .as_ref()
            .map(|stack| self.share_now(name, stack, &assigned.assignments));
        // Before anything is planned: what is made refers to networks.
        let networks = match (&change, &after) {
            (Change::Put(_), Some(stack)) => self.allot_all(stack, &assigned.assignments),
            _ => Ok(Vec::new()),
        };
        let networks = networks.map_err(|failure| one(failure.into()))?;
        let networks = self.put_networks(networks, intent.word()).await;
        let networks = networks.map_err(|failure| one(failure.into()))?;
        let project = match project {
            Some(project) if share.is_some() => {
                let local = self.localize(project, share.as_ref()).await;
                Some(local.map_err(|failure| one(failure.into()))?)
            }
            project => project,
        };
        let mut plan = Plan::default();
        if let Some(seen) = &mut seen {
            let decide =
                |seen: &Seen| intent.plan(before.as_ref(), project.as_ref(), seen, share.as_ref());
            plan = decide(seen).map_err(|refusal| one(refusal.into()))?;
            let taken = match project.as_ref().filter(|_| plan.makes_containers()) {
                Some(_) if self.is_alone() => false,
                Some(project) => {
                    let of = Stack {
                        project: project.clone(),
                        images: after.as_ref().map(|s| s.images.clone()).unwrap_or_default(),
                        ..Stack::default()
                    };
                    self.take_images(&of, share.as_ref(), seen).await
                }
                None => false,
            };
            if taken
                && let Some(again) = self
                    .look(name, &intent, project.as_ref())
                    .await
                    .map_err(one)?
            {
                plan = decide(&again).map_err(|refusal| one(refusal.into()))?;
                *seen = again;
            }
        }
        let involved = self.involved(name, &intent, &kept.assignments, &assigned.assignments);
        let unfinished = unfinished(&intent, project.as_ref());
        let halted = |kept: &Kept| kept.stack.as_ref().map(|s| s.halted.clone());
        let halted_before = halted(&kept).unwrap_or_default();
        // Where tasks are is written first: as long as both do not agree, nodes wait.
        let placed = self
            .write_assigned(name, &mut kept, assigned, intent.word())
            .await
            .map_err(|failure| one(self.unwritten(failure)))?;
        let written = self
            .write(name, &mut kept, change, intent.word(), unfinished)
            .await
            .map_err(|failure| one(self.unwritten(failure)))?;
        let after = halted(&kept).unwrap_or_default();
        let halted: BTreeSet<String> = after.difference(&halted_before).cloned().collect();
        let records = networks.iter().chain(&written).chain(&placed);
        let records: Vec<Record> = records.cloned().collect();
        let asked = ShareRequest {
            intent: intent.clone(),
            before: before.map(Box::new),
            records: spread::packed(&records),
            anew: decision.anew.clone(),
            halted: halted.clone(),
            parallel: request.parallel,
        };
        let answers = self.ask_others(name, involved, &asked, tell).await;
        let elsewhere = Self::hear_others(answers, tell, cancel.clone());
        self.fleet.tell(placed);
        self.fleet.tell(networks);
        let written = match written {
            // Nothing was to be written: then it is about what is wanted already.
            None if request.replicated.is_some() && kept.stack.is_some() => self
                .current(name)
                .await
                .map_err(|failure| one(failure.into()))?,
            written => written,
        };
        // The others hear of it while it is done here.
        let durable = written.map(|record| tokio::spawn(self.durable(record, request.replicated)));
        let here = async {
            match &seen {
                Some(seen) => {
                    let work = Work {
                        intent: &intent,
                        project: project.as_ref(),
                        seen,
                        plan: &plan,
                        anew: &decision.anew,
                        halted: &halted,
                        parallel: request.parallel,
                    };
                    self.execute_here(&slot, &mut kept, work, tell, cancel)
                        .await
                }
                None => Ok(()),
            }
        };
        let (here, elsewhere) = tokio::join!(here, elsewhere);
        let mut faults = here.err().unwrap_or_default();
        faults.extend(elsewhere);
        if !faults.is_empty() {
            return Err(faults);
        }
        self.forget_volumes(&intent, project.as_ref()).await;
        if matches!(intent, Intent::Down { .. }) && kept.stack.is_none() {
            let mut gone = self.release_networks(name);
            gone.extend(self.release_addresses(name));
            let gone = self.put_networks(gone, intent.word());
            self.fleet
                .tell(gone.await.map_err(|failure| one(failure.into()))?);
        }
        let durable = match durable {
            Some(durable) => durable.await.ok().flatten(),
            None => None,
        };
        Ok((kept.stack.as_ref().map(|_| kept.revision), durable))
    }

    /// What is wanted could not be written. Should the disk be the reason, others decide from now on.
    fn unwritten(&self, failure: Failure) -> Fault {
        self.set_unwritable(true);
        failure.into()
    }

    /// What there is of a stack on this node. Without an Engine there is nothing to be done here, which
    /// is a failure if there is nobody else.
    async fn look(
        &self,
        name: &str,
        intent: &Intent,
        project: Option<&Project>,
    ) -> Result<Option<Seen>, Fault> {
        let seen = match self.engine() {
            Ok(engine) => engine.observe(scope(intent, name, project)).await,
            Err(fault) if self.is_alone() => return Err(fault),
            Err(_) => return Ok(None),
        };
        match seen {
            Ok(seen) => Ok(Some(seen)),
            Err(e) if e.is_engine_away() && !self.is_alone() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The stack stays at home where it was; a new one is at home where it is asked to be, or here.
    fn at_home(&self, change: Change, before: Option<&Stack>, on: Option<&str>) -> Change {
        let Change::Put(mut stack) = change else {
            return change;
        };
        let known = |id: &String| !id.is_empty() && self.fleet.by_id(id).is_some();
        let before = before.map(|b| b.home.clone()).filter(known);
        let asked = on.and_then(|on| self.fleet.find(on).ok()).map(|n| n.id);
        stack.home = before.or(asked).unwrap_or_else(|| self.fleet.id());
        Change::Put(stack)
    }

    /// Where the tasks of a stack are from now on, with what of it is rolled out by and by.
    fn assign_changed(
        &self,
        name: &str,
        before: Option<&Stack>,
        after: &Stack,
        current: &Assignments,
    ) -> Assigned {
        let mut assigned = match self.view().side() {
            // Only what is asked for is written: where the other tasks are is the others' to decide.
            Side::Smaller if !self.is_alone() => Assigned {
                assignments: current.clone(),
                ..Assigned::default()
            },
            _ => self.assign(name, after, current),
        };
        assigned.assignments.retain(|s, _| after.active.contains(s));
        rollout::begin(before, after, &mut assigned.assignments, now());
        assigned
    }

    /// Does a node's part of what is asked for.
    pub(super) async fn execute_here(
        self: &Arc<Self>,
        slot: &Slot,
        kept: &mut Kept,
        work: Work<'_>,
        tell: &UnboundedSender<Message>,
        cancel: watch::Receiver<bool>,
    ) -> Result<(), Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let name = slot.name.as_str();
        let engine = self.engine().map_err(one)?;
        kept.ledger.ask(work.anew);
        kept.ledger.halt(work.halted);
        if kept.stack.is_none() {
            self.forget(slot, kept).await;
        } else {
            self.save(slot, kept).await;
        }
        self.show(slot, kept);
        let _ = tell.send(Message::Plan {
            plan: work.plan.clone(),
            node: String::new(),
        });
        let elsewhere = self.elsewhere(name);
        let addresses = self.addresses(work.project);
        let keeper = Arc::clone(self);
        let leave = move |id: &str| keeper.turn_away(id);
        // Where all of it goes, there is nobody else to be led to.
        let whole =
            matches!(work.intent, Intent::Down { options, .. } if options.services.is_empty());
        let context = ExecuteContext {
            project: work.project,
            seen: work.seen,
            build: Default::default(),
            parallel: work.parallel,
            cancel: Some(cancel),
            elsewhere: Some(&elsewhere),
            addresses: Some(&addresses),
            leave: if whole { None } else { Some(&leave) },
        };
        let teller = Teller {
            tell,
            done: Mutex::default(),
        };
        let outcome = engine.execute(&context, work.plan, &teller).await;
        let undone = teller.undone(work.plan);
        let answered = work.anew.iter().filter(|s| !undone.contains(*s));
        kept.ledger.answered(answered);
        if kept.stack.is_some() {
            self.save(slot, kept).await;
        }
        // What failed was told; what was cut short is brought to its end.
        if !outcome.as_ref().is_err_and(|e| e.iter().any(cut_short)) {
            self.note_unfinished(name, kept, None)
                .await
                .map_err(|failure| one(failure.into()))?;
        }
        info!(
            stack = name,
            command = work.intent.word(),
            steps = work.plan.steps.len(),
            failures = outcome.as_ref().err().map_or(0, Vec::len),
            "carried out"
        );
        outcome.map_err(|errors| errors.into_iter().map(Fault::from).collect())
    }

    /// Fails if a change cannot become durable on as many nodes as are asked for.
    pub(super) fn check_replicated(&self, wanted: Option<usize>) -> Result<(), Failure> {
        let nodes = self.fleet.count();
        match wanted {
            Some(wanted) if wanted > nodes => Err(Failure::usage(format!(
                "--replicated: {wanted} nodes are asked for, and the cluster has {nodes}"
            ))),
            _ => Ok(()),
        }
    }

    /// What is wanted of a stack, as it was written.
    pub(super) async fn current(&self, name: &str) -> Result<Option<Record>, Failure> {
        let of = name.to_owned();
        with_replica(&self.replica, move |r| r.get(STACK, &of)).await
    }

    /// Tells the other nodes of a change; on how many disks it is. Nothing if there are no others.
    pub(super) fn durable(
        &self,
        record: Record,
        wanted: Option<usize>,
    ) -> impl Future<Output = Option<Durable>> + Send + use<> {
        let (up, nodes) = self.fleet.up();
        let patience = if wanted.is_some() { WAIT } else { USUAL };
        let wanted = wanted.unwrap_or(up);
        let told = self.fleet.replicate(vec![record], wanted, patience);
        async move {
            let on = told.await;
            (nodes > 1).then_some(Durable { on, nodes })
        }
    }

    /// Makes durable what is about to be done, or that nothing is.
    pub(super) async fn note_unfinished(
        &self,
        name: &str,
        kept: &mut Kept,
        intent: Option<&Intent>,
    ) -> Result<(), Failure> {
        if kept.unfinished.as_ref() == intent {
            return Ok(());
        }
        let key = format!("{UNFINISHED}{name}");
        let bytes = intent.map(serde_json::to_vec).transpose();
        let bytes =
            bytes.map_err(|e| Failure::failed(format!("a change cannot be written down: {e}")))?;
        with_replica(&self.replica, move |r| {
            r.store().set_local(&key, bytes.as_deref())
        })
        .await?;
        kept.unfinished = intent.cloned();
        Ok(())
    }

    /// Brings to its end what was begun.
    pub(super) async fn finish(
        self: &Arc<Self>,
        slot: &Slot,
        kept: &mut Kept,
        engine: &Engine,
        cancel: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let Some(intent) = kept.unfinished.clone() else {
            return Ok(());
        };
        let name = slot.name.as_str();
        let project = match intent.project() {
            Some(project) => Some(self.localize(project, None).await?),
            None => None,
        };
        let scope = scope(&intent, name, project.as_ref());
        let seen = engine.observe(scope).await?;
        let addresses = self.addresses(project.as_ref());
        // What is wanted was written before.
        let plan = intent.plan(kept.stack.as_ref(), project.as_ref(), &seen, None);
        let plan = plan.map_err(|refusal| Failure::failed(refusal.to_string()))?;
        let context = ExecuteContext {
            project: project.as_ref(),
            seen: &seen,
            build: Default::default(),
            parallel: 0,
            cancel: Some(cancel),
            elsewhere: None,
            addresses: Some(&addresses),
            leave: None,
        };
        info!(
            stack = name,
            command = intent.word(),
            steps = plan.steps.len(),
            "going on with what was begun"
        );
        let done = engine.execute(&context, &plan, &Nobody).await;
        if let Err(errors) = done {
            // What fails by itself would fail for ever: whoever asks again is told why.
            if !errors.iter().any(cut_short) {
                self.note_unfinished(name, kept, None).await?;
            }
            return Err(Failure::all(errors.into_iter().map(Failure::from)));
        }
        self.note_unfinished(name, kept, None).await?;
        if kept.stack.is_none() {
            self.forget_volumes(&intent, project.as_ref()).await;
            self.forget(slot, kept).await;
        }
        Ok(())
    }

    /// What is meant by a request.
    pub(super) async fn intent(&self, name: &str, what: What) -> Result<Intent, Fault> {
        let revision = match what {
            What::Intent(intent) => return Ok(*intent),
            What::Undo { to } => to,
        };
        let usage = |text: String| {
            Fault::from(Failure::usage(text).help(format!(
                "`wharfie history {name}` lists the revisions that are kept"
            )))
        };
        let history = self.versions(name).await.map_err(Fault::from)?;
        let version = match &revision {
            Some(revision) => history.into_iter().find(|(v, _)| v.id() == *revision),
            // What was lost is no earlier state of the stack.
            None => history
                .into_iter()
                .skip(1)
                .find(|(v, stack)| !v.lost && stack.is_some()),
        };
        match version {
            Some((_, Some(stack))) => Ok(Intent::Restore {
                stack: Box::new(stack),
            }),
            Some((version, None)) => Err(usage(format!(
                "in revision {} stack {name} was taken down: `wharfie down` does that",
                version.id()
            ))),
            None => Err(usage(match revision {
                Some(revision) => format!("stack {name} has no revision {revision}"),
                None => format!("stack {name} has no earlier revision"),
            })),
        }
    }

    /// The versions of a stack, the newest first.
    async fn versions(
        &self,
        name: &str,
    ) -> Result<Vec<(wharfie_cluster::Version, Option<Stack>)>, Failure> {
        let of = name.to_owned();
        let history = with_replica(&self.replica, move |r| r.history(STACK, &of)).await?;
        let read = |value: serde_json::Value| {
            serde_json::from_value(value).map_err(|e| {
                Failure::failed(format!("an earlier version of {name} cannot be read: {e}"))
            })
        };
        history
            .into_iter()
            .map(|mut v| {
                let stack = v.record.value.take().map(read).transpose()?;
                Ok((v, stack))
            })
            .collect()
    }

    /// The history of a stack, the newest version first.
    pub(super) async fn history(&self, name: &str) -> Result<Vec<Version>, Failure> {
        let kept = self.versions(name).await?;
        let mut versions = Vec::new();
        for (i, (version, stack)) in kept.iter().enumerate() {
            // What it was made from; if that is not kept, what is next.
            let parent = version.record.parent;
            let later = &kept[i + 1..];
            let before = later.iter().find(|(v, _)| Some(v.record.stamp) == parent);
            let before = before.or(later.first()).and_then(|(_, s)| s.as_ref());
            versions.push(Version {
                id: version.id(),
                revision: version.record.revision,
                time: version.record.time(),
                command: version.record.note.clone(),
                services: stack.as_ref().map(|s| s.active.iter().cloned().collect()),
                changes: wharfie_core::wanted::changes(before, stack.as_ref()),
                lost: version.lost,
            });
        }
        Ok(versions)
    }

    /// Makes durable what is wanted from now on, and what must be brought to its end, at once.
    async fn write(
        &self,
        name: &str,
        kept: &mut Kept,
        change: Change,
        word: &'static str,
        unfinished: Option<Intent>,
    ) -> Result<Option<Record>, Failure> {
        let stack = match change {
            Change::Put(stack) if kept.stack.as_ref() != Some(&*stack) => Some(*stack),
            Change::Delete if kept.stack.is_some() => None,
            Change::Keep | Change::Delete | Change::Put(_) => {
                self.note_unfinished(name, kept, unfinished.as_ref())
                    .await?;
                return Ok(None);
            }
        };
        let record = self
            .put_stack(name, stack.as_ref(), word, unfinished.as_ref())
            .await?;
        kept.revision = record.revision;
        kept.stack = stack;
        kept.unfinished = unfinished;
        Ok(Some(record))
    }

    /// Writes what is wanted of a stack, and at once what must be brought to its end.
    pub(super) async fn put_stack(
        &self,
        name: &str,
        stack: Option<&Stack>,
        word: &'static str,
        unfinished: Option<&Intent>,
    ) -> Result<Record, Failure> {
        self.note_lost(name, None);
        let unwritable = |e: serde_json::Error| {
            Failure::failed(format!("what is wanted cannot be written: {e}"))
        };
        let value = stack.map(serde_json::to_value).transpose();
        let value = value.map_err(unwritable)?;
        let note = unfinished.map(serde_json::to_vec).transpose();
        let note = note.map_err(unwritable)?;
        let options = Options {
            history: self.settings.borrow().history,
        };
        let name = name.to_owned();
        let written = with_replica(&self.replica, move |r| {
            let key = format!("{UNFINISHED}{name}");
            let local = Some((key.as_str(), note.as_deref()));
            let at = u64::try_from(now()).unwrap_or(0);
            r.put((STACK, &name), value, (word, at), options, local)
        });
        written.await
    }
}

/// A node's part of what is asked for.
pub(super) struct Work<'a> {
    pub(super) intent: &'a Intent,
    /// The intent's project, or the one that is wanted.
    pub(super) project: Option<&'a Project>,
    /// What is on this node.
    pub(super) seen: &'a Seen,
    /// What is to be done here.
    pub(super) plan: &'a Plan,
    /// Services whose tasks begin anew.
    pub(super) anew: &'a [String],
    /// Tasks that are stopped by this.
    pub(super) halted: &'a BTreeSet<String>,
    /// Requests to the Engine at a time; 0 for the usual number.
    pub(super) parallel: usize,
}

/// What of an intent must be brought to its end, be it by the next agent: a `down`, with the project
/// that it was decided with.
pub(super) fn unfinished(intent: &Intent, project: Option<&Project>) -> Option<Intent> {
    match intent {
        Intent::Down { options, .. } => Some(Intent::Down {
            project: project.map(|p| Box::new(Definition::from(p))),
            options: options.clone(),
        }),
        _ => None,
    }
}

/// What must be looked at to decide on an intent: images only where they matter.
pub(super) fn scope<'a>(intent: &Intent, name: &'a str, project: Option<&'a Project>) -> Scope<'a> {
    let images = match intent {
        Intent::Up { .. } | Intent::Restore { .. } => true,
        Intent::Down { options, .. } => options.images.is_some(),
        _ => false,
    };
    match project {
        Some(project) if images => Scope::Project(project),
        _ => Scope::Name(name),
    }
}

/// Whether work was not done because of somebody else: it was given up, or the Engine went away.
fn cut_short(error: &wharfie_host::Error) -> bool {
    use wharfie_host::Error;
    error.is_engine_away() || matches!(error, Error::Cancelled(_) | Error::Gone { .. })
}

/// Whom nothing needs to be told.
struct Nobody;

impl Progress for Nobody {
    fn event(&self, _: usize, _: Event) {}
}

/// Tells what happens to each step, and notes which are done.
struct Teller<'a> {
    tell: &'a UnboundedSender<Message>,
    done: Mutex<BTreeSet<usize>>,
}

impl Teller<'_> {
    /// Services with containers that the plan was to act on, and did not.
    fn undone(&self, plan: &Plan) -> BTreeSet<String> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = plan.steps.iter().enumerate();
        let undone = steps.filter(|(i, _)| !done.contains(i));
        let of = undone.filter_map(|(_, s)| s.operation.container());
        of.map(|(service, _)| service.to_owned()).collect()
    }
}

impl Progress for Teller<'_> {
    fn event(&self, step: usize, event: Event) {
        if event == Event::Done {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(step);
        }
        // Nobody may be left to hear it.
        let _ = self.tell.send(Message::Step {
            node: String::new(),
            step,
            event: event.into(),
        });
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let path = refusal.path();
        Self {
            kind: if path.is_some() {
                FaultKind::Failed
            } else {
                FaultKind::Usage
            },
            what: refusal.to_string(),
            help: None,
            path,
        }
    }
}
