//! The base image: a static busybox with a link for each applet, since no registry can be reached.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::layout;
use crate::state::write_atomically;
use crate::tar::Archive;
use crate::tools;

/// Raised when what is put into the image changes, so that cached ones are not used.
const RECIPE: u32 = 1;

/// The names every Engine of a lab has the image under.
pub const BASE_IMAGES: [&str; 2] = ["busybox:latest", "wharfie/base:latest"];

/// The base image as a tar archive, made once for each version of busybox.
pub fn base_archive() -> Result<Vec<u8>> {
    let busybox = busybox()?;
    let facts = fs::metadata(&busybox).context("cannot look at busybox")?;
    let name = format!("base-{RECIPE}-{}-{}.tar", facts.len(), facts.mtime());
    let cached = layout::cache().join(name);
    if let Ok(archive) = fs::read(&cached) {
        return Ok(archive);
    }
    let archive = build(&busybox)?.finish();
    fs::create_dir_all(layout::cache()).context("cannot make the cache")?;
    write_atomically(&cached, &archive)?;
    Ok(archive)
}

/// The base image's file system, to add to: for images with programs of a test's own.
pub fn base() -> Result<Archive> {
    build(&busybox()?)
}

fn busybox() -> Result<PathBuf> {
    tools::which("busybox").context("busybox is not installed; `wharfie-lab install` does that")
}

fn build(busybox: &PathBuf) -> Result<Archive> {
    let program = fs::read(busybox).context("cannot read busybox")?;
    let applets = tools::run(tools::command(busybox).arg("--list"))?;
    Ok(root_file_system(&program, &applets))
}

fn root_file_system(busybox: &[u8], applets: &str) -> Archive {
    let mut archive = Archive::default();
    for folder in [
        "bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var", "var/www",
    ] {
        archive.folder(folder, 0o755);
    }
    archive
        .folder("root", 0o700)
        .folder("tmp", 0o1777)
        .file("bin/busybox", 0o755, busybox);
    // A link in place of busybox itself would lead nowhere.
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.link(&format!("bin/{applet}"), "/bin/busybox");
    }
    archive
        .link("usr/bin/env", "/bin/busybox")
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")
        // Without this the C library inside busybox would look for modules that are not there.
        .file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n");
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_is_not_replaced_by_a_link_to_itself() {
        let archive = root_file_system(b"program", "[\nbusybox\nls\n").finish();
        let text = String::from_utf8_lossy(&archive);
        assert_eq!(text.matches("bin/busybox\0").count(), 4);
        assert!(text.contains("bin/ls\0"));
    }
}
