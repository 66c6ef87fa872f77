//! The Engines a host can have, and where their programs are.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::fetch;
use crate::tools::{self, SYSTEM_PATH};

/// Which Docker Engine a host runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The `dockerd` this machine has: 20.10 on Debian 12.
    #[default]
    Debian,
    /// What Debian 13 has: 26.1. Fetched once.
    Trixie26,
    /// What Debian's unstable has: 28 (or newer, once it moves on). Fetched once.
    Sid28,
}

impl EngineKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Debian, Self::Trixie26, Self::Sid28];

    /// The name on the command line: `debian`, `26` or `28`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Trixie26 => "26",
            Self::Sid28 => "28",
        }
    }

    /// The Debian suite it is fetched from; none for the machine's own.
    pub(crate) fn suite(self) -> Option<&'static str> {
        match self {
            Self::Debian => None,
            Self::Trixie26 => Some("trixie"),
            Self::Sid28 => Some("sid"),
        }
    }

    /// Where the programs are; fetches them the first time.
    pub fn installation(self) -> Result<Installation> {
        match self.suite() {
            None => Installation::of_machine(),
            Some(suite) => Installation::in_folder(&fetch::fetch(suite)?),
        }
    }
}

impl FromStr for EngineKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == text) else {
            bail!("there is no Engine {text:?}; there are debian, 26 and 28");
        };
        Ok(kind)
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An Engine's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The folder of a fetched Engine; `/` for the machine's own.
    pub folder: PathBuf,
    /// The Engine.
    pub dockerd: PathBuf,
    /// The command line client, if it came along.
    pub docker: Option<PathBuf>,
    /// The compose plugin, a program that also runs by itself, if it came along.
    pub compose: Option<PathBuf>,
    /// The PATH with which the Engine finds its own containerd before the machine's.
    pub path: String,
}

impl Installation {
    fn of_machine() -> Result<Self> {
        let dockerd = tools::which("dockerd")
            .context("dockerd is not installed; `wharfie-lab install` does that")?;
        Ok(Self {
            folder: "/".into(),
            dockerd,
            docker: tools::which("docker"),
            compose: existing("/usr/libexec/docker/cli-plugins/docker-compose".into()),
            path: SYSTEM_PATH.to_owned(),
        })
    }

    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        let dockerd = folder.join("usr/sbin/dockerd");
        Ok(Self {
            dockerd: existing(dockerd)
                .with_context(|| format!("there is no dockerd in {}", folder.display()))?,
            docker: existing(folder.join("usr/bin/docker")),
            compose: existing(folder.join("usr/libexec/docker/cli-plugins/docker-compose")),
            path: format!("{0}/usr/sbin:{0}/usr/bin:{SYSTEM_PATH}", folder.display()),
            folder: folder.to_owned(),
        })
    }

    /// What `dockerd --version` says.
    pub fn version(&self) -> Result<String> {
        let said = tools::run(tools::command(&self.dockerd).arg("--version"))?;
        Ok(version_in(&said).to_owned())
    }
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

/// `Docker version 20.10.24+dfsg1, build 5d6db84` → `20.10.24+dfsg1`
fn version_in(said: &str) -> &str {
    said.trim()
        .trim_start_matches("Docker version ")
        .split(',')
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_kinds() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.name().parse::<EngineKind>().expect("known"), kind);
        }
        assert!("27".parse::<EngineKind>().is_err());
    }

    #[test]
    fn the_version_is_found() {
        let said = "Docker version 20.10.24+dfsg1, build 5d6db84\n";
        assert_eq!(version_in(said), "20.10.24+dfsg1");
    }
}
