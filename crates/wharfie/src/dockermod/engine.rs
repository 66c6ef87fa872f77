//! One request to the Engine of a node. The Engine's answer is kept as it came: the client that
//! the rest of Wharfie uses does not show headers.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Method;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::nodes::{ENGINE, Node, Nodes};

/// Bytes of an answer that are read at most: a list of some ten thousand containers.
const LARGEST: usize = 32 << 20;

/// What is asked of an Engine.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Method.
    pub(super) method: Method,
    /// Path and query, of no particular version of the API: the Engine's own, as DockerMod had it.
    pub(super) target: String,
    /// The JSON that is sent.
    pub(super) body: Option<Value>,
    /// How long the answer may take, all in all.
    pub(super) within: Duration,
}

/// What an Engine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code.
    pub(super) status: u16,
    /// Headers as the Engine wrote them: `Content-Type`.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Bytes,
}

impl Answer {
    /// Whether it did what was asked.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Asks the Engine of a node.
///
/// # Errors
/// The node or its Engine cannot be reached, goes away, says too much, or takes too long.
pub(super) async fn ask(nodes: &dyn Nodes, node: &Node, ask: &Ask) -> io::Result<Answer> {
    match tokio::time::timeout(ask.within, exchange(nodes, node, ask)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", ask.within.as_millis()),
        )),
    }
}

/// Ends a connection's task when nobody waits for the answer any more.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(nodes: &dyn Nodes, node: &Node, ask: &Ask) -> io::Result<Answer> {
    let stream = nodes.open(&node.id, ENGINE).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let _ends = Ends(tokio::spawn(connection).abort_handle());
    let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
    let request = hyper::Request::builder()
        .method(&ask.method)
        .uri(&ask.target)
        .header("Host", "docker")
        .header("Accept", "application/json")
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(io::Error::other)?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (as_written(name.as_str()), value)
            })
            .collect(),
        body: body.map_err(io::Error::other)?.to_bytes(),
    })
}

/// A header's name as an Engine writes it: Go capitalises each word, our client nothing.
fn as_written(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_engines_names() {
        for (ours, theirs) in [
            ("content-type", "Content-Type"),
            ("api-version", "Api-Version"),
            ("ostype", "Ostype"),
            ("x-", "X-"),
        ] {
            assert_eq!(as_written(ours), theirs);
        }
    }
}
