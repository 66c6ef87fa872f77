//! Building images: with the Engine's BuildKit, or with its classic builder where there is none.

mod buildkit;
mod context;
pub mod ignore;
mod options;
pub(crate) mod pack;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as ClientError;
use bollard::models::BuildInfo;
use bytes::Bytes;
use futures_util::StreamExt;
use wharfie_compose::model::{Build, Project, Service};

use crate::{ApiVersion, Engine};
use context::Context;
use pack::Packer;

/// How long the Engine may take for its first word, which comes only once it has the whole
/// context or has fetched the remote one.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A build as asked for by a service.
#[derive(Debug, Clone)]
pub struct BuildRequest<'a> {
    /// The project the service is of.
    pub project: &'a Project,
    /// The service whose image is built.
    pub service: &'a Service,
    /// Name that the image gets.
    pub image: String,
    /// What is asked for besides the file.
    pub flags: BuildFlags,
}

/// How builds go about it, over what the file says.
#[derive(Debug, Clone, Default)]
pub struct BuildFlags {
    /// Without the cache.
    pub no_cache: bool,
    /// Pull base images even if they are there.
    pub pull: bool,
    /// Build arguments over the file's; without a value they are taken from the project's
    /// environment.
    pub args: BTreeMap<String, Option<String>>,
    /// SSH agents by id; without a path it is the user's.
    pub ssh: BTreeMap<String, Option<String>>,
    /// Provenance attestation, in place of the file's.
    pub provenance: Option<String>,
    /// SBOM attestation, in place of the file's.
    pub sbom: Option<String>,
    /// Memory of the steps' containers in bytes, 0 for no limit; the classic builder's only.
    pub memory: i64,
}

/// What an Engine's builder can do, as far as that is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// BuildKit, of an Engine with this API.
    BuildKit(ApiVersion),
    /// The classic builder.
    Classic,
}

/// The builder that is used for a build: the Engine's BuildKit, unless only the classic builder can
/// do what is asked for.
#[must_use]
fn choose(service_name: &str, build: &Build, flags: &BuildFlags, builder: Builder) -> Builder {
    let classic_only = flags.memory > 0 || !refusals(service_name, build, builder).is_empty();
    let attested = [&flags.provenance, &flags.sbom];
    let modern = !flags.ssh.is_empty()
        || attested
            .into_iter()
            .flatten()
            .any(|v| options::attestation(v));
    if classic_only && !modern && refusals(service_name, build, Builder::Classic).is_empty() {
        Builder::Classic
    } else {
        builder
    }
}

fn refusals(service_name: &str, build: &Build, builder: Builder) -> Vec<(String, String)> {
    match builder {
        Builder::BuildKit(api) => buildkit::unsupported(service_name, build, api),
        Builder::Classic => options::unsupported(service_name, build),
    }
}

/// What an Engine cannot do with any of its builders: for each attribute that is set and cannot be honoured its path
/// (`services.web.build.secrets`) and the reason.
#[must_use]
pub fn unsupported(service_name: &str, build: &Build, builder: Builder) -> Vec<(String, String)> {
    let chosen = choose(service_name, build, &BuildFlags::default(), builder);
    refusals(service_name, build, chosen)
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The service has nothing to build.
    #[error("service {service:?} has no `build`: give it one, or leave it out of the build")]
    NothingToBuild {
        /// The service.
        service: String,
    },
    /// Attributes that the builder cannot honour.
    #[error("the Engine's builder cannot do what the file asks for: {}", list(.0))]
    Unsupported(
        /// Path of each attribute, with the reason.
        Vec<(String, String)>,
    ),
    /// The context is not there.
    #[error("there is no build context {}: create the directory, or correct `build.context`", path.display())]
    ContextMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The context is a file.
    #[error("the build context {} is not a directory: name the directory in `build.context` and the file in `build.dockerfile`", path.display())]
    ContextNotDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The Dockerfile is not there.
    #[error("there is no Dockerfile {}: create it, or name another one in `build.dockerfile` (a relative path starts at the build context)", path.display())]
    DockerfileMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The Dockerfile is a directory or the like.
    #[error("{} is not a file: name the Dockerfile itself in `build.dockerfile`", path.display())]
    DockerfileNotFile {
        /// What is there.
        path: PathBuf,
    },
    /// An ignore file has a malformed pattern.
    #[error("{}:{line}: bad pattern {text:?}: {reason}", path.display())]
    IgnoreFile {
        /// The ignore file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line as written.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something of the context cannot be read.
    #[error("cannot read {} for the build: {source}; make it readable, or leave it out with a line in .dockerignore", path.display())]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// Why it could not be.
        source: std::io::Error,
    },
    /// Arguments, labels and options are more than a request can carry.
    #[error(
        "the build arguments, labels and options of service {service:?} have {size} bytes, and the Engine takes at most {limit}: put long values into files of the context"
    )]
    TooLong {
        /// The service.
        service: String,
        /// Their size when encoded.
        size: usize,
        /// What fits.
        limit: usize,
    },
    /// A step of the Dockerfile failed.
    #[error("{step}: {message}")]
    Step {
        /// The step's line ("Step 2/3 : RUN make").
        step: String,
        /// What the Engine said.
        message: String,
    },
    /// The Engine did not take the build up, or gave it up.
    #[error("the Engine refused the build: {0}")]
    Refused(
        /// What the Engine said.
        String,
    ),
    /// The connection to the Engine failed.
    #[error("the connection to the Engine failed during the build: {}; see that dockerd runs, then build again", causes(.0))]
    Engine(#[source] ClientError),
    /// The Engine reported no image.
    #[error(
        "the Engine ended the build of {image:?} without an image or an error: see the log of dockerd, then build again"
    )]
    NoImage {
        /// Name the image was to get.
        image: String,
    },
}

fn list(items: &[(String, String)]) -> String {
    let lines: Vec<String> = items
        .iter()
        .map(|(path, why)| format!("{path}: {why}"))
        .collect();
    lines.join("; ")
}

/// An error with its causes, which the client's own messages leave out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Builds; `progress` gets each line of output as it comes (`#2 [1/3] FROM …` from BuildKit, `Step
/// 1/3 : FROM …` from the classic builder). Returns the image's id (`sha256:…`).
///
/// Dropping the future ends the build.
///
/// # Errors
///
/// See [`BuildError`].
pub async fn build(
    engine: &Engine,
    request: &BuildRequest<'_>,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<String, BuildError> {
    let service = &request.service.name;
    let Some(build) = &request.service.build else {
        return Err(BuildError::NothingToBuild {
            service: service.clone(),
        });
    };
    let builder = choose(service, build, &request.flags, engine.builder());
    let refused = refusals(service, build, builder);
    if !refused.is_empty() {
        return Err(BuildError::Unsupported(refused));
    }
    match builder {
        Builder::BuildKit(_) if request.flags.memory > 0 => Err(BuildError::Refused(
            "only the classic builder limits memory, and it cannot do what the file asks for: leave --memory out".to_owned(),
        )),
        Builder::BuildKit(_) => buildkit::build(engine, request, build, &[], progress).await,
        Builder::Classic => classic(&engine.docker, request, build, progress).await,
    }
}

/// Builds with the classic builder (`POST /build`).
async fn classic(
    docker: &Docker,
    request: &BuildRequest<'_>,
    build: &Build,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<String, BuildError> {
    if !request.flags.ssh.is_empty() {
        return Err(BuildError::Refused(
            "the classic builder knows no SSH: leave --ssh out".to_owned(),
        ));
    }
    let mut options = options::options(request, build);
    let (packer, body) = if options::is_remote(&build.context) {
        options.remote = Some(build.context.clone());
        (None, bollard::body_full(Bytes::new()))
    } else {
        let dir = request.project.working_dir.join(&build.context);
        let (file, inline) = (build.dockerfile.clone(), build.dockerfile_inline.clone());
        let context = tokio::task::spawn_blocking(move || Context::open(&dir, &file, &inline));
        let context = context
            .await
            .map_err(|e| BuildError::Refused(e.to_string()))??;
        options.dockerfile.clone_from(&context.dockerfile);
        let (packer, stream) = Packer::start(context);
        (Some(packer), bollard::body_try_stream(stream))
    };

    let logins = crate::registry::all().await;
    let docker = options::with_more(docker, request, build)?.with_timeout(PATIENCE);
    let mut output = Output::default();
    let mut stream = docker.build_image(options, Some(logins), Some(body));
    let mut failure = None;
    while let Some(item) = stream.next().await {
        match item {
            Ok(info) => output.take(info, progress),
            Err(e) => {
                failure = Some(e);
                break;
            }
        }
    }
    drop(stream);
    output.finish(progress);
    // A context that cannot be read shows up as a broken connection as well.
    let fault = match packer {
        Some(packer) => packer.fault().await,
        None => None,
    };
    match (fault, failure) {
        (Some(fault), _) => Err(fault),
        (None, Some(failure)) => Err(output.explain(failure)),
        (None, None) => output.image.ok_or_else(|| BuildError::NoImage {
            image: request.image.clone(),
        }),
    }
}

/// What a build says, put together into lines.
#[derive(Debug, Default)]
struct Output {
    line: String,
    step: Option<String>,
    image: Option<String>,
    /// Last status of each layer that is pulled.
    layers: BTreeMap<String, String>,
}

impl Output {
    fn take(&mut self, info: BuildInfo, progress: &mut (dyn FnMut(&str) + Send)) {
        if let Some(id) = info.aux.and_then(|aux| aux.id) {
            self.image = Some(id);
        }
        if let Some(text) = info.stream {
            self.line.push_str(&text);
            while let Some(end) = self.line.find('\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                self.emit(&line, progress);
            }
        }
        // A line for each new state of a layer, not for each percent.
        if let Some(status) = info.status {
            let layer = info.id.unwrap_or_default();
            let last = self.layers.insert(layer.clone(), status.clone());
            if layer.is_empty() {
                self.emit(&status, progress);
            } else if last.as_ref() != Some(&status) {
                self.emit(&format!("{layer}: {status}"), progress);
            }
        }
    }

    /// Hands on a line; of one that was overwritten with carriage returns, its last state.
    fn emit(&mut self, line: &str, progress: &mut (dyn FnMut(&str) + Send)) {
        let line = line.trim_end();
        let line = line.rsplit('\r').next().unwrap_or(line);
        if line.is_empty() {
            return;
        }
        if line.starts_with("Step ") && line.contains(" : ") {
            self.step = Some(line.to_owned());
        }
        progress(line);
    }

    fn finish(&mut self, progress: &mut (dyn FnMut(&str) + Send)) {
        let line = std::mem::take(&mut self.line);
        self.emit(&line, progress);
    }

    fn explain(&self, error: ClientError) -> BuildError {
        match (error, &self.step) {
            (ClientError::DockerStreamError { error }, Some(step)) => BuildError::Step {
                step: step.clone(),
                message: error.trim().to_owned(),
            },
            (ClientError::DockerStreamError { error }, None) => {
                BuildError::Refused(error.trim().to_owned())
            }
            (ClientError::DockerResponseServerError { message, .. }, _) => {
                BuildError::Refused(message.trim().to_owned())
            }
            (error, _) => BuildError::Engine(error),
        }
    }
}
