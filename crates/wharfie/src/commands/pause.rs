//! `wharfie pause` and `wharfie unpause`.

use clap::Args;

use super::{lifecycle, pick};
use crate::context::Context;
use crate::control::{Control, State};
use crate::failure::Failure;

/// Halts containers where they are.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie pause web")]
pub(crate) struct Pause {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Lets paused containers go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie unpause web")]
pub(crate) struct Unpause {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Pause {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let target = context.target(&self.services)?;
        let control = &Control::connect(context).await?;
        let mut containers = pick::containers(control, &target, &self.services).await?;
        containers.retain(|c| c.state == State::Running);
        lifecycle::to_each(
            context,
            control,
            &containers,
            ["pause", "Pausing", "Paused"],
            |c| control.pause(&c.id),
        )
        .await
    }
}

impl Unpause {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let target = context.target(&self.services)?;
        let control = &Control::connect(context).await?;
        let mut containers = pick::containers(control, &target, &self.services).await?;
        containers.retain(|c| c.state == State::Paused);
        lifecycle::to_each(
            context,
            control,
            &containers,
            ["unpause", "Unpausing", "Unpaused"],
            |c| control.unpause(&c.id),
        )
        .await
    }
}
