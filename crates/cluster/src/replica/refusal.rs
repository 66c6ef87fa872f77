//! What is not let in: a record that would harm, or that nobody could have written.

use crate::clock::MAX_AHEAD;

use super::wire::Wire;

/// The largest value, in bytes of JSON.
pub const LARGEST_VALUE: usize = 4 << 20;
/// The longest kind, in bytes.
pub const LONGEST_KIND: usize = 64;
/// The longest name, in bytes.
pub const LONGEST_NAME: usize = 256;
/// The longest note, in bytes.
pub const LONGEST_NOTE: usize = 4 << 10;
/// How deep the mappings and lists of a value may be nested.
const DEEPEST: usize = 120;
/// How many scalars, lists and mappings a value may have: in memory each takes far more than the two
/// bytes that it may have as text.
const MOST_PARTS: usize = 250_000;
/// Authors that a record may name before its parent's.
pub(super) const MOST_OLDER: usize = 15;

/// Why a record is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No kind, or no name.
    #[error("it has no {0}")]
    Nameless(&'static str),
    /// A kind, name or note is too long.
    #[error("its {what} has {size} bytes, and {most} is the most")]
    Long {
        /// What is too long.
        what: &'static str,
        /// Its bytes.
        size: usize,
        /// How many there may be.
        most: usize,
    },
    /// The value is too large.
    #[error("its value has {0} bytes as JSON, and {LARGEST_VALUE} is the most")]
    Large(usize),
    /// The value has too many parts.
    #[error("its value has more than {MOST_PARTS} parts")]
    Many,
    /// The value is nested too deep.
    #[error("its value is nested more than {DEEPEST} deep")]
    Deep,
    /// The value cannot be read.
    #[error("its value is no JSON: {0}")]
    NotJson(String),
    /// It comes from the future.
    #[error(
        "it is from {} s in the future, and {} s is the most: a clock is wrong, there or here", .0 / 1000, MAX_AHEAD / 1000
    )]
    Future(u64),
    /// No object has so many versions.
    #[error("its revision {0} is none that can be")]
    Revision(u64),
    /// It has no author.
    #[error("it does not say who wrote it")]
    Authorless,
    /// It says that it followed what came after it, or too much.
    #[error("what it says of the versions before it cannot be")]
    Ancestry,
}

/// Looks at everything but the time.
pub(super) fn check(wire: &Wire<'_>) -> Result<(), Refusal> {
    let long = |what, text: &str, most| match text.len() {
        size if size > most => Err(Refusal::Long { what, size, most }),
        _ => Ok(()),
    };
    long("kind", wire.kind, LONGEST_KIND)?;
    long("name", wire.name, LONGEST_NAME)?;
    long("note", wire.note, LONGEST_NOTE)?;
    if wire.kind.is_empty() {
        return Err(Refusal::Nameless("kind"));
    }
    if wire.name.is_empty() {
        return Err(Refusal::Nameless("name"));
    }
    if wire.revision == 0 || wire.revision > u64::MAX / 2 {
        return Err(Refusal::Revision(wire.revision));
    }
    let newest = [wire.stamp].into_iter().chain(wire.parent);
    let chain = newest.chain(wire.older.iter().copied());
    let falling = chain.clone().zip(chain.skip(1)).all(|(a, b)| a > b);
    if !falling || wire.older.len() > MOST_OLDER || wire.parent.is_none() && !wire.older.is_empty()
    {
        return Err(Refusal::Ancestry);
    }
    wire.value.map_or(Ok(()), check_value)
}

pub(super) fn check_value(text: &str) -> Result<(), Refusal> {
    if text.len() > LARGEST_VALUE {
        return Err(Refusal::Large(text.len()));
    }
    let mut bounds = Bounds {
        left: MOST_PARTS,
        depth: 0,
        found: None,
    };
    let mut from = serde_json::Deserializer::from_str(text);
    let read = serde::de::DeserializeSeed::deserialize(&mut bounds, &mut from);
    match read.and_then(|()| from.end()) {
        Ok(()) => Ok(()),
        Err(e) => Err(bounds
            .found
            .unwrap_or_else(|| Refusal::NotJson(e.to_string()))),
    }
}

/// Walks through JSON without building anything.
struct Bounds {
    left: usize,
    depth: usize,
    found: Option<Refusal>,
}

impl Bounds {
    fn refuse<E: serde::de::Error>(&mut self, refusal: Refusal) -> E {
        let error = E::custom(&refusal);
        self.found = Some(refusal);
        error
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.refuse(Refusal::Deep));
        }
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for &mut Bounds {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(self.refuse(Refusal::Many)),
        }
        from.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for &mut Bounds {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.enter()?;
        while list.next_element_seed(&mut *self)?.is_some() {}
        self.depth -= 1;
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.enter()?;
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            map.next_value_seed(&mut *self)?;
        }
        self.depth -= 1;
        Ok(())
    }
}
