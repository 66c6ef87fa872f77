//! `wharfie plan`.

use clap::Args;
use serde_json::json;

use super::providers;
use super::shape::{self, UpShape};
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output::{self, Listing, say, warn};

/// Shows what "up" would do, an operation a line, and does nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie plan\n  wharfie plan --format json --scale web=3 | jq '.steps[].operation.action'"
)]
pub(crate) struct Plan {
    /// What the plan is to look like.
    #[command(flatten)]
    up: UpShape,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Services to bring up, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Plan {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let loaded = shape::load(context, &self.services, &self.up.shape)?;
        if providers::any(&loaded.project) {
            warn(
                "providers are not run: what they tell the services that depend on them is not in this plan",
            );
        }
        let control =
            Control::connect_for(context, &loaded.project.name, self.up.shape.on.as_deref())
                .await?;
        let seen = control.observe(&loaded.project).await?;
        let mut plan = control.plan_up(&loaded, &seen, &self.up.up_options(&self.services))?;
        wharfie_core::spare::create(&loaded.project, &seen, &mut plan);
        plan.notices.iter().for_each(|n| warn(n));
        control.check(&loaded, &plan)?;
        let options = self.up.up_options(&self.services);
        let placement = match control.several() {
            true => control.placement(&loaded.project, &options, &seen).await?,
            false => Vec::new(),
        };
        if self.format == Listing::Json {
            let mut plan = json!(plan);
            if control.several() {
                plan["placement"] = json!(placement);
            }
            return Ok(output::json(&plan)?);
        }
        for task in &placement {
            let node = task.node.as_ref();
            let node = node.map_or_else(|| "nowhere".to_owned(), |n| format!("on {n}"));
            output::lines([format!("task {} {node}: {}", task.task, task.why)])?;
        }
        if plan.is_empty() {
            say("Nothing to do: everything is as the files say");
        }
        Ok(output::lines(
            plan.steps.iter().map(|s| s.operation.to_string()),
        )?)
    }
}
