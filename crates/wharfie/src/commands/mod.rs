//! The commands, one file each. Each is its options and a `run`.

pub(crate) mod agent;
pub(crate) mod attach;
mod attached;
mod bake;
pub(crate) mod build;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod config;
mod config_digests;
mod config_select;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod director;
pub(crate) mod dns;
pub(crate) mod dockermod;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
mod images_of_others;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod join;
pub(crate) mod kill;
mod lifecycle;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod pause;
pub(crate) mod pick;
pub(crate) mod plan;
pub(crate) mod port;
mod providers;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rebalance;
pub(crate) mod reload;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod rollout;
pub(crate) mod run_once;
mod run_overrides;
pub(crate) mod scale;
mod shape;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod tunnel;
pub(crate) mod undo;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod volume;
mod volume_places;
pub(crate) mod volumes;
pub(crate) mod wait;
pub(crate) mod watch;
mod watch_rules;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;

/// Does what was typed.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Up(c) => c.run(&context).await,
        Command::Down(c) => c.run(&context).await,
        Command::Ps(c) => c.run(&context).await,
        Command::Ls(c) => c.run(&context).await,
        Command::Logs(c) => c.run(&context).await,
        Command::Scale(c) => c.run(&context).await,
        Command::Plan(c) => c.run(&context).await,
        Command::Config(c) => c.run(&context).await,
        Command::Build(c) => c.run(&context).await,
        Command::Pull(c) => c.run(&context).await,
        Command::Exec(c) => c.run(&context).await,
        Command::Run(c) => c.run(&context).await,
        Command::Create(c) => c.run(&context).await,
        Command::Start(c) => c.run(&context).await,
        Command::Stop(c) => c.run(&context).await,
        Command::Restart(c) => c.run(&context).await,
        Command::Kill(c) => c.run(&context).await,
        Command::Rm(c) => c.run(&context).await,
        Command::Pause(c) => c.run(&context).await,
        Command::Unpause(c) => c.run(&context).await,
        Command::Wait(c) => c.run(&context).await,
        Command::Top(c) => c.run(&context).await,
        Command::Stats(c) => c.run(&context).await,
        Command::Cp(c) => c.run(&context).await,
        Command::Images(c) => c.run(&context).await,
        Command::Image(c) => c.run(&context).await,
        Command::Volume(c) => c.run(&context).await,
        Command::Volumes(c) => c.run(&context).await,
        Command::Network(c) => c.run(&context).await,
        Command::Dns(c) => c.run(&context).await,
        Command::Director(c) => c.run(&context).await,
        Command::Inspect(c) => c.run(&context).await,
        Command::Attach(c) => c.run(&context).await,
        Command::Export(c) => c.run(&context).await,
        Command::Commit(c) => c.run(&context).await,
        Command::Push(c) => c.run(&context).await,
        Command::Watch(c) => c.run(&context).await,
        Command::Port(c) => c.run(&context).await,
        Command::Events(c) => c.run(&context).await,
        Command::History(c) => c.run(&context).await,
        Command::Undo(c) => c.run(&context).await,
        Command::Template(c) => c.run(&context).await,
        Command::Token(c) => c.run(&context).await,
        Command::Join(c) => c.run(&context).await,
        Command::Node(c) => c.run(&context).await,
        Command::Rollout(c) => c.run(&context).await,
        Command::Rebalance(c) => c.run(&context).await,
        Command::Status(c) => c.run(&context).await,
        Command::Agent(c) => c.run(&context).await,
        Command::Reload(c) => c.run(&context).await,
        Command::Dockermod(c) => c.run(&context).await,
        Command::Doctor(c) => c.run(&context).await,
        Command::Install(c) => c.run(&context).await,
        Command::Tunnel(c) => c.run().await,
        Command::Version(c) => c.run(),
        Command::Completion(c) => c.run(),
    }
}
