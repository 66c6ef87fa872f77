//! `wharfie history`.

use clap::Args;
use jiff::Timestamp;

use crate::api::Version;
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Lists what was wanted of a stack: every change, the newest first.
///
/// When two change a stack at the same time on hosts that do not reach each other, the later change
/// counts everywhere. The other one is listed as lost, its revision with `~` and its host, and
/// `wharfie undo --to` brings it back.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie history               of the stack of ./compose.yaml\n  wharfie history shop          by name\n  wharfie undo shop --to 3      bring revision 3 back"
)]
pub(crate) struct History {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print revisions only
    #[arg(short, long)]
    quiet: bool,
    /// The stack [default: the files' project]
    #[arg(value_name = "STACK")]
    stack: Option<String>,
}

impl History {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let stack = context.stack(self.stack.as_ref())?;
        let agent = Client::new(context.socket());
        let versions: Vec<Version> = agent.get(&format!("/v1/stacks/{stack}/history")).await?;
        if versions.is_empty() {
            return Err(
                Failure::failed(format!("nothing was ever wanted of stack {stack}"))
                    .help("`wharfie ls` lists the projects that there are"),
            );
        }
        if self.quiet {
            return Ok(output::lines(versions.iter().map(|v| v.id.clone()))?);
        }
        if self.format == Listing::Json {
            return Ok(output::json(&serde_json::json!(versions))?);
        }
        let mut table = Table::new(20, ["REVISION", "WHEN", "COMMAND", "CHANGES"]);
        for version in &versions {
            let when = Timestamp::from_millisecond(version.time).unwrap_or_default();
            table.row([
                version.id.clone(),
                when.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                version.command.clone(),
                changes(version),
            ]);
        }
        Ok(output::print(&table.render())?)
    }
}

/// What a version changed, and whether that was lost.
fn changes(version: &Version) -> String {
    let changes = match version.changes.is_empty() {
        true => "none".to_owned(),
        false => version.changes.join(", "),
    };
    match version.lost {
        true => format!("(lost to a concurrent change) {changes}"),
        false => changes,
    }
}
