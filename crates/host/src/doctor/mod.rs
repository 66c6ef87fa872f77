//! Whether a host is fit for Wharfie: what is looked at, and what follows from it.
//!
//! Each topic has its own module with a `probe`, which looks and judges nothing, and a `judge`,
//! which is pure.

mod clock;
mod engine;
mod kernel;
mod netlink;
mod paths;
mod ports;
mod space;

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the Engine; the usual one if there is none.
    pub engine: Option<String>,
    /// Directory of the agent's state.
    pub state_dir: PathBuf,
    /// The agent's own socket.
    pub socket: PathBuf,
}

/// How good or bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It cannot be told from here.
    Unknown,
    /// It works, but less well than it could, or a part of Wharfie will not.
    Warning,
    /// Wharfie cannot work like this.
    Broken,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, as in `port 53/udp`.
    pub check: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict,
            seen: seen.into(),
            mend: None,
        }
    }

    fn ok(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, seen)
    }

    fn unknown(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, check, seen)
    }

    fn warning(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, seen)
    }

    fn broken(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Broken, check, seen)
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// Looks at everything.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    let engine = engine::probe(settings.engine.as_deref()).await;
    let mut findings = engine::judge(&engine);
    findings.extend(kernel::judge(&kernel::probe()));
    let ports = ports::probe(engine.as_ref().ok().map(|e| &e.published));
    findings.extend(ports::judge(&ports));
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_owned());
    let (state_dir, socket) = (absolute(&settings.state_dir), absolute(&settings.socket));
    findings.extend(paths::judge(&paths::probe(&state_dir, &socket)));
    findings.extend(clock::judge(&clock::probe()));
    let data_root = engine.as_ref().ok().map(|e| e.data_root.as_path());
    findings.extend(space::judge(&space::probe(&state_dir, data_root)));
    findings
}
