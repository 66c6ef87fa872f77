//! What the store says of the director.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
    /// Records that people added, by [`record_name`](wharfie_core::director::record_name).
    pub(in crate::agent) records: BTreeMap<String, RecordSet>,
    /// When something of it was written last, in seconds since 1970: the same on all nodes.
    pub(in crate::agent) changed: u64,
}

/// Whether objects of a kind are about the director.
pub(in crate::agent) fn is_of_director(kind: &str) -> bool {
    matches!(kind, DIRECTOR | ADDRESS | RECORD)
}

fn value<T: serde::de::DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_value(record.value.clone()?).ok()
}

impl DirectorBook {
    /// All addresses that somebody has, or that are reserved for him.
    pub(in crate::agent) fn given(&self) -> BTreeSet<IpAddr> {
        self.addresses.values().flat_map(Address::all).collect()
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
        Ok(Self {
            unreadable: settings.is_none() && !said.is_empty(),
            settings,
            addresses: given
                .filter_map(|r| Some((Owner::read(&r.name)?, value(r)?)))
                .collect(),
            records: records
                .iter()
                .filter_map(|r| Some((r.name.clone(), value(r)?)))
                .collect(),
            changed,
        })
    }
}
