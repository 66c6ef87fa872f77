//! A packet and what becomes of it: decided from the zones alone.

use std::net::IpAddr;
use std::sync::Arc;

use super::limit::{Limiter, Verdict};
use super::metrics::Metrics;
use super::name;
use super::query::{self, Query};
use super::table::{Found, Set};
use super::tsig::{self, Signer};
use super::zones::{Zone, Zones};
use crate::dns::wire::{ANY_CLASS, Bad, HEADER, IN, MOST_UDP, code, flag, kind};

/// Bytes of the record that says that we know EDNS.
const OPT: usize = 11;
/// Names that lead to each other are followed so far.
const FOLLOWED: usize = 8;

/// How an answer goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Tcp,
}

/// What an answer is about, for limiting rates: answers that are alike have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) class: Class,
    /// Bytes at the end of the asked name that it is about.
    pub(crate) by: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Records,
    Nothing,
    NoName,
    Referral,
    Fault,
}

const FAULT: Topic = Topic {
    class: Class::Fault,
    by: 0,
};

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The answer is written.
    Answered,
    /// Nothing is sent.
    Silence,
    /// The zone is sent (by TCP only).
    Transfer(Arc<Zone>, Option<Signer>),
    /// Others are asked.
    Elsewhere,
}

/// What is needed to answer.
pub(crate) struct Desk<'a> {
    pub(crate) zones: &'a Zones,
    pub(crate) metrics: &'a Metrics,
    /// Limits answers by UDP: who asks by TCP is who he says.
    pub(crate) limiter: &'a Limiter,
    /// Microseconds, for that.
    pub(crate) micros: u64,
    pub(crate) source: IpAddr,
    pub(crate) way: Way,
    /// Another number each time.
    pub(crate) spin: u32,
    /// Unix seconds; only asked for if something is signed.
    pub(crate) now: fn() -> u64,
}

impl Desk<'_> {
    /// Answers a packet, or says what else is to be done.
    pub(crate) fn answer(&self, packet: &[u8], out: &mut Vec<u8>) -> Outcome {
        let metrics = self.metrics;
        let query = match query::parse(packet) {
            Ok(query) => query,
            Err(bad) => {
                Metrics::add(&metrics.malformed);
                return match bad {
                    Bad::Noise => Outcome::Silence,
                    Bad::Code(code) => {
                        crate::dns::reply::unreadable(packet, code, out);
                        match self.judge(&[], FAULT) {
                            Verdict::Send => Outcome::Answered,
                            Verdict::CutOff | Verdict::Drop => Outcome::Silence,
                        }
                    }
                };
            }
        };
        let Some(at) = query.tsig else {
            return self.answer_to(&query, None, out);
        };
        let now = (self.now)();
        match tsig::verify(packet, at, |k| self.zones.key(k), now) {
            Ok(mut signer) => {
                let outcome = self.answer_to(&query, Some(&signer), out);
                match outcome {
                    Outcome::Transfer(zone, _) => Outcome::Transfer(zone, Some(signer)),
                    Outcome::Answered => {
                        signer.sign(out, now);
                        Outcome::Answered
                    }
                    other => other,
                }
            }
            Err(refused) => {
                Metrics::add(&metrics.bad_signatures);
                tsig::refuse(&query, refused, now, out);
                self.limited(&query, FAULT, out)
            }
        }
    }

    fn judge(&self, name: &[u8], topic: Topic) -> Verdict {
        match self.way {
            Way::Tcp => Verdict::Send,
            Way::Udp => self.limiter.judge(self.source, name, topic, self.micros),
        }
    }

    /// An answer that is written goes out, unless there are too many of its kind.
    fn limited(&self, query: &Query, topic: Topic, out: &mut Vec<u8>) -> Outcome {
        match self.judge(query.name(), topic) {
            Verdict::Send => Outcome::Answered,
            Verdict::CutOff => {
                Metrics::add(&self.metrics.rate_slipped);
                begin(query, flag::TRUNCATED, out);
                finish(query, code::OK, 0, out);
                Outcome::Answered
            }
            Verdict::Drop => {
                Metrics::add(&self.metrics.rate_limited);
                Outcome::Silence
            }
        }
    }

    /// Whether others are asked for what is not here.
    fn asks_others(&self, query: &Query, signer: Option<&Signer>) -> bool {
        // Who does not want others to be asked, or signs, asks the zones.
        let wanted = query.flags & flag::RECURSION != 0 && signer.is_none();
        let transfer = matches!(query.kind, kind::AXFR | kind::IXFR);
        wanted && !transfer && self.zones.forwards_for(self.source)
    }

    fn answer_to(&self, query: &Query, signer: Option<&Signer>, out: &mut Vec<u8>) -> Outcome {
        let metrics = self.metrics;
        let refuse = |code: u16, out: &mut Vec<u8>| {
            Metrics::add(&metrics.refused);
            plain(query, code, out);
            self.limited(query, FAULT, out)
        };
        if query.edns.is_some_and(|e| e.version != 0) {
            return refuse(code::BAD_VERSION, out);
        }
        if !matches!(query.class, IN | ANY_CLASS) {
            return refuse(code::REFUSED, out);
        }
        let Some(zone) = self.zones.zone_of(query.name()) else {
            return match self.asks_others(query, signer) {
                true => Outcome::Elsewhere,
                false => refuse(code::REFUSED, out),
            };
        };
        let reserved = signer.map_or(0, |s| s.key().size());
        let limit = match self.way {
            Way::Udp => query.udp_size(),
            Way::Tcp => usize::from(u16::MAX),
        };
        let limit = limit - reserved.min(limit);
        match query.kind {
            kind::AXFR | kind::IXFR => {
                let key = signer.map(|s| s.key().name());
                if !self.zones.may_transfer(self.source, key) {
                    Metrics::add(&metrics.transfers_refused);
                    return refuse(code::REFUSED, out);
                }
                if query.name() != zone.origin().wire() {
                    return refuse(code::NOT_AUTHORITATIVE, out);
                }
                match (self.way, query.kind) {
                    (Way::Tcp, _) => Outcome::Transfer(Arc::clone(zone), None),
                    // RFC 5936 section 4.2.
                    (Way::Udp, kind::AXFR) => refuse(code::MALFORMED, out),
                    // The version that there is; who wants it asks by TCP (RFC 1995 section 2).
                    (Way::Udp, _) => {
                        let (found, _) = zone.table.find(query.name(), query.labels, kind::SOA);
                        let topic = write(zone, query, (found, 0), limit, 0, metrics, out);
                        self.limited(query, topic, out)
                    }
                }
            }
            _ => {
                let found = zone.table.find(query.name(), query.labels, query.kind);
                let missing = matches!(found.0, Found::Nothing | Found::NoName);
                if missing && zone.content().start().shared && self.asks_others(query, signer) {
                    return Outcome::Elsewhere;
                }
                let topic = write(zone, query, found, limit, self.spin, metrics, out);
                self.limited(query, topic, out)
            }
        }
    }
}

/// Begins an answer: header and question.
#[inline]
fn begin(query: &Query, flags: u16, out: &mut Vec<u8>) {
    out.clear();
    let flags = flag::RESPONSE | flags | (query.flags & flag::RECURSION);
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&query.id.to_be_bytes());
    header[2..4].copy_from_slice(&flags.to_be_bytes());
    header[5] = 1;
    out.extend_from_slice(&header);
    out.extend_from_slice(query.question);
}

fn set_count(out: &mut [u8], section: usize, count: u16) {
    out[section..section + 2].copy_from_slice(&count.to_be_bytes());
}

/// Ends an answer with its code, and EDNS if the asker knows it.
fn finish(query: &Query, code: u16, more: u16, out: &mut Vec<u8>) {
    out[3] |= (code & flag::CODE) as u8;
    let mut more = more;
    if let Some(edns) = query.edns {
        let [high, low] = (MOST_UDP as u16).to_be_bytes();
        let signed = if edns.signed { 0x80 } else { 0 };
        let extended = (code >> 4) as u8;
        out.extend_from_slice(&[
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
        ]);
        more += 1;
    }
    set_count(out, 10, more);
}

/// An answer without records.
pub(crate) fn plain(query: &Query, code: u16, out: &mut Vec<u8>) {
    begin(query, 0, out);
    finish(query, code, 0, out);
}

/// Sections of a message, by where their count is.
mod section {
    pub(super) const ANSWER: usize = 6;
    pub(super) const AUTHORITY: usize = 8;
}

fn write(
    zone: &Zone,
    query: &Query,
    (found, by): (Found, usize),
    limit: usize,
    spin: u32,
    metrics: &Metrics,
    out: &mut Vec<u8>,
) -> Topic {
    let limit = limit.saturating_sub(if query.edns.is_some() { OPT } else { 0 });
    begin(query, flag::AUTHORITATIVE, out);
    let question = out.len();
    let (mut code, mut more) = (code::OK, (&[][..], 0));
    let topic = match found {
        Found::Set(set) => {
            Metrics::add(&metrics.answered);
            // The whole need not be written to see that it is too large.
            if set.len() <= limit {
                set.write(spin, out);
            } else {
                out.resize(limit + 1, 0);
            }
            set_count(out, section::ANSWER, set.count);
            more = (&set.more, set.more_count);
            Class::Records
        }
        Found::Alias(alias) => {
            Metrics::add(&metrics.answered);
            code = follow(zone, query, alias, spin, out);
            Class::Records
        }
        Found::Referral(set) => {
            Metrics::add(&metrics.referred);
            // It is not ours to say (RFC 1034 section 4.3.2).
            out[2] &= !((flag::AUTHORITATIVE >> 8) as u8);
            refer(set, out);
            // Without the addresses it may lead nowhere (RFC 9471).
            out.extend_from_slice(&set.more);
            let size = out.len();
            if size <= limit {
                finish(query, code::OK, set.more_count, out);
                return Topic {
                    class: Class::Referral,
                    by,
                };
            }
            Class::Referral
        }
        Found::Nothing => {
            Metrics::add(&metrics.nothing);
            deny(zone, query, out);
            Class::Nothing
        }
        Found::NoName => {
            Metrics::add(&metrics.no_name);
            code = code::NO_NAME;
            deny(zone, query, out);
            Class::NoName
        }
    };
    if out.len() > limit {
        Metrics::add(&metrics.truncated);
        out.truncate(question);
        out[section::ANSWER..HEADER].fill(0);
        out[2] |= (flag::TRUNCATED >> 8) as u8;
        more = (&[], 0);
    } else if out.len() + more.0.len() <= limit {
        out.extend_from_slice(more.0);
    } else {
        more.1 = 0;
    }
    finish(query, code, more.1, out);
    Topic { class: topic, by }
}

/// Says who knows that there is nothing, and for how long (RFC 2308 section 3).
fn deny(zone: &Zone, query: &Query, out: &mut Vec<u8>) {
    // The zone's name is the end of the name of the question.
    let owner = HEADER + query.name().len() - zone.origin().wire().len();
    out.extend_from_slice(&(0xc000 | owner as u16).to_be_bytes()); // less than 267
    out.extend_from_slice(&zone.table.negative);
    set_count(out, section::AUTHORITY, 1);
}

fn refer(set: &Set, out: &mut Vec<u8>) {
    set.write(0, out);
    set_count(out, section::AUTHORITY, set.count);
}

/// Writes an alias, and what it leads to as far as that is in the zone; the code is that of the last
/// name (RFC 6604).
fn follow(zone: &Zone, query: &Query, alias: &Set, spin: u32, out: &mut Vec<u8>) -> u16 {
    let (mut code, mut count) = (code::OK, 1);
    // The name that an alias leads to stands where its data begins.
    let mut target_at = out.len() + 12;
    let mut target = alias.target();
    alias.write(spin, out);
    let mut seen: [&[u8]; FOLLOWED] = [&[]; FOLLOWED];
    for step in 0..FOLLOWED {
        let again = target == query.name() || seen.contains(&target);
        if again || !name::is_in(target, zone.origin().wire()) {
            break;
        }
        seen[step] = target;
        let above = std::iter::successors(name::parent(target), |n| name::parent(n));
        let owner = target_at as u16; // FOLLOWED names of 255 bytes are less than a pointer reaches
        match zone.table.find(target, above.count(), query.kind).0 {
            Found::Set(set) => {
                set.write_of(owner, out);
                count += set.count;
                break;
            }
            Found::Alias(next) => {
                target_at = out.len() + 12;
                next.write_of(owner, out);
                target = next.target();
                count += 1;
            }
            Found::Referral(set) => {
                refer(set, out);
                break;
            }
            Found::Nothing => {
                deny(zone, query, out);
                break;
            }
            Found::NoName => {
                code = code::NO_NAME;
                deny(zone, query, out);
                break;
            }
        }
    }
    set_count(out, section::ANSWER, count);
    code
}
