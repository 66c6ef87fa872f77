//! What needs no Engine: `config`, `version`, `completion`, usage errors and their exit codes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wharfie-offline-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn wharfie(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie"));
        command
            .args(args)
            .current_dir(&self.0)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/root")]);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what is left is in the temporary folder
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_fault_is_shown_with_its_place_and_line() {
    let folder = Folder::new("faults");
    std::fs::write(
        folder.0.join("compose.yaml"),
        "services:\n  web:\n    image: a\n    colour: red\n    ports: [x]\n",
    )
    .expect("written");
    let output = folder.wharfie(&["config"]);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in [
        "compose.yaml:4:5",
        "colour: red",
        "compose.yaml:5:13",
        "ports: [x]",
        "2 faults",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(
        !text.contains('\x1b'),
        "colours outside a terminal:\n{text}"
    );
}

#[test]
fn usage_errors_have_code_2() {
    let folder = Folder::new("usage");
    std::fs::write(
        folder.0.join("compose.yaml"),
        "services: {web: {image: a}}\n",
    )
    .expect("written");
    for args in [
        &["nope"][..],
        &["config", "--nope"],
        &["config", "--services", "--images"],
        &["config", "--hash", "web", "--no-interpolate"],
        &["config", "nope"],
        &["config", "--hash", "nope"],
        &["-f", "missing.yaml", "config"],
        &["-p", "Not Valid", "config"],
        &["completion", "nope"],
    ] {
        let output = folder.wharfie(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn no_file_says_what_to_do() {
    let folder = Folder::new("none");
    let output = folder.wharfie(&["config"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("-f"), "{}", err(&output));
}

#[test]
fn standard_input_and_output_files_work() {
    let folder = Folder::new("stdin");
    let mut child = folder
        .command(&["-p", "x", "-f", "-", "config", "-o", "out.yaml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"services: {web: {image: a}}\n")
        .expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout.is_empty());
    let text = std::fs::read_to_string(folder.0.join("out.yaml")).expect("written");
    assert!(text.starts_with("name: x\n"), "{text}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = Folder::new("pipe");
    let mut child = folder
        .command(&["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
}

#[test]
fn version_and_completion() {
    let folder = Folder::new("version");
    let short = folder.wharfie(&["version", "--short"]);
    assert_eq!(
        String::from_utf8_lossy(&short.stdout).trim(),
        env!("CARGO_PKG_VERSION")
    );
    let json = folder.wharfie(&["version", "-f", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let output = folder.wharfie(&["completion", shell]);
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("wharfie"),
            "{shell}"
        );
    }
}
