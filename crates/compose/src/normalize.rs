//! Defaults and implied parts, filled into a merged tree.

use std::collections::BTreeMap;

use crate::check::{Findings, TreeFault};
use crate::node::{Map, Mark, Node, Value};

fn flag(value: bool) -> Node {
    Value::Bool(value).into()
}

fn empty() -> Node {
    Value::Map(Map::new()).into()
}

/// Defaults that hold whether or not the model is normalised.
pub(crate) fn defaults(tree: &mut Node, findings: &mut Findings) {
    for (_, service) in tree.children_mut("services") {
        if let Some(build) = service.get_mut("build") {
            build.set_default("context", || ".".into());
        }
        for (_, dependency) in service.children_mut("depends_on") {
            dependency.set_default("required", || flag(true));
        }
        for file in service.items_mut("env_file") {
            file.set_default("required", || flag(true));
        }
        for secret in service.items_mut("secrets") {
            if let Some(source) = secret.get("source").and_then(Node::text) {
                secret.set_default("target", || {
                    Node::from(format!("/run/secrets/{source}").as_str())
                });
            }
        }
        for port in service.items_mut("ports") {
            port.set_default("protocol", || "tcp".into());
            port.set_default("mode", || "ingress".into());
        }
        if let Some(dropped) = service.remove("pull_refresh_after") {
            findings.warnings.push((
                dropped.mark,
                "`pull_refresh_after` has no effect; write `pull_policy: every_<duration>`"
                    .to_owned(),
            ));
        }
        let gpus = service.items_mut("gpus").iter_mut();
        gpus.for_each(device_request);
        if let Some(devices) = service
            .get_mut("deploy")
            .and_then(|d| d.get_mut("resources"))
            .and_then(|r| r.get_mut("reservations"))
        {
            devices
                .items_mut("devices")
                .iter_mut()
                .for_each(device_request);
        }
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        for (key, resource) in tree.children_mut(section) {
            external(section, key, resource, findings);
        }
    }
}

/// A device request that names neither a count nor ids asks for all.
fn device_request(request: &mut Node) {
    if request.get("count").is_none() && request.get("device_ids").is_none() {
        request.set("count", "all".into());
    }
}

/// The obsolete `external: {name: …}` becomes `external: true` and `name`.
fn external(section: &str, key: &str, resource: &mut Node, findings: &mut Findings) {
    let Some(external) = resource.get("external") else {
        return;
    };
    let Value::Map(map) = &external.value else {
        return;
    };
    let mark = external.mark;
    let inner = map.get("name").map(|e| e.node.clone());
    if let Some(inner) = inner {
        if let Some(name) = resource.get("name")
            && name.text() != inner.text()
        {
            findings.faults.push(TreeFault {
                mark: inner.mark,
                message: format!(
                    "`{section}.{key}` has two names: `name` and the obsolete `external.name`"
                ),
                help: Some("keep `name`".to_owned()),
            });
        }
        resource.set("name", inner);
    }
    resource.set("external", Node::new(Value::Bool(true), mark));
}

/// What the specification implies: networks, names, dependencies.
pub(crate) fn implied(tree: &mut Node, name: &str, environment: &BTreeMap<String, String>) {
    default_network(tree);
    for (_, service) in tree.children_mut("services") {
        if service.get("pull_policy").and_then(Node::as_str) == Some("if_not_present") {
            service.set("pull_policy", "missing".into());
        }
        if let Some(build) = service.get_mut("build")
            && build.get("dockerfile_inline").is_none()
        {
            build.set_default("dockerfile", || "Dockerfile".into());
        }
        dependencies(service);
        for mount in service.items_mut("volumes") {
            if let Some(Node {
                value: Value::Str(target),
                ..
            }) = mount.get_mut("target")
            {
                *target = crate::paths::clean(std::path::Path::new(target))
                    .display()
                    .to_string();
            }
        }
    }
    environment_values(tree, environment, true);
    for section in ["networks", "volumes", "secrets", "configs"] {
        for (key, resource) in tree.children_mut(section) {
            if resource.is_null() {
                resource.value = Value::Map(Map::new());
            }
            let is_external = resource
                .get("external")
                .and_then(Node::text)
                .is_some_and(|t| t == "true");
            let default = if is_external {
                key.clone()
            } else {
                format!("{name}_{key}")
            };
            resource.set_default("name", || default.as_str().into());
        }
    }
}

/// Variables without a value take it from the environment. Build arguments that stay
/// without one are dropped when `final_pass` is set: the builder then asks its own.
pub(crate) fn environment_values(
    tree: &mut Node,
    environment: &BTreeMap<String, String>,
    final_pass: bool,
) {
    let fill = |map: &mut Map| {
        for (key, entry) in map.iter_mut() {
            if entry.node.is_null()
                && let Some(value) = environment.get(key)
            {
                entry.node.value = Value::Str(value.clone());
            }
        }
    };
    for (_, service) in tree.children_mut("services") {
        if let Some(map) = service.get_mut("environment").and_then(Node::as_map_mut) {
            fill(map);
        }
        let args = service.get_mut("build").and_then(|b| b.get_mut("args"));
        if let Some(map) = args.and_then(Node::as_map_mut) {
            fill(map);
            if final_pass {
                map.retain(|_, e| !e.node.is_null());
            }
        }
    }
    // Content of secrets and configs is fixed while the environment of their file is known.
    for section in ["secrets", "configs"] {
        for (_, object) in tree.children_mut(section) {
            let value = object
                .get("environment")
                .and_then(Node::as_str)
                .and_then(|name| environment.get(name));
            if let Some(value) = value.cloned() {
                object.set_default("content", || value.as_str().into());
            }
        }
    }
}

fn default_network(tree: &mut Node) {
    let mut used = false;
    for (_, service) in tree.children_mut("services") {
        if service.get("provider").is_some() || service.get("network_mode").is_some() {
            continue;
        }
        let listed = service.get("networks").and_then(Node::as_map);
        if listed.is_none_or(Map::is_empty) {
            let mut networks = empty();
            networks.set("default", Node::default());
            service.set("networks", networks);
            used = true;
        } else if listed.is_some_and(|n| n.contains_key("default")) {
            used = true;
        }
    }
    if used {
        if tree.get("networks").is_none() {
            tree.set("networks", empty());
        }
        if let Some(networks) = tree.get_mut("networks")
            && networks.get("default").is_none()
        {
            networks.set("default", Node::default());
        }
    }
}

/// Sharing a namespace, volumes or a link makes a dependency.
fn dependencies(service: &mut Node) {
    let mut implied: Vec<(String, Mark, bool)> = Vec::new();
    for link in service.items("links") {
        if let Some(text) = link.as_str() {
            let name = text.split(':').next().unwrap_or(text);
            implied.push((name.to_owned(), link.mark, true));
        }
    }
    for namespace in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(namespace)
            && let Some(name) = node.as_str().and_then(|t| t.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), node.mark, true));
        }
    }
    for source in service.items("volumes_from") {
        if let Some(text) = source.as_str().filter(|t| !t.starts_with("container:")) {
            let name = text.split(':').next().unwrap_or(text);
            implied.push((name.to_owned(), source.mark, false));
        }
    }
    if implied.is_empty() {
        return;
    }
    if service.get("depends_on").is_none() {
        service.set("depends_on", empty());
    }
    let Some(depends_on) = service.get_mut("depends_on") else {
        return;
    };
    for (name, mark, restart) in implied {
        if depends_on.get(&name).is_some() {
            continue;
        }
        let mut dependency = Node::new(Value::Map(Map::new()), mark);
        dependency.set("condition", "service_started".into());
        if restart {
            dependency.set("restart", flag(true));
        }
        dependency.set("required", flag(true));
        depends_on.set(&name, dependency);
    }
}
