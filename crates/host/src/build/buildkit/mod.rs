//! Building images with the Engine's own BuildKit.
//!
//! Two connections are taken over: on one we call BuildKit (`POST /grpc`: `Control.Solve` builds,
//! `Control.Status` tells how it goes), on the other BuildKit calls us for what the build needs
//! (`POST /session`). `POST /build` would do for plain builds, but knows no named contexts, no
//! cache exports and no entitlements.

mod attributes;
mod filesync;
mod given;
mod grpc;
mod output;
mod session;
mod wire;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wharfie_compose::model::Build;

use super::context::{self, Context};
use super::options::{self, is_remote};
use super::{BuildError, BuildRequest};
use crate::Engine;
use filesync::Source;
use grpc::{Client, Fault};
use output::Output;
use session::Session;
use wire::{Message, fields};

pub(super) use attributes::unsupported;

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const STATUS: &str = "/moby.buildkit.v1.Control/Status";
const WORKERS: &str = "/moby.buildkit.v1.Control/ListWorkers";
/// How long the last words of a build that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

type Lines<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Builds; the images of services that it names as contexts are built before.
pub(super) fn build<'a>(
    engine: &'a Engine,
    request: &'a BuildRequest<'a>,
    build: &'a Build,
    above: &'a [&'a str],
    lines: Lines<'a>,
) -> Pin<Box<dyn Future<Output = Result<String, BuildError>> + Send + 'a>> {
    Box::pin(async move {
        let name = request.service.name.as_str();
        let above: Vec<&str> = above.iter().copied().chain([name]).collect();
        for value in build.additional_contexts.values() {
            let Some(other) = value.strip_prefix("service:") else {
                continue;
            };
            let service = request.project.any_service(other);
            let Some((service, inner)) = service.and_then(|s| Some((s, s.build.as_ref()?))) else {
                continue;
            };
            if above.contains(&other) {
                return Err(BuildError::Refused(format!(
                    "the builds of {} need each other through `additional_contexts`",
                    above.join(", ")
                )));
            }
            let needed = BuildRequest {
                project: request.project,
                service,
                image: wharfie_core::names::image(request.project, service),
                flags: request.flags.clone(),
            };
            self::build(engine, &needed, inner, &above, &mut *lines).await?;
        }
        one(engine, request, build, lines).await
    })
}

async fn one(
    engine: &Engine,
    request: &BuildRequest<'_>,
    build: &Build,
    lines: Lines<'_>,
) -> Result<String, BuildError> {
    if attributes::needs_store(request, build) && !stores_several(engine).await? {
        return Err(BuildError::Unsupported(attributes::without_store(
            request, build,
        )));
    }
    let api = engine.api();
    let mut session = Session {
        secrets: given::secrets(request, build).await?,
        agents: given::agents(request, build)?,
        ..Session::default()
    };
    let (mut attrs, syntax) = sources(request, build, &mut session.sources).await?;

    let refused = |fault: Fault| BuildError::Refused(fault.message);
    let id = random_id()?;
    let mut headers = vec![
        ("X-Docker-Expose-Session-Uuid", id.clone()),
        ("X-Docker-Expose-Session-Name", "wharfie".to_owned()),
        // The same for the same directory: only what has changed in it is sent.
        (
            "X-Docker-Expose-Session-Sharedkey",
            shared_key(request, build),
        ),
    ];
    let methods = session::METHODS.iter();
    headers.extend(methods.map(|m| ("X-Docker-Expose-Session-Grpc-Method", (*m).to_owned())));
    let calls_to_us = grpc::upgrade(engine, &format!("/v{api}/session"), &headers).await;
    let serving = grpc::serve(calls_to_us.map_err(refused)?, Arc::new(session));
    let our_calls = grpc::upgrade(engine, &format!("/v{api}/grpc"), &[]).await;
    let (client, connection) = Client::new(our_calls.map_err(refused)?)
        .await
        .map_err(refused)?;
    // Both end with this future: BuildKit gives up a build whose session is gone.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(serving.await) });
    tasks.spawn(connection);

    let gateway = if attributes::needs_gateway(build) {
        gateway_address(&client).await.map_err(refused)?
    } else {
        None
    };
    attrs.extend(attributes::frontend(request, build, gateway.as_deref())?);
    let solve = attributes::solve(request, build, &id, &attrs);
    let mut output = Output::default();
    let answer = {
        let asking = client.ask(SOLVE, &solve);
        let telling = tell(&client, &id, &mut output, lines);
        tokio::pin!(asking, telling);
        tokio::select! {
            answer = &mut asking => {
                // What was said last is on its way; a build refused at once says nothing.
                let _ = tokio::time::timeout(LAST_WORDS, telling).await;
                answer
            }
            () = &mut telling => asking.await,
        }
    };
    match answer {
        Ok(answer) => image_id(&answer).ok_or_else(|| BuildError::NoImage {
            image: request.image.clone(),
        }),
        Err(fault) => Err(explain(fault, &output, syntax.as_deref())),
    }
}

/// Hands on what BuildKit tells of a build, until there is no more.
async fn tell(client: &Client, id: &str, output: &mut Output, lines: Lines<'_>) {
    let question = Message::default().text(1, id).done();
    let Ok(mut told) = client.call(STATUS, &question).await else {
        return;
    };
    while let Ok(Some(status)) = told.next().await {
        output.take(&status, lines);
    }
}

/// What the build reads, by name; the attributes that name it; and the Dockerfile's `# syntax=`.
async fn sources(
    request: &BuildRequest<'_>,
    build: &Build,
    sources: &mut HashMap<String, Source>,
) -> Result<(BTreeMap<String, String>, Option<String>), BuildError> {
    let project = request.project;
    let mut attrs = BTreeMap::new();
    let remote = is_remote(&build.context);
    let mut syntax = None;
    let local_file =
        !build.dockerfile_inline.is_empty() || Path::new(&build.dockerfile).is_absolute();
    if remote {
        attrs.insert("context".to_owned(), build.context.clone());
        if local_file {
            attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        } else if !build.dockerfile.is_empty() {
            attrs.insert("filename".to_owned(), build.dockerfile.clone());
        }
    }
    if !remote || local_file {
        let dir = if remote {
            project.working_dir.clone()
        } else {
            project.working_dir.join(&build.context)
        };
        let (file, inline) = (build.dockerfile.clone(), build.dockerfile_inline.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let root = match remote {
                true => dir,
                // Faults of the context and of the ignore file are told before anything is sent.
                false => Context::open(&dir, &file, &inline)?.root,
            };
            let files = context::dockerfile(&root, &file, &inline)?;
            Ok::<_, BuildError>((root, files))
        });
        let opened = opened
            .await
            .map_err(|e| BuildError::Refused(e.to_string()))?;
        let (root, files) = opened?;
        if let Some((name, text)) = files.first() {
            attrs.insert("filename".to_owned(), name.clone());
            syntax = syntax_of(text);
        }
        let files = files.into_iter().map(|(n, text)| (n, Bytes::from(text)));
        sources.insert("dockerfile".to_owned(), Source::Files(files.collect()));
        if !remote {
            sources.insert("context".to_owned(), Source::Directory(root));
        }
    }
    for (name, value) in &build.additional_contexts {
        let key = name.strip_suffix(":latest").unwrap_or(name);
        let named = if let Some(other) = value.strip_prefix("service:") {
            let service = project.any_service(other);
            let image = service.map(|s| wharfie_core::names::image(project, s));
            format!("docker-image://{}", image.unwrap_or_default())
        } else if is_remote(value) || value.contains("://") {
            value.clone()
        } else {
            let dir = project.working_dir.join(value);
            if !dir.is_dir() {
                return Err(BuildError::ContextMissing { path: dir });
            }
            sources.insert(name.clone(), Source::Directory(dir));
            format!("local:{name}")
        };
        attrs.insert(format!("context:{key}"), named);
    }
    Ok((attrs, syntax))
}

/// The image that a Dockerfile wants to be read with.
fn syntax_of(dockerfile: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(dockerfile);
    let mut comments = text.lines().map_while(|line| line.trim().strip_prefix('#'));
    let found = comments.find_map(|line| {
        let (name, value) = line.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("syntax")
            .then(|| value.trim().to_owned())
    })?;
    (!found.is_empty()).then_some(found)
}

/// Whether the Engine's image store can hold images of several platforms and attestations
/// (`GET /info`): containerd's can, the older one cannot.
async fn stores_several(engine: &Engine) -> Result<bool, BuildError> {
    let info = engine.docker.info().await.map_err(BuildError::Engine)?;
    let mut status = info.driver_status.into_iter().flatten();
    Ok(status.any(|pair| {
        pair.iter()
            .any(|v| v.starts_with("io.containerd.snapshotter"))
    }))
}

/// The address that `host-gateway` stands for.
async fn gateway_address(client: &Client) -> Result<Option<String>, Fault> {
    const LABEL: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";
    let answer = client.ask(WORKERS, &[]).await?;
    let records = fields(&answer).filter(|(field, _)| *field == 1);
    let mut labels = records
        .flat_map(|(_, record)| fields(record.bytes()))
        .filter(|(field, _)| *field == 2)
        .map(|(_, entry)| pair(entry.bytes()));
    Ok(labels
        .find(|(name, _)| name == LABEL)
        .map(|(_, address)| address)
        .filter(|a| !a.is_empty()))
}

/// An entry of a map of texts.
fn pair(entry: &[u8]) -> (String, String) {
    let mut pair = (String::new(), String::new());
    for (field, value) in fields(entry) {
        match field {
            1 => pair.0 = value.text(),
            2 => pair.1 = value.text(),
            _ => {}
        }
    }
    pair
}

/// The image's id in BuildKit's answer: that of its configuration, if it tells both.
fn image_id(answer: &[u8]) -> Option<String> {
    let entries: BTreeMap<String, String> = fields(answer)
        .filter(|(field, _)| *field == 1)
        .map(|(_, entry)| pair(entry.bytes()))
        .collect();
    let keys = ["containerimage.config.digest", "containerimage.digest"];
    keys.iter().find_map(|key| entries.get(*key).cloned())
}

fn explain(fault: Fault, output: &Output, syntax: Option<&str>) -> BuildError {
    let mut message = fault.message.trim();
    for wrapping in ["rpc error: code = Unknown desc = ", "failed to solve: "] {
        message = message.strip_prefix(wrapping).unwrap_or(message);
    }
    let mut message = message.to_owned();
    if let Some(image) = syntax
        && message.contains(image.split(':').next().unwrap_or(image))
    {
        message.push_str(&format!(
            " (the Dockerfile's line `# syntax={image}` asks for another reader of Dockerfiles, which must be fetched from a registry: without the line the Engine's own is used)"
        ));
    }
    if message.contains("entitlement") && message.contains("not allowed") {
        message.push_str(
            " (the Engine grants it if its daemon.json says so in `builder.entitlements`)",
        );
    }
    match &output.failed {
        Some(step) => BuildError::Step {
            step: step.clone(),
            message,
        },
        None => BuildError::Refused(message),
    }
}

/// Who knows the id may ask for the build's secrets: it cannot be guessed.
fn random_id() -> Result<String, BuildError> {
    let mut bytes = [0; 16];
    let source = Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source_error| BuildError::Unreadable {
            path: source.to_owned(),
            source: source_error,
        })?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn shared_key(request: &BuildRequest<'_>, build: &Build) -> String {
    let mut hasher = DefaultHasher::new();
    request.project.working_dir.hash(&mut hasher);
    build.context.hash(&mut hasher);
    request.service.name.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What a build is labelled with, and what it is given.
fn labels(request: &BuildRequest<'_>, build: &Build) -> BTreeMap<String, String> {
    options::labels(request, build, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_lines() {
        let syntax = |text: &str| syntax_of(text.as_bytes());
        assert_eq!(
            syntax("# escape=\\\n#Syntax = docker/dockerfile:1 \nFROM x"),
            Some("docker/dockerfile:1".to_owned())
        );
        assert_eq!(syntax("FROM x\n# syntax=a"), None);
    }

    #[test]
    fn faults_are_explained() {
        let fault = Fault::new(
            2,
            "failed to solve: docker.io/docker/dockerfile:1: no route",
        );
        let text = explain(fault, &Output::default(), Some("docker/dockerfile:1")).to_string();
        assert!(
            text.contains("no route (the Dockerfile's line `# syntax="),
            "{text}"
        );
        let mut output = Output::default();
        output.failed = Some("[2/2] RUN false".to_owned());
        let fault = Fault::new(2, "exit code: 1");
        assert_eq!(
            explain(fault, &output, None).to_string(),
            "[2/2] RUN false: exit code: 1"
        );
    }

    #[test]
    fn the_image_is_read_from_the_answer() {
        let map = BTreeMap::from([
            ("containerimage.digest".to_owned(), "sha256:m".to_owned()),
            (
                "containerimage.config.digest".to_owned(),
                "sha256:c".to_owned(),
            ),
        ]);
        let answer = Message::default().map(1, &map).done();
        assert_eq!(image_id(&answer).as_deref(), Some("sha256:c"));
        assert_eq!(image_id(&[]), None);
    }
}
