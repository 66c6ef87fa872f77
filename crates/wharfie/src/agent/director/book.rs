//! What the store says of the director.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use wharfie_cluster::{Record, Replica};
use wharfie_core::director::{
    ADDRESS, Address, Addresses, DIRECTOR, Director, Owner, RECORD, RecordSet, SETTINGS,
};

/// What the store says of addresses of the surrounding network and of the zone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::agent) struct DirectorBook {
    /// What people say; none as long as nobody did.
    pub(in crate::agent) settings: Option<Director>,
    /// They were written by a newer version: what is in the kernel stays as it is.
    pub(in crate::agent) unreadable: bool,
    /// Who has which address.
    pub(in crate::agent) addresses: Addresses,
    /// Whose address was written by a newer version, by the names of the objects: nobody else gets what is in
    /// them, and they are left alone.
    pub(in crate::agent) newer: BTreeSet<String>,
    /// The addresses in those.
    pub(in crate::agent) reserved: BTreeSet<IpAddr>,
    /// Records that people added, by [`record_name`](wharfie_core::director::record_name).
    pub(in crate::agent) records: Arc<BTreeMap<String, RecordSet>>,
    /// When something of it was written last, in seconds since 1970: the same on all nodes.
    pub(in crate::agent) changed: u64,
}

/// Whether objects of a kind are about the director.
pub(in crate::agent) fn is_of_director(kind: &str) -> bool {
    matches!(kind, DIRECTOR | ADDRESS | RECORD)
}

/// All addresses that are said in a value, whatever it is.
fn said_in(value: &Value, all: &mut BTreeSet<IpAddr>) {
    match value {
        Value::String(text) => all.extend(text.parse::<IpAddr>().ok()),
        Value::Array(each) => each.iter().for_each(|v| said_in(v, all)),
        Value::Object(each) => each.values().for_each(|v| said_in(v, all)),
        _ => {}
    }
}

/// Reads who has which address; what cannot be read apart: whose, and the addresses in it.
fn read_addresses<'r>(
    records: impl Iterator<Item = &'r Record>,
) -> (Addresses, BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut read, mut newer, mut reserved) = <(Addresses, BTreeSet<_>, BTreeSet<_>)>::default();
    for record in records {
        match (Owner::read(&record.name), value(record)) {
            (Some(owner), Some(address)) => drop(read.insert(owner, address)),
            _ => {
                newer.insert(record.name.clone());
                record.value.iter().for_each(|v| said_in(v, &mut reserved));
            }
        }
    }
    (read, newer, reserved)
}

fn value<T: serde::de::DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_value(record.value.clone()?).ok()
}

impl DirectorBook {
    /// All addresses that somebody has, or that are reserved for him.
    pub(in crate::agent) fn given(&self) -> BTreeSet<IpAddr> {
        let given = self.addresses.values().flat_map(Address::all);
        given.chain(self.reserved.iter().copied()).collect()
    }

    /// Reads it. What cannot be understood is left out: it is of a newer version, or damaged.
    pub(in crate::agent) fn read(replica: &Replica) -> Result<Self, wharfie_cluster::Error> {
        let settings = replica.list(DIRECTOR)?;
        let addresses = replica.list(ADDRESS)?;
        let records = replica.list(RECORD)?;
        let all = settings.iter().chain(&addresses).chain(&records);
        let changed = all.map(|r| r.stamp.millis / 1_000).max().unwrap_or(0);
        let said = settings.iter().filter(|r| r.name == SETTINGS);
        let said: Vec<&Record> = said.filter(|r| r.value.is_some()).collect();
        let settings = said.iter().find_map(|r| value::<Director>(r));
        // Without a director nobody has an address; what is left of one means nothing.
        let given = addresses.iter().filter(|_| !said.is_empty());
        let given = given.filter(|r| r.value.is_some());
        let (addresses, newer, reserved) = read_addresses(given);
        Ok(Self {
            unreadable: settings.is_none() && !said.is_empty(),
            settings,
            addresses,
            newer,
            reserved,
            records: Arc::new(
                records
                    .iter()
                    .filter_map(|r| Some((r.name.clone(), value(r)?)))
                    .collect(),
            ),
            changed,
        })
    }

    /// The same book, with the records of an earlier one if they are the same: what was made of them counts on.
    pub(in crate::agent) fn after(mut self, earlier: &Self) -> Self {
        if self.records == earlier.records {
            self.records = Arc::clone(&earlier.records);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_newer_version_wrote_is_reserved() {
        let record = |name: &str, value: Value| Record {
            kind: ADDRESS.to_owned(),
            name: name.to_owned(),
            revision: 1,
            stamp: wharfie_cluster::Stamp::default(),
            parent: None,
            older: Vec::new(),
            note: String::new(),
            value: Some(value),
        };
        let records = [
            record(
                "shop/web",
                json!({"v4": "192.0.2.7", "node": "k1", "more": true}),
            ),
            record(
                "shop/db",
                json!({"v4": ["192.0.2.8", "192.0.2.9"], "node": "k1"}),
            ),
            record("shop/api/2/blue", json!({"v6": "2001:db8::1", "since": 5})),
            record("shop/cache", json!("nothing")),
        ];
        let (read, newer, reserved) = read_addresses(records.iter());
        assert_eq!(read.len(), 1);
        assert_eq!(read[&Owner::service("shop", "web")].node, "k1");
        let names: Vec<&str> = newer.iter().map(String::as_str).collect();
        assert_eq!(names, ["shop/api/2/blue", "shop/cache", "shop/db"]);
        let ips = ["192.0.2.8", "192.0.2.9", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(reserved, ips.into());
    }
}
