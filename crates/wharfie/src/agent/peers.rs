//! The other nodes, as the cluster connects them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::{error, info, warn};
use wharfie_cluster::mesh::OpenError;
use wharfie_cluster::transport::Stream;
use wharfie_cluster::wire::{self, Opened};
use wharfie_cluster::{Cluster, Event, Key, NodeId, Place, Record, Services, State};
use wharfie_core::assignment::{ASSIGNMENT, ROLLOUT};
use wharfie_core::director::{DIRECTOR, RECORD};
use wharfie_core::network::{NETWORK, SLICE};
use wharfie_core::report::Report;
use wharfie_host::BoxedStream;

use super::fleet::{Fleet, Peers, unreachable};
use super::keeper::{Keeper, STACK};
use super::world::{self, NODE, VOLUME};
use crate::api::{Node, NodeState};
use crate::failure::Failure;

/// Streams that peers open to services of this node.
#[derive(Default)]
pub(super) struct Streams {
    fleet: OnceLock<Arc<Fleet>>,
}

impl Streams {
    /// What answers them. Before, they are refused.
    pub(super) fn attach(&self, fleet: &Arc<Fleet>) {
        // It is attached once.
        let _ = self.fleet.set(Arc::clone(fleet));
    }
}

impl Services for Streams {
    fn serve(&self, _: NodeId, service: String, mut stream: Stream) -> BoxFuture<'static, ()> {
        let fleet = self.fleet.get().cloned();
        Box::pin(async move {
            let ready = match &fleet {
                Some(fleet) => fleet.serve(&service).await.map_err(|f| f.text()),
                None => Err("the agent there is just starting".to_owned()),
            };
            let refusal = ready.as_ref().err().cloned();
            if wire::send(&mut stream, &Opened { refusal }).await.is_ok()
                && let Ok(serving) = ready
            {
                serving(Box::new(stream)).await;
            }
        })
    }

    fn is_own(&self, me: NodeId, record: &Record) -> bool {
        let says = |field: &str| record.value.as_ref().and_then(|v| v[field].as_str());
        let is_me = |id: Option<&str>| id.is_none_or(|id| id.is_empty() || id == me.to_string());
        match record.kind.as_str() {
            STACK => is_me(says("home")),
            VOLUME => is_me(says("node")),
            // They are decided anew.
            NODE => false,
            // The cluster's counts.
            DIRECTOR | RECORD => false,
            kind => !world::DECIDED.contains(&kind),
        }
    }
}

/// A report as it came, and as it is read.
type Read = (Vec<u8>, Arc<Report>);

/// The nodes of the cluster.
pub(super) struct Joined {
    cluster: Arc<Cluster>,
    /// Reports are looked at more often than they change.
    reports: Mutex<BTreeMap<NodeId, Read>>,
}

impl Joined {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            reports: Mutex::default(),
        }
    }
}

impl Peers for Joined {
    fn id(&self) -> String {
        self.cluster.me().to_string()
    }

    fn is_expelled(&self) -> bool {
        self.cluster.is_expelled()
    }

    fn nodes(&self) -> Vec<Node> {
        self.cluster.nodes().into_iter().map(shown).collect()
    }

    fn report(&self, id: &str) -> Option<Arc<Report>> {
        let id = id.parse().ok()?;
        let body = self.cluster.report(id)?;
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, read)) = reports.get(&id).filter(|(of, _)| *of == body) {
            return Some(Arc::clone(read));
        }
        let read = Arc::new(serde_json::from_slice(&body).ok()?);
        reports.insert(id, (body, Arc::clone(&read)));
        Some(read)
    }

    fn open<'a>(
        &'a self,
        id: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<BoxedStream, Failure>> {
        Box::pin(async move {
            let node: NodeId = id.parse().map_err(|e| Failure::failed(format!("{e}")))?;
            let opened = self.cluster.stream(node, service).await;
            let stream = opened.map_err(|e| match e {
                OpenError::Refused(why) => Failure::failed(why),
                OpenError::Unreachable(_) => {
                    let nodes = self.cluster.nodes();
                    let found = nodes.iter().find(|n| n.id == node);
                    let name = found.map_or_else(|| node.short(), |n| n.member.name.clone());
                    unreachable(format!("node {name}: {e}"))
                }
            })?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn replicate(
        &self,
        records: Vec<Record>,
        wanted: usize,
        patience: Duration,
    ) -> BoxFuture<'static, usize> {
        let cluster = Arc::clone(&self.cluster);
        Box::pin(async move { cluster.replicate(&records, wanted, patience).await })
    }

    fn hide(&self, addresses: BTreeSet<IpAddr>) {
        self.cluster.hide(addresses);
    }

    fn place(&self) -> Option<Place> {
        self.cluster.place()
    }

    fn publish(&self, report: &Report) {
        match serde_json::to_vec(report) {
            Ok(body) => self.cluster.publish(body),
            Err(e) => error!("the report cannot be written: {e}"),
        }
    }
}

fn shown(node: wharfie_cluster::Node) -> Node {
    Node {
        id: node.id.to_string(),
        name: node.member.name,
        me: node.me,
        state: match node.state {
            State::Up => NodeState::Up,
            State::Suspect => NodeState::Suspect,
            State::Down => NodeState::Down,
        },
        since: i64::try_from(node.since).unwrap_or(i64::MAX),
        addresses: node
            .member
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        labels: node.member.labels,
        version: String::new(),
        skew: node.skew,
        drained: false,
        report: None,
    }
}

/// Follows what the others write, for ever.
pub(super) async fn follow(
    cluster: Arc<Cluster>,
    mut events: Receiver<Event>,
    keeper: Arc<Keeper>,
) {
    loop {
        match events.recv().await {
            Ok(Event::Changed(keys)) => renew(&keeper, keys),
            Ok(Event::Lost(lost)) => {
                // Assignments and rollouts are decided anew.
                let decided = |kind: &str| world::DECIDED.contains(&kind);
                for lost in lost.into_iter().filter(|l| !decided(&l.key.kind)) {
                    let own = lost.stamp.node == cluster.me();
                    let text = format!(
                        "an edit of {} {} (revision {}) made {} was overwritten by one of node {} at the same time; `wharfie history {}` has both",
                        lost.key.kind,
                        lost.key.name,
                        lost.revision,
                        if own { "here" } else { "elsewhere" },
                        lost.winner.node.short(),
                        lost.key.name,
                    );
                    warn!("{text}");
                    if own {
                        keeper.note_lost(&lost.key.name, Some(text));
                    }
                }
            }
            Ok(Event::Expelled) => {
                if let Err(e) = keeper.part().await {
                    warn!("{}", e.text());
                }
                keeper.wake_all();
            }
            Ok(Event::Roster) => {
                info!(nodes = cluster.nodes().len(), "the members changed");
                keeper.wake_all();
            }
            Ok(Event::Liveness | Event::Report(_)) => keeper.review_all(),
            Ok(Event::Missed) | Err(RecvError::Lagged(_)) => renew_all(&keeper).await,
            Err(RecvError::Closed) => return,
        }
    }
}

/// Everything may have changed, and what is kept here may be wanted no longer.
async fn renew_all(keeper: &Arc<Keeper>) {
    let kept = keeper.slots().into_iter().map(|slot| slot.name.clone());
    let mut names: BTreeSet<String> = kept.collect();
    match keeper.stored().await {
        Ok(all) => names.extend(all.into_iter().map(|(name, ..)| name)),
        Err(e) => warn!("{}", e.text()),
    }
    if let Err(e) = keeper.reread() {
        warn!("{}", e.text());
    }
    let keys = names.into_iter().map(|name| Key::new(STACK, name));
    renew(keeper, keys.collect());
    keeper.wake_all();
}

/// Takes over what others wrote of some stacks. Somebody may act on one of them for long: the others
/// do not wait for that.
fn renew(keeper: &Arc<Keeper>, keys: Vec<Key>) {
    if keys.iter().any(|k| world::is_of_the_book(&k.kind)) {
        let keeper = Arc::clone(keeper);
        // Those on a network that was changed are made anew.
        let networks = keys
            .iter()
            .any(|k| matches!(k.kind.as_str(), NETWORK | SLICE));
        tokio::task::spawn_blocking(move || {
            if let Err(e) = keeper.reread() {
                warn!("{}", e.text());
            }
            keeper.review_all();
            if networks {
                keeper.wake_all();
            }
        });
    }
    let stacks = keys.iter().filter_map(|key| match key.kind.as_str() {
        STACK => Some(key.name.as_str()),
        ASSIGNMENT | ROLLOUT => Some(world::stack_of(&key.name)),
        _ => None,
    });
    let stacks: BTreeSet<&str> = stacks.collect();
    for name in stacks {
        let (keeper, name) = (Arc::clone(keeper), name.to_owned());
        tokio::spawn(async move {
            if let Err(e) = keeper.renew(&name).await {
                warn!(stack = name, "{}", e.text());
            }
        });
    }
}
