//! The underlay address of a node: what packets between its containers and others' have on the
//! outside, there and back. Each node chooses its own, among those that its host really has, and
//! tells it to the others; they take it as it is told.

use std::net::IpAddr;

/// Of so many nodes at most, more than half have to be linked to an address before it is kept.
const ENOUGH: usize = 5;

/// What a node knows of where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Named by the setting `network-address`.
    pub told: Option<IpAddr>,
    /// All addresses of the host.
    pub here: Vec<IpAddr>,
    /// Those of them that other nodes may be told of.
    pub open: Vec<IpAddr>,
    /// Where other nodes are told to look for this one; behind NAT the host does not have it.
    pub advertised: Vec<IpAddr>,
    /// This host's end of each connection that there is to another node.
    pub reached: Vec<IpAddr>,
    /// How many other nodes there are.
    pub others: usize,
    /// What was chosen before because nodes were reached there.
    pub kept: Option<IpAddr>,
}

/// The choice of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Underlay {
    /// The address; none if the host has none that is of use.
    pub address: Option<IpAddr>,
    /// Whether it stays the choice for as long as the host has it, whatever addresses come.
    pub stays: bool,
}

/// The address of a node. All nodes should come to addresses of one family, so IPv4 goes first.
#[must_use]
pub fn choose(known: &Known) -> Underlay {
    let is_open = |a: &&IpAddr| known.open.contains(a);
    let said = || known.advertised.iter().find(|a| known.here.contains(a));
    if let Some(address) = known.told.as_ref().or_else(said) {
        return Underlay {
            address: Some(*address),
            stays: false,
        };
    }
    let v4 = |all: &[IpAddr]| -> Vec<IpAddr> {
        let all = all.iter().filter(is_open);
        all.filter(|a| a.is_ipv4()).copied().collect()
    };
    // The one at which most others are linked.
    let reached = v4(&known.reached);
    let count = |a: &IpAddr| reached.iter().filter(|r| *r == a).count();
    let most = reached
        .iter()
        .max_by_key(|a| (count(a), std::cmp::Reverse(**a)));
    let kept = known.kept.as_ref().filter(is_open);
    // The first link may be by an address that the next ones are not by. In large clusters a node has few.
    let is_proven = most.is_some_and(|most| count(most) * 2 > known.others.min(ENOUGH));
    let proven = kept.or(most);
    let any = || {
        let (v4, v6) = (v4(&known.open), known.reached.iter().find(is_open));
        v4.first().or(v6).or(known.open.first()).copied()
    };
    Underlay {
        address: proven.copied().or_else(any),
        stays: kept.is_some() || is_proven,
    }
}

/// Why nothing passes between a node and others, if so; in words for the user. `others` are the
/// other nodes' names with their addresses.
#[must_use]
pub fn fault(
    known: &Known,
    (name, own): (&str, Option<IpAddr>),
    others: &[(&str, IpAddr)],
) -> Option<String> {
    let Some(own) = own else {
        return Some(
            "containers here and on other nodes do not reach each other: this host has no address that others can send to; name one by the setting `network-address`".to_owned(),
        );
    };
    // Anything else was chosen among those of the host.
    if known.told.is_some() && !known.here.contains(&own) {
        let open: Vec<String> = known.open.iter().map(ToString::to_string).collect();
        let open = match open.is_empty() {
            true => "none".to_owned(),
            false => open.join(", "),
        };
        return Some(format!(
            "containers here and on other nodes do not reach each other: `network-address` is {own}, which is no address of this host; it has {open}"
        ));
    }
    let same = others.iter().filter(|(_, address)| *address == own);
    let same: Vec<&str> = same.map(|(name, _)| *name).collect();
    (!same.is_empty()).then(|| {
        format!(
            "containers of {name} and {} do not reach each other, nor do others reach them all: each of these nodes sends from {own}; give each an address that the others reach, by the setting `network-address`",
            same.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<IpAddr> {
        text.split_whitespace()
            .map(|a| a.parse().unwrap())
            .collect()
    }

    fn one(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// A host with an address that all hosts have, and a lower one than that which is of use.
    fn known() -> Known {
        let open = all("10.0.2.15 192.168.56.10 fd00::1");
        Known {
            here: open.clone(),
            open,
            ..Known::default()
        }
    }

    #[test]
    fn it_is_where_others_reach_the_node() {
        let mut known = known();
        let chosen = choose(&known);
        assert_eq!((chosen.address, chosen.stays), (one("10.0.2.15"), false));
        known.others = 3;
        known.reached = all("192.168.56.10");
        let chosen = choose(&known);
        assert_eq!(
            (chosen.address, chosen.stays),
            (one("192.168.56.10"), false)
        );
        known.reached = all("192.168.56.10 192.168.56.10");
        let chosen = choose(&known);
        assert_eq!((chosen.address, chosen.stays), (one("192.168.56.10"), true));
        known.reached = all("192.168.56.10 10.0.2.15 192.168.56.10");
        assert_eq!(choose(&known).address, one("192.168.56.10"));
        // What is a service's, or gone, is not among those that are open.
        known.reached = all("192.168.56.99");
        assert_eq!(choose(&known).address, one("10.0.2.15"));
    }

    #[test]
    fn it_stays_while_the_host_has_it() {
        let mut known = known();
        known.kept = one("192.168.56.10");
        // Somebody comes by a VPN that is new.
        known.open.insert(0, "10.0.0.1".parse().unwrap());
        known.reached = all("10.0.0.1 10.0.0.1");
        let chosen = choose(&known);
        assert_eq!((chosen.address, chosen.stays), (one("192.168.56.10"), true));
        known.open.retain(|a| Some(*a) != known.kept);
        assert_eq!(choose(&known).address, one("10.0.0.1"));
    }

    #[test]
    fn ipv6_is_for_hosts_that_have_nothing_else() {
        let mut known = known();
        known.reached = all("fd00::1");
        assert_eq!(choose(&known).address, one("10.0.2.15"));
        known.open = all("fd00::1 fd00::2");
        known.reached = all("fd00::2");
        assert_eq!(choose(&known).address, one("fd00::2"));
        assert_eq!(choose(&Known::default()), Underlay::default());
    }

    #[test]
    fn what_is_named_counts_and_nat_is_not_the_host() {
        let mut known = known();
        known.kept = one("10.0.2.15");
        known.advertised = all("203.0.113.7");
        assert_eq!(choose(&known).address, one("10.0.2.15"));
        known.advertised = all("203.0.113.7 192.168.56.10");
        assert_eq!(choose(&known).address, one("192.168.56.10"));
        known.told = one("192.168.56.11");
        assert_eq!(choose(&known).address, one("192.168.56.11"));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let known = Known {
            told: one("192.168.56.11"),
            ..known()
        };
        let others = [
            ("h2", "10.0.2.15".parse().unwrap()),
            ("h3", "192.168.56.12".parse().unwrap()),
        ];
        let said = |own: Option<IpAddr>| fault(&known, ("h1", own), &others);
        assert_eq!(said(one("192.168.56.10")), None);
        assert!(said(one("10.0.2.15")).unwrap().contains("of h1 and h2 do"));
        let foreign = said(one("192.168.56.11")).unwrap();
        assert!(
            foreign.contains("is 192.168.56.11, which is no address of this host"),
            "{foreign}"
        );
        assert!(foreign.contains("10.0.2.15, 192.168.56.10"), "{foreign}");
        assert!(said(None).unwrap().contains("no address that others"));
    }
}
