//! `wharfie wait`.

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use wharfie_core::Intent;
use wharfie_core::reconcile::{self, DownOptions};

use super::pick;
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output;

/// Waits until the containers of services end, and returns the exit code of the last one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie wait test && echo passed")]
pub(crate) struct Wait {
    /// Take the whole project down when the first container ends
    #[arg(long)]
    down_project: bool,
    /// Services, or containers by name or id
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

impl Wait {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let containers = meant.containers(&control).await?;
        if containers.is_empty() {
            return Err(Failure::failed(format!(
                "no container of {} to wait for",
                self.services.join(", ")
            )));
        }
        if context.dry_run() {
            return Ok(output::lines(
                containers
                    .iter()
                    .map(|c| format!("wait for container {}", c.name)),
            )?);
        }
        let control = &control;
        let mut waits: FuturesUnordered<_> = containers
            .iter()
            .map(|c| async move { (c, control.at(c).wait(&c.id).await) })
            .collect();
        let mut last = 0;
        while let Some((container, code)) = waits.next().await {
            last = code?;
            output::lines([format!(
                "container {:?} exited with status code {last}",
                container.name
            )])?;
            if self.down_project {
                break;
            }
        }
        drop(waits);
        if self.down_project {
            let Some(target) = meant.target() else {
                return Err(Failure::usage("--down-project goes with services"));
            };
            let control = Control::acting_for(context, &target.name, None).await?;
            let seen = control.observe_name(&target.name).await?;
            let options = DownOptions::default();
            let plan = reconcile::down(target.project(), &seen, &options);
            let intent = Intent::Down {
                project: target.definition(),
                options,
            };
            let progress = context.progress();
            control
                .act(
                    &target.name,
                    intent,
                    target.loaded.as_ref(),
                    &plan,
                    &progress,
                )
                .await?;
        }
        match u8::try_from(last).unwrap_or(1) {
            0 => Ok(()),
            code => Err(Failure::Exit(code)),
        }
    }
}
