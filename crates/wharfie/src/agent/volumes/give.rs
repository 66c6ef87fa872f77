//! The part of the node that a volume comes from.
//!
//! It holds the stacks that use the volume, as whoever acts on a stack does: nothing of them is
//! started meanwhile, and if the agent dies the next one finds them wanted as before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{MutexGuard, watch};
use tracing::{info, warn};
use wharfie_host::{BoxedStream, Engine, LocalVolume, volume};

use super::super::keeper::Keeper;
use super::super::slot::{Kept, Slot};
use super::super::world::VolumePlace;
use super::plan::{self, Task};
use super::say::{Say, hear, tell};
use super::{GIVING, SERVICE, Stopped, Volumes};
use crate::api::{MoveVolumes, Moving, Node};
use crate::failure::{Failure, Message};
use crate::output::bytes::decimal;

/// How often those who wait are told how far it is.
const TELL: Duration = Duration::from_millis(100);
/// The other node answers what costs it nothing within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// How long is waited until the tasks run there, before the old volume goes.
const RUNS: Duration = Duration::from_secs(60);
/// How long is waited until the old containers are gone.
const GONE: Duration = Duration::from_secs(30);

/// A move, as this node goes through with it.
struct Giving<'a> {
    keeper: &'a Arc<Keeper>,
    engine: Engine,
    wanted: &'a MoveVolumes,
    /// What goes.
    moved: Vec<LocalVolume>,
    to: Node,
    said: &'a UnboundedSender<Moving>,
}

/// A stack that uses the volumes, held.
struct Held<'s> {
    slot: &'s Arc<Slot>,
    kept: MutexGuard<'s, Kept>,
}

/// Moves volumes of this node to another one. When `cancel` becomes true before all of it is there,
/// everything is as it was.
pub(super) async fn give(
    volumes: &Arc<Volumes>,
    wanted: &MoveVolumes,
    said: &UnboundedSender<Moving>,
    mut cancel: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let keeper = &volumes.keeper;
    let to = plan::target(keeper, wanted)?;
    let claims = wanted.names.iter().map(|n| volumes.claim(n));
    let _claims = claims.collect::<Result<Vec<_>, _>>()?;
    let engine = keeper.engine().map_err(Failure::from)?;
    let mut moved = Vec::new();
    for name in &wanted.names {
        moved.push(plan::own(keeper, &engine, name).await?);
    }
    let giving = Giving {
        keeper,
        engine,
        wanted,
        moved,
        to,
        said,
    };
    let stacks = plan::users(keeper, &wanted.names);
    let slots: Vec<Arc<Slot>> = stacks.iter().map(|name| keeper.slot(name)).collect();
    let asking: Vec<_> = slots.iter().map(Slot::ask).collect();
    let mut held = Vec::new();
    for slot in &slots {
        let kept = slot.kept.lock().await;
        held.push(Held { slot, kept });
    }
    giving.check(&mut held).await?;
    let (tasks, stopped) = giving.running(&held).await?;
    // What is not to be had there is known before anything is stopped.
    let mut streams = Vec::new();
    for volume in &giving.moved {
        streams.push(giving.open(volume).await?);
    }
    let key = format!("{GIVING}{}", wanted.names.join(","));
    let note = serde_json::to_vec(&stopped).unwrap_or_default();
    volumes.note(key.clone(), Some(note)).await?;
    let carried = tokio::select! {
        carried = giving.carry(&held, &mut streams) => carried,
        _ = cancel.wait_for(|c| *c) => Err(Failure::Interrupted(Message::new("interrupted"))),
    };
    let done = match carried {
        Ok(()) => giving.commit(&mut held).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = done {
        for stream in &mut streams {
            // It may be gone.
            let _ = tokio::time::timeout(TELL, tell(stream, &Say::Drop)).await;
        }
        again(keeper, &giving.engine, &stopped).await;
        volumes.note(key, None).await?;
        return Err(failure);
    }
    if let Err(e) = volumes.note(key, None).await {
        warn!("{}", e.text());
    }
    drop(held);
    drop(asking);
    giving.finish(streams, &tasks).await;
    Ok(())
}

/// Starts what was stopped for a move, unless its volumes are elsewhere by now.
pub(super) async fn again(keeper: &Keeper, engine: &Engine, stopped: &Stopped) {
    let me = keeper.fleet.id();
    let elsewhere = |name: &String| keeper.tied_to(name).is_some_and(|node| node != me);
    if stopped.volumes.iter().any(elsewhere) {
        return;
    }
    for id in &stopped.containers {
        if let Err(e) = engine.start(id).await {
            // Healing does what can be done.
            warn!("after a move that came to nothing: {e}");
        }
    }
}

impl Giving<'_> {
    fn at(&self, text: String) {
        let _ = self.said.send(Moving::At { text });
    }

    fn note(&self, text: String) {
        warn!("{text}");
        let _ = self.said.send(Moving::Note { text });
    }

    /// Fails if a stack has just been changed, or could not run with its volumes there.
    async fn check(&self, held: &mut [Held<'_>]) -> Result<(), Failure> {
        self.keeper.reread()?;
        for Held { slot, kept } in held {
            plan::refresh(self.keeper, &slot.name, kept).await?;
            for other in plan::others(kept, &self.wanted.names) {
                let there = self.engine.volume(&other).await?;
                if there.is_some_and(|v| v.foreign().is_none()) {
                    let names = self.wanted.names.join(" ");
                    let to = &self.to.name;
                    return Err(Failure::failed(format!(
                        "volume {other} is used together with {names}, and is here as well"
                    ))
                    .help(format!("`wharfie volume move {names} {other} {to}`")));
                }
            }
            plan::assigned(self.keeper, &slot.name, kept, &self.wanted.names, &self.to)?;
        }
        Ok(())
    }

    /// The tasks here that run with the volumes, and their containers. Nobody else may have them.
    async fn running(&self, held: &[Held<'_>]) -> Result<(BTreeSet<Task>, Stopped), Failure> {
        let mut stopped = Stopped {
            volumes: self.wanted.names.clone(),
            ..Stopped::default()
        };
        let mut tasks = BTreeSet::new();
        for name in &self.wanted.names {
            let users = self.engine.volume_users(name).await?.into_iter();
            for user in users.filter(|u| u.running) {
                let of = held.iter().find(|h| h.slot.name == user.project);
                let known = of.filter(|h| !user.oneoff && plan::has(&h.kept, &user.service));
                if known.is_none() {
                    return Err(Failure::failed(format!(
                        "container {} uses volume {name}, and is no task of a stack",
                        user.name
                    ))
                    .help("stop it first"));
                }
                if known.is_some_and(|h| plan::by_hand(&h.kept, &user.service)) {
                    self.note(format!(
                        "{} of stack {} is healed never: `wharfie up` starts it on {}",
                        user.service, user.project, self.to.name
                    ));
                } else {
                    tasks.insert((user.project, user.service, user.number));
                }
                if !stopped.containers.contains(&user.id) {
                    stopped.containers.push(user.id);
                }
            }
        }
        Ok((tasks, stopped))
    }

    /// Asks the other node to take a volume.
    async fn open(&self, volume: &LocalVolume) -> Result<BoxedStream, Failure> {
        let mut stream = self.keeper.fleet.open(&self.to, SERVICE).await?;
        let asked = async {
            let volume = volume.clone();
            tell(&mut stream, &Say::Take { volume }).await?;
            hear(&mut stream).await
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(Say::Ready)) => Ok(stream),
            Ok(other) => Err(self.refused(other)),
            Err(_) => Err(self.refused(Err(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    /// What the other node said in place of what it should have.
    fn refused(&self, said: std::io::Result<Say>) -> Failure {
        match said {
            Ok(Say::Failed { why, help }) => Failure::Failed(Message { what: why, help }),
            Ok(other) => Failure::failed(format!("node {} answers {other:?}", self.to.name)),
            Err(e) => Failure::failed(format!("node {} went away: {e}", self.to.name)),
        }
    }

    /// Stops the tasks and brings over the content.
    async fn carry(&self, held: &[Held<'_>], streams: &mut [BoxedStream]) -> Result<(), Failure> {
        for Held { slot, kept } in held {
            let Some(stack) = &kept.stack else { continue };
            self.at(format!("stopping tasks of {}", slot.name));
            plan::stop(&self.engine, stack, &self.wanted.names).await?;
        }
        for (volume, stream) in self.moved.iter().zip(streams) {
            let users = self.engine.volume_users(&volume.name).await?;
            if let Some(user) = users.iter().find(|u| u.running) {
                return Err(Failure::failed(format!(
                    "container {} uses volume {} again",
                    user.name, volume.name
                )));
            }
            self.send(volume, stream).await?;
        }
        Ok(())
    }

    /// Sends a volume's content; what is there in the end is compared with what was here.
    async fn send(&self, volume: &LocalVolume, stream: &mut BoxedStream) -> Result<(), Failure> {
        let counted = volume.clone();
        let size = tokio::task::spawn_blocking(move || counted.size()).await;
        let size = size.map_err(|e| Failure::failed(e.to_string()))??;
        let (mut from, mut to) = tokio::io::split(stream);
        let mut told: Option<Instant> = None;
        let sent = volume::send(volume.path(), &mut to, |sent| {
            if told.is_none_or(|at| at.elapsed() >= TELL) {
                told = Some(Instant::now());
                // The archive is a little larger.
                let (sent, size) = (decimal(sent.min(size)), decimal(size));
                self.at(format!("{}: {sent} of {size}", volume.name));
            }
        });
        let sent = tokio::select! {
            // It says something only if it cannot go on.
            said = hear(&mut from) => return Err(self.refused(said)),
            sent = sent => sent,
        };
        let digest = match sent {
            Ok(digest) => digest,
            // Perhaps it has said why.
            Err(e) => match tokio::time::timeout(TELL, hear(&mut from)).await {
                Ok(Ok(said)) => return Err(self.refused(Ok(said))),
                _ => {
                    let name = &volume.name;
                    return Err(Failure::failed(format!("volume {name} is not sent: {e}")));
                }
            },
        };
        self.at(format!("{}: comparing", volume.name));
        match hear(&mut from).await {
            Ok(Say::Whole { digest: there }) if there == digest => Ok(()),
            Ok(Say::Whole { .. }) => Err(Failure::failed(format!(
                "volume {} is not the same on node {} as it is here",
                volume.name, self.to.name
            ))),
            other => Err(self.refused(other)),
        }
    }

    /// From here on the volumes are there.
    async fn commit(&self, held: &mut [Held<'_>]) -> Result<(), Failure> {
        let names = &self.wanted.names;
        let mut decided = Vec::new();
        for Held { slot, kept } in held.iter_mut() {
            plan::refresh(self.keeper, &slot.name, kept).await?;
            decided.push(plan::assigned(
                self.keeper,
                &slot.name,
                kept,
                names,
                &self.to,
            )?);
        }
        let mut records = Vec::new();
        for (Held { slot, kept }, assigned) in held.iter_mut().zip(decided) {
            let written = self
                .keeper
                .write_assigned(&slot.name, kept, assigned, "volume move");
            match written.await {
                Ok(written) => records.extend(written),
                Err(e) if records.is_empty() => return Err(e),
                // The volume counts there already: its coordinator places the rest.
                Err(e) => warn!(stack = slot.name, "{}", e.text()),
            }
        }
        // Those that no stack uses now.
        let known = self.keeper.book.volumes();
        let rest = known.iter().filter(|(name, place)| {
            names.contains(name) && (place.node != self.to.id) && !place.node.is_empty()
        });
        let rest = rest.map(|(name, place)| {
            let place = VolumePlace {
                node: self.to.id.clone(),
                ..place.clone()
            };
            (name.clone(), Some(place))
        });
        records.extend(self.keeper.tie(rest.collect(), "volume move").await?);
        info!(volumes = ?names, to = self.to.name, "moved");
        let (up, _) = self.keeper.fleet.up();
        self.keeper
            .fleet
            .replicate(records, up, Duration::from_secs(2))
            .await;
        Ok(())
    }

    /// Tells the other node, waits for the tasks there, and removes what is left here.
    async fn finish(&self, streams: Vec<BoxedStream>, tasks: &BTreeSet<Task>) {
        let mut kept = BTreeSet::new();
        for (volume, mut stream) in self.moved.iter().zip(streams) {
            let told = async {
                tell(&mut stream, &Say::Keep).await?;
                hear(&mut stream).await
            };
            match tokio::time::timeout(ANSWER, told).await {
                Ok(Ok(Say::Kept)) => drop(kept.insert(&volume.name)),
                _ => self.note(format!(
                    "node {} went away at the end: the old volume {} is kept",
                    self.to.name, volume.name
                )),
            }
        }
        if self.wanted.keep {
            return;
        }
        self.at(format!("waiting for tasks on {}", self.to.name));
        let runs = self.until(RUNS, || {
            plan::missing(self.keeper, tasks, &self.to.id).is_none()
        });
        if !runs.await {
            let task = plan::missing(self.keeper, tasks, &self.to.id).unwrap_or_default();
            return self.note(format!(
                "{task} does not run on {} yet: what was moved is kept on {} as well",
                self.to.name,
                self.keeper.fleet.me().name
            ));
        }
        for volume in &self.moved {
            if !kept.contains(&volume.name) {
                continue;
            }
            self.at(format!("removing the old volume {}", volume.name));
            let deadline = Instant::now() + GONE;
            let last = loop {
                match self.engine.remove_volume(&volume.name).await {
                    Ok(_) => break None,
                    // Its containers are just being removed.
                    Err(e) if Instant::now() > deadline => break Some(e),
                    Err(_) => tokio::time::sleep(TELL).await,
                }
            };
            if let Some(e) = last {
                let (me, name) = (self.keeper.fleet.me().name, &volume.name);
                self.note(format!(
                    "the old volume stays: {e}; `wharfie volume rm {name} --node {me}` removes it"
                ));
            }
        }
    }

    /// Waits until something is so; whether it is.
    async fn until(&self, patience: Duration, is_so: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if is_so() {
                return true;
            }
            tokio::time::sleep(TELL).await;
        }
        is_so()
    }
}
