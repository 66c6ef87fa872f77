//! What is wanted of a stack, in the form in which it is stored and sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wharfie_compose::model::{Mapping, Project, Service};

use crate::reconcile::{Refusal, UpOptions, selection};
use crate::seen::Seen;

/// A project with everything the model leaves out of its JSON, but for variables that nothing in
/// it refers to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    project: Project,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    disabled_services: BTreeMap<String, Service>,
    working_dir: PathBuf,
    files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<String>,
    /// Options of networks' address management, which the reference's JSON leaves out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ipam_options: BTreeMap<String, Mapping>,
}

impl From<&Project> for Definition {
    fn from(project: &Project) -> Self {
        let objects = project.secrets.values().chain(project.configs.values());
        let environment = objects
            .filter_map(|o| project.environment.get_key_value(&o.environment))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        Self {
            disabled_services: project.disabled_services.clone(),
            working_dir: project.working_dir.clone(),
            files: project.files.clone(),
            environment,
            profiles: project.profiles.clone(),
            ipam_options: project
                .networks
                .iter()
                .map(|(k, n)| (k.clone(), n.ipam.options.clone()))
                .filter(|(_, options)| !options.is_empty())
                .collect(),
            project: project.clone(),
        }
    }
}

impl From<Definition> for Project {
    fn from(definition: Definition) -> Self {
        let mut project = definition.project;
        project.disabled_services = definition.disabled_services;
        for (name, service) in project
            .services
            .iter_mut()
            .chain(&mut project.disabled_services)
        {
            service.name.clone_from(name);
        }
        for (key, options) in definition.ipam_options {
            if let Some(network) = project.networks.get_mut(&key) {
                network.ipam.options = options;
            }
        }
        project.working_dir = definition.working_dir;
        project.files = definition.files;
        project.environment = definition.environment;
        project.profiles = definition.profiles;
        project
    }
}

mod whole {
    use super::{Definition, Project};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(project: &Project, s: S) -> Result<S::Ok, S::Error> {
        Definition::from(project).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Project, D::Error> {
        Definition::deserialize(d).map(Project::from)
    }
}

/// What is wanted of one stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// The project. A service that an `up` left out stands in it as the last `up` of it said.
    #[serde(with = "whole")]
    pub project: Project,
    /// Services that are to run.
    #[serde(default)]
    pub active: BTreeSet<String>,
    /// Number of containers by service, where it is not the file's.
    #[serde(default)]
    pub scale: BTreeMap<String, u32>,
    /// Tasks (see [`task`]) that were stopped and are to stay so.
    #[serde(default)]
    pub halted: BTreeSet<String>,
    /// Ids of the images that services' names meant at their last `up`. Nodes get them from each other;
    /// where a name means another image by now it is taken from a node that has this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Id of the node where `up` was made, with its files; empty as long as there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub home: String,
}

/// Key of a task within its stack: `service/number`.
#[must_use]
pub fn task(service: &str, number: u32) -> String {
    format!("{service}/{number}")
}

/// The service of a task's key.
#[must_use]
pub fn service_of(task: &str) -> &str {
    task.rsplit_once('/').map_or(task, |(service, _)| service)
}

impl Stack {
    /// What is wanted after an `up`, given what was wanted before.
    ///
    /// # Errors
    /// [`Refusal::NoSuchService`].
    pub fn after_up(
        before: Option<&Self>,
        project: &Project,
        options: &UpOptions,
        seen: &Seen,
    ) -> Result<Self, Refusal> {
        let selected = selection(project, &options.services, options.no_deps)?;
        let mut stack = Self {
            project: project.clone(),
            active: selected.keys().map(|s| (*s).to_owned()).collect(),
            ..Self::default()
        };
        for (service, count) in &options.scale {
            if stack.active.contains(service) {
                stack.scale.insert(service.clone(), *count);
            }
        }
        if let Some(before) = before {
            stack.images.clone_from(&before.images);
            stack.keep_others(before, options.no_recreate);
        }
        if options.no_start {
            let containers = seen.containers.iter().filter(|c| !c.oneoff);
            let running: BTreeSet<String> = containers
                .filter(|c| c.is_running())
                .map(|c| task(&c.service, c.number))
                .collect();
            for name in selected.keys() {
                let tasks = (1..=stack.count(name)).map(|n| task(name, n));
                stack.halted.extend(tasks.filter(|t| !running.contains(t)));
            }
        }
        Ok(stack)
    }

    /// Takes over what an `up` of other services leaves alone.
    fn keep_others(&mut self, before: &Self, also_selected: bool) {
        for name in &before.active {
            let selected = self.active.contains(name);
            let Some(service) = before.project.any_service(name) else {
                continue;
            };
            if self.project.any_service(name).is_none() || (selected && !also_selected) {
                continue;
            }
            self.project.disabled_services.remove(name);
            self.project.services.insert(name.clone(), service.clone());
            self.active.insert(name.clone());
            if !selected && let Some(count) = before.scale.get(name) {
                self.scale.insert(name.clone(), *count);
            }
            if !selected {
                let halted = before.halted.iter().filter(|t| service_of(t) == name);
                self.halted.extend(halted.cloned());
            }
            self.adopt_resources(&before.project, service);
        }
    }

    /// Takes over what a service of an earlier file refers to.
    fn adopt_resources(&mut self, from: &Project, service: &Service) {
        fn copy<T: Clone>(
            to: &mut BTreeMap<String, T>,
            from: &BTreeMap<String, T>,
            keys: impl Iterator<Item = String>,
        ) {
            for key in keys {
                if let (Some(value), false) = (from.get(&key), to.contains_key(&key)) {
                    to.insert(key, value.clone());
                }
            }
        }
        let to = &mut self.project;
        copy(
            &mut to.networks,
            &from.networks,
            service.networks.keys().cloned(),
        );
        let volumes = service.volumes.iter().map(|m| m.source.clone());
        copy(&mut to.volumes, &from.volumes, volumes);
        let secrets = service.secrets.iter().map(|s| s.source.clone());
        copy(&mut to.secrets, &from.secrets, secrets);
        let configs = service.configs.iter().map(|s| s.source.clone());
        copy(&mut to.configs, &from.configs, configs);
        for (name, value) in &from.environment {
            let values = &mut to.environment;
            values.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// Number of containers that a service is to have; 0 if it is not to run.
    #[must_use]
    pub fn count(&self, service: &str) -> u32 {
        let Some(definition) = self
            .project
            .any_service(service)
            .filter(|_| self.active.contains(service))
        else {
            return 0;
        };
        crate::shared::replicas(definition, self.scale.get(service).copied())
    }

    /// Lets go of services: they are no longer wanted.
    pub fn drop_services(&mut self, services: &[String]) {
        self.active.retain(|s| !services.contains(s));
        self.scale.retain(|s, _| !services.contains(s));
        self.halted
            .retain(|t| !services.iter().any(|s| s == service_of(t)));
    }

    /// The options of the plan that makes everything as it is wanted, and changes nothing else.
    #[must_use]
    pub fn options(&self) -> UpOptions {
        UpOptions {
            services: self.active.iter().cloned().collect(),
            no_deps: true,
            scale: self.scale.clone(),
            no_build: true,
            keep_images: true,
            ..UpOptions::default()
        }
    }
}

/// What differs between two versions of a stack, in words; `before` is none for the first.
#[must_use]
pub fn changes(before: Option<&Stack>, after: Option<&Stack>) -> Vec<String> {
    let none = Stack::default();
    let (Some(old), Some(new)) = (before.or(Some(&none)), after) else {
        return vec!["taken down".to_owned()];
    };
    let mut changes = Vec::new();
    for name in new.active.difference(&old.active) {
        changes.push(format!("{name} added"));
    }
    for name in old.active.difference(&new.active) {
        changes.push(format!("{name} removed"));
    }
    for name in new.active.intersection(&old.active) {
        let revision = |stack: &Stack| {
            let service = stack.project.any_service(name);
            service.map(|s| crate::shared::revision(&stack.project, s))
        };
        if revision(old) != revision(new) {
            changes.push(format!("{name} changed"));
        }
        let (from, to) = (old.count(name), new.count(name));
        if from != to {
            changes.push(format!("{name} scaled from {from} to {to}"));
        }
    }
    for task in new.halted.difference(&old.halted) {
        changes.push(format!("{task} stopped"));
    }
    for task in old.halted.difference(&new.halted) {
        if new.active.contains(service_of(task)) {
            changes.push(format!("{task} started"));
        }
    }
    changes
}
