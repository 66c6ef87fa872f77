//! An Engine that is none: it has containers, lists them, and notes what it is asked to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// An Engine that is none.
pub(crate) struct FakeEngine {
    containers: Mutex<Vec<Value>>,
    /// Logs by container: time and line.
    logs: Mutex<BTreeMap<String, Vec<(String, String)>>>,
    events: broadcast::Sender<Value>,
    /// What it was asked to change, such as `POST /containers/a1/stop`.
    asked: Mutex<Vec<String>>,
}

impl FakeEngine {
    /// Listens at a socket in a directory.
    pub(crate) fn begin(dir: &Path) -> (Arc<Self>, PathBuf) {
        let engine = Arc::new(Self {
            containers: Mutex::default(),
            logs: Mutex::default(),
            events: broadcast::channel(64).0,
            asked: Mutex::default(),
        });
        let path = dir.join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let routes = Router::new()
            .route(
                "/_ping",
                get(|| async { ([("api-version", "1.41")], "OK") }),
            )
            .route("/version", get(version))
            .route(
                "/info",
                get(|| async { Json(json!({"NCPU": 4, "MemTotal": 1024})) }),
            )
            .route("/containers/json", get(containers))
            .route("/images/json", get(|| async { Json(json!([])) }))
            .route(
                "/images/{id}/json",
                get(|| async { Json(json!({"Id": "sha256:1"})) }),
            )
            .route("/networks", get(|| async { Json(json!([])) }))
            .route("/volumes", get(|| async { Json(json!({"Volumes": []})) }))
            .route("/events", get(events))
            .route("/containers/{id}/json", get(inspect))
            .route("/containers/{id}/logs", get(logs))
            .route("/containers/{id}/exec", post(exec))
            .route("/exec/{id}/start", post(start_exec))
            .route(
                "/exec/{id}/json",
                get(|| async { Json(json!({"ExitCode": 3})) }),
            )
            .fallback(change);
        let router = Router::new()
            .nest("/v1.41", routes.clone())
            .merge(routes)
            .with_state(Arc::clone(&engine));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (engine, path)
    }

    /// Adds a running container, and tells of it.
    pub(crate) fn run(&self, id: &str, project: &str, service: &str) {
        let labels = match project {
            "" => json!({}),
            _ => json!({
                "com.docker.compose.project": project,
                "com.docker.compose.service": service,
                "com.docker.compose.container-number": "1",
                "com.docker.compose.oneoff": "False",
            }),
        };
        let name = match project {
            "" => service.to_owned(),
            _ => format!("{project}-{service}-1"),
        };
        self.containers.lock().unwrap().push(json!({
            "Id": id, "Names": [format!("/{name}")], "Image": "busybox", "ImageID": "sha256:1",
            "State": "running", "Status": "Up 1 second", "Labels": labels, "Created": 1,
            "NetworkSettings": {"Networks": {"net": {"NetworkID": "n", "IPAddress": "10.0.0.2"}}},
        }));
        let event = json!({"Type": "container", "Action": "start", "Actor": {"ID": id, "Attributes": labels}});
        let _ = self.events.send(event);
    }

    /// Lets a container say something.
    pub(crate) fn say(&self, id: &str, time: &str, line: &str) {
        let mut logs = self.logs.lock().unwrap();
        let of = logs.entry(id.to_owned()).or_default();
        of.push((time.to_owned(), line.to_owned()));
    }

    /// What it was asked to change.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type It = State<Arc<FakeEngine>>;

async fn version() -> Json<Value> {
    Json(json!({"Version": "28.0", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}))
}

async fn containers(
    State(it): It,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Vec<Value>> {
    let filters: Value = query
        .get("filters")
        .and_then(|f| serde_json::from_str(f).ok())
        .unwrap_or_default();
    let label = filters["label"][0].as_str().unwrap_or_default().to_owned();
    let fits = |c: &Value| match label.split_once('=') {
        Some((key, value)) => c["Labels"][key] == value,
        None => label.is_empty() || c["Labels"].get(&label).is_some(),
    };
    let mut list = it.containers.lock().unwrap().clone();
    list.retain(fits);
    Json(list)
}

async fn inspect(State(it): It, UrlPath(id): UrlPath<String>) -> Response {
    let list = it.containers.lock().unwrap();
    match list.iter().find(|c| c["Id"] == id) {
        Some(c) => Json(json!({"Id": c["Id"], "Config": {"Tty": false}})).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            Json(json!({"message": "No such container"})),
        )
            .into_response(),
    }
}

async fn events(State(it): It) -> Body {
    let mut events = it.events.subscribe();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            if tell
                .send(Ok::<_, std::io::Error>(format!("{event}\n")))
                .is_err()
            {
                break;
            }
        }
    });
    Body::from_stream(UnboundedReceiverStream::new(told))
}

async fn logs(State(it): It, UrlPath(id): UrlPath<String>) -> Vec<u8> {
    let logs = it.logs.lock().unwrap();
    let mut bytes = Vec::new();
    for (time, line) in logs.get(&id).into_iter().flatten() {
        let text = format!("{time} {line}\n");
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

async fn exec(State(it): It, UrlPath(id): UrlPath<String>) -> Json<Value> {
    it.asked.lock().unwrap().push(format!("exec in {id}"));
    Json(json!({"Id": "e1"}))
}

/// What comes in goes out in capitals.
async fn start_exec(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    // The body is read before the connection is handed over.
    let mut body = request.into_body().into_data_stream();
    while body.next().await.is_some() {}
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut byte = [0];
        while stream.read(&mut byte).await.unwrap_or(0) == 1 {
            let _ = stream.write_all(&byte.to_ascii_uppercase()).await;
        }
        let _ = stream.shutdown().await;
    });
    let headers = [("connection", "Upgrade"), ("upgrade", "tcp")];
    (
        StatusCode::SWITCHING_PROTOCOLS,
        headers,
        Body::from(Bytes::new()),
    )
        .into_response()
}

async fn change(State(it): It, request: Request) -> StatusCode {
    let what = format!("{} {}", request.method(), request.uri().path());
    it.asked.lock().unwrap().push(what);
    StatusCode::NO_CONTENT
}
