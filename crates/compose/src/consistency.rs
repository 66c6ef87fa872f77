//! What must hold between the elements of a project.

use std::collections::BTreeMap;

use crate::check::{Findings, TreeFault};
use crate::model::{MountKind, Project, Service};
use crate::node::Node;

/// Checks that need no other element, on the merged tree.
pub(crate) fn shapes(tree: &Node, findings: &mut Findings) {
    let Findings { faults, warnings } = findings;
    let mut fault = |node: &Node, message: String| {
        faults.push(TreeFault {
            mark: node.mark,
            message,
            help: None,
        });
    };
    let text =
        |node: &Node, key: &str| node.get(key).and_then(Node::text).filter(|t| !t.is_empty());
    for (name, service) in tree.children("services") {
        for (i, port) in service.items("ports").iter().enumerate() {
            if let Some(ip) = text(port, "host_ip")
                && ip.parse::<std::net::IpAddr>().is_err()
                && !ip.contains('$')
            {
                fault(
                    port,
                    format!("`services.{name}.ports[{i}].host_ip`: {ip:?} is not an IP address"),
                );
            }
        }
        let devices = service
            .get("deploy")
            .and_then(|d| d.get("resources"))
            .and_then(|r| r.get("reservations"))
            .map_or(&[][..], |r| r.items("devices"));
        for request in devices.iter().chain(service.items("gpus")) {
            if request.get("count").is_some() && request.get("device_ids").is_some() {
                fault(
                    request,
                    format!(
                        "a device request of `{name}` has both `count` and `device_ids`; keep one"
                    ),
                );
            }
        }
        for rule in service.get("develop").map_or(&[][..], |d| d.items("watch")) {
            if rule
                .get("path")
                .and_then(Node::as_str)
                .is_some_and(str::is_empty)
            {
                fault(
                    rule,
                    format!("`services.{name}.develop.watch`: `path` is empty"),
                );
            }
        }
    }
    for section in ["networks", "volumes"] {
        for (name, resource) in tree.children(section) {
            if text(resource, "external").as_deref() != Some("true") {
                continue;
            }
            let other = resource.as_map().and_then(|m| {
                m.iter().find(|(k, _)| {
                    !matches!(k.as_str(), "name" | "external") && !k.starts_with("x-")
                })
            });
            let Some((other, entry)) = other else {
                continue;
            };
            let message =
                format!("`{section}.{name}` is external: `{other}` cannot be set with it");
            if section == "volumes" {
                fault(&entry.node, message);
            } else {
                // The reference accepts it, without effect.
                warnings.push((entry.key, format!("{message} and has no effect")));
            }
        }
    }
    for (section, sources) in [
        ("secrets", &["file", "environment"][..]),
        ("configs", &["file", "environment", "content"]),
    ] {
        for (name, object) in tree.children(section) {
            if text(object, "external").as_deref() == Some("true") {
                continue;
            }
            // The content of a variable is filled in by us, not by the user.
            let given = |key: &&&str| {
                object.get(key).is_some()
                    && !(**key == "content"
                        && object.get("environment").is_some()
                        && object.get("content").is_some_and(|c| c.mark.line == 0))
            };
            match sources.iter().filter(given).count() {
                0 => fault(
                    object,
                    format!("`{section}.{name}` needs one of: {}", sources.join(", ")),
                ),
                1 => {}
                _ => fault(
                    object,
                    format!(
                        "`{section}.{name}` may have only one of: {}",
                        sources.join(", ")
                    ),
                ),
            }
        }
    }
}

/// Checks the services that are to run against the rest of the project. Returns each fault
/// with the path of its attribute. `scale` is copied to `deploy.replicas`, as the reference does.
pub(crate) fn check(project: &mut Project) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    crate::firewall::check_stack(project, &mut |path, message| faults.push((path, message)));
    crate::address::check_stack(project, &mut |path, message| faults.push((path, message)));
    for (name, service) in &project.services {
        let mut fault = |path, message| faults.push((path, message));
        crate::firewall::check_service(project, name, service, &mut fault);
        crate::address::check_service(name, service, &mut fault);
        check_service(project, name, service, &mut |path, message| {
            let path = if path.is_empty() {
                format!("services.{name}")
            } else {
                format!("services.{name}.{path}")
            };
            faults.push((path, message));
        });
    }
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        if service.container_name.is_empty() {
            continue;
        }
        if let Some(other) = names.insert(&service.container_name, name) {
            faults.push((
                format!("services.{name}.container_name"),
                format!("services `{other}` and `{name}` have the same container_name"),
            ));
        }
    }
    if let Some(cycle) = cycle(&project.services) {
        let last = &cycle[cycle.len() - 1];
        faults.push((
            format!("services.{last}.depends_on"),
            format!("dependency cycle: {}", cycle.join(" -> ")),
        ));
    }
    for service in project.services.values_mut() {
        if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
            deploy.replicas = Some(scale);
        }
    }
    faults
}

fn check_service(
    project: &Project,
    name: &str,
    service: &Service,
    fault: &mut dyn FnMut(&str, String),
) {
    if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
        fault(
            "",
            format!("service `{name}` has neither `image` nor `build`"),
        );
    }
    if let Some(build) = &service.build {
        if !build.dockerfile.is_empty() && !build.dockerfile_inline.is_empty() {
            fault(
                "build.dockerfile_inline",
                format!("service `{name}` has both `dockerfile` and `dockerfile_inline`; keep one"),
            );
        }
        if !build.platforms.is_empty()
            && !service.platform.is_empty()
            && !build.platforms.contains(&service.platform)
        {
            fault(
                "build.platforms",
                format!(
                    "`build.platforms` of `{name}` must include its `platform`, {}",
                    service.platform
                ),
            );
        }
        for context in build.additional_contexts.values() {
            if let Some(other) = context.strip_prefix("service:")
                && project.any_service(other).is_none()
            {
                fault(
                    "build.additional_contexts",
                    format!("service `{name}` builds from service `{other}`, which is not defined"),
                );
            }
        }
        for secret in &build.secrets {
            if !project.secrets.contains_key(&secret.source) {
                fault(
                    "build.secrets",
                    format!(
                        "service `{name}` refers to secret `{}`, which is not defined",
                        secret.source
                    ),
                );
            }
        }
    }
    if !service.network_mode.is_empty() && !service.networks.is_empty() {
        fault(
            "network_mode",
            format!("service `{name}` has both `network_mode` and `networks`; keep one"),
        );
    }
    for network in service.networks.keys() {
        if !project.networks.contains_key(network) {
            fault(
                &format!("networks.{network}"),
                format!("service `{name}` refers to network `{network}`, which is not defined"),
            );
        }
    }
    if let Some(test) = service.healthcheck.as_ref().and_then(|h| h.test.first())
        && !matches!(test.as_str(), "CMD" | "CMD-SHELL" | "NONE")
    {
        fault(
            "healthcheck.test",
            "`healthcheck.test` must begin with CMD, CMD-SHELL or NONE".to_owned(),
        );
    }
    for (other, dependency) in &service.depends_on {
        if project.services.contains_key(other) {
            continue;
        }
        let disabled = project.disabled_services.contains_key(other);
        if disabled && !dependency.required {
            continue;
        }
        let why = if disabled {
            "is not in an active profile"
        } else {
            "is not defined"
        };
        fault(
            &format!("depends_on.{other}"),
            format!("service `{name}` depends on service `{other}`, which {why}"),
        );
    }
    if let Some(other) = service.network_mode.strip_prefix("service:")
        && project.any_service(other).is_none()
    {
        fault(
            "network_mode",
            format!("service `{name}` shares the network of `{other}`, which is not defined"),
        );
    }
    for (i, mount) in service.volumes.iter().enumerate() {
        if mount.kind == MountKind::Volume
            && !mount.source.is_empty()
            && !project.volumes.contains_key(&mount.source)
        {
            fault(
                &format!("volumes[{i}]"),
                format!(
                    "service `{name}` refers to volume `{}`, which is not defined",
                    mount.source
                ),
            );
        }
    }
    for (i, mount) in service.volumes.iter().enumerate() {
        if mount.kind == MountKind::Bind && mount.source.is_empty() {
            fault(
                &format!("volumes[{i}]"),
                format!("a bind mount of service `{name}` has no `source`"),
            );
        }
        let same = |t: &&String| t.split(':').next() == Some(mount.target.as_str());
        if service.tmpfs.iter().any(|t| same(&t)) {
            fault(
                &format!("volumes[{i}]"),
                format!(
                    "service `{name}` mounts a volume and a tmpfs at {}",
                    mount.target
                ),
            );
        }
    }
    for (list, kind, known) in [
        (&service.configs, "config", &project.configs),
        (&service.secrets, "secret", &project.secrets),
    ] {
        for (i, used) in list.iter().enumerate() {
            if !known.contains_key(&used.source) {
                fault(
                    &format!("{kind}s[{i}]"),
                    format!(
                        "service `{name}` refers to {kind} `{}`, which is not defined",
                        used.source
                    ),
                );
            }
        }
    }
    for model in service.models.keys() {
        if !project.models.contains_key(model) {
            fault(
                &format!("models.{model}"),
                format!("service `{name}` refers to model `{model}`, which is not defined"),
            );
        }
    }
    check_limits(name, service, fault);
    if service.replicas() > 1 && !service.container_name.is_empty() {
        let attribute = if service.scale.is_some() {
            "scale"
        } else {
            "deploy.replicas"
        };
        fault(
            "container_name",
            format!(
                "service `{name}` has a container_name, which only one container can have, and {attribute} {}",
                service.replicas()
            ),
        );
    }
    for rule in service.develop.iter().flat_map(|d| &d.watch) {
        if !matches!(rule.action.as_str(), "rebuild" | "restart") && rule.target.is_empty() {
            fault(
                "develop.watch",
                format!(
                    "`services.{name}.develop.watch`: action {} needs `target`",
                    rule.action
                ),
            );
        }
    }
}

/// The same limit may be written in two places, but not differently.
fn check_limits(name: &str, service: &Service, fault: &mut dyn FnMut(&str, String)) {
    let Some(deploy) = &service.deploy else {
        return;
    };
    let mut distinct = |a: &str, b: &str| {
        fault(
            a,
            format!("service `{name}` has different values for `{a}` and `{b}`"),
        );
    };
    if let (Some(scale), Some(replicas)) = (service.scale, deploy.replicas)
        && scale != replicas
    {
        distinct("scale", "deploy.replicas");
    }
    #[allow(clippy::float_cmp)] // both come from text: equal text, equal value
    if let Some(limits) = &deploy.resources.limits {
        if !service.cpus.is_zero() && limits.cpus.0 != service.cpus.0 {
            distinct("cpus", "deploy.resources.limits.cpus");
        }
        if !service.mem_limit.is_zero() && limits.memory != service.mem_limit {
            distinct("mem_limit", "deploy.resources.limits.memory");
        }
        if service.pids_limit != 0 && limits.pids != service.pids_limit {
            distinct("pids_limit", "deploy.resources.limits.pids");
        }
    }
    if let Some(reservations) = &deploy.resources.reservations
        && !service.mem_reservation.is_zero()
        && reservations.memory != service.mem_reservation
    {
        distinct("mem_reservation", "deploy.resources.reservations.memory");
    }
}

/// A cycle of `depends_on`, first service first and last.
fn cycle(services: &BTreeMap<String, Service>) -> Option<Vec<String>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    for start in services.keys() {
        // An explicit stack: a chain of thousands of services must not exhaust ours.
        let mut stack: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut enter = Some(start.as_str());
        loop {
            if let Some(name) = enter.take() {
                match states.get(name) {
                    Some(State::Done) => {}
                    Some(State::Open) => {
                        let from = stack.iter().position(|(n, _)| *n == name).unwrap_or(0);
                        let mut path: Vec<String> =
                            stack[from..].iter().map(|(n, _)| (*n).to_owned()).collect();
                        path.push(name.to_owned());
                        return Some(path);
                    }
                    None => {
                        states.insert(name, State::Open);
                        let next = services.get(name).map_or_else(Vec::new, |s| {
                            s.depends_on
                                .keys()
                                .rev()
                                .map(String::as_str)
                                .filter(|d| services.contains_key(*d))
                                .collect()
                        });
                        stack.push((name, next));
                    }
                }
            }
            let Some((name, rest)) = stack.last_mut() else {
                break;
            };
            match rest.pop() {
                Some(next) => enter = Some(next),
                None => {
                    states.insert(name, State::Done);
                    stack.pop();
                }
            }
        }
    }
    None
}
