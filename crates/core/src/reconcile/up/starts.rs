//! Starts, in the order of `depends_on`, with the waits that its conditions ask for.

use std::collections::BTreeMap;

use wharfie_compose::model::Condition;

use super::{Fate, Planner, Task};
use crate::plan::Operation;
use crate::seen::{Container, Health, State};

impl<'a> Planner<'a> {
    /// Starts in the order of `depends_on`, with waits where a condition asks for one.
    pub(super) fn starts(
        &mut self,
        order: &[&'a str],
        tasks: &BTreeMap<&str, Vec<Task>>,
        made: &BTreeMap<&str, Vec<Option<usize>>>,
    ) {
        let mut started: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut waits: BTreeMap<(&str, u8, bool), Vec<usize>> = BTreeMap::new();
        for &name in order {
            let Some(first) = tasks[name].first() else {
                continue;
            };
            let busy = tasks[name]
                .iter()
                .any(|t| !matches!(t.fate, Fate::Keep { running: true } | Fate::Elsewhere));
            let mut before = Vec::new();
            let mut renewed = None;
            for (other, dependency) in &first.service.depends_on {
                let Some(others) = tasks.get(other.as_str()) else {
                    continue;
                };
                before.extend(started.get(other.as_str()).into_iter().flatten());
                let anew = others
                    .iter()
                    .any(|t| matches!(t.fate, Fate::Recreate { .. }));
                if dependency.restart && anew {
                    renewed = Some(other);
                }
                // Here, to be started is to be past its start step.
                let away = others.iter().any(|t| t.fate == Fate::Elsewhere);
                if busy && (away || dependency.condition != Condition::Started) {
                    let key = (
                        other.as_str(),
                        dependency.condition as u8,
                        dependency.required,
                    );
                    waits.entry(key).or_insert_with(|| {
                        let condition = dependency.condition;
                        let of = |t: &&Task| {
                            condition != Condition::Started || t.fate == Fate::Elsewhere
                        };
                        let others: Vec<&Task> = others.iter().filter(of).collect();
                        self.waits(&others, condition, dependency.required, &started)
                    });
                    before.extend(&waits[&key]);
                }
            }
            let mut steps = Vec::new();
            for (task, step) in tasks[name].iter().zip(&made[name]) {
                if task.fate == Fate::Elsewhere {
                    continue;
                }
                let mut after = before.clone();
                after.extend(step);
                let service = task.service.name.clone();
                let name = task.name.clone();
                if task.fate != (Fate::Keep { running: true }) {
                    steps.push(
                        self.plan
                            .push(Operation::StartContainer { service, name }, after),
                    );
                } else if let Some(other) = renewed {
                    let reason = format!("{other}, which it depends on, was recreated");
                    let timeout = self.options.timeout;
                    steps.push(self.plan.push(
                        Operation::RestartContainer {
                            service,
                            name,
                            reason,
                            timeout,
                        },
                        after,
                    ));
                }
            }
            started.insert(name, steps);
        }
        if self.options.wait {
            for &name in order {
                let condition = ready(name, tasks);
                let key = (name, condition as u8, true);
                let own = tasks[name].iter().filter(|t| t.fate != Fate::Elsewhere);
                let own: Vec<&Task> = own.collect();
                waits
                    .entry(key)
                    .or_insert_with(|| self.waits(&own, condition, true, &started));
            }
        }
    }

    /// Waits for every container of a service; none where the condition already holds.
    pub(super) fn waits(
        &mut self,
        others: &[&Task],
        condition: Condition,
        required: bool,
        started: &BTreeMap<&str, Vec<usize>>,
    ) -> Vec<usize> {
        let mut steps = Vec::new();
        for task in others {
            let holds = match (condition, &task.fate, task.seen) {
                (Condition::Healthy, Fate::Keep { running: true }, Some(c)) => {
                    c.health == Health::Healthy
                }
                (Condition::Started, Fate::Keep { running: true }, Some(c)) => {
                    matches!(c.health, Health::None | Health::Healthy)
                }
                (_, Fate::Elsewhere, Some(c)) => holds_there(condition, c),
                _ => false,
            };
            if holds {
                continue;
            }
            let elsewhere = task.fate == Fate::Elsewhere;
            let own = started.get(task.service.name.as_str());
            let after = own.filter(|_| !elsewhere).cloned().unwrap_or_default();
            steps.push(self.plan.push(
                Operation::Wait {
                    service: task.service.name.clone(),
                    name: task.name.clone(),
                    condition,
                    required,
                    elsewhere,
                },
                after,
            ));
        }
        steps
    }
}

/// Whether a container of another node meets a condition, as that node reported it last.
#[must_use]
pub fn holds_there(condition: Condition, container: &Container) -> bool {
    match condition {
        Condition::Started => container.is_running(),
        Condition::Healthy => container.is_running() && container.health == Health::Healthy,
        Condition::CompletedSuccessfully => {
            container.state == State::Exited && container.exit_code == Some(0)
        }
    }
}

/// What `--wait` waits for: that a service runs and is healthy where it has a health check (the
/// executor sees whether it has one), or for a job that others wait for, that it ends.
fn ready(name: &str, tasks: &BTreeMap<&str, Vec<Task>>) -> Condition {
    let dependents = tasks
        .values()
        .filter_map(|t| t.first()?.service.depends_on.get(name));
    let mut conditions = dependents.map(|d| d.condition);
    if conditions.any(|c| c == Condition::CompletedSuccessfully) {
        Condition::CompletedSuccessfully
    } else {
        Condition::Started
    }
}
