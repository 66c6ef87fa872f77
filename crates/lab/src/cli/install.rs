use anyhow::Result;
use clap::Args;
use wharfie_lab::prerequisites;

use super::print;

/// Install the Debian packages a lab needs (`up` does so too)
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab install\n  wharfie-lab install --dry-run")]
pub(super) struct Install {
    /// Only say which packages are missing
    #[arg(long)]
    dry_run: bool,
}

impl Install {
    pub(super) fn run(self) -> Result<()> {
        if !self.dry_run {
            return prerequisites::install();
        }
        for package in prerequisites::missing() {
            print(&format!("{package}\n"))?;
        }
        Ok(())
    }
}
