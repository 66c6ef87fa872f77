//! What is wanted against what is seen: which operations make the one the other.

mod down;
mod images;
pub mod lifecycle;
mod select;
mod up;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use down::{DownOptions, RemoveImages, down};
pub use select::{dependents_first, selection};
pub use up::{holds_there, up};

use crate::share::Share;

/// How `up` goes about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpOptions {
    /// Services to bring up, with what they depend on; all when empty.
    pub services: Vec<String>,
    /// Leave out what the services depend on.
    pub no_deps: bool,
    /// Recreate containers even if nothing changed.
    pub force_recreate: bool,
    /// Keep containers even if something changed.
    pub no_recreate: bool,
    /// Recreate also what the named services depend on, with `force_recreate`.
    pub always_recreate_deps: bool,
    /// Remove containers of services that are not in the project.
    pub remove_orphans: bool,
    /// Number of containers by service, in place of the file's.
    pub scale: BTreeMap<String, u32>,
    /// Build images even if they are there.
    pub build: bool,
    /// Never build.
    pub no_build: bool,
    /// `always`, `missing`, `never` or `build`, in place of every service's own policy.
    pub pull: Option<String>,
    /// Give recreated containers new anonymous volumes.
    pub renew_anonymous_volumes: bool,
    /// Make containers, but do not start them.
    pub no_start: bool,
    /// Wait until services run, or are healthy where they have a health check.
    pub wait: bool,
    /// Seconds to stop containers in, in place of each service's own.
    pub timeout: Option<i64>,
    /// The time, in seconds since 1970, for pull policies such as `daily`.
    pub now: i64,
    /// Images were prepared just now: do not pull or build again.
    pub images_done: bool,
    /// Keep containers whose image's name has passed to another image since.
    pub keep_images: bool,
    /// Ids of containers that are to be replaced though they are as wanted, with the reason.
    #[serde(skip)]
    pub replace: BTreeMap<String, String>,
    /// What of the project is this node's own; all if unset.
    #[serde(skip)]
    pub share: Option<Share>,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A service was named that the project does not have.
    #[error("no such service: {0}")]
    NoSuchService(String),
    /// A network that is managed elsewhere is not there.
    #[error(
        "network {name} is declared as external, but it does not exist: make it with `docker network create {name}`"
    )]
    NoNetwork {
        /// Key in the file.
        key: String,
        /// Name on the Engine.
        name: String,
    },
    /// A network of the name is there that was made by somebody else.
    #[error(
        "network {name} exists, but was not made for this project: declare it `external: true` to use it, or remove it with `docker network rm {name}`"
    )]
    ForeignNetwork {
        /// Key in the file.
        key: String,
        /// Name on the Engine.
        name: String,
    },
    /// A volume that is managed elsewhere is not there.
    #[error(
        "volume {name} is declared as external, but it does not exist: make it with `docker volume create {name}`"
    )]
    NoVolume {
        /// Key in the file.
        key: String,
        /// Name on the Engine.
        name: String,
    },
    /// An image is not there and may be neither pulled nor built.
    #[error("image {image} of service {service} is not here, and {why}")]
    NoImage {
        /// Service.
        service: String,
        /// Reference.
        image: String,
        /// Why it is not fetched.
        why: String,
    },
    /// More than one container was asked of a service with a fixed name or address.
    #[error("service {service} cannot have {count} containers: {why}")]
    NotScalable {
        /// Service.
        service: String,
        /// How many.
        count: u32,
        /// What stands against it.
        why: String,
    },
}

impl Refusal {
    /// Path of the attribute that is at fault, if one is.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match self {
            Self::NoSuchService(_) => None,
            Self::NoNetwork { key, .. } | Self::ForeignNetwork { key, .. } => {
                Some(format!("networks.{key}"))
            }
            Self::NoVolume { key, .. } => Some(format!("volumes.{key}")),
            Self::NoImage { service, .. } => Some(format!("services.{service}.image")),
            Self::NotScalable { service, .. } => Some(format!("services.{service}")),
        }
    }
}
