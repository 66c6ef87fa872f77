//! `wharfie create`.

use clap::Args;
use wharfie_core::reconcile::UpOptions;

use super::providers;
use super::shape::{self, Shape};
use super::up::act;
use crate::context::Context;
use crate::failure::Failure;

/// Creates containers, networks and volumes as the files say, and starts nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie create && wharfie start")]
pub(crate) struct Create {
    /// What the plan is to look like.
    #[command(flatten)]
    shape: Shape,
    /// For scripts of docker compose: nothing is ever asked
    #[arg(short = 'y', long)]
    #[allow(dead_code)] // there is nothing to answer
    yes: bool,
    /// Services, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Create {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut loaded = shape::load(context, &self.services, &self.shape)?;
        providers::up(context, &mut loaded, &self.services, false).await?;
        let options = UpOptions {
            no_start: true,
            ..self.shape.up_options(&self.services)
        };
        act(
            context,
            &loaded,
            self.shape.place(),
            &options,
            &self.shape.images.execution(),
            None,
        )
        .await
    }
}
