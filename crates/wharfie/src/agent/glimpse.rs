//! What single events say of containers. It is told at once: a look at the whole Engine takes its time,
//! and the Engine is left alone between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::debug;
use wharfie_core::State;
use wharfie_core::report::{Report, ReportedContainer};
use wharfie_host::{Change, Happened};

use super::keeper::{Keeper, now};

/// The Engine's lists may show a container that has ended as running for so long.
const LATE: Duration = Duration::from_secs(1);
/// A container that was about to be stopped and still runs after so long stays.
const LONGEST: Duration = Duration::from_secs(600);
/// The Engine is left alone for so long between two questions.
const PAUSE: Duration = Duration::from_millis(5);
/// So long other nodes take to lead nothing new to a task that is about to be stopped.
const HEARD: Duration = Duration::from_millis(100);

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is another than before, or gone.
    Changed(String),
    /// Its process has ended.
    Ended(String),
    /// It is about to be stopped.
    Leaving(String),
}

/// Signs that nobody has looked at yet.
#[derive(Debug, Default)]
pub(super) struct Signs {
    queue: Mutex<Vec<Sign>>,
    pub(super) some: Notify,
}

impl Signs {
    /// Takes note of one.
    pub(super) fn add(&self, sign: Sign) {
        let queue = self.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).push(sign);
        self.some.notify_one();
    }

    /// Those of an event.
    pub(super) fn happened(&self, happened: &Happened) {
        if let Happened::Container { id, what, .. } = happened {
            match what {
                // It may ignore it.
                Change::Signalled => {}
                Change::Ended | Change::Stopped => self.add(Sign::Ended(id.clone())),
                _ => self.add(Sign::Changed(id.clone())),
            }
        }
    }

    /// All that have come.
    pub(super) fn take(&self) -> Vec<Sign> {
        let queue = self.queue.lock();
        std::mem::take(&mut *queue.unwrap_or_else(PoisonError::into_inner))
    }
}

/// What signs said a moment ago, for looks that know less.
#[derive(Debug, Default)]
pub(super) struct Glimpses {
    ended: BTreeMap<String, Instant>,
    leaving: BTreeMap<String, Instant>,
    /// Containers that were looked at by themselves: when, and what was there.
    seen: BTreeMap<String, (Instant, Option<ReportedContainer>)>,
}

impl Glimpses {
    /// Takes note of signs; the containers that must be looked at.
    fn note(&mut self, signs: Vec<Sign>) -> BTreeSet<String> {
        let now = Instant::now();
        let mut looked = BTreeSet::new();
        for sign in signs {
            match sign {
                Sign::Changed(id) => {
                    self.ended.remove(&id);
                    looked.insert(id);
                }
                Sign::Ended(id) => {
                    self.leaving.remove(&id);
                    self.seen.remove(&id);
                    looked.remove(&id);
                    self.ended.insert(id, now);
                }
                Sign::Leaving(id) => drop(self.leaving.insert(id, now)),
            }
        }
        looked
    }

    /// Takes note of what was seen of some containers, asked for at a time.
    fn see(&mut self, ids: BTreeSet<String>, found: Vec<ReportedContainer>, at: Instant) {
        let mut found: BTreeMap<String, ReportedContainer> =
            found.into_iter().map(|c| (c.id.clone(), c)).collect();
        for id in ids {
            // It may have ended meanwhile.
            if !self.ended.contains_key(&id) {
                let container = found.remove(&id);
                self.seen.insert(id, (at, container));
            }
        }
    }

    /// Puts into a report what it does not show yet. A report of a new look began at a time.
    pub(super) fn show(&mut self, report: &mut Report, began: Option<Instant>) {
        self.ended.retain(|_, since| since.elapsed() < LATE);
        self.leaving.retain(|_, since| since.elapsed() < LONGEST);
        self.seen
            .retain(|_, (at, _)| began.is_none_or(|began| *at > began));
        let containers = &mut report.containers;
        for (id, (_, container)) in &self.seen {
            let place = containers.binary_search_by(|c| c.id.cmp(id));
            match (place, container) {
                (Ok(place), Some(container)) => containers[place].clone_from(container),
                (Ok(place), None) => drop(containers.remove(place)),
                (Err(place), Some(container)) => containers.insert(place, container.clone()),
                (Err(_), None) => {}
            }
        }
        for container in containers {
            if self.ended.contains_key(&container.id) && container.is_running() {
                container.state = State::Exited;
            }
            container.dying = container.is_running() && self.leaving.contains_key(&container.id);
        }
    }
}

/// Puts into the report at once what events say, for ever.
pub(super) async fn hurry(
    keeper: &Keeper,
    glimpses: &Mutex<Glimpses>,
    report: &watch::Sender<Arc<Report>>,
) {
    let lock = || glimpses.lock().unwrap_or_else(PoisonError::into_inner);
    let patch = || {
        // Before the first look nothing is known of the host.
        if report.borrow().version.is_empty() {
            return;
        }
        let mut new = report.borrow().as_ref().clone();
        lock().show(&mut new, None);
        new.time = now();
        super::report::tell(report, new);
    };
    loop {
        keeper.signs.some.notified().await;
        let ids = lock().note(keeper.signs.take());
        patch();
        if let (false, Ok(engine)) = (ids.is_empty(), keeper.engine()) {
            let at = Instant::now();
            match engine.some_containers(&ids).await {
                Ok(found) => {
                    let found = found.into_iter().map(ReportedContainer::from);
                    lock().see(ids, found.collect(), at);
                    patch();
                }
                // The next look at everything shows them.
                Err(e) => debug!("{e}"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Keeper {
    /// Has the others lead nothing new to a container that is about to be stopped, if it is on a network
    /// of the cluster; waits until they have.
    pub(super) fn turn_away(&self, id: &str) -> BoxFuture<'static, ()> {
        let report = self.fleet.report();
        let report = report.borrow();
        let networks = self.book.networks();
        let is_reached = report.containers.iter().any(|c| {
            let named = c.id == id || c.name == id;
            let mut on = c.attachments.keys();
            named && c.is_running() && on.any(|n| networks.networks.contains_key(n))
        });
        if self.is_alone() || !is_reached {
            return std::future::ready(()).boxed();
        }
        let named = report
            .containers
            .iter()
            .find(|c| c.id == id || c.name == id);
        if let Some(container) = named {
            self.signs.add(Sign::Leaving(container.id.clone()));
        }
        tokio::time::sleep(HEARD).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let container = |id: &str| ReportedContainer {
            id: id.to_owned(),
            state: State::Running,
            ..ReportedContainer::default()
        };
        Report {
            containers: vec![container("a"), container("b"), container("c")],
            ..Report::default()
        }
    }

    fn states(report: &Report) -> Vec<(bool, bool)> {
        let all = report.containers.iter();
        all.map(|c| (c.is_running(), c.dying)).collect()
    }

    #[tokio::test]
    async fn a_look_that_is_late_does_not_bring_back_what_has_ended() {
        let mut glimpses = Glimpses::default();
        let ended = |id: &str| Sign::Ended(id.to_owned());
        let looked = glimpses.note(vec![
            Sign::Changed("a".to_owned()),
            ended("a"),
            ended("b"),
            Sign::Changed("b".to_owned()),
            Sign::Leaving("c".to_owned()),
        ]);
        assert_eq!(
            looked,
            BTreeSet::from(["b".to_owned()]),
            "it was started again"
        );
        let mut seen = report();
        glimpses.show(&mut seen, Some(Instant::now()));
        assert_eq!(states(&seen), [(false, false), (true, false), (true, true)]);
        glimpses.note(vec![ended("c")]);
        let mut seen = report();
        glimpses.show(&mut seen, Some(Instant::now()));
        assert_eq!(states(&seen)[2], (false, false));
    }

    #[tokio::test]
    async fn a_look_that_began_before_does_not_hide_what_is_new() {
        let mut glimpses = Glimpses::default();
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let new = ReportedContainer {
            id: "bb".to_owned(),
            state: State::Running,
            ..ReportedContainer::default()
        };
        let ids = ["a", "bb"].map(str::to_owned).into();
        glimpses.see(ids, vec![new], Instant::now());
        let ids = |report: &Report| -> Vec<String> {
            report.containers.iter().map(|c| c.id.clone()).collect()
        };
        let mut late = report();
        glimpses.show(&mut late, Some(before));
        assert_eq!(ids(&late), ["b", "bb", "c"], "a is gone, bb has come");
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut next = report();
        glimpses.show(&mut next, Some(Instant::now()));
        assert_eq!(ids(&next), ["a", "b", "c"], "a later look knows better");
    }
}
