//! Images: given to other nodes, taken from them, and removed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use wharfie_host::layers::{Fetcher, Server, Source, Status};
use wharfie_host::{BoxedStream, Engine, RemovedImages};

use super::fleet::{Fleet, Serving};
use super::http::{AtWork, LARGEST_BODY, Served, refused};
use super::keeper::Keeper;
use super::tunnel::{HANDED_ON, hand_on};
use crate::api::{FetchImage, Fetching, ImagesRemoved, Node, PruneImages, RemoveImage};
use crate::failure::Failure;

/// The service of a node that gives layers.
pub(super) const LAYERS: &str = "layers";
/// Directory of what is not whole yet, in that of the state.
const STAGING: &str = "images";

/// This node's images.
pub(super) struct Images {
    keeper: Arc<Keeper>,
    /// For the Engine as it was found last: a newer one may speak another API.
    made: Mutex<Option<Made>>,
    /// Versions of images that were taken in place of others, by name.
    taken: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone)]
struct Made {
    engine: Engine,
    server: Server,
    fetcher: Fetcher,
}

impl Images {
    pub(super) fn new(keeper: Arc<Keeper>) -> Self {
        Self {
            keeper,
            made: Mutex::default(),
            taken: Mutex::default(),
        }
    }

    /// What gives and takes images, as long as the Engine is there.
    fn made(&self) -> Result<Made, Failure> {
        let engine = self.keeper.engine().map_err(Failure::from)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |m: &&Made| m.engine.address() == engine.address() && m.engine.api() == engine.api();
        if let Some(made) = made.as_ref().filter(same) {
            return Ok(made.clone());
        }
        let staging = self.keeper.state_dir().join(STAGING);
        let new = Made {
            server: Server::new(engine.clone()),
            fetcher: Fetcher::new(engine.clone(), &staging),
            engine,
        };
        Ok(made.insert(new).clone())
    }
}

impl Images {
    /// Takes an image from nodes that say they have it, or a version of it that has an id; false if none
    /// does.
    ///
    /// # Errors
    /// It cannot be taken, or the Engine is away.
    pub(super) async fn take(&self, image: &str, id: Option<&str>) -> Result<bool, Failure> {
        let made = self.made()?;
        let fleet = &self.keeper.fleet;
        let wanted = FetchImage {
            image: image.to_owned(),
            from: owners(fleet, image, id),
        };
        if wanted.from.is_empty() {
            return Ok(false);
        }
        let sources = sources(fleet, &wanted)?;
        made.fetcher.fetch(image, sources, &mut |_| {}).await?;
        if let Some(id) = id {
            // Engines of different kinds have different ids for the same: it is not taken again.
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.insert(image.to_owned(), id.to_owned());
        }
        Ok(true)
    }

    /// Whether this version of an image was not taken yet.
    pub(super) fn is_news(&self, image: &str, id: Option<&str>) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.get(image).map(String::as_str) != id
    }
}

/// Ids of other nodes that say they have an image, or a version of it that has an id.
fn owners(fleet: &Fleet, image: &str, id: Option<&str>) -> Vec<String> {
    let nodes = fleet.members().into_iter();
    let others = nodes.filter(|n| !n.me && n.may_answer());
    let having = others.filter(|n| {
        let report = fleet.report_of(n);
        let found = report.as_ref().and_then(|r| r.image(image));
        found.is_some_and(|found| id.is_none_or(|id| found.id == id))
    });
    having.map(|n| n.id).collect()
}

/// Offers this node's images to the others.
pub(super) fn offer(fleet: &Fleet, images: Arc<Images>) {
    fleet.offer(LAYERS, move || {
        let made = images.made();
        Box::pin(async move {
            let server = made?.server;
            let serving: Serving = Box::new(|peer| {
                Box::pin(async move {
                    if let Err(e) = server.serve(peer).await {
                        tracing::debug!("a peer's request for an image ended: {e}");
                    }
                })
            });
            Ok(serving)
        })
    });
}

/// Another node, as a source of images.
struct Other {
    fleet: Arc<Fleet>,
    node: Node,
}

impl Source for Other {
    fn name(&self) -> &str {
        &self.node.name
    }

    fn open(&self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        Box::pin(async {
            let opened = self.fleet.open(&self.node, LAYERS).await;
            // Whoever tells of it names the node as well.
            let name = format!("node {}: ", self.node.name);
            opened.map_err(|failure| {
                let text = failure.text();
                io::Error::other(text.strip_prefix(&name).unwrap_or(&text).to_owned())
            })
        })
    }
}

/// The nodes that an image is taken from: those that are named, or those that say they have it. A
/// report may be a moment old: where nobody says so, all are asked.
fn sources(fleet: &Arc<Fleet>, wanted: &FetchImage) -> Result<Vec<Arc<dyn Source>>, Failure> {
    let nodes = fleet.nodes();
    let chosen = if wanted.from.is_empty() {
        let others = nodes.into_iter().filter(|n| !n.me && n.may_answer());
        let has = |node: &Node| {
            let report = node.report.as_ref();
            report.is_some_and(|r| r.image(&wanted.image).is_some())
        };
        let (having, not): (Vec<Node>, Vec<Node>) = others.partition(has);
        if having.is_empty() { not } else { having }
    } else {
        let named = wanted.from.iter().map(|name| fleet.find(name));
        let named = named.collect::<Result<Vec<Node>, Failure>>()?;
        named.into_iter().filter(|n| !n.me).collect()
    };
    let source = |node| {
        let fleet = Arc::clone(fleet);
        Arc::new(Other { fleet, node }) as Arc<dyn Source>
    };
    Ok(chosen.into_iter().map(source).collect())
}

/// Which node is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    on: Option<String>,
}

/// What is asked of this node; if it is asked of another, that one's answer.
pub(super) async fn mine<T: DeserializeOwned>(
    served: &Served,
    which: Which,
    request: Request,
) -> Result<T, Response> {
    if let Some(on) = which.on
        && !request.headers().contains_key(HANDED_ON)
    {
        let fleet = served.fleet();
        let node = fleet.find(&on);
        let node = node.map_err(|failure| refused(StatusCode::NOT_FOUND, failure))?;
        if !node.me {
            let at_work = AtWork::new(&served.agent.at_work);
            let answer = hand_on(fleet, &node, request).await;
            let answer = answer.map_err(|failure| refused(StatusCode::BAD_GATEWAY, failure))?;
            let (parts, body) = answer.into_parts();
            let pieces = body.into_data_stream().map(move |piece| {
                let _at_work = &at_work;
                piece
            });
            return Err(Response::from_parts(parts, Body::from_stream(pieces)));
        }
    }
    let body = axum::body::to_bytes(request.into_body(), LARGEST_BODY).await;
    let body = body.map_err(|e| {
        let failure = Failure::usage(format!("the request cannot be read: {e}"));
        refused(StatusCode::PAYLOAD_TOO_LARGE, failure)
    })?;
    serde_json::from_slice(&body).map_err(|e| {
        let failure = Failure::usage(format!("the request cannot be understood: {e}"))
            .help("`wharfie version` shows both versions: they should be the same");
        refused(StatusCode::BAD_REQUEST, failure)
    })
}

/// Ends a task when it is dropped.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes an image from other nodes. The answer is one [`Fetching`] a line; if whoever asked goes
/// away, the transfer ends, and the next one goes on with what came.
pub(super) async fn fetch(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: FetchImage = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let (tell, told) = unbounded_channel();
    let at_work = AtWork::new(&served.agent.at_work);
    let task = tokio::spawn(async move {
        let _at_work = at_work;
        let last = match take(&served, &wanted, &tell).await {
            Ok(last) => last,
            Err(failure) => Fetching::Failed {
                fault: failure.into(),
            },
        };
        // Whoever asked may be gone.
        let _ = tell.send(last);
    });
    let ends = Ends(task.abort_handle());
    let lines = UnboundedReceiverStream::new(told).map(move |message| {
        let _ends = &ends;
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

async fn take(
    served: &Served,
    wanted: &FetchImage,
    tell: &UnboundedSender<Fetching>,
) -> Result<Fetching, Failure> {
    let made = served.agent.images.made()?;
    let sources = sources(served.fleet(), wanted)?;
    let mut noted = 0;
    let mut progress = |status: &Status| {
        for note in status.notes.iter().skip(noted) {
            let _ = tell.send(Fetching::Note { text: note.clone() });
        }
        noted = status.notes.len();
        let _ = tell.send(Fetching::At {
            text: status.to_string(),
            done: status.done(),
            total: status.total(),
            layers: status.layers.iter().map(ToString::to_string).collect(),
        });
    };
    let fetched = made.fetcher.fetch(&wanted.image, sources, &mut progress);
    let fetched = fetched.await?;
    Ok(Fetching::Done {
        id: fetched.id,
        from: fetched.from,
    })
}

/// Removes an image.
pub(super) async fn remove(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: RemoveImage = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let work = async {
        let engine = served.agent.images.made()?.engine;
        Ok(engine.remove_image(&wanted.image, wanted.force).await?)
    };
    answer(work.await)
}

/// Removes images that no container uses.
pub(super) async fn prune(
    State(served): State<Served>,
    Query(which): Query<Which>,
    request: Request,
) -> Response {
    let wanted: PruneImages = match mine(&served, which, request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let work = async {
        let engine = served.agent.images.made()?.engine;
        Ok(engine.remove_unused_images(wanted.named).await?)
    };
    answer(work.await)
}

fn answer(removed: Result<RemovedImages, Failure>) -> Response {
    match removed {
        Ok(removed) => Json(ImagesRemoved {
            untagged: removed.untagged,
            deleted: removed.deleted,
            freed: removed.freed,
        })
        .into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}
