//! `wharfie restart`.

use clap::Args;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use wharfie_core::Intent;
use wharfie_core::reconcile::lifecycle as plans;
use wharfie_host::Engine;

/// Restarts containers, those first that others depend on.
///
/// Changes in the files are not taken up: "up" does that.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie restart web")]
pub(crate) struct Restart {
    /// Leave out the services that ask to be restarted with these ("restart: true")
    #[arg(long)]
    no_deps: bool,
    /// Seconds that containers may take to stop [default: each service's own time]
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Services to restart, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Restart {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let timeout = self.timeout.map(i64::from);
        let ask = lifecycle::ask(context, &self.services, |target, seen, mut services| {
            if let (Some(project), false) = (target.project(), self.no_deps || services.is_empty())
            {
                // Also those that ask to be restarted with one of them, and so on.
                let mut looked_at = 0;
                while let Some(service) = services.get(looked_at).cloned() {
                    let with_it = project
                        .services
                        .values()
                        .filter(|s| s.depends_on.get(&service).is_some_and(|d| d.restart));
                    for other in with_it {
                        if !services.contains(&other.name) {
                            services.push(other.name.clone());
                        }
                    }
                    looked_at += 1;
                }
            }
            let plan = plans::restart(seen, &services, timeout);
            Ok((Intent::Restart { services, timeout }, plan))
        });
        let words = ["restart", "Restarting", "Restarted"];
        let restart =
            |engine: Engine, id: String| async move { engine.restart(&id, timeout).await };
        ask.await?.each(context, words, |_| true, restart).await
    }
}
