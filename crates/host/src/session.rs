//! Terminals and commands in containers.

use std::pin::Pin;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWrite;
use wharfie_compose::model::{Project, Service};
use wharfie_core::Seen;

use crate::streams::Output;
use crate::translate::{self, Other, Wanted};
use crate::{Engine, Error};

/// A command in a container that runs.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The command with its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, over the container's environment.
    pub environment: Vec<String>,
    /// User, in place of the container's.
    pub user: String,
    /// Working directory, in place of the container's.
    pub working_dir: String,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is ours.
    pub interactive: bool,
    /// Whether it has extended privileges.
    pub privileged: bool,
    /// Whether nobody waits for it.
    pub detach: bool,
}

/// What a session is attached to.
#[derive(Debug, Clone)]
enum Target {
    Exec(String),
    Container(String),
}

/// Output, input and the size of a terminal, of a command or a container.
pub struct Session {
    /// What is written, until it ends.
    pub output: Pin<Box<dyn Stream<Item = Result<Output, Error>> + Send>>,
    /// What is read; shutting it down is the end of the input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    engine: Engine,
    target: Target,
}

impl Session {
    /// Tells the size of the terminal, in characters.
    ///
    /// # Errors
    /// The Engine refuses: the command may have ended.
    pub async fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        self.resizer().resize(width, height).await
    }

    /// A handle that resizes while the session is used elsewhere.
    #[must_use]
    pub fn resizer(&self) -> Resizer {
        Resizer {
            engine: self.engine.clone(),
            target: self.target.clone(),
        }
    }

    /// The exit code, once the output has ended.
    ///
    /// # Errors
    /// The Engine cannot be reached.
    pub fn exit_code(&self) -> impl Future<Output = Result<i64, Error>> + Send + use<> {
        // Not borrowed: the streams cannot be shared between threads.
        let (engine, target) = (self.engine.clone(), self.target.clone());
        async move {
            match target {
                Target::Container(id) => engine.wait(&id).await,
                Target::Exec(id) => {
                    let inspected = engine.docker.inspect_exec(&id).await;
                    let inspected = inspected
                        .map_err(|e| Error::from_engine("cannot ask for the exit code", e))?;
                    Ok(inspected.exit_code.unwrap_or(0))
                }
            }
        }
    }
}

/// Resizes a session's terminal.
#[derive(Debug, Clone)]
pub struct Resizer {
    engine: Engine,
    target: Target,
}

impl Resizer {
    /// Tells the size of the terminal, in characters.
    ///
    /// # Errors
    /// The Engine refuses: the command may have ended.
    pub async fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        let (w, h) = (i32::from(width), i32::from(height));
        let docker = &self.engine.docker;
        match &self.target {
            Target::Exec(id) => {
                let options = ResizeExecOptionsBuilder::default().w(w).h(h).build();
                docker.resize_exec(id, options).await
            }
            Target::Container(id) => {
                let options = ResizeContainerTTYOptionsBuilder::default()
                    .w(w)
                    .h(h)
                    .build();
                docker.resize_container_tty(id, options).await
            }
        }
        .map_err(|e| Error::from_engine("cannot resize the terminal", e))
    }
}

/// A one-off container of a service (`run`).
pub struct OneOff<'a> {
    /// Project.
    pub project: &'a Project,
    /// The service, with what `run` changes already changed.
    pub service: &'a Service,
    /// What is there: links and shared namespaces refer to it.
    pub seen: &'a Seen,
    /// Name of the container.
    pub name: String,
    /// Whether it answers for its service on its networks.
    pub use_aliases: bool,
    /// Whether the Engine removes it when it has ended.
    pub auto_remove: bool,
}

impl Engine {
    /// Runs a command in a container (`POST /containers/{id}/exec`). `None` if nobody waits.
    ///
    /// # Errors
    /// The Engine refuses: the container does not run, or has no such command.
    pub async fn exec(
        &self,
        container: &str,
        options: &ExecOptions,
    ) -> Result<Option<Session>, Error> {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let context = || format!("cannot run a command in {container}");
        let config = ExecConfig {
            attach_stdin: Some(options.interactive),
            attach_stdout: Some(!options.detach),
            attach_stderr: Some(!options.detach),
            tty: Some(options.tty),
            env: (!options.environment.is_empty()).then(|| options.environment.clone()),
            cmd: Some(options.command.clone()),
            privileged: options.privileged.then_some(true),
            user: text(&options.user),
            working_dir: text(&options.working_dir),
            ..ExecConfig::default()
        };
        let created = self.docker.create_exec(container, config).await;
        let id = created.map_err(|e| Error::from_engine(context(), e))?.id;
        let start = StartExecOptions {
            detach: options.detach,
            tty: options.tty,
            output_capacity: None,
        };
        match self
            .docker
            .start_exec(&id, Some(start))
            .await
            .map_err(|e| Error::from_engine(context(), e))?
        {
            StartExecResults::Detached => Ok(None),
            StartExecResults::Attached { output, input } => Ok(Some(Session {
                output: Box::pin(output.map(|o| converted(o, "the command's output"))),
                input,
                engine: self.clone(),
                target: Target::Exec(id),
            })),
        }
    }

    /// Runs a command to its end: exit code and output.
    pub(crate) async fn exec_to_end(
        &self,
        container: &str,
        options: &ExecOptions,
    ) -> Result<(i64, String), Error> {
        let Some(mut session) = self.exec(container, options).await? else {
            return Ok((0, String::new()));
        };
        let mut text = Vec::new();
        while let Some(output) = session.output.next().await {
            text.extend_from_slice(&output?.bytes);
        }
        let code = session.exit_code().await?;
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Attaches to a container (`POST /containers/{id}/attach`).
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn attach(&self, container: &str, stdin: bool) -> Result<Session, Error> {
        self.attach_until(container, stdin, None).await
    }

    /// The same with other keys than Ctrl-P Ctrl-Q that end it: on a terminal the Engine looks for
    /// them in the input, and hears nothing more after them.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn attach_until(
        &self,
        container: &str,
        stdin: bool,
        keys: Option<&str>,
    ) -> Result<Session, Error> {
        let mut options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(stdin)
            .stdout(true)
            .stderr(true);
        if let Some(keys) = keys {
            options = options.detach_keys(keys);
        }
        let options = options.build();
        let attached = self.docker.attach_container(container, Some(options)).await;
        let attached =
            attached.map_err(|e| Error::from_engine(format!("cannot attach to {container}"), e))?;
        Ok(Session {
            output: Box::pin(
                attached
                    .output
                    .map(|o| converted(o, "the container's output")),
            ),
            input: attached.input,
            engine: self.clone(),
            target: Target::Container(container.to_owned()),
        })
    }

    /// Makes a one-off container; it is not started. Returns its id.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn create_one_off(&self, wanted: &OneOff<'_>) -> Result<String, Error> {
        let mut others: std::collections::BTreeMap<String, Vec<Other>> =
            std::collections::BTreeMap::new();
        for c in wanted.seen.containers.iter().filter(|c| !c.oneoff) {
            let other = Other {
                id: c.id.clone(),
                name: c.name.clone(),
            };
            others.entry(c.service.clone()).or_default().push(other);
        }
        let image = wharfie_core::names::image(wanted.project, wanted.service);
        let image_id = self.image(&image).await?.map(|i| i.id).unwrap_or_default();
        let names = wanted.service.networks.keys();
        let names = names.filter_map(|key| Some(&wanted.project.networks.get(key)?.name));
        let given = names.filter_map(|name| {
            let labels = &wanted.seen.networks.get(name)?.labels;
            let resolver = labels.get(wharfie_core::labels::RESOLVER)?.parse().ok()?;
            let given = translate::Given {
                resolver: Some(resolver),
                ..translate::Given::default()
            };
            Some((name.clone(), given))
        });
        let request = Wanted {
            given: given.collect(),
            project: wanted.project,
            service: wanted.service,
            number: 1,
            oneoff: true,
            image_id,
            others: &others,
            inherited: std::collections::BTreeMap::new(),
            socket: self.socket(),
        };
        let mut request = translate::request(&request, &wanted.name, self.api());
        if let Some(host) = &mut request.body.host_config {
            host.restart_policy = None;
            host.auto_remove = Some(wanted.auto_remove);
        }
        if wanted.use_aliases {
            let in_body = request
                .body
                .networking_config
                .iter_mut()
                .flat_map(|n| n.endpoints_config.iter_mut().flatten());
            let endpoints = in_body
                .map(|(_, e)| e)
                .chain(request.connections.iter_mut().map(|(_, e)| e));
            for endpoint in endpoints {
                endpoint
                    .aliases
                    .get_or_insert_default()
                    .push(wanted.service.name.clone());
            }
        }
        if wanted.service.stdin_open {
            request.body.attach_stdin = Some(true);
            request.body.stdin_once = Some(true);
        }
        let platform = &wanted.service.platform;
        let kept = self.keep_files(&wanted.name, &mut request).await?;
        let made = self
            .create(&wanted.name, &wanted.name, platform, request)
            .await;
        if let (Err(_), Some(kept)) = (&made, kept) {
            kept.discard();
        }
        made
    }
}

fn converted(
    item: Result<bollard::container::LogOutput, bollard::errors::Error>,
    what: &str,
) -> Result<Output, Error> {
    item.map(Into::into)
        .map_err(|e| Error::from_engine(format!("cannot read {what}"), e))
}
