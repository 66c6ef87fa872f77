//! The `wharfie` command: what the user types, and what is shown.
//!
//! [`main`] parses, [`commands::run`] does, and the outcome becomes an exit code. Commands
//! reach containers through [`control`] alone.

mod accept;
mod agent;
mod api;
mod api_director;
mod api_dns;
mod api_network;
mod changes;
mod cli;
mod commands;
mod context;
mod control;
mod detach;
mod dockermod;
mod failure;
mod follow;
mod install;
mod output;
#[cfg(test)]
mod reference;
mod refused;
mod session;
mod signals;
mod sweep;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match refused::explain(&error, std::env::args_os()) {
            Some(failure) => {
                failure.report();
                return failure.exit_code();
            }
            None => error.exit(),
        },
    };
    cli.global.ansi.apply();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

fn run(cli: cli::Cli) -> Result<(), failure::Failure> {
    // One thread does: the work is waiting for the Engine. What waits for the kernel waits elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(commands::run(cli));
    // A thread may still be reading standard input; it ends with the process.
    runtime.shutdown_background();
    outcome
}
