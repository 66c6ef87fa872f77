//! Running the machine's own programs (`ip`, `nft`, `apt-get`) with errors that say what went wrong.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Where system programs are, also when the caller's PATH has no `sbin`.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that finds programs in the `sbin` folders too.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", SYSTEM_PATH).env("LC_ALL", "C");
    command
}

/// Runs a command to its end and returns what it printed; a failure is an error with its stderr.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    finished(command, output)
}

/// As [`run`], with `input` on the command's standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails early closes its input; its own message is the better error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {command:?}"))?;
    finished(command, output).with_context(|| format!("its input was:\n{input}"))
}

fn finished(command: &Command, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Many `ip` commands in one process: each start of `ip` costs more than what it does.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = command("ip");
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace]);
    }
    ip.args(["-batch", "-"]);
    run_with_input(&mut ip, &(lines.join("\n") + "\n"))?;
    Ok(())
}

/// The full path of a program, if the machine has it.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(SYSTEM_PATH.split(':'))
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(program))
        .find(|candidate| candidate.is_file())
}

/// The last `count` lines of a log, for error messages.
pub(crate) fn last_lines(file: &Path, count: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let error = run(command("sh").args(["-c", "echo no such luck >&2; exit 3"]))
            .expect_err("must fail")
            .to_string();
        assert!(error.contains("no such luck"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn programs_are_found_outside_the_callers_path() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-here").is_none());
    }
}
