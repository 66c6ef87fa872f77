//! The director in the agent's API: `/v1/director`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use wharfie_cluster::Key;
use wharfie_core::director::{ADDRESS, DIRECTOR, Director, RECORD, SETTINGS};
use wharfie_edge::zone::{Key as TsigKey, Name};
use wharfie_host::net::{self, Namespace};

use super::zone::{merged, start};
use crate::agent::http::{Served, refused};
use crate::agent::keeper::{Keeper, Puts};
use crate::api_director::{DirectorSettings, SetDirector};
use crate::failure::Failure;

/// The routes.
pub(in crate::agent) fn routes() -> Router<Served> {
    Router::new()
        .route("/v1/director", get(show).put(put).delete(release))
        .route("/v1/director/table", get(table))
}

async fn show(State(served): State<Served>) -> Json<DirectorSettings> {
    Json(served.keeper().book.director().settings.clone())
}

async fn table(State(served): State<Served>) -> Response {
    Json(served.keeper().director_table()).into_response()
}

async fn put(State(served): State<Served>, Json(wanted): Json<SetDirector>) -> Response {
    match served.keeper().set_director(wanted).await {
        Ok(said) => Json(said).into_response(),
        Err(failure) => refused(StatusCode::BAD_REQUEST, failure),
    }
}

async fn release(State(served): State<Served>) -> Response {
    match served.keeper().release_director().await {
        Ok(gone) => Json(gone).into_response(),
        Err(failure) => refused(StatusCode::CONFLICT, failure),
    }
}

impl Keeper {
    /// Takes over what people say; what is odd about it, in words.
    async fn set_director(&self, wanted: SetDirector) -> Result<Vec<String>, Failure> {
        let mut odd = self.check_director(&wanted.director)?;
        let records = wanted.records.unwrap_or_default();
        odd.extend(merged(&self.book.director().records, &records)?);
        if wanted.dry_run {
            return Ok(odd);
        }
        let words = |e: serde_json::Error| Failure::failed(e.to_string());
        let value = serde_json::to_value(&wanted.director).map_err(words)?;
        let mut puts: Puts = vec![(Key::new(DIRECTOR, SETTINGS), Some(value))];
        for (name, set) in &records {
            let value = serde_json::to_value(set).map_err(words)?;
            puts.push((Key::new(RECORD, name), Some(value)));
        }
        let records = self.put_networks(puts, "director init").await?;
        self.fleet.tell(records);
        // Coordinators give addresses to what runs already.
        self.wake_all();
        Ok(odd)
    }

    fn check_director(&self, wanted: &Director) -> Result<Vec<String>, Failure> {
        check_zone(wanted).map_err(Failure::usage)?;
        let usage = |text: String| Err(Failure::usage(text));
        let members = self.fleet.members();
        let named = wanted.ranges.iter().map(|r| r.node.as_str());
        let named = named.chain(wanted.devices.keys().map(String::as_str));
        for node in named.filter(|n| !n.is_empty()) {
            if !members.iter().any(|n| n.name == node) {
                return usage(format!(
                    "there is no node {node}; `wharfie node ls` shows them"
                ));
            }
        }
        for (i, one) in wanted.ranges.iter().enumerate() {
            let both = |a: &wharfie_core::director::Range, b: &wharfie_core::director::Range| {
                a.contains(b.first()) || b.contains(a.first())
            };
            let mut others = wanted.ranges[..i].iter();
            if let Some(other) = others.find(|o| both(&o.range, &one.range)) {
                return usage(format!("ranges: {} and {} overlap", other.range, one.range));
            }
        }
        for (name, address) in &wanted.reserved {
            if !wanted.ranges.iter().any(|r| r.range.contains(*address)) {
                return usage(format!(
                    "reserve: {address} of {name} is in none of the ranges"
                ));
            }
        }
        for key in &wanted.keys {
            if let Err(why) = TsigKey::new(&key.name, &key.algorithm, &key.secret) {
                return usage(format!("key {}: {why}", key.name));
            }
        }
        let known = |key: &str| key.is_empty() || wanted.keys.iter().any(|k| k.key_is(key));
        let used = wanted.transfer.iter().map(|t| t.key.as_str());
        let mut used = used.chain(wanted.secondaries.iter().map(|s| s.key.as_str()));
        if let Some(unknown) = used.find(|k| !known(k)) {
            return usage(format!("there is no key {unknown}: give it with --key"));
        }
        self.check_devices(wanted)
    }

    /// Whether this host has the device, and addresses of the ranges belong there.
    fn check_devices(&self, wanted: &Director) -> Result<Vec<String>, Failure> {
        let host = Namespace::here().map_err(|e| Failure::failed(e.to_string()))?;
        let me = self.fleet.me().name;
        let mut odd = Vec::new();
        if let Some(name) = wanted.device_of(&me) {
            let device = net::device(&host, name).map_err(|e| Failure::failed(e.to_string()))?;
            match device {
                None => {
                    return Err(Failure::usage(format!("device: this host has no {name}"))
                        .help("`ip link` shows what there is; --device NAME@NODE says it for one node"));
                }
                Some(device) if !device.is_up => odd.push(format!("device {name} is down")),
                Some(_) => {}
            }
        }
        for one in wanted
            .ranges
            .iter()
            .filter(|r| r.node.is_empty() || r.node == me)
        {
            for end in [one.range.first(), one.range.last()] {
                let found =
                    net::device_of(&host, end).map_err(|e| Failure::failed(e.to_string()))?;
                if found.is_none() && wanted.device_of(&me).is_none() {
                    return Err(Failure::usage(format!(
                        "ranges: no device of this host is on the network of {end}"
                    ))
                    .help("give addresses of the network that the hosts are on, or say the device with --device"));
                }
                if found.is_none() {
                    odd.push(format!("{end} is in no subnet of this host: others reach it only if they have a route to here"));
                }
            }
        }
        odd.sort();
        odd.dedup();
        Ok(odd)
    }

    /// Forgets all of it: how many addresses are given back.
    async fn release_director(&self) -> Result<usize, Failure> {
        let book = self.book.director();
        let address = |owner: &wharfie_core::director::Owner| Key::new(ADDRESS, owner.to_string());
        let mut puts: Puts = book.addresses.keys().map(|o| (address(o), None)).collect();
        let newer = book.newer.iter();
        puts.extend(newer.map(|name| (Key::new(ADDRESS, name), None)));
        puts.extend(
            book.records
                .keys()
                .map(|name| (Key::new(RECORD, name), None)),
        );
        if book.settings.is_some() {
            puts.push((Key::new(DIRECTOR, SETTINGS), None));
        }
        let records = self.put_networks(puts, "director release").await?;
        self.fleet.tell(records);
        Ok(book.addresses.len())
    }
}

/// Whether the zone can be answered as it is said.
fn check_zone(wanted: &Director) -> Result<(), String> {
    if wanted.dns_port == 0 {
        return Err("dns-port: 0 is no port that others can ask at".to_owned());
    }
    // Times to live have 31 bits; one that is longer counts as none (RFC 2181 section 8).
    if wanted.ttl > i32::MAX as u32 {
        return Err(format!("ttl: {} seconds are too many", wanted.ttl));
    }
    if wanted.zone.is_empty() {
        return Ok(());
    }
    let name = Name::read(&wanted.zone, &Name::root());
    let host = |n: &Name| n.is_host() && n.labels().count() > 1;
    if !name.is_ok_and(|n| host(&n)) {
        return Err(format!(
            "zone: {:?} is no name of a sub-domain such as apps.example.org",
            wanted.zone
        ));
    }
    start(wanted).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_answered_is_not_taken_over() {
        let good = Director {
            zone: "apps.example.org".to_owned(),
            contact: "it.desk@example.org".to_owned(),
            ..Director::default()
        };
        assert_eq!(check_zone(&good), Ok(()));
        assert_eq!(check_zone(&Director::default()), Ok(()));
        let contacts = [
            "it",
            "it@example..org",
            "it@",
            "@example.org",
            "it@exa mple.org",
        ];
        let contacts = contacts.map(|contact| Director {
            contact: contact.to_owned(),
            ..good.clone()
        });
        let others = [
            Director {
                zone: "org".to_owned(),
                ..good.clone()
            },
            Director {
                dns_port: 0,
                ..good.clone()
            },
            Director {
                ttl: u32::MAX,
                ..good.clone()
            },
        ];
        for wrong in contacts.into_iter().chain(others) {
            assert!(check_zone(&wrong).is_err(), "{wrong:?}");
        }
    }
}
