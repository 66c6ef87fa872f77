//! Where everything of a lab lies, and what it is called. Pure: nothing here touches the machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The folder below which labs keep their state, unless `WHARFIE_LAB_DIR` says otherwise.
const DEFAULT_ROOT: &str = "/var/tmp/wharfie-lab";
/// What outlives labs: the base image and fetched Engines, unless `WHARFIE_LAB_CACHE` says otherwise.
const DEFAULT_CACHE: &str = "/var/cache/wharfie-lab";
/// A Unix socket's path may have 107 bytes, and containerd's lie deep below a lab's folder.
const LONGEST_ROOT: usize = 50;

/// The bridge all hosts are plugged into, and the router's port.
pub(crate) const BRIDGE: &str = "lan0";
/// The name of every host's network interface.
pub(crate) const INTERFACE: &str = "eth0";

pub(crate) const MOST_HOSTS: usize = 99;
pub(crate) const MOST_CLIENTS: usize = 99;
const FIRST_CLIENT: u8 = 101;
const ROUTER: u8 = 254;

/// The folder below which labs keep their state.
pub(crate) fn root() -> Result<PathBuf> {
    let root = std::env::var_os("WHARFIE_LAB_DIR").map_or(DEFAULT_ROOT.into(), PathBuf::from);
    ensure!(
        root.is_absolute() && root.as_os_str().len() <= LONGEST_ROOT,
        "WHARFIE_LAB_DIR must be an absolute path of at most {LONGEST_ROOT} bytes, not {}",
        root.display()
    );
    Ok(root)
}

/// The folder for what may be used again by later labs.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("WHARFIE_LAB_CACHE").map_or(DEFAULT_CACHE.into(), PathBuf::from)
}

/// A lab's name, which begins the name of everything it makes: `wl`, the maker's pid in
/// hexadecimal, and a letter or more because one process may make several.
pub(crate) fn prefix(pid: u32, count: usize) -> String {
    let mut letters = String::new();
    let mut rest = count;
    loop {
        letters.insert(0, char::from(b'g' + u8::try_from(rest % 20).unwrap_or(0)));
        rest /= 20;
        if rest == 0 {
            return format!("wl{pid:x}{letters}");
        }
        rest -= 1;
    }
}

/// Whether a name could have come from [`prefix`]: what guards every deletion.
pub(crate) fn is_prefix(name: &str) -> bool {
    name.strip_prefix("wl").is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 12 && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// The names and paths of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) prefix: String,
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path, prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            dir: root.join(prefix),
        }
    }

    /// The namespace of the bridge; the machine's own firewall does not see what happens there.
    pub(crate) fn lan_namespace(&self) -> String {
        self.namespace("lan")
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    pub(crate) fn machine_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The cgroup below which a host's Engine puts its containers.
    pub(crate) fn cgroup(&self, name: &str) -> String {
        format!("/{}/{name}", self.prefix)
    }
}

/// Where `ip netns` keeps its namespaces.
pub(crate) fn namespace_file(namespace: &str) -> PathBuf {
    Path::new("/var/run/netns").join(namespace)
}

/// A host's or client's name is also a folder, a network interface and a DNS label.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let ok = name.len() <= 15
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    ensure!(
        ok && name != "lan" && name != BRIDGE,
        "{name:?} cannot be a name here: at most 15 of a-z, 0-9 and -, beginning with a letter, \
         and neither \"lan\" nor {BRIDGE:?}"
    );
    Ok(())
}

/// The lab's LAN: an IPv4 network whose first 254 addresses are given out by rule.
///
/// Hosts are `.1` to `.99`, clients `.101` to `.199`, the router `.254`; `.200` to `.253` are left
/// for tests that give addresses of the LAN to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    length: u8,
}

impl Subnet {
    /// The prefix length, as in `/24`.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The `last`th address of the network.
    pub fn address(self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.network.octets();
        Ipv4Addr::new(a, b, c, last)
    }

    /// The address of the router, every host's default gateway.
    pub fn router(self) -> Ipv4Addr {
        self.address(ROUTER)
    }

    /// The address of the host with this number, counted from 1.
    pub(crate) fn host(self, number: usize) -> Result<Ipv4Addr> {
        ensure!(
            (1..=MOST_HOSTS).contains(&number),
            "a lab has at most {MOST_HOSTS} hosts"
        );
        Ok(self.address(u8::try_from(number)?))
    }

    /// The address of the client with this number, counted from 0.
    pub(crate) fn client(self, number: usize) -> Result<Ipv4Addr> {
        ensure!(
            number < MOST_CLIENTS,
            "a lab has at most {MOST_CLIENTS} clients"
        );
        Ok(self.address(FIRST_CLIENT + u8::try_from(number)?))
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 99, 0, 0),
            length: 24,
        }
    }
}

impl FromStr for Subnet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (network, length) = text
            .split_once('/')
            .with_context(|| format!("{text:?} is not a network like 10.99.0.0/24"))?;
        let network: Ipv4Addr = network
            .parse()
            .with_context(|| format!("{network:?} is not an IPv4 address"))?;
        let length: u8 = length
            .parse()
            .with_context(|| format!("{length:?} is not a prefix length"))?;
        if !(8..=24).contains(&length) {
            bail!("the lab's network must be between /8 and /24, not /{length}");
        }
        if network.to_bits() & (u32::MAX >> length) != 0 {
            bail!("{network} has host bits set for a /{length}");
        }
        Ok(Self { network, length })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl TryFrom<String> for Subnet {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn prefixes_differ_and_are_recognised() {
        let many: BTreeSet<String> = (0..1000).map(|count| prefix(4_194_304, count)).collect();
        assert_eq!(many.len(), 1000);
        assert!(
            many.iter()
                .all(|prefix| is_prefix(prefix) && prefix.len() <= 12)
        );
        // A letter past `f` parts the pid from the count: wl1a + b is not wl1ab.
        assert_eq!(prefix(0x1a, 0), "wl1ag");
        assert_eq!(prefix(0x1a, 20), "wl1agg");
        assert!(!is_prefix("wl"));
        assert!(!is_prefix("wl../etc"));
        assert!(!is_prefix("docker"));
    }

    #[test]
    fn addresses_follow_the_numbers() {
        let subnet: Subnet = "10.7.0.0/16".parse().expect("valid");
        assert_eq!(subnet.host(3).expect("valid").to_string(), "10.7.0.3");
        assert_eq!(subnet.client(0).expect("valid").to_string(), "10.7.0.101");
        assert_eq!(subnet.router().to_string(), "10.7.0.254");
        assert!(subnet.host(0).is_err());
        assert!(subnet.host(100).is_err());
        assert_eq!(subnet.to_string(), "10.7.0.0/16");
    }

    #[test]
    fn bad_subnets_are_refused() {
        for text in [
            "10.7.0.0",
            "10.7.0.1/24",
            "10.7.0.0/30",
            "x/24",
            "10.7.0.0/y",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_must_fit_an_interface() {
        assert!(check_name("c1").is_ok());
        for name in ["", "1c", "lan", "../x", "Host", "abcdefghijklmnop"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
