//! Wharfie with Podman's service in place of the Docker Engine. Skipped where Podman is not
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use wharfie_lab::prerequisites;

use crate::stack::{ask_agent, soon, wharfie};

/// Limits that it may set, and a runtime that runs where cgroups are mixed.
const SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$DIR/networks"
"#;

/// A Podman of its own, with all it has in one folder.
struct Podman {
    dir: PathBuf,
    service: Child,
}

impl Podman {
    fn start() -> Option<Self> {
        let installed = Command::new("podman").arg("--version").output();
        let reason = match (prerequisites::unavailable(), installed) {
            (Some(reason), _) => Some(reason.to_string()),
            (None, Err(e)) => Some(format!("Podman is not installed: {e}")),
            (None, Ok(_)) => None,
        };
        if let Some(reason) = reason {
            eprintln!("skipped: {reason}");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("wharfie-podman-{}", std::process::id()));
        fs::create_dir_all(dir.join("rootfs/bin")).unwrap();
        let settings = SETTINGS.replace("$DIR", dir.to_str().unwrap());
        fs::write(dir.join("containers.conf"), settings).unwrap();
        fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "echo", "cat", "mkdir", "httpd"] {
            std::os::unix::fs::symlink("busybox", dir.join("rootfs/bin").join(applet)).unwrap();
        }
        let archive = dir.join("busybox.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(dir.join("rootfs"))
            .arg("-cf")
            .arg(&archive)
            .arg(".");
        assert!(tar.status().unwrap().success());
        let mut import = Self::command(&dir);
        import.arg("import").arg(&archive).arg("busybox:latest");
        let imported = import.output().unwrap();
        assert!(imported.status.success(), "{imported:?}");
        let mut service = Self::command(&dir);
        service
            .args(["system", "service", "-t", "0"])
            .arg(Self::address(&dir));
        let service = service.spawn().unwrap();
        let podman = Self { dir, service };
        soon(|| {
            ensure!(podman.dir.join("podman.sock").exists(), "no socket yet");
            Ok(())
        });
        Some(podman)
    }

    fn command(dir: &Path) -> Command {
        let mut command = Command::new("podman");
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(dir.join(name));
        }
        command
            .env("CONTAINERS_CONF", dir.join("containers.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn address(dir: &Path) -> String {
        format!("unix://{}/podman.sock", dir.display())
    }

    /// Socket of the agent that keeps it.
    fn agent(&self) -> PathBuf {
        self.dir.join("agent/w.sock")
    }

    /// Runs `wharfie`, which must succeed; what it said.
    #[track_caller]
    fn ok(&self, args: &str) -> String {
        let (said, code) = self.run(args);
        assert_eq!(code, Some(0), "wharfie {args}: {said}");
        said
    }

    fn run(&self, args: &str) -> (String, Option<i32>) {
        let mut command = Command::new(wharfie());
        command.args(["-H", &Self::address(&self.dir), "-p", "onpodman"]);
        command.args(args.split(' ')).current_dir(&self.dir);
        command
            .env("TOKEN", "very secret")
            .env("WHARFIE_SOCKET", self.agent())
            .env("WHARFIE_STATE_DIR", self.dir.join("state"))
            .stdin(Stdio::null());
        let done = command.output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (
            String::from_utf8_lossy(&said).into_owned(),
            done.status.code(),
        )
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run("down -v -t 0 --remove-orphans");
        let _ = ask_agent(&self.agent(), "POST", "/v1/stop");
        let _ = rustix::mount::unmount(
            self.dir.join("agent/secrets"),
            rustix::mount::UnmountFlags::DETACH,
        );
        let _ = self.service.kill();
        let _ = self.service.wait();
        // The storage is still mounted on itself.
        let _ = rustix::mount::unmount(
            self.dir.join("root/overlay"),
            rustix::mount::UnmountFlags::DETACH,
        );
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_stack_runs_on_podman() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let compose = "
services:
  web:
    image: busybox
    command: [sh, -c, 'mkdir /www; echo served >/www/index.html; echo begun; exec httpd -f -p 80 -h /www']
    ports: ['127.0.0.1:8198:80']
    environment: [A=1]
    volumes: [data:/data]
    secrets: [token]
  built:
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        RUN echo made >/made
    depends_on: [web]
    command: sleep 1000
volumes: {data: }
secrets: {token: {environment: TOKEN}}
";
    fs::write(podman.dir.join("compose.yaml"), compose).unwrap();
    fs::write(podman.dir.join(".dockerignore"), "*\n").unwrap();
    podman.ok("up -d");
    let again = podman.ok("up -d");
    assert!(again.contains("Nothing to do"), "{again}");
    let listed = podman.ok("ps");
    assert!(listed.contains("127.0.0.1:8198->80/tcp"), "{listed}");
    assert_eq!(podman.ok("logs web").trim_end(), "web-1  | begun");
    assert_eq!(
        podman.ok("exec -T web cat /run/secrets/token"),
        "very secret"
    );
    assert_eq!(podman.ok("exec -T built cat /made"), "made\n");
    podman.ok("scale built=2");
    assert!(podman.ok("ps").contains("onpodman-built-2"));
    podman.ok("restart -t 0 built");

    fs::write(
        podman.dir.join("compose.yaml"),
        compose.replace("A=1", "A=2"),
    )
    .unwrap();
    let changed = podman.ok("up -d -t 0");
    assert!(changed.contains("onpodman-web-1  Recreated"), "{changed}");
    assert_eq!(
        podman.ok("run --rm -T web echo ran").lines().last(),
        Some("ran")
    );
    // It has no BuildKit.
    let modern = compose.replace(
        "      context: .\n",
        "      context: .\n      secrets: [token]\n",
    );
    fs::write(podman.dir.join("compose.yaml"), &modern).unwrap();
    let (said, code) = podman.run("build");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("build.secrets") && said.contains("BuildKit"),
        "{said}"
    );
    podman.ok("down -v -t 0");
    let left = podman.ok("ps -a");
    assert!(!left.contains("onpodman-"), "{left}");
}
