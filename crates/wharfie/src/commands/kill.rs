//! `wharfie kill`.

use clap::Args;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use wharfie_core::Intent;
use wharfie_core::reconcile::lifecycle as plans;

/// Sends a signal to running containers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie kill web\n  wharfie kill -s SIGHUP web")]
pub(crate) struct Kill {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL", value_name = "SIGNAL")]
    signal: String,
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Kill {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        lifecycle::ask(context, &self.services, |_, seen| {
            let intent = Intent::Kill {
                services: self.services.clone(),
                signal: self.signal.clone(),
            };
            Ok((intent, plans::signal(seen, &self.services, &self.signal)))
        })
        .await
    }
}
