//! What `start`, `stop`, `restart`, `rm`, `kill`, `pause` and `unpause` have in common.

use futures_util::future::join_all;
use wharfie_core::{Intent, Plan};
use wharfie_host::Engine;

use super::pick;
use crate::context::{Context, Target};
use crate::control::{Container, Control, Seen};
use crate::failure::{Failure, Message};
use crate::output;
use crate::output::progress::State;
use crate::signals::Interrupts;

/// Asks the agent for something to be done with the containers of services; what containers were
/// named themselves is left to whoever asks. `make` gets the services, and returns the intent and the
/// plan that is to be expected of it, or refuses.
pub(super) async fn ask(
    context: &Context,
    names: &[String],
    make: impl FnOnce(&Target, &Seen, Vec<String>) -> Result<(Intent, Plan), Failure>,
) -> Result<Named, Failure> {
    let (control, meant) = pick::look(context, names).await?;
    if let Some(target) = meant.target() {
        ask_agent(context, target, meant.services.clone(), make).await?;
    }
    Ok(Named {
        control,
        containers: meant.named,
    })
}

async fn ask_agent(
    context: &Context,
    target: &Target,
    services: Vec<String>,
    make: impl FnOnce(&Target, &Seen, Vec<String>) -> Result<(Intent, Plan), Failure>,
) -> Result<(), Failure> {
    let control = Control::acting_for(context, &target.name, None).await?;
    let seen = control.observe_name(&target.name).await?;
    let (intent, plan) = make(target, &seen, services)?;
    let progress = context.progress();
    let mut interrupts = Interrupts::listen()?;
    let loaded = target.loaded.as_ref();
    tokio::select! {
        done = control.act(&target.name, intent, loaded, &plan, &progress) => done,
        () = interrupts.next() => {
            progress.finish();
            Err(Failure::Interrupted(Message::new("interrupted; what was done so far stays")))
        }
    }
}

/// Containers that were named themselves. What is done to them is done as by anybody else: the agent
/// that keeps them, if one does, sees it and draws its conclusions.
pub(super) struct Named {
    /// The way to them.
    pub(super) control: Control,
    /// The containers.
    pub(super) containers: Vec<Container>,
}

impl Named {
    /// Does something to those for which it makes sense.
    pub(super) async fn each<F>(
        self,
        context: &Context,
        words: Words,
        fits: impl Fn(&Container) -> bool,
        act: impl Fn(Engine, String) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), wharfie_host::Error>>,
    {
        let mut containers = self.containers;
        containers.retain(|c| fits(c));
        let control = &self.control;
        to_each(context, control, &containers, words, |c| {
            let work = act(control.at(c).engine().clone(), c.id.clone());
            async move { Ok(work.await?) }
        })
        .await
    }
}

/// Words for something done to a container: what a dry run says, what it says meanwhile and
/// afterwards.
pub(super) type Words = [&'static str; 3];

/// Does something to containers, all at once.
pub(super) async fn to_each<'c, F>(
    context: &Context,
    control: &Control,
    containers: &'c [Container],
    [verb, doing, done]: Words,
    act: impl Fn(&'c Container) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    if control.dry_run() {
        return Ok(output::lines(
            containers
                .iter()
                .map(|c| format!("{verb} container {}", c.name)),
        )?);
    }
    if containers.is_empty() {
        return Ok(());
    }
    let progress = context.progress();
    let work = containers.iter().map(|c| {
        let work = act(c);
        let (progress, subject) = (&progress, format!("Container {}", c.name));
        async move {
            progress.update(&subject, doing, State::Working);
            let result = work.await;
            match &result {
                Ok(()) => progress.update(&subject, done, State::Done),
                Err(_) => progress.update(&subject, "Error", State::Failed),
            }
            result
        }
    });
    let results = progress.during(join_all(work)).await;
    let failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::all(failures))
    }
}
