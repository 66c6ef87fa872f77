//! Services that programs outside provide. They are there before any container is made, because
//! what they tell goes into the environment of the services that depend on them.

use wharfie_compose::Loaded;
use wharfie_compose::model::Project;
use wharfie_core::reconcile;
use wharfie_host::provider::{self, Request};

use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::output::progress::{Progress, State};
use crate::output::warn;

/// Has the providers of services (all if none is named), and of those they depend on, provide
/// them.
pub(crate) async fn up(
    context: &Context,
    loaded: &mut Loaded,
    services: &[String],
    no_deps: bool,
) -> Result<(), Failure> {
    if !any(&loaded.project) {
        return Ok(());
    }
    let project = &loaded.project;
    let selection = reconcile::selection(project, services, no_deps)
        .map_err(|r| Failure::usage(r.to_string()))?;
    let provided: Vec<String> = selection
        .into_values()
        .filter(|s| s.provider.is_some())
        .map(|s| s.name.clone())
        .collect();
    let progress = context.progress();
    for name in provided {
        let Some(service) = loaded.project.services.get(&name) else {
            continue;
        };
        if let Some(other) = service.depends_on.keys().next() {
            let path = format!("services.{name}.depends_on");
            let why = format!(
                "{path}: a provider is run before any container: it cannot wait for {other}"
            );
            return Err(Failure::Refused(loaded.fault_at(&path, why).into()));
        }
        if context.dry_run() {
            warn(&format!(
                "the provider of {name} is not run, and what it would tell is not known"
            ));
            continue;
        }
        let variables = run(&loaded.project, &name, Request::Up, &progress).await?;
        let prefix = name.to_uppercase();
        for service in loaded.project.services.values_mut() {
            if service.depends_on.contains_key(&name) {
                let set = variables.iter();
                let set = set.map(|(k, v)| (format!("{prefix}_{k}"), Some(v.clone())));
                service.environment.extend(set);
            }
        }
    }
    progress.finish();
    Ok(())
}

/// Has the providers of services (all if none is named) give them up.
pub(crate) async fn down(
    project: &Project,
    services: &[String],
    progress: &Progress,
) -> Result<(), Failure> {
    let meant = |name: &String| services.is_empty() || services.contains(name);
    for (name, service) in &project.services {
        if service.provider.is_some() && meant(name) {
            run(project, name, Request::Down, progress).await?;
        }
    }
    Ok(())
}

/// Whether any service is provided by a program.
pub(crate) fn any(project: &Project) -> bool {
    project.services.values().any(|s| s.provider.is_some())
}

async fn run(
    project: &Project,
    name: &str,
    request: Request,
    progress: &Progress,
) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let provider = project.services.get(name).and_then(|s| s.provider.as_ref());
    let Some(provider) = provider else {
        return Ok(Default::default());
    };
    let subject = format!("Provider {name}");
    let (doing, done) = match request {
        Request::Up => ("Creating", "Created"),
        Request::Down => ("Removing", "Removed"),
    };
    progress.update(&subject, doing, State::Working);
    let mut say = |line: &str| progress.line(&format!("{name} | {line}"));
    match provider::run(project, name, provider, request, &mut say).await {
        Ok(variables) => {
            progress.update(&subject, done, State::Done);
            Ok(variables)
        }
        Err(error) => {
            progress.update(&subject, "Error", State::Failed);
            progress.finish();
            Err(Failure::Failed(Message::new(error.to_string())))
        }
    }
}
