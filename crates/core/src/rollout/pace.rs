//! How fast a rollout goes, and what it does about failures (compose-spec, `deploy.update_config` and
//! `deploy.rollback_config`).

use wharfie_compose::model::{Deploy, Duration, UpdateConfig};

use super::Rollout;
use crate::heal::Millis;
use crate::wanted::Stack;

/// How long a task's node may be away until the task is no longer waited for.
pub(super) const PATIENCE: Millis = 60_000;

/// How long a node may take until what it says of a task is about the new revision.
pub(super) const GRACE: Millis = 5_000;

/// What is wanted and where tasks are arrive one after the other, but within this time.
pub(super) const LATE: Millis = 10_000;

/// How long a task is watched, if nothing is said.
const MONITOR: Millis = 5_000;

/// What is done if too many tasks fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Continue,
    Pause,
    Rollback,
}

/// How a rollout goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// Tasks at a time.
    pub(super) parallelism: usize,
    /// From when a task runs well to the next.
    pub(super) delay: Millis,
    /// For how long a task has to run well.
    pub(super) monitor: Millis,
    /// Share of tasks that may fail.
    pub(super) ratio: f32,
    /// What is done if more do.
    pub(super) action: Action,
}

impl Pace {
    /// The pace of a rollout. The way back goes as the definition says that is left, since that is
    /// where a failing update's author writes it; else as the one says that comes back.
    pub(super) fn of(stack: &Stack, service: &str, rollout: &Rollout) -> Self {
        fn deploy<'a>(stack: &'a Stack, service: &str) -> Option<&'a Deploy> {
            stack.project.any_service(service)?.deploy.as_ref()
        }
        let wanted = deploy(stack, service);
        if rollout.back.is_none() {
            return Self::from(wanted.and_then(|d| d.update_config.as_ref()));
        }
        let left = rollout.before.last();
        let left = left.and_then(|v| deploy(&v.stack, service));
        let mut configs = [left, wanted].into_iter().flatten();
        let config = configs.find_map(|d| d.rollback_config.as_ref());
        let pace = Self::from(config);
        match pace.action {
            // There is nothing behind it.
            Action::Rollback => Self {
                action: Action::Pause,
                ..pace
            },
            _ => pace,
        }
    }
}

impl From<Option<&UpdateConfig>> for Pace {
    fn from(config: Option<&UpdateConfig>) -> Self {
        let default = UpdateConfig::default();
        let config = config.unwrap_or(&default);
        let millis = |d: Duration| (d.0 / 1_000_000).max(0);
        Self {
            parallelism: match config.parallelism {
                None => 1,
                Some(0) => usize::MAX,
                Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            },
            delay: millis(config.delay),
            monitor: match config.monitor {
                Duration(0) => MONITOR,
                monitor => millis(monitor),
            },
            ratio: config.max_failure_ratio.0,
            action: match config.failure_action.as_str() {
                "continue" => Action::Continue,
                "rollback" => Action::Rollback,
                _ => Action::Pause,
            },
        }
    }
}
