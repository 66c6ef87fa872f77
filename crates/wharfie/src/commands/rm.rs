//! `wharfie rm`.

use std::io::{BufRead, Write};

use clap::Args;
use wharfie_core::{Intent, Operation};

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
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Rm {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        lifecycle::ask(context, &self.services, |_, seen| {
            let plan = plans::remove(seen, &self.services, self.stop, self.volumes);
            let names: Vec<&str> = plan
                .steps
                .iter()
                .filter_map(|s| match &s.operation {
                    Operation::RemoveContainer { name, .. } => Some(name.as_str()),
                    _ => None,
                })
                .collect();
            if names.is_empty() {
                output::say("No stopped containers");
            } else if !context.dry_run() {
                output::lines([format!("Going to remove {}", names.join(", "))])?;
                if !self.force && !asked()? {
                    return Err(Failure::failed("not removed: the answer was not yes"));
                }
            }
            let intent = Intent::Remove {
                services: self.services.clone(),
                stop: self.stop,
                volumes: self.volumes,
            };
            Ok((intent, plan))
        })
        .await
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
