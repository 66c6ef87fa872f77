//! A zone made ready for answers: every name with its records as they stand in a message. Looking
//! up is one step in a map; writing an answer is copying bytes.

use std::collections::HashMap;

use super::content::Content;
use super::name::{self, Name};
use super::record::Record;
use crate::dns::wire::{HEADER, IN, kind};

/// A pointer to the name of the question (RFC 1035 section 4.1.4).
pub(crate) const ASKED: [u8; 2] = [0xc0, HEADER as u8];

/// Records of one name and type, as they stand in a message.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) kind: u16,
    pub(crate) count: u16,
    /// Bytes of each, if all have as many and their order means nothing: then another one is first
    /// each time. 0 if not.
    stride: u16,
    /// Each behind [`ASKED`]; of a delegation behind the whole name.
    bytes: Box<[u8]>,
    /// Addresses of the hosts in them, with their whole names.
    pub(crate) more: Box<[u8]>,
    pub(crate) more_count: u16,
}

impl Set {
    /// Writes the records, beginning with another one at each number.
    pub(crate) fn write(&self, spin: u32, out: &mut Vec<u8>) {
        if self.count > 1 && self.stride > 0 {
            let first = (spin % u32::from(self.count)) as usize * usize::from(self.stride);
            let (before, from) = self.bytes.split_at(first);
            out.extend_from_slice(from);
            out.extend_from_slice(before);
        } else {
            out.extend_from_slice(&self.bytes);
        }
    }

    /// Writes the records of a name that is not the question's but stands at `owner`.
    pub(crate) fn write_of(&self, owner: u16, out: &mut Vec<u8>) {
        let mut rest = &self.bytes[..];
        while rest.len() >= 12 {
            let length = 12 + usize::from(u16::from_be_bytes([rest[10], rest[11]]));
            let Some((record, after)) = rest.split_at_checked(length) else {
                return;
            };
            out.extend_from_slice(&(0xc000 | owner).to_be_bytes());
            out.extend_from_slice(&record[2..]);
            rest = after;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The name in its first record, of a CNAME.
    pub(crate) fn target(&self) -> &[u8] {
        self.bytes.get(12..).unwrap_or_default()
    }
}

/// A name of the zone; without records if there are only names below it (RFC 4592 section 2.2.2).
#[derive(Debug, Default)]
struct Node {
    /// By type.
    sets: Box<[Set]>,
    /// Others answer for it and what is below.
    delegated: bool,
}

/// What there is for a question.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// Records.
    Set(&'a Set),
    /// Another name has them.
    Alias(&'a Set),
    /// Others have them.
    Referral(&'a Set),
    /// The name has none of this type.
    Nothing,
    /// There is no such name.
    NoName,
}

/// The names of a zone.
#[derive(Debug)]
pub(crate) struct Table {
    names: HashMap<Name, Node>,
    /// Labels of the longest name: nothing longer is looked up as it is.
    deepest: usize,
    /// The SOA for answers that say no, without its name: type, class, time, data.
    pub(crate) negative: Box<[u8]>,
}

impl Table {
    pub(crate) fn new(content: &Content, serial: u32) -> Self {
        let start = content.start();
        let origin = &start.origin;
        let soa = start.soa_record(serial);
        let records = content.records();
        let delegated = |n: &[u8], k: u16| k == kind::NS && n != origin.wire();
        // Names below a delegation are not ours: they are only known to tell where to ask.
        let cuts: std::collections::HashSet<&[u8]> = records
            .iter()
            .filter(|r| delegated(r.name.wire(), r.kind))
            .map(|r| r.name.wire())
            .collect();
        let below_cut = |n: &[u8]| {
            let above = std::iter::successors(name::parent(n), |n| name::parent(n));
            !cuts.is_empty()
                && above
                    .take_while(|n| *n != origin.wire())
                    .any(|n| cuts.contains(n))
        };
        let set = |set: &[Record]| -> Set {
            let cut = delegated(set[0].name.wire(), set[0].kind);
            compile(set, cut, records)
        };
        let mut names: HashMap<Name, Node> = HashMap::with_capacity(records.len());
        names.insert(origin.clone(), Node::default());
        let mut deepest = 0;
        for group in records.chunk_by(|a, b| a.name == b.name) {
            let owner = &group[0].name;
            if below_cut(owner.wire()) {
                continue;
            }
            deepest = deepest.max(owner.labels().count());
            let mut above = owner.parent();
            while let Some(name) = above.filter(|n| n.is_in(origin) && !names.contains_key(n)) {
                above = name.parent();
                names.insert(name, Node::default());
            }
            let mut sets: Vec<Set> = group.chunk_by(|a, b| a.kind == b.kind).map(set).collect();
            if owner == origin {
                sets.push(compile(std::slice::from_ref(&soa), false, &[]));
                sets.sort_by_key(|s| s.kind);
            }
            let node = Node {
                delegated: cuts.contains(owner.wire()),
                sets: sets.into(),
            };
            names.insert(owner.clone(), node);
        }
        // Also of a zone without a server.
        let apex = names.entry(origin.clone()).or_default();
        if apex.sets.is_empty() {
            apex.sets = Box::new([compile(std::slice::from_ref(&soa), false, &[])]);
        }
        let mut negative = Vec::new();
        let ttl = start.ttl.min(start.negative);
        body(&Record { ttl, ..soa }, &mut negative);
        Self {
            names,
            deepest: deepest.max(origin.labels().count()),
            negative: negative.into(),
        }
    }

    /// What there is for a name of this zone, which has `labels` labels; and how many of its last
    /// bytes it was found by, which are fewer if it is not there itself.
    pub(crate) fn find(&self, name: &[u8], labels: usize, kind: u16) -> (Found<'_>, usize) {
        let mut rest = name;
        for _ in self.deepest..labels {
            rest = name::parent(rest).unwrap_or_default();
        }
        loop {
            if let Some(node) = self.names.get(rest) {
                let found = if rest.len() == name.len() {
                    node.find(kind)
                } else if node.delegated {
                    node.referral()
                } else {
                    self.wildcard(rest, kind)
                };
                return (found, rest.len());
            }
            match name::parent(rest) {
                Some(parent) => rest = parent,
                // The zone itself is always there.
                None => return (Found::NoName, 0),
            }
        }
    }

    /// What the wildcard below a name has (RFC 4592 section 3.3.1): the name is the closest that is
    /// there.
    fn wildcard(&self, encloser: &[u8], kind: u16) -> Found<'_> {
        let mut name = [0; name::LONGEST + 2];
        let length = encloser.len() + 2;
        name[..2].copy_from_slice(b"\x01*");
        name[2..length].copy_from_slice(encloser);
        let node = self.names.get(&name[..length]);
        node.map_or(Found::NoName, |n| n.find(kind))
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

impl Node {
    fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|s| s.kind == kind)
    }

    fn referral(&self) -> Found<'_> {
        self.set(kind::NS).map_or(Found::Nothing, Found::Referral)
    }

    fn find(&self, kind: u16) -> Found<'_> {
        // Whether a zone is delegated, and how it is signed, its parent knows (RFC 4035 section 3.1.4.1).
        if self.delegated && kind != kind::DS {
            return self.referral();
        }
        if let Some(set) = self.set(kind) {
            return Found::Set(set);
        }
        match self.sets.first() {
            // A CNAME stands alone.
            Some(first) if first.kind == kind::CNAME && kind != kind::ANY => Found::Alias(first),
            // All that is wanted is had by one of them (RFC 8482 section 4.1).
            Some(first) if kind == kind::ANY => Found::Set(first),
            _ => Found::Nothing,
        }
    }
}

/// Type, class, time and data.
fn body(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&record.kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    // Content has no longer ones.
    out.extend_from_slice(&(record.data.len() as u16).to_be_bytes());
    out.extend_from_slice(&record.data);
}

fn compile(set: &[Record], cut: bool, all: &[Record]) -> Set {
    let mut bytes = Vec::new();
    for record in set {
        match cut {
            true => bytes.extend_from_slice(record.name.wire()),
            false => bytes.extend_from_slice(&ASKED),
        }
        body(record, &mut bytes);
    }
    let (mut more, mut more_count) = (Vec::new(), 0_u16);
    if matches!(set[0].kind, kind::NS | kind::MX | kind::SRV) {
        let mut targets: Vec<Name> = set.iter().filter_map(Record::target).collect();
        targets.sort();
        targets.dedup();
        for target in targets {
            let from = all.partition_point(|r| r.name < target);
            let of_it = all[from..].iter().take_while(|r| r.name == target);
            for record in of_it.filter(|r| r.address().is_some()) {
                more.extend_from_slice(record.name.wire());
                body(record, &mut more);
                more_count += 1;
            }
        }
    }
    let same = set.iter().all(|r| r.data.len() == set[0].data.len());
    let stride = bytes.len() / set.len();
    Set {
        kind: set[0].kind,
        count: u16::try_from(set.len()).unwrap_or(u16::MAX),
        stride: u16::try_from(stride)
            .ok()
            .filter(|_| same && !cut)
            .unwrap_or(0),
        bytes: bytes.into(),
        more: more.into(),
        more_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::content::Start;
    use crate::zone::record::Data;
    use proptest::prelude::*;

    /// What RFC 1034 section 4.3.2 and RFC 4592 say, step by step, of records in a list.
    fn by_the_book(records: &[Record], origin: &Name, name: &Name, kind: u16) -> &'static str {
        let exists = |n: &Name| n == origin || records.iter().any(|r| r.name.is_in(n));
        let has = |n: &Name, kind| records.iter().any(|r| r.name == *n && r.kind == kind);
        // Down from the zone's name, as far as there are names.
        let mut path: Vec<Name> = std::iter::successors(Some(name.clone()), Name::parent)
            .take_while(|n| n.is_in(origin))
            .collect();
        path.reverse();
        let mut encloser = origin.clone();
        for step in &path {
            if step != origin && has(step, kind::NS) && !(step == name && kind == kind::DS) {
                return "referral";
            }
            match exists(step) {
                true => encloser = step.clone(),
                false => break,
            }
        }
        let at = match encloser == *name {
            true => name.clone(),
            false => match encloser.child("*").filter(|w| exists(w)) {
                Some(wildcard) => wildcard,
                None => return "no name",
            },
        };
        if has(&at, kind) {
            "set"
        } else if has(&at, kind::CNAME) {
            "alias"
        } else {
            "nothing"
        }
    }

    proptest! {
        #[test]
        fn answers_are_by_the_book(
            records in proptest::collection::vec(
                (proptest::collection::vec("[ab*]", 0..4), prop_oneof![Just(1_u16), Just(2), Just(5), Just(16)]), 0..10),
            asked in proptest::collection::vec("[abc*]", 0..6),
            kind in prop_oneof![Just(1_u16), Just(16), Just(15), Just(43)],
        ) {
            let origin: Name = "z.y".parse().unwrap();
            let name = |labels: &[String]| {
                labels.iter().fold(origin.clone(), |n, l| n.child(l).unwrap())
            };
            let record = |(labels, kind): &(Vec<String>, u16)| {
                let target = || "x.w".parse().unwrap();
                let data = match kind {
                    1 => Data::Address([10, 0, 0, 1].into()),
                    2 => Data::Server(target()),
                    5 => Data::Alias(target()),
                    _ => Data::Text(vec![Vec::new()]),
                };
                Record::new(name(labels), 5, &data)
            };
            // A wildcard that is delegated is not defined (RFC 4592 section 4.2).
            let fit = |r: &Record| r.kind != 2 || r.name.labels().next() != Some(b"*");
            let records = records.iter().map(record).filter(fit).collect();
            let (content, _) = Content::new(Start::new(origin.clone()), &[], records);
            let table = Table::new(&content, 1);
            let asked = name(&asked);
            let (found, _) = table.find(asked.wire(), asked.labels().count(), kind);
            let found = match found {
                Found::Set(_) => "set",
                Found::Alias(_) => "alias",
                Found::Referral(_) => "referral",
                Found::Nothing => "nothing",
                Found::NoName => "no name",
            };
            prop_assert_eq!(found, by_the_book(content.records(), &origin, &asked, kind));
        }
    }
}
