//! One host's Docker Engine.

mod api;
mod fetch;
mod kind;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub use api::RunOutput;
pub use kind::{EngineKind, Installation};

use crate::cancel;
use crate::lan;
use crate::machine::{Machine, socket};
use crate::process::{MARKER, is_alive, wait_stopped};
use crate::tools::last_lines;
use crate::wait::eventually;

/// Two cores may start several Engines and build beside that.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// An Engine gives its containers 10 to 15 seconds to end.
const STOPPED_WITHIN: Duration = Duration::from_secs(45);

/// A Docker Engine of the lab. Its containerd is its own as well.
#[derive(Debug)]
pub struct Engine {
    machine: Machine,
    kind: EngineKind,
    args: Vec<String>,
    /// The Engine, if this process started it: someone must take note of its end.
    child: Mutex<Option<Child>>,
}

impl Engine {
    pub(crate) fn new(machine: Machine, kind: EngineKind, args: Vec<String>) -> Self {
        Self {
            machine,
            kind,
            args,
            child: Mutex::default(),
        }
    }

    /// Which Engine it is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.machine.dir())
    }

    /// Its log.
    pub fn log_file(&self) -> PathBuf {
        self.machine.dir().join("dockerd.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.machine.dir().join("docker.pid")
    }

    /// The folder of its run-time state, which a real host loses with the power.
    pub(crate) fn exec_root(&self) -> PathBuf {
        self.machine.dir().join("exec")
    }

    /// The process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?;
        let pid = pid.trim().parse().ok()?;
        // The file outlives a killed Engine, and another process may have got the number.
        let ours = cmdline(pid).contains(&*self.pid_file().to_string_lossy());
        (ours && is_alive(pid)).then_some(pid)
    }

    /// Whether its process runs. It may still not answer: see [`Engine::ping`].
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Starts the Engine and waits until it answers. Fine if it already runs.
    pub fn start(&self) -> Result<()> {
        if !self.is_running() {
            self.spawn()?;
        }
        self.wait_ready(READY_WITHIN)
    }

    /// Lets it end in order: its containers stop (unless it has `--live-restore`).
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.wait_gone(STOPPED_WITHIN)
    }

    /// [`Engine::stop`], then [`Engine::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Kills dockerd alone, as a crash does: the containers go on. (Its containerd has asked the
    /// kernel to die with it.) Without `--live-restore` the next start stops those containers,
    /// which takes as long as they take to stop.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_gone(Duration::from_secs(10))
    }

    /// Stops dockerd where it is (SIGSTOP): it accepts connections and never answers.
    /// When this returns, none of its threads runs.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.pid().map_or(Ok(()), wait_stopped)
    }

    /// Lets a frozen Engine go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it answers; the error has the end of its log.
    pub fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let outcome = eventually(deadline, || match self.ping() {
            Ok(()) => Ok(Ok(())),
            // These two are final: no use in waiting for the deadline.
            Err(_) if cancel::is_set() => Ok(Err(anyhow!("interrupted"))),
            Err(_) if self.has_ended() => Ok(Err(anyhow!("dockerd has ended"))),
            Err(error) => Err(error),
        });
        outcome.flatten().with_context(|| {
            format!(
                "the Engine of {} does not answer; the end of {}:\n{}",
                self.machine.name(),
                self.log_file().display(),
                last_lines(&self.log_file(), 15)
            )
        })
    }

    fn spawn(&self) -> Result<()> {
        let installation = self.kind.installation()?;
        let dir = self.machine.dir();
        self.remove_stale()?;
        // The machine's own settings, proxies and variables are not this Engine's.
        let settings = dir.join("daemon.json");
        fs::write(&settings, "{}\n").context("cannot write the Engine's settings")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .context("cannot open the Engine's log")?;
        let mut command = lan::nsenter(self.machine.layout(), self.machine.name());
        command
            .arg(&installation.dockerd)
            .arg("--config-file")
            .arg(&settings)
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.pid_file())
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            // A cgroup by which teardown finds the containers, whoever manages the machine's own.
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg("--cgroup-parent")
            .arg(self.machine.layout().cgroup(self.machine.name()))
            .args(&self.args)
            .env_clear()
            .env("PATH", &installation.path)
            .env(MARKER, &dir)
            .current_dir("/")
            // Ctrl-C in a terminal is for the lab, not for its Engines.
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("cannot share the log")?)
            .stdout(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        *self.child() = Some(child);
        Ok(())
    }

    /// A killed Engine leaves pid files, and its containerd dies with it, in its own time. The next
    /// one takes any process with the number for the former one, a dying one or a zombie too, waits
    /// for it, and gives up: so the former containerd is gone for certain before it starts.
    fn remove_stale(&self) -> Result<()> {
        let _ = fs::remove_file(self.pid_file());
        let file = self.exec_root().join("containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let exec_root = self.exec_root();
        let ours = |pid: u32| is_alive(pid) && cmdline(pid).contains(&*exec_root.to_string_lossy());
        if let Ok(pid) = pid.trim().parse() {
            eventually(Duration::from_secs(10), || {
                if ours(pid) {
                    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    // It may end by itself just now.
                    let _ = kill_process(raw.context("not a pid")?, Signal::KILL);
                    bail!("containerd, process {pid}, still runs");
                }
                Ok(())
            })?;
        }
        let _ = fs::remove_file(file);
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process that was started here has ended.
    fn has_ended(&self) -> bool {
        match self.child().as_mut() {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => !self.is_running(),
        }
    }

    /// Signals the Engine; one that does not run needs none.
    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else {
            ensure!(
                self.has_ended(),
                "the Engine of {} is just starting",
                self.machine.name()
            );
            return Ok(());
        };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        kill_process(raw.context("not a pid")?, signal)
            .with_context(|| format!("cannot signal dockerd, process {pid}"))
    }

    fn wait_gone(&self, deadline: Duration) -> Result<()> {
        eventually(deadline, || {
            if let Some(pid) = self.pid() {
                bail!("dockerd, process {pid}, still runs");
            }
            ensure!(self.has_ended(), "dockerd still runs");
            Ok(())
        })?;
        *self.child() = None;
        Ok(())
    }

    /// After everything was killed: takes note of the Engine's end, so that no zombie stays.
    pub(crate) fn forget(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn cmdline(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
