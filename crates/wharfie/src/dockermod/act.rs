//! Carries out actions: finds the nodes that are concerned, asks their Engines, and makes the reply.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use hyper::Method;
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::engine::{self, Answer, Ask};
use super::find::{self, Found, Known};
use super::nodes::{Node, Nodes};
use super::pool::Pool;
use super::request::{Action, Listed, Source, Verb};
use super::templates::Templates;
use super::{dialect, reply};

/// Containers that one request makes at a time.
const PARALLEL: usize = 16;

/// How long an Engine's answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// Of lists, and of the search for a container: DockerMod's `taskTimeout`.
    pub(super) look: Duration,
    /// Of new containers: DockerMod's `newContainerTimeout`.
    pub(super) create: Duration,
    /// Of all else, with the grace of a stop to come.
    pub(super) change: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(2500),
            create: Duration::from_secs(15),
            change: Duration::from_secs(60),
        }
    }
}

/// What answers requests.
pub(crate) struct Service {
    nodes: Arc<dyn Nodes>,
    templates: Templates,
    pool: Pool,
    deadlines: Deadlines,
}

impl Service {
    /// Over these nodes and templates.
    pub(crate) fn new(nodes: Arc<dyn Nodes>, templates: Templates) -> Self {
        Self {
            nodes,
            templates,
            pool: Pool::default(),
            deadlines: Deadlines::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// The reply to a request.
    pub(super) async fn reply(&self, request: &Map<String, Value>) -> Value {
        match Action::parse(request) {
            Ok(action) => self.act(action).await,
            Err(said) => said,
        }
    }

    async fn act(&self, action: Action) -> Value {
        match action {
            Action::Register(hostname) => self.register(&hostname, true),
            Action::Unregister(hostname) => self.register(&hostname, false),
            Action::Create(source, instances) => match self.body(source).await {
                Ok(body) => self.create(body, instances).await,
                Err(said) => said,
            },
            Action::On(id, verb) => match self.find(&id).await {
                Ok((node, id)) => self.on(&node, &id, verb).await,
                Err(said) => said,
            },
            Action::List(listed, all) => self.list(listed, all).await,
        }
    }

    fn register(&self, hostname: &str, take_in: bool) -> Value {
        if !self.pool.register(&self.nodes.nodes(), hostname, take_in) {
            return reply::error(format!(
                "there is no node {hostname}: hosts become nodes with `wharfie join`"
            ));
        }
        info!(node = hostname, take_in, "DockerMod: nodes changed");
        reply::ok()
    }

    fn members(&self) -> Vec<Node> {
        self.pool.members(self.nodes.nodes())
    }

    /// The Engine's answer, or none if it keeps silent.
    async fn ask(&self, node: &Node, ask: &Ask) -> Option<Answer> {
        match engine::ask(&*self.nodes, node, ask).await {
            Ok(answer) => Some(answer),
            Err(e) => {
                let (node, method, target) = (&node.name, &ask.method, &ask.target);
                warn!(node, %method, target, "DockerMod: the Engine does not answer: {e}");
                None
            }
        }
    }

    fn look(&self, target: &str) -> Ask {
        Ask {
            method: Method::GET,
            target: target.to_owned(),
            body: None,
            within: self.deadlines.look,
        }
    }

    async fn list(&self, listed: Listed, all: bool) -> Value {
        let ask = self.look(match listed {
            // Those that do not run as well.
            Listed::Containers => "/containers/json?all=1",
            Listed::Images => "/images/json",
        });
        if all {
            let one = |node: Node| {
                let ask = &ask;
                async move { self.answered(&node, ask).await }
            };
            let replies = join_all(self.members().into_iter().map(one)).await;
            return reply::containers(replies.into_iter().map(or_timeout).collect());
        }
        match self.nodes.nodes().into_iter().find(|n| n.me) {
            Some(me) => or_nothing(self.answered(&me, &ask).await),
            None => reply::no_such_id(),
        }
    }

    async fn answered(&self, node: &Node, ask: &Ask) -> Option<Value> {
        let answer = self.ask(node, ask).await?;
        Some(reply::answered(&answer, &node.name))
    }

    /// What is sent to the Engine that makes a container.
    async fn body(&self, source: Source) -> Result<Value, Value> {
        let body = match source {
            Source::Raw(body) => body,
            Source::Image(image) => {
                let image = json!({ "Image": image });
                image.as_object().cloned().unwrap_or_default()
            }
            Source::Template(name) => match self.templates.get(&name).await {
                Ok(Some(template)) => template,
                Ok(None) => {
                    return Err(reply::error(format!(
                        "there is no template {name}: `wharfie template ls` lists them"
                    )));
                }
                Err(failure) => return Err(reply::error(failure.text())),
            },
        };
        Ok(Value::Object(dialect::modern(body)))
    }

    async fn create(&self, body: Value, instances: Option<usize>) -> Value {
        let members = self.members();
        if members.is_empty() {
            return reply::no_such_id();
        }
        let ask = Ask {
            method: Method::POST,
            target: "/containers/create".to_owned(),
            body: Some(body),
            within: self.deadlines.create,
        };
        let places = self.pool.spread(members.len(), instances.unwrap_or(1));
        let one = |place: usize| {
            let (ask, members) = (&ask, &members);
            async move { self.answered(members.get(place)?, ask).await }
        };
        let made = stream::iter(places.into_iter().map(one)).buffered(PARALLEL);
        let mut made: Vec<Option<Value>> = made.collect().await;
        match instances {
            Some(_) => reply::containers(made.into_iter().map(or_timeout).collect()),
            None => or_nothing(made.pop().flatten()),
        }
    }

    /// The node and the whole id of a container; else the reply.
    async fn find(&self, wanted: &str) -> Result<(Node, String), Value> {
        // Also on nodes that were unregistered: their containers are still there.
        let nodes: Vec<Node> = self.nodes.nodes().into_iter().filter(|n| n.up).collect();
        let ask = self.look("/containers/json?all=1");
        let one = |(index, node)| {
            let ask = &ask;
            async move {
                let answer = self.ask(node, ask).await.filter(Answer::is_success);
                answer.and_then(|a| find::known(index, &a.body))
            }
        };
        let mut lists: FuturesUnordered<_> = nodes.iter().enumerate().map(one).collect();
        let mut known: Vec<Known> = Vec::new();
        while let Some(list) = lists.next().await {
            known.extend(list.unwrap_or_default());
            // Nobody else can be meant: a node that is silent is not waited for.
            if find::is_whole(wanted) && known.iter().any(|c| c.id == wanted) {
                break;
            }
        }
        let name = |index: usize| nodes.get(index).map_or("", |n| n.name.as_str());
        match find::choose(wanted, &known) {
            Found::One(container) => match nodes.get(container.node) {
                Some(node) => Ok((node.clone(), container.id)),
                None => Err(reply::no_such_id()),
            },
            Found::Nothing => Err(reply::no_such_id()),
            Found::Several(several) => {
                let places: Vec<String> = several
                    .iter()
                    .take(10)
                    .map(|c| format!("{} on {}", c.id.get(..12).unwrap_or(&c.id), name(c.node)))
                    .collect();
                Err(reply::error(format!(
                    "id {wanted} may mean {} containers: {}",
                    several.len(),
                    places.join(", ")
                )))
            }
        }
    }

    async fn on(&self, node: &Node, id: &str, verb: Verb) -> Value {
        let ask = |method: Method, target: String, grace: Option<u64>| Ask {
            method,
            target: match grace {
                Some(seconds) => format!("/containers/{id}{target}?t={seconds}"),
                None => format!("/containers/{id}{target}"),
            },
            body: None,
            within: self.deadlines.change + Duration::from_secs(grace.unwrap_or(0)),
        };
        let post = |path: &str, grace| ask(Method::POST, path.to_owned(), grace);
        let delete = || ask(Method::DELETE, String::new(), None);
        let asked = match verb {
            Verb::Inspect => self.look(&format!("/containers/{id}/json")),
            Verb::Start => post("/start", None),
            Verb::Stop(grace) => post("/stop", grace),
            Verb::Kill => post("/kill", None),
            Verb::Restart(grace) => post("/restart", grace),
            Verb::Delete => delete(),
            Verb::Shutdown(grace) => match self.ask(node, &post("/stop", grace)).await {
                // 304: it does not run.
                Some(answer) if answer.is_success() || answer.status == 304 => delete(),
                Some(answer) => return reply::answered(&answer, &node.name),
                None => return reply::no_such_id(),
            },
        };
        or_nothing(self.answered(node, &asked).await)
    }
}

/// One of several.
fn or_timeout(reply: Option<Value>) -> Value {
    reply.unwrap_or_else(reply::timeout)
}

/// The only one.
fn or_nothing(reply: Option<Value>) -> Value {
    reply.unwrap_or_else(reply::no_such_id)
}
