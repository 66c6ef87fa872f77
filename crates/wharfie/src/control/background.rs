//! Starts an agent in the background.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::client::Client;
use crate::agent::settings::default_state_dir;
use crate::api::Info;
use crate::failure::Failure;

/// How long an agent may take until it answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts an agent for an Engine and waits until it answers.
pub(super) async fn start(client: &Client, engine: Option<&str>) -> Result<Info, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::failed(format!("cannot find the wharfie program: {e}")))?;
    let state_dir = std::env::var_os("WHARFIE_STATE_DIR")
        .filter(|d| !d.is_empty())
        .map_or_else(default_state_dir, Into::into);
    let log = state_dir.join("agent.log");
    let output = make_log(&state_dir, &log)?;
    let errors = output
        .try_clone()
        .map_err(|e| Failure::failed(format!("cannot write {}: {e}", log.display())))?;
    let mut command = Command::new(program);
    command
        .arg("--socket")
        .arg(client.socket())
        .args(["agent", "--background", "--state-dir"])
        .arg(&state_dir);
    if let Some(engine) = engine {
        command.args(["--engine", engine]);
    }
    let child = command
        .current_dir("/")
        // Signals of this terminal are not for it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn();
    let mut child = child.map_err(|e| Failure::failed(format!("cannot start an agent: {e}")))?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(info) = client.info().await? {
            return Ok(info);
        }
        // Another command may have started one at the same moment.
        if let Ok(Some(status)) = child.try_wait()
            && client.info().await?.is_none()
        {
            return Err(Failure::failed(format!(
                "the agent that was started ended at once ({status}): {}",
                last_line(&log)
            ))
            .help(format!("its log is {}", log.display())));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Failure::failed(format!(
                "the agent that was started does not answer at {}",
                client.socket().display()
            ))
            .help(format!("its log is {}", log.display())));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn make_log(state_dir: &Path, log: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir);
    let opened = made.and_then(|()| File::options().create(true).append(true).open(log));
    opened.map_err(|e| {
        Failure::failed(format!("cannot start an agent: {}: {e}", log.display()))
            .help("run as root, or set WHARFIE_STATE_DIR to a directory of your own")
    })
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().rev();
    let line = lines.into_iter().find(|l| !l.trim().is_empty());
    line.unwrap_or("it said nothing").trim().to_owned()
}
