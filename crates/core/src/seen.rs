//! What an Engine has of a project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::network::Attachment;

/// Everything an Engine has of one project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Containers with the project's label, one-off ones included.
    pub containers: Vec<Container>,
    /// Networks by name: the project's own, and external ones it uses.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by name: the project's own, and external ones it uses.
    pub volumes: BTreeMap<String, Volume>,
    /// Images by the reference a service names.
    pub images: BTreeMap<String, Image>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Service.
    pub service: String,
    /// Number within the service, from 1; 0 if the label is missing.
    pub number: u32,
    /// Whether `run` made it.
    pub oneoff: bool,
    /// State.
    pub state: State,
    /// Health.
    pub health: Health,
    /// Exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// Configuration hash it was made with.
    pub config_hash: String,
    /// Id of the image it was made from.
    pub image_id: String,
    /// Image as named when it was made.
    pub image: String,
    /// Names of the networks it is on, with the id of each as the container knows it.
    pub networks: BTreeMap<String, String>,
    /// Addresses by the name of the network, where it has one.
    #[serde(default)]
    pub addresses: BTreeMap<String, String>,
    /// How it is on its networks, as far as the Engine says: addresses that it has, or will have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attachments: BTreeMap<String, Attachment>,
    /// Id of the container whose network namespace it shares; empty if it has its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub joined: String,
    /// Whether it runs in a network namespace that its owner has left since: that one was started
    /// again after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stranded: bool,
    /// Services it depends on.
    pub depends_on: Vec<String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The Engine's words for its state, such as `Up 2 minutes (healthy)`.
    pub status: String,
    /// The command, as the Engine shows it.
    pub command: String,
    /// Ports, exposed or published.
    pub ports: Vec<PortBinding>,
    /// Mounts: names of volumes or host paths, and targets.
    pub mounts: Vec<(String, String)>,
    /// Size of the writable layer and of all, in bytes, where they were asked for.
    pub size: Option<(i64, i64)>,
    /// Name of the node it is on; empty where only one is looked at.
    #[serde(default)]
    pub node: String,
}

impl Container {
    /// The project it is of; empty if it is of none.
    #[must_use]
    pub fn project(&self) -> &str {
        let project = self.labels.get(crate::labels::PROJECT);
        project.map_or("", String::as_str)
    }

    /// Whether its main process runs (paused counts).
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(
            self.state,
            State::Running | State::Paused | State::Restarting
        )
    }
}

/// A port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Host address; empty if not published.
    pub ip: String,
    /// Port on the host, if published.
    pub public: Option<u16>,
    /// Port in the container.
    pub private: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// State of a container (Engine API, `State.Status`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made, never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl State {
    /// The Engine's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// Health of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has no health check.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks failed.
    Unhealthy,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Id (`sha256:…`).
    pub id: String,
    /// When its name was last given to it, in seconds since 1970.
    pub tagged: i64,
}
