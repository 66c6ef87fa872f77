//! Whole zones (AXFR, RFC 5936) and differences (IXFR, RFC 1995), as messages that fit TCP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::name::{self, Name};
use super::query::Query;
use super::record::Record;
use super::serial::after;
use super::zones::{Step, Zone};
use crate::dns::wire::{HEADER, IN, flag};

/// Bytes of a message: pointers reach no further (RFC 1035 section 4.1.4), and a single record fits.
const FULL: usize = 1 << 14;
/// Versions that were given to somebody and are remembered.
const REMEMBERED: usize = 1024;

/// What is sent.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// There is nothing new.
    Current,
    /// What changed.
    Differences(Vec<Arc<Step>>),
    /// Everything.
    Whole,
}

/// Which version each secondary was given by this node: a difference is only given to who has what
/// it begins at from here. Another node may have given other content the same serial
/// ([`serial`](super::serial)).
#[derive(Debug, Default)]
pub(crate) struct Given(Mutex<HashMap<(Name, IpAddr), u32>>);

impl Given {
    /// What somebody gets who has this serial; none if that was not said.
    pub(crate) fn choose(&self, zone: &Zone, to: IpAddr, serial: Option<u32>) -> Transfer {
        let Some(serial) = serial else {
            return Transfer::Whole;
        };
        if !after(zone.version().serial, serial) {
            return Transfer::Current;
        }
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match given.get(&(zone.origin().clone(), to)) {
            Some(given) if *given == serial => zone
                .since(serial)
                .map_or(Transfer::Whole, Transfer::Differences),
            _ => Transfer::Whole,
        }
    }

    /// Notes that somebody has a version now.
    pub(crate) fn note(&self, zone: &Zone, to: IpAddr) {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= REMEMBERED {
            // Whoever is forgotten gets the whole zone next.
            given.clear();
        }
        given.insert((zone.origin().clone(), to), zone.version().serial);
    }
}

/// Writes the messages of a transfer, one after the other.
pub(crate) struct Messages<'a> {
    id: u16,
    flags: u16,
    question: Vec<u8>,
    origin: &'a Name,
    records: std::iter::Peekable<Box<dyn Iterator<Item = Record> + Send + 'a>>,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(query: &Query, zone: &'a Zone, transfer: Transfer) -> Self {
        let soa = zone.soa();
        let records: Box<dyn Iterator<Item = Record> + Send> = match transfer {
            Transfer::Current => Box::new([soa].into_iter()),
            Transfer::Whole => {
                let all = zone.content().records().iter().cloned();
                Box::new([soa.clone()].into_iter().chain(all).chain([soa]))
            }
            Transfer::Differences(steps) => {
                // Each version by itself (RFC 1995 section 4).
                let steps = steps.into_iter().flat_map(|step| {
                    let gone = [step.from.clone()]
                        .into_iter()
                        .chain(step.changes.gone.clone());
                    let new = [step.to.clone()]
                        .into_iter()
                        .chain(step.changes.new.clone());
                    gone.chain(new).collect::<Vec<_>>()
                });
                Box::new([soa.clone()].into_iter().chain(steps).chain([soa]))
            }
        };
        Self {
            id: query.id,
            flags: flag::RESPONSE | flag::AUTHORITATIVE | (query.flags & flag::RECURSION),
            question: query.question.to_vec(),
            origin: zone.origin(),
            records: records.peekable(),
        }
    }

    /// Writes the next message; `false` if there are no more.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.records.peek().is_none() {
            return false;
        }
        out.clear();
        for word in [self.id, self.flags, 1, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.question);
        let mut count = 0_u16;
        let largest = |r: &Record| r.name.wire().len() + 10 + r.data.len();
        while let Some(record) = self
            .records
            .next_if(|r| count == 0 || out.len() + largest(r) <= FULL)
        {
            write(&record, self.origin, out);
            count += 1;
        }
        out[6..8].copy_from_slice(&count.to_be_bytes());
        true
    }
}

fn write(record: &Record, origin: &Name, out: &mut Vec<u8>) {
    let owner = record.name.wire();
    if name::is_in(owner, origin.wire()) {
        // The question's name is that of the zone.
        out.extend_from_slice(&owner[..owner.len() - origin.wire().len()]);
        out.extend_from_slice(&(0xc000 | HEADER as u16).to_be_bytes());
    } else {
        out.extend_from_slice(owner);
    }
    out.extend_from_slice(&record.kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    out.extend_from_slice(&(record.data.len() as u16).to_be_bytes());
    out.extend_from_slice(&record.data);
}
