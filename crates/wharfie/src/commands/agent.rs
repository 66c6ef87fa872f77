//! `wharfie agent`.

use std::path::PathBuf;

use clap::Args;

use crate::agent::{self, Start, settings::Given};
use crate::context::Context;
use crate::failure::Failure;

/// Runs the agent: it keeps what runs on this host as it is wanted, and answers the other commands.
///
/// Containers outlive it: stopping, killing or replacing an agent touches none. Each of its options
/// can be set in the file of settings under the same name; SIGHUP and `wharfie reload` read the
/// file anew.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie agent                                 in this terminal\n  wharfie agent --log-format json --log-level debug\n  wharfie install                               at every boot, by systemd"
)]
pub(crate) struct Agent {
    /// File of settings [default: /etc/wharfie/wharfie.toml]
    #[arg(
        long,
        env = "WHARFIE_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// Detach from the terminal
    #[arg(long, hide = true)]
    background: bool,
    /// The settings.
    #[command(flatten)]
    settings: Given,
}

impl Agent {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut flags = self.settings.clone();
        flags.engine = flags.engine.or_else(|| context.global.host.clone());
        if self.background {
            // It fails only for the leader of a group, which is then detached already.
            let _ = rustix::process::setsid();
            flags.idle_exit.get_or_insert_with(|| "1m".to_owned());
        }
        agent::run(Start {
            flags,
            file: self.config.clone(),
            socket: context.socket(),
            background: self.background,
        })
        .await
    }
}
