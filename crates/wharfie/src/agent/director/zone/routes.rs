//! The zone in the agent's API: `/v1/dns`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use wharfie_cluster::Key;
use wharfie_core::director::{RECORD, RecordSet};
use wharfie_edge::zone::{Entries, Name, Record, export, kind_name, show};

use super::entries::{begin, records};
use super::records::{Sets, add, lines, read_in, remove};
use super::served::Served;
use crate::agent::http::{self, refused};
use crate::agent::keeper::{Keeper, Puts};
use crate::api_dns::{
    AddRecord, CheckZone, Checked, Edited, ImportRecords, RecordInfo, RemoveRecord, ZoneInfo,
};
use crate::failure::Failure;

/// The routes.
pub(in crate::agent) fn routes() -> Router<http::Served> {
    Router::new()
        .route("/v1/dns", get(list))
        .route("/v1/dns/export", get(whole))
        .route("/v1/dns/add", post(add_record))
        .route("/v1/dns/remove", post(remove_record))
        .route("/v1/dns/import", post(import_file))
        .route("/v1/dns/check", post(check))
}

fn answer<T: Serialize>(done: Result<T, Failure>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}

async fn list(State(served): State<http::Served>) -> Response {
    answer(served.keeper().zone_served().map(|zone| info(&zone)))
}

async fn whole(State(served): State<http::Served>) -> Response {
    let text = served.keeper().zone_served().map(|served| {
        let zone = served.zone();
        let text = zone.map(|zone| {
            let content = zone.content();
            let soa = content.start().soa_line(zone.version().serial);
            export(zone.origin(), Some(&soa), content.records())
        });
        text.unwrap_or_default()
    });
    answer(text)
}

async fn add_record(State(served): State<http::Served>, Json(wanted): Json<AddRecord>) -> Response {
    let keeper = served.keeper();
    let change = |before: &Sets, zone: &Name| Ok((add(before, &wanted, zone)?, Vec::new()));
    answer(keeper.edit_records(change, "dns add", wanted.dry_run).await)
}

async fn remove_record(
    State(served): State<http::Served>,
    Json(wanted): Json<RemoveRecord>,
) -> Response {
    let keeper = served.keeper();
    let change = |before: &Sets, zone: &Name| Ok((remove(before, &wanted, zone)?, Vec::new()));
    answer(keeper.edit_records(change, "dns rm", wanted.dry_run).await)
}

async fn import_file(
    State(served): State<http::Served>,
    Json(wanted): Json<ImportRecords>,
) -> Response {
    let keeper = served.keeper();
    let mut faults = Vec::new();
    let change = |before: &Sets, zone: &Name| {
        let read = read_in(before, &wanted, zone);
        Ok(read.unwrap_or_else(|all| {
            faults = all;
            (before.clone(), Vec::new())
        }))
    };
    let edited = keeper
        .edit_records(change, "dns import", wanted.dry_run)
        .await;
    answer(edited.map(|edited| Edited { faults, ..edited }))
}

async fn check(State(served): State<http::Served>, Json(wanted): Json<CheckZone>) -> Response {
    let keeper = served.keeper();
    let checked: Result<Checked, Failure> = match keeper.zone_served() {
        Ok(zone) => Ok(keeper.check_zone(&zone, wanted).await),
        Err(failure) => Err(failure),
    };
    answer(checked)
}

/// The zone as people look at it.
fn info(served: &Served) -> ZoneInfo {
    let Some(zone) = served.zone() else {
        return ZoneInfo::default();
    };
    let origin = zone.origin();
    let holders = served.entries.holders(origin);
    let fixed = &served.entries.fixed;
    // As it is there the time to live may be another one.
    let what = |r: &Record| (r.name.clone(), r.kind, r.data.clone());
    let fixed: BTreeSet<_> = fixed.iter().map(what).collect();
    let is_fixed = |r: &Record| fixed.contains(&what(r));
    let mut records: Vec<&Record> = zone.content().records().iter().collect();
    // What is above comes first.
    records.sort_by_cached_key(|r| {
        let mut labels: Vec<Vec<u8>> = r.name.labels().map(<[u8]>::to_vec).collect();
        labels.reverse();
        labels
    });
    let each = records.into_iter().map(|record| RecordInfo {
        name: record.name.relative(origin).unwrap_or_default(),
        ttl: record.ttl,
        kind: kind_name(record.kind),
        value: show(record),
        of: match holders.get(&record.name) {
            _ if is_fixed(record) => "added".to_owned(),
            Some(holder) if record.name != *origin || kind_name(record.kind) != "NS" => {
                holder.clone()
            }
            _ => "the cluster".to_owned(),
        },
    });
    ZoneInfo {
        zone: origin.to_string(),
        serial: zone.version().serial,
        answers: served.answers,
        records: each.collect(),
        conflicts: served.conflicts.clone(),
    }
}

impl Keeper {
    /// The zone as it is answered.
    fn zone_served(&self) -> Result<Arc<Served>, Failure> {
        self.zone_name()?;
        self.shown_zone().ok_or_else(|| {
            Failure::failed("the agent has just started, and does not answer for the zone yet")
                .help("try again in a moment")
        })
    }

    /// The zone that is set.
    fn zone_name(&self) -> Result<Name, Failure> {
        let book = self.book.director();
        let settings = book.settings.as_ref().filter(|s| !s.zone.is_empty());
        let settings = settings.ok_or_else(|| {
            Failure::failed("no zone is set: there are no names for others yet").help(
                "`wharfie director init --zone apps.example.org` sets the one that IT delegates",
            )
        })?;
        let begun = begin(settings);
        let begun = begun.map_err(|why| Failure::failed(format!("zone {}: {why}", settings.zone)));
        Ok(begun?.0.origin)
    }

    /// Changes what was added to the zone.
    async fn edit_records(
        &self,
        change: impl FnOnce(&Sets, &Name) -> Result<(Sets, Vec<String>), Failure>,
        note: &'static str,
        dry_run: bool,
    ) -> Result<Edited, Failure> {
        let zone = self.zone_name()?;
        let book = self.book.director();
        let before = &*book.records;
        let (after, mut notes) = change(before, &zone)?;
        notes.extend(self.new_conflicts(before, &after, &zone));
        let (old, new) = (lines(before), lines(&after));
        let edited = Edited {
            added: new.difference(&old).cloned().collect(),
            removed: old.difference(&new).cloned().collect(),
            notes,
            faults: Vec::new(),
        };
        if dry_run {
            return Ok(edited);
        }
        let records = self.put_all(puts(before, &after), note).await?;
        if !records.is_empty() {
            self.reread()?;
            self.fleet.tell(records);
        }
        Ok(edited)
    }

    /// What does not become as it is wanted by a change, in words.
    fn new_conflicts(&self, before: &Sets, after: &Sets, zone: &Name) -> Vec<String> {
        let Some(served) = self.shown_zone() else {
            return Vec::new();
        };
        let Some(begin) = served.zone().map(|z| z.content().start().clone()) else {
            return Vec::new();
        };
        let words = |sets: &Sets| {
            let read = sets
                .iter()
                .filter_map(|(o, set)| records(o, set, zone).ok());
            let entries = Entries {
                fixed: Arc::new(read.flatten().collect()),
                ..served.entries.clone()
            };
            entries.forward(begin.clone()).1
        };
        let known = words(before);
        let mut new = words(after);
        new.retain(|w| !known.contains(w));
        new
    }
}

/// What is to be written.
fn puts(before: &Sets, after: &Sets) -> Puts {
    let value = |set: &RecordSet| serde_json::to_value(set).ok();
    let changed = after
        .iter()
        .filter(|(name, set)| before.get(*name) != Some(set));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let changed = changed.map(|(name, set)| (Key::new(RECORD, name), value(set)));
    changed
        .chain(gone.map(|name| (Key::new(RECORD, name), None)))
        .collect()
}
