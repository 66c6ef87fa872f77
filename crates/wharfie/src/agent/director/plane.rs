//! Keeps the addresses that this node holds: on the device, led to tasks, and told to the neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use wharfie_core::director::{Address, Director, Stand};
use wharfie_host::net::{Error, LanAddresses, Namespace};

use super::allot::faults;
use super::decide::{LASTS, LASTS_LEFT};
use super::ears::Heard;
use super::held::{Done, Held, announce};
use super::page::Page;
use super::wanted::Lasting;
use super::zone;
use crate::agent::keeper::Keeper;

/// Changes come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(2);
/// How often is looked whether somebody else changed something.
const REPAIR: Duration = Duration::from_secs(10);
/// After its start an agent waits so long for what other nodes say, and its own Engine: what the kernel was
/// told before goes on meanwhile.
const HEARING: Duration = Duration::from_secs(2);
/// The pause after something failed, and between two looks of a node that is not sure of what it holds.
const AGAIN: Duration = Duration::from_secs(1);
/// A node that is not sure looks so often for so long only: each look is a packet to all neighbours.
const UNSURE: Duration = Duration::from_secs(60);
/// Neighbours are told again after these pauses: packets get lost.
const TELL_AGAIN: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_secs(2),
];
/// Who says what is wrong here.
const SOURCE: &str = "director";

/// Keeps addresses as they are to be, for ever.
pub(in crate::agent) async fn keep(keeper: Arc<Keeper>) {
    let mut held: Option<Held> = None;
    let heard = Arc::new(Heard::default());
    let begun = Instant::now();
    let mut tidied = false;
    let mut repaired = Instant::now();
    let mut stood = (Stand::Sure, Instant::now());
    let mut lasting = Lasting::default();
    let mut page = Page::default();
    loop {
        let book = keeper.book.director();
        if book.unreadable {
            let words = "the director's settings are of a newer version of wharfie: addresses stay as they are on this node until it is updated";
            keeper.set_network_faults(SOURCE, faults([words.to_owned()]));
            extend(&keeper, LASTS).await;
            tokio::select! {
                () = keeper.director_news.notified() => {}
                () = tokio::time::sleep(REPAIR) => {}
            }
            continue;
        }
        let Some(director) = book.settings.clone() else {
            page = Page::default();
            if !tidied || held.is_some() {
                tidied = true;
                let heard = Arc::clone(&heard);
                let give_back = move || {
                    let mut held = held.map_or_else(|| Held::open(heard), Ok)?;
                    held.give_back()
                };
                let done = tokio::task::spawn_blocking(give_back).await;
                held = None;
                let failed = match done {
                    Ok(Err(e)) if !matches!(e, Error::NotSupported { .. }) => Some(e),
                    _ => None,
                };
                let words =
                    |e: &Error| format!("addresses of the director are not given back: {e}");
                keeper.set_network_faults(SOURCE, faults(failed.as_ref().map(words)));
                if failed.is_some() {
                    tidied = false;
                    tokio::time::sleep(REPAIR).await;
                    continue;
                }
            }
            keeper.director_news.notified().await;
            continue;
        };
        if begun.elapsed() < HEARING && !keeper.has_heard() {
            tokio::select! {
                () = keeper.director_news.notified() => {}
                () = tokio::time::sleep(HEARING / 10) => {}
            }
            continue;
        }
        // Before all that takes its time: a container is about to be started that needs the port.
        page.make_way(&keeper, director.page);
        let repair = repaired.elapsed() >= REPAIR;
        if repair {
            repaired = Instant::now();
            lasting.forget();
        }
        let mut failed = keeper.write_own(&director, repair).await;
        failed.extend(book.newer.iter().map(|of| format!(
            "the address of {of} was written by a newer version of wharfie: it is left alone until this node is updated"
        )));
        let wanted = keeper.led_here(&director, &mut lasting);
        if wanted.stand != stood.0 {
            stood = (wanted.stand, Instant::now());
        }
        let unsettled = wanted.unsettled;
        let (ears, claims) = (Arc::clone(&heard), heard.take());
        let work = move || {
            let mut held = match held.map_or_else(|| Held::open(ears), Ok) {
                Ok(held) => held,
                Err(e) => return (None, Done::failed(&e)),
            };
            let done = held.apply(&wanted, claims, repair);
            (Some(held), done)
        };
        let lasts = keeper.around.lasting.lock().await;
        if keeper.is_closing() {
            return;
        }
        let Ok((back, done)) = tokio::task::spawn_blocking(work).await else {
            return;
        };
        drop(lasts);
        held = back;
        let mut own = done.own;
        let ranges = || director.ranges.iter().map(|r| r.range);
        own.addresses.retain(|ip| ranges().any(|r| r.contains(*ip)));
        keeper.take_note(&done.used, own);
        keeper.around.note_on(done.on);
        if !done.told.is_empty() {
            tell_again(&keeper, done.told);
        }
        // What the kernel refuses may be over soon; the rest waits for people.
        let unsure = stood.0 != Stand::Sure && stood.1.elapsed() < UNSURE;
        let pause = match done.again || unsure || unsettled {
            true => AGAIN,
            false => REPAIR,
        };
        failed.extend(done.failed);
        let own = zone::addresses_here(&book);
        failed.extend(page.listen(&keeper, &own, director.page).await);
        keeper.set_network_faults(SOURCE, faults(failed));
        tokio::select! {
            () = keeper.director_news.notified() => tokio::time::sleep(CROWD).await,
            () = heard.news.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The agent ends in order: addresses stay until the others would take them over.
pub(in crate::agent) async fn leave(keeper: &Keeper) {
    extend(keeper, LASTS_LEFT).await;
}

/// Those that do not stay for ever stay for so long from now on.
async fn extend(keeper: &Keeper, lasts: Duration) {
    let _lasting = keeper.around.lasting.lock().await;
    let work = move || LanAddresses::open(&Namespace::here()?)?.extend(lasts);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) | Err(_) => {}
        // Without the right to it nothing was held either.
        Ok(Err(e)) => warn!("addresses may be gone before an agent is there again: {e}"),
    }
}

/// Tells neighbours again where addresses are.
fn tell_again(keeper: &Arc<Keeper>, mut told: Vec<(String, IpAddr)>) {
    let keeper = Arc::clone(keeper);
    tokio::spawn(async move {
        for pause in TELL_AGAIN {
            tokio::time::sleep(pause).await;
            // Another node may hold them by now, or they are left to one.
            let (book, me) = (keeper.book.director(), keeper.fleet.id());
            let held = book.addresses.values().filter(|a| a.node == me);
            let held: BTreeSet<IpAddr> = held.flat_map(Address::all).collect();
            told.retain(|(_, ip)| held.contains(ip) && keeper.around.is_on(ip));
            let told = told.clone();
            let told = tokio::task::spawn_blocking(move || {
                let host = Namespace::here()?;
                announce(&host, &told)
            });
            // They were told once; that they cannot be any more is seen elsewhere.
            let _ = told.await;
        }
    });
}

impl Keeper {
    /// Whether it is known what runs here, and on all other nodes.
    fn has_heard(&self) -> bool {
        let report = self.fleet.report();
        let looked = {
            let report = report.borrow();
            !report.engine.is_empty() && report.engine_away.is_none()
        };
        looked && self.scene().nodes().all(|n| n.heard)
    }

    /// Writes the addresses of this node's containers that are of no stack; what cannot be.
    async fn write_own(&self, director: &Director, tidy: bool) -> Vec<String> {
        let (mut puts, mut failed) = self.own_addresses_changes(director);
        if tidy {
            puts.extend(self.tidy_addresses());
        }
        match self.put_networks(puts, "address").await {
            Ok(records) => self.fleet.tell(records),
            Err(e) => failed.push(e.text().to_owned()),
        }
        failed
    }
}
