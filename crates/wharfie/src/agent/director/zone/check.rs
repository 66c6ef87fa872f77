//! Whether the zone is found from outside, as this node sees it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wharfie_core::director::{DNS_PORT, Director};
use wharfie_edge::zone::check::{Level, Plan, parents};
use wharfie_edge::zone::{Zone, parts};

use super::entries::{shown, spans};
use super::served::Served;
use crate::agent::keeper::Keeper;
use crate::api_dns::{CheckZone, Checked, Finding};

/// So many names of addresses are written out.
const ALIASES: usize = 1024;
/// How long one answer is waited for.
const WAIT: Duration = Duration::from_secs(2);

impl Keeper {
    /// Looks at the zone from outside in.
    pub(super) async fn check_zone(&self, served: &Served, wanted: CheckZone) -> Checked {
        let Some(zone) = served.zone() else {
            return Checked::default();
        };
        let book = self.book.director();
        let port = book.settings.as_ref().map_or(DNS_PORT, |s| s.dns_port);
        let mut resolvers = wanted.resolvers;
        if resolvers.is_empty() {
            resolvers = of_host();
        }
        let mut above = wanted.parents;
        if above.is_empty() {
            for resolver in &resolvers {
                above = parents(zone.origin(), *resolver, WAIT).await;
                if !above.is_empty() {
                    break;
                }
            }
        }
        let mut findings = Vec::new();
        let mut add = |level: &str, what: String| {
            findings.push(Finding {
                level: level.to_owned(),
                what,
            });
        };
        if resolvers.is_empty() {
            add(
                "fault",
                "no resolver is known: name one with --resolver".to_owned(),
            );
        } else if above.is_empty() {
            let what = format!(
                "no server of the zone above {} is found: name one with --parent",
                zone.origin()
            );
            add("fault", what);
        }
        if port != DNS_PORT {
            let what = format!(
                "the nodes answer at port {port}, but servers of others ask at port {DNS_PORT} only: lead that one there"
            );
            add("warning", what);
        }
        for (fault, what) in self.faults_of_zone(served) {
            add(if fault { "fault" } else { "warning" }, what);
        }
        let plan = Plan {
            zone: Arc::clone(zone),
            parents: above,
            resolvers,
            port,
            names: wanted.names,
        };
        let replies = plan.ask(WAIT).await;
        for found in plan.judge(&replies) {
            let level = match found.level {
                Level::Good => "ok",
                Level::Warning => "warning",
                Level::Fault => "fault",
            };
            add(level, found.what);
        }
        let mut delegation = plan.delegation();
        if served.zones.len() > 1 {
            delegation.push_str("\n; So that addresses lead back to names, if that is wanted:\n");
        }
        if let Some(settings) = &book.settings {
            delegation.push_str(&backwards(&plan, &served.zones, settings));
        }
        Checked {
            findings,
            delegation,
        }
    }

    /// What nodes say that is wrong, and which do not answer; each with whether names are lost by it.
    fn faults_of_zone(&self, served: &Served) -> Vec<(bool, String)> {
        let Some(zone) = served.zone() else {
            return Vec::new();
        };
        let origin = zone.origin().to_string();
        let begin = format!("zone {}: ", origin.trim_end_matches('.'));
        let mut said = Vec::new();
        for node in self.fleet.members() {
            if !node.me && !node.may_answer() {
                said.push((
                    false,
                    format!("node {}: it is away, and does not answer", node.name),
                ));
                continue;
            }
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            let faults = report.network_faults.iter();
            let own = faults.filter_map(|f| f.what.strip_prefix(&begin));
            let own: Vec<&str> = own.collect();
            let answers = match node.me {
                true => served.answers,
                false => report.zones.iter().any(|z| z.origin == origin),
            };
            if !answers && own.is_empty() {
                said.push((
                    false,
                    format!("node {} does not answer for {origin}", node.name),
                ));
            }
            for what in own {
                let conflict = served.conflicts.iter().any(|c| c == what);
                said.push((!conflict, format!("node {}: {what}", node.name)));
            }
        }
        said
    }
}

/// What IT has to enter so that addresses lead back to names.
fn backwards(plan: &Plan, zones: &[Arc<Zone>], settings: &Director) -> String {
    let (networks, own) = (settings.reversed(), spans(&settings.named()));
    let networks: Vec<_> = shown(&networks);
    let (parts, _) = parts(plan.zone.origin(), &networks, &own);
    let mut out = String::new();
    for part in parts {
        let origin = part.below.as_ref().unwrap_or(&part.origin);
        let Some(zone) = zones.iter().find(|z| z.origin() == origin) else {
            continue;
        };
        if part.below.is_some() {
            out.push_str(&format!(
                "; Others have addresses of {} too: do NOT delegate {}, or theirs lose their names.\n\
                 ; A name for each of the cluster's addresses leads to a zone of its own (RFC 2317):\n",
                part.network, part.origin
            ));
        }
        let plan = Plan {
            zone: Arc::clone(zone),
            ..plan.clone()
        };
        out.push_str(&plan.delegation());
        let mut aliases = part.aliases(&own);
        for (from, to) in aliases.by_ref().take(ALIASES) {
            out.push_str(&format!("{from}\t3600\tIN\tCNAME\t{to}\n"));
        }
        if aliases.next().is_some() {
            out.push_str("; and so on, for each address of the cluster that is to have a name\n");
        }
    }
    out
}

/// The resolvers of this host (resolv.conf(5)).
fn of_host() -> Vec<SocketAddr> {
    let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = file.lines().filter_map(|l| l.strip_prefix("nameserver"));
    let each = lines.filter_map(|l| l.trim().parse::<IpAddr>().ok());
    each.map(|a| SocketAddr::new(a, DNS_PORT)).collect()
}
