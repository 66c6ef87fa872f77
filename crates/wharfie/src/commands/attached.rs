//! The attached part of `up`: the output of all, until they end or are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use wharfie_compose::model::{Condition, Project};
use wharfie_core::{Intent, Operation, Plan};

use super::shape::Ready;
use crate::control::{Container, ContainerEvent, Control, LogOptions};
use crate::failure::Failure;
use crate::follow::{Follow, Turn, short_name};
use crate::output::logs::{LogStyle, OwnPrinter};
use crate::output::progress::Progress;
use crate::output::{self, say, style, when};
use crate::signals::Interrupts;
use wharfie_core::reconcile::lifecycle as plans;

/// What happens when a container ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The others go on.
    KeepOn,
    /// All are stopped.
    AbortOnExit,
    /// All are stopped if its exit code is not 0.
    AbortOnFailure,
    /// All are stopped, and the exit code is this service's.
    ExitCodeFrom(String),
}

/// What an attached `up` works with.
pub(crate) struct Attached<'a> {
    /// The way to the containers.
    pub(crate) control: &'a Control,
    /// The project.
    pub(crate) project: &'a Project,
    /// Shows what goes on.
    pub(crate) progress: &'a Progress,
    /// How lines are written.
    pub(crate) style: LogStyle,
    /// Whether lines have times.
    pub(crate) timestamps: bool,
    /// Services whose output is shown.
    pub(crate) services: Vec<String>,
    /// What happens when a container ends.
    pub(crate) policy: Policy,
    /// Whether it goes on without containers: others will be made.
    pub(crate) stay: bool,
    /// Seconds that containers may take to stop.
    pub(crate) timeout: Option<i64>,
}

/// How following came to its end.
enum End {
    /// Every container has ended.
    AllStopped,
    /// The user does not want it any more.
    Interrupted,
    /// A container has ended that ends all, with this exit code.
    Abort(i64),
}

/// What is known of the containers that are shown.
#[derive(Default)]
struct Live {
    /// Ids and names of those that run.
    running: BTreeMap<String, String>,
    /// Exit codes of those that have ended and whose output has not.
    ended: BTreeMap<String, i64>,
    /// Last exit code of each service.
    codes: BTreeMap<String, i64>,
    /// Whether all are being stopped, so that an end is no reason to abort.
    stopping: bool,
    /// Names of those that the Engine may be about to start.
    starting: Vec<String>,
}

/// How long what containers said last is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often is looked whether a container is left, while none is known to run.
const RECHECK: Duration = Duration::from_millis(200);

impl Attached<'_> {
    /// Does the work of `up` and shows what the containers say until they have ended.
    pub(crate) async fn run(
        &self,
        ready: &Ready,
        work: impl Future<Output = Result<(), Failure>>,
        mut interrupts: Interrupts,
    ) -> Result<(), Failure> {
        let began = when::now_nanos();
        let printer = OwnPrinter::own(self.style, false);
        let mut follow = Follow::new(self.control, &self.project.name, printer, self.timestamps);
        // What containers said when they ran before is not of this `up`.
        follow.bounds(Timestamp::from_nanosecond(began.into()).ok(), None);
        let mut live = Live::default();
        follow.watch(began / 1_000_000_000);
        self.announce(ready, &mut follow, &mut live)?;
        let end = match self
            .drive(work, &mut follow, &mut live, began, &mut interrupts)
            .await?
        {
            Some(done) => {
                self.progress.finish();
                if let Err(failure) = done {
                    follow.drain()?;
                    return Err(failure);
                }
                self.until_end(&mut follow, &mut live, began, &mut interrupts)
                    .await?
            }
            None => {
                // The Engine starts what it was told to start all the same.
                let operations = ready.plan.steps.iter().map(|s| &s.operation);
                live.starting = operations.filter_map(started_by).collect();
                End::Interrupted
            }
        };
        self.progress.finish();
        match end {
            End::AllStopped => match self.exit_code(&live, None) {
                0 => Ok(()),
                code => Err(Failure::Exit(code)),
            },
            End::Abort(code) => {
                let (on, off) = (style::ERROR.render(), style::ERROR.render_reset());
                say(&format!("{on}Aborting on container exit...{off}"));
                self.stop(&mut follow, &mut live, began, &mut interrupts)
                    .await?;
                match self.exit_code(&live, Some(code)) {
                    0 => Ok(()),
                    code => Err(Failure::Exit(code)),
                }
            }
            End::Interrupted => {
                say("Gracefully Stopping... press Ctrl+C again to force");
                self.stop(&mut follow, &mut live, began, &mut interrupts)
                    .await?;
                Err(Failure::Exit(130))
            }
        }
    }

    /// Says whose output is shown, and shows that of what runs already.
    fn announce(
        &self,
        ready: &Ready,
        follow: &mut Follow<'_>,
        live: &mut Live,
    ) -> Result<(), Failure> {
        let mut names = BTreeSet::new();
        let mut replaced = BTreeSet::new();
        for step in &ready.plan.steps {
            match &step.operation {
                Operation::CreateContainer { service, name, .. }
                | Operation::StartContainer { service, name } => {
                    names.insert((service.clone(), name.clone()));
                }
                Operation::RecreateContainer {
                    service, name, old, ..
                } => {
                    names.insert((service.clone(), name.clone()));
                    replaced.insert(old.clone());
                }
                Operation::RemoveContainer { id, .. } | Operation::StopContainer { id, .. } => {
                    replaced.insert(id.clone());
                }
                _ => {}
            }
        }
        let running: Vec<&Container> = ready
            .seen
            .containers
            .iter()
            .filter(|c| !c.oneoff && c.is_running() && !replaced.contains(&c.id))
            .collect();
        names.extend(running.iter().map(|c| (c.service.clone(), c.name.clone())));
        names.retain(|(service, _)| self.services.contains(service));
        let short: Vec<String> = names
            .iter()
            .map(|(_, n)| short_name(n, &self.project.name))
            .collect();
        names.iter().for_each(|(_, name)| follow.expect(name));
        output::lines([format!("Attaching to {}", short.join(", "))])?;
        let from_now = LogOptions {
            follow: true,
            tail: Some(0),
            ..LogOptions::default()
        };
        for container in running
            .iter()
            .filter(|c| self.services.contains(&c.service))
        {
            live.running
                .insert(container.id.clone(), container.name.clone());
            follow.open(&container.node, &container.id, &container.name, &from_now);
        }
        Ok(())
    }

    /// Does some work while the output is shown. Nothing if the user interrupted it.
    async fn drive<T>(
        &self,
        work: impl Future<Output = T>,
        follow: &mut Follow<'_>,
        live: &mut Live,
        began: i64,
        interrupts: &mut Interrupts,
    ) -> Result<Option<T>, Failure> {
        let mut work = pin!(work);
        let mut over = false;
        loop {
            tokio::select! {
                biased;
                () = interrupts.next() => return Ok(None),
                done = &mut work => return Ok(Some(done)),
                turn = follow.next(Some(self.progress)), if !over => {
                    match turn {
                        Ok(Turn::Over) => over = true,
                        // If the Engine is gone, the work says so better.
                        Err(Failure::NoEngine(_)) => over = true,
                        turn => self.take(turn?, follow, live, began)?,
                    }
                }
            }
        }
    }

    /// Shows output until there is a reason to end.
    async fn until_end(
        &self,
        follow: &mut Follow<'_>,
        live: &mut Live,
        began: i64,
        interrupts: &mut Interrupts,
    ) -> Result<End, Failure> {
        loop {
            if let Some((_, &code)) = live.codes.iter().find(|(s, c)| self.aborts(s, **c)) {
                return Ok(End::Abort(code));
            }
            let idle = live.running.is_empty() && live.ended.is_empty();
            if idle && !self.stay && !self.any_left().await? {
                return Ok(End::AllStopped);
            }
            tokio::select! {
                // The Engine's list may be a little behind its events.
                () = tokio::time::sleep(RECHECK), if idle => {}
                () = interrupts.next() => return Ok(End::Interrupted),
                turn = follow.next(None) => match turn? {
                    Turn::Over => return Ok(End::AllStopped),
                    turn => self.take(turn, follow, live, began)?,
                },
            }
        }
    }

    /// Takes in what has come.
    fn take(
        &self,
        turn: Turn,
        follow: &mut Follow<'_>,
        live: &mut Live,
        began: i64,
    ) -> Result<(), Failure> {
        match turn {
            Turn::Shown | Turn::Over => {}
            Turn::Ended(id) => {
                if !follow.follows(&id) {
                    self.say_ended(&id, follow, live)?;
                }
            }
            Turn::Event(event) if event.time >= began && self.services.contains(&event.service) => {
                self.event(&event, follow, live)?;
            }
            Turn::Event(_) => {}
        }
        Ok(())
    }

    fn event(
        &self,
        event: &ContainerEvent,
        follow: &mut Follow<'_>,
        live: &mut Live,
    ) -> Result<(), Failure> {
        let one_off = event.attributes.get(wharfie_core::labels::ONEOFF);
        if one_off.is_some_and(|o| o.eq_ignore_ascii_case("true")) {
            return Ok(());
        }
        match event.action.as_str() {
            "start" => {
                live.running.insert(event.id.clone(), event.name.clone());
                let options = LogOptions {
                    follow: true,
                    // A first line may be older than the event that tells of the start; what is
                    // older than this `up` is left out when it comes.
                    since: Some(event.time / 1_000_000_000 - 1),
                    ..LogOptions::default()
                };
                follow.open(&event.node, &event.id, &event.name, &options);
            }
            "die" => {
                let code = event.exit_code.unwrap_or(0);
                let known = live.running.remove(&event.id).is_some();
                live.ended.insert(event.id.clone(), code);
                // The container that a new one takes the place of is not the service's end.
                if known && !(live.stopping && live.codes.contains_key(&event.service)) {
                    live.codes.insert(event.service.clone(), code);
                }
                if !follow.follows(&event.id) {
                    self.say_ended(&event.id, follow, live)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn say_ended(&self, id: &str, follow: &mut Follow<'_>, live: &mut Live) -> Result<(), Failure> {
        if let Some(code) = live.ended.remove(id) {
            follow.remark(id, &format!("exited with code {code}"), Some(self.progress))?;
        }
        Ok(())
    }

    /// Whether the end of a container of a service ends all.
    fn aborts(&self, service: &str, code: i64) -> bool {
        match &self.policy {
            Policy::KeepOn => false,
            Policy::AbortOnFailure => code != 0,
            Policy::ExitCodeFrom(chosen) if chosen == service => true,
            Policy::AbortOnExit | Policy::ExitCodeFrom(_) => {
                code != 0 || !self.is_preparation(service)
            }
        }
    }

    /// Whether others wait for a service to end well: that is no reason to end all.
    fn is_preparation(&self, service: &str) -> bool {
        let dependencies = self
            .project
            .services
            .values()
            .filter_map(|s| s.depends_on.get(service));
        dependencies
            .into_iter()
            .any(|d| d.condition == Condition::CompletedSuccessfully)
    }

    /// The exit code of the whole: `first` is that of the container that ended it.
    fn exit_code(&self, live: &Live, first: Option<i64>) -> u8 {
        let code = match &self.policy {
            Policy::KeepOn => None,
            Policy::AbortOnExit | Policy::AbortOnFailure => first,
            Policy::ExitCodeFrom(service) => live.codes.get(service).copied().or(first),
        };
        u8::try_from(code.unwrap_or(0)).unwrap_or(1)
    }

    /// Whether a container that is shown runs, or will again.
    async fn any_left(&self) -> Result<bool, Failure> {
        let containers = self.control.containers(&self.project.name).await?;
        Ok(containers
            .iter()
            .any(|c| !c.oneoff && self.services.contains(&c.service) && c.is_running()))
    }

    /// Stops all, while their last words are shown; an interrupt kills them.
    async fn stop(
        &self,
        follow: &mut Follow<'_>,
        live: &mut Live,
        began: i64,
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        live.stopping = true;
        let starting = std::mem::take(&mut live.starting);
        let work = async {
            let seen = self.control.observe_name(&self.project.name).await?;
            let services: Vec<String> = self.project.services.keys().cloned().collect();
            let plan = plans::stop_also(&seen, &services, self.timeout, &starting);
            let intent = Intent::Stop {
                services,
                timeout: self.timeout,
                starting,
            };
            let name = &self.project.name;
            self.control
                .act(name, intent, None, &plan, self.progress)
                .await
        };
        let done = self.drive(work, follow, live, began, interrupts).await?;
        self.progress.finish();
        if let Some(done) = done {
            done?;
        } else {
            self.kill().await?;
        }
        // Streams end by themselves soon after their containers.
        let words = async {
            while follow.follows_any() || !live.ended.is_empty() {
                match follow.next(None).await? {
                    Turn::Over => break,
                    turn => self.take(turn, follow, live, began)?,
                }
            }
            Ok::<(), Failure>(())
        };
        tokio::time::timeout(LAST_WORDS, words)
            .await
            .unwrap_or(Ok(()))
    }

    async fn kill(&self) -> Result<(), Failure> {
        let services: Vec<String> = self.project.services.keys().cloned().collect();
        let intent = Intent::Kill {
            services,
            signal: "SIGKILL".to_owned(),
        };
        let (name, plan) = (&self.project.name, Plan::default());
        let killed = self
            .control
            .act(name, intent, None, &plan, self.progress)
            .await;
        match killed {
            // They may have ended by themselves in between.
            Ok(()) | Err(Failure::Failed(_) | Failure::Several(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// Name of the container that an operation starts.
fn started_by(operation: &Operation) -> Option<String> {
    match operation {
        Operation::StartContainer { name, .. } | Operation::RestartContainer { name, .. } => {
            Some(name.clone())
        }
        _ => None,
    }
}
