//! What can be typed: the global options and the list of commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::output::progress::Mode;
use crate::output::style::Ansi;

/// Runs applications described in Compose files on Docker hosts.
#[derive(Debug, Parser)]
#[command(
    name = "wharfie",
    version,
    disable_version_flag = true,
    after_help = "Example:\n  wharfie up -d          start the application of ./compose.yaml\n  wharfie ps             see it\n  wharfie down           take it down",
    next_help_heading = "Global options"
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,

    /// Print the version
    #[arg(short = 'V', short_alias = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that stand before the command; the first ones may also stand behind it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Compose file (several: the later override the earlier; "-" is standard input)
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<String>,

    /// Project name [default: the file's "name", else the directory's name]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) project_name: Option<String>,

    /// Directory that relative paths start from [default: the first file's]
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,

    /// Profile to enable (several are possible; "*" is all)
    #[arg(long = "profile", value_name = "PROFILE")]
    pub(crate) profiles: Vec<String>,

    /// File with variables, in place of ".env" (several are possible)
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,

    /// Docker Engine to use [default: the local one]
    #[arg(
        short = 'H',
        long,
        env = "DOCKER_HOST",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) host: Option<String>,

    /// Socket of the agent [default: /run/wharfie/wharfie.sock]
    #[arg(
        long,
        env = "WHARFIE_SOCKET",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(crate) socket: Option<PathBuf>,

    /// Operations done at a time, -1 for as many as the Engine takes
    #[arg(
        long,
        env = "COMPOSE_PARALLEL_LIMIT",
        hide_env_values = true,
        default_value_t = -1,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    pub(crate) parallel: i64,

    /// Keep networks, volumes and others that no service uses
    #[arg(long)]
    pub(crate) all_resources: bool,

    /// When to use colours
    #[arg(
        long,
        global = true,
        env = "COMPOSE_ANSI",
        hide_env_values = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = false
    )]
    pub(crate) ansi: Ansi,

    /// How to show progress
    #[arg(
        long,
        global = true,
        env = "COMPOSE_PROGRESS",
        hide_env_values = true,
        value_enum,
        default_value_t,
        value_name = "TYPE"
    )]
    pub(crate) progress: Mode,

    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
}

/// The commands; each one's own documentation is its help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(commands::up::Up),
    Down(commands::down::Down),
    Ps(commands::ps::Ps),
    Ls(commands::ls::Ls),
    Logs(commands::logs::Logs),
    Scale(commands::scale::Scale),
    Plan(commands::plan::Plan),
    #[command(alias = "convert")]
    Config(commands::config::Config),
    Build(commands::build::Build),
    Pull(commands::pull::Pull),
    Exec(commands::exec::Exec),
    Run(commands::run_once::Run),
    Create(commands::create::Create),
    Start(commands::start::Start),
    Stop(commands::stop::Stop),
    Restart(commands::restart::Restart),
    Kill(commands::kill::Kill),
    Rm(commands::rm::Rm),
    Pause(commands::pause::Pause),
    Unpause(commands::pause::Unpause),
    Wait(commands::wait::Wait),
    Top(commands::top::Top),
    Stats(commands::stats::Stats),
    Cp(commands::cp::Cp),
    Images(commands::images::Images),
    Image(commands::image::Image),
    Volume(commands::volume::Volume),
    Volumes(commands::volumes::Volumes),
    Network(commands::network::Network),
    Dns(commands::dns::Dns),
    Director(commands::director::Director),
    Inspect(commands::inspect::Inspect),
    Attach(commands::attach::Attach),
    Export(commands::export::Export),
    Commit(commands::commit::Commit),
    Push(commands::push::Push),
    Watch(commands::watch::Watch),
    Port(commands::port::Port),
    Events(commands::events::Events),
    History(commands::history::History),
    Undo(commands::undo::Undo),
    Template(commands::template::Template),
    Token(commands::token::Token),
    Join(commands::join::Join),
    Node(commands::node::Node),
    Rollout(commands::rollout::Rollout),
    Rebalance(commands::rebalance::Rebalance),
    Status(commands::status::Status),
    Agent(commands::agent::Agent),
    Reload(commands::reload::Reload),
    Dockermod(commands::dockermod::Dockermod),
    Doctor(commands::doctor::Doctor),
    Install(commands::install::Install),
    Tunnel(commands::tunnel::Tunnel),
    Version(commands::version::Version),
    Completion(commands::completion::Completion),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        use clap::CommandFactory;
        let cli = Cli::command();
        let below = cli
            .get_subcommands()
            .flat_map(clap::Command::get_subcommands);
        for command in cli.get_subcommands().chain(below) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example"),
                "{} has no example",
                command.get_name()
            );
        }
    }
}
