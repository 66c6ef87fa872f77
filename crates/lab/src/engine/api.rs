//! Talking to an Engine over its socket, without a docker client.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Engine;
use crate::http::{Request, Response};

/// How long an answer may take: an image of some size must fit in.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a container printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutput {
    /// The exit code.
    pub status: i64,
    /// Standard output and standard error, as a terminal shows them.
    pub output: String,
}

impl Engine {
    /// Sends a request to the Engine's API; see [`Response::success`] for statuses.
    pub fn request(&self, request: &Request) -> Result<Response> {
        self.request_within(request, PATIENCE)
    }

    fn request_within(&self, request: &Request, patience: Duration) -> Result<Response> {
        let socket = self.socket();
        let stream = UnixStream::connect(&socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        request.send(stream, "docker")
    }

    /// Sends a request without or with a JSON body and returns the JSON of a successful answer,
    /// null if it has no body.
    pub fn api(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = Request::new(method, target);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.request(&request)?.success();
        let response = response.with_context(|| format!("{method} {target}"))?;
        if response.body.is_empty() {
            return Ok(Value::Null);
        }
        response.json()
    }

    /// Asks whether it is there.
    pub fn ping(&self) -> Result<()> {
        let request = Request::get("/_ping");
        self.request_within(&request, Duration::from_secs(2))?
            .success()?;
        Ok(())
    }

    /// Makes an image from a tar archive of its root file system.
    pub fn import_image(&self, archive: &[u8], repository: &str, tag: &str) -> Result<()> {
        let target = format!(
            "/images/create?fromSrc=-&repo={}&tag={}&changes={}&changes={}",
            escape(repository),
            escape(tag),
            escape("CMD [\"sh\"]"),
            escape("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        );
        let request = Request::new("POST", &target)
            .header("Content-Type", "application/x-tar")
            .body(archive);
        let response = self.request(&request)?.success()?;
        // The status is sent before the work is done: later errors are in the body.
        if response.text().contains("\"errorDetail\"") {
            bail!("cannot import {repository}:{tag}: {}", response.text());
        }
        Ok(())
    }

    /// Gives an image another name.
    pub fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let target = format!(
            "/images/{}/tag?repo={}&tag={}",
            escape(image),
            escape(repository),
            escape(tag)
        );
        self.api("POST", &target, None).map(drop)
    }

    /// Creates and starts a container; `settings` is the body of the API's container create.
    /// Returns its id.
    pub fn start_container(&self, name: &str, settings: &Value) -> Result<String> {
        let target = format!("/containers/create?name={}", escape(name));
        let created = self.api("POST", &target, Some(settings))?;
        let id = created["Id"].as_str().context("no id")?.to_owned();
        self.api("POST", &format!("/containers/{id}/start"), None)?;
        Ok(id)
    }

    /// Removes a container, running or not, with its anonymous volumes.
    pub fn remove_container(&self, container: &str) -> Result<()> {
        let target = format!("/containers/{}?force=1&v=1", escape(container));
        self.api("DELETE", &target, None).map(drop)
    }

    /// Runs a command in a new container to its end, and removes the container.
    pub fn run(&self, image: &str, command: &[&str]) -> Result<RunOutput> {
        // A terminal, because the log of a container without is cut up in frames.
        let settings = json!({ "Image": image, "Cmd": command, "Tty": true });
        let created = self.api("POST", "/containers/create", Some(&settings))?;
        let id = created["Id"].as_str().context("no id")?.to_owned();
        let result = self.run_to_end(&id);
        self.remove_container(&id)?;
        result
    }

    fn run_to_end(&self, id: &str) -> Result<RunOutput> {
        self.api("POST", &format!("/containers/{id}/start"), None)?;
        let ended = self.api("POST", &format!("/containers/{id}/wait"), None)?;
        let logs = Request::get(&format!("/containers/{id}/logs?stdout=1&stderr=1"));
        Ok(RunOutput {
            status: ended["StatusCode"].as_i64().context("no exit code")?,
            output: self.request(&logs)?.success()?.text(),
        })
    }
}

/// Percent-encoding of what stands in a query or path segment.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("wharfie/base"), "wharfie/base");
        assert_eq!(
            escape("CMD [\"sh\"]&x=ä"),
            "CMD%20%5B%22sh%22%5D%26x%3D%C3%A4"
        );
    }
}
