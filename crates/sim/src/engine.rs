//! A model of a host's Engine: containers take time, fail, and outlive the agent.

use std::collections::BTreeMap;

use wharfie_compose::model::Project;
use wharfie_core::{
    Container, Health, Image, Operation, Seen, State, Volume, labels, names, shared,
};

use crate::stacks::Fate;
use crate::time::{MS, Micros};

/// The Engine of a host.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// Whether it answers. What it ran goes on without it.
    pub(crate) up: bool,
    /// All containers.
    pub(crate) containers: Vec<Container>,
    volumes: BTreeMap<String, Volume>,
    next: u64,
}

/// What came of an operation.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// A container whose main process was begun: its image decides what becomes of it.
    pub(crate) started: Option<String>,
    /// A container that was made, by its id.
    pub(crate) made: Option<String>,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self {
            up: true,
            ..Self::default()
        }
    }

    /// What there is of a project. Every image is there, but for those that cannot be had.
    pub(crate) fn seen(&self, name: &str, project: Option<&Project>) -> Seen {
        let mut seen = Seen {
            containers: (self.containers.iter())
                .filter(|c| c.project() == name)
                .cloned()
                .collect(),
            ..Seen::default()
        };
        let Some(project) = project else {
            return seen;
        };
        for service in project.services.values() {
            let image = names::image(project, service);
            let id = image_id(&image);
            seen.images.insert(image, Image { id, tagged: 0 });
        }
        let own = |v: &&wharfie_compose::model::Volume| self.volumes.contains_key(&v.name);
        let own = project.volumes.values().filter(own);
        seen.volumes = own
            .map(|v| (v.name.clone(), self.volumes[&v.name].clone()))
            .collect();
        seen
    }

    /// Does one operation.
    ///
    /// # Errors
    /// It cannot be done: why.
    pub(crate) fn apply(
        &mut self,
        project: &Project,
        operation: &Operation,
    ) -> Result<Done, String> {
        if !self.up {
            return Err("the Engine does not answer".to_owned());
        }
        let mut done = Done::default();
        match operation {
            Operation::CreateContainer {
                service,
                number,
                name,
            } => done.made = Some(self.create(project, service, *number, name)?),
            Operation::RecreateContainer {
                service,
                number,
                name,
                old,
                ..
            } => {
                if !self.containers.iter().any(|c| c.id == *old) {
                    return Err(format!("No such container: {old}"));
                }
                let fate = project.any_service(service).map(|s| Fate::of(&s.image));
                if fate == Some(Fate::Unmade) {
                    return Err(unmade(service));
                }
                self.containers.retain(|c| c.id != *old);
                done.made = Some(self.create(project, service, *number, name)?);
            }
            Operation::StartContainer { name, .. } | Operation::RestartContainer { name, .. } => {
                let c = self.containers.iter_mut().find(|c| c.name == *name);
                let c = c.ok_or_else(|| format!("No such container: {name}"))?;
                c.state = State::Running;
                c.exit_code = None;
                c.health = match c.health {
                    Health::None => Health::None,
                    _ => Health::Starting,
                };
                done.started = Some(c.id.clone());
            }
            Operation::StopContainer { id, .. } | Operation::SignalContainer { id, .. } => {
                self.end(id, 143);
            }
            Operation::RemoveContainer { id, .. } => self.containers.retain(|c| c.id != *id),
            Operation::CreateVolume { volume, name } => {
                let hash = wharfie_compose::volume_hash(&project.volumes[volume]);
                let kind = labels::VOLUME;
                let none = BTreeMap::new();
                let labels = labels::resource(&project.name, kind, volume, &hash, &none);
                self.volumes.insert(name.clone(), Volume { labels });
            }
            Operation::RemoveVolume { name } => drop(self.volumes.remove(name)),
            // Images are there, and the stacks have no networks.
            _ => {}
        }
        Ok(done)
    }

    fn create(
        &mut self,
        project: &Project,
        service: &str,
        number: u32,
        name: &str,
    ) -> Result<String, String> {
        let Some(definition) = project.any_service(service) else {
            return Err(format!("no such service: {service}"));
        };
        if Fate::of(&definition.image) == Fate::Unmade {
            return Err(unmade(service));
        }
        if self.containers.iter().any(|c| c.name == *name) {
            return Err(format!("the name {name} is taken"));
        }
        self.next += 1;
        let image = names::image(project, definition);
        let label = |key: &str, value: String| (key.to_owned(), value);
        let health = match definition.healthcheck {
            Some(_) => Health::Starting,
            None => Health::None,
        };
        let mounts = definition.volumes.iter().filter_map(|m| {
            let volume = project.volumes.get(&m.source)?;
            Some((volume.name.clone(), m.target.clone()))
        });
        let container = Container {
            id: format!("c{}", self.next),
            name: name.to_owned(),
            service: service.to_owned(),
            number,
            health,
            config_hash: shared::config_hash(definition, |_| None).unwrap_or_default(),
            image_id: image_id(&image),
            labels: [
                label(labels::PROJECT, project.name.clone()),
                label(labels::REVISION, shared::revision(project, definition)),
            ]
            .into(),
            mounts: mounts.collect(),
            image,
            ..Container::default()
        };
        let id = container.id.clone();
        self.containers.push(container);
        Ok(id)
    }

    /// A container's main process ends.
    pub(crate) fn end(&mut self, id: &str, code: i64) {
        let found = self.containers.iter_mut().find(|c| c.id == id);
        if let Some(c) = found.filter(|c| c.is_running()) {
            c.state = State::Exited;
            c.exit_code = Some(code);
            if c.health != Health::None {
                c.health = Health::Starting;
            }
        }
    }

    /// It shows what becomes of a container that was started; whether that changes anything.
    pub(crate) fn show(&mut self, id: &str) -> bool {
        let found = self.containers.iter_mut().find(|c| c.id == id);
        let Some(c) = found.filter(|c| c.state == State::Running) else {
            return false;
        };
        let before = (c.state, c.health);
        match Fate::of(&c.image) {
            Fate::Serves if c.health != Health::None => c.health = Health::Healthy,
            Fate::Sick if c.health != Health::None => c.health = Health::Unhealthy,
            Fate::Ends => {
                let id = c.id.clone();
                self.end(&id, 1);
                return true;
            }
            _ => {}
        }
        before != (c.state, c.health)
    }

    /// The host goes down: nothing runs any more.
    pub(crate) fn die(&mut self) {
        let ids: Vec<String> = self.containers.iter().map(|c| c.id.clone()).collect();
        for id in ids {
            self.end(&id, 255);
        }
    }
}

fn unmade(service: &str) -> String {
    format!("image of {service} is not found")
}

fn image_id(image: &str) -> String {
    format!("sha256:{image}")
}

/// How long an operation takes at least, and how much longer at most.
pub(crate) fn takes(operation: &Operation) -> (Micros, Micros) {
    match operation {
        Operation::CreateContainer { .. } => (20 * MS, 100 * MS),
        Operation::RecreateContainer { .. } => (50 * MS, 600 * MS),
        Operation::StartContainer { .. } => (50 * MS, 300 * MS),
        Operation::RestartContainer { .. }
        | Operation::StopContainer { .. }
        | Operation::RemoveContainer { .. } => (50 * MS, 500 * MS),
        _ => (MS, 5 * MS),
    }
}

/// Whether a container is known to serve.
pub(crate) fn serves(container: &Container) -> bool {
    container.state == State::Running && matches!(container.health, Health::None | Health::Healthy)
}
