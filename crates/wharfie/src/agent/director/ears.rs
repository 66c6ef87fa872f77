//! Hears at once who else says to have addresses that this node holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;
use wharfie_host::net::{Conflicts, Error, Mac, Namespace};

/// How long is waited for the next that is said, before it is looked whether it is still of interest.
const LOOK: Duration = Duration::from_millis(500);

/// Somebody who says that he has an address, and the device that he is heard on.
pub(super) type Claim = (String, IpAddr, Mac);

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    claims: Mutex<Vec<Claim>>,
    /// That there is something.
    pub(super) news: Notify,
}

impl Heard {
    /// What was said since the last time.
    pub(super) fn take(&self) -> Vec<Claim> {
        std::mem::take(&mut lock(&self.claims))
    }

    fn add(&self, device: &str, claims: Vec<(IpAddr, Mac)>) {
        if claims.is_empty() {
            return;
        }
        let claims = claims.into_iter();
        let claims = claims.map(|(ip, mac)| (device.to_owned(), ip, mac));
        lock(&self.claims).extend(claims);
        self.news.notify_one();
    }
}

/// Listens on devices, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Ears {
    heard: Arc<Heard>,
    each: BTreeMap<String, Ear>,
}

/// A thread that listens on a device.
#[derive(Debug, Default)]
struct Ear {
    about: Arc<Mutex<Vec<IpAddr>>>,
    over: Arc<AtomicBool>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Ears {
    pub(super) fn new(heard: Arc<Heard>) -> Self {
        let each = BTreeMap::new();
        Self { heard, each }
    }

    /// Listens on these devices, to what is said of these addresses; what cannot be.
    pub(super) fn listen(
        &mut self,
        host: &Namespace,
        wanted: BTreeMap<String, Vec<IpAddr>>,
    ) -> Vec<Error> {
        let mut failed = Vec::new();
        // One that failed is tried again.
        let goes_on = |ear: &Ear| !ear.over.load(Ordering::Relaxed);
        self.each
            .retain(|device, ear| wanted.contains_key(device) && goes_on(ear));
        for (device, about) in wanted {
            if let Some(ear) = self.each.get(&device) {
                *lock(&ear.about) = about;
                continue;
            }
            match Conflicts::open(host, &device) {
                Ok(conflicts) => {
                    let ear = Ear::default();
                    *lock(&ear.about) = about;
                    let (about, over) = (Arc::clone(&ear.about), Arc::clone(&ear.over));
                    let (heard, on) = (Arc::clone(&self.heard), device.clone());
                    std::thread::spawn(move || {
                        hear(conflicts, &on, (&about, &over), &heard);
                        over.store(true, Ordering::Relaxed);
                    });
                    self.each.insert(device, ear);
                }
                Err(e) => failed.push(e),
            }
        }
        failed
    }
}

fn hear(
    mut conflicts: Conflicts,
    device: &str,
    (about, over): (&Mutex<Vec<IpAddr>>, &AtomicBool),
    heard: &Heard,
) {
    while !over.load(Ordering::Relaxed) {
        conflicts.watch(&lock(about));
        match conflicts.wait(LOOK) {
            Ok(claims) => heard.add(device, claims),
            Err(e) => return warn!(device, "who else has addresses is not heard: {e}"),
        }
    }
}
