//! `wharfie kill`.

use clap::Args;

use super::{lifecycle, pick};
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;

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
        let target = context.target(&self.services)?;
        let control = Control::connect(context).await?;
        let mut containers = pick::containers(&control, &target, &self.services).await?;
        containers.retain(|c| c.is_running());
        let (control, signal) = (&control, self.signal.as_str());
        lifecycle::to_each(
            context,
            control,
            &containers,
            ["kill", "Killing", "Killed"],
            |c| control.kill(&c.id, signal),
        )
        .await
    }
}
