//! Plans made from other plans, for commands that do a part of what `up` and `down` do.

use std::collections::BTreeSet;

use super::DownOptions;
use crate::{Container, Operation, Plan, Seen, State, Step};
use wharfie_compose::model::Project;

/// The plan with every operation replaced by what `f` makes of it; those of which it makes
/// nothing are left out, and what came after them comes after what they came after.
pub fn filter_map(plan: &Plan, mut f: impl FnMut(&Operation) -> Option<Operation>) -> Plan {
    let mut out = Plan {
        steps: Vec::new(),
        notices: plan.notices.clone(),
    };
    // For each old step the new steps that stand for it.
    let mut stands_for: Vec<Vec<usize>> = Vec::with_capacity(plan.steps.len());
    for Step { operation, after } in &plan.steps {
        let before: BTreeSet<usize> = after
            .iter()
            .flat_map(|&i| stands_for.get(i))
            .flatten()
            .copied()
            .collect();
        let before: Vec<usize> = before.into_iter().collect();
        let new = match f(operation) {
            Some(operation) => vec![out.push(operation, before)],
            None => before,
        };
        stands_for.push(new);
    }
    out
}

/// One step of a plan, alone.
pub fn only(plan: &Plan, index: usize) -> Plan {
    let mut i = 0;
    filter_map(plan, |operation| {
        i += 1;
        (i - 1 == index).then(|| operation.clone())
    })
}

/// What is seen, without the containers that `run` made.
pub fn without_one_offs(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    seen.containers.retain(|c| !c.oneoff);
    seen
}

/// Stops the containers of services (of all if none is named), those first that depend on others.
pub fn stop(seen: &Seen, services: &[String], timeout: Option<i64>) -> Plan {
    stop_also(seen, services, timeout, &[])
}

/// The same, and those of the given names even if they do not run: they may be about to.
pub fn stop_also(
    seen: &Seen,
    services: &[String],
    timeout: Option<i64>,
    starting: &[String],
) -> Plan {
    filter_map(
        &down(seen, services, timeout, false),
        |operation| match operation {
            Operation::RemoveContainer {
                service,
                id,
                name,
                running,
                timeout,
                ..
            } if *running || starting.contains(name) => Some(Operation::StopContainer {
                service: service.clone(),
                id: id.clone(),
                name: name.clone(),
                timeout: *timeout,
            }),
            _ => None,
        },
    )
}

/// Removes the containers of services that do not run, or all of them with `stop`.
pub fn remove(seen: &Seen, services: &[String], stop: bool, volumes: bool) -> Plan {
    filter_map(
        &down(seen, services, None, volumes),
        |operation| match operation {
            Operation::RemoveContainer { running, .. } if stop || !running => {
                Some(operation.clone())
            }
            _ => None,
        },
    )
}

/// Sends a signal to the containers of services that run.
pub fn signal(seen: &Seen, services: &[String], signal: &str) -> Plan {
    let mut plan = Plan::default();
    let meant = |c: &&Container| {
        !c.oneoff && c.is_running() && (services.is_empty() || services.contains(&c.service))
    };
    for c in seen.containers.iter().filter(meant) {
        let operation = Operation::SignalContainer {
            service: c.service.clone(),
            id: c.id.clone(),
            name: c.name.clone(),
            signal: signal.to_owned(),
        };
        plan.push(operation, Vec::new());
    }
    plan
}

fn down(seen: &Seen, services: &[String], timeout: Option<i64>, volumes: bool) -> Plan {
    let options = DownOptions {
        services: services.to_vec(),
        volumes,
        images: None,
        remove_orphans: true,
        timeout,
    };
    super::down(None, &without_one_offs(seen), &options)
}

/// Starts the containers of services that do not run, those first that others depend on, and
/// waits for what the project says they depend on.
pub fn start(project: Option<&Project>, seen: &Seen, services: &[String]) -> Plan {
    let mut plan = Plan::default();
    in_order(seen, services, |containers, before| {
        let mut before = before.to_vec();
        for (dependency, how) in containers
            .first()
            .and_then(|c| project?.any_service(&c.service))
            .into_iter()
            .flat_map(|s| &s.depends_on)
        {
            for other in seen
                .containers
                .iter()
                .filter(|c| &c.service == dependency && !c.oneoff)
            {
                let wait = Operation::Wait {
                    service: dependency.clone(),
                    name: other.name.clone(),
                    condition: how.condition,
                    required: how.required,
                    elsewhere: false,
                };
                let selected = services.is_empty() || services.contains(dependency);
                if how.condition != wharfie_compose::model::Condition::Started
                    && (selected || other.is_running())
                {
                    let after = before.clone();
                    before.push(plan.push(wait, after));
                }
            }
        }
        let idle = containers
            .iter()
            .filter(|c| !c.is_running() && c.state != State::Removing);
        let steps: Vec<usize> = idle
            .map(|c| {
                let operation = Operation::StartContainer {
                    service: c.service.clone(),
                    name: c.name.clone(),
                };
                plan.push(operation, before.clone())
            })
            .collect();
        if steps.is_empty() { before } else { steps }
    });
    plan
}

/// Restarts the containers of services, those first that others depend on.
pub fn restart(seen: &Seen, services: &[String], timeout: Option<i64>) -> Plan {
    let mut plan = Plan::default();
    in_order(seen, services, |containers, before| {
        let steps = containers.iter().map(|c| {
            let operation = Operation::RestartContainer {
                service: c.service.clone(),
                name: c.name.clone(),
                reason: "asked for".to_owned(),
                timeout,
            };
            plan.push(operation, before.to_vec())
        });
        steps.collect()
    });
    plan
}

/// Calls `f` with the containers of each service, dependencies first, and the steps that those
/// it depends on ended with; it returns the service's own.
fn in_order(
    seen: &Seen,
    services: &[String],
    mut f: impl FnMut(&[&Container], &[usize]) -> Vec<usize>,
) {
    let mut left: Vec<(&str, Vec<&Container>)> = Vec::new();
    for container in &seen.containers {
        if container.oneoff || !(services.is_empty() || services.contains(&container.service)) {
            continue;
        }
        match left.iter_mut().find(|(name, _)| *name == container.service) {
            Some((_, list)) => list.push(container),
            None => left.push((&container.service, vec![container])),
        }
    }
    let mut done: Vec<(&str, Vec<usize>)> = Vec::new();
    while !left.is_empty() {
        let waits = |list: &[&Container], left: &[(&str, Vec<&Container>)]| {
            list.iter().any(|c| {
                c.depends_on
                    .iter()
                    .any(|d| left.iter().any(|(name, _)| name == d))
            })
        };
        // Labels may lie: a cycle is broken at its first service.
        let next = left
            .iter()
            .position(|(_, list)| !waits(list, &left))
            .unwrap_or(0);
        let (name, list) = left.remove(next);
        let before: Vec<usize> = done
            .iter()
            .filter(|(other, _)| list.iter().any(|c| c.depends_on.iter().any(|d| d == other)))
            .flat_map(|(_, steps)| steps.iter().copied())
            .collect();
        let steps = f(&list, &before);
        done.push((name, steps));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str, needs: &[&str], state: State) -> Container {
        Container {
            id: format!("id-{service}"),
            name: format!("x-{service}-1"),
            service: service.to_owned(),
            number: 1,
            state,
            depends_on: needs.iter().map(|n| (*n).to_owned()).collect(),
            ..Container::default()
        }
    }

    fn seen() -> Seen {
        Seen {
            containers: vec![
                container("web", &["app"], State::Running),
                container("app", &["db"], State::Exited),
                container("db", &[], State::Running),
            ],
            ..Seen::default()
        }
    }

    fn lines(plan: &Plan) -> Vec<String> {
        plan.steps
            .iter()
            .map(|s| format!("{} {:?}", s.operation, s.after))
            .collect()
    }

    #[test]
    fn stopping_goes_from_the_dependents() {
        assert_eq!(
            lines(&stop(&seen(), &[], None)),
            ["stop container x-web-1 []", "stop container x-db-1 [0]"]
        );
        assert_eq!(
            lines(&stop(&seen(), &["db".to_owned()], None)),
            ["stop container x-db-1 []"]
        );
    }

    #[test]
    fn starting_goes_from_the_dependencies() {
        assert_eq!(
            lines(&start(None, &seen(), &[])),
            ["start container x-app-1 []"]
        );
        assert_eq!(
            lines(&restart(&seen(), &[], None)),
            [
                "restart container x-db-1: asked for []",
                "restart container x-app-1: asked for [0]",
                "restart container x-web-1: asked for [1]"
            ]
        );
    }

    #[test]
    fn only_what_is_stopped_is_removed() {
        assert_eq!(
            lines(&remove(&seen(), &[], false, false)),
            ["remove container x-app-1: down []"]
        );
        assert_eq!(remove(&seen(), &[], true, false).steps.len(), 3);
    }
}
