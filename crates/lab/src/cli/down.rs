use anyhow::Result;
use clap::Args;
use wharfie_lab::Lab;

use super::{WhichLab, print};

/// Remove a lab with all that is in it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab down\n  wharfie-lab down --all")]
pub(super) struct Down {
    #[command(flatten)]
    lab: WhichLab,
    /// All labs of this machine, also those a running test uses
    #[arg(long, conflicts_with = "lab")]
    all: bool,
}

impl Down {
    pub(super) fn run(self) -> Result<()> {
        if self.all {
            for name in Lab::remove_all()? {
                print(&format!("{name} removed\n"))?;
            }
            return Ok(());
        }
        let name = self.lab.name()?;
        Lab::remove(&name)?;
        print(&format!("{name} removed\n"))
    }
}
