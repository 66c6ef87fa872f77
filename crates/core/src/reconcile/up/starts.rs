//! Starts, in the order of `depends_on`, with the waits that its conditions ask for.

use std::collections::BTreeMap;

use wharfie_compose::model::Condition;

use super::{Fate, Planner, Task};
use crate::plan::Operation;
use crate::seen::Health;

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
                .any(|t| t.fate != Fate::Keep { running: true });
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
                // To be started is to be past its start step.
                if busy && dependency.condition != Condition::Started {
                    let key = (
                        other.as_str(),
                        dependency.condition as u8,
                        dependency.required,
                    );
                    waits.entry(key).or_insert_with(|| {
                        self.waits(others, dependency.condition, dependency.required, &started)
                    });
                    before.extend(&waits[&key]);
                }
            }
            let mut steps = Vec::new();
            for (task, step) in tasks[name].iter().zip(&made[name]) {
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
                waits
                    .entry(key)
                    .or_insert_with(|| self.waits(&tasks[name], condition, true, &started));
            }
        }
    }

    /// Waits for every container of a service; none where the condition already holds.
    pub(super) fn waits(
        &mut self,
        others: &[Task],
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
                _ => false,
            };
            if holds {
                continue;
            }
            let after = started
                .get(task.service.name.as_str())
                .cloned()
                .unwrap_or_default();
            steps.push(self.plan.push(
                Operation::Wait {
                    service: task.service.name.clone(),
                    name: task.name.clone(),
                    condition,
                    required,
                },
                after,
            ));
        }
        steps
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
