//! One stack in the agent: what is wanted of it, what is remembered of it, and who may act on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use wharfie_core::assignment::Assignments;
use wharfie_core::heal::{Ledger, Millis, Signs};
use wharfie_core::rollout::Memory;
use wharfie_core::{Intent, Share, Stack};

/// What is known of a stack; whoever acts on it holds the lock.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What is wanted; none if the stack is not wanted.
    pub(super) stack: Option<Stack>,
    /// Its revision.
    pub(super) revision: u64,
    /// Where its tasks are.
    pub(super) assignments: Assignments,
    /// What was seen of rollouts, by service.
    pub(super) memories: BTreeMap<String, Memory>,
    /// This node's share, as it was healed last.
    pub(super) share: Option<Share>,
    /// What is remembered of its tasks.
    pub(super) ledger: Ledger,
    /// The part of the ledger that is on the disk.
    pub(super) saved: Ledger,
    /// Something that was begun and must be brought to its end, be it by the next agent: a `down`.
    pub(super) unfinished: Option<Intent>,
    /// Why the stack as a whole cannot be healed.
    pub(super) trouble: Option<String>,
    /// Whether a look at it is the first after the Engine was away.
    pub(super) resumed: bool,
    /// Whether this agent has looked at it.
    pub(super) known: bool,
}

/// One stack.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Name of the stack.
    pub(super) name: String,
    /// Held by whoever acts.
    pub(super) kept: tokio::sync::Mutex<Kept>,
    /// What is shown of it while somebody acts.
    pub(super) shown: Mutex<Option<crate::api::StackInfo>>,
    /// Something may have to be healed.
    pub(super) wake: Notify,
    /// Something changed elsewhere: tasks may have to be placed anew.
    pub(super) review: Notify,
    /// How many want the lock, to whom healing gives way.
    waiting: watch::Sender<usize>,
    /// Whether the Engine was away since the last look.
    pub(super) away: AtomicBool,
    /// How often is looked again soon: an Engine tells of an end before its lists show it.
    pub(super) again: AtomicU8,
    signs: Mutex<Noted>,
}

/// Signs from the Engine's events.
#[derive(Debug, Default)]
struct Noted {
    /// When each container got a signal from somebody.
    signalled: BTreeMap<String, Millis>,
    changed: BTreeSet<String>,
}

/// A signal that has not ended a container within this time does not.
const SIGNAL_COUNTS: Millis = 10 * 60 * 1000;

impl Slot {
    pub(super) fn new(name: &str, kept: Kept) -> Self {
        Self {
            name: name.to_owned(),
            kept: tokio::sync::Mutex::new(kept),
            ..Self::default()
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container got a signal.
    pub(super) fn signalled(&self, id: &str, now: Millis) {
        let mut noted = self.noted();
        noted.signalled.retain(|_, at| now - *at < SIGNAL_COUNTS);
        noted.signalled.insert(id.to_owned(), now);
    }

    /// A container was started: what was sent to it before no longer counts.
    pub(super) fn started(&self, id: &str) {
        self.noted().signalled.remove(id);
    }

    /// Somebody changed a container.
    pub(super) fn changed(&self, id: &str) {
        self.noted().changed.insert(id.to_owned());
    }

    /// All signs there are.
    pub(super) fn signs(&self, resumed: bool, fresh: bool, now: Millis) -> Signs {
        let mut noted = self.noted();
        noted.signalled.retain(|_, at| now - *at < SIGNAL_COUNTS);
        Signs {
            signalled: noted.signalled.keys().cloned().collect(),
            changed: noted.changed.clone(),
            resumed,
            fresh,
        }
    }

    /// Forgets signs of containers that are gone.
    pub(super) fn retain_signs(&self, ids: &BTreeSet<&str>) {
        let mut noted = self.noted();
        noted.signalled.retain(|id, _| ids.contains(id.as_str()));
        noted.changed.retain(|id| ids.contains(id.as_str()));
    }

    /// Says that somebody wants to act; healing gives way as long as the value lives.
    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        self.waiting.send_modify(|n| *n += 1);
        Asking(Arc::clone(self))
    }

    /// Whether somebody wants to act.
    pub(super) fn is_asked(&self) -> bool {
        *self.waiting.borrow() > 0
    }

    /// Returns when somebody wants to act.
    pub(super) async fn asked(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is the slot's own: it outlives this.
        let _ = waiting.wait_for(|n| *n > 0).await;
    }

    /// What is shown of the stack.
    pub(super) fn show(&self, info: Option<crate::api::StackInfo>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }

    /// What is shown of the stack; none if it is not wanted.
    pub(super) fn shown(&self) -> Option<crate::api::StackInfo> {
        let shown = self.shown.lock();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Somebody who wants to act on a stack.
pub(super) struct Asking(Arc<Slot>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|n| *n -= 1);
        // Healing goes on.
        self.0.wake.notify_one();
    }
}
