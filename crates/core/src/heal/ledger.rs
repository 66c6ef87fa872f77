//! What a node remembers of the tasks it keeps: how they ended, and how often they were healed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::seen::{Container, Health, Seen, State};
use crate::share::Share;
use crate::wanted::{Stack, service_of, task};

/// Milliseconds since 1970.
pub type Millis = i64;

/// How long is waited between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first attempt; it doubles with each. In milliseconds.
    pub first: Millis,
    /// At most. In milliseconds.
    pub most: Millis,
    /// A task that ran for so long is well again. In milliseconds.
    pub stable: Millis,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: 1_000,
            most: 60_000,
            stable: 10_000,
        }
    }
}

impl Backoff {
    /// The pause after so many attempts.
    #[must_use]
    pub fn pause(&self, attempts: u32) -> Millis {
        let doubled = attempts.saturating_sub(1).min(30);
        self.first.saturating_mul(1 << doubled).min(self.most)
    }
}

/// How a container came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// By itself, with this exit code.
    Own(i64),
    /// By somebody else's doing: a signal, or the end of the Engine or the host.
    Cut(i64),
}

/// What is remembered of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Id of its container.
    pub container: String,
    /// Whether it ran when it was last looked at.
    pub running: bool,
    /// How it ended, as long as it has not been started again.
    pub end: Option<End>,
    /// Somebody asked for it to run since it ended, and it was not started yet.
    #[serde(default)]
    pub asked: bool,
    /// It was to be stopped, and that was done: whoever starts it then is left alone.
    #[serde(default)]
    pub halted: bool,
    /// Attempts to heal it since it was last well.
    #[serde(skip)]
    pub attempts: u32,
    /// When the next attempt may be made.
    #[serde(skip)]
    pub next: Millis,
    /// Since when it has been seen running.
    #[serde(skip)]
    since: Option<Millis>,
    /// What was wrong at the last attempt, or what the attempt failed with.
    #[serde(skip)]
    pub reason: String,
    /// Whether the last attempt failed.
    #[serde(skip)]
    pub failed: bool,
}

/// What is remembered of a stack's tasks, by [`task`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The tasks.
    pub tasks: BTreeMap<String, Record>,
}

/// What is known of ends beside the containers' states.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// Ids of containers to which somebody else sent a signal.
    pub signalled: BTreeSet<String>,
    /// Ids of containers that somebody else changed (`docker update`, `docker rename`).
    pub changed: BTreeSet<String>,
    /// The Engine or the host was away since the last look: what ran and does not was cut off.
    pub resumed: bool,
    /// It is the first look of an agent: nobody saw how what ran came to its end.
    pub fresh: bool,
}

/// Exit codes of processes that SIGKILL and SIGTERM ended: not their own will.
const KILLED: [i64; 2] = [137, 143];
/// The exit code that an Engine gives a container whose end it did not see.
const UNSEEN: i64 = 255;

impl Ledger {
    /// Takes note of what is seen of all of a stack, or of a share of it.
    pub fn observe(
        &mut self,
        (stack, share): (&Stack, Option<&Share>),
        seen: &Seen,
        signs: &Signs,
        backoff: &Backoff,
        now: Millis,
    ) {
        let wanted = |service: &str, number: u32| match share {
            None => number <= stack.count(service),
            Some(share) => share.is_here(service, number) || share.is_aside(service, number),
        };
        let own = |c: &&Container| !c.oneoff && wanted(&c.service, c.number);
        for container in seen.containers.iter().filter(own) {
            let record = self
                .tasks
                .entry(task(&container.service, container.number))
                .or_default();
            record.see(container, signs, backoff, now);
        }
        for (key, record) in &mut self.tasks {
            record.halted = stack.halted.contains(key) && (record.halted || !record.running);
        }
        self.tasks.retain(|key, _| {
            let number = key.rsplit_once('/').and_then(|(_, n)| n.parse().ok());
            number.is_some_and(|n: u32| wanted(service_of(key), n))
        });
    }

    /// Whoever had tasks stopped is doing it: it is no affair of healing.
    pub fn halt<'a>(&mut self, tasks: impl IntoIterator<Item = &'a String>) {
        for task in tasks {
            self.tasks.entry(task.clone()).or_default().halted = true;
        }
    }

    /// Somebody asks for the tasks of services to run: how they ended no longer counts.
    pub fn ask(&mut self, services: &[String]) {
        for (key, record) in &mut self.tasks {
            if services.iter().any(|s| s == service_of(key)) {
                record.asked = record.end.is_some();
                record.attempts = 0;
                record.next = 0;
                record.reason.clear();
            }
        }
    }

    /// The tasks of services were started, as was asked for.
    pub fn answered<'a>(&mut self, services: impl IntoIterator<Item = &'a String>) {
        for service in services {
            for (key, record) in &mut self.tasks {
                if service_of(key) == service && record.asked {
                    record.asked = false;
                    record.end = None;
                }
            }
        }
    }

    /// The part that outlives the agent.
    #[must_use]
    pub fn durable(&self) -> Self {
        let keep = |r: &Record| Record {
            container: r.container.clone(),
            running: r.running,
            end: r.end,
            asked: r.asked,
            halted: r.halted,
            ..Record::default()
        };
        let tasks = self.tasks.iter().map(|(k, r)| (k.clone(), keep(r)));
        Self {
            tasks: tasks.collect(),
        }
    }

    /// Counts an attempt at a task.
    pub fn attempt(&mut self, task: &str, reason: &str, backoff: &Backoff, now: Millis) {
        let record = self.tasks.entry(task.to_owned()).or_default();
        record.attempts = record.attempts.saturating_add(1);
        record.next = now + backoff.pause(record.attempts);
        record.since = None;
        reason.clone_into(&mut record.reason);
        record.failed = false;
    }

    /// The last attempt at a task failed.
    pub fn fail(&mut self, task: &str, why: &str) {
        if let Some(record) = self.tasks.get_mut(task) {
            why.clone_into(&mut record.reason);
            record.failed = true;
        }
    }

    /// Takes an attempt back that was not begun.
    pub fn withdraw(&mut self, task: &str) {
        if let Some(record) = self.tasks.get_mut(task) {
            record.attempts = record.attempts.saturating_sub(1);
            record.next = 0;
        }
    }
}

impl Record {
    fn see(&mut self, container: &Container, signs: &Signs, backoff: &Backoff, now: Millis) {
        if self.container != container.id {
            self.container.clone_from(&container.id);
            self.end = None;
            self.running = false;
        }
        match container.state {
            State::Running | State::Paused => {
                self.running = true;
                self.end = None;
                self.asked = false;
                let since = *self.since.get_or_insert(now);
                let sick = container.health == Health::Unhealthy;
                if self.attempts > 0 && !sick && now - since >= backoff.stable {
                    self.attempts = 0;
                    self.next = 0;
                    self.reason.clear();
                    self.failed = false;
                }
            }
            State::Exited | State::Dead => {
                let code = container.exit_code.unwrap_or(0);
                let cut = signs.signalled.contains(&container.id)
                    || KILLED.contains(&code)
                    || (self.running && signs.resumed)
                    || (self.running && signs.fresh && code == UNSEEN);
                let end = if cut { End::Cut(code) } else { End::Own(code) };
                if signs.signalled.contains(&container.id) {
                    // It may be learned only afterwards.
                    self.end = Some(end);
                }
                self.end.get_or_insert(end);
                self.running = false;
                self.since = None;
            }
            State::Created | State::Restarting | State::Removing => self.since = None,
        }
    }
}
