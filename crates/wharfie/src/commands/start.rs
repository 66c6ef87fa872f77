//! `wharfie start`.

use clap::Args;
use wharfie_compose::model::Condition;
use wharfie_core::{Intent, Operation, Plan};
use wharfie_host::Engine;

use super::lifecycle;
use super::up::within;
use crate::context::Context;
use crate::control::{Container, Control, Execution, Seen};
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
    /// Services to start, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Start {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        within(self.wait_timeout, self.start(context)).await
    }

    async fn start(&self, context: &Context) -> Result<(), Failure> {
        let mut waits = Plan::default();
        let mut stack = String::new();
        let ask = lifecycle::ask(context, &self.services, |target, seen, services| {
            stack.clone_from(&target.name);
            let meant = |c: &&Container| {
                !c.oneoff && (services.is_empty() || services.contains(&c.service))
            };
            let mut containers = seen.containers.iter().filter(meant).peekable();
            if containers.peek().is_none() {
                return Err(Failure::failed(format!(
                    "there is no container to start in project {:?}",
                    target.name
                ))
                .help("`wharfie up -d` creates and starts them"));
            }
            for container in containers {
                let wait = Operation::Wait {
                    service: container.service.clone(),
                    name: container.name.clone(),
                    // Who executes it sees whether there is a health check.
                    condition: Condition::Started,
                    required: true,
                    elsewhere: false,
                };
                waits.push(wait, Vec::new());
            }
            let plan = plans::start(target.project(), seen, &services);
            let intent = Intent::Start {
                project: target.definition(),
                services,
            };
            Ok((intent, plan))
        });
        let words = ["start", "Starting", "Started"];
        let start = |engine: Engine, id: String| async move { engine.start(&id).await };
        let stands = |c: &Container| !c.is_running();
        ask.await?.each(context, words, stands, start).await?;
        if !self.wait || waits.is_empty() {
            return Ok(());
        }
        let control = Control::connect_for(context, &stack, None).await?;
        let (seen, execution) = (Seen::default(), Execution::default());
        let progress = context.progress();
        control
            .execute(None, &seen, &waits, &execution, &progress)
            .await
    }
}
