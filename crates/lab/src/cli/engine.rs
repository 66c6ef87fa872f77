use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use wharfie_lab::{Engine, EngineKind};

use super::{EngineName, WhichLab, host, print};

/// The host whose Engine is meant.
#[derive(Debug, Args)]
struct Target {
    #[command(flatten)]
    lab: WhichLab,
    /// The host
    host: String,
}

impl Target {
    fn with_engine(&self, act: impl FnOnce(&Engine) -> Result<()>) -> Result<()> {
        act(host(&self.lab.open()?, &self.host)?.engine())
    }
}

/// Kill a host's dockerd, as a crash does: its containers go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab kill-engine h2")]
pub(super) struct Kill {
    #[command(flatten)]
    target: Target,
}

impl Kill {
    pub(super) fn run(self) -> Result<()> {
        self.target.with_engine(Engine::kill)
    }
}

/// Stop a host's Engine in order
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab stop-engine h2")]
pub(super) struct Stop {
    #[command(flatten)]
    target: Target,
}

impl Stop {
    pub(super) fn run(self) -> Result<()> {
        self.target.with_engine(Engine::stop)
    }
}

/// Start a host's Engine and wait until it answers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab start-engine h2")]
pub(super) struct Start {
    #[command(flatten)]
    target: Target,
}

impl Start {
    pub(super) fn run(self) -> Result<()> {
        self.target.with_engine(Engine::start)
    }
}

/// Stop a host's Engine in order and start it again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab restart-engine h2")]
pub(super) struct Restart {
    #[command(flatten)]
    target: Target,
}

impl Restart {
    pub(super) fn run(self) -> Result<()> {
        self.target.with_engine(Engine::restart)
    }
}

/// Engines that hosts can have
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab engine fetch 28")]
pub(super) struct EngineCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch an Engine, if it is not there yet, and print the folder of its programs
    #[command(after_help = "Example:\n  PATH=$(wharfie-lab engine fetch 28)/usr/bin:$PATH")]
    Fetch {
        /// Which one
        #[arg(value_enum)]
        engine: EngineName,
    },
}

impl EngineCommand {
    pub(super) fn run(self) -> Result<()> {
        let Action::Fetch { engine } = self.action;
        let kind = EngineKind::from(engine);
        let installation = kind.installation()?;
        let version = installation.version().context("it does not run here")?;
        eprintln!("Docker Engine {version}");
        print(&format!("{}\n", installation.folder.display()))
    }
}
