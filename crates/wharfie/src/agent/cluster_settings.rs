//! The settings of a node that takes part in a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::settings::{Given, duration};
use crate::failure::Failure;

/// The port of a node, UDP.
const PORT: u16 = 7700;
/// Shorter would take a busy moment for an end.
const SHORTEST: i64 = 600;

/// How a node takes part in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    /// Its name, when it founds or joins one.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where others can reach it; found out if empty.
    pub(crate) advertise: Vec<SocketAddr>,
    /// Whether nodes are looked for by multicast.
    pub(crate) discover: bool,
    /// A node that is silent for so long is down.
    pub(crate) failure_timeout: Duration,
}

impl ClusterSettings {
    /// What is meant, with the defaults.
    pub(super) fn meant(given: &Given) -> Result<Self, Failure> {
        let listen = match &given.cluster_listen {
            None => (Ipv4Addr::UNSPECIFIED, PORT).into(),
            Some(text) => address("cluster-listen", text)?,
        };
        let advertise = given.cluster_advertise.as_deref().unwrap_or_default();
        let advertise = advertise
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty());
        let advertise = advertise.map(|text| match text.parse() {
            // The port is the one that is listened at.
            Ok(ip) => Ok(SocketAddr::new(ip, listen.port())),
            Err(_) => address("cluster-advertise", text),
        });
        let timeout = given.cluster_failure_timeout.as_deref();
        let failure_timeout = match timeout.map(|t| (t, duration(t))) {
            None => Duration::from_secs(3),
            Some((_, Some(millis))) if millis >= SHORTEST => {
                Duration::from_millis(millis.unsigned_abs())
            }
            Some((text, _)) => {
                return Err(Failure::usage(format!(
                    "cluster-failure-timeout: {text:?} is no duration of {SHORTEST}ms at least"
                ))
                .help("write it as in 3s"));
            }
        };
        Ok(Self {
            name: given.node_name.clone().unwrap_or_else(host_name),
            listen,
            advertise: advertise.collect::<Result<_, _>>()?,
            discover: given.cluster_discover.unwrap_or(true),
            failure_timeout,
        })
    }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!("{key}: {text:?} is no address with a port"))
            .help("write it as in 192.168.1.2:7700, or [fd00::2]:7700")
    })
}

/// The name of the host, up to the first dot.
fn host_name() -> String {
    let host = rustix::system::uname();
    let name = host.nodename().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap_or_default();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(toml: &str) -> Result<ClusterSettings, String> {
        let given: Given = toml::from_str(toml).unwrap();
        ClusterSettings::meant(&given).map_err(|f| f.text())
    }

    #[test]
    fn addresses_and_times() {
        let text = "cluster-listen = \"10.0.0.1:77\"\ncluster-advertise = \"1.2.3.4, [::1]:5\"";
        let settings = meant(text).unwrap();
        let addresses: Vec<String> = settings.advertise.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["1.2.3.4:77", "[::1]:5"]);
        assert_eq!(meant("").unwrap().listen.to_string(), "0.0.0.0:7700");
        let error = meant("cluster-listen = \"10.0.0.1\"").unwrap_err();
        assert!(
            error.contains("cluster-listen: \"10.0.0.1\" is no address with a port"),
            "{error}"
        );
        let error = meant("cluster-failure-timeout = \"10ms\"").unwrap_err();
        assert!(error.contains("600ms at least"), "{error}");
    }
}
