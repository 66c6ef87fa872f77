//! The way to the containers: commands know no other. Today it is the Docker Engine of one
//! host; tomorrow it is the agent's API.

use std::sync::Mutex;

use futures_util::Stream;
use wharfie_compose::model::Project;
use wharfie_compose::{Faults, Loaded};
use wharfie_core::reconcile::{self, UpOptions};
use wharfie_core::{Operation, Plan};
use wharfie_host::{Engine, ExecuteContext, Scope};

pub(crate) use wharfie_core::{Container, Seen, State};
pub(crate) use wharfie_host::{
    BuildFlags, ContainerEvent, ExecOptions, LogOptions, OneOff, Output, ProjectLock,
    ProjectSummary, Session,
};

use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::output::progress::{self, Progress};
use crate::output::{self, warn};

/// A connection to what runs containers.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    engine: Engine,
    parallel: usize,
    dry_run: bool,
}

/// How a plan is executed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Execution {
    /// How images are built.
    pub(crate) build: BuildFlags,
    /// Say nothing of pulls.
    pub(crate) quiet_pull: bool,
    /// Say nothing of builds.
    pub(crate) quiet_build: bool,
}

impl Control {
    /// Connects.
    pub(crate) async fn connect(context: &Context) -> Result<Self, Failure> {
        let engine = Engine::connect(context.global.host.as_deref()).await?;
        Ok(Self {
            engine,
            parallel: usize::try_from(context.global.parallel).unwrap_or(0),
            dry_run: context.dry_run(),
        })
    }

    /// The Engine that containers are looked at and talked to through.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether nothing may be done.
    pub(crate) fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// Fails if a plan makes what the Engine cannot, and tells what it does otherwise.
    pub(crate) fn check(&self, loaded: &Loaded, plan: &Plan) -> Result<(), Failure> {
        let (api, builder) = (self.engine().api(), self.engine().builder());
        let findings = wharfie_host::support::check(&loaded.project, plan, api, builder);
        for finding in &findings.notices {
            let place = loaded
                .locate(&finding.path)
                .map(|l| format!("{l}: "))
                .unwrap_or_default();
            warn(&format!("{place}{}: {}", finding.path, finding.reason));
        }
        let mut faults = Faults::default();
        for finding in &findings.refused {
            faults.push(loaded.fault_at(
                &finding.path,
                format!("{}: {}", finding.path, finding.reason),
            ));
        }
        faults.into_result().map_err(Failure::Refused)
    }

    /// Waits until no other `wharfie` changes the project, and keeps others off until the lock
    /// is dropped.
    pub(crate) async fn lock(&self, project: &str) -> Result<Option<ProjectLock>, Failure> {
        if self.dry_run {
            return Ok(None);
        }
        if let Some(lock) = ProjectLock::try_take(self.engine.address(), project)? {
            return Ok(Some(lock));
        }
        warn(&format!(
            "another wharfie is at work on project {project}: waiting until it is done"
        ));
        Ok(Some(
            ProjectLock::take(self.engine.address(), project).await?,
        ))
    }

    /// What there is of a project: its images and the resources of others that it uses too.
    pub(crate) async fn observe(&self, project: &Project) -> Result<Seen, Failure> {
        Ok(self.engine.observe(Scope::Project(project)).await?)
    }

    /// What there is under the label of a project.
    pub(crate) async fn observe_name(&self, project: &str) -> Result<Seen, Failure> {
        Ok(self.engine.observe(Scope::Name(project)).await?)
    }

    /// The containers of a project.
    pub(crate) async fn containers(&self, project: &str) -> Result<Vec<Container>, Failure> {
        Ok(self.engine.containers(project, false).await?)
    }

    /// All projects.
    pub(crate) async fn projects(&self, all: bool) -> Result<Vec<ProjectSummary>, Failure> {
        Ok(self.engine.projects(all).await?)
    }

    /// Plans `up`; what stands against it is shown where it is written.
    pub(crate) fn plan_up(
        &self,
        loaded: &Loaded,
        seen: &Seen,
        options: &UpOptions,
    ) -> Result<Plan, Failure> {
        reconcile::up(&loaded.project, seen, options).map_err(|refusal| match refusal.path() {
            Some(path) => Failure::Refused(loaded.fault_at(&path, refusal.to_string()).into()),
            None => Failure::usage(refusal.to_string()),
        })
    }

    /// Executes a plan and shows its progress; with `--dry-run` only shows the plan.
    pub(crate) async fn execute(
        &self,
        project: Option<&Project>,
        seen: &Seen,
        plan: &Plan,
        execution: &Execution,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if self.dry_run {
            output::lines(plan.steps.iter().map(|s| s.operation.to_string()))?;
            return Ok(());
        }
        if plan.is_empty() {
            return Ok(());
        }
        let context = ExecuteContext {
            project,
            seen,
            build: execution.build.clone(),
            parallel: self.parallel,
        };
        let reporter = Reporter {
            plan,
            execution,
            progress,
            building: Mutex::default(),
        };
        let outcome = self.engine.execute(&context, plan, &reporter);
        progress
            .during(outcome)
            .await
            .map_err(|errors| Failure::all(errors.into_iter().map(Failure::from)))
    }

    /// What a container says.
    pub(crate) fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> impl Stream<Item = Result<Output, Failure>> + Send + use<> {
        use futures_util::StreamExt;
        self.engine.logs(id, options).map(|item| Ok(item?))
    }

    /// What happens to the containers of a project.
    pub(crate) fn events(
        &self,
        project: &str,
        since: Option<i64>,
        until: Option<i64>,
    ) -> impl Stream<Item = Result<ContainerEvent, Failure>> + Send + use<> {
        use futures_util::StreamExt;
        self.engine
            .events(project, since, until)
            .map(|item| Ok(item?))
    }

    /// Starts a command in a container; nothing is returned if it is left to itself.
    pub(crate) async fn exec(
        &self,
        id: &str,
        options: &ExecOptions,
    ) -> Result<Option<Session>, Failure> {
        Ok(self.engine.exec(id, options).await?)
    }

    /// Attaches to a container.
    pub(crate) async fn attach(&self, id: &str, input: bool) -> Result<Session, Failure> {
        Ok(self.engine.attach(id, input).await?)
    }

    /// Makes a container for `run`; its id.
    pub(crate) async fn create_one_off(&self, wanted: &OneOff<'_>) -> Result<String, Failure> {
        Ok(self.engine.create_one_off(wanted).await?)
    }

    /// Starts a container.
    pub(crate) async fn start(&self, id: &str) -> Result<(), Failure> {
        Ok(self.engine.start(id).await?)
    }

    /// Sends a signal to a container.
    pub(crate) async fn kill(&self, id: &str, signal: &str) -> Result<(), Failure> {
        Ok(self.engine.kill(id, Some(signal)).await?)
    }

    /// Halts a container.
    pub(crate) async fn pause(&self, id: &str) -> Result<(), Failure> {
        Ok(self.engine.pause(id).await?)
    }

    /// Lets a container go on.
    pub(crate) async fn unpause(&self, id: &str) -> Result<(), Failure> {
        Ok(self.engine.unpause(id).await?)
    }

    /// Removes a container whatever it does, and its anonymous volumes.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Failure> {
        Ok(self.engine.remove(id, true, true).await?)
    }

    /// Waits until a container has ended; its exit code.
    pub(crate) async fn wait(&self, id: &str) -> Result<i64, Failure> {
        Ok(self.engine.wait(id).await?)
    }

    /// The processes of a container: titles and rows.
    pub(crate) async fn top(&self, id: &str) -> Result<(Vec<String>, Vec<Vec<String>>), Failure> {
        Ok(self.engine.top(id).await?)
    }
}

impl From<wharfie_host::Error> for Failure {
    fn from(error: wharfie_host::Error) -> Self {
        use wharfie_host::Error;
        let text = error.to_string();
        // What to do stands behind the last semicolon.
        let (what, help) = match text.rsplit_once("; ") {
            Some((what, help)) if !matches!(error, Error::Refused { .. } | Error::Build(_)) => {
                (what, Some(help))
            }
            _ => (text.as_str(), None),
        };
        let message = Message {
            what: what.to_owned(),
            help: help.map(str::to_owned),
        };
        match error {
            Error::Gone { .. } => Self::NoEngine(message),
            e if e.is_engine_away() => Self::NoEngine(message),
            _ => Self::Failed(message),
        }
    }
}

/// Shows what an execution tells.
struct Reporter<'a> {
    plan: &'a Plan,
    execution: &'a Execution,
    progress: &'a Progress,
    /// Output of builds that is shown only if they fail.
    building: Mutex<Vec<(usize, String)>>,
}

impl Reporter<'_> {
    fn silent(&self, operation: &Operation) -> bool {
        match operation {
            Operation::PullImage { .. } => self.execution.quiet_pull,
            Operation::BuildImage { .. } => self.execution.quiet_build,
            _ => false,
        }
    }

    /// A line of a build, behind the service's name if several are built.
    fn marked(&self, operation: &Operation, line: &str) -> String {
        let is_build = |o: &Operation| matches!(o, Operation::BuildImage { .. });
        let several = self
            .plan
            .steps
            .iter()
            .filter(|s| is_build(&s.operation))
            .count()
            > 1;
        match operation {
            Operation::BuildImage { service, .. } if several => format!("{service} | {line}"),
            _ => line.to_owned(),
        }
    }

    fn building(&self) -> std::sync::MutexGuard<'_, Vec<(usize, String)>> {
        self.building
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl wharfie_host::Progress for Reporter<'_> {
    fn event(&self, step: usize, event: wharfie_host::Event) {
        use progress::State;
        use wharfie_host::Event;
        let Some(operation) = self.plan.steps.get(step).map(|s| &s.operation) else {
            return;
        };
        let (subject, (doing, done)) = (operation.subject(), operation.progress());
        let silent = self.silent(operation);
        let is_build = matches!(operation, Operation::BuildImage { .. });
        match event {
            Event::Started if !silent => self.progress.update(&subject, doing, State::Working),
            Event::Done if !silent => self.progress.update(&subject, done, State::Done),
            Event::Note(line) if is_build => {
                self.progress.detail(&subject, &line);
                let line = self.marked(operation, &line);
                if silent || self.progress.is_tty() {
                    self.building().push((step, line));
                } else {
                    self.progress.line(&line);
                }
            }
            Event::Note(line) if matches!(operation, Operation::PullImage { .. }) => {
                if !silent {
                    self.progress.detail(&subject, &line);
                }
            }
            Event::Note(line) => self.progress.line(&line),
            Event::Failed(_) => {
                // Said also to those who want to hear nothing else.
                let lines = self.building();
                self.progress.above(|| {
                    lines
                        .iter()
                        .filter(|(s, _)| *s == step)
                        .for_each(|(_, line)| output::say(line))
                });
                self.progress.update(&subject, "Error", State::Failed);
            }
            Event::Started | Event::Done => {}
        }
    }
}
