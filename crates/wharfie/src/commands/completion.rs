//! `wharfie completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Writes the completions of a shell to standard output.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie completion bash > /etc/bash_completion.d/wharfie\n  source <(wharfie completion zsh)"
)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Does it.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "wharfie", &mut text);
        Ok(output::print(&String::from_utf8_lossy(&text))?)
    }
}
