//! `wharfie start`.

use clap::Args;

use super::lifecycle;
use crate::context::Context;
use crate::failure::Failure;
use wharfie_core::Intent;
use wharfie_core::reconcile::lifecycle as plans;

/// Starts containers that exist, those first that others depend on.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie start web")]
pub(crate) struct Start {
    /// Services to start [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Start {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        lifecycle::ask(context, &self.services, |target, seen| {
            let meant =
                |service: &String| self.services.is_empty() || self.services.contains(service);
            if !seen
                .containers
                .iter()
                .any(|c| !c.oneoff && meant(&c.service))
            {
                return Err(Failure::failed(format!(
                    "there is no container to start in project {:?}",
                    target.name
                ))
                .help("`wharfie up -d` creates and starts them"));
            }
            let intent = Intent::Start {
                project: target.definition(),
                services: self.services.clone(),
            };
            let plan = plans::start(target.project(), seen, &self.services);
            Ok((intent, plan))
        })
        .await
    }
}
