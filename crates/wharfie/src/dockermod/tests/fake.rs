//! Nodes with small Engines in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::dockermod::nodes::{Node, Nodes, Stream};

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers.
    Well,
    /// Nobody takes its streams.
    Refuses,
    /// Opening a stream never ends.
    Hangs,
    /// It takes everything and says nothing.
    Silent,
    /// It goes away in the middle of an answer.
    CutsOff,
    /// It says something that is no HTTP.
    Babbles,
}

/// An Engine with containers.
#[derive(Debug, Default)]
pub(super) struct FakeEngine {
    pub(super) containers: Vec<Container>,
    /// Requests, as `POST /containers/create`.
    pub(super) asked: Vec<String>,
    /// Bodies of requests that create.
    pub(super) bodies: Vec<Value>,
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) running: bool,
}

/// Nodes `h1`, `h2`, …; the first is this one.
pub(super) struct Fakes {
    nodes: Mutex<Vec<(Node, Health)>>,
    engines: BTreeMap<String, Arc<Mutex<FakeEngine>>>,
}

impl Fakes {
    pub(super) fn new(health: &[Health]) -> Arc<Self> {
        let node = |(index, health): (usize, &Health)| {
            let node = Node {
                id: format!("id{}", index + 1),
                name: format!("h{}", index + 1),
                me: index == 0,
                up: true,
            };
            (node, *health)
        };
        let nodes: Vec<(Node, Health)> = health.iter().enumerate().map(node).collect();
        let engines = nodes.iter().map(|(n, _)| (n.id.clone(), Arc::default()));
        Arc::new(Self {
            engines: engines.collect(),
            nodes: Mutex::new(nodes),
        })
    }

    pub(super) fn engine(&self, number: usize) -> std::sync::MutexGuard<'_, FakeEngine> {
        self.engines[&format!("id{number}")].lock().unwrap()
    }

    pub(super) fn add(&self, number: usize, id: &str, name: &str) {
        self.engine(number).containers.push(Container {
            id: id.to_owned(),
            name: name.to_owned(),
            running: false,
        });
    }

    pub(super) fn set_up(&self, number: usize, up: bool) {
        self.nodes.lock().unwrap()[number - 1].0.up = up;
    }

    /// Containers of each node.
    pub(super) fn counts(&self) -> Vec<usize> {
        let engines = self.engines.values();
        engines
            .map(|e| e.lock().unwrap().containers.len())
            .collect()
    }
}

impl Nodes for Fakes {
    fn nodes(&self) -> Vec<Node> {
        let nodes = self.nodes.lock().unwrap();
        nodes.iter().map(|(n, _)| n.clone()).collect()
    }

    fn open<'a>(
        &'a self,
        node: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        assert_eq!(service, "engine");
        let nodes = self.nodes.lock().unwrap();
        let health = nodes.iter().find(|(n, _)| n.id == node).unwrap().1;
        let engine = Arc::clone(&self.engines[node]);
        Box::pin(async move {
            match health {
                Health::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
                Health::Hangs => std::future::pending().await,
                _ => {}
            }
            let (ours, theirs) = tokio::io::duplex(64);
            tokio::spawn(serve(theirs, health, engine));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

async fn serve(mut stream: DuplexStream, health: Health, engine: Arc<Mutex<FakeEngine>>) {
    let mut text = Vec::new();
    let (head, body) = loop {
        let mut bytes = [0; 256];
        let count = stream.read(&mut bytes).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        text.extend_from_slice(&bytes[..count]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower.split("content-length: ").nth(1);
            let length = length.and_then(|l| l.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
    };
    let request = head.lines().next().unwrap_or_default();
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let answer = match health {
        Health::Silent => std::future::pending().await,
        Health::CutsOff => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_owned(),
        Health::Babbles => "hello, who is there?\r\n\r\n".to_owned(),
        _ => engine.lock().unwrap().answer(method, target, &body),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    if health == Health::Well {
        // It keeps the connection, as Engines do.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

impl FakeEngine {
    fn answer(&mut self, method: &str, target: &str, body: &str) -> String {
        self.asked.push(format!("{method} {target}"));
        let (path, _query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method, parts.as_slice()) {
            ("GET", ["containers", "json"]) => {
                let one = |c: &Container| json!({"Id": c.id, "Names": [format!("/{}", c.name)]});
                let list: Vec<Value> = self.containers.iter().map(one).collect();
                chunked(&json!(list))
            }
            ("GET", ["images", "json"]) => json_answer(200, &json!([{"Id": "sha256:1"}])),
            ("POST", ["containers", "create"]) => {
                let body: Value = serde_json::from_str(body).unwrap();
                if body["Image"] == "missing" {
                    return json_answer(404, &json!({"message": "No such image: missing"}));
                }
                let id = format!("{:064x}", 0xabc_0000 + self.containers.len());
                self.bodies.push(body);
                self.containers.push(Container {
                    id: id.clone(),
                    name: format!("made{}", self.containers.len()),
                    running: false,
                });
                json_answer(201, &json!({"Id": id, "Warnings": null}))
            }
            ("GET", ["containers", id, "json"]) => json_answer(200, &json!({"Id": id})),
            ("DELETE", ["containers", id]) => {
                if self.one(id).running {
                    return json_answer(409, &json!({"message": "it runs"}));
                }
                self.containers.retain(|c| c.id != *id);
                empty(204)
            }
            ("POST", ["containers", id, verb]) => {
                let running = matches!(*verb, "start" | "restart");
                let container = self.one(id);
                if *verb != "restart" && container.running == running {
                    return empty(304);
                }
                container.running = running;
                empty(204)
            }
            _ => json_answer(404, &json!({"message": "page not found"})),
        }
    }

    fn one(&mut self, id: &str) -> &mut Container {
        let containers = self.containers.iter_mut();
        containers.into_iter().find(|c| c.id == id).unwrap()
    }
}

fn json_answer(status: u16, body: &Value) -> String {
    let body = format!("{body}\n");
    format!(
        "HTTP/1.1 {status} x\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nDate: now\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunked(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
}

fn empty(status: u16) -> String {
    format!("HTTP/1.1 {status} x\r\nApi-Version: 1.41\r\nDate: now\r\n\r\n")
}
