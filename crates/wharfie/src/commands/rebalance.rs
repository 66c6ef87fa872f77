//! `wharfie rebalance`.

use clap::Args;

use crate::api::{Moved, Rebalance as Wanted};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;

/// Evens out where tasks run, with as few moves as possible.
///
/// Nothing moves for evenness by itself. What has local data stays where it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie rebalance --dry-run\n  wharfie rebalance shop")]
pub(crate) struct Rebalance {
    /// Stacks [default: all]
    #[arg(value_name = "STACK")]
    stacks: Vec<String>,
}

impl Rebalance {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let wanted = Wanted {
            stacks: self.stacks.clone(),
            dry_run: context.dry_run(),
        };
        let moved: Vec<Moved> = agent.tell("/v1/rebalance", &wanted).await?;
        if moved.is_empty() {
            return output::text("Nothing to move: all is even");
        }
        let lines = moved
            .iter()
            .map(|m| format!("{}/{}: {} to {}", m.stack, m.task, m.from, m.to));
        Ok(output::lines(lines)?)
    }
}
