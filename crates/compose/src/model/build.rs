//! `build` and `develop`: how an image is made and kept fresh.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq};

use super::service::MapOrList;
use super::{
    Bytes, Extensions, ExtraHosts, FileReference, Hook, Mapping, OptionalMapping, Ulimit, is_false,
};

/// How a service's image is built (compose-spec, build).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Build {
    /// Build context: an absolute directory or a URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub context: String,
    /// Dockerfile, relative to the context.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dockerfile: String,
    /// The Dockerfile's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dockerfile_inline: String,
    /// Privileges granted to the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entitlements: Vec<String>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: OptionalMapping,
    /// Provenance attestation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provenance: String,
    /// SBOM attestation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sbom: String,
    /// SSH agents or keys for the build.
    #[serde(default, skip_serializing_if = "SshKeys::is_empty")]
    pub ssh: SshKeys,
    /// Labels of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Sources for the build cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache_from: Vec<String>,
    /// Destinations of the build cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache_to: Vec<String>,
    /// Build without cache.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_cache: bool,
    /// Further contexts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_contexts: Mapping,
    /// Pull base images even if they are there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pull: bool,
    /// Host names for the build.
    #[serde(default, skip_serializing_if = "ExtraHosts::is_empty")]
    pub extra_hosts: ExtraHosts,
    /// Isolation technology (Windows).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Network of `RUN` steps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Stage to build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Secrets for the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference>,
    /// Size of `/dev/shm` during the build.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub shm_size: Bytes,
    /// Further names of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Limits of build containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Platforms to build for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Build with extended privileges.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// SSH agents or keys, by id; an empty path is the user's agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshKeys(pub BTreeMap<String, Option<String>>);

impl SshKeys {
    /// Whether none is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for SshKeys {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // By id as the loader has them, or in lines as they are written.
        Ok(Self(match MapOrList::deserialize(d)? {
            MapOrList::Map(map) => map,
            MapOrList::List(lines) => lines
                .into_iter()
                .map(|line| match line.split_once('=') {
                    Some((id, path)) => (id.to_owned(), Some(path.to_owned())),
                    None => (line, None),
                })
                .collect(),
        }))
    }
}

impl Serialize for SshKeys {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        for (id, path) in &self.0 {
            match path {
                Some(path) if !path.is_empty() => seq.serialize_element(&format!("{id}={path}"))?,
                _ => seq.serialize_element(id)?,
            }
        }
        seq.end()
    }
}

/// What happens when sources change (compose-spec, develop).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Develop {
    /// Rules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<WatchRule>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// One rule of `develop.watch`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WatchRule {
    /// Absolute path that is watched.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// `sync`, `rebuild`, `restart`, `sync+restart` or `sync+exec`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// Where files go in the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Command run after a sync; none without a `command`.
    #[serde(default)]
    pub exec: Hook,
    /// Patterns that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns that do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Sync once at the start.
    #[serde(default, skip_serializing_if = "is_false")]
    pub initial_sync: bool,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}
