//! The data of records as people write it (RFC 1035 section 5.1, RFC 3597 section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::Name;
use super::record::{Data, Record, kind_name};
use crate::dns::wire::kind;

/// A word of a zone file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// As it was written, its escapes with it.
    pub(crate) text: String,
    /// Whether it stood in quotes.
    pub(crate) quoted: bool,
}

impl Word {
    /// Its bytes, with what the escapes stand for.
    fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(self.text.len());
        let mut bytes = self.text.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'\\' => super::name::unescape(&mut bytes).ok_or_else(|| {
                    format!(
                        "`{}`: after \\ comes a character or three digits up to 255",
                        self.text
                    )
                })?,
                _ => byte,
            });
        }
        Ok(out)
    }
}

fn number<T: std::str::FromStr>(word: &Word, what: &str) -> Result<T, String> {
    let number = word.text.parse();
    number.map_err(|_| format!("`{}` is no {what}", word.text))
}

/// Reads the data of a record.
pub(crate) fn read(kind: u16, words: &[Word], origin: &Name) -> Result<Box<[u8]>, String> {
    if words.first().is_some_and(|w| w.text == "\\#" && !w.quoted) {
        return generic(kind, words);
    }
    let shown = kind_name(kind);
    let want = |form: &str| format!("{shown} is written `{shown} {form}`");
    let name = |word: &Word| Name::read(&word.text, origin);
    let data = match (kind, words) {
        (kind::A, [a]) => {
            let address = a.text.parse::<Ipv4Addr>();
            let address = address.map_err(|_| format!("`{}` is no IPv4 address", a.text))?;
            Data::Address(address.into())
        }
        (kind::A, _) => return Err(want("192.0.2.1")),
        (kind::AAAA, [a]) => {
            let address = a.text.parse::<Ipv6Addr>();
            let address = address.map_err(|_| format!("`{}` is no IPv6 address", a.text))?;
            Data::Address(address.into())
        }
        (kind::AAAA, _) => return Err(want("2001:db8::1")),
        (kind::NS, [n]) => Data::Server(name(n)?),
        (kind::CNAME, [n]) => Data::Alias(name(n)?),
        (kind::PTR, [n]) => Data::Pointer(name(n)?),
        (kind::NS | kind::CNAME | kind::PTR, _) => return Err(want("name")),
        (kind::MX, [p, n]) => Data::Mail(number(p, "preference (0 to 65535)")?, name(n)?),
        (kind::MX, _) => return Err(want("10 name")),
        (kind::SRV, [p, w, port, n]) => Data::Service {
            priority: number(p, "priority (0 to 65535)")?,
            weight: number(w, "weight (0 to 65535)")?,
            port: number(port, "port (0 to 65535)")?,
            target: name(n)?,
        },
        (kind::SRV, _) => return Err(want("priority weight port name")),
        (kind::TXT, []) => return Err(want("\"text\"")),
        (kind::TXT, words) => {
            let texts = words.iter().map(Word::bytes);
            let texts: Vec<_> = texts.collect::<Result<_, _>>()?;
            if texts.iter().any(|t| t.len() > 255) {
                return Err(
                    "a string of TXT has 255 bytes at most: divide it into several".to_owned(),
                );
            }
            Data::Text(texts)
        }
        (kind::CAA, [flags, tag, value]) => {
            let flags: u8 = number(flags, "number of flags (0 to 255)")?;
            let (tag, value) = (tag.bytes()?, value.bytes()?);
            let Some(length) = u8::try_from(tag.len())
                .ok()
                .filter(|l| (1..=15).contains(l))
            else {
                return Err(want("0 issue \"authority\""));
            };
            let mut data = vec![flags, length];
            data.extend(tag);
            data.extend(value);
            return Ok(data.into());
        }
        (kind::CAA, _) => return Err(want("0 issue \"authority\"")),
        _ => {
            return Err(format!(
                "the data of {shown} is not known here: write it as `\\# length hexadecimal` (RFC 3597)"
            ));
        }
    };
    let data = Record::new(Name::root(), 0, &data).data;
    match u16::try_from(data.len()) {
        Ok(_) => Ok(data),
        Err(_) => Err("the data has more than 65535 bytes".to_owned()),
    }
}

/// Data of any type, in hexadecimal digits. Of types that are known here it must be what they have.
fn generic(kind: u16, words: &[Word]) -> Result<Box<[u8]>, String> {
    let length = words.get(1).ok_or("after \\# comes the length in bytes")?;
    let length: u16 = number(length, "length in bytes")?;
    let hex: String = words[2..].iter().map(|w| w.text.as_str()).collect();
    let digits = hex
        .bytes()
        .map(|b| char::from(b).to_digit(16).map(|d| d as u8));
    let digits: Option<Vec<u8>> = digits.collect();
    let digits = digits.ok_or_else(|| format!("`{hex}` is not hexadecimal"))?;
    if digits.len() != 2 * usize::from(length) {
        return Err(format!("{} digits are not {length} bytes", digits.len()));
    }
    let data: Box<[u8]> = digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect();
    match is_valid(kind, &data) {
        true => Ok(data),
        false => Err(format!("these bytes are no data of {}", kind_name(kind))),
    }
}

/// Whether bytes are data of a type; types that are not known may have any.
pub(crate) fn is_valid(kind: u16, data: &[u8]) -> bool {
    let name = |at: usize| data.get(at..).and_then(Name::from_wire).is_some();
    match kind {
        kind::A => data.len() == 4,
        kind::AAAA => data.len() == 16,
        kind::NS | kind::CNAME | kind::PTR => name(0),
        kind::MX => name(2),
        kind::SRV => name(6),
        kind::TXT => !data.is_empty() && strings(data).is_some(),
        kind::CAA => data
            .get(1)
            .is_some_and(|l| (1..=15).contains(l) && data.len() >= 2 + usize::from(*l)),
        _ => true,
    }
}

/// Strings behind their lengths (RFC 1035 section 3.3).
fn strings(mut data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut out = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        out.push(text);
        data = rest;
    }
    Some(out)
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            32..=126 => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\{byte:03}")),
        }
    }
    out.push('"');
    out
}

/// The data of a record as people read it.
#[must_use]
pub fn show(record: &Record) -> String {
    let data = &record.data[..];
    let word = |at: usize| crate::dns::wire::word(data, at).unwrap_or_default();
    let target = || record.target().map(|n| n.to_string());
    let known = || match record.kind {
        kind::A | kind::AAAA => Some(record.address()?.to_string()),
        kind::NS | kind::CNAME | kind::PTR => target(),
        kind::MX => Some(format!("{} {}", word(0), target()?)),
        kind::SRV => Some(format!("{} {} {} {}", word(0), word(2), word(4), target()?)),
        kind::TXT => {
            let texts: Vec<String> = strings(data)?.into_iter().map(quoted).collect();
            (!texts.is_empty()).then(|| texts.join(" "))
        }
        kind::CAA if is_valid(kind::CAA, data) => {
            let (tag, value) = data[2..].split_at(usize::from(data[1]));
            let tag = std::str::from_utf8(tag).ok()?;
            let plain = tag.bytes().all(|b| b.is_ascii_alphanumeric());
            plain.then(|| format!("{} {tag} {}", data[0], quoted(value)))
        }
        _ => None,
    };
    known().unwrap_or_else(|| {
        let mut out = format!("\\# {}", data.len());
        if !data.is_empty() {
            out.push(' ');
        }
        out.extend(data.iter().map(|b| format!("{b:02x}")));
        out
    })
}
