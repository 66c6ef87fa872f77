//! What docker compose takes and Wharfie does not: who types it is told why, rather than that
//! nothing of the kind is known.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// Where Wharfie's command line is another than docker compose's. `scripts/compose-parity` holds
/// it against both programs, so it is true.
const TABLE: &str = include_str!("../compose-commands.tsv");

/// A line of the table that refuses something.
struct Refusal {
    command: &'static str,
    /// Long and short form, or nothing where the whole command is refused.
    flags: &'static str,
    why: &'static str,
}

fn refusals() -> impl Iterator<Item = Refusal> {
    TABLE.lines().filter_map(|line| {
        let mut cells = line.split('\t');
        let (command, flags) = (cells.next()?, cells.next()?);
        (cells.next()? == "refused").then_some(())?;
        let why = cells.next()?;
        Some(Refusal {
            command,
            flags,
            why,
        })
    })
}

/// The reason, if what was typed is one of docker compose's own things.
pub(crate) fn explain(
    error: &clap::Error,
    arguments: impl Iterator<Item = OsString>,
) -> Option<Failure> {
    let (kind, whole) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, false),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, true),
        _ => return None,
    };
    let Some(ContextValue::String(thing)) = error.get(kind) else {
        return None;
    };
    let typed: Vec<String> = arguments
        .skip(1)
        .filter_map(|a| a.into_string().ok())
        .collect();
    refusals().find_map(|r| {
        if whole {
            return (r.flags.is_empty() && r.command == thing)
                .then(|| failure(&format!("`{thing}`"), r.why));
        }
        // Options of the program itself have no command.
        let of_command = r.command.is_empty() || typed.iter().any(|t| t == r.command);
        (of_command && r.flags.split(", ").any(|f| f == thing))
            .then(|| failure(&format!("`{thing}` of `{}`", name(r.command)), r.why))
    })
}

fn name(command: &str) -> String {
    format!("docker compose {command}").trim_end().to_owned()
}

fn failure(thing: &str, why: &str) -> Failure {
    Failure::usage(format!("{thing} is not taken: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn explained(line: &str) -> Option<String> {
        let arguments = || line.split_whitespace().map(OsString::from);
        let error = Cli::try_parse_from(arguments()).err()?;
        match explain(&error, arguments())? {
            Failure::Usage(message) => Some(message.what),
            _ => None,
        }
    }

    #[test]
    fn what_is_refused_is_explained() {
        for line in [
            "wharfie bridge convert",
            "wharfie up --menu",
            "wharfie --compatibility ps",
        ] {
            let said = explained(line).unwrap_or_default();
            assert!(said.contains("is not taken: "), "{line}: {said}");
        }
    }

    #[test]
    fn what_nobody_knows_is_not() {
        for line in [
            "wharfie nope",
            "wharfie up --nope",
            "wharfie ps --menu",
            "wharfie",
        ] {
            assert_eq!(explained(line), None, "{line}");
        }
    }
}
