//! What `wharfie install` puts where.

mod unit;
mod write;

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;

pub(crate) use write::{Outcome, put, remove};

/// Where the program goes.
const PROGRAM: &str = "/usr/local/bin/wharfie";
/// Where the unit goes.
const UNIT: &str = "/etc/systemd/system/wharfie.service";
/// What makes it start at boot.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/wharfie.service";
/// Which files were written, a path a line.
pub(crate) const LIST: &str = "/usr/local/share/wharfie/installed";

/// Something to be put at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Where, as seen from the root.
    pub(crate) path: PathBuf,
    /// What.
    pub(crate) what: What,
}

/// What is put somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A file with this content.
    File(Vec<u8>),
    /// A copy of a program.
    Program(PathBuf),
    /// A link to a path.
    Link(PathBuf),
}

impl Item {
    fn file(path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            what: What::File(content.into()),
        }
    }
}

/// Everything that belongs to an installation. `program` is what runs now.
pub(crate) fn items(program: &Path, enable: bool) -> Result<Vec<Item>, Failure> {
    let mut items = vec![
        Item {
            path: PROGRAM.into(),
            what: What::Program(program.to_owned()),
        },
        Item::file(UNIT, unit::text(Path::new(PROGRAM))),
    ];
    if enable {
        items.push(Item {
            path: ENABLED.into(),
            what: What::Link(UNIT.into()),
        });
    }
    for (shell, path) in [
        (
            Shell::Bash,
            "/usr/local/share/bash-completion/completions/wharfie",
        ),
        (Shell::Zsh, "/usr/local/share/zsh/site-functions/_wharfie"),
        (
            Shell::Fish,
            "/usr/local/share/fish/vendor_completions.d/wharfie.fish",
        ),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "wharfie", &mut text);
        items.push(Item::file(path, text));
    }
    items.extend(pages()?);
    let list: String = items
        .iter()
        .map(|i| format!("{}\n", i.path.display()))
        .collect();
    items.push(Item::file(LIST, list));
    Ok(items)
}

/// A manual page for the program and for each command.
fn pages() -> Result<Vec<Item>, Failure> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let commands: Vec<clap::Command> = whole
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .cloned()
        .collect();
    std::iter::once(whole)
        .chain(commands)
        .map(|command| {
            let page = clap_mangen::Man::new(command)
                .source(concat!("wharfie ", env!("CARGO_PKG_VERSION")))
                .manual("Wharfie");
            let mut text = Vec::new();
            page.render(&mut text)?;
            let path = Path::new("/usr/local/share/man/man1").join(page.get_filename());
            Ok(Item::file(path, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let items = items(Path::new("/here/wharfie"), true).expect("items");
        let has = |path: &str| items.iter().any(|i| i.path == Path::new(path));
        assert!(has("/usr/local/share/man/man1/wharfie.1"));
        for command in Cli::command().get_subcommands() {
            let page = format!("/usr/local/share/man/man1/wharfie-{}.1", command.get_name());
            assert!(command.is_hide_set() || has(&page), "{page}");
        }
        assert!(has(ENABLED) && has(UNIT) && has(PROGRAM) && has(LIST));
    }

    #[test]
    fn it_need_not_start_at_boot() {
        let items = items(Path::new("/here/wharfie"), false).expect("items");
        assert!(!items.iter().any(|i| i.path == Path::new(ENABLED)));
    }
}
