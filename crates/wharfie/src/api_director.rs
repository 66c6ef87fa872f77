//! What is said of the director over the agent's socket.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wharfie_core::director::{Director, RecordSet};

/// `GET /v1/director/table`: who has which address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DirectorTable {
    /// What people said; none if there is no director.
    pub(crate) settings: Option<Director>,
    /// One for each owner of an address, and for each service whose ports the nodes publish for it.
    pub(crate) lines: Vec<DirectorLine>,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
}

/// Somebody who has an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DirectorLine {
    /// Who: `stack/service`, or a container's name.
    pub(crate) owner: String,
    /// Stack; empty if it is of none.
    pub(crate) stack: String,
    /// Service, or container.
    pub(crate) name: String,
    /// Its name in the zone; empty if there is none.
    pub(crate) dns_name: String,
    /// It has no address of its own: those here are the nodes', and so are the ports.
    #[serde(default)]
    pub(crate) published: bool,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Name of the node that holds them; empty if none does.
    pub(crate) node: String,
    /// Containers behind it, with their nodes' names.
    pub(crate) containers: Vec<DirectorContainer>,
    /// Ports that it offers, as far as somebody said so: number and protocol.
    pub(crate) ports: Vec<(u16, String)>,
    /// It is reserved only: nobody wants it at the moment.
    pub(crate) reserved: bool,
    /// Why it has no address of a family that the ranges have, in words.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
}

impl DirectorLine {
    /// How it is, in words.
    pub(crate) fn state(&self) -> String {
        let ready = self.containers.iter().filter(|c| c.ready).count();
        match (self.reserved, self.containers.as_slice()) {
            (true, _) => "reserved".to_owned(),
            (false, []) => "nothing runs".to_owned(),
            (false, [one]) if one.ready => "ready".to_owned(),
            (false, [one]) => one.state.clone(),
            (false, all) => format!("{ready} of {} ready", all.len()),
        }
    }
}

/// A container behind an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DirectorContainer {
    /// Its name.
    pub(crate) name: String,
    /// Its id, for who looks whether it is the same; others are not told.
    #[serde(skip)]
    pub(crate) id: String,
    /// Name of its node.
    pub(crate) node: String,
    /// State, with its health.
    pub(crate) state: String,
    /// Whether connections are led to it.
    pub(crate) ready: bool,
}

/// `GET /v1/director`: what people said; null if there is no director.
pub(crate) type DirectorSettings = Option<Director>;

/// `PUT /v1/director`: what people say. The answer is what is odd about it, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetDirector {
    /// All of it.
    pub(crate) director: Director,
    /// Records of the zone in place of those that were added for the same name and type, by
    /// [`record_name`](wharfie_core::director::record_name); the others stay.
    #[serde(default)]
    pub(crate) records: Option<BTreeMap<String, RecordSet>>,
    /// It is looked at only.
    #[serde(default)]
    pub(crate) dry_run: bool,
}
