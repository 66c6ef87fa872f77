//! Who we are to registries: what `docker login` left in `config.json`, and what credential
//! helpers know.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use bollard::auth::DockerCredentials;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::Error;

/// Docker Hub, as `config.json` names it.
const HUB: &str = "https://index.docker.io/v1/";
/// In place of a user's name it says that the secret is an identity token.
const TOKEN: &str = "<token>";

/// What a registry wants to know of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// Name in `config.json`.
    server: String,
    user: String,
    secret: String,
    /// Whether the secret is an identity token.
    token: bool,
}

impl Login {
    /// User and secret; an identity token has no user.
    pub(crate) fn basic(self) -> (String, String) {
        if self.token {
            (String::new(), self.secret)
        } else {
            (self.user, self.secret)
        }
    }

    /// As the Engine takes it with a pull or a push.
    pub(crate) fn header(self) -> DockerCredentials {
        let plain = DockerCredentials {
            serveraddress: Some(self.server),
            ..DockerCredentials::default()
        };
        if self.token {
            DockerCredentials {
                identitytoken: Some(self.secret),
                ..plain
            }
        } else {
            DockerCredentials {
                username: Some(self.user),
                password: Some(self.secret),
                ..plain
            }
        }
    }
}

/// The registry of a reference, as `config.json` names it.
pub(crate) fn of_image(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => canonical(host),
        _ => HUB,
    }
}

fn canonical(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

/// What we have for a registry, if anything.
///
/// # Errors
/// `config.json` is malformed, or a credential helper it names cannot be run or fails.
pub(crate) async fn credentials(host: &str) -> Result<Option<Login>, Error> {
    match config_file() {
        Some(file) => credentials_in(&file, canonical(host), None).await,
        None => Ok(None),
    }
}

fn config_file() -> Option<PathBuf> {
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    Some(dir?.join("config.json"))
}

/// What we have for all registries that `config.json` names: the classic builder does not ask for
/// those it needs. What a helper cannot tell is left out, since it may not be needed.
pub(crate) async fn all() -> HashMap<String, DockerCredentials> {
    let mut all = HashMap::new();
    let Some(file) = config_file() else {
        return all;
    };
    let text = tokio::fs::read_to_string(&file).await.unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let sections = [config.get("auths"), config.get("credHelpers")];
    let sections = sections.into_iter().flatten().filter_map(Value::as_object);
    for server in sections.flat_map(|section| section.keys()) {
        if let Ok(Some(login)) = credentials_in(&file, server, None).await {
            all.insert(server.clone(), login.header());
        }
    }
    all
}

/// `path`: where credential helpers are looked for, if not where all programs are.
async fn credentials_in(
    file: &Path,
    server: &str,
    path: Option<OsString>,
) -> Result<Option<Login>, Error> {
    let Ok(text) = tokio::fs::read_to_string(file).await else {
        return Ok(None);
    };
    let config: Value = serde_json::from_str(&text)
        .map_err(|e| Error::Local(format!("{} is not valid: {e}", file.display())))?;
    let own = config.get("credHelpers").and_then(|h| h.get(server));
    let helper = own
        .or_else(|| config.get("credsStore"))
        .and_then(Value::as_str)
        .filter(|h| !h.is_empty());
    if let Some(helper) = helper
        && let Some(login) = ask(helper, server, path).await?
    {
        return Ok(Some(login));
    }
    Ok(config.get("auths").and_then(|auths| stored(auths, server)))
}

/// What stands in `config.json` itself.
fn stored(auths: &Value, server: &str) -> Option<Login> {
    // Older entries are addresses: https://host/v1/.
    let host = |key: &str| {
        let key = key.trim_start_matches("https://");
        let key = key.trim_start_matches("http://");
        key.split('/').next().unwrap_or(key).to_owned()
    };
    let entry = auths.get(server).or_else(|| {
        let mut all = auths.as_object()?.iter();
        all.find(|(key, _)| host(key) == host(server))
            .map(|(_, entry)| entry)
    })?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let login = |user: &str, secret: &str, token| {
        Some(Login {
            server: server.to_owned(),
            user: user.to_owned(),
            secret: secret.to_owned(),
            token,
        })
    };
    if !text("identitytoken").is_empty() {
        return login("", text("identitytoken"), true);
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth"));
    let decoded = decoded.ok().and_then(|d| String::from_utf8(d).ok());
    match decoded.as_deref().and_then(|d| d.split_once(':')) {
        Some((user, secret)) => login(user, secret.trim_end_matches('\0'), false),
        None if !text("username").is_empty() => login(text("username"), text("password"), false),
        None => None,
    }
}

/// Runs `docker-credential-NAME get`: the server on its input, JSON on its output.
async fn ask(helper: &str, server: &str, path: Option<OsString>) -> Result<Option<Login>, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        Error::Local(format!(
            "the credential helper {program}, named in Docker's config.json, cannot tell the login for {server}: {why}"
        ))
    };
    let mut command = tokio::process::Command::new(&program);
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read tells so by its answer.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let done = child.wait_with_output().await;
    let done = done.map_err(|e| failed(e.to_string()))?;
    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if !done.status.success() {
        // That is what all helpers say of a server they do not know.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let error = String::from_utf8_lossy(&done.stderr);
        let why = if said.is_empty() { error.trim() } else { &said };
        return Err(failed(why.to_owned()));
    }
    let answer: Value = serde_json::from_str(&said).map_err(|e| failed(e.to_string()))?;
    let text = |key: &str| {
        let value = answer.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let user = text("Username");
    Ok(Some(Login {
        server: server.to_owned(),
        token: user == TOKEN,
        user,
        secret: text("Secret"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn registries() {
        assert_eq!(of_image("nginx:1"), HUB);
        assert_eq!(of_image("library/nginx"), HUB);
        assert_eq!(of_image("docker.io/library/nginx"), HUB);
        assert_eq!(of_image("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(of_image("localhost:5000/a"), "localhost:5000");
        assert_eq!(canonical("registry-1.docker.io"), HUB);
    }

    #[test]
    fn stored_logins() {
        let auths = serde_json::json!({
            HUB: {"auth": "bWU6cGFzczp3b3Jk"},
            "https://old.example/v1/": {"auth": "bWU6b2xk"},
            "t.example": {"auth": "bWU6eA==", "identitytoken": "tok"},
            "bad.example": {"auth": "%"},
        });
        let basic = |server| stored(&auths, server).map(Login::basic);
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(basic(HUB), pair("me", "pass:word"));
        assert_eq!(basic("old.example"), pair("me", "old"));
        assert_eq!(basic("t.example"), pair("", "tok"));
        assert_eq!(basic("bad.example"), None);
        let header = stored(&auths, "t.example").unwrap().header();
        assert_eq!(header.identitytoken.as_deref(), Some("tok"));
    }

    #[tokio::test]
    async fn helpers_are_asked() {
        let dir = std::env::temp_dir().join(format!("wharfie-helper-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let helper = dir.join("docker-credential-test");
        let script = "#!/bin/sh\nread -r server\ncase \"$1 $server\" in\n\
            'get known') echo '{\"Username\":\"me\",\"Secret\":\"s3\"}' ;;\n\
            'get token') echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}' ;;\n\
            'get broken') echo 'no keychain'; exit 1 ;;\n\
            *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n";
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.join("config.json");
        fs::write(&file, r#"{"credsStore": "test", "credHelpers": {"other": "missing"}, "auths": {"plain": {"auth": "YTpi"}}}"#).unwrap();
        let path = || Some(OsString::from(format!("{}:/usr/bin:/bin", dir.display())));
        let known = credentials_in(&file, "known", path()).await.unwrap();
        assert_eq!(known.unwrap().basic(), ("me".to_owned(), "s3".to_owned()));
        let token = credentials_in(&file, "token", path()).await.unwrap();
        assert_eq!(token.unwrap().basic(), (String::new(), "t".to_owned()));
        let plain = credentials_in(&file, "plain", path()).await.unwrap();
        assert_eq!(plain.unwrap().basic(), ("a".to_owned(), "b".to_owned()));
        assert_eq!(
            credentials_in(&file, "nowhere", path()).await.unwrap(),
            None
        );
        for (server, why) in [
            ("broken", "no keychain"),
            ("other", "docker-credential-missing"),
        ] {
            let fault = credentials_in(&file, server, path()).await.unwrap_err();
            assert!(fault.to_string().contains(why), "{fault}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
