//! Records that people add to the zone: what becomes of them by a change.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::director::{RecordSet, record_name, record_of_name};
use wharfie_edge::zone::{Name, Record, import, kind_name, kind_of, read_record, show};

use crate::api_dns::{AddRecord, ImportRecords, RemoveRecord};
use crate::failure::Failure;

/// Seconds that a record may be kept if nobody says so.
const TTL: u32 = 3_600;
const CNAME: &str = "CNAME";

/// What was added, by name and type.
pub(super) type Sets = BTreeMap<String, RecordSet>;

/// A name as people type it: in the zone, or whole with or without a dot at its end.
///
/// # Errors
/// It is no name, or not in the zone.
pub(super) fn name_of(typed: &str, zone: &Name) -> Result<Name, Failure> {
    let whole = zone.to_string();
    let whole = whole.trim_end_matches('.');
    let lower = typed.to_ascii_lowercase();
    let is_whole = lower == whole || lower.ends_with(&format!(".{whole}"));
    let text = match is_whole {
        true => format!("{typed}."),
        false => typed.to_owned(),
    };
    let name = Name::read(&text, zone).map_err(Failure::usage)?;
    match name.is_in(zone) {
        true => Ok(name),
        false => Err(Failure::usage(format!("{name} is not in the zone {zone}"))
            .help("write names without the zone: `www`; `@` is the zone itself")),
    }
}

/// A type as people type it.
fn kind_of_text(typed: &str) -> Result<String, Failure> {
    let kind = kind_of(typed).map(kind_name);
    kind.ok_or_else(|| {
        Failure::usage(format!("`{typed}` is no type of record"))
            .help("A, AAAA, CAA, CNAME, MX, NS, PTR, SRV, TXT, or TYPE with a number")
    })
}

/// The key of a record's set.
fn key(record: &Record, zone: &Name) -> Option<String> {
    let name = record.name.relative(zone)?;
    Some(record_name(&name, &kind_name(record.kind)))
}

/// Sets of a name, with their types.
fn of_name<'a>(sets: &'a Sets, name: &str) -> Vec<(&'a str, &'a RecordSet)> {
    // Those of other names that begin so may be between them: a name may have blanks.
    let from = record_name(name, "");
    let near = sets.range(from.clone()..);
    let near = near.take_while(|(object, _)| object.starts_with(&from));
    let each = near.filter_map(|(object, set)| {
        let (of, kind) = record_of_name(object)?;
        (of == name).then_some((kind, set))
    });
    each.collect()
}

/// Names with a CNAME and something else (RFC 1034 section 3.6.2), of those that have just been
/// changed, with what else they have.
fn clashes(sets: &Sets, changed: &BTreeSet<String>) -> Vec<(String, String)> {
    let mut clashes = Vec::new();
    for name in changed {
        let sets = of_name(sets, name);
        let alias = sets.iter().find(|(kind, _)| *kind == CNAME);
        let Some((_, alias)) = alias else { continue };
        let others: Vec<&str> = sets
            .iter()
            .map(|(k, _)| *k)
            .filter(|k| *k != CNAME)
            .collect();
        if !others.is_empty() {
            clashes.push((name.clone(), others.join(", ")));
        } else if alias.values.len() > 1 {
            clashes.push((name.clone(), "another CNAME".to_owned()));
        }
    }
    clashes
}

/// Puts a record among the others. The shortest time of a set is that of all of it.
fn put(sets: &mut Sets, object: String, record: &Record, fresh: bool) {
    let value = show(record);
    let set = sets.entry(object).or_insert_with(|| RecordSet {
        ttl: record.ttl,
        values: Vec::new(),
    });
    set.ttl = if fresh {
        record.ttl
    } else {
        set.ttl.min(record.ttl)
    };
    if !set.values.contains(&value) {
        set.values.push(value);
        set.values.sort();
    }
}

/// What of the sets that are there is replaced by others, in words.
///
/// # Errors
/// They cannot stand beside what stays.
pub(in crate::agent::director) fn merged(
    before: &Sets,
    new: &Sets,
) -> Result<Vec<String>, Failure> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let mut after = before.clone();
    after.extend(
        new.iter()
            .map(|(object, set)| (object.clone(), set.clone())),
    );
    let names = new.keys().filter_map(|object| record_of_name(object));
    let names = names.map(|(name, _)| name.to_owned()).collect();
    if let Some((name, others)) = clashes(&after, &names).first() {
        return Err(Failure::usage(format!(
            "{name} would be a CNAME and have {others}: beside a CNAME there is nothing else"
        ))
        .help(format!(
            "`wharfie dns rm {name}` removes what was added before"
        )));
    }
    let both = new
        .iter()
        .filter_map(|(object, set)| Some((object, before.get(object)?, set)));
    let other = both.filter(|(_, old, set)| old != set);
    let words = other.map(|(object, old, set)| {
        let shown = |set: &RecordSet| format!("{} {}", set.ttl, set.values.join(", "));
        format!(
            "record {object} {} is replaced by {}",
            shown(old),
            shown(set)
        )
    });
    Ok(words.collect())
}

/// What is there after something was added.
///
/// # Errors
/// It cannot be.
pub(super) fn add(before: &Sets, wanted: &AddRecord, zone: &Name) -> Result<Sets, Failure> {
    let name = name_of(&wanted.name, zone)?;
    let kind = kind_of_text(&wanted.kind)?;
    let relative = name.relative(zone).unwrap_or_default();
    let object = record_name(&relative, &kind);
    let known = before.get(&object);
    let ttl = wanted.ttl.or_else(|| known.map(|k| k.ttl)).unwrap_or(TTL);
    let mut after = before.clone();
    if wanted.replace {
        after.remove(&object);
        after.retain(|other, _| {
            let other = record_of_name(other).filter(|(n, _)| *n == relative);
            other.is_none_or(|(_, k)| kind != CNAME && k != CNAME)
        });
    }
    for value in &wanted.values {
        let read = read_record(&name, ttl, &kind, value, zone).map_err(Failure::usage)?;
        put(&mut after, object.clone(), &read, true);
    }
    match clashes(&after, &[relative].into()).first() {
        None => Ok(after),
        Some((_, others)) => Err(Failure::usage(format!(
            "{name} would be a CNAME and have {others}: beside a CNAME there is nothing else"
        ))
        .help("`--replace` puts it in their place; `wharfie dns rm` removes what was added")),
    }
}

/// What is there after something was removed.
///
/// # Errors
/// There is no such record.
pub(super) fn remove(before: &Sets, wanted: &RemoveRecord, zone: &Name) -> Result<Sets, Failure> {
    let name = name_of(&wanted.name, zone)?;
    let kind = wanted.kind.as_deref().map(kind_of_text).transpose()?;
    let relative = name.relative(zone).unwrap_or_default();
    let mut after = before.clone();
    let mut any = false;
    for (object, set) in &mut after {
        let Some((of, of_kind)) = record_of_name(object) else {
            continue;
        };
        if of != relative || kind.as_ref().is_some_and(|k| k != of_kind) {
            continue;
        }
        let Some(value) = &wanted.value else {
            any = true;
            set.values.clear();
            continue;
        };
        // It may be written in another way.
        let read = read_record(&name, set.ttl, of_kind, value, zone);
        let shown = read.map_or_else(|_| value.clone(), |r| show(&r));
        let count = set.values.len();
        set.values.retain(|v| *v != shown && v != value);
        any |= set.values.len() < count;
    }
    after.retain(|_, set| !set.values.is_empty());
    let what = [Some(name.to_string()), kind, wanted.value.clone()];
    let what: Vec<String> = what.into_iter().flatten().collect();
    match any {
        true => Ok(after),
        false => Err(Failure::failed(format!(
            "no record that was added is {}",
            what.join(" ")
        ))
        .help("`wharfie dns ls` shows all, and whose they are: names of services and nodes go with them")),
    }
}

/// What is there after a zone file was read in; and what of it was left out.
///
/// # Errors
/// All that is wrong with it, each with its line.
pub(super) fn read_in(
    before: &Sets,
    wanted: &ImportRecords,
    zone: &Name,
) -> Result<(Sets, Vec<String>), Vec<String>> {
    let read = import(&wanted.text, &wanted.file, zone, TTL);
    let read = read.map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let mut after = match wanted.replace {
        true => Sets::new(),
        false => before.clone(),
    };
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (record, line) in read.records.iter().zip(&read.lines) {
        // The importer let in only what is in the zone.
        let Some(object) = key(record, zone) else {
            continue;
        };
        let fresh = seen.insert(object.clone());
        put(&mut after, object, record, fresh);
        lines
            .entry(record.name.relative(zone).unwrap_or_default())
            .or_insert(*line);
    }
    let changed = lines.keys().cloned().collect();
    let clashes = clashes(&after, &changed);
    let faults = clashes.iter().map(|(name, others)| {
        let (file, line) = (&wanted.file, lines.get(name).copied().unwrap_or_default());
        format!("{file}:{line}: {name} would be a CNAME and have {others}, some of which was added before: beside a CNAME there is nothing else")
    });
    let faults: Vec<String> = faults.collect();
    match faults.is_empty() {
        true => Ok((
            after,
            read.left_out.iter().map(ToString::to_string).collect(),
        )),
        false => Err(faults),
    }
}

/// Each record as a line.
pub(super) fn lines(sets: &Sets) -> BTreeSet<String> {
    let each = sets.iter().flat_map(|(object, set)| {
        let (name, kind) = record_of_name(object).unwrap_or((object, ""));
        let values = set.values.iter();
        values.map(move |v| format!("{name} {} {kind} {v}", set.ttl))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Name {
        "apps.example.org".parse().unwrap()
    }

    fn adding(name: &str, kind: &str, values: &[&str]) -> AddRecord {
        AddRecord {
            name: name.to_owned(),
            kind: kind.to_owned(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            ..AddRecord::default()
        }
    }

    fn shown(sets: &Sets) -> Vec<String> {
        lines(sets).into_iter().collect()
    }

    fn removing(name: &str, kind: Option<&str>, value: Option<&str>) -> RemoveRecord {
        RemoveRecord {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            value: value.map(str::to_owned),
            dry_run: false,
        }
    }

    #[test]
    fn what_is_taken_over_replaces_the_same_name_and_type_only() {
        let sets = |all: &[(&str, &str)]| -> Sets {
            let set = |value: &str| RecordSet {
                ttl: 60,
                values: vec![value.to_owned()],
            };
            let each = all.iter().map(|(o, v)| ((*o).to_owned(), set(v)));
            each.collect()
        };
        let before = sets(&[
            ("www A", "192.0.2.1"),
            ("www TXT", "\"x\""),
            ("old A", "192.0.2.2"),
        ]);
        let words = merged(
            &before,
            &sets(&[("www A", "192.0.2.3"), ("old A", "192.0.2.2")]),
        );
        assert_eq!(
            words.unwrap(),
            ["record www A 60 192.0.2.1 is replaced by 60 192.0.2.3"]
        );
        let clash = merged(&before, &sets(&[("old CNAME", "x.")])).unwrap_err();
        assert!(clash.text().starts_with("old would be a CNAME and have A"));
    }

    #[test]
    fn records_are_added_and_removed() {
        let zone = zone();
        let one = add(&Sets::new(), &adding("WWW", "a", &["192.0.2.1"]), &zone).unwrap();
        // A whole name is the same one; what is there stays.
        let more = adding("www.apps.example.org", "A", &["192.0.2.2", "192.0.2.1"]);
        let two = add(&one, &more, &zone).unwrap();
        assert_eq!(
            shown(&two),
            ["www 3600 A 192.0.2.1", "www 3600 A 192.0.2.2"]
        );
        let instead = AddRecord {
            replace: true,
            ttl: Some(60),
            ..adding("www", "A", &["192.0.2.3"])
        };
        assert_eq!(
            shown(&add(&two, &instead, &zone).unwrap()),
            ["www 60 A 192.0.2.3"]
        );
        let mail = add(&two, &adding("@", "mx", &["10 mail"]), &zone).unwrap();
        assert!(shown(&mail).contains(&"@ 3600 MX 10 mail.apps.example.org.".to_owned()));
        let left = remove(&mail, &removing("@", Some("mx"), Some("10  mail")), &zone).unwrap();
        assert_eq!(left, two);
        let left = remove(&two, &removing("www", None, Some("192.0.2.2")), &zone).unwrap();
        assert_eq!(left, one);
        assert!(
            remove(&two, &removing("www", None, None), &zone)
                .unwrap()
                .is_empty()
        );
        let none = remove(&two, &removing("www", Some("AAAA"), None), &zone).unwrap_err();
        assert!(
            none.text()
                .starts_with("no record that was added is www.apps.example.org. AAAA")
        );
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let zone = zone();
        let sets = add(&Sets::new(), &adding("www", "A", &["192.0.2.1"]), &zone).unwrap();
        for (name, kind, value, wanted) in [
            (
                "www.example.com.",
                "A",
                "192.0.2.1",
                "www.example.com. is not in the zone apps.example.org.",
            ),
            ("www", "A", "192.0.2", "`192.0.2` is no IPv4 address"),
            ("www", "B", "192.0.2.1", "`B` is no type of record"),
            (
                "www",
                "CNAME",
                "x",
                "www.apps.example.org. would be a CNAME and have A",
            ),
            ("a..b", "A", "192.0.2.1", "`a..b` is no name"),
            (
                "@",
                "NS",
                "ns",
                "servers of the zone that have a name in it are made by the cluster",
            ),
            ("x", "A", "192.0.2.1\ny A 192.0.2.2", "a record is one line"),
            ("x", "TXT", "\"open", "the quotes are not closed"),
        ] {
            let failure = add(&sets, &adding(name, kind, &[value]), &zone).unwrap_err();
            assert!(failure.text().starts_with(wanted), "{}", failure.text());
            assert_eq!(failure.code(), 2);
        }
        let instead = AddRecord {
            replace: true,
            ..adding("www", "CNAME", &["x"])
        };
        let alias = add(&sets, &instead, &zone).unwrap();
        assert_eq!(shown(&alias), ["www 3600 CNAME x.apps.example.org."]);
        assert!(add(&alias, &adding("www", "CNAME", &["y"]), &zone).is_err());
        assert!(add(&alias, &adding("www", "TXT", &["y"]), &zone).is_err());
    }

    #[test]
    fn a_file_is_read_in_whole_or_not_at_all() {
        let zone = zone();
        let sets = add(&Sets::new(), &adding("old", "A", &["192.0.2.1"]), &zone).unwrap();
        let file = |text: &str, replace| ImportRecords {
            file: "f".to_owned(),
            text: text.to_owned(),
            replace,
            dry_run: false,
        };
        let text = "$TTL 60\n@ SOA a b 1 2 3 4 5\nwww A 192.0.2.1\n A 192.0.2.2\n";
        let (after, left_out) = read_in(&sets, &file(text, false), &zone).unwrap();
        assert_eq!(
            shown(&after),
            [
                "old 3600 A 192.0.2.1",
                "www 60 A 192.0.2.1",
                "www 60 A 192.0.2.2"
            ]
        );
        assert_eq!(left_out.len(), 1);
        let (after, _) = read_in(&sets, &file(text, true), &zone).unwrap();
        assert_eq!(after.len(), 1);
        let faults = read_in(&sets, &file("a A 1\nb A 2\n", false), &zone).unwrap_err();
        assert_eq!(faults.len(), 2);
        let faults = read_in(&sets, &file("\nold CNAME x\n", false), &zone).unwrap_err();
        assert!(
            faults[0].starts_with("f:2: old would be a CNAME and have A"),
            "{faults:?}"
        );
        assert!(read_in(&sets, &file("\nold CNAME x\n", true), &zone).is_ok());
    }
}
