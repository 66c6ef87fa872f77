//! Definitions of one service: what it refers to goes with it.

use std::collections::BTreeMap;

use wharfie_compose::model::Service;

use crate::shared;
use crate::wanted::Stack;

/// The revision of a service as a stack says; none if it is not to run.
pub(crate) fn revision(stack: &Stack, service: &str) -> Option<String> {
    let active = stack.active.contains(service);
    let definition = stack.project.any_service(service).filter(|_| active)?;
    Some(shared::revision(&stack.project, definition))
}

/// A stack with nothing in it but one service and what it refers to.
pub(super) fn only(stack: &Stack, service: &str) -> Stack {
    let mut only = Stack::default();
    only.project.name.clone_from(&stack.project.name);
    put(&mut only, stack, service);
    only.active.insert(service.to_owned());
    only
}

/// A stack with one service as another version says. What it refers to comes with it: what its
/// revision covers (secrets and configs) as it was, also for others that use it; networks and volumes
/// only if they are missing, since there can be only one of a name.
pub(crate) fn graft(stack: &Stack, former: &Stack, service: &str) -> Stack {
    let mut stack = stack.clone();
    put(&mut stack, former, service);
    stack
}

fn put(to: &mut Stack, from: &Stack, service: &str) {
    let (to, from) = (&mut to.project, &from.project);
    let Some(definition) = from.any_service(service) else {
        return;
    };
    to.disabled_services.remove(service);
    let services = &mut to.services;
    services.insert(service.to_owned(), definition.clone());
    let Service {
        networks,
        volumes,
        secrets,
        configs,
        ..
    } = definition;
    copy(&mut to.networks, &from.networks, networks.keys(), false);
    let volumes = volumes.iter().map(|m| &m.source);
    copy(&mut to.volumes, &from.volumes, volumes, false);
    let secrets = secrets.iter().map(|s| &s.source);
    let configs = configs.iter().map(|c| &c.source);
    let objects = secrets.clone().filter_map(|s| from.secrets.get(s));
    let objects = objects.chain(configs.clone().filter_map(|c| from.configs.get(c)));
    let variables = objects.map(|o| &o.environment);
    copy(&mut to.environment, &from.environment, variables, true);
    copy(&mut to.secrets, &from.secrets, secrets, true);
    copy(&mut to.configs, &from.configs, configs, true);
}

fn copy<'a, T: Clone>(
    to: &mut BTreeMap<String, T>,
    from: &BTreeMap<String, T>,
    keys: impl Iterator<Item = &'a String>,
    over: bool,
) {
    for key in keys {
        if let Some(value) = from.get(key).filter(|_| over || !to.contains_key(key)) {
            to.insert(key.clone(), value.clone());
        }
    }
}
