//! Answers of other resolvers, kept as long as they say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::forward::Via;
use super::message::{self, Item};
use super::wire::{HEADER, Query, code, flag, kind};

/// Longer than this nothing is kept, whatever it says: people change names, and wait.
const LONGEST: u32 = 3600;
/// Longer than this it is not kept that there is no such name (RFC 2308 section 5 has hours).
const LONGEST_NEGATIVE: u32 = 300;

/// What was asked, in lower case, and how; and who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Box<[u8]>, Via);

impl Key {
    pub(crate) fn of(query: &Query, via: &Via) -> Self {
        let mut key = Vec::with_capacity(query.question.len() + 1);
        // Lengths of labels are below 64 and letters above: this touches letters only.
        let split = query.question.len().saturating_sub(4);
        key.extend(query.question[..split].iter().map(u8::to_ascii_lowercase));
        key.extend_from_slice(&query.question[split..]);
        let signed = query.edns.is_some_and(|e| e.signed);
        let unchecked = query.flags & flag::UNCHECKED != 0;
        key.push(u8::from(signed) | u8::from(unchecked) << 1);
        Self(key.into(), Arc::clone(via))
    }
}

/// An answer of another resolver, without its EDNS record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    /// Where the question ends.
    question: usize,
    /// Where times to live are, and their values.
    ttls: Vec<(usize, u32)>,
    /// Seconds that it may be kept; 0 if it may not.
    keep: u32,
}

impl Answer {
    /// Takes a message; `None` if it is broken, or no answer.
    pub(crate) fn read(mut bytes: Vec<u8>) -> Option<Self> {
        let (question, items) = message::walk(&bytes)?;
        let mut items = items;
        if let Some(at) = items.iter().position(|i| i.kind == kind::OPT) {
            // EDNS is between neighbours. What comes behind it, which is rare and only an addition,
            // goes as well: names may point into what would be moved.
            bytes.truncate(items[at].at);
            let additional = items[..at].iter().filter(|i| i.section == 2).count();
            let count = u16::try_from(additional).ok()?;
            bytes[10..12].copy_from_slice(&count.to_be_bytes());
            items.truncate(at);
        }
        let keep = keep(&bytes, &items);
        let ttls = items.iter().map(|i| (i.ttl_at, i.ttl)).collect();
        Some(Self {
            bytes,
            question,
            ttls,
            keep,
        })
    }

    pub(crate) fn code(&self) -> u16 {
        u16::from(self.bytes[3]) & flag::CODE
    }

    /// Writes it for an asker whose question it answers, some seconds after it was given.
    pub(crate) fn write(&self, query: &Query, limit: usize, age: u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        out.extend_from_slice(&self.bytes);
        out[..2].copy_from_slice(&query.id.to_be_bytes());
        // As it was asked, also where letters are in another case.
        if self.question == HEADER + query.question.len() {
            out[HEADER..self.question].copy_from_slice(query.question);
        }
        let recursion = (flag::RECURSION >> 8) as u8;
        out[2] = out[2] & !recursion | (query.flags >> 8) as u8 & recursion;
        out[2] &= !((flag::AUTHORITATIVE >> 8) as u8);
        out[3] |= flag::RECURSES as u8;
        for (at, ttl) in &self.ttls {
            let left = ttl.saturating_sub(age);
            out[*at..at + 4].copy_from_slice(&left.to_be_bytes());
        }
        let edns = if query.edns.is_some() { 11 } else { 0 };
        let truncated = out.len() + edns > limit;
        if truncated {
            out.truncate(self.question);
            out[6..HEADER].fill(0);
            out[2] |= (flag::TRUNCATED >> 8) as u8;
        }
        if let Some(e) = query.edns {
            let [high, low] = (super::wire::MOST_UDP as u16).to_be_bytes();
            let signed = if e.signed { 0x80 } else { 0 };
            out.extend_from_slice(&[0, 0, kind::OPT as u8, high, low, 0, 0, signed, 0, 0, 0]);
            let count = u16::from_be_bytes([out[10], out[11]]).saturating_add(1);
            out[10..12].copy_from_slice(&count.to_be_bytes());
        }
        truncated
    }
}

/// Seconds that an answer may be kept: as its shortest record, or as its zone says of what is not
/// there (RFC 2308 section 5: without a SOA record it is not kept).
fn keep(bytes: &[u8], items: &[Item]) -> u32 {
    let truncated = bytes[2] & 2 != 0;
    let code = u16::from(bytes[3]) & flag::CODE;
    if truncated || !matches!(code, code::OK | code::NO_NAME) {
        return 0;
    }
    let answers = items.iter().filter(|i| i.section == 0);
    let shortest = answers.map(|i| i.ttl).min();
    let soa = items.iter().find(|i| i.section == 1 && i.kind == kind::SOA);
    // The minimum is the last of its five numbers.
    let minimum = soa.and_then(|i| {
        let last = i.data.end.checked_sub(4).filter(|at| *at >= i.data.start)?;
        let four = bytes.get(last..i.data.end)?;
        let minimum = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        Some(minimum.min(i.ttl))
    });
    let negative = minimum.unwrap_or(0).min(LONGEST_NEGATIVE);
    match (code, shortest) {
        (code::OK, Some(shortest)) => shortest.min(LONGEST),
        // A chain of aliases that leads nowhere is kept no longer than its links.
        (_, Some(shortest)) => shortest.min(negative),
        (_, None) => negative,
    }
}

#[derive(Debug)]
struct Kept {
    answer: Arc<Answer>,
    since: Instant,
}

impl Kept {
    /// Seconds since it was given; none if that is too long ago.
    fn age(&self, now: Instant) -> Option<u32> {
        let age = now.saturating_duration_since(self.since);
        let keep = Duration::from_secs(self.answer.keep.into());
        (age < keep).then_some(age.as_secs() as u32)
    }
}

/// Answers in two generations: when the younger is full it becomes the older, and the older is
/// forgotten but for what was asked for meanwhile.
#[derive(Debug)]
pub(crate) struct Cache {
    room: usize,
    both: Mutex<[HashMap<Key, Kept>; 2]>,
}

impl Cache {
    /// A cache for so many answers.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room: room / 2,
            both: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Answer>, u32)> {
        let mut both = self.both.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *both;
        if let Some(kept) = young.get(key) {
            let age = kept.age(now)?;
            return Some((Arc::clone(&kept.answer), age));
        }
        let kept = old.remove(key)?;
        let age = kept.age(now)?;
        let answer = Arc::clone(&kept.answer);
        insert(&mut both, self.room, key.clone(), kept);
        Some((answer, age))
    }

    pub(crate) fn put(&self, key: Key, answer: Arc<Answer>, now: Instant) {
        if answer.keep == 0 || self.room == 0 {
            return;
        }
        let kept = Kept { answer, since: now };
        let mut both = self.both.lock().unwrap_or_else(PoisonError::into_inner);
        insert(&mut both, self.room, key, kept);
    }

    pub(crate) fn clear(&self) {
        let mut both = self.both.lock().unwrap_or_else(PoisonError::into_inner);
        *both = Default::default();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let both = self.both.lock().unwrap();
        both[0].len() + both[1].len()
    }
}

fn insert(both: &mut [HashMap<Key, Kept>; 2], room: usize, key: Key, kept: Kept) {
    let [young, old] = both;
    if young.len() >= room && !young.contains_key(&key) {
        *old = std::mem::take(young);
    }
    young.insert(key, kept);
}

#[cfg(test)]
mod tests {
    use super::super::wire::{self, parse, question};
    use super::*;
    use proptest::prelude::*;

    /// An answer with an address of a time to live, or none but a SOA record of a minimum.
    fn answer(name: &str, code: u16, ttl: Option<u32>, minimum: Option<u32>) -> Vec<u8> {
        let mut bytes = question(9, name, kind::A).unwrap();
        bytes[2] |= 0x80;
        bytes[3] |= code as u8;
        let mut record = |count: usize, kind: u16, ttl: u32, data: &[u8]| {
            bytes[count] += 1;
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        };
        if let Some(ttl) = ttl {
            record(7, kind::A, ttl, &[192, 0, 2, 1]);
        }
        if let Some(minimum) = minimum {
            let mut data = vec![0, 0];
            data.extend([0; 16]);
            data.extend(minimum.to_be_bytes());
            record(9, kind::SOA, 900, &data);
        }
        record(11, kind::OPT, 0, &[]);
        bytes
    }

    fn kept(code: u16, ttl: Option<u32>, minimum: Option<u32>) -> u32 {
        Answer::read(answer("a.example", code, ttl, minimum))
            .unwrap()
            .keep
    }

    #[test]
    fn answers_say_how_long_they_are_kept() {
        assert_eq!(kept(code::OK, Some(60), None), 60);
        assert_eq!(kept(code::OK, Some(86_400), None), LONGEST);
        assert_eq!(kept(code::OK, Some(0), None), 0);
        assert_eq!(kept(code::OK, Some(1 << 31), None), 0);
        assert_eq!(kept(code::NO_NAME, None, Some(30)), 30);
        assert_eq!(kept(code::OK, None, Some(86_400)), LONGEST_NEGATIVE);
        assert_eq!(kept(code::NO_NAME, None, None), 0);
        assert_eq!(kept(code::FAILED, None, Some(30)), 0);
        let mut truncated = answer("a", code::OK, Some(60), None);
        truncated[2] |= 2;
        assert_eq!(Answer::read(truncated).unwrap().keep, 0);
    }

    #[test]
    fn an_answer_is_written_for_who_asks() {
        let kept = Answer::read(answer("a.example", code::OK, Some(60), None)).unwrap();
        let packet = question(0x1234, "A.exAmple", kind::A).unwrap();
        let query = parse(&packet).unwrap();
        let mut out = Vec::new();
        assert!(!kept.write(&query, 512, 7, &mut out));
        assert_eq!(&out[..2], [0x12, 0x34]);
        assert_eq!(&out[12..packet.len()], &packet[12..]);
        let message = message::Message::read(&out).unwrap();
        assert_eq!(message.answers[0].ttl, 53);
        assert_eq!(&out[10..12], [0, 0]);
        // What does not fit is left out, and said to be.
        assert!(kept.write(&query, 30, 0, &mut out));
        let message = message::Message::read(&out).unwrap();
        assert!(message.truncated && message.answers.is_empty());
    }

    #[test]
    fn nothing_is_kept_too_long_or_without_bound() {
        let cache = Cache::new(8);
        let now = Instant::now();
        let key = |name: &str| {
            let packet = question(1, name, kind::A).unwrap();
            Key::of(&wire::parse(&packet).unwrap(), &Via::default())
        };
        let put = |name: &str| {
            let answer = Answer::read(answer(name, code::OK, Some(60), None)).unwrap();
            cache.put(key(name), Arc::new(answer), now);
        };
        put("a.example");
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(cache.get(&key("A.Example"), later(59)).unwrap().1, 59);
        assert!(cache.get(&key("a.example"), later(60)).is_none());
        assert!(cache.get(&key("b.example"), now).is_none());
        for i in 0..100 {
            put(&format!("n{i}.example"));
            // What is asked for again and again stays.
            assert!(cache.get(&key("a.example"), now).is_some(), "after {i}");
            assert!(cache.len() <= 9);
        }
        cache.clear();
        assert_eq!(cache.len(), 0);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_and_written(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            whole: bool,
            limit in 0_usize..600,
        ) {
            let mut message = answer("a.example", 0, Some(5), Some(6));
            if whole {
                message = bytes;
            } else {
                for (i, byte) in bytes.iter().enumerate() {
                    if let Some(b) = message.get_mut(i * 3) {
                        *b ^= byte & 0x11;
                    }
                }
            }
            if let Some(kept) = Answer::read(message) {
                let packet = question(1, "a.example", kind::A).unwrap();
                let query = parse(&packet).unwrap();
                let mut out = Vec::new();
                kept.write(&query, limit, 3, &mut out);
            }
        }
    }
}
