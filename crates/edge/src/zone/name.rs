//! Domain names (RFC 1035 section 3.1), as they are in a message: labels behind their lengths, in
//! lower case, since names that differ in case only are one (RFC 4343).

use std::borrow::Borrow;
use std::fmt;

/// Bytes of a name with all its lengths (RFC 1035 section 2.3.4).
pub(crate) const LONGEST: usize = 255;

/// A whole name, from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As in a zone file: with a dot at its end, what is odd escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*byte))?;
                    }
                    33..=126 => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    /// Reads a whole name; a dot at its end need not be said.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, &Self::root())
    }
}

impl Name {
    /// The root of all names.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Reads a name as in a zone file: `@` is the origin, what does not end with a dot is below it
    /// (RFC 1035 section 5.1).
    ///
    /// # Errors
    /// In words, if it is no name.
    pub fn read(text: &str, origin: &Self) -> Result<Self, String> {
        match text {
            "@" => return Ok(origin.clone()),
            "." => return Ok(Self::root()),
            "" => return Err("a name is missing".to_owned()),
            _ => {}
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut end = |label: &mut Vec<u8>| -> Result<(), String> {
            if label.is_empty() {
                return Err(format!(
                    "`{text}` is no name: there is nothing between two dots"
                ));
            }
            let length = u8::try_from(label.len()).ok().filter(|l| *l <= 63);
            let Some(length) = length else {
                return Err(format!(
                    "`{text}` is no name: a part has more than 63 characters"
                ));
            };
            wire.push(length);
            wire.append(label);
            Ok(())
        };
        let mut bytes = text.bytes();
        let mut whole = false;
        while let Some(byte) = bytes.next() {
            whole = false;
            match byte {
                b'.' => {
                    end(&mut label)?;
                    whole = true;
                }
                b'\\' => label.push(unescape(&mut bytes).ok_or_else(|| {
                    format!(
                        "`{text}` is no name: after \\ comes a character or three digits up to 255"
                    )
                })?),
                _ => label.push(byte),
            }
        }
        if whole {
            wire.push(0);
        } else {
            end(&mut label)?;
            wire.extend_from_slice(&origin.0);
        }
        Self::from_wire(&wire)
            .ok_or_else(|| format!("`{text}` is no name: it has more than 255 bytes"))
    }

    /// A name from its bytes in a message, without pointers; `None` if they are no name.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            match length {
                0 => break,
                1..=63 => at += 1 + length,
                _ => return None,
            }
        }
        (at + 1 == wire.len() && wire.len() <= LONGEST)
            .then(|| Self(wire.to_ascii_lowercase().into()))
    }

    /// This name with a label before it; `None` if that is too long.
    #[must_use]
    pub fn child(&self, label: &str) -> Option<Self> {
        let length = u8::try_from(label.len()).ok()?;
        let mut wire = vec![length];
        wire.extend_from_slice(label.as_bytes());
        wire.extend_from_slice(&self.0);
        Self::from_wire(&wire)
    }

    /// Its bytes in a message.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, the root's left out.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, others) = rest.split_first()?;
            let (label, after) = others.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }

    /// The name above it; none above the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let parent = parent(&self.0)?;
        Some(Self(parent.into()))
    }

    /// Whether it is this name or below it.
    #[must_use]
    pub fn is_in(&self, origin: &Self) -> bool {
        is_in(&self.0, &origin.0)
    }

    /// As it is written in a zone file where this is the origin; none if it is not in it.
    #[must_use]
    pub fn relative(&self, origin: &Self) -> Option<String> {
        if !self.is_in(origin) {
            return None;
        }
        let (name, end) = (self.to_string(), format!(".{origin}"));
        match self == origin {
            true => Some("@".to_owned()),
            false if *origin == Self::root() => Some(name),
            false => name.strip_suffix(&end).map(str::to_owned),
        }
    }

    /// Whether a host can have it: letters, digits and hyphens, none of these at an end of a label
    /// (RFC 952, RFC 1123 section 2.1).
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.0.len() > 1 && self.labels().all(is_host_label)
    }
}

/// Whether a label can be of a host.
pub(crate) fn is_host_label(label: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    let hyphen = |b: Option<&u8>| b == Some(&b'-');
    (1..=63).contains(&label.len())
        && label.iter().all(plain)
        && !hyphen(label.first())
        && !hyphen(label.last())
}

/// Bytes of the name above a name; none above the root.
pub(crate) fn parent(wire: &[u8]) -> Option<&[u8]> {
    match wire.first()? {
        0 => None,
        length => wire.get(1 + usize::from(*length)..),
    }
}

/// Whether a name is another one or below it; both are in lower case.
pub(crate) fn is_in(wire: &[u8], origin: &[u8]) -> bool {
    if !wire.ends_with(origin) {
        return false;
    }
    // The same bytes may begin in the middle of a label.
    let start = wire.len() - origin.len();
    let mut at = 0;
    while at < start {
        at += 1 + usize::from(wire[at]);
    }
    at == start
}

/// What a backslash stands before: a character, or three digits (RFC 1035 section 5.1).
pub(crate) fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut number = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        number = number * 10 + u32::from(digit - b'0');
    }
    u8::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_and_shown() {
        let origin = name("Example.org");
        assert_eq!(origin.to_string(), "example.org.");
        let read = |t: &str| Name::read(t, &origin).map(|n| n.to_string());
        assert_eq!(read("@").unwrap(), "example.org.");
        assert_eq!(read("a.b").unwrap(), "a.b.example.org.");
        assert_eq!(read("a.b.").unwrap(), "a.b.");
        assert_eq!(read(r"a\.b\032\\.").unwrap(), r"a\.b\032\\.");
        for no in [
            "",
            "a..b",
            ".a",
            r"a\",
            r"a\25",
            r"a\256",
            "..",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(read(no).is_err(), "{no}");
        }
        assert!(read(&"a.".repeat(127)).is_ok());
    }

    #[test]
    fn names_are_below_others_by_whole_labels() {
        assert!(name("a.b.c").is_in(&name("b.c")));
        assert!(name("b.c").is_in(&name("b.c")) && name("b.c").is_in(&Name::root()));
        assert!(!name("ab.c").is_in(&name("b.c")) && !name("c").is_in(&name("b.c")));
        // The bytes of `b.c` stand at the end of this one, inside of its label.
        assert!(!name(r"x\001b\001c").is_in(&name("b.c")));
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(Name::root().parent(), None);
    }

    #[test]
    fn hosts_have_letters_digits_and_hyphens() {
        assert!(name("a-1.b").is_host());
        for no in ["-a.b", "a-.b", "a_b", "*.a", "."] {
            assert!(!name(no).is_host(), "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_as_it_is_shown(labels in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..20), 0..12))
        {
            let mut wire = Vec::new();
            for label in labels {
                wire.push(label.len() as u8);
                wire.extend(label);
            }
            wire.push(0);
            let name = Name::from_wire(&wire).unwrap();
            prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
        }

        #[test]
        fn any_text_is_a_name_or_none(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = text.parse::<Name>();
            let _ = Name::from_wire(&bytes);
        }
    }
}
