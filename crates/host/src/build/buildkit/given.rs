//! What a build is given beside its files: secrets and SSH agents.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use wharfie_compose::model::Build;

use super::super::{BuildError, BuildRequest};

/// The content of each secret, by the id that a Dockerfile names it with.
pub(super) async fn secrets(
    request: &BuildRequest<'_>,
    build: &Build,
) -> Result<HashMap<String, Vec<u8>>, BuildError> {
    let project = request.project;
    let mut secrets = HashMap::new();
    for secret in &build.secrets {
        let Some(object) = project.secrets.get(&secret.source) else {
            continue; // the loader has refused it
        };
        let content = if !object.file.is_empty() {
            let path = project.working_dir.join(&object.file);
            let read = tokio::fs::read(&path).await;
            read.map_err(|source| BuildError::Unreadable { path, source })?
        } else if !object.content.is_empty() {
            object.content.clone().into_bytes()
        } else {
            let value = project.environment.get(&object.environment);
            let value = value.ok_or_else(|| {
                BuildError::Refused(format!(
                    "secrets.{}.environment: the environment variable {} is not set",
                    secret.source, object.environment
                ))
            })?;
            value.clone().into_bytes()
        };
        let id = if secret.target.is_empty() {
            &secret.source
        } else {
            &secret.target
        };
        secrets.insert(id.clone(), content);
    }
    Ok(secrets)
}

/// The socket of each SSH agent.
pub(super) fn agents(
    request: &BuildRequest<'_>,
    build: &Build,
) -> Result<HashMap<String, PathBuf>, BuildError> {
    let mut wanted = build.ssh.0.clone();
    wanted.extend(request.flags.ssh.clone());
    let refused = |text: String| Err(BuildError::Refused(text));
    let mut agents = HashMap::new();
    for (id, path) in wanted {
        let path = match path.filter(|p| !p.is_empty()) {
            Some(path) => request.project.working_dir.join(path),
            None => match request.project.environment.get("SSH_AUTH_SOCK") {
                Some(path) if !path.is_empty() => PathBuf::from(path),
                _ => {
                    return refused(format!(
                        "no SSH agent runs for `build.ssh: {id}`: SSH_AUTH_SOCK is not set; start one with `eval $(ssh-agent)` and `ssh-add`"
                    ));
                }
            },
        };
        match std::fs::metadata(&path) {
            Ok(meta) if meta.file_type().is_socket() => drop(agents.insert(id, path)),
            Ok(_) => {
                return refused(format!(
                    "`build.ssh: {id}`: {} is not the socket of an SSH agent; keys are not read from files: load it with `ssh-add {}` and name the agent",
                    path.display(),
                    path.display()
                ));
            }
            Err(e) => {
                return refused(format!(
                    "`build.ssh: {id}`: cannot use {}: {e}",
                    path.display()
                ));
            }
        }
    }
    Ok(agents)
}
