//! Why somebody reaches somebody, or does not, as this node sees the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use wharfie_core::network::firewall::{Protocol, Ruleset};
use wharfie_core::network::trace::{Facts, Question, Way, trace};
use wharfie_core::network::{Node, Running};
use wharfie_core::report::NetworkFault;
use wharfie_host::net::{self, listeners};

use super::encrypt::between;
use super::plane::{asked, resolvers};
use super::walls::walls;
use crate::agent::keeper::Keeper;
use crate::api_network::{Listeners, Listening, TraceNetwork, Traced};
use crate::failure::Failure;

/// What is not said is this port.
const USUAL: u16 = 80;

/// The protocol with a name.
pub(super) fn protocol(name: &str) -> Result<Protocol, Failure> {
    Protocol::of(name).ok_or_else(|| {
        Failure::usage(format!("{name:?} is no protocol"))
            .help("the protocols are tcp, udp, sctp and icmp")
    })
}

impl Keeper {
    /// The way of a packet, as far as it is seen from anywhere.
    pub(super) async fn trace(&self, wanted: &TraceNetwork) -> Result<Way, Failure> {
        let protocol = protocol(&wanted.protocol)?;
        let said = wanted.port.is_some() || protocol == Protocol::Icmp;
        let port = said.then(|| (protocol, wanted.port.unwrap_or(0)));
        let port = port.or((protocol != Protocol::Tcp).then_some((protocol, USUAL)));
        let outside = outside(&wanted.to).await;
        let scene = self.scene();
        let known = asked(&resolvers(&scene));
        let faults: BTreeMap<String, Vec<NetworkFault>> = self
            .fleet
            .members()
            .iter()
            .filter_map(|n| {
                Some((
                    n.id.clone(),
                    self.fleet.report_of(n)?.network_faults.clone(),
                ))
            })
            .collect();
        let question = Question {
            from: &wanted.from,
            to: &wanted.to,
            port,
            outside: &outside,
        };
        Ok(scene.with(|world| {
            let walls = walls(world, &known);
            let firewall = |_: &Node, c: &Running| -> Option<Ruleset> {
                walls.get(&(c.stack.clone(), c.service.clone())).cloned()
            };
            let facts = Facts {
                firewall: &firewall,
                plan: &|from, to| between(&scene, from, to),
                faults: &|node| faults.get(&node.id).cloned().unwrap_or_default(),
            };
            trace(world, &question, &facts)
        }))
    }

    /// Whether somebody listens at a port in a container of this node, or on its host.
    pub(super) async fn listening(&self, wanted: &Listeners) -> Result<Listening, Failure> {
        let pid = match wanted.container.as_str() {
            "" => None,
            id => {
                let engine = self.engine().map_err(Failure::from)?;
                let pid = engine.first_process(id).await?;
                let ended = || Failure::failed(format!("container {id} has just ended"));
                Some(pid.ok_or_else(ended)?)
            }
        };
        let own = match protocol(&wanted.protocol)? {
            Protocol::Tcp => net::Protocol::Tcp,
            Protocol::Udp => net::Protocol::Udp,
            _ => {
                return Ok(Listening {
                    yes: true,
                    why: format!("{} has no ports: it arrives", wanted.protocol),
                });
            }
        };
        let what = format!("{}/{}", wanted.port, wanted.protocol);
        let all = listeners(pid);
        let at: Vec<SocketAddr> = all
            .iter()
            .filter(|l| l.protocol == own && l.at.port() == wanted.port)
            .map(|l| l.at)
            .collect();
        let takes = |l: &&net::Listener| {
            l.protocol == own && l.at.port() == wanted.port && l.takes(wanted.address)
        };
        let list = |at: &[SocketAddr]| {
            let at: Vec<String> = at.iter().map(ToString::to_string).collect();
            at.join(", ")
        };
        Ok(match (all.iter().find(takes), at.is_empty()) {
            (Some(l), _) => Listening {
                yes: true,
                why: format!("somebody listens at {what} ({})", l.at),
            },
            (None, false) => Listening {
                yes: false,
                why: format!("{what} is listened to at {} only", list(&at)),
            },
            (None, true) => {
                let ports: std::collections::BTreeSet<u16> = all
                    .iter()
                    .filter(|l| l.protocol == own && !l.at.ip().is_loopback())
                    .map(|l| l.at.port())
                    .collect();
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let others = match ports.is_empty() {
                    true => String::new(),
                    false => format!("; it listens at {}", ports.join(", ")),
                };
                Listening {
                    yes: false,
                    why: format!("nobody listens at {what}: connections are refused{others}"),
                }
            }
        })
    }
}

/// Adds whether somebody listens, and says all of it in a line.
pub(super) fn finish(mut way: Way, wanted: &TraceNetwork, listening: Option<Listening>) -> Traced {
    if let Some(listening) = listening {
        match listening.yes {
            true => way.pass("port", listening.why),
            false => way.stop("port", listening.why),
        }
    }
    let (from, to) = (&wanted.from, &wanted.to);
    let verdict = match way.stopped() {
        None => format!("{from} reaches {to}"),
        Some(hop) => format!("{from} does not reach {to}: {}: {}", hop.place, hop.why),
    };
    Traced {
        arrives: way.arrives(),
        way,
        verdict,
    }
}

/// Addresses that the host's resolvers have for a name that may be of the outside.
async fn outside(name: &str) -> Vec<IpAddr> {
    // What is below `.internal` is never asked outside.
    if !name.contains('.') || name.ends_with(".internal") {
        return Vec::new();
    }
    let looked = tokio::net::lookup_host((name, 0));
    let patience = std::time::Duration::from_secs(2);
    match tokio::time::timeout(patience, looked).await {
        Ok(Ok(found)) => found.map(|s| s.ip()).collect(),
        _ => Vec::new(),
    }
}
