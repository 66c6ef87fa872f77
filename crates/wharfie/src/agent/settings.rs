//! The agent's settings: `wharfie.toml`, over it the flags. One definition serves both.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use wharfie_core::heal::Backoff;

use super::cluster_settings::ClusterSettings;
use super::network_settings::NetworkSettings;
use crate::dockermod::listen::{self, Token};
use crate::failure::Failure;

/// Where the settings are looked for.
pub(crate) const FILE: &str = "/etc/wharfie/wharfie.toml";

/// Settings as they are given: on the command line, or in the file under the same names.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Given {
    /// Directory of the state [default: /var/lib/wharfie]
    #[arg(
        long,
        env = "WHARFIE_STATE_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(crate) state_dir: Option<PathBuf>,

    /// Docker Engine to keep, as unix:///path [default: the local one]
    #[arg(long, value_name = "URL")]
    pub(crate) engine: Option<String>,

    /// Group that may use the agent's socket, by name or number [default: root's]
    #[arg(long, value_name = "GROUP")]
    pub(crate) socket_group: Option<String>,

    /// What is logged [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) log_level: Option<Level>,

    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,

    /// Everything is looked at this often, whatever the Engine tells [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) resync: Option<String>,

    /// Pause after the first attempt to heal a task; it doubles with each [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) backoff_first: Option<String>,

    /// Longest pause between attempts to heal a task [default: 1m]
    #[arg(long, value_name = "DURATION")]
    pub(crate) backoff_most: Option<String>,

    /// A task that has run for so long is well: its attempts no longer count [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) stable_after: Option<String>,

    /// Earlier versions kept of each stack [default: 50]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) history: Option<usize>,

    /// End when nothing has been wanted for so long [default: never, 1m for an agent that a
    /// command started in the background]
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_exit: Option<String>,

    /// Name of this node when it founds or joins a cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,

    /// Where to listen for other nodes, UDP, once there are any [default: 0.0.0.0:7700]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) cluster_listen: Option<String>,

    /// Where other nodes can reach this one, separated by commas [default: found out]
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) cluster_advertise: Option<String>,

    /// Whether nodes of one LAN find each other by multicast [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) cluster_discover: Option<bool>,

    /// A node that is silent for so long is taken to be down [default: 3s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) cluster_failure_timeout: Option<String>,

    /// Where networks over several hosts get their addresses from, separated by commas; the same on all
    /// nodes [default: 10.128.0.0/9]
    #[arg(long, value_name = "RANGES")]
    pub(crate) network_pool: Option<String>,

    /// Length of the prefix of such a network; the same on all nodes [default: 18]
    #[arg(long, value_name = "BITS")]
    pub(crate) network_prefix: Option<u8>,

    /// Address of this host that packets between containers of nodes come from and go to
    /// [default: where other nodes reach this one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) network_address: Option<String>,

    /// Whether packets of containers are encrypted between nodes: auto, always or never
    /// [default: auto]
    #[arg(long, value_name = "WHEN")]
    pub(crate) network_encrypt: Option<String>,

    /// Ranges of nodes' addresses within which auto encrypts nothing, separated by commas
    /// [default: none]
    #[arg(long, value_name = "RANGES")]
    pub(crate) network_private: Option<String>,

    /// A node makes itself a new key for that after so long [default: 24h]
    #[arg(long, value_name = "DURATION")]
    pub(crate) network_key_lifetime: Option<String>,

    /// Port, or ADDRESS:PORT, for requests in DockerMod's protocol; a port is this host's only
    /// [default: none]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(deserialize_with = "listen::text_or_port")]
    pub(crate) dockermod_listen: Option<String>,

    /// Token that those requests must show as "Authorization: Bearer TOKEN"; needed where other
    /// hosts can send them [default: none]
    #[arg(
        long,
        env = "WHARFIE_DOCKERMOD_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        value_parser = token
    )]
    pub(crate) dockermod_token: Option<Token>,
}

fn token(text: &str) -> Result<Token, std::convert::Infallible> {
    Ok(Token::new(text))
}

/// Which log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// What failed
    Error,
    /// And what is not as it should be
    Warn,
    /// And what is done
    Info,
    /// And why
    Debug,
    /// And everything else
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Settings as they are meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Directory of the state.
    pub(crate) state_dir: PathBuf,
    /// The agent's socket.
    pub(crate) socket: PathBuf,
    /// Address of the Engine; the usual one if unset.
    pub(crate) engine: Option<String>,
    /// Group of the socket.
    pub(crate) socket_group: Option<String>,
    /// What is logged.
    pub(crate) log_level: Level,
    /// How.
    pub(crate) log_format: Format,
    /// Milliseconds between looks at everything.
    pub(crate) resync: u64,
    /// Pauses between attempts.
    pub(crate) backoff: Backoff,
    /// Earlier versions kept.
    pub(crate) history: usize,
    /// Milliseconds without anything wanted after which the agent ends.
    pub(crate) idle_exit: Option<u64>,
    /// Where requests in DockerMod's protocol are taken.
    pub(crate) dockermod_listen: Option<SocketAddr>,
    /// How the node takes part in a cluster.
    pub(crate) cluster: ClusterSettings,
    /// Where networks get their addresses from.
    pub(crate) network: NetworkSettings,
    /// The token that they must show.
    pub(crate) dockermod_token: Option<Token>,
}

impl Given {
    /// From a file; nothing is given by one that is not there, unless it was named.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let path = file.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
                return Ok(Self::default());
            }
            Err(e) => {
                return Err(Failure::failed(format!(
                    "cannot read the settings in {}: {e}",
                    path.display()
                )));
            }
        };
        toml::from_str(&text).map_err(|e| {
            // The library shows the line and marks the place.
            let text = e.to_string();
            Failure::usage(format!("{}: {}", path.display(), text.trim_end()))
                .help("`wharfie agent --help` lists the settings; each is a key of the file")
        })
    }

    /// What is given here over what is given there.
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(other.state_dir),
            engine: self.engine.or(other.engine),
            socket_group: self.socket_group.or(other.socket_group),
            log_level: self.log_level.or(other.log_level),
            log_format: self.log_format.or(other.log_format),
            resync: self.resync.or(other.resync),
            backoff_first: self.backoff_first.or(other.backoff_first),
            backoff_most: self.backoff_most.or(other.backoff_most),
            stable_after: self.stable_after.or(other.stable_after),
            history: self.history.or(other.history),
            idle_exit: self.idle_exit.or(other.idle_exit),
            node_name: self.node_name.or(other.node_name),
            cluster_listen: self.cluster_listen.or(other.cluster_listen),
            cluster_advertise: self.cluster_advertise.or(other.cluster_advertise),
            cluster_discover: self.cluster_discover.or(other.cluster_discover),
            cluster_failure_timeout: self
                .cluster_failure_timeout
                .or(other.cluster_failure_timeout),
            network_pool: self.network_pool.or(other.network_pool),
            network_prefix: self.network_prefix.or(other.network_prefix),
            network_address: self.network_address.or(other.network_address),
            network_encrypt: self.network_encrypt.or(other.network_encrypt),
            network_private: self.network_private.or(other.network_private),
            network_key_lifetime: self.network_key_lifetime.or(other.network_key_lifetime),
            dockermod_listen: self.dockermod_listen.or(other.dockermod_listen),
            dockermod_token: self.dockermod_token.or(other.dockermod_token),
        }
    }

    /// What is meant, with the defaults.
    pub(crate) fn meant(self, socket: PathBuf) -> Result<Settings, Failure> {
        let usual = Backoff::default();
        let millis = |key: &str, text: &Option<String>, usual: i64| match text {
            None => Ok(usual),
            Some(text) => duration(text).ok_or_else(|| {
                Failure::usage(format!("{key}: {text:?} is no duration"))
                    .help("write it as in 500ms, 30s or 1m30s")
            }),
        };
        let idle_exit = match &self.idle_exit {
            Some(text) => Some(millis("idle-exit", &Some(text.clone()), 0)?),
            None => None,
        };
        let dockermod_listen = self.dockermod_address()?;
        let cluster = ClusterSettings::meant(&self)?;
        Ok(Settings {
            network: NetworkSettings::meant(&self)?,
            cluster,
            dockermod_listen,
            dockermod_token: self.dockermod_token.clone(),
            state_dir: self.state_dir.clone().unwrap_or_else(default_state_dir),
            socket,
            engine: self.engine.clone(),
            socket_group: self.socket_group.clone(),
            log_level: self.log_level.unwrap_or(Level::Info),
            log_format: self.log_format.unwrap_or(Format::Text),
            resync: millis("resync", &self.resync, 30_000)?
                .max(100)
                .unsigned_abs(),
            backoff: Backoff {
                first: millis("backoff-first", &self.backoff_first, usual.first)?,
                most: millis("backoff-most", &self.backoff_most, usual.most)?,
                stable: millis("stable-after", &self.stable_after, usual.stable)?,
            },
            history: self.history.unwrap_or(50),
            idle_exit: idle_exit.map(i64::unsigned_abs),
        })
    }
}

impl Given {
    /// Where DockerMod's protocol is spoken: whoever reaches it may do anything, so it is either
    /// this host alone, or those who have the token.
    fn dockermod_address(&self) -> Result<Option<SocketAddr>, Failure> {
        if let Some(fault) = self.dockermod_token.as_ref().and_then(Token::fault) {
            return Err(Failure::usage(format!("dockermod-token: {fault}"))
                .help("`openssl rand -hex 32` makes one"));
        }
        let Some(text) = &self.dockermod_listen else {
            return Ok(None);
        };
        let Some(address) = listen::address(text) else {
            return Err(
                Failure::usage(format!("dockermod-listen: {text:?} is no address"))
                    .help("write a port, as in 8080, or address and port, as in 127.0.0.1:8080"),
            );
        };
        if !listen::is_local(address) && self.dockermod_token.is_none() {
            return Err(Failure::usage(format!(
                "dockermod-listen: other hosts can reach {address}, and whoever does can do anything on every node"
            ))
            .help("set `dockermod-token` as well, or listen at 127.0.0.1 only"));
        }
        Ok(Some(address))
    }
}

/// A duration as compose files write it, in milliseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let nanoseconds = wharfie_compose::units::parse_duration(text).ok()?;
    (nanoseconds >= 0).then_some(nanoseconds / 1_000_000)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// `/var/lib/wharfie`, or a place of the user's own for anybody but root.
pub(crate) fn default_state_dir() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/lib/wharfie");
    }
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home().join(".local/state"), PathBuf::from)
        .join("wharfie")
}

/// `/run/wharfie/wharfie.sock`; for anybody but root a place of the user's own, unless the
/// system's agent lets them in.
pub(crate) fn default_socket() -> PathBuf {
    let system = PathBuf::from("/run/wharfie/wharfie.sock");
    let runtime = std::env::var_os("XDG_RUNTIME_DIR");
    match runtime {
        Some(dir) if !is_root() && !system.exists() => {
            PathBuf::from(dir).join("wharfie/wharfie.sock")
        }
        _ => system,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        given: Given,
    }

    #[test]
    fn every_flag_is_a_key_and_every_key_a_flag() {
        let command = Flags::command();
        let flags: Vec<String> = command
            .get_arguments()
            .filter_map(|a| a.get_long().map(str::to_owned))
            .filter(|name| name != "help")
            .collect();
        let mut text = String::new();
        for flag in &flags {
            let value = match flag.as_str() {
                "history" | "network-prefix" => "20".to_owned(),
                "log-level" => "\"debug\"".to_owned(),
                "cluster-discover" => "true".to_owned(),
                "log-format" => "\"json\"".to_owned(),
                _ => "\"5s\"".to_owned(),
            };
            text.push_str(&format!("{flag} = {value}\n"));
        }
        let given: Given = toml::from_str(&text).unwrap();
        let debug = format!("{given:?}");
        assert!(!debug.contains("None"), "a key is no flag: {debug}");
    }

    #[test]
    fn flags_count_more_than_the_file() {
        let file: Given = toml::from_str("history = 1\nresync = \"1m\"").unwrap();
        let flags = Given {
            history: Some(2),
            ..Given::default()
        };
        let settings = flags.over(file).meant("/s".into()).unwrap();
        assert_eq!((settings.history, settings.resync), (2, 60_000));
    }

    #[test]
    fn dockermod_is_for_this_host_or_for_those_with_a_token() {
        let meant = |text: &str| {
            let given: Given = toml::from_str(text).unwrap();
            given.meant("/s".into()).map(|s| s.dockermod_listen)
        };
        let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        assert_eq!(meant("").unwrap(), None);
        for text in ["8080", "\"8080\"", "\"127.0.0.1:8080\""] {
            let meant = meant(&format!("dockermod-listen = {text}")).unwrap();
            assert_eq!(meant, at("127.0.0.1:8080"), "{text}");
        }
        let open = "dockermod-listen = \"0.0.0.0:8080\"\n";
        let refused = format!("{:?}", meant(open).unwrap_err());
        assert!(refused.contains("set `dockermod-token`"), "{refused}");
        let with = format!("{open}dockermod-token = \"0123456789abcdef\"");
        assert_eq!(meant(&with).unwrap(), at("0.0.0.0:8080"));
        let short = format!("{open}dockermod-token = \"secret\"");
        let refused = format!("{:?}", meant(&short).unwrap_err());
        assert!(refused.contains("at least 16 characters"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        let bad = meant("dockermod-listen = \"everywhere\"");
        assert!(format!("{:?}", bad.unwrap_err()).contains("is no address"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let dir = std::env::temp_dir().join(format!("wharfie-settings-{}", std::process::id()));
        std::fs::write(&dir, "history = 3\nresink = \"1s\"\n").unwrap();
        let failure = Given::read(Some(&dir)).unwrap_err();
        let text = format!("{failure:?}");
        assert!(text.contains("line 2") && text.contains("resink"), "{text}");
        let bad = Given {
            resync: Some("often".to_owned()),
            ..Given::default()
        };
        assert!(format!("{:?}", bad.meant("/s".into()).unwrap_err()).contains("resync"));
        std::fs::remove_file(dir).unwrap();
    }
}
