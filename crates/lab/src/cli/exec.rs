use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use super::{WhichLab, machine};

/// Run a command on a host or client, with DOCKER_HOST set
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wharfie-lab exec h1 -- docker ps\n  wharfie-lab exec h1 -- bash"
)]
pub(super) struct Exec {
    #[command(flatten)]
    lab: WhichLab,
    /// The host or client
    name: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Exec {
    pub(super) fn run(self) -> Result<()> {
        let machine = machine(&self.lab.open()?, &self.name)?;
        let (program, args) = self.command.split_first().context("no command")?;
        // In place of this process: the terminal, signals and the exit code are the command's own.
        let error = machine.command(program).args(args).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
