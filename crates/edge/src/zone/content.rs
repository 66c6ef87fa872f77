//! What a zone has at a time, as plain records in order: what snapshots are made of, what changes
//! are found between, and what all nodes must agree on.

use std::collections::BTreeSet;

use ring::digest;

use super::name::Name;
use super::record::{Data, Record, kind_name};
use crate::dns::wire::kind;

/// Bytes of a record's data: with all that stands around it, it must fit a message.
const LONGEST: usize = 1 << 15;

/// A zone and how others are to keep it (RFC 1035 section 3.3.13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The name of the zone.
    pub origin: Name,
    /// The server that is named first; for information only.
    pub primary: Name,
    /// The mail address of whoever cares for it, `@` written as a dot.
    pub contact: Name,
    /// Seconds that SOA and NS may be kept.
    pub ttl: u32,
    /// Seconds after which secondaries ask whether there is something new.
    pub refresh: u32,
    /// Seconds after which they ask again, if they got no answer.
    pub retry: u32,
    /// Seconds after which they no longer answer, if they got none.
    pub expire: u32,
    /// Seconds that it may be kept that there is no such name (RFC 2308 section 4).
    pub negative: u32,
    /// Whether others have names in it too, which are not here: they are asked for whom others are asked.
    pub shared: bool,
}

impl Start {
    /// A zone with the times that are usual where names change often.
    #[must_use]
    pub fn new(origin: Name) -> Self {
        let named = |label| origin.child(label).unwrap_or_else(|| origin.clone());
        Self {
            primary: named("ns"),
            contact: named("hostmaster"),
            origin,
            ttl: 300,
            refresh: 300,
            retry: 60,
            expire: 604_800,
            negative: 5,
            shared: false,
        }
    }

    /// The data of its SOA.
    #[must_use]
    pub fn soa(&self, serial: u32) -> Vec<u8> {
        let mut data = self.primary.wire().to_vec();
        data.extend_from_slice(self.contact.wire());
        for number in [serial, self.refresh, self.retry, self.expire, self.negative] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data
    }

    /// The SOA record.
    #[must_use]
    pub fn soa_record(&self, serial: u32) -> Record {
        Record {
            name: self.origin.clone(),
            kind: kind::SOA,
            ttl: self.ttl,
            data: self.soa(serial).into(),
        }
    }

    /// The SOA as a line of a zone file.
    #[must_use]
    pub fn soa_line(&self, serial: u32) -> String {
        let Self {
            origin,
            primary,
            contact,
            ttl,
            refresh,
            retry,
            expire,
            negative,
            shared: _,
        } = self;
        format!(
            "{origin}\t{ttl}\tIN\tSOA\t{primary} {contact} {serial} {refresh} {retry} {expire} {negative}"
        )
    }
}

/// All records of a zone but its SOA: sorted, each once, and none beside another that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    start: Start,
    records: Box<[Record]>,
}

impl Content {
    /// Takes records into a zone. What cannot be in it is left out and returned in words.
    #[must_use]
    pub fn new(start: Start, servers: &[Name], records: Vec<Record>) -> (Self, Vec<String>) {
        let mut faults = Vec::new();
        let origin = &start.origin;
        let mut records = records;
        records.retain(|r| {
            let apex = r.name == *origin;
            // Servers of others may have the zone too (RFC 2181 section 5.4.1); those in it are the nodes.
            let of_others = || r.target().is_some_and(|t| !t.is_in(origin));
            let why = if !r.name.is_in(origin) {
                "it is not in the zone"
            } else if !super::record::is_data(r.kind) || r.kind == kind::DNAME {
                "this type is not served"
            } else if !super::text::is_valid(r.kind, &r.data) {
                "its data is not of this type"
            } else if r.data.len() > LONGEST {
                "its data has more than 32 KiB"
            } else if apex && r.kind == kind::NS && !of_others() {
                "servers of the zone that have a name in it are its nodes"
            } else if apex && matches!(r.kind, kind::SOA | kind::CNAME) {
                "the zone itself has its SOA, and no CNAME"
            } else if r.kind == kind::SOA {
                "there is one SOA in a zone, its own"
            } else {
                return true;
            };
            faults.push(format!(
                "{} {} is left out: {why}",
                r.name,
                kind_name(r.kind)
            ));
            false
        });
        let servers: BTreeSet<&Name> = servers.iter().collect();
        let ns = |n: &Name| Record::new(origin.clone(), start.ttl, &Data::Server(n.clone()));
        records.extend(servers.into_iter().map(ns));
        records.sort_by(|a, b| {
            let same_name = a.name.cmp(&b.name).then(a.kind.cmp(&b.kind));
            same_name.then_with(|| (&a.data, a.ttl).cmp(&(&b.data, b.ttl)))
        });
        // The same data with two times to live is one record: the shorter counts, which is first.
        records.dedup_by(|b, a| (&b.name, b.kind, &b.data) == (&a.name, a.kind, &a.data));
        let mut kept: Vec<Record> = Vec::with_capacity(records.len());
        for group in records.chunk_by(|a, b| a.name == b.name) {
            let alias = group.iter().find(|r| r.kind == kind::CNAME);
            let Some(alias) = alias.filter(|_| group.len() > 1) else {
                kept.extend_from_slice(group);
                continue;
            };
            // RFC 1034 section 3.6.2.
            faults.push(format!(
                "{} has a CNAME to {}: its other records are left out",
                alias.name,
                super::text::show(alias)
            ));
            kept.push(alias.clone());
        }
        // All records of a name and type have one time to live (RFC 2181 section 5.2).
        for set in kept.chunk_by_mut(|a, b| (&a.name, a.kind) == (&b.name, b.kind)) {
            let ttl = set.iter().map(|r| r.ttl).min().unwrap_or_default();
            set.iter_mut().for_each(|r| r.ttl = ttl);
        }
        kept.sort();
        let content = Self {
            start,
            records: kept.into(),
        };
        (content, faults)
    }

    /// The zone.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Its records, without the SOA.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A number of this content: two that differ have different ones.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = self.start.origin.wire().to_vec();
        buffer.extend_from_slice(&self.start.ttl.to_be_bytes());
        buffer.extend(self.start.soa(0));
        for record in &self.records {
            buffer.extend_from_slice(record.name.wire());
            buffer.extend_from_slice(&record.kind.to_be_bytes());
            buffer.extend_from_slice(&record.ttl.to_be_bytes());
            buffer.extend_from_slice(&(record.data.len() as u32).to_be_bytes());
            buffer.extend_from_slice(&record.data);
            if buffer.len() > 4096 {
                context.update(&buffer);
                buffer.clear();
            }
        }
        context.update(&buffer);
        let digest = context.finish();
        let first = digest.as_ref().iter().take(8);
        first.fold(0, |sum, b| sum << 8 | u64::from(*b))
    }
}

/// What changed from one content to another: sorted records, gone and new (RFC 1995 section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// No longer there.
    pub gone: Vec<Record>,
    /// New.
    pub new: Vec<Record>,
}

impl Changes {
    /// Between two.
    #[must_use]
    pub fn between(old: &Content, new: &Content) -> Self {
        let mut out = Self::default();
        let mut old = old.records.iter().peekable();
        let mut new = new.records.iter().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return out,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            if order.is_le() {
                out.gone
                    .extend(old.next().filter(|_| order.is_lt()).cloned());
            }
            if order.is_ge() {
                out.new
                    .extend(new.next().filter(|_| order.is_gt()).cloned());
            }
        }
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gone.len() + self.new.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(addresses: &BTreeSet<(u8, u8)>) -> Content {
        let origin: Name = "z".parse().unwrap();
        let record = |(name, address): &(u8, u8)| {
            let data = Data::Address([10, 0, 0, *address].into());
            Record::new(origin.child(&format!("h{name}")).unwrap(), 5, &data)
        };
        let records = addresses.iter().map(record).collect();
        Content::new(Start::new(origin.clone()), &[], records).0
    }

    #[test]
    fn what_cannot_be_in_a_zone_is_left_out() {
        let name = |t: &str| t.parse::<Name>().unwrap();
        let alias = Data::Alias(name("x.y"));
        let records = vec![
            Record::new(name("other"), 5, &alias),
            Record::new(name("z"), 5, &alias),
            Record::new(name("a.z"), 5, &alias),
            Record::new(name("a.z"), 5, &Data::Text(vec![b"t".to_vec()])),
            Record::new(name("z"), 5, &Data::Server(name("ns.other"))),
            Record::new(name("z"), 5, &Data::Server(name("n9.z"))),
            Record::new(name("b.z"), 5, &Data::Address([10, 0, 0, 1].into())),
            Record::new(name("b.z"), 9, &Data::Address([10, 0, 0, 1].into())),
            Record::new(name("b.z"), 7, &Data::Address([10, 0, 0, 2].into())),
        ];
        let (content, words) = Content::new(Start::new(name("z")), &[], records);
        assert_eq!(words.len(), 4, "{words:?}");
        let ttls: Vec<u32> = content.records().iter().map(|r| r.ttl).collect();
        assert_eq!(ttls, [5, 5, 5, 5]);
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_to_the_other(
            old in proptest::collection::btree_set((0_u8..9, 0_u8..3), 0..20),
            new in proptest::collection::btree_set((0_u8..9, 0_u8..3), 0..20),
        ) {
            let (old, new) = (content(&old), content(&new));
            let changes = Changes::between(&old, &new);
            let mut records: BTreeSet<Record> = old.records().iter().cloned().collect();
            for gone in &changes.gone {
                prop_assert!(records.remove(gone));
            }
            for record in &changes.new {
                prop_assert!(records.insert(record.clone()));
            }
            prop_assert!(records.iter().eq(new.records()));
            prop_assert_eq!(changes.is_empty(), old.digest() == new.digest());
        }
    }
}
