//! Answers as they go out.

use std::net::{Ipv4Addr, Ipv6Addr};

use wharfie_core::network::Data;

use super::wire::{self, Edns, HEADER, IN, MOST_UDP, Query, code, flag, kind};

/// Bytes of the record that says that we know EDNS.
const OPT: usize = 11;
/// A pointer to the name of the question.
const ASKED: [u8; 2] = [0xc0, HEADER as u8];

/// Sections of a message, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// Writes an answer within a limit.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: Option<Edns>,
    truncated: bool,
    code: u16,
}

impl<'a> Writer<'a> {
    /// Begins the answer to a question. `limit` is in bytes.
    pub(crate) fn new(out: &'a mut Vec<u8>, query: &Query, limit: usize) -> Self {
        out.clear();
        let flags = flag::RESPONSE | flag::RECURSES | (query.flags & flag::RECURSION);
        for word in [query.id, flags, 1, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(query.question);
        let reserved = if query.edns.is_some() { OPT } else { 0 };
        Self {
            out,
            limit: limit.saturating_sub(reserved),
            edns: query.edns,
            truncated: false,
            code: code::OK,
        }
    }

    pub(crate) fn code(&mut self, code: u16) {
        self.code = code;
    }

    /// Says that it is from whom it is (AA).
    pub(crate) fn authoritative(&mut self) {
        self.out[2] |= (flag::AUTHORITATIVE >> 8) as u8;
    }

    /// Adds a record. What does not fit any more is left out; if it is part of the answer itself,
    /// the asker is told so, and asks by TCP.
    pub(crate) fn record(&mut self, section: Section, name: Option<&str>, data: &Data, ttl: u32) {
        if self.truncated {
            return;
        }
        let start = self.out.len();
        let written = self.write(name, data, ttl);
        if written.is_none() {
            self.out.truncate(start);
        } else if self.out.len() > self.limit {
            self.out.truncate(start);
            self.truncated = section == Section::Answer;
        } else {
            self.count(section);
        }
    }

    fn count(&mut self, section: Section) {
        let at = section as usize;
        let count = u16::from_be_bytes([self.out[at], self.out[at + 1]]) + 1;
        self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn write(&mut self, name: Option<&str>, data: &Data, ttl: u32) -> Option<()> {
        match name {
            None => self.out.extend_from_slice(&ASKED),
            Some(name) => wire::encode_name(name, self.out)?,
        }
        let kind = match data {
            Data::A(_) => kind::A,
            Data::Aaaa(_) => kind::AAAA,
            Data::Srv { .. } => kind::SRV,
            Data::Ptr(_) => kind::PTR,
        };
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let length = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        match data {
            Data::A(address) => self.out.extend_from_slice(&Ipv4Addr::octets(address)),
            Data::Aaaa(address) => self.out.extend_from_slice(&Ipv6Addr::octets(address)),
            Data::Srv { port, target } => {
                // Priority, weight (RFC 2782); names in it are not compressed.
                for word in [0, 1, *port] {
                    self.out.extend_from_slice(&word.to_be_bytes());
                }
                wire::encode_name(target, self.out)?;
            }
            Data::Ptr(name) => wire::encode_name(name, self.out)?,
        }
        let bytes = u16::try_from(self.out.len() - length - 2).ok()?;
        self.out[length..length + 2].copy_from_slice(&bytes.to_be_bytes());
        Some(())
    }

    /// Says who answers for a zone: negative answers carry it (RFC 2308 section 3). They are kept
    /// for 0 seconds, as what is not there now may be at once.
    pub(crate) fn start_of_authority(&mut self, zone: &str) {
        let start = self.out.len();
        let mut write = || -> Option<()> {
            wire::encode_name(zone, self.out)?;
            let mut data = Vec::with_capacity(64);
            wire::encode_name(zone, &mut data)?;
            wire::encode_name(&format!("hostmaster.{zone}"), &mut data)?;
            // Serial, refresh, retry, expire, minimum.
            for number in [1_u32, 3600, 600, 86_400, 0] {
                data.extend_from_slice(&number.to_be_bytes());
            }
            self.out.extend_from_slice(&kind::SOA.to_be_bytes());
            self.out.extend_from_slice(&IN.to_be_bytes());
            self.out.extend_from_slice(&0_u32.to_be_bytes());
            let length = u16::try_from(data.len()).ok()?;
            self.out.extend_from_slice(&length.to_be_bytes());
            self.out.extend_from_slice(&data);
            Some(())
        };
        if write().is_none() || self.out.len() > self.limit {
            self.out.truncate(start);
        } else {
            self.count(Section::Authority);
        }
    }

    /// Ends the answer; whether something had to be left out.
    pub(crate) fn finish(mut self) -> bool {
        if let Some(edns) = self.edns {
            let extended = (self.code >> 4) as u8;
            let signed = if edns.signed { 0x80 } else { 0 };
            let [high, low] = (MOST_UDP as u16).to_be_bytes();
            let record = [
                0,
                0,
                kind::OPT as u8,
                high,
                low,
                extended,
                0,
                signed,
                0,
                0,
                0,
            ];
            self.out.extend_from_slice(&record);
            self.count(Section::Additional);
        }
        if self.truncated {
            self.out[2] |= (flag::TRUNCATED >> 8) as u8;
        }
        self.out[3] |= (self.code & flag::CODE) as u8;
        self.truncated
    }
}

/// The answer to something that could not be read: a header alone. `packet` has 12 bytes or more.
pub(crate) fn unreadable(packet: &[u8], code: u16, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = packet.get(..HEADER) else {
        return;
    };
    out.extend_from_slice(&header[..2]);
    let opcode = u16::from_be_bytes([header[2], header[3]]) & (flag::OPCODE | flag::RECURSION);
    for word in [flag::RESPONSE | opcode | code, 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// A plain answer without records.
pub(crate) fn empty(query: &Query, code: u16, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, query, MOST_UDP);
    writer.code(code);
    writer.finish();
}
