//! What several decisions need to know of a service: with whom it lives, its hash, its number.

use wharfie_compose::model::{Project, Service};

/// Services whose first container must be there before one of this service can be made.
pub fn with(service: &Service) -> impl Iterator<Item = &str> {
    let namespaces = [
        &service.network_mode,
        &service.ipc,
        &service.pid,
        &service.uts,
        &service.cgroup,
    ]
    .into_iter()
    .filter_map(|mode| mode.strip_prefix("service:"));
    let volumes = service
        .volumes_from
        .iter()
        .filter(|v| !v.starts_with("container:"))
        .filter_map(|v| v.split(':').next());
    namespaces.chain(volumes)
}

/// Services whose containers a service names in its links.
pub fn linked(service: &Service) -> impl Iterator<Item = &str> {
    let names = service.links.iter();
    names.filter_map(|link| link.split(':').next())
}

/// The configuration hash that a container of a service is labelled with. As docker compose
/// does, it is taken with the ids of the containers it shares with in place of the services'
/// names: a container that shares with one that is gone is then not up to date. `id` gives the
/// id of a service's first container; `None` if one has none.
pub fn config_hash(service: &Service, id: impl Fn(&str) -> Option<String>) -> Option<String> {
    if service.volumes_from.is_empty() && with(service).next().is_none() {
        return Some(wharfie_compose::config_hash(service));
    }
    let mut resolved = service.clone();
    for mode in [
        &mut resolved.network_mode,
        &mut resolved.ipc,
        &mut resolved.pid,
    ] {
        if let Some(other) = mode.strip_prefix("service:") {
            *mode = format!("container:{}", id(other)?);
        }
    }
    for source in &mut resolved.volumes_from {
        *source = match source.strip_prefix("container:") {
            // Modes are left out, as the reference does; the revision has them.
            Some(container) => container.split(':').next().unwrap_or_default().to_owned(),
            None => id(source.split(':').next().unwrap_or_default())?,
        };
    }
    Some(wharfie_compose::config_hash(&resolved))
}

/// The revision of a service: the first digits of the hash of its definition and of what is
/// copied into its containers. Unlike the configuration hash it knows nothing of other containers.
#[must_use]
pub fn revision(project: &Project, service: &Service) -> String {
    let mut whole = service.clone();
    for (kind, used, objects) in [
        ("secret", &service.secrets, &project.secrets),
        ("config", &service.configs, &project.configs),
    ] {
        for reference in used {
            let Some(object) = objects.get(&reference.source) else {
                continue;
            };
            let variable = project.environment.get(&object.environment);
            let content = Some(&object.content).filter(|c| !c.is_empty()).or(variable);
            if let Some(content) = content {
                // A label stands in for the content: the hash covers labels.
                let key = format!("{kind} {}", reference.source);
                whole.labels.insert(key, content.clone());
            }
        }
    }
    let mut hash = wharfie_compose::config_hash(&whole);
    hash.truncate(12);
    hash
}

/// Number of containers that a service is to have: what is asked for, or what its file says.
#[must_use]
pub fn replicas(service: &Service, asked: Option<u32>) -> u32 {
    let deploy = service.deploy.as_ref();
    let own = || {
        if deploy.is_some_and(|d| d.mode.starts_with("global")) {
            1
        } else {
            u32::try_from(service.replicas()).unwrap_or(0)
        }
    };
    asked.unwrap_or_else(own)
}
