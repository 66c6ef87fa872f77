//! Local volumes: which node has them, and how they go to another one.
//!
//! A volume is where its *tie* says, an object that all nodes have. A move writes it as its last
//! step, on the node that gives the volume: until then that node runs what it ran, whoever dies;
//! from then on it does not, whoever hears of it when. [`give`] is that node's part, [`take`] the
//! other's.

mod give;
mod plan;
mod say;
mod take;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use wharfie_cluster::{Key, Record};
use wharfie_compose::model::Project;
use wharfie_core::Intent;

use super::fleet::{Fleet, Serving};
use super::http::{AtWork, Served, refused};
use super::images::{Which, mine};
use super::keeper::{Keeper, with_replica};
use super::spread;
use super::world::{VOLUME, VolumePlace};
use crate::api::{MoveVolumes, Moving, RemoveVolume, TiedVolume};
use crate::failure::Failure;

/// The service of a node that takes volumes.
const SERVICE: &str = "volume";
/// Begin of the keys of moves that this node has begun to give for, with [`Stopped`].
const GIVING: &str = "volume-out/";
/// Begin of the keys of volumes that this node takes: [`PART`] or [`WHOLE`].
const TAKING: &str = "volume-in/";
/// Not all of it is there: it is of no use to anybody.
const PART: &[u8] = b"part";
/// All of it is there, and whoever gives it decides.
const WHOLE: &[u8] = b"whole";

/// What was stopped for a move, and must run again if that is not brought to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stopped {
    /// Names of the volumes.
    volumes: Vec<String>,
    /// Ids of the containers.
    containers: Vec<String>,
}

/// Moves of volumes that this node has a part in.
pub(super) struct Volumes {
    keeper: Arc<Keeper>,
    busy: Mutex<BTreeSet<String>>,
}

impl Volumes {
    pub(super) fn new(keeper: Arc<Keeper>) -> Arc<Self> {
        Arc::new(Self {
            keeper,
            busy: Mutex::default(),
        })
    }

    /// Has a volume for oneself, if nobody else has it.
    fn claim(self: &Arc<Self>, name: &str) -> Result<Claim, Failure> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.insert(name.to_owned()) {
            true => Ok(Claim(Arc::clone(self), name.to_owned())),
            false => Err(Failure::failed(format!(
                "volume {name} is just being moved from or to node {}",
                self.keeper.fleet.me().name
            ))),
        }
    }

    /// Writes down how far a move is, or that there is none.
    async fn note(&self, key: String, value: Option<Vec<u8>>) -> Result<(), Failure> {
        with_replica(&self.keeper.replica, move |r| {
            r.store().set_local(&key, value.as_deref())
        })
        .await
    }
}

/// A volume that nobody else moves as long as this lives.
struct Claim(Arc<Volumes>, String);

impl Drop for Claim {
    fn drop(&mut self) {
        let mut busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.1);
    }
}

/// Offers to take volumes, once what a former agent left is put in order.
pub(super) fn offer(fleet: &Fleet, volumes: &Arc<Volumes>) {
    tokio::spawn(recover(Arc::clone(volumes)));
    let volumes = Arc::clone(volumes);
    fleet.offer(SERVICE, move || {
        let volumes = Arc::clone(&volumes);
        let serving: Serving = Box::new(|peer| Box::pin(take::serve(volumes, peer)));
        Box::pin(async { Ok(serving) })
    });
}

/// An agent that died in the middle of moves leaves stopped containers and half a volume.
async fn recover(volumes: Arc<Volumes>) {
    let keeper = &volumes.keeper;
    let left = with_replica(&keeper.replica, |r| {
        let (given, taken) = (r.store().locals(GIVING)?, r.store().locals(TAKING)?);
        Ok((given, taken))
    });
    let (given, taken) = match left.await {
        Ok(left) => left,
        Err(e) => return warn!("{}", e.text()),
    };
    if given.is_empty() && taken.is_empty() {
        return;
    }
    let mut engine = keeper.engine.subscribe();
    let Ok(found) = engine.wait_for(Result::is_ok).await.map(|e| e.clone()) else {
        return;
    };
    let Ok(engine) = found else { return };
    for (key, bytes) in given {
        let stopped: Stopped = serde_json::from_slice(&bytes).unwrap_or_default();
        info!(volumes = ?stopped.volumes, "a move was not brought to its end");
        give::again(keeper, &engine, &stopped).await;
        if let Err(e) = volumes.note(format!("{GIVING}{key}"), None).await {
            warn!("{}", e.text());
        }
    }
    for (name, how_far) in taken {
        let Ok(_claim) = volumes.claim(&name) else {
            continue;
        };
        if let Err(e) = take::tidy(&volumes, &engine, &name, &how_far).await {
            warn!(volume = name, "{}", e.text());
        }
    }
}

impl Keeper {
    /// Id of the node that a volume is tied to.
    fn tied_to(&self, volume: &str) -> Option<String> {
        self.book.volumes().get(volume).map(|v| v.node.clone())
    }

    /// Writes where volumes are, or that it is known no longer.
    async fn tie(
        &self,
        ties: Vec<(String, Option<VolumePlace>)>,
        note: &'static str,
    ) -> Result<Vec<Record>, Failure> {
        if ties.is_empty() {
            return Ok(Vec::new());
        }
        let puts = ties.into_iter().map(|(name, place)| {
            let value = place.and_then(|p| serde_json::to_value(p).ok());
            (Key::new(VOLUME, name), value)
        });
        let records = self.put_all(puts.collect(), note).await?;
        self.reread()?;
        self.review_all();
        Ok(records)
    }

    /// Forgets where volumes are.
    async fn untie(&self, names: Vec<String>, note: &'static str) -> Result<(), Failure> {
        let known = self.book.volumes();
        let names = names.into_iter().filter(|n| known.contains_key(n));
        let records = self.tie(names.map(|n| (n, None)).collect(), note).await?;
        self.fleet.tell(records);
        Ok(())
    }

    /// Forgets where a stack's volumes are, once a `down -v` has removed them.
    pub(super) async fn forget_volumes(&self, intent: &Intent, project: Option<&Project>) {
        let (Intent::Down { options, .. }, Some(project)) = (intent, project) else {
            return;
        };
        if !options.volumes || !options.services.is_empty() {
            return;
        }
        let own = project.volumes.values().filter(|v| !v.external);
        let names = own.map(|v| v.name.clone()).collect();
        if let Err(e) = self.untie(names, "down").await {
            warn!(stack = project.name, "{}", e.text());
        }
    }
}

/// The routes.
pub(super) fn routes() -> Router<Served> {
    Router::new()
        .route("/v1/volumes", get(list))
        .route("/v1/volumes/move", post(go))
        .route("/v1/volumes/remove", post(remove))
        .route("/v1/volumes/forget", post(forget))
}

/// Local volumes of which all nodes know where they are.
async fn list(State(served): State<Served>) -> Json<Vec<TiedVolume>> {
    let known = served.keeper().book.volumes();
    let each = known.iter().map(|(name, place)| TiedVolume {
        name: name.clone(),
        node: place.node.clone(),
        stack: place.stack.clone(),
    });
    Json(each.collect())
}

/// Moves volumes of this node to another. The answer is one [`Moving`] a line; if whoever asked goes
/// away before all is there, they stay.
async fn go(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: MoveVolumes = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let at_work = AtWork::new(&served.agent.at_work);
    let volumes = Arc::clone(&served.agent.volumes);
    spread::lines(|tell, cancelled| async move {
        let last = match give::give(&volumes, &wanted, &tell, cancelled).await {
            Ok(()) => Moving::Done,
            Err(failure) => Moving::Failed {
                fault: failure.into(),
            },
        };
        // Whoever asked may be gone.
        let _ = tell.send(last);
        drop(at_work);
    })
}

/// Removes a volume that no container has, and forgets that it is here.
async fn remove(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: RemoveVolume = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let keeper = served.keeper();
    let work = async {
        let _claim = served.agent.volumes.claim(&wanted.name)?;
        let engine = keeper.engine().map_err(Failure::from)?;
        let users = engine.volume_users(&wanted.name).await?;
        if let Some(user) = users.first() {
            return Err(Failure::failed(format!(
                "container {} has volume {}",
                user.name, wanted.name
            ))
            .help("`wharfie down`, or remove the container, first"));
        }
        if !engine.remove_volume(&wanted.name).await? {
            return Err(Failure::failed(format!(
                "there is no volume {} on node {}",
                wanted.name,
                keeper.fleet.me().name
            )));
        }
        if keeper.tied_to(&wanted.name) == Some(keeper.fleet.id()) {
            keeper.untie(vec![wanted.name], "volume rm").await?;
        }
        Ok(())
    };
    answer(work.await)
}

/// Forgets where a volume is: its node does not come back.
async fn forget(State(served): State<Served>, Json(wanted): Json<RemoveVolume>) -> Response {
    let keeper = served.keeper();
    if keeper.tied_to(&wanted.name).is_none() {
        let failure = Failure::failed(format!("no node is known to have volume {}", wanted.name));
        return refused(StatusCode::NOT_FOUND, failure);
    }
    answer(keeper.untie(vec![wanted.name], "volume rm").await)
}

fn answer(done: Result<(), Failure>) -> Response {
    match done {
        Ok(()) => Json(()).into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}
