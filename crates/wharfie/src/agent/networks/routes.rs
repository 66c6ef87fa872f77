//! Networks in the agent's API: `/v1/networks`.

use std::collections::BTreeSet;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wharfie_core::report::ReportedContainer;
use wharfie_host::LocalNetwork;

use super::explain::finish;
use super::plane::{asked, resolvers};
use super::walls::walls;
use crate::agent::fleet::AGENT;
use crate::agent::http::{AtWork, LARGEST_BODY, Served, refused};
use crate::agent::images::{Which, mine};
use crate::agent::keeper::Keeper;
use crate::agent::spread;
use crate::agent::tunnel::hand_on;
use crate::api::{Fault, Node};
use crate::api_network::{
    AskDrops, CreateNetwork, DroppedPacket, Listeners, Listening, NetworkInfo, PruneNetworks,
    RemoveNetwork, Swept, TraceNetwork,
};
use crate::failure::Failure;
use crate::sweep::{Broom, sweep};

/// The routes.
pub(in crate::agent) fn routes() -> Router<Served> {
    Router::new()
        .route("/v1/networks", get(list).post(create))
        .route("/v1/networks/remove", post(remove))
        .route("/v1/networks/drop", post(drop_here))
        .route("/v1/networks/trace", post(trace))
        .route("/v1/networks/listeners", post(listeners))
        .route("/v1/networks/prune", post(prune))
        .route("/v1/networks/drops", post(drops))
        .route("/v1/networks/drops/follow", post(follow))
}

fn answer<T: Serialize>(done: Result<T, Failure>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}

async fn list(State(served): State<Served>) -> Json<Vec<NetworkInfo>> {
    Json(served.keeper().network_infos())
}

async fn create(State(served): State<Served>, Json(wanted): Json<CreateNetwork>) -> Response {
    answer(served.keeper().create_network(wanted).await)
}

/// Asks the agent of another node.
async fn ask<T: DeserializeOwned>(
    served: &Served,
    node: &Node,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).map_err(|e| Failure::failed(e.to_string()))?;
    let request = axum::http::Request::post(path)
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body))
        .map_err(|e| Failure::failed(e.to_string()))?;
    let answer = hand_on(served.fleet(), node, request).await?;
    let good = answer.status().is_success();
    let bytes = axum::body::to_bytes(answer.into_body(), LARGEST_BODY).await;
    let bytes = bytes.map_err(|e| Failure::failed(e.to_string()))?;
    let odd = |_| {
        Failure::failed(format!(
            "the {AGENT} of node {} gives no proper answer",
            node.name
        ))
        .help("nodes of one cluster should have one version of wharfie")
    };
    match good {
        true => serde_json::from_slice(&bytes).map_err(odd),
        false => Err(serde_json::from_slice::<Fault>(&bytes).map_or_else(odd, Failure::from)),
    }
}

async fn remove(State(served): State<Served>, Json(wanted): Json<RemoveNetwork>) -> Response {
    let keeper = served.keeper();
    let on_node = |node: Node| {
        let (served, wanted) = (&served, &wanted);
        async move {
            match node.me {
                true => served.keeper().drop_network(&wanted.name).await,
                false => ask(served, &node, "/v1/networks/drop", wanted).await,
            }
        }
    };
    answer(keeper.remove_network(&wanted.name, on_node).await)
}

/// What the Engine here has of a network.
async fn drop_here(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: RemoveNetwork = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let keeper = served.keeper();
    if let Err(failure) = keeper.may_remove_network(&wanted.name) {
        return refused(StatusCode::CONFLICT, failure);
    }
    answer(keeper.drop_network(&wanted.name).await)
}

async fn trace(State(served): State<Served>, Json(wanted): Json<TraceNetwork>) -> Response {
    let keeper = served.keeper();
    let way = match keeper.trace(&wanted).await {
        Ok(way) => way,
        Err(failure) => return refused(StatusCode::BAD_REQUEST, failure),
    };
    let asked = way.target.as_ref().filter(|_| way.arrives());
    let asked = asked.zip(wanted.port).map(|(target, port)| {
        let question = Listeners {
            container: target.container.clone(),
            protocol: wanted.protocol.clone(),
            port,
            address: target.address,
        };
        (target.node.clone(), question)
    });
    let listening = match asked {
        None => None,
        Some((node, question)) => match served.fleet().by_id(&node) {
            Some(node) if node.me => Some(keeper.listening(&question).await),
            Some(node) => Some(ask(&served, &node, "/v1/networks/listeners", &question).await),
            None => None,
        },
    };
    // It decides only where it is seen.
    let listening = listening.map(|seen: Result<Listening, Failure>| {
        seen.unwrap_or_else(|failure| Listening {
            yes: true,
            why: format!("whether somebody listens is not seen: {}", failure.text()),
        })
    });
    Json(finish(way, &wanted, listening)).into_response()
}

async fn listeners(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: Listeners = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    answer(served.keeper().listening(&wanted).await)
}

async fn prune(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: PruneNetworks = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    answer(served.keeper().prune_networks(wanted.dry_run).await)
}

impl Keeper {
    /// Takes away what of networks is wanted no longer on this node. Devices and rules of networks that
    /// there are the plane looks after itself.
    async fn prune_networks(&self, dry_run: bool) -> Result<Swept, Failure> {
        let engine = self.engine().map_err(Failure::from)?;
        let book = self.book.networks();
        let scene = self.scene();
        let known = asked(&resolvers(&scene));
        let walls = scene.with(|world| walls(world, &known));
        let of_stacks: BTreeSet<String> = self
            .book
            .stacks()
            .values()
            .flat_map(|e| e.stack.project.networks.values().map(|n| n.name.clone()))
            .collect();
        let wanted = |network: &LocalNetwork| {
            book.networks.contains_key(&network.name) || of_stacks.contains(&network.name)
        };
        let held = scene
            .director
            .addresses
            .values()
            .any(|a| a.node == scene.me);
        let served = |c: &ReportedContainer| {
            let on = |name: &String| book.networks.contains_key(name);
            let of = (c.project.clone(), c.service.clone());
            held || c.attachments.keys().any(on) || walls.contains_key(&of)
        };
        let broom = Broom {
            wanted: &wanted,
            served: &served,
            host: !self.has_networks(),
            dry_run,
        };
        let swept = sweep(Some(&engine), &broom).await;
        self.wake_planes();
        swept
    }
}

async fn drops(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: AskDrops = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    answer(served.keeper().rule_hits(&wanted).await)
}

/// Each packet that is dropped here, until whoever asks goes away.
async fn follow(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: AskDrops = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let mut heard = served.keeper().logged.follow();
    let at_work = AtWork::new(&served.agent.at_work);
    let keeper = std::sync::Arc::clone(served.keeper());
    spread::lines(|tell, mut cancelled| async move {
        drop(at_work);
        loop {
            let packet: DroppedPacket = tokio::select! {
                next = heard.recv() => match next {
                    Ok(packet) => packet,
                    // What was missed is counted all the same.
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                _ = cancelled.wait_for(|c| *c) => return,
            };
            if keeper.is_asked_for(&wanted.of, &packet.container) && tell.send(packet).is_err() {
                return;
            }
        }
    })
}

impl Keeper {
    /// Whether somebody asks for the container with a name.
    fn is_asked_for(&self, of: &[String], container: &str) -> bool {
        let scene = self.scene();
        let mut here = scene.here().into_iter().flat_map(|n| &n.containers);
        let found = here.find(|c| c.name == container);
        of.is_empty() || found.is_some_and(|c| super::drops::is_meant(of, c))
    }
}
