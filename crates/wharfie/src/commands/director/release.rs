//! `wharfie director release`.

use clap::Args;

use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;

/// Takes all addresses and names off the nodes again, and forgets what was said.
///
/// Containers go on. What Wharfie did not make stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie director release")]
pub(super) struct Release {}

impl Release {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        if context.dry_run() {
            return output::text("give back all addresses, and forget the zone");
        }
        let agent = Client::new(context.socket());
        let gone: usize = agent.delete("/v1/director").await?;
        output::text(&match gone {
            1 => "1 address is given back".to_owned(),
            n => format!("{n} addresses are given back"),
        })
    }
}
