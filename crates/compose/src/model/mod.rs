//! The normalised model: what a set of Compose files means, with every short syntax
//! expanded, every default filled in and every value in its own type.
//!
//! The order of the fields is the order of the reference implementation's structures, so
//! that the JSON of a service, and with it its configuration hash, is the same.

mod build;
mod deploy;
mod network;
mod scalar;
mod service;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use build::*;
pub use deploy::*;
pub use network::*;
pub use scalar::*;
pub use service::*;

/// User-defined `x-*` attributes of one element, kept as they were written.
pub type Extensions = BTreeMap<String, serde_json::Value>;
/// Names with text values (labels, options).
pub type Mapping = BTreeMap<String, String>;
/// Names with values that may be left to the environment (`environment`, build `args`).
pub type OptionalMapping = BTreeMap<String, Option<String>>;

/// A whole project: the services to run and what they need.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Project {
    /// The project's name; every name on the Engine is derived from it.
    #[serde(default)]
    pub name: String,
    /// Services that are to run: those without profiles or with an active one.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// Services left out because none of their profiles is active.
    #[serde(skip)]
    pub disabled_services: BTreeMap<String, Service>,
    /// Networks, by the key used in the file.
    #[serde(default)]
    pub networks: BTreeMap<String, Network>,
    /// Named volumes.
    #[serde(default)]
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets.
    #[serde(default)]
    pub secrets: BTreeMap<String, FileObject>,
    /// Configs.
    #[serde(default)]
    pub configs: BTreeMap<String, FileObject>,
    /// Language models.
    #[serde(default)]
    pub models: BTreeMap<String, Model>,
    /// `x-*` attributes at the top.
    #[serde(flatten)]
    pub extensions: Extensions,
    /// Absolute project directory: relative paths are relative to it.
    #[serde(skip)]
    pub working_dir: std::path::PathBuf,
    /// Absolute paths of the files the project was loaded from (`-` for standard input).
    #[serde(skip)]
    pub files: Vec<std::path::PathBuf>,
    /// The environment used for interpolation: process environment over `.env` files.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// Profiles that were active when the project was loaded.
    #[serde(skip)]
    pub profiles: Vec<String>,
}

impl Project {
    /// Drops networks, volumes, secrets, configs and models that no service to run uses.
    pub fn drop_unused(&mut self) {
        let mut used: [std::collections::BTreeSet<String>; 5] = Default::default();
        let [networks, volumes, secrets, configs, models] = &mut used;
        for service in self.services.values() {
            networks.extend(service.networks.keys().cloned());
            let named = service
                .volumes
                .iter()
                .filter(|m| m.kind == MountKind::Volume);
            volumes.extend(named.map(|m| m.source.clone()));
            let build_secrets = service.build.iter().flat_map(|b| &b.secrets);
            secrets.extend(
                service
                    .secrets
                    .iter()
                    .chain(build_secrets)
                    .map(|s| s.source.clone()),
            );
            configs.extend(service.configs.iter().map(|c| c.source.clone()));
            let credential = service.credential_spec.iter().map(|c| c.config.clone());
            configs.extend(credential);
            models.extend(service.models.keys().cloned());
        }
        self.networks.retain(|k, _| networks.contains(k));
        self.volumes.retain(|k, _| volumes.contains(k));
        self.secrets.retain(|k, _| secrets.contains(k));
        self.configs.retain(|k, _| configs.contains(k));
        self.models.retain(|k, _| models.contains(k));
    }

    /// A service by name, whether it is to run or not.
    #[must_use]
    pub fn any_service(&self, name: &str) -> Option<&Service> {
        self.services
            .get(name)
            .or_else(|| self.disabled_services.get(name))
    }
}

/// A secret or a config (compose-spec 08, 09).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FileObject {
    /// Name on the platform.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// File with the content; absolute.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Environment variable with the content.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// The content itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Managed elsewhere.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Driver (Swarm).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: Mapping,
    /// Template driver (Swarm).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template_driver: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A language model (compose-spec, models).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Model {
    /// Name of the model; its key unless given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// OCI reference of the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Context window, in tokens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub context_size: i64,
    /// Flags handed to the runtime.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtime_flags: Vec<String>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands out references
pub(crate) fn is_false(b: &bool) -> bool {
    !*b
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands out references
pub(crate) fn is_zero(n: &i64) -> bool {
    *n == 0
}
