//! The Engines of all nodes, as the agent leads to them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use wharfie_host::{BoxedStream, Dialer, Engine};

use super::Client;
use crate::agent::fleet::{self, ENGINE};
use crate::agent::tunnel::PROTOCOL;
use crate::api::{Fault, Node};
use crate::failure::{Failure, Message};
use crate::output::warn;

/// A node that has not answered in this time does not hold the others up.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// The longest head of an agent's answer, in bytes.
const LONGEST_HEAD: usize = 16 << 10;

/// The nodes of a cluster of several.
#[derive(Debug)]
pub(crate) struct Places {
    nodes: Vec<Node>,
    agent: Client,
    /// The Engine of this node, or why it cannot be used.
    own: Result<Engine, Fault>,
    /// The Engines of the nodes that answer, once they were asked for.
    engines: OnceCell<Vec<(String, Engine)>>,
    /// What was said of nodes that do not answer.
    said: Mutex<BTreeSet<String>>,
}

impl Places {
    pub(super) fn new(nodes: Vec<Node>, agent: Client, own: Result<Engine, Fault>) -> Self {
        Self {
            nodes,
            agent,
            own,
            engines: OnceCell::new(),
            said: Mutex::default(),
        }
    }

    /// The agent.
    pub(super) fn agent(&self) -> &Client {
        &self.agent
    }

    /// The nodes.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The Engines of all nodes that answer, with the nodes' names. The others are named in a
    /// warning, and are not waited for.
    pub(super) async fn engines(&self) -> &[(String, Engine)] {
        self.engines.get_or_init(|| self.connect()).await
    }

    /// The Engine of a node that has answered.
    pub(super) fn known(&self, node: &str) -> Option<&Engine> {
        let engines = self.engines.get()?;
        engines.iter().find(|(n, _)| n == node).map(|(_, e)| e)
    }

    async fn connect(&self) -> Vec<(String, Engine)> {
        let asked = self.nodes.iter().map(|node| async {
            let engine = match node.me || node.may_answer() {
                true => match tokio::time::timeout(PATIENCE, self.engine(node)).await {
                    Ok(engine) => engine.map_err(|failure| failure.text()),
                    Err(_) => Err(late()),
                },
                false => Err(node.away()),
            };
            match engine {
                Ok(engine) => Some((node.name.clone(), engine)),
                Err(why) => {
                    self.complain(&node.name, &why);
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The Engine of a node.
    pub(super) async fn engine(&self, node: &Node) -> Result<Engine, Failure> {
        if node.me {
            return self.own.clone().map_err(Failure::from);
        }
        if !node.may_answer() {
            return Err(fleet::unreachable(node.away()));
        }
        if let Some(engine) = self.known(&node.name) {
            return Ok(engine.clone());
        }
        let socket = self.agent.socket().to_owned();
        let wanted = if node.id.is_empty() {
            &node.name
        } else {
            &node.id
        };
        let path = format!("/v1/nodes/{wanted}/{ENGINE}");
        let dialer = Dialer::new(move || Box::pin(open(socket.clone(), path.clone())));
        let engine = Engine::connect_through(dialer, &format!("node {}", node.name)).await?;
        let dir = self.agent.socket().parent();
        Ok(match dir {
            Some(dir) => engine.with_runtime_dir(dir),
            None => engine,
        })
    }

    /// Says once that a node does not answer.
    pub(super) fn complain(&self, node: &str, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(node.to_owned()) {
            let begins = format!("node {node} ");
            let why = match why.strip_prefix(&begins) {
                Some(what) => format!("it {what}"),
                None => why.to_owned(),
            };
            warn(&format!("node {node} is left out: {why}"));
        }
    }
}

/// Why a node is left out that has not answered in time.
pub(super) fn late() -> String {
    format!("it does not answer within {} s", PATIENCE.as_secs())
}

/// Opens a stream through the agent.
async fn open(socket: PathBuf, path: String) -> std::io::Result<BoxedStream> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what comes behind the head is the node's.
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if head.split(' ').nth(1) == Some("101") {
        return Ok(Box::new(stream));
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
    let length = length.and_then(|l| l.trim().parse::<u64>().ok());
    let mut body = Vec::new();
    let mut rest = stream.take(length.unwrap_or(0).min(LONGEST_HEAD as u64));
    rest.read_to_end(&mut body).await?;
    let fault: Result<Fault, _> = serde_json::from_slice(&body);
    let what = fault.map_or_else(
        |_| {
            format!(
                "the agent answers {}",
                head.lines().next().unwrap_or_default()
            )
        },
        |fault| fault.what,
    );
    Err(std::io::Error::other(what))
}

/// That nothing can be looked at.
pub(super) fn nobody() -> Failure {
    Failure::NoEngine(Message::new("no node of the cluster answers"))
}
