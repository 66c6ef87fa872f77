//! `wharfie down`.

use clap::{Args, ValueEnum};
use wharfie_core::Intent;
use wharfie_core::reconcile::{self, DownOptions, RemoveImages};

use super::providers;
use crate::context::Context;
use crate::control::Control;
use crate::failure::{Failure, Message};
use crate::output::warn;
use crate::signals::Interrupts;

/// Stops and removes the containers and networks of a project.
///
/// With -p and without files everything that carries the project's label is meant.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie down              take the application down, keep its volumes\n  wharfie down -v           remove its volumes too\n  wharfie -p demo down      by name, without the files"
)]
pub(crate) struct Down {
    /// Remove named volumes of the files and anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Remove images too
    #[arg(long, value_enum, value_name = "WHICH")]
    rmi: Option<Rmi>,
    /// Remove containers of services that are not in the files
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env = true)]
    remove_orphans: bool,
    /// Seconds that containers may take to stop [default: each service's own time]
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Services to take down [default: all, and networks]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Which images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rmi {
    /// Those without a name of the user's
    Local,
    /// All that the services use
    All,
}

impl Down {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut target = context.target(&self.services)?;
        if self.rmi.is_some() && target.loaded.is_none() {
            // Only the files say which images are meant.
            target.loaded = Some(context.load(&[])?);
        }
        let control = Control::connect_for(context, &target.name, None).await?;
        let seen = match target.project() {
            // Images are looked up only if they are to go.
            Some(project) if self.rmi.is_some() => control.observe(project).await?,
            _ => control.observe_name(&target.name).await?,
        };
        let options = DownOptions {
            services: self.services.clone(),
            volumes: self.volumes,
            images: self.rmi.map(|r| match r {
                Rmi::Local => RemoveImages::Local,
                Rmi::All => RemoveImages::All,
            }),
            remove_orphans: self.remove_orphans,
            timeout: self.timeout.map(i64::from),
        };
        let plan = reconcile::down(target.project(), &seen, &options);
        plan.notices.iter().for_each(|n| warn(n));
        let provided = target.project().is_some_and(providers::any) && !control.dry_run();
        if plan.is_empty() && !provided {
            warn(&format!(
                "no resource found to remove for project {:?}",
                target.name
            ));
            // Something may be wanted of it all the same, if an agent is there to want it.
            if context.dry_run() || control.agent().info().await?.is_none() {
                return Ok(());
            }
        }
        let control = Control::acting_for(context, &target.name, None).await?;
        let intent = Intent::Down {
            project: target.definition(),
            options,
        };
        let progress = context.progress();
        let mut interrupts = Interrupts::listen()?;
        let loaded = target.loaded.as_ref();
        tokio::select! {
            done = control.act(&target.name, intent, loaded, &plan, &progress) => done?,
            () = interrupts.next() => {
                progress.finish();
                return Err(Failure::Interrupted(Message::new("interrupted; the agent goes on with it"))
                    .help("`wharfie ps -a` shows what is left"));
            }
        }
        if let Some(project) = target.project().filter(|_| provided) {
            providers::down(project, &self.services, &progress).await?;
            progress.finish();
        }
        Ok(())
    }
}
