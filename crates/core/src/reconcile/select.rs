//! Which services are meant, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_compose::model::{Project, Service};

use super::Refusal;

/// The services that are meant by a list of names: they and, unless `no_deps`, what they
/// depend on; every service of the project for an empty list. A named service counts even if
/// none of its profiles is active.
///
/// # Errors
/// [`Refusal::NoSuchService`].
pub fn selection<'a>(
    project: &'a Project,
    names: &[String],
    no_deps: bool,
) -> Result<BTreeMap<&'a str, &'a Service>, Refusal> {
    if names.is_empty() {
        return Ok(project
            .services
            .iter()
            .map(|(n, s)| (n.as_str(), s))
            .collect());
    }
    let mut out = BTreeMap::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        let Some(service) = project.any_service(name) else {
            return Err(Refusal::NoSuchService(name.to_owned()));
        };
        if out.insert(service.name.as_str(), service).is_some() || no_deps {
            continue;
        }
        for (dependency, how) in &service.depends_on {
            if how.required || project.services.contains_key(dependency) {
                open.push(dependency);
            }
        }
    }
    Ok(out)
}

/// Names in an order in which each comes after those it depends on. `depends_on` gives the
/// names a name depends on; those outside the list do not count. A cycle is broken anywhere.
pub(super) fn dependencies_first<'a>(
    names: impl IntoIterator<Item = &'a str>,
    depends_on: impl Fn(&str) -> Vec<&'a str>,
) -> Vec<&'a str> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut out = Vec::new();
    for &start in &names {
        // An explicit stack: chains may be long.
        let mut stack = vec![(start, false)];
        while let Some((name, expanded)) = stack.pop() {
            if expanded {
                out.push(name);
                continue;
            }
            if !done.insert(name) {
                continue;
            }
            stack.push((name, true));
            for dependency in depends_on(name).into_iter().rev() {
                if names.contains(dependency) && !done.contains(dependency) {
                    stack.push((dependency, false));
                }
            }
        }
    }
    out
}

/// Services in an order in which each comes before those it depends on.
#[must_use]
pub fn dependents_first(project: &Project) -> Vec<&str> {
    let mut order = dependencies_first(project.services.keys().map(String::as_str), |name| {
        project.services.get(name).map_or_else(Vec::new, |s| {
            s.depends_on.keys().map(String::as_str).collect()
        })
    });
    order.reverse();
    order
}
