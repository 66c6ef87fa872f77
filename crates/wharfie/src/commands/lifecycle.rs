//! What `start`, `stop`, `restart`, `rm`, `kill`, `pause` and `unpause` have in common.

use futures_util::future::join_all;
use wharfie_core::{Intent, Plan};

use super::pick;
use crate::context::{Context, Target};
use crate::control::{Container, Control, Seen};
use crate::failure::{Failure, Message};
use crate::output;
use crate::output::progress::State;
use crate::signals::Interrupts;

/// Asks the agent for something to be done with the containers of services. `make` returns the
/// intent and the plan that is to be expected of it, or refuses.
pub(super) async fn ask(
    context: &Context,
    services: &[String],
    make: impl FnOnce(&Target, &Seen) -> Result<(Intent, Plan), Failure>,
) -> Result<(), Failure> {
    let target = context.target(services)?;
    let control = Control::acting(context).await?;
    let seen = control.observe_name(&target.name).await?;
    pick::check_known(&target, &seen.containers, services)?;
    let (intent, plan) = make(&target, &seen)?;
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
