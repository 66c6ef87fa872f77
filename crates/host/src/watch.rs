//! Everything on an Engine that may call for healing.

use std::collections::HashMap;

use bollard::models::EventMessageTypeEnum;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{Stream, StreamExt};
use wharfie_core::labels;

use crate::{Engine, Error};

/// Something that happened on an Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// To a container.
    Container {
        /// Its project; empty if it is of none.
        project: String,
        /// Id.
        id: String,
        /// What.
        what: Change,
    },
    /// A network or a volume was removed, or somebody was cut off from it.
    Resource {
        /// Its name.
        name: String,
    },
    /// Something that calls for no healing, but changes what a node has to tell: of images, or of
    /// containers.
    News {
        /// Whether it concerns images.
        image: bool,
    },
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was started.
    Started,
    /// It has ended.
    Ended,
    /// It is gone, or its health has changed.
    Unwell,
    /// Somebody sent it a signal that ends processes.
    Signalled,
    /// Somebody stopped it, and it has ended.
    Stopped,
    /// Somebody changed its settings.
    Updated,
    /// Anything else.
    Other,
}

/// Events that are of interest; the Engine sends no others.
const EVENTS: [&str; 20] = [
    "connect",
    "create",
    "delete",
    "die",
    "destroy",
    "disconnect",
    "health_status",
    "import",
    "kill",
    "load",
    "oom",
    "pause",
    "pull",
    "rename",
    "start",
    "stop",
    "tag",
    "unpause",
    "untag",
    "update",
];

/// Signals that are meant to end a process: KILL and TERM. Others may be from whoever is attached to
/// it, and what follows is its own will.
const FATAL: [&str; 2] = ["9", "15"];

impl Engine {
    /// What happens from a second ago on (`GET /events`). The stream ends when the Engine does.
    pub fn happenings(&self) -> impl Stream<Item = Result<Happened, Error>> + Send + use<> {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let filters = HashMap::from([
            (
                "type".to_owned(),
                list(&["container", "image", "network", "volume"]),
            ),
            ("event".to_owned(), list(&EVENTS)),
        ]);
        let since = jiff::Timestamp::now().as_second() - 1;
        let query = EventsOptionsBuilder::default()
            .filters(&filters)
            .since(&since.to_string())
            .build();
        let events = self.docker.events(Some(query));
        events.filter_map(|item| async move {
            let event = match item {
                Ok(event) => event,
                Err(e) => {
                    return Some(Err(Error::from_engine(
                        "cannot read the Engine's events",
                        e,
                    )));
                }
            };
            let actor = event.actor.unwrap_or_default();
            let attributes = actor.attributes.unwrap_or_default();
            let action = event.action.unwrap_or_default();
            if event.typ == Some(EventMessageTypeEnum::IMAGE) {
                return Some(Ok(Happened::News { image: true }));
            }
            if matches!(action.as_str(), "create" | "pause" | "connect") {
                return Some(Ok(Happened::News { image: false }));
            }
            if event.typ != Some(EventMessageTypeEnum::CONTAINER) {
                let name = attributes.get("name").cloned().or(actor.id)?;
                return Some(Ok(Happened::Resource { name }));
            }
            let signal = attributes.get("signal").map(String::as_str);
            let what = match action.as_str() {
                "start" => Change::Started,
                // Told after the end, whatever the signal was.
                "stop" => Change::Stopped,
                "kill" if signal.is_some_and(|s| FATAL.contains(&s)) => Change::Signalled,
                "update" => Change::Updated,
                "die" => Change::Ended,
                "destroy" | "oom" | "rename" => Change::Unwell,
                a if a.starts_with("health_status") => Change::Unwell,
                _ => Change::Other,
            };
            Some(Ok(Happened::Container {
                project: attributes.get(labels::PROJECT).cloned().unwrap_or_default(),
                id: actor.id?,
                what,
            }))
        })
    }
}
