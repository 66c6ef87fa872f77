//! `wharfie rollout`.

use clap::{Args, Subcommand};

use crate::api::{Change, Rollout as Shown, RolloutChange};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing, when};

/// Shows how services go from one revision to the next, and halts that.
///
/// A service has a rollout when `up` changes it and its file has `deploy.update_config`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie rollout status\n  wharfie rollout pause web\n  wharfie -p shop rollout undo"
)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Status(Status),
    Pause(Pause),
    Resume(Resume),
    Undo(Undo),
}

/// Shows the rollouts that go on, and the last one of each service.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie rollout status\n  wharfie -p shop rollout status --format json"
)]
struct Status {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

/// Lets no more tasks go on until the rollout is resumed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie rollout pause web")]
struct Pause {
    /// Services [default: all that are rolled out]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Goes on with a rollout that was paused, or came to a halt.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie rollout resume web")]
struct Resume {
    /// Services [default: all that wait]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Brings back the revision before, as `rollback_config` says.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie rollout undo web")]
struct Undo {
    /// Services [default: all that are rolled out]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Rollout {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let stack = context.stack(None)?;
        let path = format!("/v1/stacks/{stack}/rollout");
        let (change, services) = match &self.what {
            What::Status(status) => {
                let rollouts: Vec<Shown> = agent.get(&path).await?;
                return show(&rollouts, &status.format);
            }
            What::Pause(p) => (Change::Pause, &p.services),
            What::Resume(r) => (Change::Resume, &r.services),
            What::Undo(u) => (Change::Undo, &u.services),
        };
        let change = RolloutChange {
            change,
            services: services.clone(),
        };
        let rollouts: Vec<Shown> = agent.tell(&path, &change).await?;
        show(&rollouts, &Listing::Table)
    }
}

fn show(rollouts: &[Shown], format: &Listing) -> Result<(), Failure> {
    if matches!(format, Listing::Json) {
        let lines = rollouts
            .iter()
            .filter_map(|r| serde_json::to_string(r).ok());
        return Ok(output::lines(lines)?);
    }
    let zone = jiff::tz::TimeZone::system();
    let mut table = Table::new(0, ["SERVICE", "FROM", "TO", "STATE", "SINCE"]);
    for rollout in rollouts {
        let status = &rollout.status;
        table.row([
            status.service.clone(),
            status.from.clone(),
            status.to.clone(),
            status.to_string(),
            when::show(status.began / 1000, &zone),
        ]);
    }
    output::text(&table.render())
}
