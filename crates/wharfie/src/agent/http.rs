//! The agent's API: HTTP over a socket that only the permitted may use.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::{UnixListener, UnixStream};

use super::fleet::{self, Fleet};
use super::keeper::Keeper;
use super::{Agent, home, images, nodes, rollouts, spread, tunnel};
use crate::api::{Fault, Info, Node};
use crate::failure::Failure;

/// The largest body of a request, in bytes: a project with everything in it.
pub(super) const LARGEST_BODY: usize = 16 << 20;

/// Makes the socket, with its directory if need be. A socket that nobody listens at is replaced.
pub(super) async fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, Failure> {
    let failed = |what: &str, e: std::io::Error| {
        Failure::failed(format!("cannot {what} {}: {e}", path.display()))
            .help("choose another place with --socket, or run as root")
    };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir);
        made.map_err(|e| failed("make the directory of", e))?;
    }
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(
                Failure::failed(format!("another agent listens at {}", path.display()))
                    .help("stop that one, or choose another place with --socket"),
            );
        }
        std::fs::remove_file(path).map_err(|e| failed("replace", e))?;
    }
    let listener = UnixListener::bind(path).map_err(|e| failed("listen at", e))?;
    let set = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660));
    set.map_err(|e| failed("set the permissions of", e))?;
    set_group(path, group)?;
    Ok(listener)
}

/// Gives the socket to a group; to root's if none is named and it may be.
pub(super) fn set_group(path: &Path, group: Option<&str>) -> Result<(), Failure> {
    let Some(group) = group else { return Ok(()) };
    let id = group_id(group)?;
    std::os::unix::fs::chown(path, None, Some(id)).map_err(|e| {
        Failure::failed(format!(
            "cannot give {} to group {group}: {e}",
            path.display()
        ))
    })
}

/// The number of a group, as `/etc/group` has it.
fn group_id(group: &str) -> Result<u32, Failure> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let file = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let line = file.lines().find(|l| l.split(':').next() == Some(group));
    let id = line.and_then(|l| l.split(':').nth(2)?.parse().ok());
    id.ok_or_else(|| {
        Failure::usage(format!("socket-group: there is no group {group:?}"))
            .help("`groupadd` makes one")
    })
}

/// What the handlers work with.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) agent: Arc<Agent>,
}

impl Served {
    pub(super) fn keeper(&self) -> &Arc<Keeper> {
        &self.agent.keeper
    }

    pub(super) fn fleet(&self) -> &Arc<Fleet> {
        &self.agent.keeper.fleet
    }
}

/// The routes.
pub(super) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/reload", post(reload))
        .route("/v1/stop", post(stop))
        .route("/v1/nodes", get(all_nodes))
        .route("/v1/nodes/{node}/drain", post(nodes::drain))
        .route("/v1/nodes/{node}/{service}", get(way))
        .route("/v1/rebalance", post(nodes::rebalance))
        .route("/v1/stacks/{name}/placement", post(nodes::explain))
        .route("/v1/images/fetch", post(images::fetch))
        .route("/v1/images/remove", post(images::remove))
        .route("/v1/images/prune", post(images::prune))
        .route("/v1/lost", get(lost))
        .route("/v1/stacks", get(home::stacks))
        .route("/v1/stacks/{name}", get(home::stack).post(home::act))
        .route("/v1/stacks/{name}/history", get(home::history))
        .route("/v1/stacks/{name}/share", post(spread::share))
        .route(
            "/v1/stacks/{name}/rollout",
            get(rollouts::status).post(rollouts::change),
        )
        .merge(super::templates::routes())
        .merge(super::volumes::routes())
        .merge(super::networks::api())
        .merge(super::director::dns_api())
        .merge(super::director::api())
        .merge(super::members::routes())
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Served { agent })
}

async fn info(State(served): State<Served>) -> Json<Info> {
    let keeper = served.keeper();
    let away = keeper.engine().err().map(|f| f.what);
    Json(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        engine: served.agent.engine_address(),
        engine_away: away,
        state_dir: keeper.state_dir().display().to_string(),
        background: served.agent.start.background,
        nodes: served.fleet().count(),
    })
}

/// Edits made here that others overwrote unknowingly.
async fn lost(State(served): State<Served>) -> Json<Vec<String>> {
    Json(served.keeper().lost())
}

async fn reload(State(served): State<Served>) -> Response {
    match served.agent.reload().await {
        Ok(changed) => Json(changed).into_response(),
        Err(failure) => refused(StatusCode::BAD_REQUEST, failure),
    }
}

async fn stop(State(served): State<Served>) -> StatusCode {
    served.agent.end.notify_one();
    StatusCode::ACCEPTED
}

async fn all_nodes(State(served): State<Served>) -> Json<Vec<Node>> {
    let mut nodes = served.fleet().nodes();
    for node in &mut nodes {
        node.drained = served.keeper().book.is_drained(&node.id);
    }
    Json(nodes)
}

/// Leads a client to a service of a node.
async fn way(
    State(served): State<Served>,
    UrlPath((name, service)): UrlPath<(String, String)>,
    request: Request,
) -> Response {
    let node = match served.fleet().find(&name) {
        Ok(node) => node,
        Err(failure) => return refused(StatusCode::NOT_FOUND, failure),
    };
    if !matches!(service.as_str(), fleet::ENGINE | fleet::AGENT) {
        let failure = Failure::usage(format!("a node has no {service:?} to connect to"));
        return refused(StatusCode::NOT_FOUND, failure);
    }
    let at_work = AtWork::new(&served.agent.at_work);
    tunnel::upgrade(served.fleet(), &node, &service, request, at_work).await
}

/// Counts requests that are at work, so that the agent does not end among them.
pub(super) struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An answer that says what went wrong.
pub(super) fn refused(status: StatusCode, failure: Failure) -> Response {
    (status, Json(Fault::from(failure))).into_response()
}
