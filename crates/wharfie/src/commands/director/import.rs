//! `wharfie director import`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use wharfie_core::director::{Director, RecordSet, record_name};
use wharfie_edge::zone::{self, Name};

use super::init::set;
use super::ocdd;
use crate::api_director::{DirectorSettings, SetDirector};
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output;

/// File with its addresses, beside its settings.
const LIST: &str = "iplist.txt";
/// How long answers may be kept where its zone file says nothing, in seconds: as it had it.
const TTL: u32 = 14_400;

/// Takes over what OctoCopDD was told: its settings, its list of addresses, its zone and its title.
///
/// Services and containers keep the addresses that they had. What was said before and OctoCopDD does not know
/// stays; what is replaced is said. Take off what it left on the host beforehand: its iptables rules
/// (`iptables-save | grep OCDD`) and its addresses.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie director import ocdd.conf\n  wharfie --dry-run director import /opt/OctoCopDD/ocdd.conf"
)]
pub(super) struct Import {
    /// Its settings
    #[arg(value_name = "FILE", default_value = "ocdd.conf")]
    file: PathBuf,
}

fn faults(faults: Vec<String>) -> Failure {
    Failure::usage(faults.join("\n"))
}

/// A file's text; none if it is not there.
fn text(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::failed(format!("{}: {e}", path.display()))),
    }
}

impl Import {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let file = &self.file;
        let Some(conf) = text(file)? else {
            return Err(Failure::usage(format!(
                "{}: there is no such file",
                file.display()
            )));
        };
        let settings = ocdd::read(&conf, file).map_err(faults)?;
        let list = file.with_file_name(LIST);
        let addresses = match text(&list)? {
            Some(text) => ocdd::read_list(&text, &list).map_err(faults)?,
            None => Vec::new(),
        };
        let control = Control::acting(context).await?;
        let before: DirectorSettings = control.agent().get("/v1/director").await?;
        let known = before.clone().unwrap_or_default();
        let mut director = settings.director(file, &addresses, known).map_err(faults)?;
        if let Some(page) = settings
            .index_file()
            .map(|p| text(&p))
            .transpose()?
            .flatten()
        {
            director.title = ocdd::title(&page).unwrap_or(director.title);
        }
        // Without a zone file nothing is said of records: those that were added stay.
        let (mut names, mut records) = (0, None);
        if let Some(path) = settings.zone_file() {
            match text(&path)? {
                Some(zone) => {
                    let (given, rest) = ocdd::given(&zone);
                    names = reserve(&mut director, given);
                    records = Some(sets(&rest, &path, &director.zone)?);
                }
                None => output::warn(&format!(
                    "{}: it is not there; no names are taken over",
                    path.display()
                )),
            }
        }
        if let Some(socket) = settings
            .socket()
            .filter(|s| !s.ends_with("/run/docker.sock"))
        {
            output::warn(&format!(
                "DOCKER_SOCKET {socket} is not taken over: `docker-host` of the agent says which Engine it uses"
            ));
        }
        let replaced = before.iter().flat_map(|b| replaced(b, &director));
        replaced.for_each(|what| output::warn(&what));
        let count = records.as_ref().map_or(0, BTreeMap::len);
        let wanted = SetDirector {
            records,
            ..SetDirector::default()
        };
        set(context, control.agent(), director, Some(wanted)).await?;
        output::text(&format!(
            "{names} names keep their addresses; {count} records of the zone are taken over"
        ))
    }
}

/// Reserves the addresses that were given, as far as they are in the ranges; how many. Whoever has such an address
/// reserved by another name has it no longer.
fn reserve(director: &mut Director, given: BTreeMap<String, IpAddr>) -> usize {
    let mut given = given;
    given.retain(|_, ip| director.ranges.iter().any(|r| r.range.contains(*ip)));
    let taken = |ip: &IpAddr| given.values().any(|g| g == ip);
    director.reserved.retain(|_, ip| !taken(ip));
    let count = given.len();
    director.reserved.extend(given);
    count
}

/// What was said before and is something else now, in words.
fn replaced(before: &Director, after: &Director) -> Vec<String> {
    let ranges = |of: &Director| {
        let each = of.ranges.iter().map(ToString::to_string);
        each.collect::<Vec<_>>().join(", ")
    };
    let who = |of: &Director| of.default.as_str().to_owned();
    let reserved = |of: &Director| {
        let each = of.reserved.iter().map(|(name, ip)| format!("{name}={ip}"));
        each.collect::<Vec<_>>()
    };
    let single = [
        ("zone", before.zone.clone(), after.zone.clone()),
        ("device", before.device.clone(), after.device.clone()),
        ("ranges", ranges(before), ranges(after)),
        ("default", who(before), who(after)),
        ("title", before.title.clone(), after.title.clone()),
    ];
    let single = single
        .into_iter()
        .filter(|(_, old, new)| !old.is_empty() && old != new);
    let mut words: Vec<String> = single
        .map(|(what, old, new)| format!("{what} {old} is replaced by {new}"))
        .collect();
    let kept = reserved(after);
    let gone = reserved(before).into_iter().filter(|r| !kept.contains(r));
    words.extend(gone.map(|r| format!("the reservation {r} is replaced")));
    words
}

/// The records of a zone file by name and type.
fn sets(text: &str, path: &Path, zone: &str) -> Result<BTreeMap<String, RecordSet>, Failure> {
    let origin = Name::read(zone, &Name::root()).map_err(Failure::usage)?;
    let file = path.display().to_string();
    let read = zone::import(text, &file, &origin, TTL);
    let read = read.map_err(|all| faults(all.iter().map(ToString::to_string).collect()))?;
    let mut sets: BTreeMap<String, RecordSet> = BTreeMap::new();
    for record in &read.records {
        let name = relative(&record.name.to_string(), &origin.to_string());
        let set = sets.entry(record_name(&name, &zone::kind_name(record.kind)));
        let set = set.or_default();
        set.ttl = record.ttl;
        set.values.push(zone::show(record));
    }
    for set in sets.values_mut() {
        set.values.sort();
        set.values.dedup();
    }
    Ok(sets)
}

fn relative(name: &str, origin: &str) -> String {
    match name.strip_suffix(origin).map(|n| n.trim_end_matches('.')) {
        Some("") => "@".to_owned(),
        Some(name) => name.to_owned(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_stays_and_what_is_replaced_is_said() {
        let before: Director = serde_json::from_value(serde_json::json!({
            "zone": "apps.example.org",
            "ranges": [{"range": "10.0.0.20-10.0.0.29"}],
            "reserved": {"db": "10.0.0.21", "web": "10.0.0.22"},
            "keep": 5,
            "keys": [{"name": "to-it", "algorithm": "hmac-sha256", "secret": "c2VjcmV0"}],
            "forward_for": ["10.0.0.0/8"],
        }))
        .unwrap();
        let text = "NETWORK_DEVICE=ens3\nIP_SUBNET=10.0.0\nIP_RANGE_START=20\nIP_RANGE_END=39\n\
            TOOLBOX_SUBDOMAIN_NAME=apps.example.org\n";
        let file = Path::new("ocdd.conf");
        let settings = ocdd::read(text, file).unwrap();
        let mut after = settings.director(file, &[], before.clone()).unwrap();
        let given = [("jenkins", "10.0.0.22"), ("far", "10.9.9.9")];
        let given = given.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap()));
        assert_eq!(reserve(&mut after, given.into()), 1);
        let kept = |d: &Director| (d.keep, d.keys.clone(), d.forward_for.clone());
        assert_eq!(kept(&after), kept(&before));
        let names: Vec<&str> = after.reserved.keys().map(String::as_str).collect();
        assert_eq!(names, ["db", "jenkins"]);
        assert_eq!(
            replaced(&before, &after),
            [
                "ranges 10.0.0.20-10.0.0.29 is replaced by 10.0.0.20-10.0.0.39",
                "default services is replaced by all",
                "the reservation web=10.0.0.22 is replaced",
            ]
        );
        assert!(replaced(&after, &after).is_empty());
    }
}
