//! `wharfie status`.

use clap::Args;
use serde_json::json;

use super::node;
use crate::api::{NodeState, StackInfo};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::{self, Listing};

/// Shows the cluster at a glance, and what is not well.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie status\n  wharfie status --format json\n  wharfie status --quiet || echo degraded"
)]
pub(crate) struct Status {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,

    /// Print only what is wrong first, if anything; the exit code is 1 then
    #[arg(short, long)]
    quiet: bool,
}

impl Status {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let nodes = node::nodes(&agent).await?;
        let stacks: Vec<StackInfo> = agent.get("/v1/stacks").await?;
        let lost: Vec<String> = agent.get("/v1/lost").await?;
        let up = nodes.iter().filter(|n| n.state == NodeState::Up).count();
        // What is known of those that are away is old.
        let there = nodes.iter().filter(|n| n.may_answer());
        let containers = there.filter_map(|n| n.report.as_ref());
        let containers = containers.flat_map(|r| &r.containers);
        let running = containers.filter(|c| c.is_running()).count();
        let mut troubles: Vec<String> = nodes.iter().flat_map(node::troubles).collect();
        troubles.extend(lost);
        for stack in &stacks {
            let of = |what: &str| format!("stack {}: {what}", stack.name);
            troubles.extend(stack.trouble.iter().map(|t| of(t)));
            let tasks = stack.troubles.iter();
            troubles.extend(tasks.map(|t| {
                of(&format!(
                    "{}: {} (attempt {})",
                    t.task, t.reason, t.attempts
                ))
            }));
        }
        if self.quiet {
            return match troubles.first() {
                Some(first) => Err(Failure::failed(first.clone())),
                None => Ok(()),
            };
        }
        if matches!(self.format, Listing::Json) {
            let status = json!({
                "Nodes": nodes.len(),
                "NodesUp": up,
                "Stacks": stacks.len(),
                "Running": running,
                "Troubles": troubles,
            });
            return output::text(&status.to_string());
        }
        output::text(&format!(
            "{} up of {}; {}; {} running",
            up,
            counted(nodes.len(), "node"),
            counted(stacks.len(), "stack"),
            counted(running, "container"),
        ))?;
        if troubles.is_empty() {
            return output::text("All is well");
        }
        Ok(output::lines(
            troubles.into_iter().map(|t| format!("! {t}")),
        )?)
    }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
