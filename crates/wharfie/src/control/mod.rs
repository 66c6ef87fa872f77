//! The way to the containers: commands know no other. What changes a stack is asked of the agent;
//! what looks, and what talks to a container, goes to the Engine that the agent keeps.

mod background;
mod client;
mod places;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use wharfie_compose::model::Project;
use wharfie_compose::{Faults, Loaded};
use wharfie_core::reconcile::{self, UpOptions};
use wharfie_core::{Intent, Operation, Plan};
use wharfie_host::{Engine, ExecuteContext, Scope};

pub(crate) use client::Client;

pub(crate) use wharfie_core::{Container, Seen, State};
pub(crate) use wharfie_host::{
    BuildFlags, ContainerEvent, ExecOptions, LogOptions, OneOff, Output, ProjectSummary, Session,
};

use places::Places;

use crate::agent::fleet;
use crate::api::{
    Durable, Explained, Fault, Info, Message as Told, Node, NodeState, Request, StackInfo, What,
};
use crate::api_network::NetworkInfo;
use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::output::progress::{self, Progress};
use crate::output::{self, warn};

/// How long this node's Engine may take to list something, and that of any to measure containers.
const OWN_PATIENCE: Duration = Duration::from_secs(60);

/// A connection to what runs containers.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    /// The Engine of one node: this one, a stack's home, or a container's.
    engine: Engine,
    /// The nodes, if there are several and no Engine was named.
    places: Option<Arc<Places>>,
    /// Id of the node that a stack is to be on.
    on: Option<String>,
    /// Number of nodes on which a change must be durable.
    replicated: Option<usize>,
    /// Ids of the images that a change is to be made with, by their names.
    prepared: BTreeMap<String, String>,
    agent: Client,
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
    /// Connects, to look: an agent is not needed.
    pub(crate) async fn connect(context: &Context) -> Result<Self, Failure> {
        let agent = Client::new(context.socket());
        match &context.global.host {
            Some(host) => Self::with(context, agent, Some(host)).await,
            None => match agent.info().await? {
                Some(info) => Self::by(context, agent, &info).await,
                None => Self::with(context, agent, None).await,
            },
        }
    }

    /// Connects, to change something: an agent is started if there is none.
    pub(crate) async fn acting(context: &Context) -> Result<Self, Failure> {
        let agent = Client::new(context.socket());
        let host = context.global.host.as_deref();
        match agent.info().await? {
            Some(info) => {
                check_engine(&info, host, &agent)?;
                match host {
                    Some(_) => Self::with(context, agent, Some(&info.engine)).await,
                    None => Self::by(context, agent, &info).await,
                }
            }
            None => {
                // Without an Engine an agent is of no use.
                let control = Self::with(context, agent, host).await?;
                if !control.dry_run {
                    let agent = &control.agent;
                    let info = background::start(agent, host).await?;
                    output::say(&format!(
                        "Started an agent in the background (process {}): it keeps what runs as it is wanted",
                        info.pid
                    ));
                    check_engine(&info, host, agent)?;
                }
                Ok(control)
            }
        }
    }

    /// Connects through an agent, to the Engines of all its nodes.
    async fn by(context: &Context, agent: Client, info: &Info) -> Result<Self, Failure> {
        if info.nodes < 2 {
            return Self::with(context, agent, Some(&info.engine)).await;
        }
        let mut nodes: Vec<Node> = agent.get("/v1/nodes").await?;
        nodes.retain(|n| n.me || n.state != NodeState::Removed);
        let own = Self::with(context, agent.clone(), Some(&info.engine)).await;
        let engine = own.as_ref().map(|control| control.engine.clone());
        let engine = engine.map_err(|failure| Fault::from(failure.said()));
        let places = Arc::new(Places::new(nodes, agent, engine));
        let control = match own {
            Ok(control) => control,
            // Others may do: what needs this one fails when it is asked for.
            Err(failure) => {
                let Some((_, engine)) = places.engines().await.first() else {
                    return Err(failure);
                };
                Self::through(context, places.agent().clone(), engine.clone())
            }
        };
        Ok(Self {
            places: Some(places),
            ..control
        })
    }

    async fn with(context: &Context, agent: Client, host: Option<&str>) -> Result<Self, Failure> {
        let engine = Engine::connect(host).await?;
        Ok(Self::through(context, agent, engine))
    }

    fn through(context: &Context, agent: Client, engine: Engine) -> Self {
        Self {
            engine: match agent.socket().parent() {
                Some(dir) => engine.with_runtime_dir(dir),
                None => engine,
            },
            places: None,
            on: None,
            replicated: None,
            prepared: BTreeMap::new(),
            agent,
            parallel: usize::try_from(context.global.parallel).unwrap_or(0),
            dry_run: context.dry_run(),
        }
    }

    /// [`Control::connect`] for work on one stack: through the Engine of its home.
    pub(crate) async fn connect_for(
        context: &Context,
        stack: &str,
        on: Option<&str>,
    ) -> Result<Self, Failure> {
        Self::connect(context).await?.home(stack, on).await
    }

    /// [`Control::acting`] for work on one stack: through the Engine of its home. `on` names the
    /// node that is to be its home, if it has none yet.
    pub(crate) async fn acting_for(
        context: &Context,
        stack: &str,
        on: Option<&str>,
    ) -> Result<Self, Failure> {
        if on.is_some() && context.global.host.is_some() {
            return Err(Failure::usage(
                "--on names a node of the cluster: it does not go with -H or DOCKER_HOST",
            ));
        }
        Self::acting(context).await?.home(stack, on).await
    }

    /// The same, for changes that must be durable on so many nodes.
    pub(crate) fn replicated(mut self, nodes: Option<usize>) -> Self {
        self.replicated = nodes;
        self
    }

    /// The same, with the images that are there.
    pub(crate) fn prepared(&self, seen: &Seen) -> Self {
        let known = seen.images.iter().filter(|(_, i)| !i.id.is_empty());
        Self {
            prepared: known
                .map(|(name, i)| (name.clone(), i.id.clone()))
                .collect(),
            ..self.clone()
        }
    }

    async fn home(mut self, stack: &str, on: Option<&str>) -> Result<Self, Failure> {
        let Some(places) = self.places.clone() else {
            if let Some(on) = on {
                let nodes: Vec<Node> = self.agent.get("/v1/nodes").await?;
                fleet::find(&nodes, on)?;
            }
            return Ok(self);
        };
        let nodes = places.nodes();
        let named = on.map(|on| fleet::find(nodes, on)).transpose()?;
        let kept: Option<StackInfo> = match self.agent.get(&format!("/v1/stacks/{stack}")).await {
            Ok(info) => Some(info),
            // Nobody keeps it yet.
            Err(Failure::Failed(_)) => None,
            Err(failure) => return Err(failure),
        };
        if let (Some(info), Some(named)) = (&kept, named)
            && !info.node.is_empty()
            && !info.node.split(',').any(|n| n == named.name)
        {
            return Err(Failure::usage(format!(
                "stack {stack} is on node {}, not on {}",
                info.node, named.name
            ))
            .help("take it down first (`wharfie down`); volumes stay where they are"));
        }
        let most = kept.as_ref().map(|info| info.home.as_str());
        let most = most.and_then(|id| nodes.iter().find(|n| n.id == id));
        let home = most.or(named).or_else(|| runs_on(nodes, stack));
        let home = home.filter(|n| n.me || n.may_answer());
        if let Some(home) = home.or_else(|| nodes.iter().find(|n| n.me)) {
            self.on = Some(home.id.clone());
            match places.engine(home).await {
                Ok(engine) => self.engine = engine,
                // Another one does as well: the stack is of all nodes.
                Err(failure) if home.me => warn(&failure.text()),
                Err(failure) => return Err(failure),
            }
        }
        Ok(self)
    }

    /// The nodes, if there are several.
    pub(crate) fn nodes(&self) -> &[Node] {
        self.places.as_deref().map_or(&[], Places::nodes)
    }

    /// Whether a node is the stack's home.
    pub(crate) fn is_home(&self, node: &Node) -> bool {
        self.on.as_ref() == Some(&node.id)
    }

    /// The same for work on one container: through the Engine that it is on.
    pub(crate) fn at(&self, container: &Container) -> Self {
        self.at_node(&container.node)
    }

    /// The same through the Engine of a node that was looked at.
    pub(crate) fn at_node(&self, node: &str) -> Self {
        let engine = self.places.as_ref().and_then(|places| places.known(node));
        Self {
            engine: engine.unwrap_or(&self.engine).clone(),
            ..self.clone()
        }
    }

    /// Whether there are several nodes to look at.
    pub(crate) fn several(&self) -> bool {
        self.places.is_some()
    }

    /// Says once that a node has gone away. Whether the others go on.
    pub(crate) fn leave_out(&self, node: &str, why: &str) -> bool {
        let places = self.places.as_ref().filter(|_| !node.is_empty());
        places.inspect(|p| p.complain(node, why)).is_some()
    }

    /// Looks at all nodes at once: what each has, with its name (empty if there is only one). A node
    /// that does not answer is named in a warning.
    pub(crate) async fn everywhere<T, F>(
        &self,
        look: impl Fn(Engine) -> F,
    ) -> Result<Vec<(String, T)>, Failure>
    where
        F: Future<Output = Result<T, wharfie_host::Error>>,
    {
        self.within(places::PATIENCE, look).await
    }

    /// The same for what takes the Engines a while.
    async fn within<T, F>(
        &self,
        patience: Duration,
        look: impl Fn(Engine) -> F,
    ) -> Result<Vec<(String, T)>, Failure>
    where
        F: Future<Output = Result<T, wharfie_host::Error>>,
    {
        let Some(places) = &self.places else {
            let seen = look(self.engine.clone()).await?;
            return Ok(vec![(String::new(), seen)]);
        };
        let engines = places.engines().await;
        let asked = engines.iter().map(|(node, engine)| {
            let look = look(engine.clone());
            async move {
                // Nobody else's silence is waited for; one's own Engine may be slow.
                let patience = match places.is_me(node) {
                    true => patience.max(OWN_PATIENCE),
                    false => patience,
                };
                let why = match tokio::time::timeout(patience, look).await {
                    Ok(Ok(seen)) => return Ok(Some((node.clone(), seen))),
                    Ok(Err(e)) if e.is_away() || !places.is_me(node) => Failure::from(e).text(),
                    Ok(Err(e)) => return Err(Failure::from(e)),
                    Err(_) => places::late(patience),
                };
                places.complain(node, &why);
                Ok(None)
            }
        });
        let seen = join_all(asked).await.into_iter();
        let seen = seen.filter_map(Result::transpose);
        let seen = seen.collect::<Result<Vec<_>, Failure>>()?;
        if seen.is_empty() {
            return Err(places::nobody());
        }
        Ok(seen)
    }

    /// The agent, whether there is one or not.
    pub(crate) fn agent(&self) -> &Client {
        &self.agent
    }

    /// Asks the agent for a change and shows how it goes; with `--dry-run` only shows the plan,
    /// which is the one that was made here.
    pub(crate) async fn act(
        &self,
        stack: &str,
        intent: Intent,
        loaded: Option<&Loaded>,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if self.dry_run {
            output::lines(plan.steps.iter().map(|s| s.operation.to_string()))?;
            return Ok(());
        }
        self.ask(stack, What::Intent(Box::new(intent)), loaded, progress)
            .await
            .map(drop)
    }

    /// The same for a change that is said in any way; the revision that is wanted in the end.
    pub(crate) async fn ask(
        &self,
        stack: &str,
        what: What,
        loaded: Option<&Loaded>,
        progress: &Progress,
    ) -> Result<Option<u64>, Failure> {
        let request = Request {
            what,
            parallel: self.parallel,
            on: self.on.clone(),
            replicated: self.replicated,
            images: self.prepared.clone(),
        };
        let execution = Execution::default();
        let mut reporters: BTreeMap<String, Reporter> = BTreeMap::new();
        let mut durable = None;
        let work = self.agent.act(stack, &request, |told| match told {
            Told::Waiting => warn(&format!(
                "another wharfie is at work on project {stack}: waiting until it is done"
            )),
            Told::Plan { plan, node } => {
                reporters.insert(node, Reporter::new(plan, &execution, progress));
            }
            Told::Step { node, step, event } => {
                if let Some(reporter) = reporters.get(&node) {
                    wharfie_host::Progress::event(reporter, step, event.into());
                }
            }
            Told::Noted { why } => warn(&format!(
                "{why}: its part of {stack} is done when it is back"
            )),
            Told::Rollout {
                service,
                status,
                over,
            } => {
                let state = match over {
                    true => progress::State::Done,
                    false => progress::State::Working,
                };
                progress.update(&format!("Rollout {service}"), &status, state);
            }
            Told::Done { durable: on, .. } => durable = on,
            Told::Failed { .. } => {}
        });
        let outcome = progress.during(work).await;
        let revision = outcome
            .map_err(|faults| Failure::all(faults.into_iter().map(|fault| place(fault, loaded))))?;
        self.tell_durable(durable)?;
        Ok(revision)
    }

    /// Says on how many nodes a change is durable; fails if more were asked for.
    fn tell_durable(&self, durable: Option<Durable>) -> Result<(), Failure> {
        let Durable { on, nodes } = match (durable, self.replicated) {
            (Some(durable), _) => durable,
            (None, Some(_)) => Durable { on: 1, nodes: 1 },
            (None, None) => return Ok(()),
        };
        match self.replicated {
            Some(wanted) if on < wanted => Err(Failure::TimedOut(Message::new(format!(
                "it is done, but what is wanted is durable on {on} of {nodes} nodes, not on {wanted}"
            )))
            .help("`wharfie status` shows which nodes are away; they get it when they are back")),
            None if on == nodes => Ok(()),
            _ => {
                output::say(&format!("Wanted state is durable on {on} of {nodes} nodes"));
                Ok(())
            }
        }
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

    /// What there is of a project: its images and the resources of others that it uses too.
    pub(crate) async fn observe(&self, project: &Project) -> Result<Seen, Failure> {
        let mut seen = self.engine.observe(Scope::Project(project)).await?;
        if self.several() {
            self.add_others(&mut seen, project).await?;
            // Networks of the cluster are made where somebody comes to be on them.
            let external = project.networks.values().filter(|n| n.external);
            let missing: Vec<&String> = external
                .map(|n| &n.name)
                .filter(|name| !seen.networks.contains_key(*name))
                .collect();
            if !missing.is_empty() {
                let all: Vec<NetworkInfo> = self.agent.get("/v1/networks").await?;
                let known = all.into_iter().map(|n| n.name);
                let known: Vec<String> = known.filter(|n| missing.contains(&n)).collect();
                for name in known {
                    seen.networks.entry(name).or_default();
                }
            }
        }
        Ok(seen)
    }

    /// Containers of a project on other nodes count as well. Ids of networks and images are each
    /// Engine's own: they are not compared.
    async fn add_others(&self, seen: &mut Seen, project: &Project) -> Result<(), Failure> {
        let known: BTreeSet<String> = seen.containers.iter().map(|c| c.id.clone()).collect();
        let all = self.containers(&project.name).await?;
        for mut container in all.into_iter().filter(|c| !known.contains(&c.id)) {
            container.networks.values_mut().for_each(String::clear);
            let service = project.any_service(&container.service);
            let image = service.map(|s| wharfie_core::names::image(project, s));
            if let Some(image) = image.and_then(|image| seen.images.get(&image)) {
                container.image_id.clone_from(&image.id);
            }
            seen.containers.push(container);
        }
        Ok(())
    }

    /// What there is under the label of a project.
    pub(crate) async fn observe_name(&self, project: &str) -> Result<Seen, Failure> {
        Ok(self.engine.observe(Scope::Name(project)).await?)
    }

    /// The containers of a project, wherever they are.
    pub(crate) async fn containers(&self, project: &str) -> Result<Vec<Container>, Failure> {
        self.list(Some(project), false).await
    }

    /// The containers of a project, or all, wherever they are; with `size` their sizes too.
    pub(crate) async fn list(
        &self,
        project: Option<&str>,
        size: bool,
    ) -> Result<Vec<Container>, Failure> {
        let patience = if size { OWN_PATIENCE } else { places::PATIENCE };
        let seen = self.within(patience, |engine| async move {
            match project {
                Some(project) => engine.containers(project, size).await,
                None => engine.all_containers(size).await,
            }
        });
        let mut all = Vec::new();
        for (node, mut containers) in seen.await? {
            containers.iter_mut().for_each(|c| c.node.clone_from(&node));
            all.extend(containers);
        }
        if self.several() {
            all.sort_by(|a, b| {
                let key = |c: &Container| (c.service.clone(), c.number, c.name.clone());
                key(a).cmp(&key(b)).then_with(|| a.node.cmp(&b.node))
            });
        }
        Ok(all)
    }

    /// All projects.
    pub(crate) async fn projects(&self, all: bool) -> Result<Vec<ProjectSummary>, Failure> {
        let seen = self.everywhere(|engine| async move { engine.project_containers().await });
        let mut containers = Vec::new();
        for (node, of) in seen.await? {
            containers.extend(of.into_iter().map(|c| Container {
                node: node.clone(),
                ..c
            }));
        }
        let mut projects = wharfie_host::summaries(containers, all);
        if !self.several() {
            return Ok(projects);
        }
        // Those whose node does not answer are wanted all the same.
        let stacks: Vec<StackInfo> = self.agent.get("/v1/stacks").await.unwrap_or_default();
        for stack in stacks {
            let known = projects.iter().any(|p| p.name == stack.name);
            let answers = |p: &Places| p.known(&stack.node).is_some();
            if known || stack.home.is_empty() || self.places.as_deref().is_some_and(answers) {
                continue;
            }
            projects.push(ProjectSummary {
                name: stack.name,
                status: "out of reach".to_owned(),
                config_files: String::new(),
                nodes: vec![stack.node],
            });
        }
        projects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(projects)
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

    /// Where each task of a project would be, and why.
    pub(crate) async fn placement(
        &self,
        project: &Project,
        options: &UpOptions,
        seen: &Seen,
    ) -> Result<Vec<Explained>, Failure> {
        let stack = wharfie_core::Stack::after_up(None, project, options, seen);
        let mut stack = stack.map_err(|refusal| Failure::usage(refusal.to_string()))?;
        stack.home = self.on.clone().unwrap_or_default();
        let path = format!("/v1/stacks/{}/placement", project.name);
        self.agent.tell(&path, &Some(stack)).await
    }

    /// Executes a plan here, without the agent, and shows its progress; with `--dry-run` only shows
    /// the plan. Nothing that is wanted changes: it is for images, and for what `run` needs.
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
            cancel: None,
            elsewhere: None,
            addresses: None,
            leave: None,
        };
        let reporter = Reporter::new(plan.clone(), execution, progress);
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
        self.engine.logs(id, options).map(|item| Ok(item?))
    }

    /// What happens to the containers of a project (of all and none if its name is empty), wherever
    /// they are. Of several nodes one that goes away is named, and the others go on.
    pub(crate) fn events(
        &self,
        project: &str,
        since: Option<i64>,
        until: Option<i64>,
    ) -> BoxStream<'static, Result<ContainerEvent, Failure>> {
        let Some(places) = self.places.clone() else {
            let events = self.engine.events(project, since, until);
            return events.map(|item| Ok(item?)).boxed();
        };
        let project = project.to_owned();
        let begin = async move {
            let each = places.engines().await.iter().map(|(node, engine)| {
                let (node, places) = (node.clone(), Arc::clone(&places));
                let events = engine.events(&project, since, until);
                let events = events.filter_map(move |item| {
                    let event = match item {
                        Ok(event) => Some(Ok(ContainerEvent {
                            node: node.clone(),
                            ..event
                        })),
                        Err(e) if e.is_away() => {
                            places.complain(&node, &Failure::from(e).text());
                            None
                        }
                        Err(e) => Some(Err(Failure::from(e))),
                    };
                    std::future::ready(event)
                });
                events.boxed()
            });
            stream::select_all(each.collect::<Vec<_>>())
        };
        stream::once(begin).flatten().boxed()
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

/// The only other node that runs containers of a project, if this one runs none: nobody keeps them,
/// so they are where somebody else made them.
fn runs_on<'n>(nodes: &'n [Node], project: &str) -> Option<&'n Node> {
    let runs = |node: &&Node| {
        let report = node.report.as_ref();
        report.is_some_and(|r| {
            r.containers
                .iter()
                .any(|c| c.project == project && !c.oneoff)
        })
    };
    let mut found = nodes.iter().filter(runs);
    match (found.next(), found.next()) {
        (Some(node), None) => Some(node),
        _ => None,
    }
}

/// Fails if a command names an Engine that the agent does not keep.
fn check_engine(info: &Info, host: Option<&str>, agent: &Client) -> Result<(), Failure> {
    let path = |address: &str| {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        std::fs::canonicalize(path).unwrap_or_else(|_| path.into())
    };
    match host {
        Some(host) if path(host) != path(&info.engine) => Err(Failure::usage(format!(
            "the agent at {} keeps the Engine at {}, not {host}",
            agent.socket().display(),
            info.engine
        ))
        .help("leave -H and DOCKER_HOST out, or use an agent of its own for it: --socket and WHARFIE_STATE_DIR")),
        _ => Ok(()),
    }
}

/// A fault with its place in the files, if it has one.
fn place(fault: Fault, loaded: Option<&Loaded>) -> Failure {
    match (&fault.path, loaded) {
        (Some(path), Some(loaded)) => {
            Failure::Refused(loaded.fault_at(path, fault.what.clone()).into())
        }
        _ => fault.into(),
    }
}

impl From<wharfie_cluster::Error> for Failure {
    fn from(error: wharfie_cluster::Error) -> Self {
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((what, help)) => Self::failed(what).help(help),
            None => Self::failed(text),
        }
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
    plan: Plan,
    execution: &'a Execution,
    progress: &'a Progress,
    /// Output of builds that is shown only if they fail.
    building: Mutex<Vec<(usize, String)>>,
}

impl<'a> Reporter<'a> {
    fn new(plan: Plan, execution: &'a Execution, progress: &'a Progress) -> Self {
        Self {
            plan,
            execution,
            progress,
            building: Mutex::default(),
        }
    }

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
