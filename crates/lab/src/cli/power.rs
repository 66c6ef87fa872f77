use anyhow::Result;
use clap::Args;

use super::{WhichLab, host};

/// Pull a host's plug: all its processes, containers included, are gone at once
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab power-off h2")]
pub(super) struct PowerOff {
    #[command(flatten)]
    lab: WhichLab,
    /// The host
    host: String,
}

impl PowerOff {
    pub(super) fn run(self) -> Result<()> {
        host(&self.lab.open()?, &self.host)?.power_off()
    }
}

/// Boot a host whose plug was pulled
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab power-on h2")]
pub(super) struct PowerOn {
    #[command(flatten)]
    lab: WhichLab,
    /// The host
    host: String,
}

impl PowerOn {
    pub(super) fn run(self) -> Result<()> {
        host(&self.lab.open()?, &self.host)?.power_on()
    }
}
