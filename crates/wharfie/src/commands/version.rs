//! `wharfie version`.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::failure::Failure;
use crate::output;

/// Shows the version.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie version\n  wharfie version --short\n  wharfie version -f json"
)]
pub(crate) struct Version {
    /// Print the number only
    #[arg(long)]
    short: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

/// How the version is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A sentence.
    #[default]
    Pretty,
    /// JSON.
    Json,
}

impl Version {
    /// Does it.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let number = env!("CARGO_PKG_VERSION");
        Ok(match (self.short, self.format) {
            (true, _) => output::lines([number]),
            (false, Format::Json) => output::json(&json!({ "version": format!("v{number}") })),
            (false, Format::Pretty) => output::lines([format!("Wharfie version v{number}")]),
        }?)
    }
}
