//! The `wharfie-lab` command.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use wharfie_lab::{Lab, eventually};

use crate::{SOON, leftovers, skipped};

fn wharfie_lab(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie-lab"));
    command.args(args);
    command
}

fn said(output: Output) -> Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A kept lab belongs to nobody: without this a failed test would leave it.
struct Kept<'name>(&'name str);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let _ = Lab::remove(self.0);
    }
}

#[test]
fn a_lab_made_by_hand_stays_until_it_is_taken_down() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let up = said(wharfie_lab(&["up", "1", "--client", "c1"]).output()?)?;
    let name = up.split(' ').next().context("the name comes first")?;
    let _kept = Kept(name);
    let lab = |args: &[&str]| -> Result<String> {
        let output = wharfie_lab(args).env("WHARFIE_LAB_NAME", name).output()?;
        said(output)
    };
    assert!(!Lab::collect_garbage()?.contains(&name.to_owned()));
    assert_eq!(lab(&["exec", "h1", "--", "hostname"])?, "h1\n");
    lab(&["kill-engine", "h1"])?;
    lab(&["start-engine", "h1"])?;
    lab(&["cut", "h1", "--from", "c1", "--one-way", "out"])?;
    let listed: serde_json::Value = serde_json::from_str(&lab(&["ls", "--format", "json"])?)?;
    let rows = listed.as_array().context("a list")?;
    let host = rows
        .iter()
        .find(|row| row["lab"] == name && row["name"] == "h1");
    let host = host.context("the host is listed")?;
    assert_eq!(host["faults"], "does not reach c1");
    assert!(host["pid"].is_u64());
    lab(&["heal"])?;

    let dir = Lab::open(name)?.dir().to_owned();
    lab(&["down"])?;
    assert_eq!(leftovers(name, &dir), [""; 0]);
    Ok(())
}

#[test]
fn an_interrupted_start_leaves_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for signal in ["INT", "TERM"] {
        let mut up = wharfie_lab(&["up", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let prefix = format!("wl{:x}g", up.id());
        let name = eventually(SOON, || {
            let found = Lab::names()?
                .into_iter()
                .find(|name| name.starts_with(&prefix));
            found.context("not begun")
        })?;
        let dir = PathBuf::from(
            std::env::var("WHARFIE_LAB_DIR").unwrap_or("/var/tmp/wharfie-lab".into()),
        );
        let kill = format!("kill -{signal} {}", up.id());
        ensure!(Command::new("sh").args(["-c", &kill]).status()?.success());
        let status = eventually(SOON, || match up.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("it goes on"),
        })?;
        assert!(!status.success(), "{signal}");
        assert_eq!(leftovers(&name, &dir.join(&name)), [""; 0], "{signal}");
    }
    Ok(())
}

#[test]
fn mistakes_are_told() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let output = wharfie_lab(&["exec", "--lab", "wl0nosuch", "h1", "--", "true"]).output()?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("there is no lab wl0nosuch"), "{error}");
    let output = wharfie_lab(&["up", "0"]).output()?;
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("1 to 99 hosts"), "{error}");
    Ok(())
}
