//! Zone files (RFC 1035 section 5): read into records, and written.

use std::fmt;
use std::fmt::Write as _;

use super::name::Name;
use super::record::{Record, is_data, kind_name, kind_of};
use super::text::{self, Word};
use crate::dns::wire::kind;

/// Times to live have 31 bits (RFC 2181 section 8).
const LONGEST_TTL: u32 = i32::MAX as u32;

/// Something in a zone file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What, and what to do.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What a zone file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Its records.
    pub records: Vec<Record>,
    /// The line of each of them.
    pub lines: Vec<usize>,
    /// What was left out, as the cluster makes it itself: SOA, and NS of the zone that lead to its nodes.
    pub left_out: Vec<Fault>,
}

/// Reads a zone file. `file` is for messages; `origin` is the zone, and `ttl` is for records that
/// say none and before which no `$TTL` stands.
///
/// # Errors
/// All that is wrong, each with its line.
pub fn import(text: &str, file: &str, origin: &Name, ttl: u32) -> Result<Imported, Vec<Fault>> {
    let mut reader = Reader {
        zone: origin,
        origin: origin.clone(),
        owner: None,
        ttl,
        said: None,
    };
    let mut out = Imported::default();
    let mut faults = Vec::new();
    let fault = |line, what| Fault {
        file: file.to_owned(),
        line,
        what,
    };
    let mut seen = std::collections::BTreeMap::new();
    for entry in entries(text) {
        let (line, words) = match entry {
            Ok(entry) => (entry.line, entry),
            Err((line, what)) => {
                faults.push(fault(line, what));
                continue;
            }
        };
        match reader.entry(&words) {
            Err(what) => faults.push(fault(line, what)),
            Ok(Read::Nothing) => {}
            Ok(Read::LeftOut(what)) => out.left_out.push(fault(line, what)),
            Ok(Read::Record(record)) => {
                let alias = record.kind == kind::CNAME;
                let others = seen.entry(record.name.clone()).or_insert((alias, line));
                // Nothing else stands beside a CNAME (RFC 1034 section 3.6.2).
                if others.1 != line
                    && (alias || others.0)
                    && out.records.iter().all(|r| *r != record)
                {
                    let what = format!(
                        "{} has other records (line {}): beside CNAME there is nothing else",
                        record.name, others.1
                    );
                    faults.push(fault(line, what));
                } else {
                    out.records.push(record);
                    out.lines.push(line);
                }
            }
        }
    }
    if faults.is_empty() {
        Ok(out)
    } else {
        Err(faults)
    }
}

/// Reads one record, as a line of a zone file would have it.
///
/// # Errors
/// In words, if it is none, or more than that.
pub fn read_record(
    name: &Name,
    ttl: u32,
    kind: &str,
    data: &str,
    zone: &Name,
) -> Result<Record, String> {
    if data.contains(['\n', '\r']) {
        return Err("a record is one line".to_owned());
    }
    let line = format!("{name} {ttl} IN {kind} {data}");
    let read = import(&line, "", zone, ttl).map_err(|faults| {
        let words: Vec<String> = faults.into_iter().map(|f| f.what).collect();
        words.join("; ")
    })?;
    match (read.left_out.first(), read.records.into_iter().next()) {
        (Some(left_out), _) => Err(left_out.what.clone()),
        (None, Some(record)) => Ok(record),
        (None, None) => Err("there is no record".to_owned()),
    }
}

/// The zone as a file. `soa` is its first line, as that is no record of ours.
#[must_use]
pub fn export(origin: &Name, soa: Option<&str>, records: &[Record]) -> String {
    let mut out = format!("$ORIGIN {origin}\n");
    if let Some(soa) = soa {
        out.push_str(soa);
        out.push('\n');
    }
    let mut sorted: Vec<&Record> = records.iter().collect();
    // From the end of the name, so that what belongs together stands together (RFC 4034 section 6.1).
    sorted.sort_by_cached_key(|r| {
        let mut labels: Vec<Vec<u8>> = r.name.labels().map(<[u8]>::to_vec).collect();
        labels.reverse();
        (labels, r.kind)
    });
    for record in sorted {
        let (name, ttl, kind) = (&record.name, record.ttl, kind_name(record.kind));
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name}\t{ttl}\tIN\t{kind}\t{}", text::show(record));
    }
    out
}

/// An entry: a line, or several in parentheses.
struct Entry {
    line: usize,
    /// Whether it begins with a blank: it is of the name of the entry before.
    again: bool,
    words: Vec<Word>,
}

/// Divides a file into entries and words. After a fault it goes on with the next line.
fn entries(text: &str) -> Vec<Result<Entry, (usize, String)>> {
    let mut out = Vec::new();
    let mut open: Option<Entry> = None;
    let mut depth = 0_usize;
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let entry = open.get_or_insert_with(|| Entry {
            line,
            again: content.starts_with([' ', '\t']),
            words: Vec::new(),
        });
        match words(content, &mut depth, &mut entry.words) {
            Ok(()) if depth > 0 => {}
            Ok(()) => {
                if let Some(entry) = open.take().filter(|e| !e.words.is_empty()) {
                    out.push(Ok(entry));
                }
            }
            Err(what) => {
                out.push(Err((line, what)));
                open = None;
                depth = 0;
            }
        }
    }
    if let Some(entry) = open {
        out.push(Err((
            entry.line,
            "the parenthesis that opens here is not closed".to_owned(),
        )));
    }
    out
}

fn words(line: &str, depth: &mut usize, out: &mut Vec<Word>) -> Result<(), String> {
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let (mut text, quoted) = match c {
            ' ' | '\t' | '\r' => continue,
            ';' => return Ok(()),
            '(' => {
                *depth += 1;
                continue;
            }
            ')' => {
                let closed = depth.checked_sub(1);
                *depth = closed.ok_or("a parenthesis is closed that was not opened")?;
                continue;
            }
            '"' => (String::new(), true),
            c => (c.to_string(), false),
        };
        if c == '\\' && !quoted {
            text.extend(chars.next());
        }
        loop {
            match chars.peek() {
                None if quoted => return Err("the quotes are not closed in this line".to_owned()),
                None => break,
                Some('"') if quoted => {
                    chars.next();
                    break;
                }
                Some(' ' | '\t' | '\r' | ';' | '(' | ')' | '"') if !quoted => break,
                Some('\\') => {
                    text.extend(chars.next());
                    text.extend(chars.next());
                }
                Some(_) => text.extend(chars.next()),
            }
        }
        out.push(Word { text, quoted });
    }
    Ok(())
}

enum Read {
    Nothing,
    LeftOut(String),
    Record(Record),
}

struct Reader<'a> {
    zone: &'a Name,
    origin: Name,
    owner: Option<Name>,
    ttl: u32,
    /// By `$TTL`.
    said: Option<u32>,
}

impl Reader<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<Read, String> {
        let mut words = &entry.words[..];
        if let Some(first) = words
            .first()
            .filter(|w| w.text.starts_with('$') && !w.quoted)
        {
            return self
                .directive(&first.text, &words[1..])
                .map(|()| Read::Nothing);
        }
        if !entry.again {
            let Some((first, rest)) = words.split_first() else {
                return Ok(Read::Nothing);
            };
            // What follows must not be taken for the name before.
            self.owner = None;
            self.owner = Some(Name::read(&first.text, &self.origin)?);
            words = rest;
        }
        let owner = self.owner.clone();
        let name = owner.ok_or("this line begins with a blank, but no name stands before it")?;
        let mut ttl = self.said.unwrap_or(self.ttl);
        // Time and class may come in either order, or not at all.
        let kind = loop {
            let Some((word, rest)) = words.split_first() else {
                return Err(format!("the type is missing: `{name} A 192.0.2.1`"));
            };
            words = rest;
            match word.text.to_ascii_uppercase().as_str() {
                "IN" => {}
                "CH" | "HS" | "CS" => {
                    return Err(format!("only class IN is served, not {}", word.text));
                }
                text => match (kind_of(text), seconds(text)) {
                    (Some(kind), _) => break kind,
                    (None, Some(seconds)) => ttl = seconds,
                    (None, None) => return Err(format!("`{}` is no type of record", word.text)),
                },
            }
        };
        if !name.is_in(self.zone) {
            return Err(format!("{name} is not in the zone {}", self.zone));
        }
        match kind {
            kind::SOA => return Ok(Read::LeftOut("SOA is made by the cluster".to_owned())),
            kind::DNAME => return Err("DNAME is not served".to_owned()),
            // Signatures and their like (RFC 4034, RFC 5155): the zone is not signed.
            46..=48 | 50 | 51 => {
                let what = format!(
                    "{} belongs to a signed zone; this one is not signed",
                    kind_name(kind)
                );
                return Ok(Read::LeftOut(what));
            }
            kind::CNAME if name == *self.zone => {
                return Err("the zone itself cannot be a CNAME: it has SOA and NS".to_owned());
            }
            kind if !is_data(kind) => {
                return Err(format!("{} cannot be in a zone", kind_name(kind)));
            }
            _ => {}
        }
        let record = Record {
            data: text::read(kind, words, &self.origin)?,
            name,
            kind,
            ttl,
        };
        let inside = || record.target().is_some_and(|t| t.is_in(self.zone));
        if kind == kind::NS && record.name == *self.zone && inside() {
            let what =
                "servers of the zone that have a name in it are made by the cluster: its nodes";
            return Ok(Read::LeftOut(what.to_owned()));
        }
        Ok(Read::Record(record))
    }

    fn directive(&mut self, directive: &str, words: &[Word]) -> Result<(), String> {
        match (directive.to_ascii_uppercase().as_str(), words) {
            ("$ORIGIN", [name]) => self.origin = Name::read(&name.text, &self.origin)?,
            ("$TTL", [ttl]) => {
                let seconds = seconds(&ttl.text);
                self.said =
                    Some(seconds.ok_or_else(|| format!("`{}` is no time: 3600, 1h", ttl.text))?);
            }
            ("$ORIGIN", _) => return Err("it is written `$ORIGIN name.`".to_owned()),
            ("$TTL", _) => return Err("it is written `$TTL 3600`".to_owned()),
            ("$INCLUDE" | "$GENERATE", _) => {
                return Err(format!(
                    "{directive} is not read: put in what it stands for"
                ));
            }
            _ => return Err(format!("{directive} is not known: $ORIGIN, $TTL")),
        }
        Ok(())
    }
}

/// Seconds, or with units as in `1h30m`, as most servers read it.
fn seconds(text: &str) -> Option<u32> {
    let mut sum = 0_u32;
    let mut number: Option<u32> = None;
    for byte in text.bytes() {
        if byte.is_ascii_digit() {
            let digit = u32::from(byte - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match byte.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    // An empty text, and a number after the last unit, are no time.
    let whole = match number {
        Some(number) if sum == 0 => number,
        Some(_) => return None,
        None if text.is_empty() => return None,
        None => sum,
    };
    (whole <= LONGEST_TTL).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone() -> Name {
        "apps.example.org".parse().unwrap()
    }

    fn read(text: &str) -> Result<Imported, Vec<String>> {
        let imported = import(text, "z", &zone(), 300);
        imported.map_err(|f| f.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_is_read_and_written() {
        let text = r#"
$TTL 1h
@   IN SOA ns hostmaster ( 1 ; serial
        2 3 4 5 )
    NS  elsewhere.
    NS  n1
www 60 IN A 192.0.2.1   ; a comment
    IN 61 AAAA 2001:db8::1
$ORIGIN sub.apps.example.org.
a   CNAME www.example.net.
*   TXT "one; \"two\"" three\032x
_http._tcp SRV 0 5 80 @
m   MX 10 mail
t   TYPE65280 \# 3 01 02ff
c   CAA 0 issue "ca.example"
"#;
        let imported = read(text).unwrap();
        assert_eq!(imported.left_out.len(), 2);
        let shown = export(&zone(), None, &imported.records);
        let want = [
            "$ORIGIN apps.example.org.",
            "apps.example.org. 3600 IN NS elsewhere.",
            "a.sub.apps.example.org. 3600 IN CNAME www.example.net.",
            "c.sub.apps.example.org. 3600 IN CAA 0 issue \"ca.example\"",
            "m.sub.apps.example.org. 3600 IN MX 10 mail.sub.apps.example.org.",
            "t.sub.apps.example.org. 3600 IN TYPE65280 \\# 3 0102ff",
            "*.sub.apps.example.org. 3600 IN TXT \"one; \\\"two\\\"\" \"three x\"",
            "_http._tcp.sub.apps.example.org. 3600 IN SRV 0 5 80 sub.apps.example.org.",
            "www.apps.example.org. 60 IN A 192.0.2.1",
            "www.apps.example.org. 61 IN AAAA 2001:db8::1",
        ];
        let mut lines: Vec<String> = shown.lines().map(|l| l.replace('\t', " ")).collect();
        let mut want = want.map(str::to_owned).to_vec();
        lines.sort();
        want.sort();
        assert_eq!(lines, want);
        let mut again = import(&shown, "z", &zone(), 300).unwrap().records;
        let mut records = imported.records;
        again.sort();
        records.sort();
        assert_eq!(again, records);
    }

    #[test]
    fn faults_have_their_line() {
        let text = "www A 1.2.3\n A 1.2.3.4\nother.org. A 1.2.3.4\nw (A\n1.2.3.4\n";
        let faults = read(text).unwrap_err();
        assert_eq!(faults[0], "z:1: `1.2.3` is no IPv4 address");
        assert_eq!(
            faults[1],
            "z:3: other.org. is not in the zone apps.example.org."
        );
        assert_eq!(
            faults[2],
            "z:4: the parenthesis that opens here is not closed"
        );
        for (text, want) in [
            (
                "a CNAME b\na A 1.2.3.4",
                "z:2: a.apps.example.org. has other records (line 1)",
            ),
            ("@ CNAME b", "z:1: the zone itself cannot be a CNAME"),
            (" A 1.2.3.4", "z:1: this line begins with a blank"),
            ("a A", "z:1: A is written `A 192.0.2.1`"),
            ("a XX 1", "z:1: `XX` is no type of record"),
            ("a CH A 1.2.3.4", "z:1: only class IN"),
            ("a TXT \"x", "z:1: the quotes are not closed"),
            ("a A 1.2.3.4 )", "z:1: a parenthesis is closed"),
            ("$INCLUDE x", "z:1: $INCLUDE is not read"),
            ("a TYPE1 \\# 3 010203", "z:1: these bytes are no data of A"),
            ("a..b A 1.2.3.4", "z:1: `a..b` is no name"),
            ("a AXFR x", "z:1: `AXFR` is no type"),
            ("a TYPE252 \\# 0", "z:1: TYPE252 cannot be in a zone"),
            ("$TTL 9999999999", "z:1: `9999999999` is no time"),
        ] {
            let faults = read(text).unwrap_err();
            assert!(faults[0].starts_with(want), "{text}: {faults:?}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("3600"), Some(3600));
        assert_eq!(seconds("1h30M"), Some(5400));
        for no in ["", "h", "1x", "1h3", "4294967295", "99999w"] {
            assert_eq!(seconds(no), None, "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\n\t]{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn any_words_are_read(words in proptest::collection::vec(
            prop_oneof!["A|IN|TXT|SRV|MX|@|\\(|\\)|;|\"|\\\\|\\$TTL|\n|CAA|NS|1|1.2.3.4|\\\\#", "[a-z.]{1,4}"], 0..40))
        {
            let text = words.join(" ");
            if let Ok(imported) = read(&text) {
                let shown = export(&zone(), None, &imported.records);
                let again = import(&shown, "z", &zone(), 1).unwrap();
                prop_assert_eq!(again.records.len(), imported.records.len());
            }
        }
    }
}
