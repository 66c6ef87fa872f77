//! Logs and events.

use std::collections::{BTreeMap, HashMap};

use bollard::container::LogOutput;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use wharfie_core::labels;

use crate::{Engine, Error};

/// A piece of what a container wrote; not always a whole line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// What was written.
    pub bytes: Bytes,
}

impl From<LogOutput> for Output {
    fn from(output: LogOutput) -> Self {
        let stderr = matches!(output, LogOutput::StdErr { .. });
        Self {
            stderr,
            bytes: output.into_bytes(),
        }
    }
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on as the container writes.
    pub follow: bool,
    /// Only the last lines; all when unset.
    pub tail: Option<usize>,
    /// Not before this time, in seconds since 1970.
    pub since: Option<i64>,
    /// Not after this time, in seconds since 1970.
    pub until: Option<i64>,
    /// A time before each line.
    pub timestamps: bool,
}

/// Something that happened to a container of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Id of the container.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What happened: `start`, `die`, `destroy`, `health_status: healthy`, …
    pub action: String,
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// Exit code, with `die`.
    pub exit_code: Option<i64>,
    /// Everything else the Engine says of it.
    pub attributes: BTreeMap<String, String>,
    /// Name of the node it is on; empty where only one is looked at.
    pub node: String,
}

impl Engine {
    /// What a container wrote (`GET /containers/{id}/logs`).
    pub fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> impl Stream<Item = Result<Output, Error>> + Send + use<> {
        let id = id.to_owned();
        let time = |t: Option<i64>| t.and_then(|t| i32::try_from(t).ok()).unwrap_or(0);
        let tail = options
            .tail
            .map_or_else(|| "all".to_owned(), |n| n.to_string());
        let query = LogsOptionsBuilder::default()
            .follow(options.follow)
            .stdout(true)
            .stderr(true)
            .since(time(options.since))
            .until(time(options.until))
            .timestamps(options.timestamps)
            .tail(&tail)
            .build();
        self.docker
            .logs(&id, Some(query))
            .map(move |item| match item {
                Ok(output) => Ok(output.into()),
                Err(e) => Err(Error::from_engine(
                    format!("cannot read the log of {id}"),
                    e,
                )),
            })
    }

    /// What happens to the containers of a project (to all containers if its name is empty) from
    /// now on (`GET /events`), or from `since` and up to `until`, in seconds since 1970.
    pub fn events(
        &self,
        project: &str,
        since: Option<i64>,
        until: Option<i64>,
    ) -> impl Stream<Item = Result<ContainerEvent, Error>> + Send + use<> {
        let mut filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        if !project.is_empty() {
            let label = format!("{}={project}", labels::PROJECT);
            filters.insert("label".to_owned(), vec![label]);
        }
        let mut query = EventsOptionsBuilder::default().filters(&filters);
        if let Some(since) = since {
            query = query.since(&since.to_string());
        }
        if let Some(until) = until {
            query = query.until(&until.to_string());
        }
        self.docker.events(Some(query.build())).map(|item| {
            let event =
                item.map_err(|e| Error::from_engine("cannot read the Engine's events", e))?;
            let actor = event.actor.unwrap_or_default();
            let attributes: BTreeMap<String, String> =
                actor.attributes.unwrap_or_default().into_iter().collect();
            let get = |key: &str| attributes.get(key).cloned().unwrap_or_default();
            Ok(ContainerEvent {
                id: actor.id.unwrap_or_default(),
                name: get("name"),
                service: get(labels::SERVICE),
                action: event.action.unwrap_or_default(),
                time: event.time_nano.unwrap_or(0),
                exit_code: attributes.get("exitCode").and_then(|c| c.parse().ok()),
                attributes,
                node: String::new(),
            })
        })
    }
}
