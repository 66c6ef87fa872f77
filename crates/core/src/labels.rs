//! Labels on containers, networks and volumes: docker compose's own, so that its tools see
//! ours and we see theirs, and what Wharfie adds.

use std::collections::BTreeMap;

use wharfie_compose::model::{Condition, Project, Service};

/// Project of an object.
pub const PROJECT: &str = "com.docker.compose.project";
/// Service of a container.
pub const SERVICE: &str = "com.docker.compose.service";
/// Number of a container within its service, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` for containers made by `run`.
pub const ONEOFF: &str = "com.docker.compose.oneoff";
/// Configuration hash.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Id of the image a container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// `service:condition:restart`, comma-separated.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Absolute paths of the project's files, comma-separated.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// Project directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Version of the program that made the object.
pub const VERSION: &str = "com.docker.compose.version";
/// Key of a network in the file.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of a volume in the file.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Name of the container that a new one takes the place of.
pub const REPLACE: &str = "com.docker.compose.replace";
/// `stack/service/slot`.
pub const TASK: &str = "io.wharfie.task";
/// The revision of the service: [`crate::shared::revision`].
pub const REVISION: &str = "io.wharfie.revision";
/// Of a container: the ports that every node publishes for its service, as `8080:80/tcp`, with spaces
/// between them.
pub const PORTS: &str = "io.wharfie.ports";
/// Of a network: who answers for names on it on this node.
pub const RESOLVER: &str = "io.wharfie.resolver";

/// Of a network: hash of what its file says, where it is made otherwise ([`RESOLVER`]).
pub const DEFINITION: &str = "io.wharfie.definition";

/// What we say of our version where docker compose says its own.
pub const OUR_VERSION: &str = concat!("wharfie-", env!("CARGO_PKG_VERSION"));

/// The labels of a container of a service. `number` is `None` for one-off containers; `hash` is
/// [`crate::shared::config_hash`].
#[must_use]
pub fn container(
    project: &Project,
    service: &Service,
    hash: &str,
    number: Option<u32>,
    image_id: &str,
) -> BTreeMap<String, String> {
    let depends_on: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, d)| format!("{name}:{}:{}", condition(d.condition), d.restart))
        .collect();
    let files: Vec<String> = project
        .files
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let mut labels = service.labels.clone();
    labels.extend(
        [
            (PROJECT, project.name.clone()),
            (SERVICE, service.name.clone()),
            (
                ONEOFF,
                if number.is_none() { "True" } else { "False" }.to_owned(),
            ),
            (REVISION, crate::shared::revision(project, service)),
            (CONFIG_HASH, hash.to_owned()),
            (IMAGE, image_id.to_owned()),
            (DEPENDS_ON, depends_on.join(",")),
            (CONFIG_FILES, files.join(",")),
            (WORKING_DIR, project.working_dir.display().to_string()),
            (VERSION, OUR_VERSION.to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    );
    if let Some(number) = number {
        labels.insert(NUMBER.to_owned(), number.to_string());
        let task = format!("{}/{}/{number}", project.name, service.name);
        labels.insert(TASK.to_owned(), task);
    }
    labels
}

/// The labels of a network or volume (`kind` is [`NETWORK`] or [`VOLUME`]).
#[must_use]
pub fn resource(
    project: &str,
    kind: &str,
    key: &str,
    hash: &str,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = own.clone();
    labels.extend(
        [
            (PROJECT, project),
            (kind, key),
            (CONFIG_HASH, hash),
            (VERSION, OUR_VERSION),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    labels
}

/// A condition as the specification spells it.
#[must_use]
pub fn condition(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::CompletedSuccessfully => "service_completed_successfully",
    }
}

/// Names of the services in a [`DEPENDS_ON`] label.
pub fn dependencies(label: &str) -> impl Iterator<Item = &str> {
    label
        .split(',')
        .filter_map(|d| d.split(':').next())
        .filter(|n| !n.is_empty())
}
