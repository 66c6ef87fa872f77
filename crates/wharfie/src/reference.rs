//! The document of all commands, made from what the parser knows (`make docs`).

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Args, Command, CommandFactory};

use crate::cli::Cli;

/// The whole document.
fn markdown() -> String {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut text = String::from(
        "# Commands\n\n\
         Made from the code by `make docs`; do not edit. `wharfie COMMAND --help` shows the same.\n\
         How it compares with docker compose is in [compose-commands.md](../compose-commands.md).\n\n\
         Exit codes: 0 done; 1 failed; 2 the command line or a file is invalid; 3 timed out\n\
         waiting; 4 no Engine or agent, or not permitted; 130 interrupted. `exec`, `run` and\n\
         `up --exit-code-from` pass on the container's own.\n\n",
    );
    let commands: Vec<&Command> = program
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .collect();
    for command in &commands {
        let name = command.get_name();
        line(
            &mut text,
            &format!("- [`{name}`](#{name}): {}", first(command)),
        );
    }
    text.push_str(
        "\n## Before the command\n\nThese hold for every command; those marked * may also stand behind it.\n\n",
    );
    let own = program.get_arguments().filter(|a| a.get_id() != "help");
    table(
        &mut text,
        own,
        |a| if a.is_global_set() { " *" } else { "" },
    );
    for command in commands {
        one(&mut text, command, command.get_name());
        for below in below(command) {
            let name = format!("{} {}", command.get_name(), below.get_name());
            one(&mut text, below, &name);
        }
    }
    text
}

/// What a command consists of, if it is several.
fn below(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
}

fn one(text: &mut String, command: &Command, name: &str) {
    line(text, &format!("\n## {name}\n"));
    let about = command.get_long_about().or(command.get_about());
    line(
        text,
        &format!("{}\n", about.map(ToString::to_string).unwrap_or_default()),
    );
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    line(text, &format!("```\n{usage}\n```"));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|a| !a.is_global_set() && a.get_id() != "help")
        .collect();
    if own.iter().any(|a| !a.is_hide_set()) {
        text.push('\n');
        table(text, own.into_iter(), |_| "");
    }
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines = examples.lines().skip(1).map(|l| l.trim_start());
        let body: Vec<&str> = lines.collect();
        line(
            text,
            &format!("\n```sh\n{}\n```", body.join("\n").trim_end()),
        );
    }
}

fn first(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn table<'a>(
    text: &mut String,
    arguments: impl Iterator<Item = &'a Arg>,
    mark: impl Fn(&Arg) -> &'static str,
) {
    line(text, "| option | |\n| --- | --- |");
    for argument in arguments.filter(|a| !a.is_hide_set()) {
        line(
            text,
            &format!(
                "| {}{} | {} |",
                names(argument),
                mark(argument),
                meaning(argument)
            ),
        );
    }
}

/// `-f`, `--file FILE`, as typed.
fn names(argument: &Arg) -> String {
    let value = argument
        .get_value_names()
        .filter(|_| takes_value(argument))
        .map(|names| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            names.join(" ")
        });
    let (short, long) = (argument.get_short(), argument.get_long());
    if short.is_none() && long.is_none() {
        let value = value.unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
        return format!("`{value}`");
    }
    let flags = short
        .map(|s| format!("-{s}"))
        .into_iter()
        .chain(long.map(|l| format!("--{l}")));
    let flags: Vec<String> = flags.collect();
    let value = value.map(|v| format!(" {v}")).unwrap_or_default();
    format!("`{}{value}`", flags.join(", "))
}

fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string);
    let mut text = help.unwrap_or_default();
    let possible: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|v| !v.is_hide_set() && takes_value(argument))
        .map(|v| format!("`{}`", v.get_name()))
        .collect();
    if !possible.is_empty() {
        text.push_str(&format!(": {}", possible.join(", ")));
    }
    let default: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy().into_owned())
        .filter(|v| !v.is_empty() && takes_value(argument))
        .collect();
    if !default.is_empty() {
        text.push_str(&format!(" [default: {}]", default.join(", ")));
    }
    if let (Some(variable), false) = (argument.get_env(), argument.is_hide_env_set()) {
        text.push_str(&format!(" [environment: {}]", variable.to_string_lossy()));
    }
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}"); // a string takes all
}

#[test]
fn the_document_of_commands_is_current() {
    is_current("commands.md", &markdown());
}

#[test]
fn the_document_of_settings_is_current() {
    is_current("settings.md", &settings());
}

fn is_current(name: &str, text: &str) {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference");
    let path = std::path::Path::new(dir).join(name);
    if std::env::var_os("WHARFIE_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).expect("the document can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/reference/{name} is out of date: run `make docs`"
    );
}

/// The settings of the agent, from the parser's own words.
fn settings() -> String {
    let mut text = String::from(
        "# Settings of the agent\n\n\
         Made from the program by `make docs`; do not edit.\n\n\
         The agent reads `/etc/wharfie/wharfie.toml` (another file with `--config` or\n\
         `WHARFIE_CONFIG`). Every key is also a flag of `wharfie agent`, which counts more. What is\n\
         not known is refused with its line. After a change `wharfie reload`, or SIGHUP, applies it\n\
         without a restart; only `state-dir`, `node-name` and `cluster-…` need one. The socket's place\n\
         is `--socket` or `WHARFIE_SOCKET`, for the agent and for every other command.\n\n\
         ```toml\n\
         # /etc/wharfie/wharfie.toml\n\
         log-format = \"json\"\n\
         resync = \"1m\"\n\
         socket-group = \"docker\"\n\
         ```\n\n\
         | key | what it is | environment |\n| --- | --- | --- |\n",
    );
    let command = crate::agent::settings::Given::augment_args(clap::Command::new("agent"));
    for arg in command.get_arguments() {
        let Some(name) = arg.get_long() else { continue };
        let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|v| format!("`{}`", v.get_name()))
            .collect();
        if !values.is_empty() {
            help = format!("{help}: {}", values.join(", "));
        }
        let variable = arg
            .get_env()
            .map(|v| format!("`{}`", v.to_string_lossy()))
            .unwrap_or_default();
        line(&mut text, &format!("| `{name}` | {help} | {variable} |"));
    }
    text
}
