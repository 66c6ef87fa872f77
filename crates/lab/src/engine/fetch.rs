//! Fetching an Engine of another Debian suite, without touching what the machine has installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kind::Installation;
use crate::layout;
use crate::state::lock;
use crate::teardown::remove_tree;
use crate::tools;

/// All but runc: newer ones need a newer C library than Debian 12 has, and Debian 12's serves.
const PACKAGES: [&str; 4] = ["docker.io", "docker-cli", "containerd", "docker-compose"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The folder with a suite's Engine; fetched if it is not there yet. One process fetches, others
/// wait for it, and a folder that is there is whole.
pub(super) fn fetch(suite: &str) -> Result<PathBuf> {
    let engines = layout::cache().join("engines");
    let folder = engines.join(format!("{suite}-{}", std::env::consts::ARCH));
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock(&engines.join("lock"))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("fetching the Docker Engine of Debian {suite}, once …");
    let staging = engines.join(format!("{suite}.partial"));
    // Left by a process that was stopped while it fetched.
    remove_tree(&staging)?;
    let fetched = download(&staging, suite).and_then(|()| {
        Installation::in_folder(&staging.join("root"))?.version()?;
        let root = staging.join("root");
        fs::rename(&root, &folder).with_context(|| format!("cannot make {}", folder.display()))
    });
    remove_tree(&staging)?;
    fetched.with_context(|| format!("cannot fetch the Engine of Debian {suite}"))?;
    Ok(folder)
}

fn download(staging: &Path, suite: &str) -> Result<()> {
    for folder in ["lists/partial", "cache/archives/partial", "debs", "root"] {
        fs::create_dir_all(staging.join(folder))
            .with_context(|| format!("cannot make {}", staging.display()))?;
    }
    let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
    fs::write(staging.join("sources.list"), source).context("cannot write the sources")?;
    tools::run(apt_get(staging).arg("update"))?;
    tools::run(
        apt_get(staging)
            .current_dir(staging.join("debs"))
            .arg("download")
            .args(PACKAGES),
    )?;
    for deb in fs::read_dir(staging.join("debs"))? {
        let deb = deb?.path();
        tools::run(
            tools::command("dpkg")
                .arg("-x")
                .arg(deb)
                .arg(staging.join("root")),
        )?;
    }
    Ok(())
}

/// apt with sources, lists and caches of its own; proxies and the like are as the machine has them.
fn apt_get(staging: &Path) -> Command {
    let mut command = tools::command("apt-get");
    for (option, value) in [
        ("Dir::Etc::SourceList", "sources.list"),
        ("Dir::Etc::SourceParts", "no-sources"),
        ("Dir::Etc::PreferencesParts", "no-preferences"),
        ("Dir::State::Lists", "lists"),
        ("Dir::Cache", "cache"),
    ] {
        let value = staging.join(value);
        command.arg(format!("-o={option}={}", value.display()));
    }
    command.args([
        "-q",
        // Nothing counts as installed: only these packages are wanted, whatever the machine has.
        "-o=Dir::State::Status=/dev/null",
        // The sandbox user could not write to this folder.
        "-o=APT::Sandbox::User=root",
        "-o=Acquire::Languages=none",
        "-o=Acquire::Retries=3",
    ]);
    command
}

/// The mirror that this machine has Debian itself from.
fn mirror() -> Result<String> {
    ensure!(
        Path::new(KEYRING).is_file(),
        "{KEYRING} is missing: package debian-archive-keyring"
    );
    const FORMAT: &str = "$(REPO_URI) $(ORIGIN) $(LABEL)";
    let targets = |()| {
        tools::run(tools::command("apt-get").args([
            "indextargets",
            "--format",
            FORMAT,
            "Created-By: Packages",
        ]))
    };
    if let Some(mirror) = debian_in(&targets(())?) {
        return Ok(mirror);
    }
    // Who a source is from is known only once its lists are here.
    tools::run(tools::command("apt-get").args(["-q", "update"]))?;
    debian_in(&targets(())?).context("none of this machine's package sources is Debian's")
}

fn debian_in(targets: &str) -> Option<String> {
    targets
        .lines()
        .find_map(|line| line.strip_suffix(" Debian Debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_main_archive() {
        let targets = "http://a.example/node/ Node Node\n\
                       http://m.example/debian-security/ Debian Debian-Security\n\
                       http://m.example/debian/ Debian Debian\n";
        let mirror = debian_in(targets).expect("there");
        assert_eq!(mirror, "http://m.example/debian/");
        assert!(debian_in("http://x.example/ $(ORIGIN) $(LABEL)\n").is_none());
    }
}
