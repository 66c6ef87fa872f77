//! The client of the agent's API.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{Fault, FaultKind, Info, Message, Request};
use crate::failure::{Failure, Message as Words};

/// An agent, by its socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// Why nothing came back.
#[derive(Debug)]
enum Unreachable {
    /// Nobody listens.
    NoAgent,
    /// The socket may not be used.
    NotPermitted,
    /// The agent went away in the middle.
    Gone(String),
}

impl Client {
    /// The agent that listens, or will listen, at a socket.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the agent says of itself; nothing if there is none.
    pub(crate) async fn info(&self) -> Result<Option<Info>, Failure> {
        match self.get("/v1/info").await {
            Ok(info) => Ok(Some(info)),
            Err(Failure::NoAgent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Sends something, or nothing.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::POST, path, None::<&()>).await
    }

    /// Sends something that is to be kept there.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Removes something.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let answer = self.send(method, path, body).await?;
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| self.failure(Unreachable::Gone(e.to_string())))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| odd(&e))
    }

    /// Asks for a change, and hands on what the agent tells of it; the revision that is wanted in
    /// the end. Dropping the future ends the agent's work on it.
    pub(crate) async fn act(
        &self,
        stack: &str,
        request: &Request,
        mut tell: impl FnMut(Message),
    ) -> Result<Option<u64>, Vec<Fault>> {
        let failed = |failure: Failure| vec![Fault::from(failure)];
        let path = format!("/v1/stacks/{stack}");
        let answer = self.send(Method::POST, &path, Some(request)).await;
        let mut body = answer.map_err(failed)?.into_body();
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|e| self.failure(Unreachable::Gone(e.to_string())))
                .map_err(failed)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(|e| failed(odd(&e)))? {
                    Message::Done { revision, .. } => return Ok(revision),
                    Message::Failed { failures } => return Err(failures),
                    message => tell(message),
                }
            }
        }
        let gone = Unreachable::Gone("it ended in the middle of its answer".to_owned());
        Err(failed(self.failure(gone)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, Failure> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|e| Failure::failed(format!("cannot write the request: {e}")))?;
        let answer = self.exchange(method, path, body.unwrap_or_default()).await;
        let answer = answer.map_err(|e| self.failure(e))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await;
        let bytes = bytes.map(http_body_util::Collected::to_bytes);
        let bytes = bytes.unwrap_or_default();
        let fault: Result<Fault, _> = serde_json::from_slice(&bytes);
        Err(fault.map_or_else(
            |_| unknown(status, &String::from_utf8_lossy(&bytes)),
            Failure::from,
        ))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Unreachable> {
        use std::io::ErrorKind;
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => Unreachable::NotPermitted,
            _ => Unreachable::NoAgent,
        })?;
        let gone = |e: hyper::Error| Unreachable::Gone(e.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(gone)?;
        // It ends with the answer.
        tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Unreachable::Gone(e.to_string()))?;
        sender.send_request(request).await.map_err(gone)
    }

    fn failure(&self, error: Unreachable) -> Failure {
        let socket = self.socket.display();
        match error {
            Unreachable::NoAgent => Failure::NoAgent,
            Unreachable::NotPermitted => Failure::NoEngine(Words::new(format!(
                "no permission to use the agent at {socket}"
            )))
            .help("run as root, or set `socket-group` in the agent's settings to a group of yours"),
            Unreachable::Gone(why) => Failure::NoEngine(Words::new(format!(
                "the agent at {socket} went away: {why}"
            )))
            .help("what is wanted is kept: the same command goes on with it"),
        }
    }
}

fn odd(error: &serde_json::Error) -> Failure {
    Failure::failed(format!("the agent's answer cannot be understood: {error}"))
        .help("`wharfie version` shows both versions: restart the agent if it is another one")
}

fn unknown(status: StatusCode, body: &str) -> Failure {
    let kind = if status == StatusCode::NOT_FOUND {
        "it does not know the request"
    } else {
        "it refuses the request"
    };
    Fault {
        kind: FaultKind::Failed,
        what: format!("the agent answers {status}: {kind}: {}", body.trim()),
        help: Some(
            "`wharfie version` shows both versions: restart the agent if it is older".to_owned(),
        ),
        path: None,
    }
    .into()
}
