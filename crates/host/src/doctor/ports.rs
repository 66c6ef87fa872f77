//! The ports that Wharfie uses, and who has them.

use std::collections::BTreeMap;

use super::Finding;
use crate::port_owner::{self, Listener};

/// A port and what it is for.
#[derive(Debug, Clone, Copy)]
struct Port {
    number: u16,
    protocol: &'static str,
    purpose: &'static str,
    /// Whether nothing works without it.
    needed: bool,
    /// What to set for another port.
    setting: &'static str,
}

const PORTS: [Port; 8] = [
    port(7700, "udp", "the other hosts", true, "`cluster-listen`"),
    port(
        7701,
        "tcp",
        "the API and the dashboard",
        true,
        "another API port",
    ),
    port(53, "udp", "DNS", false, "another DNS port"),
    port(53, "tcp", "DNS", false, "another DNS port"),
    port(
        80,
        "tcp",
        "HTTP from outside",
        false,
        "another ingress port",
    ),
    port(
        443,
        "tcp",
        "HTTPS from outside",
        false,
        "another ingress port",
    ),
    port(
        4789,
        "udp",
        "networks over hosts",
        false,
        "another VXLAN port",
    ),
    port(
        51820,
        "udp",
        "encryption between hosts",
        false,
        "another WireGuard port",
    ),
];

const fn port(
    number: u16,
    protocol: &'static str,
    purpose: &'static str,
    needed: bool,
    setting: &'static str,
) -> Port {
    Port {
        number,
        protocol,
        purpose,
        needed,
        setting,
    }
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Nobody,
    Container(String),
    Listens(Listener),
}

/// What was found out about each port.
#[derive(Debug, Clone)]
pub(super) struct Facts(Vec<(Port, Owner)>);

/// Looks who has the ports; `published` are those of containers.
pub(super) fn probe(published: Option<&BTreeMap<String, String>>) -> Facts {
    let owner = |port: &Port| {
        let key = format!("{}/{}", port.number, port.protocol);
        if let Some(container) = published.and_then(|p| p.get(&key)) {
            return Owner::Container(container.clone());
        }
        let tables = match port.protocol {
            "udp" => port_owner::UDP,
            _ => port_owner::TCP,
        };
        port_owner::listener(port.number, &tables).map_or(Owner::Nobody, Owner::Listens)
    };
    Facts(PORTS.iter().map(|p| (*p, owner(p))).collect())
}

pub(super) fn judge(Facts(ports): &Facts) -> Vec<Finding> {
    ports
        .iter()
        .map(|(port, owner)| one(*port, owner))
        .collect()
}

fn one(port: Port, owner: &Owner) -> Finding {
    let check = format!("port {}/{}", port.number, port.protocol);
    let who = match owner {
        Owner::Nobody => {
            return Finding::ok(check, format!("free, for {}", port.purpose));
        }
        Owner::Listens(Listener::Process { name, .. }) if name == "wharfie" => {
            return Finding::ok(check, format!("the agent has it, for {}", port.purpose));
        }
        Owner::Listens(Listener::Process { name, pid }) => format!("{name} (process {pid})"),
        Owner::Listens(Listener::Kernel) => {
            return Finding::ok(
                check,
                format!(
                    "an interface of the kernel has it: for {}, or another program's",
                    port.purpose
                ),
            );
        }
        Owner::Listens(Listener::Hidden) => {
            let seen = "a process that only root may see has it, perhaps the agent";
            return Finding::unknown(check, seen).mend("ask as root: `sudo wharfie doctor`");
        }
        Owner::Container(name) => format!("container {name}"),
    };
    let seen = format!("{who} has it; Wharfie uses it for {}", port.purpose);
    let mend = match owner {
        Owner::Listens(Listener::Process { name, .. }) if name == "systemd-resolve" => {
            "put `DNSStubListener=no` into /etc/systemd/resolved.conf and `systemctl restart systemd-resolved`".to_owned()
        }
        Owner::Container(name) => {
            format!("publish another port for {name}, or set {} in /etc/wharfie/wharfie.toml", port.setting)
        }
        _ => format!("stop it, or set {} in /etc/wharfie/wharfie.toml", port.setting),
    };
    let finding = if port.needed {
        Finding::broken(check, seen)
    } else {
        Finding::warning(check, seen)
    };
    finding.mend(mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn with(number: u16, owner: Owner) -> Finding {
        let port = PORTS.iter().find(|p| p.number == number).unwrap();
        one(*port, &owner)
    }

    fn process(name: &str) -> Owner {
        Owner::Listens(Listener::Process {
            name: name.to_owned(),
            pid: "7".to_owned(),
        })
    }

    #[test]
    fn a_free_port_and_our_own_are_good() {
        assert_eq!(with(80, Owner::Nobody).verdict, Verdict::Ok);
        assert_eq!(with(7700, process("wharfie")).verdict, Verdict::Ok);
        assert_eq!(
            with(4789, Owner::Listens(Listener::Kernel)).verdict,
            Verdict::Ok
        );
        let hidden = with(7700, Owner::Listens(Listener::Hidden));
        assert_eq!(hidden.verdict, Verdict::Unknown);
    }

    #[test]
    fn the_owner_is_named() {
        let nginx = with(80, process("nginx"));
        assert_eq!(nginx.verdict, Verdict::Warning);
        assert!(nginx.seen.contains("nginx (process 7)"), "{}", nginx.seen);
        let taken = with(7700, process("nginx"));
        assert_eq!(taken.verdict, Verdict::Broken);
        let mend = taken.mend.unwrap();
        assert!(mend.contains("set `cluster-listen` in"), "{mend}");
        let resolved = with(53, process("systemd-resolve"));
        assert!(resolved.mend.unwrap().contains("DNSStubListener"));
        let container = with(443, Owner::Container("shop-web-1".to_owned()));
        assert!(container.seen.contains("container shop-web-1"));
    }

    #[test]
    fn published_ports_are_the_containers() {
        let published = [("443/tcp".to_owned(), "shop-web-1".to_owned())];
        let Facts(ports) = probe(Some(&published.into()));
        let owner = &ports.iter().find(|(p, _)| p.number == 443).unwrap().1;
        assert_eq!(*owner, Owner::Container("shop-web-1".to_owned()));
    }
}
