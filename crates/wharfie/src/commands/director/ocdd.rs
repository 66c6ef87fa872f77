//! What OctoCopDD was told: its settings are assignments of a shell script
//! (<https://github.com/Praqma/OctoCopDD>, `ocdd.conf`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use wharfie_core::director::{Director, For, Range, Ranges};

/// The settings that there are.
const KEYS: [&str; 11] = [
    "DEBUG",
    "DOCKER_SOCKET",
    "DOCKER_API_URL",
    "NETWORK_DEVICE",
    "IP_SUBNET",
    "IP_RANGE_START",
    "IP_RANGE_END",
    "TOOLBOX_SUBDOMAIN_NAME",
    "STORAGE_DIR",
    "DNS_ZONE_FILE",
    "WEB_INDEX_FILE",
];
/// It marks the records that it made, and that are made anew each time.
const MADE: &str = "ADDED-BY-OCDD-SCRIPT";

/// What a file of settings says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    lines: BTreeMap<String, usize>,
}

/// Something wrong, and where.
fn at(file: &Path, line: usize, what: impl std::fmt::Display) -> String {
    format!("{}:{line}: {what}", file.display())
}

/// Reads a file of settings.
///
/// # Errors
/// All that is wrong, each with its line.
pub(super) fn read(text: &str, file: &Path) -> Result<Settings, Vec<String>> {
    let (mut settings, mut faults) = (Settings::default(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            faults.push(at(
                file,
                number,
                format!("{line:?} is no assignment such as IP_RANGE_START=11"),
            ));
            continue;
        };
        if !KEYS.contains(&key) {
            let known = KEYS.join(", ");
            faults.push(at(
                file,
                number,
                format!("{key:?} is no setting of OctoCopDD: {known}"),
            ));
            continue;
        }
        match expand(value, &settings.values) {
            Ok(value) => {
                settings.values.insert(key.to_owned(), value);
                settings.lines.insert(key.to_owned(), number);
            }
            Err(why) => faults.push(at(file, number, why)),
        }
    }
    match faults.is_empty() {
        true => Ok(settings),
        false => Err(faults),
    }
}

/// A value as a shell reads it: quotes go, variables of before are put in.
fn expand(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            '$' if quote != Some('\'') => {
                let braces = rest.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                if braces && rest.next() != Some('}') {
                    return Err(format!(
                        "{text:?}: only variables such as ${{STORAGE_DIR}} are understood"
                    ));
                }
                let value = known.get(&name);
                out.push_str(value.ok_or_else(|| format!("${name} is not set before"))?);
            }
            '#' if quote.is_none() && out.is_empty() => break,
            c if c.is_whitespace() && quote.is_none() => {
                let rest: String = rest.collect();
                let rest = rest.trim();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err(format!(
                        "{text:?}: what follows the value is not understood"
                    ));
                }
                break;
            }
            '`' => return Err(format!("{text:?}: commands are not run")),
            c => out.push(c),
        }
    }
    match quote {
        Some(quote) => Err(format!("{text:?}: {quote} is not closed")),
        None => Ok(out),
    }
}

impl Settings {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.values.get(key).map(String::as_str);
        value.filter(|v| !v.is_empty())
    }

    /// Its zone file, if it says one.
    pub(super) fn zone_file(&self) -> Option<PathBuf> {
        self.get("DNS_ZONE_FILE").map(PathBuf::from)
    }

    /// Its page, if it says one.
    pub(super) fn index_file(&self) -> Option<PathBuf> {
        self.get("WEB_INDEX_FILE").map(PathBuf::from)
    }

    /// The socket of the Engine, if it says one.
    pub(super) fn socket(&self) -> Option<&str> {
        self.get("DOCKER_SOCKET")
    }

    /// The same for the director: every container has an address, as it had. `list` are the addresses of
    /// its list, if there is one; what `before` says and OctoCopDD does not know stays.
    ///
    /// # Errors
    /// All that is wrong, each with its line.
    pub(super) fn director(
        &self,
        file: &Path,
        list: &[IpAddr],
        before: Director,
    ) -> Result<Director, Vec<String>> {
        let mut faults = Vec::new();
        let mut need = |key: &str| match self.get(key) {
            Some(value) => value.to_owned(),
            None => {
                faults.push(format!("{}: {key} is not set", file.display()));
                String::new()
            }
        };
        let device = need("NETWORK_DEVICE");
        let zone = need("TOOLBOX_SUBDOMAIN_NAME");
        let (subnet, first, last) = (
            need("IP_SUBNET"),
            need("IP_RANGE_START"),
            need("IP_RANGE_END"),
        );
        if !faults.is_empty() {
            return Err(faults);
        }
        let range = format!("{subnet}.{first}-{subnet}.{last}").parse::<Range>();
        let line = self.lines.get("IP_SUBNET").copied().unwrap_or(1);
        let range = range.map_err(|why| vec![at(file, line, why)])?;
        let ranges = match list {
            [] => vec![range],
            list => joined(list),
        };
        let ranges = ranges.into_iter().map(|range| Ranges {
            range,
            node: String::new(),
        });
        Ok(Director {
            zone: zone.trim_end_matches('.').to_ascii_lowercase(),
            device,
            ranges: ranges.collect(),
            default: For::All,
            ..before
        })
    }
}

/// Addresses as ranges.
fn joined(list: &[IpAddr]) -> Vec<Range> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<Range> = Vec::new();
    for address in sorted {
        let longer = ranges.last().and_then(|r| {
            let longer = Range::new(r.first(), address)?;
            (longer.count() == r.count() + 1).then_some(longer)
        });
        match longer {
            Some(longer) => drop(ranges.pop().map(|_| ranges.push(longer))),
            None => ranges.extend(Range::new(address, address)),
        }
    }
    ranges
}

/// Reads its list of addresses, one a line.
///
/// # Errors
/// All lines that are no addresses.
pub(super) fn read_list(text: &str, file: &Path) -> Result<Vec<IpAddr>, Vec<String>> {
    let (mut list, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        match line.trim() {
            "" => {}
            line => match line.parse() {
                Ok(address) => list.push(address),
                Err(_) => faults.push(at(file, number, format!("{line:?} is no address"))),
            },
        }
    }
    match faults.is_empty() {
        true => Ok(list),
        false => Err(faults),
    }
}

/// The names that it gave, with their addresses; and the zone file without them.
pub(super) fn given(zone: &str) -> (BTreeMap<String, IpAddr>, String) {
    let (mut given, mut rest) = (BTreeMap::new(), String::new());
    for line in zone.lines() {
        if !line.contains(MADE) {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        // The line stays, empty: faults have the numbers of the file.
        rest.push('\n');
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let address = words.find_map(|w| w.parse::<IpAddr>().ok());
        given.extend(address.map(|a| (name.to_owned(), a)));
    }
    (given, rest)
}

/// The title of its page.
pub(super) fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title>")? + "<title>".len();
    let end = begin + lower[begin..].find("</title>")?;
    let title = page.get(begin..end)?.trim();
    (!title.is_empty()).then(|| title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "# of the script\n\nDEBUG=0\nDOCKER_SOCKET='/var/run/docker.sock'\n\
        DOCKER_API_URL='http://localhost/containers/json'\nNETWORK_DEVICE='ens3'\nIP_SUBNET='192.168.122'\n\
        IP_RANGE_START=11\nIP_RANGE_END=30 # the last\nTOOLBOX_SUBDOMAIN_NAME='toolbox.example.com'\n\
        STORAGE_DIR=/opt/ocdd\nDNS_ZONE_FILE=${STORAGE_DIR}/dns/toolbox.example.com.zone\n\
        WEB_INDEX_FILE=\"$STORAGE_DIR/www/index.html\"\n";

    #[test]
    fn its_settings_are_read() {
        let file = Path::new("ocdd.conf");
        let settings = read(CONF, file).unwrap();
        assert_eq!(
            settings.zone_file().unwrap(),
            Path::new("/opt/ocdd/dns/toolbox.example.com.zone")
        );
        assert_eq!(
            settings.index_file().unwrap(),
            Path::new("/opt/ocdd/www/index.html")
        );
        let director = settings.director(file, &[], Director::default()).unwrap();
        assert_eq!(
            (director.zone.as_str(), director.device.as_str()),
            ("toolbox.example.com", "ens3")
        );
        assert_eq!(
            director.ranges[0].range.to_string(),
            "192.168.122.11-192.168.122.30"
        );
        assert_eq!(director.default, For::All);
        let list = read_list("10.0.0.5\n10.0.0.6\n\n10.0.0.9\n", file).unwrap();
        let ranges = settings
            .director(file, &list, Director::default())
            .unwrap()
            .ranges;
        let ranges: Vec<String> = ranges.iter().map(|r| r.range.to_string()).collect();
        assert_eq!(ranges, ["10.0.0.5-10.0.0.6", "10.0.0.9"]);
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let file = Path::new("ocdd.conf");
        let text = "IP_SUBNET='10.0.0\nCOLOUR=red\nsource x\nDEBUG=$(id)\nSTORAGE_DIR=$HOME/x\n";
        let faults = read(text, file).unwrap_err();
        let begin: Vec<&str> = faults
            .iter()
            .map(|f| f.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            begin,
            [
                "ocdd.conf:1",
                "ocdd.conf:2",
                "ocdd.conf:3",
                "ocdd.conf:4",
                "ocdd.conf:5"
            ]
        );
        let short = read("IP_SUBNET=10.0\n", file).unwrap();
        assert_eq!(
            short
                .director(file, &[], Director::default())
                .unwrap_err()
                .len(),
            4
        );
    }

    #[test]
    fn the_names_it_gave_are_kept() {
        let zone = "@ IN A 192.168.122.200\njenkins \t IN \t A \t 192.168.122.13 \t ; ADDED-BY-OCDD-SCRIPT\n";
        let (given, rest) = given(zone);
        assert_eq!(given["jenkins"], IpAddr::from([192, 168, 122, 13]));
        assert_eq!(rest, "@ IN A 192.168.122.200\n\n");
        assert_eq!(
            title("<Title>The ACME server</Title>\n<H1>"),
            Some("The ACME server".to_owned())
        );
        assert_eq!(title("<h1>x"), None);
    }
}
