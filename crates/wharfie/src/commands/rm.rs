//! `wharfie rm`.

use std::io::{BufRead, Write};

use clap::Args;
use wharfie_core::{Intent, Operation};
use wharfie_host::Engine;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use wharfie_core::reconcile::lifecycle as plans;

/// Removes stopped containers.
///
/// Volumes stay, but for anonymous ones with -v.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie rm            remove what is stopped, after asking\n  wharfie rm -sf web    stop and remove without asking"
)]
pub(crate) struct Rm {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop the containers first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Rm {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let ask = lifecycle::ask(context, &self.services, |_, seen, services| {
            let plan = plans::remove(seen, &services, self.stop, self.volumes);
            let names: Vec<&str> = plan
                .steps
                .iter()
                .filter_map(|s| match &s.operation {
                    Operation::RemoveContainer { name, .. } => Some(name.as_str()),
                    _ => None,
                })
                .collect();
            self.confirm(context, &names)?;
            let intent = Intent::Remove {
                services,
                stop: self.stop,
                volumes: self.volumes,
            };
            Ok((intent, plan))
        });
        let mut named = ask.await?;
        if named.containers.is_empty() {
            return Ok(());
        }
        named.containers.retain(|c| self.stop || !c.is_running());
        let names: Vec<&str> = named.containers.iter().map(|c| c.name.as_str()).collect();
        self.confirm(context, &names)?;
        let (stop, volumes) = (self.stop, self.volumes);
        let remove = |engine: Engine, id: String| async move {
            if stop {
                engine.stop(&id, None).await?;
            }
            engine.remove(&id, volumes, false).await
        };
        let words = ["remove", "Removing", "Removed"];
        named.each(context, words, |_| true, remove).await
    }

    /// Says what goes, and asks unless told not to.
    fn confirm(&self, context: &Context, names: &[&str]) -> Result<(), Failure> {
        if names.is_empty() {
            output::say("No stopped containers");
        } else if !context.dry_run() {
            output::lines([format!("Going to remove {}", names.join(", "))])?;
            if !self.force && !asked()? {
                return Err(Failure::failed("not removed: the answer was not yes"));
            }
        }
        Ok(())
    }
}

fn asked() -> Result<bool, Failure> {
    output::print("Are you sure? [yN] ")?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
