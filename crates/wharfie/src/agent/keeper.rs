//! Keeps stacks as they are wanted: holds what is wanted, and heals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};
use wharfie_cluster::{Key, Options, Record, Replica};
use wharfie_core::assignment::{self, ASSIGNMENT, Part};
use wharfie_core::heal::{self, Ledger, Millis};
use wharfie_core::{Container, Intent, Plan, Seen, Share, Stack};
use wharfie_host::{Change, Engine, Event, ExecuteContext, Happened, Progress, Scope};

use super::director::{Answering, Around};
use super::fleet::Fleet;
use super::glimpse::Signs;
use super::images::Images;
use super::networks::{Addressing, Base, Faults, Holds, Keys, Logged};
use super::report::News;
use super::settings::Settings;
use super::slot::{Kept, Slot};
use super::world::{self, Book, VOLUME};
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
    /// What events say of single containers.
    pub(super) signs: Signs,
    /// What is wanted of all stacks, and where their tasks are.
    pub(super) book: Book,
    /// The agent ends: nothing is decided any more. Without the others it would take itself for alone.
    closing: AtomicBool,
    /// Networks, or what runs on them, may be others.
    pub(super) network_news: Notify,
    /// The same, for who keeps addresses of the surrounding network.
    pub(super) director_news: Notify,
    /// The same, for who answers for the zone.
    pub(super) zone_news: Notify,
    /// Addresses that wait for their firewalls.
    pub(super) holds: Holds,
    /// This host's address among nodes.
    pub(super) base: Base,
    /// This node's keys for packets between nodes.
    pub(super) keys: Keys,
    /// Addresses that were given to containers.
    pub(super) addressing: Addressing,
    /// What networks cannot do here.
    pub(super) faults: Faults,
    /// What is seen of the surrounding network.
    pub(super) around: Around,
    /// What firewalls drop here.
    pub(super) logged: Logged,
    /// The zone that is answered here.
    pub(super) zone: Answering,
    /// What is wanted could not be written a moment ago.
    unwritable: AtomicBool,
    /// This node's images.
    pub(super) images: OnceLock<Weak<Images>>,
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

/// Bytes that must find room for a disk not to be full.
const PROBE: usize = 256 << 10;

/// Begin of the keys of what was begun.
pub(super) const UNFINISHED: &str = "unfinished/";

/// The time, in milliseconds since 1970.
pub(super) fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

fn ledger_key(stack: &str) -> String {
    format!("ledger/{stack}")
}

/// Objects that are to be written, or without a value to go.
pub(super) type Puts = Vec<(Key, Option<serde_json::Value>)>;

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
            signs: Signs::default(),
            book: Book::default(),
            closing: AtomicBool::new(false),
            network_news: Notify::new(),
            director_news: Notify::new(),
            zone_news: Notify::new(),
            holds: Holds::default(),
            base: Base::read(&replica)?,
            keys: Keys::default(),
            addressing: Addressing::default(),
            faults: Faults::default(),
            around: Around::default(),
            logged: Logged::default(),
            zone: Answering::default(),
            unwritable: AtomicBool::new(false),
            images: OnceLock::new(),
            slots: Mutex::default(),
            lost: Mutex::default(),
            replica,
        });
        let rebooted = keeper.rebooted()?;
        keeper.reread()?;
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
            let assignments = world::assignments(&keeper.replica, &name)?;
            keeper.book.set(&name, Some(&stack), &assignments);
            let kept = Kept {
                stack: Some(stack),
                revision: record.revision,
                assignments,
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
        let me = self.fleet.id();
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
            records.extend(keeper.rename(&former)?);
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

    /// Tasks and volumes of this node under another id are its own under the one it has now.
    fn rename(&self, former: &str) -> Result<Vec<Record>, Failure> {
        let me = self.fleet.id();
        let mut records = Vec::new();
        if former.is_empty() || former == me {
            return Ok(records);
        }
        for kind in [ASSIGNMENT, VOLUME] {
            for record in self.replica.list(kind)? {
                let Some(mut value) = record.value else {
                    continue;
                };
                if value["node"] == former {
                    value["node"] = me.as_str().into();
                } else if let Some(tasks) = value["tasks"].as_object_mut()
                    && let Some(own) = tasks.remove(former)
                {
                    tasks.insert(me.clone(), own);
                } else {
                    continue;
                }
                let of = (record.note.as_str(), record.stamp.millis);
                let options = Options { history: 1 };
                let id = (kind, record.name.as_str());
                records.push(self.replica.put(id, Some(value), of, options, None)?);
            }
        }
        Ok(records)
    }

    /// Writes objects of which only the newest version matters; what was written.
    pub(super) async fn put_all(
        &self,
        puts: Puts,
        note: &'static str,
    ) -> Result<Vec<Record>, Failure> {
        if puts.is_empty() {
            return Ok(Vec::new());
        }
        with_replica(&self.replica, move |r| {
            let at = u64::try_from(now()).unwrap_or(0);
            let options = Options { history: 1 };
            r.put_all(puts, (note, at), options)
        })
        .await
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

    /// What the kernel and names are to be may be something else.
    pub(super) fn wake_planes(&self) {
        self.network_news.notify_one();
        self.director_news.notify_one();
        self.zone_news.notify_one();
    }

    /// Has it looked at whether tasks must be placed anew.
    pub(super) fn review_all(&self) {
        self.slots().iter().for_each(|s| s.review.notify_one());
        self.wake_planes();
    }

    /// Whether nothing is wanted, nobody is at work, and there are no addresses or names to look after.
    pub(super) fn is_idle(&self) -> bool {
        if self.book.director().settings.is_some() {
            return false;
        }
        self.slots().iter().all(|slot| {
            let idle = |kept: &Kept| kept.stack.is_none() && kept.unfinished.is_none();
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
        self.signs.happened(happened);
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
                    Change::Ended | Change::Unwell => slot.again.store(AGAIN, Ordering::SeqCst),
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
        let mut due = tokio::time::Instant::now();
        let mut decide = due;
        loop {
            let ailing = tokio::select! {
                () = slot.wake.notified() => true,
                () = slot.review.notified() => false,
                () = tokio::time::sleep_until(due.min(decide)) => due <= decide,
            };
            if slot.is_asked() {
                // Whoever asks wakes this when they are done.
                due = tokio::time::Instant::now() + Duration::from_secs(60);
                decide = due;
                continue;
            }
            let mut kept = slot.kept.lock().await;
            if self.is_closing() {
                return;
            }
            let next = self.coordinate(&slot, &mut kept).await;
            decide = tokio::time::Instant::now() + next;
            if !ailing && !self.is_shifted(&slot, &kept) {
                continue;
            }
            let (give_up, given_up) = watch::channel(false);
            let pause = {
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
            due = tokio::time::Instant::now() + pause;
            self.show(&slot, &kept);
        }
    }

    /// Whether this node's share of a stack is another than when it was healed last.
    fn is_shifted(&self, slot: &Slot, kept: &Kept) -> bool {
        let share = kept.stack.as_ref();
        let share = share.map(|s| self.share(&slot.name, s, &kept.assignments));
        kept.share != share
    }

    /// Heals a stack once; when to look again.
    async fn heal(
        self: &Arc<Self>,
        slot: &Slot,
        kept: &mut Kept,
        cancel: watch::Receiver<bool>,
    ) -> Duration {
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
        let Some(stack) = kept.stack.clone() else {
            kept.share = None;
            return resync;
        };
        let share = self.share(&slot.name, &stack, &kept.assignments);
        let nothing = share.is_empty() && !self.runs_any(&slot.name);
        kept.share = Some(share.clone());
        if nothing {
            return resync;
        }
        kept.resumed |= slot.away.swap(false, Ordering::SeqCst);
        let stack = match self.localize(stack.project.clone(), Some(&share)).await {
            Ok(project) => Stack { project, ..stack },
            Err(failure) => {
                self.cannot_heal(slot, kept, failure.text());
                return resync.min(Duration::from_secs(5));
            }
        };
        let seen = match engine.observe(Scope::Project(&stack.project)).await {
            Ok(seen) => seen,
            Err(e) => {
                debug!(stack = slot.name, "cannot look at it: {e}");
                return Duration::from_secs(1);
            }
        };
        let signs = slot.signs(kept.resumed, !kept.known, now());
        let (backoff, at) = (settings.backoff, now());
        let whole = (&stack, Some(&share));
        kept.ledger.observe(whole, &seen, &signs, &backoff, at);
        kept.resumed = false;
        kept.known = true;
        slot.retain_signs(&seen.containers.iter().map(|c| c.id.as_str()).collect());
        self.save(slot, kept).await;
        let mut parts = Vec::new();
        for part in assignment::parts(&stack, &kept.assignments, &share) {
            let of = (&part.stack, Some(&part.share));
            match heal::heal(of, &seen, &kept.ledger, &signs, at) {
                Ok(healing) => parts.push((part, healing)),
                Err(refusal) => {
                    self.cannot_heal(slot, kept, refusal.to_string());
                    return resync.min(Duration::from_secs(5));
                }
            }
        }
        kept.trouble = None;
        parts.retain(|(_, healing)| !healing.plan.is_empty());
        if parts.is_empty() {
            let next = self.next(kept, resync);
            let left = slot.again.load(Ordering::SeqCst);
            if left == 0 {
                return next;
            }
            slot.again.store(left - 1, Ordering::SeqCst);
            return next.min(SOON * 2_u32.pow(u32::from(AGAIN.saturating_sub(left))));
        }
        slot.again.store(0, Ordering::SeqCst);
        let making = parts.iter().filter(|(_, h)| h.plan.makes_containers());
        for (part, _) in making {
            if self
                .take_images(&part.stack, Some(&part.share), &seen)
                .await
            {
                // What is to be done is another thing with them.
                return Duration::ZERO;
            }
        }
        let mut pause = resync;
        for (part, healing) in &parts {
            let cancel = cancel.clone();
            let work = self.carry_healing(slot, kept, (part, healing), (&engine, &seen), cancel);
            pause = pause.min(work.await);
        }
        pause
    }

    /// Takes note of why a stack cannot be healed.
    fn cannot_heal(&self, slot: &Slot, kept: &mut Kept, why: String) {
        if kept.trouble.as_ref() != Some(&why) {
            warn!(stack = slot.name, "it cannot be healed: {why}");
            kept.trouble = Some(why);
        }
    }

    /// Does what heals a part of a stack; when to look again.
    async fn carry_healing(
        self: &Arc<Self>,
        slot: &Slot,
        kept: &mut Kept,
        (part, healing): (&Part, &heal::Healing),
        (engine, seen): (&Engine, &Seen),
        cancel: watch::Receiver<bool>,
    ) -> Duration {
        let settings = self.settings.borrow().clone();
        let (backoff, at) = (settings.backoff, now());
        for (task, reason) in &healing.attempts {
            kept.ledger.attempt(task, reason, &backoff, at);
            let attempt = kept.ledger.tasks.get(task).map_or(1, |r| r.attempts);
            info!(stack = slot.name, task, attempt, reason, "healing");
        }
        self.show(slot, kept);
        let recorder = Recorder::default();
        let elsewhere = self.elsewhere(&slot.name);
        let addresses = self.addresses(Some(&part.stack.project));
        let keeper = Arc::clone(self);
        let leave = move |id: &str| keeper.turn_away(id);
        let context = ExecuteContext {
            project: Some(&part.stack.project),
            seen,
            build: Default::default(),
            parallel: 0,
            cancel: Some(cancel),
            elsewhere: Some(&elsewhere),
            addresses: Some(&addresses),
            leave: Some(&leave),
        };
        let outcome = engine.execute(&context, &healing.plan, &recorder).await;
        recorder.enter(healing, &mut kept.ledger);
        let next = self.next(kept, Duration::from_millis(settings.resync));
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

    /// Takes images that tasks here need and this node lacks, or has in another version, from nodes
    /// that have them; whether any came.
    pub(super) async fn take_images(
        &self,
        stack: &Stack,
        share: Option<&Share>,
        seen: &Seen,
    ) -> bool {
        let (Some(images), false) = (self.images.get().and_then(Weak::upgrade), self.is_alone())
        else {
            return false;
        };
        let here = |name: &&String| share.is_none_or(|s| s.here(name).next().is_some());
        let services = stack.project.services.keys();
        let services = services
            .filter(here)
            .filter_map(|s| stack.project.any_service(s));
        let names: BTreeSet<String> = services
            .filter(|s| s.provider.is_none())
            .map(|s| wharfie_core::names::image(&stack.project, s))
            .collect();
        let mut any = false;
        for image in names {
            let id = seen.images.get(&image).map(|i| i.id.as_str());
            let id = id.filter(|id| !id.is_empty());
            let meant = stack.images.get(&image).map(String::as_str);
            if id.is_some() && (meant.is_none() || id == meant || !images.is_news(&image, meant)) {
                continue;
            }
            match images.take(&image, meant.filter(|_| id.is_some())).await {
                Ok(took) => any |= took,
                // There may be a registry that has it.
                Err(failure) => warn!(
                    image,
                    "it cannot be taken from other nodes: {}",
                    failure.text()
                ),
            }
        }
        any
    }

    /// Finds containers of other nodes by their names, as they are reported.
    pub(super) fn elsewhere(
        &self,
        stack: &str,
    ) -> impl Fn(&str) -> Option<Container> + Send + Sync + use<> {
        let (fleet, stack) = (Arc::clone(&self.fleet), stack.to_owned());
        move |name| {
            let nodes = fleet.members().into_iter();
            let others = nodes.filter(|n| !n.me && n.may_answer());
            others.filter_map(|n| fleet.report_of(&n)).find_map(|r| {
                let mut containers = r.containers.iter();
                let found = containers.find(|c| c.project == stack && c.name == name);
                found.map(Container::from)
            })
        }
    }

    /// Whether this node runs, or has, any container of a stack.
    pub(super) fn runs_any(&self, stack: &str) -> bool {
        let report = self.fleet.report();
        let report = report.borrow();
        report
            .containers
            .iter()
            .any(|c| c.project == stack && !c.oneoff)
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
        self.book
            .set(&slot.name, kept.stack.as_ref(), &kept.assignments);
        let info = kept.stack.as_ref().map(|stack| StackInfo {
            name: slot.name.clone(),
            revision: kept.revision,
            services: stack.active.iter().cloned().collect(),
            halted: stack.halted.iter().cloned().collect(),
            troubles: heal::troubles(&kept.ledger),
            trouble: kept.trouble.clone(),
            node: String::new(),
            home: stack.home.clone(),
        });
        let troubles = |info: Option<&StackInfo>| info.map(|i| i.troubles.clone());
        if troubles(slot.shown().as_ref()) != troubles(info.as_ref()) {
            // The others are told of it.
            self.news.send_modify(|news| news.tell());
        }
        slot.show(info);
        self.wake_planes();
    }

    /// Nothing is decided from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether the agent ends.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether what is wanted can be written; the others are told.
    pub(super) fn set_unwritable(&self, unwritable: bool) {
        if self.unwritable.swap(unwritable, Ordering::SeqCst) != unwritable {
            self.news.send_modify(|news| news.tell());
        }
    }

    /// Whether what is wanted cannot be written; tries it if it could not before.
    pub(super) async fn is_unwritable(&self) -> bool {
        if self.unwritable.load(Ordering::SeqCst) {
            // There may be room left for a few words.
            let probe = move |r: &Replica| {
                let words = vec![0; PROBE];
                r.store().set_local("probe", Some(&words))?;
                r.store().set_local("probe", None)
            };
            let works = with_replica(&self.replica, probe).await.is_ok();
            self.unwritable.store(!works, Ordering::SeqCst);
        }
        self.unwritable.load(Ordering::SeqCst)
    }

    /// Revision of what is wanted of a stack.
    pub(super) fn revision(&self, name: &str) -> u64 {
        let slot = self.lock().get(name).cloned();
        slot.and_then(|s| s.shown()).map_or(0, |s| s.revision)
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
                    ledger.fail(task, why);
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
                } else {
                    ledger.fail(task, why);
                }
            }
        }
    }
}
