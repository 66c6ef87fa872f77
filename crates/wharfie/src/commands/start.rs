//! `wharfie start`.

use clap::Args;
use wharfie_compose::model::Condition;
use wharfie_core::{Operation, Plan};

use super::lifecycle;
use super::up::within;
use crate::context::Context;
use crate::control::{Container, Seen};
use crate::failure::Failure;
use wharfie_core::reconcile::lifecycle as plans;

/// Starts containers that exist, those first that others depend on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie start web\n  wharfie start --wait --wait-timeout 60")]
pub(crate) struct Start {
    /// Return when the services run, or are healthy where they have a health check
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, requires = "wait", value_name = "SECONDS")]
    wait_timeout: Option<u32>,
    /// Services to start [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Start {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let work = lifecycle::by_plan(context, &self.services, |target, seen| {
            let meant =
                |service: &String| self.services.is_empty() || self.services.contains(service);
            if !seen
                .containers
                .iter()
                .any(|c| !c.oneoff && meant(&c.service))
            {
                return Err(Failure::failed(format!(
                    "there is no container to start in project {:?}",
                    target.name
                ))
                .help("`wharfie up -d` creates and starts them"));
            }
            let plan = plans::start(target.project(), seen, &self.services);
            Ok(if self.wait {
                with_waits(plan, seen, meant)
            } else {
                plan
            })
        });
        within(self.wait_timeout, work).await
    }
}

/// The plan, with a wait for each container that is meant.
fn with_waits(mut plan: Plan, seen: &Seen, meant: impl Fn(&String) -> bool) -> Plan {
    let starts = |operation: &Operation, container: &Container| matches!(operation, Operation::StartContainer { name, .. } if *name == container.name);
    for container in &seen.containers {
        if container.oneoff || !meant(&container.service) {
            continue;
        }
        let start = plan
            .steps
            .iter()
            .position(|step| starts(&step.operation, container));
        let wait = Operation::Wait {
            service: container.service.clone(),
            name: container.name.clone(),
            // The executor sees whether it has a health check.
            condition: Condition::Started,
            required: true,
        };
        plan.push(wait, start.into_iter().collect());
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::State;

    #[test]
    fn each_container_is_waited_for_after_its_start() {
        let container = |service: &str, state| Container {
            name: format!("x-{service}-1"),
            service: service.to_owned(),
            state,
            ..Container::default()
        };
        let seen = Seen {
            containers: vec![
                container("db", State::Running),
                container("web", State::Exited),
                container("other", State::Exited),
            ],
            ..Seen::default()
        };
        let services = ["db".to_owned(), "web".to_owned()];
        let plan = with_waits(plans::start(None, &seen, &services), &seen, |s| {
            services.contains(s)
        });
        let lines: Vec<String> = plan
            .steps
            .iter()
            .map(|s| format!("{} {:?}", s.operation, s.after))
            .collect();
        assert_eq!(
            lines,
            [
                "start container x-web-1 []",
                "wait until container x-db-1 runs []",
                "wait until container x-web-1 runs [0]"
            ]
        );
    }
}
