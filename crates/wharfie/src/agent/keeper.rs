//! Keeps stacks as they are wanted: holds what is wanted, and heals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use wharfie_cluster::{Options, Record, Replica};
use wharfie_core::heal::{self, Ledger, Millis};
use wharfie_core::{Intent, Plan, Stack};
use wharfie_host::{Change, Engine, Event, ExecuteContext, Happened, Progress, Scope};

use super::fleet::Fleet;
use super::report::News;
use super::settings::Settings;
use super::slot::{Kept, Slot};
use crate::api::{Fault, StackInfo};
use crate::failure::Failure;

/// Kind of the objects that say what is wanted of a stack.
pub(super) const STACK: &str = "stack";

/// What the agent does its work with.
pub(super) struct Keeper {
    /// What is wanted, durably; with what concerns this node alone beside it.
    pub(super) replica: Arc<Replica>,
    /// The settings as they are now.
    pub(super) settings: watch::Sender<Settings>,
    /// The Engine, or why there is none.
    pub(super) engine: watch::Sender<Result<Engine, Fault>>,
    /// The nodes.
    pub(super) fleet: Arc<Fleet>,
    /// That there is something new to be seen on the Engine.
    pub(super) news: watch::Sender<News>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Edits made here that others overwrote unknowingly, by stack, until it is edited again.
    lost: Mutex<BTreeMap<String, String>>,
}

/// How often is looked again after something went wrong, until the Engine's lists show it; and the
/// first pause, which doubles.
const AGAIN: u8 = 6;
const SOON: Duration = Duration::from_millis(10);

/// A plan of healing is given up after so long, and made anew.
const LONGEST: Duration = Duration::from_secs(60);

/// Begin of the keys of what was begun.
pub(super) const UNFINISHED: &str = "unfinished/";

/// The time, in milliseconds since 1970.
pub(super) fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

fn ledger_key(stack: &str) -> String {
    format!("ledger/{stack}")
}

/// Does something with what is durable where it may wait for the disk.
pub(super) async fn with_replica<T: Send + 'static>(
    replica: &Arc<Replica>,
    f: impl FnOnce(&Replica) -> Result<T, wharfie_cluster::Error> + Send + 'static,
) -> Result<T, Failure> {
    let replica = Arc::clone(replica);
    let done = tokio::task::spawn_blocking(move || f(&replica)).await;
    let done = done.map_err(|e| Failure::failed(format!("the store cannot be used: {e}")))?;
    done.map_err(Failure::from)
}

impl Keeper {
    /// Reads what is wanted, and begins to keep it. Must be called in the runtime.
    pub(super) fn begin(
        replica: Arc<Replica>,
        settings: Settings,
        fleet: Arc<Fleet>,
    ) -> Result<Arc<Self>, Failure> {
        let away = Failure::NoEngine(crate::failure::Message::new("the Engine was not asked yet"));
        let keeper = Arc::new(Self {
            settings: watch::Sender::new(settings),
            engine: watch::Sender::new(Err(away.into())),
            fleet,
            news: watch::Sender::default(),
            slots: Mutex::default(),
            lost: Mutex::default(),
            replica,
        });
        let rebooted = keeper.rebooted()?;
        let mut unfinished: BTreeMap<String, Intent> = BTreeMap::new();
        for (name, bytes) in keeper.replica.store().locals(UNFINISHED)? {
            match serde_json::from_slice(&bytes) {
                Ok(intent) => drop(unfinished.insert(name, intent)),
                Err(e) => error!(stack = name, "what was begun cannot be read: {e}"),
            }
        }
        for mut record in keeper.replica.list(STACK)? {
            keeper.adopt(&mut record)?;
            let name = record.name;
            let value = record.value.unwrap_or_default();
            let stack: Stack = match serde_json::from_value::<Stack>(value) {
                Ok(stack) => stack,
                Err(e) => {
                    // The others are kept all the same.
                    error!(stack = name, "what is wanted of it cannot be read: {e}");
                    continue;
                }
            };
            let saved: Ledger = keeper
                .replica
                .store()
                .local(&ledger_key(&name))?
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            let kept = Kept {
                stack: Some(stack),
                revision: record.revision,
                ledger: saved.clone(),
                saved,
                unfinished: unfinished.remove(&name),
                resumed: rebooted,
                ..Kept::default()
            };
            keeper.add(&name, kept);
        }
        for (name, intent) in unfinished {
            let kept = Kept {
                unfinished: Some(intent),
                ..Kept::default()
            };
            keeper.add(&name, kept);
        }
        Ok(keeper)
    }

    /// Makes this node the home of a stack that is from the time before it could be of a cluster.
    fn adopt(&self, record: &mut Record) -> Result<(), Failure> {
        self.settle(record, "")
    }

    /// Makes this node the home of a stack whose home has been this node under another id.
    fn settle(&self, record: &mut Record, former: &str) -> Result<(), Failure> {
        let me = self.fleet.me().id;
        let is_former = |home: &serde_json::Value| home.is_null() || *home == former;
        let Some(value) = record.value.as_mut().filter(|v| is_former(&v["home"])) else {
            return Ok(());
        };
        if me.is_empty() || !value.is_object() || value["home"] == *me {
            return Ok(());
        }
        value["home"] = me.into();
        let options = Options {
            history: self.settings.borrow().history,
        };
        let of = (record.note.as_str(), record.stamp.millis);
        let value = record.value.clone();
        *record = self
            .replica
            .put((STACK, &record.name), value, of, options, None)?;
        Ok(())
    }

    /// This node has another id from now on: it is the home of what it was the home of.
    pub(super) async fn follow_me(self: &Arc<Self>, former: &str) {
        let keeper = Arc::clone(self);
        let former = former.to_owned();
        let settled = tokio::task::spawn_blocking(move || -> Result<Vec<Record>, Failure> {
            let mut records = keeper.replica.list(STACK)?;
            records
                .iter_mut()
                .try_for_each(|r| keeper.settle(r, &former))?;
            Ok(records)
        });
        match settled.await {
            Ok(Ok(records)) => {
                for record in &records {
                    if let Err(e) = self.renew(&record.name).await {
                        warn!(stack = record.name, "{}", e.text());
                    }
                }
                self.fleet.tell(records);
            }
            Ok(Err(e)) => warn!("{}", e.text()),
            Err(e) => warn!("{e}"),
        }
    }

    /// Whether the machine was started since the last agent ran.
    fn rebooted(&self) -> Result<bool, Failure> {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let last = self.replica.store().local("boot")?;
        if last.as_ref() == Some(&boot) {
            return Ok(false);
        }
        self.replica.store().set_local("boot", Some(&boot))?;
        Ok(last.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, name: &str, kept: Kept) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(name, kept));
        self.lock().insert(name.to_owned(), Arc::clone(&slot));
        tokio::spawn(Arc::clone(self).tend(Arc::clone(&slot)));
        slot
    }

    /// The slot of a stack, made if there is none.
    pub(super) fn slot(self: &Arc<Self>, name: &str) -> Arc<Slot> {
        let known = self.lock().get(name).cloned();
        known.unwrap_or_else(|| self.add(name, Kept::default()))
    }

    /// All slots.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.lock().values().cloned().collect()
    }

    /// Looks at everything soon.
    pub(super) fn wake_all(&self) {
        self.slots().iter().for_each(|s| s.wake.notify_one());
    }

    /// Whether nothing is wanted and nobody is at work.
    pub(super) fn is_idle(&self) -> bool {
        self.slots().iter().all(|slot| {
            let wanted = |kept: &Kept| kept.stack.as_ref().is_some_and(|s| self.is_here(s));
            let idle = |kept: &Kept| !wanted(kept) && kept.unfinished.is_none();
            !slot.is_asked() && slot.kept.try_lock().is_ok_and(|kept| idle(&kept))
        })
    }

    /// The Engine.
    pub(super) fn engine(&self) -> Result<Engine, Fault> {
        self.engine.borrow().clone()
    }

    /// The Engine answers, or does not.
    pub(super) fn set_engine(&self, engine: Result<Engine, Fault>) {
        // The former one is of no use any more.
        drop(self.engine.send_replace(engine));
    }

    /// Takes note of what happened on the Engine.
    pub(super) fn happened(&self, happened: &Happened) {
        self.news.send_modify(|news| news.count(happened));
        match happened {
            Happened::Container { project, id, what } => {
                let Some(slot) = self.lock().get(project).cloned() else {
                    return;
                };
                match what {
                    Change::Signalled | Change::Stopped => slot.signalled(id, now()),
                    Change::Started => slot.started(id),
                    Change::Updated => slot.changed(id),
                    Change::Unwell => slot.again.store(AGAIN, Ordering::SeqCst),
                    Change::Other => {}
                }
                if *what != Change::Signalled {
                    slot.wake.notify_one();
                }
            }
            // It may be one that several stacks use.
            Happened::Resource { .. } => self.slots().iter().for_each(|s| s.wake.notify_one()),
            Happened::News { .. } => {}
        }
    }

    /// Heals a stack whenever it may be needed, for as long as the agent runs.
    async fn tend(self: Arc<Self>, slot: Arc<Slot>) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = slot.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if slot.is_asked() {
                // Whoever asks wakes this when they are done.
                pause = Duration::from_secs(60);
                continue;
            }
            let mut kept = slot.kept.lock().await;
            let (give_up, given_up) = watch::channel(false);
            pause = {
                let healing = self.heal(&slot, &mut kept, given_up);
                let mut healing = std::pin::pin!(healing);
                tokio::select! {
                    next = &mut healing => next,
                    () = slot.asked() => {
                        give_up.send_replace(true);
                        healing.await
                    }
                    // What others wait for may never come; meanwhile more may have happened.
                    () = tokio::time::sleep(LONGEST) => {
                        give_up.send_replace(true);
                        healing.await
                    }
                }
            };
            self.show(&slot, &kept);
        }
    }

    /// Heals a stack once; when to look again.
    async fn heal(&self, slot: &Slot, kept: &mut Kept, cancel: watch::Receiver<bool>) -> Duration {
        let settings = self.settings.borrow().clone();
        let resync = Duration::from_millis(settings.resync);
        let Ok(engine) = self.engine() else {
            return resync;
        };
        if kept.unfinished.is_some() {
            return match self.finish(slot, kept, &engine, cancel).await {
                Ok(()) => Duration::ZERO,
                Err(failure) => {
                    warn!(
                        stack = slot.name,
                        "what was begun is not done: {}",
                        failure.text()
                    );
                    Duration::from_secs(2)
                }
            };
        }
        let Some(stack) = kept.stack.clone().filter(|s| self.is_here(s)) else {
            return resync;
        };
        kept.resumed |= slot.away.swap(false, Ordering::SeqCst);
        let seen = match engine.observe(Scope::Project(&stack.project)).await {
            Ok(seen) => seen,
            Err(e) => {
                debug!(stack = slot.name, "cannot look at it: {e}");
                return Duration::from_secs(1);
            }
        };
        let signs = slot.signs(kept.resumed, !kept.known, now());
        let (backoff, at) = (settings.backoff, now());
        kept.ledger.observe(&stack, &seen, &signs, &backoff, at);
        kept.resumed = false;
        kept.known = true;
        slot.retain_signs(&seen.containers.iter().map(|c| c.id.as_str()).collect());
        self.save(slot, kept).await;
        let healing = match heal::heal(&stack, &seen, &kept.ledger, &signs, at) {
            Ok(healing) => healing,
            Err(refusal) => {
                let trouble = Some(refusal.to_string());
                if kept.trouble != trouble {
                    warn!(stack = slot.name, "it cannot be healed: {refusal}");
                    kept.trouble = trouble;
                }
                return resync.min(Duration::from_secs(5));
            }
        };
        kept.trouble = None;
        if healing.plan.is_empty() {
            let next = self.next(kept, resync);
            let left = slot.again.load(Ordering::SeqCst);
            if left == 0 {
                return next;
            }
            slot.again.store(left - 1, Ordering::SeqCst);
            return next.min(SOON * 2_u32.pow(u32::from(AGAIN.saturating_sub(left))));
        }
        slot.again.store(0, Ordering::SeqCst);
        for (task, reason) in &healing.attempts {
            kept.ledger.attempt(task, reason, &backoff, at);
            let attempt = kept.ledger.tasks.get(task).map_or(1, |r| r.attempts);
            info!(stack = slot.name, task, attempt, reason, "healing");
        }
        self.show(slot, kept);
        let recorder = Recorder::default();
        let context = ExecuteContext {
            project: Some(&stack.project),
            seen: &seen,
            build: Default::default(),
            parallel: 0,
            cancel: Some(cancel),
        };
        let outcome = engine.execute(&context, &healing.plan, &recorder).await;
        recorder.enter(&healing, &mut kept.ledger);
        let next = self.next(kept, resync);
        let Err(errors) = outcome else {
            // What was started is looked at once more, by its event.
            return next;
        };
        for e in errors {
            if matches!(e, wharfie_host::Error::Cancelled(_)) {
                continue;
            }
            warn!(stack = slot.name, "healing failed: {e}");
        }
        next.min(Duration::from_millis(settings.backoff.first.unsigned_abs()))
    }

    /// When something that waits may be tried.
    fn next(&self, kept: &Kept, resync: Duration) -> Duration {
        let at = now();
        let waiting = kept.ledger.tasks.values().filter(|r| r.attempts > 0);
        let next = waiting.map(|r| r.next).filter(|next| *next > at).min();
        let pause = next.map_or(resync, |next| {
            Duration::from_millis((next - at).unsigned_abs())
        });
        pause.min(resync)
    }

    /// Makes durable what is remembered, if it has changed.
    pub(super) async fn save(&self, slot: &Slot, kept: &mut Kept) {
        let durable = kept.ledger.durable();
        if durable == kept.saved {
            return;
        }
        let key = ledger_key(&slot.name);
        let bytes = match serde_json::to_vec(&durable) {
            Ok(bytes) => bytes,
            Err(e) => return error!("cannot write down what is remembered: {e}"),
        };
        let saved = with_replica(&self.replica, move |r| {
            r.store().set_local(&key, Some(&bytes))
        })
        .await;
        match saved {
            Ok(()) => kept.saved = durable,
            // Healing goes on without.
            Err(e) => error!(stack = slot.name, "{}", e.text()),
        }
    }

    /// Forgets what is remembered of a stack.
    pub(super) async fn forget(&self, slot: &Slot, kept: &mut Kept) {
        kept.ledger = Ledger::default();
        kept.saved = Ledger::default();
        let key = ledger_key(&slot.name);
        if let Err(e) = with_replica(&self.replica, move |r| r.store().set_local(&key, None)).await
        {
            error!(stack = slot.name, "{}", e.text());
        }
    }

    /// Lets everybody see how a stack is.
    pub(super) fn show(&self, slot: &Slot, kept: &Kept) {
        let stack = kept.stack.as_ref().filter(|s| self.is_here(s));
        let info = stack.map(|stack| StackInfo {
            name: slot.name.clone(),
            revision: kept.revision,
            services: stack.active.iter().cloned().collect(),
            halted: stack.halted.iter().cloned().collect(),
            troubles: heal::troubles(&kept.ledger),
            trouble: kept.trouble.clone(),
            node: String::new(),
            home: stack.home.clone(),
        });
        slot.show(info);
    }

    /// Whether a stack is kept by this node.
    pub(super) fn is_here(&self, stack: &Stack) -> bool {
        stack.home.is_empty() || stack.home == self.fleet.me().id
    }

    /// Id of the node that keeps a stack, empty if it is from before there were others; none if there
    /// is no such stack.
    pub(super) async fn home(&self, name: &str) -> Result<Option<String>, Failure> {
        let of = name.to_owned();
        let object = with_replica(&self.replica, move |s| s.get(STACK, &of)).await?;
        let value = object.and_then(|o| o.value);
        Ok(value.map(|v| v["home"].as_str().unwrap_or_default().to_owned()))
    }

    /// Remembers that an edit made here was overwritten, or with nothing that it no longer matters.
    pub(super) fn note_lost(&self, name: &str, text: Option<String>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => drop(lost.insert(name.to_owned(), text)),
            None => drop(lost.remove(name)),
        }
    }

    /// Edits made here that were overwritten.
    pub(super) fn lost(&self) -> Vec<String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.values().cloned().collect()
    }

    /// What is wanted of a stack, with its revision.
    pub(super) async fn stored_one(&self, name: &str) -> Result<Option<(u64, Stack)>, Failure> {
        let all = self.stored().await?;
        let mut found = all.into_iter().filter(|(of, ..)| of == name);
        Ok(found.next().map(|(_, revision, stack)| (revision, stack)))
    }

    /// What is wanted of every stack, with its revision.
    pub(super) async fn stored(&self) -> Result<Vec<(String, u64, Stack)>, Failure> {
        let objects = with_replica(&self.replica, |s| s.list(STACK)).await?;
        let read = objects.into_iter().filter_map(|record| {
            let stack = serde_json::from_value(record.value?).ok()?;
            Some((record.name, record.revision, stack))
        });
        Ok(read.collect())
    }

    /// Address of the Engine.
    pub(super) fn engine_address(&self) -> String {
        let given = self.settings.borrow().engine.clone();
        given.unwrap_or_else(|| wharfie_host::DEFAULT_HOST.to_owned())
    }

    /// Where the state is.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.settings.borrow().state_dir.clone()
    }
}

/// Whether a container could not be started because somebody is just removing it.
fn is_leaving(why: &str) -> bool {
    why.contains("marked for removal") || why.contains("No such container")
}

/// Notes which steps of a plan were begun, and which failed.
#[derive(Default)]
struct Recorder {
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    begun: BTreeSet<usize>,
    failed: BTreeMap<usize, String>,
}

impl Progress for Recorder {
    fn event(&self, step: usize, event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started => drop(steps.begun.insert(step)),
            Event::Failed(why) => drop(steps.failed.insert(step, why)),
            Event::Note(_) | Event::Done => {}
        }
    }
}

impl Recorder {
    /// Enters what became of each attempt.
    fn enter(&self, healing: &heal::Healing, ledger: &mut Ledger) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let services = |plan: &Plan, indices: &mut dyn Iterator<Item = usize>| {
            let operations = indices.filter_map(|i| plan.steps.get(i));
            let of = operations.filter_map(|s| s.operation.container());
            of.map(|(service, _)| service.to_owned())
                .collect::<BTreeSet<_>>()
        };
        let begun = services(&healing.plan, &mut steps.begun.iter().copied());
        let failed = services(&healing.plan, &mut steps.failed.keys().copied());
        // Without its image, its network or its volume a container cannot be made.
        let resource = steps.failed.iter().find(|(step, _)| {
            let step = healing.plan.steps.get(**step);
            step.is_some_and(|s| s.operation.container().is_none())
        });
        for task in healing.attempts.keys() {
            let service = wharfie_core::wanted::service_of(task);
            match resource {
                _ if begun.contains(service) => {
                    if !failed.contains(service) {
                        ledger.answered([&service.to_owned()]);
                    }
                }
                Some((_, why)) => {
                    if let Some(record) = ledger.tasks.get_mut(task) {
                        record.reason.clone_from(why);
                    }
                }
                None => ledger.withdraw(task),
            }
        }
        for (step, why) in &steps.failed {
            let Some(step) = healing.plan.steps.get(*step) else {
                continue;
            };
            let Some((service, _)) = step.operation.container() else {
                continue;
            };
            let of = |task: &&String| wharfie_core::wanted::service_of(task) == service;
            for task in healing.attempts.keys().filter(of) {
                if is_leaving(why) {
                    // It was tried too soon: another container is made once this one is gone.
                    ledger.withdraw(task);
                } else if let Some(record) = ledger.tasks.get_mut(task) {
                    record.reason.clone_from(why);
                }
            }
        }
    }
}
