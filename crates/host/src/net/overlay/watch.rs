//! The devices of a host, known from what the kernel tells of changes.
//!
//! A list of all devices waits for whoever changes one. While an Engine starts containers that is
//! up to half a second each time; what the kernel tells has come already.

use std::collections::BTreeMap;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::super::netlink::{Said, Socket};
use super::super::route::{self, Route};
use super::super::{Error, Mac, Namespace};
use super::device::{Link, Links};

/// `RTNLGRP_LINK`
const LINKS: u32 = 1;

/// The devices of a namespace.
pub struct Watch {
    route: Route,
    told: Socket,
    /// By index. Nothing is known at first.
    known: Option<BTreeMap<u32, Link>>,
    /// Nothing of what was told is missing in it.
    is_complete: bool,
}

impl Watch {
    /// Those of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        let mut told = Socket::open(host, NETLINK_ROUTE)?;
        told.join(LINKS)?;
        Ok(Self {
            route: Route::open(host)?,
            told,
            known: None,
            is_complete: false,
        })
    }

    /// The bridges by name, with their hardware addresses.
    pub fn bridges(&mut self) -> Result<BTreeMap<String, Mac>, Error> {
        Ok(self.look()?.values().filter_map(Link::bridge).collect())
    }

    /// Has the next look list all devices, whatever was told.
    pub fn forget(&mut self) {
        self.known = None;
    }

    pub(super) fn links(&mut self) -> Result<Links, Error> {
        Ok(Links(self.look()?.values().cloned().collect()))
    }

    fn look(&mut self) -> Result<&BTreeMap<u32, Link>, Error> {
        let mut told = self.told.told()?;
        let mut known = match (self.known.take().filter(|_| self.is_complete), &told) {
            (Some(known), Some(_)) => known,
            _ => {
                let all = Links::read(&mut self.route)?.0;
                // What was told until now is in the list, or comes to the same when it is taken again.
                told = self.told.told()?;
                all.into_iter().map(|link| (link.index, link)).collect()
            }
        };
        let is_complete = told.is_some();
        for answer in told.into_iter().flat_map(|told| told.all) {
            if let Said::Object { kind, body } = answer.said {
                take(&mut known, route::told(kind, &body));
            }
        }
        self.is_complete = is_complete;
        Ok(self.known.insert(known))
    }
}

/// Takes note of a change. What is told of bridges' ports, in the bridges' own family, is none.
fn take(known: &mut BTreeMap<u32, Link>, told: Option<RouteNetlinkMessage>) {
    let is_port = |family| family == AddressFamily::Bridge;
    match told {
        Some(RouteNetlinkMessage::NewLink(link)) if !is_port(link.header.interface_family) => {
            known.insert(link.header.index, Link::of(&link));
        }
        Some(RouteNetlinkMessage::DelLink(link)) if !is_port(link.header.interface_family) => {
            known.remove(&link.header.index);
        }
        _ => {}
    }
}
