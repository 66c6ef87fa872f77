//! The help of every command, word for word. To take over a change that is meant:
//! `WHARFIE_UPDATE=1 cargo test -p wharfie --test help`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn help(command: &str) -> String {
    let mut wharfie = Command::new(env!("CARGO_BIN_EXE_wharfie"));
    wharfie
        .env_clear()
        .args(command.split_whitespace())
        .arg("--help");
    let output = wharfie.output().expect("the binary runs");
    assert!(
        output.status.success(),
        "{command} --help: {}",
        output.status
    );
    assert!(
        output.stderr.is_empty(),
        "{command} --help writes to standard error"
    );
    String::from_utf8(output.stdout).expect("help is text")
}

/// The commands that a help lists, but for `help` itself.
fn listed(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect()
}

/// A command with all below it, each with its help.
fn walk(command: &str, found: &mut Vec<(String, String)>) {
    let text = help(command);
    let below: Vec<String> = listed(&text)
        .into_iter()
        .map(|name| format!("{command} {name}").trim().to_owned())
        .collect();
    found.push((command.to_owned(), text));
    for command in below {
        walk(&command, found);
    }
}

#[test]
fn every_command_has_its_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("WHARFIE_UPDATE").is_some();
    let mut commands = Vec::new();
    walk("", &mut commands);
    assert!(commands.len() > 60, "only {} commands", commands.len());
    let (mut changed, mut known) = (Vec::new(), BTreeSet::new());
    for (command, text) in &commands {
        let name = if command.is_empty() {
            "wharfie"
        } else {
            command
        };
        let file = format!("{}.txt", name.replace(' ', "-"));
        let path = folder.join(&file);
        known.insert(file);
        assert!(
            text.contains("Example"),
            "the help of {name} has no example"
        );
        if update {
            std::fs::create_dir_all(&folder).expect("a folder can be made");
            std::fs::write(&path, text).expect("a file can be written");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != *text {
            changed.push(name);
        }
    }
    assert!(
        changed.is_empty(),
        "the help of {changed:?} is another than in {}",
        folder.display()
    );
    for file in std::fs::read_dir(&folder).expect("the folder is there") {
        let file = file.expect("the folder can be read");
        let name = file.file_name().to_string_lossy().into_owned();
        if known.contains(&name) {
            continue;
        }
        assert!(update, "{name} is of a command that is no more");
        std::fs::remove_file(file.path()).expect("a file can be removed");
    }
}
