//! `wharfie stop`.

use clap::Args;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use wharfie_core::reconcile::lifecycle as plans;
use wharfie_core::{Container, Intent};
use wharfie_host::Engine;

/// Stops containers, those first that depend on others, and keeps them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie stop --timeout 5 web")]
pub(crate) struct Stop {
    /// Seconds that containers may take to stop [default: each service's own time]
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Services to stop, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Stop {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let timeout = self.timeout.map(i64::from);
        let ask = lifecycle::ask(context, &self.services, |_, seen, services| {
            let plan = plans::stop(seen, &services, timeout);
            let intent = Intent::Stop {
                services,
                timeout,
                starting: Vec::new(),
            };
            Ok((intent, plan))
        });
        let words = ["stop", "Stopping", "Stopped"];
        let stop = |engine: Engine, id: String| async move { engine.stop(&id, timeout).await };
        let runs = Container::is_running;
        ask.await?.each(context, words, runs, stop).await
    }
}
