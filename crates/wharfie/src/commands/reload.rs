//! `wharfie reload`.

use clap::Args;

use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;

/// Makes the agent read its settings anew, without a restart.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie reload")]
pub(crate) struct Reload {}

impl Reload {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let changed: Vec<String> = Client::new(context.socket()).post("/v1/reload").await?;
        Ok(output::lines([if changed.is_empty() {
            "nothing changed".to_owned()
        } else {
            format!("changed: {}", changed.join(", "))
        }])?)
    }
}
