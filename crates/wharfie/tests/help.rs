//! The help of every command, word for word. To take over a change that is meant:
//! `WHARFIE_UPDATE=1 cargo test -p wharfie --test help`.

use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 50] = [
    "",
    "up",
    "down",
    "ps",
    "ls",
    "logs",
    "scale",
    "plan",
    "config",
    "build",
    "pull",
    "exec",
    "run",
    "create",
    "start",
    "stop",
    "restart",
    "kill",
    "rm",
    "pause",
    "unpause",
    "wait",
    "top",
    "stats",
    "cp",
    "images",
    "volumes",
    "inspect",
    "attach",
    "export",
    "commit",
    "push",
    "watch",
    "port",
    "events",
    "history",
    "undo",
    "template",
    "template ls",
    "template show",
    "template put",
    "template rm",
    "agent",
    "reload",
    "dockermod",
    "dockermod import",
    "doctor",
    "install",
    "version",
    "completion",
];

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

#[test]
fn every_command_has_its_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let mut changed = Vec::new();
    for command in COMMANDS {
        let name = if command.is_empty() {
            "wharfie"
        } else {
            command
        };
        let file = name.replace(' ', "-");
        let (file, text) = (folder.join(file).with_extension("txt"), help(command));
        assert!(
            text.contains("Example"),
            "the help of {name} has no example"
        );
        if std::env::var_os("WHARFIE_UPDATE").is_some() {
            std::fs::create_dir_all(&folder).expect("a folder can be made");
            std::fs::write(&file, &text).expect("a file can be written");
        } else if std::fs::read_to_string(&file).unwrap_or_default() != text {
            changed.push(name);
        }
    }
    assert!(
        changed.is_empty(),
        "the help of {changed:?} is another than in {}",
        folder.display()
    );
}

#[test]
fn every_command_is_in_the_list() {
    let text = help("");
    let listed: Vec<&str> = text
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let known: Vec<&str> = COMMANDS
        .into_iter()
        .filter(|c| !c.is_empty() && !c.contains(' '))
        .chain(["help"])
        .collect();
    assert_eq!(listed, known);
}
