//! `wharfie director import`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use wharfie_core::director::{RecordSet, record_name};
use wharfie_edge::zone::{self, Name};

use super::init::set;
use super::ocdd;
use crate::api_director::SetDirector;
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
/// Services and containers keep the addresses that they had. Take off what it left on the host beforehand:
/// its iptables rules (`iptables-save | grep OCDD`) and its addresses.
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
        let mut director = settings.director(file, &addresses).map_err(faults)?;
        if let Some(page) = settings
            .index_file()
            .map(|p| text(&p))
            .transpose()?
            .flatten()
        {
            director.title = ocdd::title(&page).unwrap_or(director.title);
        }
        let mut records = BTreeMap::new();
        if let Some(path) = settings.zone_file() {
            match text(&path)? {
                Some(zone) => {
                    let (given, rest) = ocdd::given(&zone);
                    let inside = |ip: &std::net::IpAddr| {
                        director.ranges.iter().any(|r| r.range.contains(*ip))
                    };
                    director.reserved = given.into_iter().filter(|(_, ip)| inside(ip)).collect();
                    records = sets(&rest, &path, &director.zone)?;
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
        let control = Control::acting(context).await?;
        let count = records.len();
        let wanted = SetDirector {
            records: Some(records),
            ..SetDirector::default()
        };
        let names = director.reserved.len();
        set(context, control.agent(), director, Some(wanted)).await?;
        output::text(&format!(
            "{names} names keep their addresses; {count} records of the zone are taken over"
        ))
    }
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
    Ok(sets)
}

fn relative(name: &str, origin: &str) -> String {
    match name.strip_suffix(origin).map(|n| n.trim_end_matches('.')) {
        Some("") => "@".to_owned(),
        Some(name) => name.to_owned(),
        None => name.to_owned(),
    }
}
