//! What a node says of itself to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::director;
use crate::heal::Trouble;
use crate::labels;
use crate::network::encrypt::Encryption;
use crate::network::{Attachment, Cidr, Mac};
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
    /// Labels of the Engine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub engine_labels: BTreeMap<String, String>,
    /// Resources and devices that the Engine declares, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generic: BTreeMap<String, i64>,
    /// The agent ends in order, and what runs goes on: it is expected back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// What is wanted cannot be written there: its disk is full, or fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unwritable: bool,
    /// Why the Engine cannot be used, if it cannot. What it ran goes on, as last seen.
    pub engine_away: Option<String>,
    /// All containers, also those of no project, by id.
    pub containers: Vec<ReportedContainer>,
    /// All images that have a name, by id.
    pub images: Vec<ReportedImage>,
    /// The host's routes, but those to networks of the cluster: where they lead, and the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<(Cidr, String)>,
    /// The host's own addresses on networks of the cluster.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub own: BTreeMap<String, Attachment>,
    /// The address of this host that packets between containers of nodes come from and go to; none
    /// if the node is alone, and older versions do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<IpAddr>,
    /// How it encrypts packets between nodes; older versions do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Tasks that are not well, by stack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub troubles: BTreeMap<String, Vec<Trouble>>,
    /// Addresses in the director's ranges that another machine was seen to use, or that are the node's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<IpAddr>,
    /// Hardware addresses of the devices on which the director's addresses are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Mac>,
    /// Devices on which they can be: those that are up and have a cable. Not said before that was looked, nor by
    /// older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<BTreeSet<String>>,
    /// Zones that it answers for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ServedZone>,
    /// What of networks this node cannot do as it should.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_faults: Vec<NetworkFault>,
}

/// A zone that a node answers for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServedZone {
    /// Its name.
    pub origin: String,
    /// Its serial (RFC 1035 section 3.3.13).
    pub serial: u32,
    /// Of which content that is.
    pub digest: u64,
}

/// Something of networks that is not as it should be on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkFault {
    /// The network, by its name on the Engine; empty if it is about none, or about several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The service, as `stack/service`; empty if it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Whether nothing passes between its node and others because of it, on any network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub between: bool,
    /// All of it in one sentence.
    pub what: String,
}

impl Report {
    /// The image with a name or an id, which may be shortened.
    #[must_use]
    pub fn image(&self, called: &str) -> Option<&ReportedImage> {
        let full = full_name(called);
        let digits = called.strip_prefix("sha256:").unwrap_or(called);
        let named = |i: &&ReportedImage| i.tags.iter().any(|t| full_name(t) == full);
        let by_id = |i: &&ReportedImage| {
            let id = i.id.strip_prefix("sha256:").unwrap_or(&i.id);
            !digits.is_empty() && id.starts_with(digits)
        };
        let named = self.images.iter().find(named);
        named.or_else(|| self.images.iter().find(by_id))
    }

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

/// An image's name as Engines list it: short, and with a tag.
fn full_name(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

impl ReportedContainer {
    /// Whether its main process runs (paused counts).
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(
            self.state,
            State::Running | State::Paused | State::Restarting
        )
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
    /// Exit code, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Revision of the service that it was made from ([`labels::REVISION`]); empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Addresses by the name of the network.
    pub addresses: BTreeMap<String, String>,
    /// How it is on its networks, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attachments: BTreeMap<String, Attachment>,
    /// Id of the container whose network namespace it shares; empty if it has its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub joined: String,
    /// Ports, exposed or published.
    pub ports: Vec<PortBinding>,
    /// Whether it wants an address of the surrounding network, by its label ([`director::LABEL`]).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// It is about to be stopped: nothing new is led to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dying: bool,
}

impl From<Container> for ReportedContainer {
    fn from(c: Container) -> Self {
        let label = |key: &str| c.labels.get(key).cloned().unwrap_or_default();
        let (project, revision) = (label(labels::PROJECT), label(labels::REVISION));
        let address = label(director::LABEL);
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
            exit_code: c.exit_code,
            revision,
            addresses: c.addresses,
            attachments: c.attachments,
            joined: c.joined,
            ports,
            address,
            dying: false,
        }
    }
}

impl From<&ReportedContainer> for Container {
    /// What of a container is known on other nodes.
    fn from(c: &ReportedContainer) -> Self {
        let labels = [
            (labels::PROJECT, &c.project),
            (labels::REVISION, &c.revision),
        ];
        Self {
            id: c.id.clone(),
            name: c.name.clone(),
            image: c.image.clone(),
            service: c.service.clone(),
            number: c.number,
            oneoff: c.oneoff,
            state: c.state,
            health: c.health,
            exit_code: c.exit_code,
            labels: labels.map(|(k, v)| (k.to_owned(), v.clone())).into(),
            ..Self::default()
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
    fn images_are_found_by_name_and_id() {
        let image = |id: &str, tag: &str| ReportedImage {
            id: format!("sha256:{id}"),
            tags: vec![tag.to_owned()],
            size: 1,
        };
        let report = Report {
            images: vec![image("cafe01", "app:latest"), image("beef02", "cafe:1")],
            ..Report::default()
        };
        let found = |called: &str| report.image(called).map(|i| &i.id[7..]);
        assert_eq!(found("app"), Some("cafe01"));
        assert_eq!(found("docker.io/library/app:latest"), Some("cafe01"));
        assert_eq!(found("app:2"), None);
        // A name comes before an id.
        assert_eq!(found("cafe:1"), Some("beef02"));
        assert_eq!(found("cafe"), Some("cafe01"));
        assert_eq!(found("sha256:beef"), Some("beef02"));
        assert_eq!(found(""), None);
    }

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
