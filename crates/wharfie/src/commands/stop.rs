//! `wharfie stop`.

use clap::Args;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use wharfie_core::Intent;
use wharfie_core::reconcile::lifecycle as plans;

/// Stops containers, those first that depend on others, and keeps them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie stop --timeout 5 web")]
pub(crate) struct Stop {
    /// Seconds that containers may take to stop [default: each service's own time]
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Services to stop [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Stop {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let timeout = self.timeout.map(i64::from);
        lifecycle::ask(context, &self.services, |_, seen| {
            let intent = Intent::Stop {
                services: self.services.clone(),
                timeout,
                starting: Vec::new(),
            };
            Ok((intent, plans::stop(seen, &self.services, timeout)))
        })
        .await
    }
}
