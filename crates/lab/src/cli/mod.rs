//! The commands, one file each.

mod down;
mod engine;
mod exec;
mod fault;
mod install;
mod ls;
mod power;
mod up;

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use wharfie_lab::{EngineKind, Host, Lab, Machine};

/// Docker hosts on one machine, from network namespaces: each with an Engine of its own, on a LAN
/// that can be broken at will. For development; needs root.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  wharfie-lab up 3\n  wharfie-lab exec h1 -- docker run --rm \
                  busybox echo hello\n  wharfie-lab down"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Ls(ls::Ls),
    Exec(exec::Exec),
    Cut(fault::Cut),
    Heal(fault::Heal),
    Loss(fault::Loss),
    KillEngine(engine::Kill),
    StopEngine(engine::Stop),
    StartEngine(engine::Start),
    RestartEngine(engine::Restart),
    PowerOff(power::PowerOff),
    PowerOn(power::PowerOn),
    Down(down::Down),
    Engine(engine::EngineCommand),
    Install(install::Install),
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Up(command) => command.run(),
            Command::Ls(command) => command.run(),
            Command::Exec(command) => command.run(),
            Command::Cut(command) => command.run(),
            Command::Heal(command) => command.run(),
            Command::Loss(command) => command.run(),
            Command::KillEngine(command) => command.run(),
            Command::StopEngine(command) => command.run(),
            Command::StartEngine(command) => command.run(),
            Command::RestartEngine(command) => command.run(),
            Command::PowerOff(command) => command.run(),
            Command::PowerOn(command) => command.run(),
            Command::Down(command) => command.run(),
            Command::Engine(command) => command.run(),
            Command::Install(command) => command.run(),
        }
    }
}

/// Prints a result. A reader that has seen enough (`head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Which lab a command is about.
#[derive(Debug, Args)]
struct WhichLab {
    /// The lab's name, as `up` printed it; needed only if there are several
    #[arg(long, short, value_name = "NAME", env = "WHARFIE_LAB_NAME")]
    lab: Option<String>,
}

impl WhichLab {
    fn open(&self) -> Result<Lab> {
        Lab::open(&self.name()?)
    }

    fn name(&self) -> Result<String> {
        if let Some(name) = &self.lab {
            return Ok(name.clone());
        }
        match &*Lab::names()? {
            [] => bail!("there is no lab; `wharfie-lab up 3` makes one"),
            [name] => Ok(name.clone()),
            several => bail!(
                "there are several labs, choose with --lab: {}",
                several.join(", ")
            ),
        }
    }
}

/// The machine, host or client, with this name.
fn machine(lab: &Lab, name: &str) -> Result<Machine> {
    if let Some(host) = lab.host_named(name) {
        return Ok(host.machine().clone());
    }
    let mut clients = lab.clients_so_far().into_iter();
    clients
        .find(|client| client.name() == name)
        .with_context(|| format!("there is no machine {name} in the lab {}", lab.name()))
}

fn host<'lab>(lab: &'lab Lab, name: &str) -> Result<&'lab Host> {
    lab.host_named(name)
        .with_context(|| format!("there is no host {name} in the lab {}", lab.name()))
}

/// An Engine as it is written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineName {
    /// The dockerd this machine has (20.10 on Debian 12)
    Debian,
    /// Debian 13's, fetched once
    #[value(name = "26")]
    Trixie26,
    /// Debian unstable's, fetched once
    #[value(name = "28")]
    Sid28,
}

impl From<EngineName> for EngineKind {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Debian => Self::Debian,
            EngineName::Trixie26 => Self::Trixie26,
            EngineName::Sid28 => Self::Sid28,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        let mut open = vec![command];
        while let Some(mut command) = open.pop() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(
                name == "help" || help.contains("Example:"),
                "{name}:\n{help}"
            );
            open.extend(
                command
                    .get_subcommands()
                    .filter(|c| c.get_name() != "help")
                    .cloned(),
            );
        }
    }
}
