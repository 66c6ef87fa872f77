//! What somebody wants of a stack, and what follows: the new wanted state and a plan.

use serde::{Deserialize, Serialize};
use wharfie_compose::model::Project;

use crate::names;
use crate::plan::{Operation, Plan};
use crate::reconcile::{DownOptions, Refusal, UpOptions, down, lifecycle, selection, up};
use crate::seen::Seen;
use crate::share::Share;
use crate::spare;
use crate::wanted::{Definition, Stack, service_of, task};

/// One change that is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Intent {
    /// Bring up a project, or some of its services. Images are there already.
    Up {
        /// The project.
        project: Box<Definition>,
        /// How.
        options: UpOptions,
    },
    /// Take the stack, or some of its services, down.
    Down {
        /// The project, if its files were read.
        project: Option<Box<Definition>>,
        /// How.
        options: DownOptions,
    },
    /// Start containers.
    Start {
        /// The project, if its files were read.
        project: Option<Box<Definition>>,
        /// Services; all when empty.
        services: Vec<String>,
    },
    /// Stop containers and keep them so.
    Stop {
        /// Services; all when empty.
        services: Vec<String>,
        /// Seconds to stop in, in place of each service's own.
        timeout: Option<i64>,
        /// Names of containers that may be about to start, and are to stop too.
        #[serde(default)]
        starting: Vec<String>,
    },
    /// Stop and start containers.
    Restart {
        /// Services; all when empty.
        services: Vec<String>,
        /// Seconds to stop in, in place of each service's own.
        timeout: Option<i64>,
    },
    /// Remove containers that do not run.
    Remove {
        /// Services; all when empty.
        services: Vec<String>,
        /// Stop those that run, and remove them too.
        stop: bool,
        /// Remove their anonymous volumes.
        volumes: bool,
    },
    /// Bring back what was wanted before.
    Restore {
        /// What was wanted.
        stack: Box<Stack>,
    },
    /// Send a signal.
    Kill {
        /// Services; all when empty.
        services: Vec<String>,
        /// The signal, such as `SIGKILL`.
        signal: String,
    },
}

/// What becomes of the wanted state.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Put(Box<Stack>),
    /// The stack is wanted no longer.
    Delete,
}

/// What follows from an intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The new wanted state.
    pub change: Change,
    /// Services whose tasks begin anew: how they ended before no longer counts.
    pub anew: Vec<String>,
}

impl Intent {
    /// One word for it, for the history.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Down { .. } => "down",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Remove { .. } => "rm",
            Self::Kill { .. } => "kill",
            Self::Restore { .. } => "undo",
        }
    }

    /// The project that it brings, if it brings one.
    #[must_use]
    pub fn project(&self) -> Option<Project> {
        match self {
            Self::Up { project, .. } => Some((**project).clone().into()),
            Self::Down { project, .. } | Self::Start { project, .. } => {
                project.as_deref().cloned().map(Project::from)
            }
            Self::Restore { stack } => Some(stack.project.clone()),
            _ => None,
        }
    }

    /// Decides what is wanted from now on. `project` is the intent's own ([`Intent::project`]) or,
    /// without one, the wanted; `seen` is what all nodes have, `share` is this node's.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing is to be done or changed.
    pub fn decide(
        &self,
        before: Option<&Stack>,
        project: Option<&Project>,
        seen: &Seen,
        share: Option<&Share>,
    ) -> Result<Decision, Refusal> {
        let change = match self {
            Self::Up { options, .. } => {
                let Some(project) = project else {
                    return Err(Refusal::NoSuchService("(no project)".to_owned()));
                };
                let stack = Stack::after_up(before, project, options, seen)?;
                Change::Put(Box::new(stack))
            }
            Self::Down { options, .. } if options.services.is_empty() => Change::Delete,
            Self::Down { options, .. } => {
                edit(before, |stack| stack.drop_services(&options.services))
            }
            Self::Start { services, .. } | Self::Restart { services, .. } => {
                edit(before, |stack| release(stack, services))
            }
            Self::Stop { services, .. } => edit(before, |stack| halt(stack, share, services)),
            Self::Remove {
                services,
                stop,
                volumes,
            } => {
                let plan = lifecycle::remove(seen, services, *stop, *volumes);
                let removed: Vec<String> = plan.steps.iter().filter_map(removed(seen)).collect();
                edit(before, |stack| stack.halted.extend(removed))
            }
            Self::Restore { stack } => Change::Put(stack.clone()),
            Self::Kill { services, signal } if is_fatal(signal) => {
                edit(before, |stack| halt(stack, share, services))
            }
            Self::Kill { .. } => Change::Keep,
        };
        let anew = self.anew(before, project)?;
        Ok(Decision { change, anew })
    }

    /// Plans what is to be done on one node: `seen` is what is there, `share` is the node's, all if
    /// unset; `before` was wanted before.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing is to be done.
    pub fn plan(
        &self,
        before: Option<&Stack>,
        project: Option<&Project>,
        seen: &Seen,
        share: Option<&Share>,
    ) -> Result<Plan, Refusal> {
        Ok(match self {
            Self::Up { options, .. } => {
                let Some(project) = project else {
                    return Err(Refusal::NoSuchService("(no project)".to_owned()));
                };
                let options = UpOptions {
                    images_done: true,
                    share: share.cloned(),
                    ..options.clone()
                };
                let mut plan = up(project, seen, &options)?;
                spare::create(project, seen, &mut plan);
                plan
            }
            Self::Down { options, .. } => down(project, seen, options),
            Self::Start { services, .. } => lifecycle::start(project, seen, services),
            Self::Restart { services, timeout } => lifecycle::restart(seen, services, *timeout),
            Self::Stop {
                services,
                timeout,
                starting,
            } => lifecycle::stop_also(seen, services, *timeout, starting),
            Self::Remove {
                services,
                stop,
                volumes,
            } => lifecycle::remove(seen, services, *stop, *volumes),
            Self::Restore { stack } => {
                // The project as it is carried out on this node.
                let project = project.unwrap_or(&stack.project).clone();
                let stack = Stack {
                    project,
                    ..(**stack).clone()
                };
                restore(before, (&stack, share), seen)?
            }
            Self::Kill { services, signal } => lifecycle::signal(seen, services, signal),
        })
    }

    /// Services whose tasks begin anew.
    fn anew(
        &self,
        before: Option<&Stack>,
        project: Option<&Project>,
    ) -> Result<Vec<String>, Refusal> {
        Ok(match self {
            Self::Up { options, .. } => match project {
                Some(project) => selection(project, &options.services, options.no_deps)?
                    .into_keys()
                    .map(str::to_owned)
                    .collect(),
                None => Vec::new(),
            },
            Self::Restore { stack } => stack.active.iter().cloned().collect(),
            Self::Start { services, .. } | Self::Restart { services, .. } => match before {
                Some(stack) if services.is_empty() => stack.active.iter().cloned().collect(),
                _ => services.clone(),
            },
            _ => Vec::new(),
        })
    }
}

/// Everything as a former version of the stack says: what it did not want goes.
fn restore(
    before: Option<&Stack>,
    (stack, share): (&Stack, Option<&Share>),
    seen: &Seen,
) -> Result<Plan, Refusal> {
    let options = UpOptions {
        images_done: true,
        share: share.cloned(),
        ..stack.options()
    };
    let whole = if stack.active.is_empty() {
        Plan::default()
    } else {
        up(&stack.project, seen, &options)?
    };
    let halted: Vec<String> = stack
        .halted
        .iter()
        .filter_map(|t| {
            let (service, number) = t.rsplit_once('/')?;
            let service = stack.project.any_service(service)?;
            let number = number.parse().ok()?;
            Some(names::container(&stack.project.name, service, number))
        })
        .collect();
    let mut plan = lifecycle::filter_map(&whole, |operation| match operation {
        Operation::StartContainer { name, .. } if halted.contains(name) => None,
        _ => Some(operation.clone()),
    });
    let dropped: Vec<String> = before
        .iter()
        .flat_map(|b| b.active.difference(&stack.active))
        .cloned()
        .collect();
    if !dropped.is_empty() {
        plan.append(&lifecycle::remove(seen, &dropped, true, false));
    }
    let running = |t: &&String| {
        let mut containers = seen.containers.iter();
        containers.any(|c| c.is_running() && task(&c.service, c.number) == **t)
    };
    for key in stack.halted.iter().filter(running) {
        for c in &seen.containers {
            if task(&c.service, c.number) == *key && !c.oneoff {
                let operation = Operation::StopContainer {
                    service: c.service.clone(),
                    id: c.id.clone(),
                    name: c.name.clone(),
                    timeout: None,
                };
                plan.push(operation, Vec::new());
            }
        }
    }
    Ok(plan)
}

fn edit(before: Option<&Stack>, f: impl FnOnce(&mut Stack)) -> Change {
    let Some(before) = before else {
        return Change::Keep;
    };
    let mut stack = before.clone();
    f(&mut stack);
    if stack == *before {
        Change::Keep
    } else {
        Change::Put(Box::new(stack))
    }
}

fn halt(stack: &mut Stack, share: Option<&Share>, services: &[String]) {
    let meant = |s: &&String| services.is_empty() || services.contains(s);
    let tasks: Vec<String> = stack
        .active
        .iter()
        .filter(meant)
        .flat_map(|s| {
            let numbers = share.map_or_else(|| (1..=stack.count(s)).collect(), |of| of.all(s));
            numbers.into_iter().map(move |n| task(s, n))
        })
        .collect();
    stack.halted.extend(tasks);
}

fn release(stack: &mut Stack, services: &[String]) {
    stack
        .halted
        .retain(|t| !(services.is_empty() || services.iter().any(|s| s == service_of(t))));
}

/// The task whose container a step removes.
fn removed(seen: &Seen) -> impl Fn(&crate::Step) -> Option<String> {
    |step| match &step.operation {
        Operation::RemoveContainer { id, .. } => seen
            .containers
            .iter()
            .find(|c| c.id == *id)
            .map(|c| task(&c.service, c.number)),
        _ => None,
    }
}

/// Whether a signal is meant to end a process. What others do is the process's own affair.
fn is_fatal(signal: &str) -> bool {
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    matches!(
        name,
        "KILL" | "TERM" | "INT" | "QUIT" | "ABRT" | "9" | "15" | "2" | "3" | "6"
    )
}
