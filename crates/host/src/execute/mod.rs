//! Executes a plan: as parallel as its order allows, with every step's progress told.

mod containers;
mod resources;
mod wait;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};
use wharfie_compose::model::{Project, Service};
use wharfie_core::{Container, Operation, Plan, Seen};

use crate::build::BuildFlags;
use crate::translate::{Given, Other};
use crate::{Engine, Error};
use containers::Recreation;

/// Requests to the Engine at a time: more do not make it faster.
const PARALLEL: usize = 16;

/// What happens to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has begun.
    Started,
    /// A line of its output.
    Note(String),
    /// It is done.
    Done,
    /// It has failed.
    Failed(String),
}

/// Is told what happens to each step.
pub trait Progress: Send + Sync {
    /// Something happened to the step with this index.
    fn event(&self, step: usize, event: Event);
}

/// What an execution needs beside the plan.
pub struct ExecuteContext<'a> {
    /// The project; plans that only stop and remove need none.
    pub project: Option<&'a Project>,
    /// What the plan was made from.
    pub seen: &'a Seen,
    /// How builds go about it.
    pub build: BuildFlags,
    /// Requests at a time; 0 for the usual number.
    pub parallel: usize,
    /// Becomes true when the work is to be given up: what is at work is finished, but containers
    /// are not waited for while they stop, and nothing new is begun.
    pub cancel: Option<watch::Receiver<bool>>,
    /// Containers of other nodes by name, as reported last; none where there are no others.
    pub elsewhere: Option<&'a Elsewhere>,
    /// What containers get on networks that span nodes; none where there are no others.
    pub addresses: Option<&'a Addresses>,
    /// Called, and waited for, before a container that runs is stopped.
    pub leave: Option<&'a Leave>,
}

/// Has nothing new led to a container, by its id or name.
pub type Leave = dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync;

/// What a new container of a service gets on a network, if that spans nodes; or why there can be no such
/// container.
pub type Addresses = dyn Fn(&str, &str) -> Result<Option<Given>, String> + Send + Sync;

/// Finds a container of another node by its name.
pub type Elsewhere = dyn Fn(&str) -> Option<Container> + Send + Sync;

/// Containers of each service, by number, as they are now.
type Containers = BTreeMap<String, BTreeMap<u32, Other>>;

struct Executor<'a> {
    engine: &'a Engine,
    context: &'a ExecuteContext<'a>,
    containers: Mutex<Containers>,
    slots: Semaphore,
    /// Something failed: nothing new is begun, and nothing is waited for any longer.
    failed: AtomicBool,
    progress: &'a dyn Progress,
}

impl Engine {
    /// Executes a plan. After a failure nothing new is begun, and what runs is waited for.
    /// Dropping the future ends it at once: the same command finishes what is left.
    ///
    /// # Errors
    /// Every failure.
    pub async fn execute(
        &self,
        context: &ExecuteContext<'_>,
        plan: &Plan,
        progress: &dyn Progress,
    ) -> Result<(), Vec<Error>> {
        let mut containers = Containers::new();
        for c in context.seen.containers.iter().filter(|c| !c.oneoff) {
            let other = Other {
                id: c.id.clone(),
                name: c.name.clone(),
            };
            containers
                .entry(c.service.clone())
                .or_default()
                .insert(c.number, other);
        }
        let executor = Executor {
            engine: self,
            context,
            containers: Mutex::new(containers),
            slots: Semaphore::new(match context.parallel {
                0 => PARALLEL,
                n => n.min(1024),
            }),
            failed: AtomicBool::new(false),
            progress,
        };
        let result = executor.run(plan).await;
        let removes = |o: &Operation| {
            matches!(
                o,
                Operation::RemoveContainer { .. } | Operation::RecreateContainer { .. }
            )
        };
        if plan.steps.iter().any(|s| removes(&s.operation)) {
            self.sweep().await;
        }
        result
    }
}

impl Executor<'_> {
    async fn run(&self, plan: &Plan) -> Result<(), Vec<Error>> {
        let mut waiting: Vec<usize> = plan.steps.iter().map(|s| s.after.len()).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
        for (i, step) in plan.steps.iter().enumerate() {
            for &before in &step.after {
                followers[before].push(i);
            }
        }
        let mut running = FuturesUnordered::new();
        let mut errors = Vec::new();
        let ready = waiting.iter().enumerate().filter(|(_, n)| **n == 0);
        for (i, _) in ready {
            running.push(self.step(i, &plan.steps[i].operation));
        }
        while let Some((i, result)) = running.next().await {
            if result.is_none() && errors.is_empty() {
                errors.push(Error::Cancelled("all".to_owned()));
            }
            match result {
                Some(Ok(())) => self.progress.event(i, Event::Done),
                // A wait that was given up because of another failure tells nothing.
                Some(Err(Error::Cancelled(_))) | None => {}
                Some(Err(error)) => {
                    self.failed.store(true, Ordering::Relaxed);
                    self.progress.event(i, Event::Failed(error.to_string()));
                    errors.push(error);
                }
            }
            if !errors.is_empty() {
                continue;
            }
            for &next in &followers[i] {
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    running.push(self.step(next, &plan.steps[next].operation));
                }
            }
        }
        if self.is_cancelled() && errors.is_empty() {
            errors.push(Error::Cancelled("all".to_owned()));
        }
        if errors.len() > 1 {
            errors.retain(|e| !matches!(e, Error::Cancelled(_)));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn is_cancelled(&self) -> bool {
        let cancel = self.context.cancel.as_ref();
        cancel.is_some_and(|c| *c.borrow())
    }

    /// Returns when the work is to be given up.
    async fn cancelled(&self) {
        let Some(cancel) = &self.context.cancel else {
            return std::future::pending().await;
        };
        let mut cancel = cancel.clone();
        // Whoever could cancel is gone: nobody will.
        if cancel.wait_for(|c| *c).await.is_err() {
            std::future::pending().await
        }
    }

    /// Stops a container; the Engine goes on with it if the work is given up.
    async fn stop(&self, id: &str, timeout: Option<i64>) -> Result<(), Error> {
        tokio::select! {
            stopped = self.engine.stop(id, timeout) => stopped,
            () = self.cancelled() => Err(Error::Cancelled(format!("stopping {id}"))),
        }
    }

    /// Does a step; `None` if something else failed before it began.
    async fn step(
        &self,
        index: usize,
        operation: &Operation,
    ) -> (usize, Option<Result<(), Error>>) {
        // A wait takes no slot: what it waits for may need one.
        let _slot = match operation {
            Operation::Wait { .. } => None,
            _ => self.slots.acquire().await.ok(),
        };
        if self.failed.load(Ordering::Relaxed) || self.is_cancelled() {
            return (index, None);
        }
        self.progress.event(index, Event::Started);
        let note = |line: &str| self.progress.event(index, Event::Note(line.to_owned()));
        (index, Some(self.operation(operation, &note).await))
    }

    async fn operation(
        &self,
        operation: &Operation,
        note: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let engine = self.engine;
        match operation {
            Operation::PullImage { service, image } => {
                let platform = self
                    .service(service)
                    .map(|s| s.platform.clone())
                    .unwrap_or_default();
                engine.pull(image, &platform, &mut |line| note(line)).await
            }
            Operation::BuildImage { service, image } => self.build(service, image, note).await,
            Operation::CreateNetwork { network, name } => self.create_network(network, name).await,
            Operation::RemoveNetwork { name, .. } => self.remove_network(name, note).await,
            Operation::CreateVolume { volume, name } => self.create_volume(volume, name).await,
            Operation::RemoveVolume { name } => {
                let options = bollard::query_parameters::RemoveVolumeOptionsBuilder::default()
                    .force(true)
                    .build();
                let result = engine.docker.remove_volume(name, Some(options)).await;
                result.map_err(|e| Error::from_engine(format!("cannot remove volume {name}"), e))
            }
            Operation::RemoveImage { image } => {
                let options = None::<bollard::query_parameters::RemoveImageOptions>;
                let result = engine.docker.remove_image(image, options, None).await;
                result
                    .map(drop)
                    .map_err(|e| Error::from_engine(format!("cannot remove image {image}"), e))
            }
            Operation::CreateContainer {
                service,
                number,
                name,
            } => {
                let id = self
                    .create(service, *number, name, name, BTreeMap::new(), None)
                    .await?;
                self.remember(service, *number, id, name);
                Ok(())
            }
            Operation::RecreateContainer {
                service,
                number,
                name,
                old,
                renew_volumes,
                start_first,
                timeout,
                ..
            } => {
                let how = Recreation {
                    renew_volumes: *renew_volumes,
                    start_first: *start_first,
                    timeout: *timeout,
                };
                self.recreate(service, *number, name, old, how).await
            }
            Operation::StartContainer { service, name } => {
                match engine.start(name).await {
                    Err(error) if error.is_left_over_task() => {
                        note("the Engine died while it started this container; making it anew");
                        self.renew(service, name).await?;
                        engine.start(name).await?;
                    }
                    Err(error) if engine.has_lost_files(&error) => {
                        note("its secrets were in memory and went with a boot; making it anew");
                        self.renew(service, name).await?;
                        engine.start(name).await?;
                        engine.sweep().await;
                    }
                    started => started?,
                }
                self.hooks(service, name, |s| &s.post_start, "post_start")
                    .await
            }
            Operation::RestartContainer {
                service,
                name,
                timeout,
                ..
            } => {
                self.leave(name).await;
                self.hooks(service, name, |s| &s.pre_stop, "pre_stop")
                    .await?;
                match engine.restart(name, *timeout).await {
                    Err(error) if engine.has_lost_files(&error) => {
                        note("its secrets were in memory and went with a boot; making it anew");
                        self.renew(service, name).await?;
                        engine.start(name).await?;
                        engine.sweep().await;
                    }
                    restarted => restarted?,
                }
                self.hooks(service, name, |s| &s.post_start, "post_start")
                    .await
            }
            Operation::Wait {
                name,
                condition,
                required,
                elsewhere,
                ..
            } => {
                let met = match elsewhere {
                    true => self.wait_elsewhere(name, *condition).await,
                    false => self.wait(name, *condition).await,
                };
                match met {
                    Err(error) if !required => {
                        note(&format!("{error}; it is not required"));
                        Ok(())
                    }
                    result => result,
                }
            }
            Operation::StopContainer {
                service,
                id,
                timeout,
                ..
            } => {
                self.leave(id).await;
                self.hooks(service, id, |s| &s.pre_stop, "pre_stop").await?;
                self.stop(id, *timeout).await
            }
            Operation::SignalContainer { id, signal, .. } => engine.kill(id, Some(signal)).await,
            Operation::RemoveContainer {
                service,
                id,
                running,
                volumes,
                timeout,
                ..
            } => {
                if *running {
                    self.leave(id).await;
                    self.hooks(service, id, |s| &s.pre_stop, "pre_stop").await?;
                    match self.stop(id, *timeout).await {
                        Err(e) if e.is_not_found() => return Ok(()),
                        result => result?,
                    }
                }
                engine.remove_only(id, *volumes, true).await
            }
        }
    }

    pub(super) async fn leave(&self, container: &str) {
        if let Some(leave) = self.context.leave {
            leave(container).await;
        }
    }

    fn project(&self) -> Result<&Project, Error> {
        self.context
            .project
            .ok_or_else(|| Error::Local("this needs the project's file".to_owned()))
    }

    fn service(&self, name: &str) -> Option<&Service> {
        self.context.project?.any_service(name)
    }

    fn known_service(&self, name: &str) -> Result<&Service, Error> {
        self.service(name)
            .ok_or_else(|| Error::Local(format!("no such service: {name}")))
    }

    /// The containers now, in the order of their numbers.
    fn others(&self) -> BTreeMap<String, Vec<Other>> {
        let containers = self
            .containers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        containers
            .iter()
            .map(|(service, by_number)| (service.clone(), by_number.values().cloned().collect()))
            .collect()
    }

    fn remember(&self, service: &str, number: u32, id: String, name: &str) {
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let other = Other {
            id,
            name: name.to_owned(),
        };
        containers
            .entry(service.to_owned())
            .or_default()
            .insert(number, other);
    }
}
