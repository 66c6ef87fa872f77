//! What a node says of itself to the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels;
use crate::seen::{Container, Health, PortBinding, State};

/// What is seen on one node; nobody but the node itself says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// When it was looked, in milliseconds since 1970.
    pub time: i64,
    /// Version of the agent.
    pub version: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Version of the Engine.
    pub engine: String,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `amd64`.
    pub arch: String,
    /// Why the Engine cannot be used, if it cannot. What it ran goes on, as last seen.
    pub engine_away: Option<String>,
    /// All containers, also those of no project, by id.
    pub containers: Vec<ReportedContainer>,
    /// All images that have a name, by id.
    pub images: Vec<ReportedImage>,
}

impl Report {
    /// Whether both say the same, whenever they were made.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let at = |report: &Self| Self {
            time: 0,
            ..report.clone()
        };
        at(self) == at(other)
    }
}

/// A container in a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedContainer {
    /// Id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image as named when it was made.
    pub image: String,
    /// Project; empty if it is of none.
    pub project: String,
    /// Service; empty if it is of none.
    pub service: String,
    /// Number within the service, from 1; 0 if it has none.
    pub number: u32,
    /// Whether `run` made it.
    pub oneoff: bool,
    /// State.
    pub state: State,
    /// Health.
    pub health: Health,
    /// Addresses by the name of the network.
    pub addresses: BTreeMap<String, String>,
    /// Ports, exposed or published.
    pub ports: Vec<PortBinding>,
}

impl From<Container> for ReportedContainer {
    fn from(c: Container) -> Self {
        let project = c.labels.get(labels::PROJECT).cloned().unwrap_or_default();
        let mut ports = c.ports;
        // The Engine lists them in any order.
        ports.sort();
        Self {
            id: c.id,
            name: c.name,
            image: c.image,
            project,
            service: c.service,
            number: c.number,
            oneoff: c.oneoff,
            state: c.state,
            health: c.health,
            addresses: c.addresses,
            ports,
        }
    }
}

/// An image in a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedImage {
    /// Id (`sha256:…`).
    pub id: String,
    /// Its names.
    pub tags: Vec<String>,
    /// Bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_reported() {
        let port = |private| PortBinding {
            private,
            ..PortBinding::default()
        };
        let container = Container {
            id: "a".to_owned(),
            labels: [(labels::PROJECT.to_owned(), "shop".to_owned())].into(),
            addresses: [("shop_default".to_owned(), "172.18.0.2".to_owned())].into(),
            ports: vec![port(90), port(80)],
            ..Container::default()
        };
        let reported = ReportedContainer::from(container);
        assert_eq!(reported.project, "shop");
        assert_eq!(reported.addresses["shop_default"], "172.18.0.2");
        assert_eq!(reported.ports, [port(80), port(90)]);
    }

    #[test]
    fn the_time_makes_no_difference() {
        let report = Report {
            time: 1,
            ..Report::default()
        };
        assert!(report.says_the_same(&Report::default()));
        let other = Report {
            cpus: 2,
            ..Report::default()
        };
        assert!(!report.says_the_same(&other));
    }

    #[test]
    fn a_report_of_another_version_can_be_read() {
        let text = r#"{"time": 5, "containers": [{"id": "a", "colour": "red"}], "mood": "good"}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!((report.time, report.containers[0].id.as_str()), (5, "a"));
    }
}
