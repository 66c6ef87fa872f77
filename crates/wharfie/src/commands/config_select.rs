//! Which part of a project `config SERVICE...` shows.

use std::collections::BTreeSet;

use serde_json::Value;
use wharfie_compose::Project;

use crate::context;
use crate::failure::Failure;

/// Restricts a project to services and what they depend on, and to the resources these use unless all
/// are wanted.
pub(super) fn select(
    project: &mut Project,
    names: &[String],
    all_resources: bool,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    context::check_services(project, names)?;
    let selected = wharfie_core::reconcile::selection(project, names, false)
        .map_err(|refusal| Failure::usage(refusal.to_string()))?;
    let kept: BTreeSet<String> = selected.into_keys().map(str::to_owned).collect();
    project.services.retain(|name, _| kept.contains(name));
    if all_resources {
        return Ok(());
    }
    // The default network is shown whoever uses it, as the reference does.
    let default = project.networks.remove_entry("default");
    project.drop_unused();
    project.networks.extend(default);
    Ok(())
}

/// The named services of a tree and what they depend on, dependencies first.
pub(super) fn with_dependencies(model: &Value, names: &[String]) -> Result<Vec<String>, Failure> {
    let mut order = Vec::new();
    let mut begun = BTreeSet::new();
    let mut stack: Vec<(String, bool)> = names.iter().rev().map(|n| (n.clone(), false)).collect();
    while let Some((name, expanded)) = stack.pop() {
        if expanded {
            order.push(name);
            continue;
        }
        let Some(service) = model["services"].get(&name) else {
            return Err(Failure::usage(format!("no such service: {name}")));
        };
        if begun.insert(name.clone()) {
            stack.push((name, true));
            let dependencies = service["depends_on"].as_object().into_iter().flatten();
            stack.extend(dependencies.map(|(d, _)| (d.clone(), false)));
        }
    }
    Ok(order)
}
