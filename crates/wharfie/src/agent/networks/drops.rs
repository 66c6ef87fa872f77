//! What containers' firewalls did: how often each rule decided, and, where a firewall says `log`, each
//! packet that was dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tracing::{debug, info};
use wharfie_core::State;
use wharfie_core::network::Running;
use wharfie_core::network::firewall::{Action, Chain, Ruleset};
use wharfie_host::net::{ContainerFirewall, Dropped, Drops, Error, Hits, Namespace, Way};

use super::plane::{asked, resolvers, service_of};
use super::view::Scene;
use super::walls::{Walls, reasons, walls};
use crate::agent::keeper::Keeper;
use crate::api_network::{AskDrops, DroppedPacket, RuleHits};
use crate::failure::Failure;

/// Whoever follows may lag behind by so many packets.
const BACKLOG: usize = 1_024;
/// So many packets of one container are written into the log, within this time; the others are counted.
const LOGGED: u32 = 10;
const WITHIN: Duration = Duration::from_secs(10);
/// How long is waited for packets before it is looked whether that is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// Where a direction's rules come from, in the kernel's order, and what they do.
type Reasons = Vec<(String, Action)>;

/// Rules of both directions, ingress first.
fn both(rules: &Ruleset) -> [Reasons; 2] {
    let of = |chain: &Option<Chain>| chain.as_ref().map(reasons).unwrap_or_default();
    [of(&rules.ingress), of(&rules.egress)]
}

/// A container whose firewall logs.
pub(super) struct Heard {
    id: String,
    name: String,
    namespace: Namespace,
    rules: [Reasons; 2],
}

/// Containers whose firewalls log, as far as their namespaces are known.
pub(super) fn heard(
    scene: &Scene,
    walls: &Walls,
    namespace: impl Fn(&str) -> Option<Namespace>,
) -> Vec<Heard> {
    let here = scene.here();
    let containers = here.into_iter().flat_map(|n| &n.containers);
    let each = containers.filter_map(|c| {
        let rules = walls.get(&service_of(c)).filter(|r| r.log)?;
        Some(Heard {
            id: c.id.clone(),
            name: c.name.clone(),
            namespace: namespace(&c.id)?,
            rules: both(rules),
        })
    });
    each.collect()
}

/// Listens to what firewalls drop.
pub(in crate::agent) struct Logged {
    tell: broadcast::Sender<DroppedPacket>,
    /// By the ids of containers: what is listened for, and whether it is over.
    running: Mutex<BTreeMap<String, Listener>>,
}

struct Listener {
    namespace: Namespace,
    rules: [Reasons; 2],
    over: Arc<AtomicBool>,
}

impl Default for Logged {
    fn default() -> Self {
        Self {
            tell: broadcast::Sender::new(BACKLOG),
            running: Mutex::default(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Logged {
    /// Listens to these, and no others; what went wrong.
    pub(super) fn listen(&self, wanted: Vec<Heard>) -> Vec<String> {
        let mut failed = Vec::new();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|id, listener| {
            let ended = listener.over.load(Ordering::Relaxed);
            let same = |h: &Heard| {
                h.id == *id && h.namespace.is_same(&listener.namespace) && h.rules == listener.rules
            };
            !ended && wanted.iter().any(same)
        });
        for heard in wanted {
            if running.contains_key(&heard.id) {
                continue;
            }
            let id = heard.id.clone();
            match self.begin(heard) {
                Ok(listener) => drop(running.insert(id, listener)),
                Err(e) => failed.push(e.to_string()),
            }
        }
        failed
    }

    fn begin(&self, heard: Heard) -> Result<Listener, Error> {
        let mut drops = Drops::open(&heard.namespace)?;
        let over = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            namespace: heard.namespace,
            rules: heard.rules.clone(),
            over: Arc::clone(&over),
        };
        let tell = self.tell.clone();
        std::thread::spawn(move || {
            let mut log = Rate::default();
            while !over.load(Ordering::Relaxed) {
                match drops.wait(LOOK) {
                    Ok(packets) => packets.iter().for_each(|packet| {
                        let text = told(packet, &heard.name, &heard.rules);
                        if log.may(Instant::now()) {
                            info!(container = heard.name, "{text}");
                        }
                        // Nobody may follow.
                        let _ = tell.send(DroppedPacket {
                            container: heard.name.clone(),
                            text,
                        });
                    }),
                    Err(e) => {
                        debug!(container = heard.name, "{e}");
                        over.store(true, Ordering::Relaxed);
                    }
                }
                if let Some(more) = log.left_out(Instant::now()) {
                    info!(container = heard.name, "{more} more packets were dropped");
                }
            }
        });
        Ok(listener)
    }

    /// What is dropped from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<DroppedPacket> {
        self.tell.subscribe()
    }
}

/// How much may be written into the log.
#[derive(Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    fn may(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.count = self.count.saturating_add(1);
        self.count <= LOGGED
    }

    /// How many were left out, once the time is over.
    fn left_out(&mut self, now: Instant) -> Option<u32> {
        let over = self.since.is_some_and(|s| now.duration_since(s) >= WITHIN);
        if !over {
            return None;
        }
        let left = self.count.checked_sub(LOGGED).filter(|n| *n > 0);
        *self = Self::default();
        left
    }
}

/// A dropped packet in a line, with the rule by its place in the file.
fn told(packet: &Dropped, name: &str, [ingress, egress]: &[Reasons; 2]) -> String {
    let rule = packet
        .rule
        .strip_prefix(name)
        .unwrap_or(&packet.rule)
        .trim();
    let (direction, number) = rule.split_once(' ').unwrap_or((rule, ""));
    let reasons = if direction == "ingress" {
        ingress
    } else {
        egress
    };
    let place = number.parse().ok().and_then(|n: usize| reasons.get(n));
    let rule = match place {
        Some((place, _)) => place.clone(),
        None => format!("{direction} default"),
    };
    let protocol = match packet.protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    };
    let (source, destination) = (packet.source, packet.destination);
    format!("{rule} dropped {protocol} from {source} to {destination}")
}

impl Keeper {
    /// How often the rules of firewalls on this node decided.
    pub(super) async fn rule_hits(&self, asked_for: &AskDrops) -> Result<Vec<RuleHits>, Failure> {
        let scene = self.scene();
        let known = asked(&resolvers(&scene));
        let walls = scene.with(|world| walls(world, &known));
        let engine = self.engine().map_err(Failure::from)?;
        let node = self.fleet.me().name;
        let mut all = Vec::new();
        let here = scene.here().map(|n| n.containers.as_slice());
        for container in here.unwrap_or_default() {
            let Some(rules) = walls.get(&service_of(container)) else {
                continue;
            };
            let runs = container.state == State::Running && container.joined.is_empty();
            if !runs || !is_meant(&asked_for.of, container) {
                continue;
            }
            // It may have ended since.
            let pid = engine.first_process(&container.id).await.ok().flatten();
            let Some(pid) = pid else {
                continue;
            };
            let read = tokio::task::spawn_blocking(move || {
                ContainerFirewall::open(&Namespace::of_process(pid)?)?.hits()
            });
            let hits = match read.await {
                Ok(Ok(hits)) => hits,
                Ok(Err(e)) if e.is_gone() => continue,
                Ok(Err(e)) => return Err(Failure::failed(format!("{}: {e}", container.name))),
                Err(e) => return Err(Failure::failed(e.to_string())),
            };
            all.extend(summed(&hits, rules).into_iter().map(|hits| RuleHits {
                node: node.clone(),
                container: container.name.clone(),
                ..hits
            }));
        }
        Ok(all)
    }
}

/// Whether somebody asks for a container; for all if nobody is named.
pub(super) fn is_meant(of: &[String], container: &Running) -> bool {
    let full = format!("{}/{}", container.stack, container.service);
    let named = |n: &String| *n == container.service || *n == full || *n == container.name;
    of.is_empty() || of.iter().any(named)
}

/// The kernel's rules as those of the file: one there may be several here.
fn summed(hits: &[Hits], rules: &Ruleset) -> Vec<RuleHits> {
    let [ingress, egress] = both(rules);
    let mut all: Vec<RuleHits> = Vec::new();
    let directions = [
        (Way::Ingress, "ingress", ingress, &rules.ingress),
        (Way::Egress, "egress", egress, &rules.egress),
    ];
    for (way, direction, reasons, chain) in directions {
        let Some(chain) = chain else { continue };
        let default = ("default".to_owned(), chain.default);
        for (i, (rule, action)) in reasons.iter().chain([&default]).enumerate() {
            let number = (i < reasons.len()).then_some(i);
            let of = hits.iter().filter(|h| h.way == way && h.rule == number);
            let (packets, bytes) = of.fold((0, 0), |(p, b), h| (p + h.packets, b + h.bytes));
            let same = |r: &&mut RuleHits| r.direction == direction && r.rule == *rule;
            if let Some(known) = all.iter_mut().find(same) {
                known.packets += packets;
                known.bytes += bytes;
                continue;
            }
            let action = match action {
                Action::Accept => "accept",
                Action::Drop => "drop",
            };
            all.push(RuleHits {
                direction: direction.to_owned(),
                rule: rule.clone(),
                action: action.to_owned(),
                packets,
                bytes,
                ..RuleHits::default()
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_with_their_rule() {
        let rules = [
            vec![
                ("ingress[0]".to_owned(), Action::Drop),
                ("ingress[0]".to_owned(), Action::Drop),
            ],
            Vec::new(),
        ];
        let packet = |rule: &str| Dropped {
            rule: rule.to_owned(),
            protocol: 6,
            source: "10.0.0.2:4000".parse().unwrap(),
            destination: "10.0.0.3:22".parse().unwrap(),
        };
        assert_eq!(
            told(&packet("a-web-1 ingress 1"), "a-web-1", &rules),
            "ingress[0] dropped tcp from 10.0.0.2:4000 to 10.0.0.3:22"
        );
        let default = told(&packet("a-web-1 egress default"), "a-web-1", &rules);
        assert!(default.starts_with("egress default dropped"), "{default}");
    }

    #[test]
    fn the_log_is_not_flooded() {
        let mut rate = Rate::default();
        let begin = Instant::now();
        let written = (0..25).filter(|_| rate.may(begin)).count();
        assert_eq!(written, 10);
        assert_eq!(rate.left_out(begin), None);
        assert_eq!(rate.left_out(begin + WITHIN), Some(15));
        assert!(rate.may(begin + WITHIN));
    }
}
