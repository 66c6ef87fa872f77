//! `wharfie scale`.

use clap::Args;
use wharfie_core::reconcile::UpOptions;

use super::providers;
use super::shape::{self, Place, Shape, parse_scale};
use super::up::act;
use crate::context::Context;
use crate::failure::Failure;

/// Sets the number of containers of services, and leaves the others as they are.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie scale web=3 worker=0")]
pub(crate) struct Scale {
    /// Leave out the services that these depend on
    #[arg(long)]
    no_deps: bool,
    /// Services and numbers
    #[arg(value_name = "SERVICE=NUMBER", required = true, value_parser = parse_scale)]
    scale: Vec<(String, u32)>,
}

impl Scale {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let services: Vec<String> = self.scale.iter().map(|(s, _)| s.clone()).collect();
        let shape = Shape {
            scale: self.scale.clone(),
            ..Shape::default()
        };
        let mut loaded = shape::load(context, &services, &shape)?;
        providers::up(context, &mut loaded, &services, self.no_deps).await?;
        let options = UpOptions {
            no_deps: self.no_deps,
            ..shape.up_options(&services)
        };
        act(
            context,
            &loaded,
            Place::default(),
            &options,
            &shape.images.execution(),
            None,
        )
        .await
    }
}
