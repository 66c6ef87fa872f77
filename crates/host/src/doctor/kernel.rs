//! What the kernel must be able to do.

use std::fs::{self, File};
use std::io;

use super::Finding;
use super::netlink::{Can, try_out};

/// What the kernel can do.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Its release.
    pub(super) release: String,
    pub(super) bridge: Can,
    pub(super) veth: Can,
    pub(super) vxlan: Can,
    pub(super) wireguard: Can,
    pub(super) nftables: Can,
    pub(super) tun: Can,
    /// Whether bridged traffic passes iptables; nothing if it cannot.
    pub(super) bridge_calls_iptables: Option<bool>,
}

pub(super) fn probe() -> Facts {
    let kinds = ["bridge", "veth", "vxlan", "wireguard"];
    let (links, nftables) = try_out(&kinds);
    // Who may not ask can still see what is loaded.
    let link = |i: usize| match links.get(i).copied().unwrap_or(Can::Unknown) {
        Can::Unknown if loaded(kinds[i]) => Can::Yes,
        can => can,
    };
    Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        bridge: link(0),
        veth: link(1),
        vxlan: link(2),
        wireguard: link(3),
        nftables: match nftables {
            Can::Unknown if loaded("nf_tables") => Can::Yes,
            can => can,
        },
        tun: of_tun(File::open("/dev/net/tun").map(drop).map_err(|e| e.kind())),
        bridge_calls_iptables: fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
            .ok()
            .map(|v| v.trim() == "1"),
    }
}

fn loaded(module: &str) -> bool {
    fs::exists(format!("/sys/module/{module}")).unwrap_or(false)
}

fn of_tun(opened: Result<(), io::ErrorKind>) -> Can {
    match opened {
        Ok(()) => Can::Yes,
        Err(io::ErrorKind::PermissionDenied) => Can::Unknown,
        Err(_) => Can::No,
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("kernel", &facts.release)];
    let mut needed = |what: &str, can: Can, module: &str, use_of_it: &str| {
        findings.push(match can {
            Can::Yes => Finding::ok(what, "there"),
            Can::Unknown => unknown(what),
            Can::No => {
                Finding::broken(what, format!("the kernel has it not: {use_of_it}")).mend(format!(
                    "`modprobe {module}`, or a kernel built with it; distribution kernels have it"
                ))
            }
        });
    };
    needed(
        "bridge",
        facts.bridge,
        "bridge",
        "no network of containers can be made",
    );
    needed(
        "veth",
        facts.veth,
        "veth",
        "no container can be put on a network",
    );
    needed(
        "nftables",
        facts.nftables,
        "nf_tables",
        "addresses of services and firewalls need it",
    );
    findings.push(match facts.vxlan {
        Can::Yes => Finding::ok("vxlan", "there"),
        Can::Unknown => unknown("vxlan"),
        Can::No => Finding::warning(
            "vxlan",
            "the kernel has it not: networks cannot span hosts; one host works",
        )
        .mend("`modprobe vxlan`, or a kernel built with CONFIG_VXLAN"),
    });
    findings.push(match (facts.wireguard, facts.tun) {
        (Can::Yes, _) => Finding::ok("wireguard", "in the kernel"),
        (Can::No, Can::Yes) => Finding::warning(
            "wireguard",
            "not in the kernel: between hosts the traffic of containers is encrypted by a program, which is slower",
        )
        .mend("`modprobe wireguard`, or a kernel built with CONFIG_WIREGUARD; nothing is needed for one host"),
        (Can::No, Can::No) => Finding::warning(
            "wireguard",
            "neither in the kernel, nor is there TUN for a program to do it: traffic between hosts cannot be encrypted",
        )
        .mend("`modprobe wireguard` or `modprobe tun`, or a kernel built with one of them"),
        _ => unknown("wireguard"),
    });
    findings.push(match facts.tun {
        Can::Yes => Finding::ok("tun", "there"),
        Can::Unknown => unknown("tun"),
        // It is missed only where WireGuard is missing, which says so.
        Can::No => Finding::ok("tun", "not there, and only needed without wireguard"),
    });
    findings.push(match facts.bridge_calls_iptables {
        None => Finding::ok(
            "br_netfilter",
            "bridged traffic does not pass iptables, which is faster",
        ),
        Some(false) => Finding::ok(
            "br_netfilter",
            "there, and bridged traffic does not pass iptables, which is faster",
        ),
        Some(true) => Finding::ok("br_netfilter", "there: bridged traffic passes iptables"),
    });
    findings
}

fn unknown(what: &str) -> Finding {
    Finding::unknown(what, "only root may ask the kernel").mend("run `wharfie doctor` as root")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn all(can: Can) -> Facts {
        Facts {
            release: "6.1.0".to_owned(),
            bridge: can,
            veth: can,
            vxlan: can,
            wireguard: can,
            nftables: can,
            tun: can,
            bridge_calls_iptables: None,
        }
    }

    fn verdict(facts: &Facts, check: &str) -> Verdict {
        let findings = judge(facts);
        let found = findings.iter().find(|f| f.check == check).unwrap();
        assert_eq!(found.verdict == Verdict::Ok, found.mend.is_none());
        found.verdict
    }

    #[test]
    fn a_kernel_that_has_all_is_good() {
        assert!(
            judge(&all(Can::Yes))
                .iter()
                .all(|f| f.verdict == Verdict::Ok)
        );
    }

    #[test]
    fn one_host_needs_less_than_several() {
        let none = all(Can::No);
        assert_eq!(verdict(&none, "bridge"), Verdict::Broken);
        assert_eq!(verdict(&none, "nftables"), Verdict::Broken);
        assert_eq!(verdict(&none, "vxlan"), Verdict::Warning);
        assert_eq!(verdict(&none, "wireguard"), Verdict::Warning);
        assert_eq!(verdict(&none, "tun"), Verdict::Ok);
        assert_eq!(verdict(&all(Can::Unknown), "veth"), Verdict::Unknown);
    }

    #[test]
    fn wireguard_can_be_a_program() {
        let facts = Facts {
            wireguard: Can::No,
            ..all(Can::Yes)
        };
        let said = judge(&facts);
        assert!(
            said.iter()
                .any(|f| f.check == "wireguard" && f.seen.contains("by a program"))
        );
    }

    #[test]
    fn tun_is_what_can_be_opened() {
        assert_eq!(of_tun(Ok(())), Can::Yes);
        assert_eq!(of_tun(Err(io::ErrorKind::PermissionDenied)), Can::Unknown);
        assert_eq!(of_tun(Err(io::ErrorKind::NotFound)), Can::No);
    }
}
