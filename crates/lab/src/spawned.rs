//! A process of a test, tied to a machine of the lab.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::wait_stopped;
use crate::tools::last_lines;
use crate::wait::eventually;

/// A process started by [`Machine::spawn`](crate::Machine::spawn). Dropping the value leaves the
/// process running; it ends with the lab at the latest.
#[derive(Clone, Debug)]
pub struct Spawned {
    child: Arc<Mutex<Child>>,
    id: u32,
    log: PathBuf,
}

impl Spawned {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        // Its own process group: Ctrl-C is for the lab, which then ends its processes in order.
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self {
            id: child.id(),
            child: Arc::new(Mutex::new(child)),
            log,
        })
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file with all it printed.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        let status = self.child().try_wait();
        status.with_context(|| format!("cannot look after process {}", self.id))
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.try_wait(), Ok(None))
    }

    /// Waits for its end; too late is an error with the end of its log.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        eventually(deadline, || match self.try_wait()? {
            Some(status) => Ok(status),
            None => bail!(
                "process {} still runs; its log ends with:\n{}",
                self.id,
                last_lines(&self.log, 20)
            ),
        })
    }

    /// Waits until it has printed this text; an error as well if it ends without.
    pub fn wait_for_output(&self, text: &str, deadline: Duration) -> Result<()> {
        let seen = || -> Result<bool> {
            // First the end, then the log: what was printed before the end must not be missed.
            let running = self.is_running();
            if self.log().contains(text) {
                return Ok(true);
            }
            if running {
                bail!(
                    "{text:?} is not yet in the log, which ends with:\n{}",
                    last_lines(&self.log, 20)
                );
            }
            Ok(false)
        };
        if eventually(deadline, seen)? {
            return Ok(());
        }
        bail!(
            "process {} has ended without {text:?} in its log, which ends with:\n{}",
            self.id,
            last_lines(&self.log, 20)
        )
    }

    /// Sends SIGKILL and waits for the end. No error if it has ended already.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        let killed = child.kill().and_then(|()| child.wait());
        killed.with_context(|| format!("cannot kill process {}", self.id))?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(deadline)
    }

    /// Stops the process where it is (SIGSTOP), as on a machine that hangs. When this returns, none
    /// of its threads runs.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        wait_stopped(self.id)
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock and not yet waited for: the pid cannot have passed to another process.
        let mut child = self.child();
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        kill_process(pid.context("not a pid")?, signal)
            .with_context(|| format!("cannot signal process {}", self.id))
    }
}
