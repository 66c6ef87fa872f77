//! Services that a program outside provides (`provider`), run as docker compose runs it:
//! `PROGRAM compose --project-name=NAME up --OPTION=VALUE… SERVICE`. It tells what it does in JSON
//! lines: `{"type": "info" | "debug" | "error" | "setenv", "message": "…"}`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use wharfie_compose::model::{Project, Provider};

use crate::Error;

/// What is asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To have the service.
    Up,
    /// To have it no longer.
    Down,
}

impl Request {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Runs the provider of a service to its end; `say` gets what it says of itself. Returns the
/// variables it wants set in the services that depend on this one, without their prefix.
///
/// # Errors
/// There is no such program, or it failed; what it said of that is in the error.
pub async fn run(
    project: &Project,
    service: &str,
    provider: &Provider,
    request: Request,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<BTreeMap<String, String>, Error> {
    let path = project.environment.get("PATH");
    let path = path.map_or("", String::as_str);
    let program = find(&provider.kind, path, &project.working_dir).ok_or_else(|| {
        Error::Local(format!(
            "services.{service}.provider: there is no program docker-{0} among Docker's plugins, and no {0} in PATH: install it",
            provider.kind
        ))
    })?;
    let failed = |why: String| {
        Error::Local(format!(
            "the provider {} of service {service} failed at `{}`: {why}",
            provider.kind,
            request.word()
        ))
    };
    let known = parameters(project, &program, request).await;
    let mut command = prepared(project, &program);
    command
        .arg(format!("--project-name={}", project.name))
        .arg(request.word());
    for (name, values) in &provider.options {
        if known.as_ref().is_none_or(|known| known.contains(name)) {
            command.args(values.iter().map(|value| format!("--{name}={value}")));
        }
    }
    command.arg(service);
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("its output cannot be read".to_owned()));
    };
    let mut errors = String::new();
    let mut variables = BTreeMap::new();
    let mut complaint = None;
    let told = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            match said(&line) {
                Said::Variable(name, value) => drop(variables.insert(name, value)),
                Said::Info(text) => say(&text),
                Said::Error(text) => complaint = Some(text),
                Said::Nothing => {}
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let (told, _) = tokio::join!(told, stderr.read_to_string(&mut errors));
    told.map_err(|e| failed(e.to_string()))?;
    let status = child.wait().await.map_err(|e| failed(e.to_string()))?;
    match complaint {
        Some(complaint) => Err(failed(complaint)),
        None if !status.success() => Err(failed(format!("{status} {}", errors.trim()))),
        None => Ok(variables),
    }
}

fn prepared(project: &Project, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("compose")
        .current_dir(&project.working_dir)
        .envs(&project.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The options that a provider takes, if it tells (`PROGRAM compose metadata`).
async fn parameters(project: &Project, program: &Path, request: Request) -> Option<Vec<String>> {
    let done = prepared(project, program).arg("metadata").output().await;
    let done = done.ok().filter(|d| d.status.success())?;
    let metadata: Value = serde_json::from_slice(&done.stdout).ok()?;
    let list = |request: Request| -> Vec<String> {
        let list = metadata
            .get(request.word())
            .and_then(|c| c.get("parameters"));
        let all = list.and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|p| Some(p.get("name")?.as_str()?.to_owned()))
            .collect()
    };
    let silent = metadata.get("description").is_none_or(|d| d == "")
        && list(Request::Up).is_empty()
        && list(Request::Down).is_empty();
    (!silent).then(|| list(request))
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Info(String),
    Error(String),
    Variable(String, String),
    Nothing,
}

fn said(line: &str) -> Said {
    let Ok(message) = serde_json::from_str::<Value>(line) else {
        return match line.trim() {
            "" => Said::Nothing,
            other => Said::Info(other.to_owned()),
        };
    };
    let text = |key| message.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("message")) {
        ("error", text) => Said::Error(text.to_owned()),
        ("info", text) => Said::Info(text.to_owned()),
        ("setenv", text) => match text.split_once('=') {
            Some((name, value)) => Said::Variable(name.to_owned(), value.to_owned()),
            None => Said::Error(format!("it set {text:?}, which is no NAME=VALUE")),
        },
        _ => Said::Nothing,
    }
}

/// The program: a path, which starts at the project's directory, a plugin of the Docker CLI (`docker-KIND`), else one in `path`.
fn find(kind: &str, path: &str, dir: &Path) -> Option<PathBuf> {
    if kind.contains('/') {
        return Some(dir.join(kind)).filter(|p| p.is_file());
    }
    let own = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let shared = [
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ];
    let plugins = own.map(|dir| dir.join("cli-plugins")).into_iter();
    let plugins = plugins.chain(shared.iter().map(PathBuf::from));
    let plugin = plugins.map(|dir| dir.join(format!("docker-{kind}")));
    let dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    let named = |name: String| {
        dirs.iter()
            .map(move |dir| dir.join(&name))
            .collect::<Vec<_>>()
    };
    let others = named(format!("docker-{kind}"));
    plugin
        .chain(others)
        .chain(named(kind.to_owned()))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let variable = said(r#"{"type":"setenv","message":"URL=http://a=b"}"#);
        let expected = Said::Variable("URL".to_owned(), "http://a=b".to_owned());
        assert_eq!(variable, expected);
        let error = said(r#"{"type":"error","message":"no luck"}"#);
        assert_eq!(error, Said::Error("no luck".to_owned()));
        assert_eq!(said(r#"{"type":"debug","message":"x"}"#), Said::Nothing);
        assert_eq!(said("plain"), Said::Info("plain".to_owned()));
        assert!(matches!(
            said(r#"{"type":"setenv","message":"x"}"#),
            Said::Error(_)
        ));
    }
}
