//! `build --print`: the builds as a bake file, for those who want to run them with `buildx bake`.

use serde_json::{Map, Value, json};
use wharfie_compose::model::{Build, Project, Service, Ulimit};
use wharfie_core::names;

/// The bake file of these services.
pub(crate) fn file<'a>(
    project: &Project,
    services: impl Iterator<Item = (&'a Service, &'a Build)>,
) -> Value {
    let mut targets = Map::new();
    for (service, build) in services {
        targets.insert(service.name.clone(), target(project, service, build));
    }
    let names: Vec<&String> = targets.keys().collect();
    json!({ "group": { "default": { "targets": names } }, "target": targets })
}

fn target(project: &Project, service: &Service, build: &Build) -> Value {
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty {
            out.insert(key.to_owned(), value);
        }
    };
    let contexts = build.additional_contexts.iter().map(|(name, value)| {
        let other = value.strip_prefix("service:");
        let value = other.map_or_else(|| value.clone(), |other| format!("target:{other}"));
        (name.clone(), Value::from(value))
    });
    set("context", json!(build.context));
    set("contexts", contexts.collect::<Map<_, _>>().into());
    if build.dockerfile_inline.is_empty() {
        let dockerfile = if build.context.contains("://") {
            build.dockerfile.clone()
        } else {
            let path = std::path::Path::new(&build.context).join(&build.dockerfile);
            path.display().to_string()
        };
        set("dockerfile", json!(dockerfile));
    }
    set("dockerfile-inline", json!(build.dockerfile_inline));
    let args = build.args.iter().filter_map(|(name, value)| {
        let value = value.as_ref().or_else(|| project.environment.get(name))?;
        Some((name.clone(), Value::from(value.clone())))
    });
    set("args", args.collect::<Map<_, _>>().into());
    let mut labels = build.labels.clone();
    labels.insert("com.docker.compose.project".into(), project.name.clone());
    labels.insert("com.docker.compose.service".into(), service.name.clone());
    set("labels", json!(labels));
    let mut tags = build.tags.clone();
    tags.push(names::image(project, service));
    set("tags", json!(tags));
    set("cache-from", json!(build.cache_from));
    set("cache-to", json!(build.cache_to));
    set("target", json!(build.target));
    let secrets = build.secrets.iter().filter_map(|secret| {
        let object = project.secrets.get(&secret.source)?;
        let id = if secret.target.is_empty() {
            &secret.source
        } else {
            &secret.target
        };
        Some(if object.environment.is_empty() {
            format!("id={id},type=file,src={}", object.file)
        } else {
            format!("id={id},type=env,env={}", object.environment)
        })
    });
    set("secret", json!(secrets.collect::<Vec<_>>()));
    let ssh = build.ssh.0.iter();
    let ssh = ssh.map(|(id, path)| format!("{id}={}", path.as_deref().unwrap_or_default()));
    set("ssh", json!(ssh.collect::<Vec<_>>()));
    set("platforms", json!(build.platforms));
    set("pull", json!(build.pull));
    set("no-cache", json!(build.no_cache));
    set("network", json!(build.network));
    if !build.shm_size.is_zero() {
        set("shm-size", json!(build.shm_size.0.to_string()));
    }
    let limits = build.ulimits.iter().map(|(name, limit)| match *limit {
        Ulimit::Single(both) => format!("{name}={both}"),
        Ulimit::Pair { soft, hard } => format!("{name}={soft}:{hard}"),
    });
    set("ulimits", json!(limits.collect::<Vec<_>>()));
    let mut entitlements = build.entitlements.clone();
    if build.privileged {
        entitlements.push("security.insecure".to_owned());
    }
    set("entitlements", json!(entitlements));
    let hosts = build.extra_hosts.0.iter();
    let hosts = hosts.map(|(name, addresses)| (name.clone(), json!(addresses.join(","))));
    set("extra-hosts", hosts.collect::<Map<_, _>>().into());
    set("output", json!(["type=docker"]));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_their_contexts() {
        let service = json!({"build": {
            "context": "/src", "dockerfile": "Dockerfile", "target": "base",
            "additional_contexts": {"lib": "service:lib", "x": "/x"},
            "args": {"A": "1", "B": null},
        }});
        let mut service: Service = serde_json::from_value(service).unwrap();
        service.name = "web".to_owned();
        let project = Project {
            name: "p".into(),
            ..Project::default()
        };
        let build = service.build.as_ref().unwrap();
        let file = file(&project, std::iter::once((&service, build)));
        assert_eq!(file["group"]["default"]["targets"], json!(["web"]));
        let target = &file["target"]["web"];
        assert_eq!(target["contexts"], json!({"lib": "target:lib", "x": "/x"}));
        assert_eq!(target["dockerfile"], "/src/Dockerfile");
        assert_eq!(target["args"], json!({"A": "1"}));
        assert_eq!(target["tags"], json!(["p-web"]));
        assert!(target.get("secret").is_none());
    }
}
