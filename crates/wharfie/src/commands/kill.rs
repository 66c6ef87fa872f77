//! `wharfie kill`.

use clap::Args;
use wharfie_compose::Project;
use wharfie_core::Intent;
use wharfie_core::reconcile::lifecycle as plans;
use wharfie_host::Engine;

use super::lifecycle::{self, Named};
use crate::context::{Context, Target};
use crate::control::{Container, Seen};
use crate::failure::Failure;
use crate::output::say;

/// Sends a signal to running containers, also to those made by "run".
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie kill web\n  wharfie kill -s SIGHUP web")]
pub(crate) struct Kill {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL", value_name = "SIGNAL")]
    signal: String,
    /// Also to containers of services that are not in the files (they are not removed)
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env = true)]
    remove_orphans: bool,
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Kill {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut once = Vec::new();
        let named = lifecycle::ask(context, &self.services, |target, seen, services| {
            let services = self.meant(target, seen, services);
            let is_meant = |c: &&Container| services.is_empty() || services.contains(&c.service);
            once = seen
                .containers
                .iter()
                .filter(|c| c.oneoff && c.is_running())
                .filter(is_meant)
                .cloned()
                .collect();
            let plan = plans::signal(seen, &services, &self.signal);
            if plan.is_empty() && once.is_empty() {
                say("no container to kill");
            }
            let signal = self.signal.clone();
            Ok((Intent::Kill { services, signal }, plan))
        })
        .await?;
        // Nobody but who made them wants those of `run`: the agent has no part in them.
        let named = Named {
            containers: named.containers.into_iter().chain(once).collect(),
            control: named.control,
        };
        let words = ["kill", "Killing", "Killed"];
        let kill =
            |engine: Engine, id: String| async move { engine.kill(&id, Some(&self.signal)).await };
        named.each(context, words, |_| true, kill).await
    }

    /// The services that are meant, all if none: without names those of the files, and the others
    /// only on request.
    fn meant(&self, target: &Target, seen: &Seen, services: Vec<String>) -> Vec<String> {
        let Some(project) = target.project() else {
            return services;
        };
        if !services.is_empty() || self.remove_orphans {
            return services;
        }
        let in_files = |p: &Project, c: &Container| p.any_service(&c.service).is_some();
        if seen.containers.iter().all(|c| in_files(project, c)) {
            return Vec::new();
        }
        project.services.keys().cloned().collect()
    }
}
