//! `wharfie director init`.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use wharfie_compose::units::parse_duration;
use wharfie_core::director::{
    DNS_PORT, Director, For, Range, Ranges, Secondary, Transfer, TsigKey,
};
use wharfie_core::network::Cidr;

use crate::api_director::{DirectorSettings, SetDirector};
use crate::context::Context;
use crate::control::{Client, Control};
use crate::failure::Failure;
use crate::output;
use crate::terminal::is_terminal;

/// Says which addresses and which zone IT gave, for all nodes; asks for what is needed.
///
/// What was said before stays as it is, but for the options given. An option that can be given several times
/// replaces all of its values; `none` takes all of them away.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie director init --zone apps.example.org --range 192.168.122.11-192.168.122.30\n  wharfie director init --range 10.1.0.0/24 --range fd00::100-fd00::1ff --exclude 10.1.0.5 --default all\n  wharfie director init --range 10.1.0.10-99@h1 --range 10.2.0.10-99@h2\n  wharfie director init --key to-it:hmac-sha256:@to-it.key --transfer 10.0.0.53=to-it --secondary 10.0.0.53=to-it\n  wharfie director init --forward-for none     nobody any more"
)]
pub(super) struct Init {
    /// Sub-domain that IT delegates to the nodes
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Addresses to give to services: from-to, or a subnet; with @NODE for that node only (several are possible)
    #[arg(long = "range", value_name = "RANGE[@NODE]", value_parser = or_none(range))]
    ranges: Vec<OrNone<Ranges>>,
    /// Addresses in the ranges that nobody gets (several are possible)
    #[arg(long = "exclude", value_name = "RANGE", value_parser = or_none(str::parse::<Range>))]
    excluded: Vec<OrNone<Range>>,
    /// Device that the addresses are on; with @NODE for that node [default: the one on their network]
    #[arg(long = "device", value_name = "DEVICE[@NODE]", value_parser = or_none(device))]
    devices: Vec<OrNone<String>>,
    /// Who gets an address unless it says so itself
    #[arg(long, value_enum, value_name = "WHO")]
    default: Option<Who>,
    /// An address for whoever has a name: a service, or a container (several are possible)
    #[arg(long = "reserve", value_name = "NAME=ADDRESS", value_parser = or_none(reserve))]
    reserved: Vec<OrNone<(String, IpAddr)>>,
    /// For how long an address is kept for a service that is gone
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    keep: Option<i64>,
    /// For how long answers may be kept by those who asked
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    ttl: Option<i64>,
    /// E-mail address of who cares for the zone
    #[arg(long, value_name = "ADDRESS")]
    contact: Option<String>,
    /// Port that the nodes answer for the zone at
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: Option<u16>,
    /// Network whose addresses lead back to names [default: those around the ranges]
    #[arg(long, value_name = "CIDR", value_parser = or_none(str::parse::<Cidr>))]
    reverse: Vec<OrNone<Cidr>>,
    /// Key that transfers are signed with; "-" in place of @FILE reads a line of standard input (several are possible)
    #[arg(long = "key", value_name = "NAME:ALGORITHM:@FILE", value_parser = or_none(key))]
    keys: Vec<OrNone<TsigKey>>,
    /// Who may have the whole zone, signed with a key or without one (several are possible)
    #[arg(long, value_name = "CIDR[=KEY]", value_parser = or_none(transfer))]
    transfer: Vec<OrNone<Transfer>>,
    /// Server that keeps the zone too, and is told of changes (several are possible)
    #[arg(long = "secondary", value_name = "ADDRESS[:PORT][=KEY]", value_parser = or_none(secondary))]
    secondaries: Vec<OrNone<Secondary>>,
    /// Network for which names outside the zone are asked of others (several are possible)
    #[arg(long, value_name = "CIDR", value_parser = or_none(str::parse::<Cidr>))]
    forward_for: Vec<OrNone<Cidr>>,
    /// Title of the index page
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Port of the nodes that the index page is at; 0 for none
    #[arg(long, value_name = "PORT")]
    page: Option<u16>,
}

/// Takes away all values of an option.
const NONE: &str = "none";
/// The largest file of a secret, in bytes.
const LARGEST: u64 = 4096;

/// Who gets an address.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Who {
    /// Services, and every other container of the hosts
    All,
    /// Services
    Services,
    /// Who asks for it: x-wharfie.address, or the label io.wharfie.address
    Labelled,
    /// Nobody
    None,
}

/// A value of a list, or the word that takes all of them away.
type OrNone<T> = Option<T>;

/// Reads a value, unless it is that word.
fn or_none<T: Clone + Send + Sync + 'static>(
    read: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<OrNone<T>, String> + Clone + Send + Sync + 'static {
    move |text| match text {
        NONE => Ok(None),
        text => read(text).map(Some),
    }
}

/// What a list is to be: as before (`None`) if nothing is said of it.
fn said<T: Clone>(option: &str, values: &[OrNone<T>]) -> Result<Option<Vec<T>>, Failure> {
    if values.is_empty() {
        return Ok(None);
    }
    let all: Vec<T> = values.iter().flatten().cloned().collect();
    match all.len() == values.len() || all.is_empty() {
        true => Ok(Some(all)),
        false => Err(Failure::usage(format!(
            "--{option}: `{NONE}` takes all away, and has nothing beside it"
        ))),
    }
}

fn device(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some(("", _) | (_, "")) => Err("write the device, or the device, @ and a node".to_owned()),
        _ if text.is_empty() => Err("write the name of a device".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn range(text: &str) -> Result<Ranges, String> {
    let (range, node) = text.split_once('@').unwrap_or((text, ""));
    Ok(Ranges {
        range: range.parse()?,
        node: node.to_owned(),
    })
}

fn reserve(text: &str) -> Result<(String, IpAddr), String> {
    let wrong = || "write the name, = and an address".to_owned();
    let (name, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), address.parse().map_err(|_| wrong())?))
}

fn milliseconds(text: &str) -> Result<i64, String> {
    let nanoseconds = parse_duration(text).unwrap_or(-1);
    match nanoseconds {
        0.. => Ok(nanoseconds / 1_000_000),
        _ => Err("write it as in 10s, 5m or 48h".to_owned()),
    }
}

fn key(text: &str) -> Result<TsigKey, String> {
    let mut parts = text.splitn(3, ':').map(str::to_owned);
    let (name, algorithm, secret) = (parts.next(), parts.next(), parts.next());
    match (name, algorithm, secret) {
        (Some(name), Some(algorithm), Some(secret)) => Ok(TsigKey {
            name,
            algorithm,
            secret,
        }),
        _ => Err("write name, algorithm and secret with colons between them, as in to-it:hmac-sha256:@FILE".to_owned()),
    }
}

/// A key's secret, as it was said: itself, `@` and a file that it is in (alone, or as `tsig-keygen` of bind9 writes
/// it), or `-` for a line of standard input.
fn secret(key: &TsigKey, input: &mut impl BufRead) -> Result<String, Failure> {
    let (mut read, from) = (String::new(), key.secret.as_str());
    let done = match from.strip_prefix('@') {
        Some(file) => File::open(file).and_then(|f| f.take(LARGEST).read_to_string(&mut read)),
        None if from == "-" => input.take(LARGEST).read_line(&mut read),
        None => return Ok(from.to_owned()),
    };
    let place = from.strip_prefix('@').unwrap_or("standard input");
    let failed = |why: String| Failure::usage(format!("key {}: {why}", key.name));
    done.map_err(|e| failed(format!("cannot read {place}: {e}")))?;
    let quoted = read.split_once("secret");
    let quoted = quoted.and_then(|(_, rest)| rest.split('"').nth(1));
    match quoted.unwrap_or(&read).trim() {
        "" => Err(failed(format!("there is no secret in {place}"))),
        secret => Ok(secret.to_owned()),
    }
}

fn with_key(text: &str) -> (&str, String) {
    // A secret has `=` at its end, the name of a key has not.
    let (what, key) = text.split_once('=').unwrap_or((text, ""));
    (what, key.to_owned())
}

fn transfer(text: &str) -> Result<Transfer, String> {
    let (from, key) = with_key(text);
    let from = match from.parse::<IpAddr>() {
        Ok(address) => Cidr::host(address),
        Err(_) => from.parse()?,
    };
    Ok(Transfer { from, key })
}

fn secondary(text: &str) -> Result<Secondary, String> {
    let (at, key) = with_key(text);
    let address = at.parse::<IpAddr>();
    let at = match address {
        Ok(address) => SocketAddr::new(address, DNS_PORT),
        Err(_) => {
            let wrong = |_| format!("{at:?} is no address such as 10.0.0.53 or 10.0.0.53:5353");
            at.parse().map_err(wrong)?
        }
    };
    Ok(Secondary { at, key })
}

impl Init {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let control = Control::acting(context).await?;
        let agent = control.agent();
        let before: DirectorSettings = agent.get("/v1/director").await?;
        let mut director = before.clone().unwrap_or_default();
        self.put_into(&mut director)?;
        if let Some(mut keys) = said("key", &self.keys)? {
            for key in &mut keys {
                key.secret = secret(key, &mut io::stdin().lock())?;
            }
            director.keys = keys;
        }
        if before.is_none() {
            ask(&mut director)?;
        }
        if director.ranges.is_empty() && director.zone.is_empty() {
            return Err(
                Failure::usage("there is nothing to give: no addresses, and no zone")
                    .help("--range FROM-TO says which addresses, --zone NAME which sub-domain"),
            );
        }
        set(context, agent, director, None).await
    }

    fn put_into(&self, director: &mut Director) -> Result<(), Failure> {
        fn put<T: Clone>(new: &Option<T>, old: &mut T) {
            if let Some(new) = new {
                old.clone_from(new);
            }
        }
        fn all<T: Clone>(option: &str, new: &[OrNone<T>], old: &mut Vec<T>) -> Result<(), Failure> {
            put(&said(option, new)?, old);
            Ok(())
        }
        if let Some(zone) = &self.zone {
            director.zone = zone.trim_end_matches('.').to_ascii_lowercase();
        }
        all("range", &self.ranges, &mut director.ranges)?;
        all("exclude", &self.excluded, &mut director.excluded)?;
        all("reverse", &self.reverse, &mut director.reverse)?;
        all("transfer", &self.transfer, &mut director.transfer)?;
        all("secondary", &self.secondaries, &mut director.secondaries)?;
        all("forward-for", &self.forward_for, &mut director.forward_for)?;
        put(&self.keep, &mut director.keep);
        put(&self.contact, &mut director.contact);
        put(&self.dns_port, &mut director.dns_port);
        put(&self.title, &mut director.title);
        put(&self.page, &mut director.page);
        if let Some(ttl) = self.ttl {
            director.ttl = u32::try_from(ttl / 1_000).unwrap_or(u32::MAX);
        }
        if let Some(who) = self.default {
            director.default = match who {
                Who::All => For::All,
                Who::Services => For::Services,
                Who::Labelled => For::Labelled,
                Who::None => For::None,
            };
        }
        if let Some(reserved) = said("reserve", &self.reserved)? {
            director.reserved = reserved.into_iter().collect();
        }
        if let Some(devices) = said("device", &self.devices)? {
            director.device.clear();
            director.devices.clear();
            for device in devices {
                match device.split_once('@') {
                    Some((device, node)) => {
                        director.devices.insert(node.to_owned(), device.to_owned());
                    }
                    None => director.device = device,
                }
            }
        }
        Ok(())
    }
}

/// Has the agent take it over; says what is odd about it.
pub(super) async fn set(
    context: &Context,
    agent: &Client,
    director: Director,
    records: Option<SetDirector>,
) -> Result<(), Failure> {
    let wanted = SetDirector {
        director,
        dry_run: context.dry_run(),
        ..records.unwrap_or_default()
    };
    let odd: Vec<String> = agent.put("/v1/director", &wanted).await?;
    odd.iter().for_each(|what| output::warn(what));
    output::text(&summary(&wanted.director, context.dry_run()))
}

fn summary(director: &Director, dry: bool) -> String {
    let ranges: Vec<String> = director.ranges.iter().map(ToString::to_string).collect();
    let who = match director.default {
        For::All => "all services and containers",
        For::Services => "all services",
        For::Labelled => "those who ask for it",
        For::None => "nobody",
    };
    let mut text = String::new();
    if dry {
        text.push_str("nothing is changed; it would be:\n");
    }
    if !ranges.is_empty() {
        text.push_str(&format!("addresses {} for {who}", ranges.join(", ")));
    }
    if !director.zone.is_empty() {
        if !ranges.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "zone {}: `wharfie dns check` says what IT has to enter",
            director.zone
        ));
    }
    text
}

/// Asks for what is not said yet, if somebody is there to answer.
fn ask(director: &mut Director) -> Result<(), Failure> {
    if !is_terminal(io::stdin()) || !is_terminal(io::stderr()) {
        return Ok(());
    }
    let asked = |question: &str| -> Result<String, Failure> {
        let mut err = io::stderr();
        write!(err, "{question} ")?;
        err.flush()?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line.trim().to_owned())
    };
    while director.ranges.is_empty() {
        let text = asked("Addresses for services (from-to, or a subnet; empty for none):")?;
        if text.is_empty() {
            break;
        }
        let read: Result<Vec<Ranges>, String> = text
            .split([',', ' '])
            .filter(|t| !t.is_empty())
            .map(range)
            .collect();
        match read {
            Ok(ranges) => director.ranges = ranges,
            Err(why) => output::warn(&why),
        }
    }
    if director.zone.is_empty() {
        let text =
            asked("Sub-domain that IT delegates (such as apps.example.org; empty for none):")?;
        director.zone = text.trim_end_matches('.').to_ascii_lowercase();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a key's secret is, for what the command line says; standard input has one line.
    fn said(text: &str) -> Result<String, String> {
        let key = key(text).unwrap();
        secret(&key, &mut &b"of-a-line=\nmore"[..]).map_err(|f| f.text().to_owned())
    }

    #[test]
    fn none_takes_a_list_away() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            init: Init,
        }
        let set = |line: &str, director: &mut Director| {
            let words = ["init"].into_iter().chain(line.split_whitespace());
            let read = <Line as clap::Parser>::try_parse_from(words).unwrap();
            let done = read.init.put_into(director);
            done.map_err(|f| f.text().to_owned())
        };
        let mut director = Director::default();
        let all = "--range 10.0.0.10-20@h1 --range 10.0.0.30 --exclude 10.0.0.11 --reserve web=10.0.0.12 \
            --device ens3 --device ens4@h1 --reverse 10.0.0.0/24 --transfer 10.0.0.53 --secondary 10.0.0.53 \
            --forward-for 10.0.0.0/8";
        set(all, &mut director).unwrap();
        assert_eq!((director.ranges.len(), director.devices.len()), (2, 1));
        let before = director.clone();
        set("--keep 5m", &mut director).unwrap();
        assert_eq!(director.ranges, before.ranges);
        set("--forward-for none", &mut director).unwrap();
        assert_eq!(
            (director.forward_for.len(), director.transfer.len()),
            (0, 1)
        );
        let none = "--range none --exclude none --reserve none --device none --reverse none --transfer none \
            --secondary none";
        set(none, &mut director).unwrap();
        director.keep = Director::default().keep;
        assert_eq!(director, Director::default());
        let both = set("--exclude none --exclude 10.0.0.11", &mut director);
        assert!(
            both.unwrap_err()
                .starts_with("--exclude: `none` takes all away")
        );
    }

    #[test]
    fn secrets_need_not_be_on_the_command_line() {
        let dir = std::env::temp_dir().join(format!("wharfie-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |text: &str| {
            std::fs::write(dir.join("key"), text).unwrap();
            said(&format!("to-it:hmac-sha256:@{}", dir.join("key").display()))
        };
        assert_eq!(said("to-it:hmac-sha256:c2Vj=="), Ok("c2Vj==".to_owned()));
        assert_eq!(said("to-it:hmac-sha256:-"), Ok("of-a-line=".to_owned()));
        assert_eq!(file(" c2VjcmV0\n"), Ok("c2VjcmV0".to_owned()));
        let written = "key \"to-it\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n";
        assert_eq!(file(written), Ok("c2VjcmV0".to_owned()));
        assert!(
            file("\n")
                .unwrap_err()
                .starts_with("key to-it: there is no secret in /")
        );
        let none = said("to-it:hmac-sha256:@/nowhere/key").unwrap_err();
        assert!(
            none.starts_with("key to-it: cannot read /nowhere/key"),
            "{none}"
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
