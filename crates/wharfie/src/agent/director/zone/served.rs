//! What this node answers for, for those who look at it.

use std::sync::{Arc, Mutex, PoisonError};

use wharfie_core::report::ServedZone;
use wharfie_edge::zone::{Entries, Name, Service, Zone};

use super::Keeping;
use super::entries::{Added, Sight};
use crate::agent::keeper::Keeper;

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Served {
    /// The zone itself, then the reverse ones.
    pub(super) zones: Vec<Arc<Zone>>,
    /// What it is made of.
    pub(super) entries: Entries,
    /// What cannot be as somebody wants it.
    pub(super) conflicts: Vec<String>,
    /// Whether this node answers for it.
    pub(super) answers: bool,
}

impl Served {
    /// The zone itself.
    pub(super) fn zone(&self) -> Option<&Arc<Zone>> {
        self.zones.first()
    }
}

/// What this node answers for now.
#[derive(Debug, Default)]
pub(in crate::agent) struct Answering(Mutex<Option<Arc<Served>>>);

impl Keeping {
    /// As others see it.
    pub(super) fn served(&self, answers: bool) -> Option<Served> {
        Some(Served {
            zones: self.zones.clone(),
            entries: self.plan.as_ref()?.entries.clone(),
            conflicts: self.conflicts.iter().chain(&self.bad).cloned().collect(),
            answers,
        })
    }
}

impl Keeper {
    /// Services that have no address of their own, but whose ports every node publishes.
    pub(in crate::agent::director) fn published_services(&self) -> Vec<Service> {
        let book = self.book.director();
        let Some(settings) = &book.settings else {
            return Vec::new();
        };
        let stacks: Vec<_> = self.book.stacks().into_values().map(|e| e.stack).collect();
        let sight = Sight {
            settings,
            addresses: &book.addresses,
            added: &Added::default(),
            stacks: &stacks,
            // Who answers for which zone makes no difference to them.
            nodes: &self.nodes_for_zone(&book, &Name::root(), false),
        };
        sight.published_only()
    }

    /// Lets others see what is answered, and tells them if it is another version.
    pub(super) fn show_zone(&self, served: Option<Served>) {
        let before = self.served_zones();
        let served = served.map(Arc::new);
        *self.zone.0.lock().unwrap_or_else(PoisonError::into_inner) = served;
        if self.served_zones() != before {
            self.news.send_modify(|news| news.tell());
        }
    }

    /// What is answered.
    pub(super) fn shown_zone(&self) -> Option<Arc<Served>> {
        let served = self.zone.0.lock();
        served.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The zones that this node answers for, as the others are told.
    pub(in crate::agent) fn served_zones(&self) -> Vec<ServedZone> {
        let served = self.shown_zone().filter(|s| s.answers);
        let zones = served.iter().flat_map(|s| &s.zones);
        let each = zones.map(|zone| ServedZone {
            origin: zone.origin().to_string(),
            serial: zone.version().serial,
            digest: zone.version().digest,
        });
        each.collect()
    }
}
