//! `wharfie kill`.

use clap::Args;
use wharfie_compose::Project;

use super::{lifecycle, pick};
use crate::context::{Context, Target};
use crate::control::{Container, Control};
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
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Kill {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let target = context.target(&self.services)?;
        let control = Control::connect(context).await?;
        let mut containers = control.containers(&target.name).await?;
        pick::check_known(&target, &containers, &self.services)?;
        containers.retain(|c| c.is_running() && self.means(&target, c));
        if containers.is_empty() {
            say("no container to kill");
        }
        let (control, signal) = (&control, self.signal.as_str());
        lifecycle::to_each(
            context,
            control,
            &containers,
            ["kill", "Killing", "Killed"],
            |c| control.kill(&c.id, signal),
        )
        .await
    }

    /// Without names those of all services of the files, and the others only on request.
    fn means(&self, target: &Target, container: &Container) -> bool {
        if !self.services.is_empty() {
            return self.services.contains(&container.service);
        }
        let in_files = |p: &Project| p.any_service(&container.service).is_some();
        self.remove_orphans || target.project().is_none_or(in_files)
    }
}
