//! Docker's filter lets in what we publish.
//!
//! Docker drops what it did not publish itself (its chain `FORWARD`, by policy or, since Engine 28, by
//! rule), and what other tables accept does not help against that. `DOCKER-USER` is the chain that it
//! leaves to others (<https://docs.docker.com/engine/network/packet-filtering-firewalls/>): there we
//! accept connections to our bridges whose destination was replaced, and those that the
//! [`Redirector`](super::Redirector) marked, to any bridge. Rules of the user's in it come first.

use wharfie_core::network::BRIDGES;

use super::lan::{MARK, MARK_MASK};
use super::nft::{Expr, Family, Foreign, Rule, TableId, Verdict};
use super::{Error, Namespace};

const CHAIN: &str = "DOCKER-USER";

/// `struct xt_conntrack_mtinfo3` (`linux/netfilter/xt_conntrack.h`), rounded up to 8 bytes.
const CONNTRACK_SIZE: usize = 168;
const MATCH_FLAGS: usize = 146;
const STATE_MASK: usize = 150;
/// `XT_CONNTRACK_STATE`
const MATCH_STATE: u16 = 1;
/// `XT_CONNTRACK_STATE_DNAT`
const STATE_DNAT: u16 = 1 << 7;

/// `struct xt_connmark_mtinfo1` (`linux/netfilter/xt_connmark.h`), rounded up to 8 bytes.
const CONNMARK_SIZE: usize = 16;

/// What our rules are called for whoever lists them, and known by.
const PUBLISHED: &str = "published by the cluster";
const REDIRECTED: &str = "led on by the cluster";

/// A gate of one host: each has its own rule, and leaves the other's alone.
pub struct Gate {
    v4: Foreign,
    v6: Foreign,
    rule: Rule,
    namespace: Namespace,
}

impl Gate {
    /// That of published ports: for connections to our bridges.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Self::with(host, published(), PUBLISHED)
    }

    /// That of addresses on the LAN: for what the [`Redirector`](super::Redirector) leads on,
    /// whichever bridges the containers are on.
    pub fn for_redirected(host: &Namespace) -> Result<Self, Error> {
        Self::with(host, redirected(), REDIRECTED)
    }

    fn with(host: &Namespace, rule: Rule, note: &'static str) -> Result<Self, Error> {
        let table = |family| TableId {
            family,
            name: "filter",
        };
        Ok(Self {
            v4: Foreign::open(host, table(Family::Ip), CHAIN, note)?,
            v6: Foreign::open(host, table(Family::Ip6), CHAIN, note)?,
            rule: rule.counter().verdict(Verdict::Accept).note(note),
            namespace: host.clone(),
        })
    }

    /// Opens it, if there is one; repairs what others changed. Says whether packets get through: not where
    /// an old iptables filters them, which cannot be told.
    pub fn set_open(&mut self, open: bool) -> Result<bool, Error> {
        let wanted = open.then_some(&self.rule);
        let v4 = self.v4.set(wanted)?;
        self.v6.set(wanted)?;
        Ok(v4 || !self.has_old_filter())
    }

    /// Whether the kernel's first iptables has a filter (`ip_tables`, not `nf_tables`).
    fn has_old_filter(&self) -> bool {
        let names = self.namespace.inside("read the names of tables", || {
            std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        });
        names.is_ok_and(|names| names.lines().any(|line| line == "filter"))
    }
}

/// `-o wbr+ -m conntrack --ctstate DNAT -j ACCEPT`
fn published() -> Rule {
    let mut info = vec![0; CONNTRACK_SIZE];
    info[MATCH_FLAGS..][..2].copy_from_slice(&MATCH_STATE.to_ne_bytes());
    info[STATE_MASK..][..2].copy_from_slice(&STATE_DNAT.to_ne_bytes());
    let state = Expr::Extension {
        name: "conntrack",
        revision: 3,
        info,
    };
    Rule::new()
        .out_interface(&format!("{BRIDGES}*"))
        .step(state)
}

/// `-m connmark --mark 0x57440000/0xffff0000 -j ACCEPT`
fn redirected() -> Rule {
    let mut info = vec![0; CONNMARK_SIZE]; // behind mark and mask: whether all others are meant
    info[..4].copy_from_slice(&MARK.to_ne_bytes());
    info[4..8].copy_from_slice(&MARK_MASK.to_ne_bytes());
    Rule::new().step(Expr::Extension {
        name: "connmark",
        revision: 1,
        info,
    })
}

/// Removes the rules.
pub(crate) fn remove(namespace: &Namespace) -> Result<(), Error> {
    Gate::open(namespace)?.set_open(false)?;
    Gate::for_redirected(namespace)?.set_open(false).map(drop)
}
