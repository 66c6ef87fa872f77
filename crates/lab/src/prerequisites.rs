//! What a lab needs from the machine, and installing it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::layout;
use crate::state::lock;
use crate::tools;

/// Programs and the Debian packages they are in.
const NEEDED: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("hostname", "hostname"),
    ("busybox", "busybox-static"),
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
];

/// Asked by packages before they start a service; its answer is by exit code, 101 for "no".
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The Debian packages whose programs this machine lacks.
pub fn missing() -> Vec<&'static str> {
    let lacking = NEEDED
        .iter()
        .filter(|(program, _)| tools::which(program).is_none());
    let mut packages: Vec<&str> = lacking.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Why no lab can be made here, if so; for tests that would rather be skipped.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a lab of Docker hosts needs root".to_owned());
    }
    let packages = missing();
    let apt = tools::which("apt-get").is_some();
    (!packages.is_empty() && !apt).then(|| {
        format!(
            "a lab needs {}, and there is no apt-get",
            packages.join(", ")
        )
    })
}

/// Installs the Debian packages that are missing. No service is started by that: the lab has
/// Engines of its own.
pub fn install() -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    if let Some(reason) = unavailable() {
        bail!("{reason}; missing: {}", packages.join(", "));
    }
    eprintln!("installing {} …", packages.join(", "));
    let apt_get = || {
        let mut command = tools::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args([
            "-q",
            "-o=DPkg::Lock::Timeout=300",
            "-o=Acquire::Retries=3",
        ]);
        command
    };
    tools::run(apt_get().arg("update"))?;
    let _policy = NoServices::begin()?;
    tools::run(
        apt_get()
            .args(["install", "-y", "--no-install-recommends"])
            .args(&packages),
    )?;
    let still = missing();
    ensure!(
        still.is_empty(),
        "still missing after installation: {}",
        still.join(", ")
    );
    Ok(())
}

/// Installs what is missing; quick if nothing is.
pub(crate) fn ensure() -> Result<()> {
    if let Some(reason) = unavailable() {
        bail!(reason);
    }
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = lock(&layout::cache().join("install.lock"))?;
    install()
}

/// While this value lives, packages do not start services.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let policy = Path::new(POLICY);
        if policy.exists() {
            // The machine has a policy of its own, which is not ours to change.
            return Ok(Self { ours: false });
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
