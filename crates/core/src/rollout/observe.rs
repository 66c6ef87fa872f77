//! What is seen of a service's tasks, and what is remembered of it.

use std::collections::BTreeMap;

use super::Rollout;
use super::pace::{GRACE, PATIENCE, Pace};
use crate::assignment::Assignment;
use crate::heal::Millis;
use crate::seen::Health;

/// What is seen of one task, on the node that it is assigned to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Revision of its container; empty if there is none, or it says none.
    pub revision: String,
    /// Whether its main process runs. A container that the Engine is about to start again
    /// ([`crate::State::Restarting`]) does not run.
    pub running: bool,
    /// Health of its container.
    pub health: Health,
    /// Exit code, if it has ended.
    pub exit_code: Option<i64>,
    /// What the node's last attempt to make it as it is wanted failed with; none if it did not fail.
    pub trouble: Option<String>,
    /// Whether its node answers.
    pub reachable: bool,
}

/// What is seen of a task that has no container, on a node that answers.
pub(super) static NOTHING: Observed = Observed {
    revision: String::new(),
    running: false,
    health: Health::None,
    exit_code: None,
    trouble: None,
    reachable: true,
};

impl Observed {
    /// Whether it is known to serve, of whatever revision.
    fn serves(&self) -> bool {
        let healthy = matches!(self.health, Health::None | Health::Healthy);
        self.reachable && self.running && healthy
    }

    /// Whether it serves at a revision.
    pub(super) fn is_well(&self, revision: &str) -> bool {
        self.serves() && self.revision == revision
    }

    /// Whether it serves as it is kept. What another program made says no revision.
    pub(super) fn is_well_before(&self, revision: &str) -> bool {
        self.is_well(revision) || (self.serves() && self.revision.is_empty())
    }

    /// How its container of a revision failed, if it did.
    fn failure(&self, revision: &str) -> Option<String> {
        if self.revision != revision {
            return None;
        }
        match (self.running, self.health, self.exit_code) {
            (true, Health::Unhealthy, _) => Some("it is unhealthy".to_owned()),
            (false, _, Some(code)) => Some(format!("it ended with code {code}")),
            _ => None,
        }
    }

    /// What is wrong with it at a revision, in words.
    pub(super) fn fault(&self, revision: &str) -> Option<String> {
        let runs = self.running && self.revision == revision;
        let trouble = || self.trouble.clone().filter(|_| !runs);
        self.failure(revision).or_else(trouble)
    }
}

/// What a coordinator has seen itself. A successor starts it anew, and so waits somewhat longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// When the rollout that it is about began, and where it goes.
    rollout: (Millis, String),
    /// Since when tasks run well at the new revision.
    well: BTreeMap<u32, Millis>,
    /// Since when tasks' nodes are away.
    away: BTreeMap<u32, Millis>,
    /// What was wrong with tasks before they were let go on.
    trouble: BTreeMap<u32, String>,
    /// Since when another revision is wanted than the rollout goes to, and which two they are.
    apart: Option<(String, String, Millis)>,
}

/// How a task is that was let go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// It runs well for long enough.
    Done,
    /// It is waited for, until then at most if nothing is reported.
    Waits(Option<Millis>),
    /// It failed: why.
    Failed(String),
    /// Its node is away for too long.
    Away,
}

impl Memory {
    /// Another revision is wanted than the rollout goes to; since when that is so.
    pub(super) fn apart(&mut self, wanted: &str, goal: &str, now: Millis) -> Millis {
        let same = |(w, g, _): &&(String, String, Millis)| w == wanted && g == goal;
        match self.apart.as_ref().filter(same) {
            Some((.., since)) => *since,
            None => {
                self.apart = Some((wanted.to_owned(), goal.to_owned(), now));
                now
            }
        }
    }

    /// Takes in what is seen.
    pub(super) fn observe(
        &mut self,
        rollout: &Rollout,
        assignment: &Assignment,
        tasks: &BTreeMap<u32, Observed>,
        now: Millis,
    ) {
        self.apart = None;
        let key = (rollout.began, rollout.revision.clone());
        if self.rollout != key {
            let away = std::mem::take(&mut self.away);
            *self = Self {
                rollout: key,
                away,
                ..Self::default()
            };
        }
        let assigned = |n: &u32| assignment.tasks.contains_key(n);
        self.well.retain(|n, _| assigned(n));
        self.away.retain(|n, _| assigned(n));
        self.trouble.retain(|n, _| assigned(n));
        for number in assignment.tasks.keys() {
            let task = tasks.get(number).unwrap_or(&NOTHING);
            let held = rollout.held(*number).is_some();
            let since = |times: &mut BTreeMap<u32, Millis>, so: bool| {
                if so {
                    times.entry(*number).or_insert(now);
                } else {
                    times.remove(number);
                }
            };
            since(&mut self.away, !task.reachable);
            since(&mut self.well, !held && task.is_well(&rollout.revision));
            if held {
                self.trouble.remove(number);
                let trouble = task.trouble.iter().cloned();
                self.trouble.extend(trouble.map(|t| (*number, t)));
            }
        }
    }

    /// When a task's node has been away for too long, if it is away.
    pub(super) fn gone(&self, number: u32) -> Option<Millis> {
        self.away.get(&number).map(|since| since + PATIENCE)
    }

    /// Since when a task runs well at the new revision, if it does.
    pub(super) fn well(&self, number: u32) -> Option<Millis> {
        self.well.get(&number).copied()
    }

    /// How a task is that was let go on.
    pub(super) fn judge(
        &self,
        number: u32,
        task: &Observed,
        rollout: &Rollout,
        pace: &Pace,
        now: Millis,
    ) -> Judged {
        let by = |time: Millis, then: Judged| match now >= time {
            true => then,
            false => Judged::Waits(Some(time)),
        };
        if let Some(time) = self.gone(number) {
            return by(time, Judged::Away);
        }
        if let Some(since) = self.well(number) {
            return by(since + pace.monitor, Judged::Done);
        }
        if let Some(why) = task.failure(&rollout.revision) {
            return Judged::Failed(why);
        }
        let Some(why) = task.fault(&rollout.revision) else {
            return Judged::Waits(None);
        };
        // What was wrong with it before says nothing of the new revision, and a node takes a moment
        // to forget it.
        let old = self.trouble.get(&number) == Some(&why);
        let wait = if old { PATIENCE } else { GRACE };
        by(rollout.stepped + wait, Judged::Failed(why))
    }
}
