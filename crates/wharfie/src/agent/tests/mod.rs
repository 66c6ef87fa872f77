//! Agents of several nodes in one process, joined in memory.

pub(crate) mod engine;
mod images;
mod nodes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use wharfie_cluster::{NodeId, Replica, Store};
use wharfie_core::report::Report;
use wharfie_host::BoxedStream;

use super::fleet::{Alone, Fleet, Peers, unreachable};
use super::settings::Given;
use super::{Agent, Start, http, log};
use crate::api::{Node, NodeState};
use crate::failure::Failure;
use engine::FakeEngine;

/// What joins nodes.
#[derive(Default)]
pub(crate) struct Net {
    nodes: Mutex<Vec<Node>>,
    fleets: Mutex<BTreeMap<String, Weak<Fleet>>>,
    /// Ids of nodes that take streams and never answer.
    stuck: Mutex<Vec<String>>,
}

impl Net {
    /// Changes what everybody thinks of a node.
    pub(crate) fn set(&self, name: &str, state: NodeState) {
        let mut nodes = self.nodes.lock().unwrap();
        let node = nodes.iter_mut().find(|n| n.name == name).unwrap();
        node.state = state;
        node.since = 1_795_000_000_000;
    }

    /// Lets a node answer no more, without anybody's knowing it.
    pub(crate) fn stick(&self, name: &str) {
        self.stuck.lock().unwrap().push(format!("{name}-id"));
    }
}

/// A node's view of the net.
struct InMemory {
    net: Arc<Net>,
    id: String,
}

impl Peers for InMemory {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn nodes(&self) -> Vec<Node> {
        let nodes = self.net.nodes.lock().unwrap().clone();
        let seen_from_here = |node: Node| Node {
            me: node.id == self.id,
            ..node
        };
        nodes.into_iter().map(seen_from_here).collect()
    }

    fn report(&self, id: &str) -> Option<Arc<Report>> {
        let fleet = self.net.fleets.lock().unwrap().get(id).cloned();
        let fleet = fleet.and_then(|f| f.upgrade())?;
        let report = Arc::clone(&fleet.report().borrow());
        Some(report)
    }

    fn open<'a>(
        &'a self,
        id: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<BoxedStream, Failure>> {
        Box::pin(async move {
            if self.net.stuck.lock().unwrap().iter().any(|s| s == id) {
                return std::future::pending().await;
            }
            let down = |n: &Node| n.id == id && n.state == NodeState::Down;
            if self.net.nodes.lock().unwrap().iter().any(down) {
                return Err(unreachable(format!("{id} is away")));
            }
            let fleet = self.net.fleets.lock().unwrap().get(id).cloned();
            let fleet = fleet.and_then(|f| f.upgrade());
            let fleet = fleet.ok_or_else(|| unreachable(format!("{id} is gone")))?;
            let serving = fleet.serve(service).await?;
            let (here, there) = tokio::io::duplex(1 << 16);
            tokio::spawn(serving(Box::new(there)));
            Ok(Box::new(here) as BoxedStream)
        })
    }
}

/// One node.
pub(crate) struct Member {
    pub(crate) agent: Arc<Agent>,
    pub(crate) engine: Arc<FakeEngine>,
    pub(crate) socket: PathBuf,
}

/// Several nodes. They share a store, as if all they write were at once on all.
pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    pub(crate) members: Vec<Member>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts a node for each name; the id of `alpha` is `alpha-id`.
    pub(crate) async fn begin(names: &[&str]) -> Self {
        let fake: Vec<(&str, Option<String>)> = names.iter().map(|n| (*n, None)).collect();
        Self::with(&fake).await
    }

    /// The same, with the addresses of Engines for those that are not to have one that is made up.
    pub(crate) async fn with(nodes: &[(&str, Option<String>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("state")).unwrap());
        let replica = Arc::new(Replica::open(store, NodeId::NONE, 1).unwrap());
        let net = Arc::new(Net::default());
        *net.nodes.lock().unwrap() = nodes
            .iter()
            .map(|(name, _)| Node {
                id: format!("{name}-id"),
                name: (*name).to_owned(),
                me: false,
                ..Alone::new().nodes().remove(0)
            })
            .collect();
        let mut members = Vec::new();
        for (name, address) in nodes {
            let home = dir.path().join(name);
            std::fs::create_dir(&home).unwrap();
            let (engine, engine_socket) = FakeEngine::begin(&home);
            let socket = home.join("wharfie.sock");
            let start = Start {
                flags: Given {
                    engine: Some(match address {
                        Some(address) => address.clone(),
                        None => format!("unix://{}", engine_socket.display()),
                    }),
                    state_dir: Some(home.clone()),
                    ..Given::default()
                },
                file: None,
                socket: socket.clone(),
                background: false,
            };
            let settings = start.settings().unwrap();
            let id = format!("{name}-id");
            let peers: Arc<dyn Peers> = Arc::new(InMemory {
                net: Arc::clone(&net),
                id: id.clone(),
            });
            let log = log::begin(settings.log_level, settings.log_format);
            let agent =
                Agent::begin(start, settings, Arc::clone(&replica), (None, peers), log).unwrap();
            let fleet = Arc::downgrade(&agent.keeper.fleet);
            net.fleets.lock().unwrap().insert(id, fleet);
            let listener = http::bind(&socket, None).await.unwrap();
            let router = http::router(Arc::clone(&agent));
            tokio::spawn(async move { axum::serve(listener, router).await });
            members.push(Member {
                agent,
                engine,
                socket,
            });
        }
        let cluster = Self {
            net,
            members,
            _dir: dir,
        };
        for member in &cluster.members {
            until(|| member.agent.keeper.engine().is_ok()).await;
        }
        cluster
    }
}

/// Waits until something is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it does not come about");
}
