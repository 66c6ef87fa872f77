//! A question and its answer, as far as nobody else has to be asked.

use std::net::IpAddr;
use std::sync::Arc;

use wharfie_core::network::{Answer, Catalog, Kind, ZONE};

use super::forward::Via;
use super::metrics::Metrics;
use super::reply::{self, Section, Writer};
use super::wire::{self, ANY_CLASS, Bad, IN, Query, code, flag, kind};

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// The answer is written.
    Answered,
    /// Others have to be asked: these, or the host's resolvers if there are none.
    Elsewhere(Box<Query<'a>>, Via),
    /// Nothing is sent.
    Silence,
}

/// How an answer goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Tcp,
}

impl Way {
    /// Bytes that an answer may have.
    pub(crate) fn limit(self, query: &Query) -> usize {
        match self {
            Self::Udp => query.udp_size(),
            Self::Tcp => usize::from(u16::MAX),
        }
    }
}

/// What is needed to answer.
pub(crate) struct Desk<'a, F> {
    pub(crate) catalog: &'a Catalog,
    /// Whether an address is this host's: its own programs may ask for names outside, though they
    /// are on no network.
    pub(crate) is_here: F,
    pub(crate) way: Way,
    pub(crate) metrics: &'a Metrics,
}

impl<F: Fn(IpAddr) -> bool> Desk<'_, F> {
    /// Answers a packet of somebody, or says who does. `spin` is another number each time.
    pub(crate) fn answer<'q>(
        &self,
        packet: &'q [u8],
        source: IpAddr,
        spin: u32,
        out: &mut Vec<u8>,
    ) -> Outcome<'q> {
        let metrics = self.metrics;
        Metrics::add(&metrics.received);
        let query = match wire::parse(packet) {
            Ok(query) => query,
            Err(bad) => {
                Metrics::add(&metrics.malformed);
                return match bad {
                    Bad::Noise => Outcome::Silence,
                    Bad::Code(code) => {
                        reply::unreadable(packet, code, out);
                        Outcome::Answered
                    }
                };
            }
        };
        let refuse = |code: u16, out: &mut Vec<u8>| {
            Metrics::add(&metrics.refused);
            reply::empty(&query, code, out);
            Outcome::Answered
        };
        if query.edns.is_some_and(|e| e.version != 0) {
            return refuse(code::BAD_VERSION, out);
        }
        let transfer = matches!(query.kind, kind::AXFR | kind::IXFR);
        if transfer || !matches!(query.class, IN | ANY_CLASS) {
            return refuse(code::REFUSED, out);
        }
        let Some(asker) = self.catalog.asker(source) else {
            // Whoever is on no network sees no names of ours; strangers get nothing at all.
            return match (self.is_here)(source) && !ours(query.name.as_str()) {
                true => Outcome::Elsewhere(Box::new(query), Via::default()),
                false => refuse(code::REFUSED, out),
            };
        };
        let asked = match query.kind {
            kind::A => Kind::A,
            kind::AAAA => Kind::Aaaa,
            kind::SRV => Kind::Srv,
            kind::PTR => Kind::Ptr,
            kind::ANY => Kind::Any,
            _ => Kind::Other,
        };
        let found = self
            .catalog
            .lookup(&asker, query.name.as_str(), asked, spin);
        if found == Answer::Elsewhere {
            // Who does not want others to be asked gets what is here: nothing.
            return match query.flags & flag::RECURSION {
                0 => refuse(code::REFUSED, out),
                _ => {
                    let via = Arc::clone(self.catalog.resolvers(&asker));
                    Outcome::Elsewhere(Box::new(query), via)
                }
            };
        }
        let mut writer = Writer::new(out, &query, self.way.limit(&query));
        writer.authoritative();
        let negative = |writer: &mut Writer| {
            if ours(query.name.as_str()) {
                writer.start_of_authority(ZONE);
            }
        };
        match &found {
            Answer::Found { records, more, ttl } => {
                Metrics::add(&metrics.answered);
                for data in records {
                    writer.record(Section::Answer, None, data, *ttl);
                }
                for record in more {
                    writer.record(Section::Additional, Some(&record.name), &record.data, *ttl);
                }
            }
            Answer::Nothing => {
                Metrics::add(&metrics.nothing);
                negative(&mut writer);
            }
            Answer::NoName | Answer::Elsewhere => {
                Metrics::add(&metrics.no_name);
                writer.code(code::NO_NAME);
                negative(&mut writer);
            }
        }
        if writer.finish() {
            Metrics::add(&metrics.truncated);
        }
        Outcome::Answered
    }
}

/// Whether a name is in the zone of the cluster.
fn ours(name: &str) -> bool {
    let before = name.strip_suffix(ZONE);
    before.is_some_and(|b| b.is_empty() || b.ends_with('.'))
}
