//! `wharfie install` below a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A root of its own, removed at the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wharfie-install-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn install(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie"));
        command.env_clear().args(["install", "--root"]).arg(&self.0);
        command.args(args).output().expect("the binary runs")
    }

    /// Runs `install`, which must succeed; its lines, without the root.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> Vec<String> {
        let output = self.install(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {err}");
        let root = self.0.display().to_string();
        let text = String::from_utf8_lossy(&output.stdout).replace(&root, "");
        text.lines().map(str::to_owned).collect()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// All files below, with what is in them; links with where they lead.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.0.clone()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).expect("readable").flatten() {
                let path = entry.path();
                let kind = entry.file_type().expect("a kind");
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_symlink() {
                    let to = fs::read_link(&path).expect("a link");
                    found.insert(path, to.display().to_string().into_bytes());
                } else {
                    found.insert(path.clone(), fs::read(path).expect("readable"));
                }
            }
        }
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left is in the temporary folder
    }
}

const UNIT: &str = "/etc/systemd/system/wharfie.service";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/wharfie.service";

#[test]
fn all_is_written_kept_and_removed() {
    let root = Root::new("all");
    let planned = root.ok(&["--dry-run"]);
    assert!(root.files().is_empty(), "a dry run writes nothing");
    let written = root.ok(&[]);
    assert_eq!(planned, written);
    for line in [
        "copy /usr/local/bin/wharfie",
        "write /etc/systemd/system/wharfie.service",
        "link /etc/systemd/system/multi-user.target.wants/wharfie.service",
        "write /usr/local/share/man/man1/wharfie.1",
        "write /usr/local/share/man/man1/wharfie-up.1",
        "write /usr/local/share/bash-completion/completions/wharfie",
        "write /usr/local/share/zsh/site-functions/_wharfie",
        "write /usr/local/share/fish/vendor_completions.d/wharfie.fish",
    ] {
        assert!(written.iter().any(|l| l == line), "{line} in {written:#?}");
    }

    let installed = root.at("/usr/local/bin/wharfie");
    let mode = fs::metadata(&installed).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o755);
    let version = Command::new(&installed).arg("version").output();
    assert!(version.expect("it runs").status.success());
    assert_eq!(
        fs::read_link(root.at(ENABLED)).expect("a link"),
        Path::new(UNIT)
    );
    let unit = fs::read_to_string(root.at(UNIT)).expect("a unit");
    for line in [
        "After=docker.service network-online.target",
        "ExecStart=/usr/local/bin/wharfie agent",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "KillMode=process",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line} is not in\n{unit}");
    }

    // The same again changes nothing; what somebody changed is put right.
    let before = root.files();
    assert!(root.ok(&[]).iter().all(|l| l.starts_with("keep ")));
    fs::write(root.at(UNIT), "spoilt").expect("written");
    assert!(root.ok(&[]).contains(&format!("replace {UNIT}")));
    assert_eq!(root.files(), before);

    // State is not what was installed.
    fs::create_dir_all(root.at("/var/lib/wharfie")).expect("a folder can be made");
    fs::write(root.at("/var/lib/wharfie/state"), "mine").expect("written");
    let planned = root.ok(&["--uninstall", "--dry-run"]);
    assert_eq!(root.ok(&["--uninstall"]), planned);
    let left: Vec<PathBuf> = root.files().into_keys().collect();
    assert_eq!(left, [root.at("/var/lib/wharfie/state")]);
    let again = root.install(&["--uninstall"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("Nothing of Wharfie"));
}

#[test]
fn an_upgrade_removes_what_is_no_more() {
    let root = Root::new("upgrade");
    root.ok(&["--no-enable"]);
    assert!(!root.at(ENABLED).exists() && fs::symlink_metadata(root.at(ENABLED)).is_err());
    let old = "/usr/local/share/man/man1/wharfie-gone.1";
    fs::write(root.at(old), "old").expect("written");
    let list = root.at("/usr/local/share/wharfie/installed");
    let text = fs::read_to_string(&list).expect("a list");
    // A list that leads out of the root does no harm.
    fs::write(&list, format!("{text}{old}\n/../../../../etc/hostname\n")).expect("written");
    let lines = root.ok(&[]);
    assert!(lines.contains(&format!("remove {old}")), "{lines:#?}");
    assert!(!root.at(old).exists());
    assert!(Path::new("/etc/hostname").exists());
}

#[test]
fn a_root_that_cannot_be_is_a_failure_with_a_way_out() {
    let root = Root::new("wrong");
    let file = root.at("file");
    fs::write(&file, "").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie"));
    let output = command.args(["install", "--root"]).arg(&file).output();
    let output = output.expect("the binary runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("/usr/local/bin/wharfie"), "{err}");
}
