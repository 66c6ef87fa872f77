//! What is seen on this node, kept up to date for the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wharfie_core::report::{Report, ReportedContainer, ReportedImage};
use wharfie_host::{Change, Engine, Happened};

use super::glimpse::{Glimpses, hurry};
use super::keeper::{Keeper, now};
use crate::api::Fault;

/// Events come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(5);
/// After a look the Engine is left alone for so many times as long as it took.
const REST: u32 = 8;
/// But the others must hear what happens, however slow it is.
const LONGEST_REST: Duration = Duration::from_millis(300);
/// An Engine tells of an end before its lists show it: so often is looked again, each time after
/// twice the pause.
const AGAIN: u32 = 6;
const SOON: Duration = Duration::from_millis(20);

/// How often is looked whether the host has other routes: they tell nobody.
const ROUTES: Duration = Duration::from_secs(5);

/// Reports are sent together with others that come within 10 ms: so long the last one takes.
const TOLD: Duration = Duration::from_millis(50);

/// Signs that there is something new, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Of any kind.
    all: u64,
    /// Of ends, which lists show late.
    ends: u64,
    /// Of images.
    images: u64,
}

impl News {
    /// Counts something that is no event of the Engine.
    pub(super) fn tell(&mut self) {
        self.all += 1;
    }

    /// Counts an event.
    pub(super) fn count(&mut self, happened: &Happened) {
        self.all += 1;
        match happened {
            Happened::Container { what, .. } => {
                let ended = matches!(what, Change::Ended | Change::Unwell | Change::Stopped);
                self.ends += u64::from(ended);
            }
            Happened::News { image } => self.images += u64::from(*image),
            Happened::Resource { .. } => {}
        }
    }
}

/// The agent ends in order: others are told that it is expected back, unless the machine itself
/// goes down (`/run/nologin` is there then, systemd-user-sessions(8)).
pub(super) async fn leave(keeper: &Keeper) {
    if keeper.is_alone() || std::path::Path::new("/run/nologin").exists() {
        return;
    }
    let report = Arc::clone(&keeper.fleet.report().borrow());
    let leaving = Report {
        leaving: true,
        ..report.as_ref().clone()
    };
    keeper.fleet.publish(&leaving);
    tokio::time::sleep(TOLD).await;
}

/// What is known of the Engine that is looked at.
#[derive(Default)]
struct Known {
    /// Its host.
    host: Option<Report>,
    images: Option<Vec<ReportedImage>>,
}

/// Tells the others of every change of the report, for ever.
pub(super) async fn publish(keeper: Arc<Keeper>) {
    let mut report = keeper.fleet.report();
    loop {
        let current = Arc::clone(&report.borrow_and_update());
        keeper.fleet.publish(&current);
        keeper.wake_planes();
        if report.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the report up to date, for ever.
pub(super) async fn keep(keeper: Arc<Keeper>, report: watch::Sender<Arc<Report>>) {
    let glimpses = Mutex::default();
    let looks = look_again(&keeper, &glimpses, &report);
    tokio::join!(looks, hurry(&keeper, &glimpses, &report));
}

/// Looks at everything again and again.
async fn look_again(
    keeper: &Arc<Keeper>,
    glimpses: &Mutex<Glimpses>,
    report: &watch::Sender<Arc<Report>>,
) {
    let mut engines = keeper.engine.subscribe();
    let mut news = keeper.news.subscribe();
    let mut known = Known::default();
    let mut seen = News::default();
    let mut again = 0;
    let mut whole = Instant::now();
    // When everything is looked at, and when it is at the earliest.
    let (mut due, mut rested) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            // Both senders are the keeper's own: they live as long as this.
            Ok(()) = engines.changed() => {
                known = Known::default();
                due = Instant::now();
            }
            Ok(()) = news.changed() => {
                due = due.min((Instant::now() + CROWD).max(rested));
            }
            () = other_routes(keeper, report) => due = due.min(Instant::now().max(rested)),
            () = tokio::time::sleep_until(due) => {}
        }
        if Instant::now() < due {
            continue;
        }
        let resync = Duration::from_millis(keeper.settings.borrow().resync);
        if Instant::now() >= whole {
            // Something may have been missed.
            known.images = None;
            whole = Instant::now() + resync;
        }
        let engine = engines.borrow_and_update().clone();
        let before = std::mem::replace(&mut seen, *news.borrow_and_update());
        if seen.images != before.images {
            known.images = None;
        }
        if seen.ends != before.ends {
            again = AGAIN;
        }
        let began = Instant::now();
        let last = Arc::clone(&report.borrow());
        let (mut new, failed) = look(engine, &mut known, &last).await;
        let shown = keeper.slots().into_iter().filter_map(|s| s.shown());
        let sick = shown.filter(|s| !s.troubles.is_empty());
        new.unwritable = keeper.is_unwritable().await;
        new.routes = super::networks::routes();
        new.own = keeper.own_addresses();
        new.underlay = keeper.underlay();
        new.encryption = Some(keeper.own_encryption());
        new.network_faults = keeper.network_faults();
        new.zones = keeper.served_zones();
        new.taken = keeper.taken();
        new.macs = keeper.own_macs();
        new.devices = keeper.own_devices();
        new.troubles = sick.map(|s| (s.name, s.troubles)).collect();
        // What came meanwhile is newer.
        let mut lately = glimpses.lock().unwrap_or_else(PoisonError::into_inner);
        lately.show(&mut new, Some(began));
        tell(report, new);
        drop(lately);
        rested = Instant::now() + CROWD.max(began.elapsed() * REST).min(LONGEST_REST);
        let pause = match again {
            _ if failed || report.borrow().unwritable => Duration::from_secs(1),
            0 => resync,
            left => SOON * 2_u32.pow(AGAIN - left),
        };
        again = again.saturating_sub(1);
        due = (Instant::now() + pause).max(rested);
    }
}

/// Makes a report the current one, if it says something new.
pub(super) fn tell(report: &watch::Sender<Arc<Report>>, new: Report) {
    report.send_if_modified(|old| {
        let differs = !old.says_the_same(&new);
        if differs {
            *old = Arc::new(new);
        }
        differs
    });
}

/// Until the host has other routes than the report says: networks must not be made over them.
async fn other_routes(keeper: &Keeper, report: &watch::Sender<Arc<Report>>) {
    loop {
        tokio::time::sleep(ROUTES).await;
        if !keeper.is_alone() && super::networks::routes() != report.borrow().routes {
            return;
        }
    }
}

/// Looks at everything, and whether that failed. Without the Engine the last look counts.
async fn look(engine: Result<Engine, Fault>, known: &mut Known, last: &Report) -> (Report, bool) {
    let away = |why: String| Report {
        engine_away: Some(why),
        ..last.clone()
    };
    match engine {
        Err(fault) => {
            *known = Known::default();
            (away(fault.what), false)
        }
        Ok(engine) => match list(&engine, known).await {
            Ok(report) => (report, false),
            Err(e) => (away(e.to_string()), true),
        },
    }
}

async fn list(engine: &Engine, known: &mut Known) -> Result<Report, wharfie_host::Error> {
    let host = match &known.host {
        Some(host) => host.clone(),
        None => engine.host().await?,
    };
    let images = match &known.images {
        Some(images) => images.clone(),
        None => engine.all_images().await?,
    };
    *known = Known {
        host: Some(host.clone()),
        images: Some(images.clone()),
    };
    let containers = engine.all_containers(false).await?;
    Ok(Report {
        time: now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        containers: containers
            .into_iter()
            .map(ReportedContainer::from)
            .collect(),
        images,
        ..host
    })
}
