//! `wharfie pause` and `wharfie unpause`.

use clap::Args;

use super::{lifecycle, pick};
use crate::context::Context;
use crate::control::State;
use crate::failure::Failure;

/// Halts containers where they are.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie pause web")]
pub(crate) struct Pause {
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Lets paused containers go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie unpause web")]
pub(crate) struct Unpause {
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Pause {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let mut containers = meant.containers(&control).await?;
        containers.retain(|c| c.state == State::Running);
        lifecycle::to_each(
            context,
            &control,
            &containers,
            ["pause", "Pausing", "Paused"],
            |c| {
                let control = control.at(c);
                async move { control.pause(&c.id).await }
            },
        )
        .await
    }
}

impl Unpause {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let mut containers = meant.containers(&control).await?;
        containers.retain(|c| c.state == State::Paused);
        lifecycle::to_each(
            context,
            &control,
            &containers,
            ["unpause", "Unpausing", "Unpaused"],
            |c| {
                let control = control.at(c);
                async move { control.unpause(&c.id).await }
            },
        )
        .await
    }
}
