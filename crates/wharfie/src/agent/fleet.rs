//! The nodes of the cluster, and the ways to them.
//!
//! A node offers *services*: `engine` is its Engine's socket, `agent` its agent's API. To open one is
//! to get a stream of bytes, wherever the node is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use wharfie_cluster::{Place, Record};
use wharfie_core::report::Report;
use wharfie_host::BoxedStream;

use crate::api::{Node, NodeState};
use crate::failure::{Failure, Message};

/// A node must be reached within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes that are on their way within this process at most.
const PIPE: usize = 64 << 10;

/// The Engine's socket.
pub(crate) const ENGINE: &str = "engine";
/// The agent's API.
pub(crate) const AGENT: &str = "agent";

/// The other nodes, by whatever connects them.
pub(crate) trait Peers: Send + Sync + 'static {
    /// This node's id; empty as long as it has none.
    fn id(&self) -> String;

    /// Whether this node was removed from its cluster, and is in none since.
    fn is_expelled(&self) -> bool {
        false
    }

    /// All nodes, this one too ([`Node::me`]), without their reports: it is asked often.
    fn nodes(&self) -> Vec<Node>;

    /// What another node said last.
    fn report(&self, _id: &str) -> Option<Arc<Report>> {
        None
    }

    /// Opens a stream to a service of another node.
    fn open<'a>(
        &'a self,
        id: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<BoxedStream, Failure>>;

    /// Tells the others what was written here; on how many nodes it is durable, this one counted,
    /// when that many are wanted or the time is over.
    fn replicate(
        &self,
        _records: Vec<Record>,
        _wanted: usize,
        _patience: Duration,
    ) -> BoxFuture<'static, usize> {
        Box::pin(async { 1 })
    }

    /// Tells the others what is seen here.
    fn publish(&self, _report: &Report) {}

    /// Where this node is among others; none while it is alone. It may take a moment.
    fn place(&self) -> Option<Place> {
        None
    }

    /// Addresses that this host may have, and at which it is not to be looked for.
    fn hide(&self, _addresses: BTreeSet<IpAddr>) {}
}

/// No other nodes.
#[cfg(test)]
pub(crate) struct Alone {
    name: String,
    since: i64,
}

#[cfg(test)]
impl Alone {
    /// A node by the name of its host.
    pub(crate) fn new() -> Self {
        let host = rustix::system::uname();
        Self {
            name: host.nodename().to_string_lossy().into_owned(),
            since: jiff::Timestamp::now().as_millisecond(),
        }
    }
}

#[cfg(test)]
impl Peers for Alone {
    fn id(&self) -> String {
        String::new()
    }

    fn nodes(&self) -> Vec<Node> {
        vec![Node {
            id: String::new(),
            name: self.name.clone(),
            me: true,
            state: NodeState::Up,
            since: self.since,
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            skew: None,
            drained: false,
            report: None,
        }]
    }

    fn open<'a>(&'a self, id: &'a str, _: &'a str) -> BoxFuture<'a, Result<BoxedStream, Failure>> {
        Box::pin(async move { Err(Failure::failed(format!("there is no node {id}"))) })
    }
}

/// Serves one stream to its end.
pub(crate) type Serving = Box<dyn FnOnce(BoxedStream) -> BoxFuture<'static, ()> + Send>;

/// Gets ready to serve a stream, or says why that cannot be.
type Service = Arc<dyn Fn() -> BoxFuture<'static, Result<Serving, Failure>> + Send + Sync>;

/// The nodes, and what this one offers.
pub(crate) struct Fleet {
    peers: Arc<dyn Peers>,
    report: watch::Receiver<Arc<Report>>,
    services: Mutex<BTreeMap<String, Service>>,
}

impl Fleet {
    /// The nodes of a cluster, and what is seen on this one.
    pub(crate) fn new(peers: Arc<dyn Peers>, report: watch::Receiver<Arc<Report>>) -> Self {
        Self {
            peers,
            report,
            services: Mutex::default(),
        }
    }

    /// What is seen on this node, as it changes.
    pub(crate) fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.clone()
    }

    /// All nodes, this one first, the others by name; without their reports.
    pub(crate) fn members(&self) -> Vec<Node> {
        let mut nodes = self.peers.nodes();
        nodes.sort_by(|a, b| (!a.me, &a.name, &a.id).cmp(&(!b.me, &b.name, &b.id)));
        nodes
    }

    /// Those that were not removed.
    pub(crate) fn remaining(&self) -> Vec<Node> {
        let mut nodes = self.members();
        nodes.retain(|n| n.me || n.state != NodeState::Removed);
        nodes
    }

    /// The members with what they said last.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.members();
        for node in &mut nodes {
            node.report = self.report_of(node).map(|r| r.as_ref().clone());
            if let Some(report) = &node.report {
                node.version.clone_from(&report.version);
            }
        }
        nodes
    }

    /// What a node said last.
    pub(crate) fn report_of(&self, node: &Node) -> Option<Arc<Report>> {
        match node.me {
            true => Some(Arc::clone(&self.report.borrow())),
            false => self.peers.report(&node.id),
        }
    }

    /// This node's id; empty as long as it has none.
    pub(crate) fn id(&self) -> String {
        self.peers.id()
    }

    /// Whether this node was removed from its cluster, and is in none since.
    pub(crate) fn is_expelled(&self) -> bool {
        self.peers.is_expelled()
    }

    /// Number of nodes that are of the cluster, this one counted.
    pub(crate) fn count(&self) -> usize {
        let nodes = self.peers.nodes();
        let member = |n: &&Node| n.me || n.state != NodeState::Removed;
        nodes.iter().filter(member).count()
    }

    /// How many nodes are believed to be up, this one counted, and how many there are.
    pub(crate) fn up(&self) -> (usize, usize) {
        let nodes = self.peers.nodes();
        let up = nodes.iter().filter(|n| n.me || n.may_answer());
        (up.count(), nodes.len())
    }

    /// This node.
    pub(crate) fn me(&self) -> Node {
        let me = self.peers.nodes().into_iter().find(|n| n.me);
        me.unwrap_or_else(Node::nobody)
    }

    /// The node with a name, an id, or an id that begins so.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(crate) fn find(&self, wanted: &str) -> Result<Node, Failure> {
        let nodes = self.peers.nodes();
        find(&nodes, wanted).cloned()
    }

    /// The node with an id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Node> {
        self.peers.nodes().into_iter().find(|n| n.id == id)
    }

    /// Opens a stream to a service of a node.
    ///
    /// # Errors
    /// The node is away, or cannot be reached within [`PATIENCE`], or the service is not to be had.
    pub(crate) async fn open(&self, node: &Node, service: &str) -> Result<BoxedStream, Failure> {
        if node.me {
            let serving = self.serve(service).await?;
            let (here, there) = tokio::io::duplex(PIPE);
            tokio::spawn(serving(Box::new(there)));
            return Ok(Box::new(here));
        }
        if !node.may_answer() {
            return Err(unreachable(node.away()));
        }
        let opened = tokio::time::timeout(PATIENCE, self.peers.open(&node.id, service)).await;
        opened.unwrap_or_else(|_| {
            Err(unreachable(format!(
                "node {} does not answer within {} s",
                node.name,
                PATIENCE.as_secs()
            )))
        })
    }

    /// Whether a node answers this moment, whatever is known of it.
    pub(crate) async fn answers(&self, node: &Node, patience: Duration) -> bool {
        let opened = self.peers.open(&node.id, AGENT);
        matches!(tokio::time::timeout(patience, opened).await, Ok(Ok(_)))
    }

    /// Tells the other nodes what is seen here.
    pub(crate) fn publish(&self, report: &Report) {
        self.peers.publish(report);
    }

    /// This host is not to be looked for at these addresses, should it have them.
    pub(crate) fn hide(&self, addresses: BTreeSet<IpAddr>) {
        self.peers.hide(addresses);
    }

    /// Where this node is among others; none while it is alone. It may take a moment.
    pub(crate) fn place(&self) -> Option<Place> {
        self.peers.place()
    }

    /// Tells the other nodes what was written here.
    pub(crate) fn tell(&self, records: Vec<Record>) {
        if !records.is_empty() {
            tokio::spawn(self.peers.replicate(records, 1, Duration::ZERO));
        }
    }

    /// The same, and waits; on how many nodes it is durable.
    pub(crate) fn replicate(
        &self,
        records: Vec<Record>,
        wanted: usize,
        patience: Duration,
    ) -> BoxFuture<'static, usize> {
        self.peers.replicate(records, wanted, patience)
    }

    /// Offers a service to all nodes. What gets ready to serve is called for each stream.
    pub(crate) fn offer(
        &self,
        name: &str,
        ready: impl Fn() -> BoxFuture<'static, Result<Serving, Failure>> + Send + Sync + 'static,
    ) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.insert(name.to_owned(), Arc::new(ready));
    }

    /// Gets ready to serve a stream to one of this node's services, which has come from a peer.
    ///
    /// # Errors
    /// There is no such service, or it cannot be had now.
    pub(crate) async fn serve(&self, service: &str) -> Result<Serving, Failure> {
        let services = self.services.lock();
        let found = services
            .unwrap_or_else(PoisonError::into_inner)
            .get(service)
            .cloned();
        match found {
            Some(ready) => ready().await,
            None => Err(
                Failure::failed(format!("this node knows no service {service:?}"))
                    .help("nodes of one cluster should have one version of wharfie"),
            ),
        }
    }
}

/// That a node or its Engine is away.
pub(crate) fn unreachable(what: String) -> Failure {
    Failure::NoEngine(Message::new(what))
}

/// The node with a name, an id, or an id that begins so.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn find<'n>(nodes: &'n [Node], wanted: &str) -> Result<&'n Node, Failure> {
    let called: Vec<&Node> = nodes.iter().filter(|n| n.name == wanted).collect();
    let exactly = || nodes.iter().find(|n| !wanted.is_empty() && n.id == wanted);
    let found = match called.as_slice() {
        [] => match exactly() {
            Some(node) => return Ok(node),
            None => nodes
                .iter()
                .filter(|n| !wanted.is_empty() && n.id.starts_with(wanted))
                .collect(),
        },
        _ => called,
    };
    let shown = |nodes: &mut dyn Iterator<Item = &Node>| {
        let each = nodes.map(|n| match n.id.get(..12) {
            Some(id) => format!("{} ({id})", n.name),
            None => n.name.clone(),
        });
        each.collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [node] => Ok(node),
        [] => Err(Failure::usage(format!("no such node: {wanted}"))
            .help(format!("the nodes are: {}", shown(&mut nodes.iter())))),
        several => Err(Failure::usage(format!(
            "{wanted:?} may be any of {} nodes: {}",
            several.len(),
            shown(&mut several.iter().copied())
        ))
        .help("write more of the id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str) -> Node {
        Node {
            id: id.to_owned(),
            name: name.to_owned(),
            me: false,
            ..Alone::new().nodes().remove(0)
        }
    }

    #[test]
    fn nodes_are_found_by_name_id_and_prefix() {
        let nodes = [
            node("aa11", "alpha"),
            node("aa22", "beta"),
            node("bb33", "beta"),
            node("bb", "aa"),
        ];
        let id = |wanted: &str| find(&nodes, wanted).map(|n| n.id.clone());
        assert_eq!(id("alpha").unwrap(), "aa11");
        assert_eq!(id("bb33").unwrap(), "bb33");
        assert_eq!(id("bb3").unwrap(), "bb33");
        // A whole id is no prefix of another, and a name comes before an id.
        assert_eq!(id("bb").unwrap(), "bb");
        assert_eq!(id("aa").unwrap(), "bb");
        let text = |wanted: &str| find(&nodes, wanted).unwrap_err().text();
        assert!(text("gamma").contains("no such node: gamma; the nodes are: alpha, beta"));
        assert!(text("").contains("no such node"));
        assert!(text("beta").contains("any of 2 nodes") && text("beta").contains("write more"));
        assert!(text("aa2x").contains("no such node"));
    }
}
