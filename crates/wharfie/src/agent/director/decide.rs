//! What a node does with the addresses that it holds, decided from plain data: which of them are asked
//! about before they are used, which are told to the neighbours, and how long they stay without an agent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use wharfie_core::director::{Director, Owner, Stand};
use wharfie_core::heal::Millis;
use wharfie_core::network::Node;
use wharfie_core::schedule::Tasks;

/// An address that another node would take over stays for so long without an agent: longer than one takes to
/// start again after it was killed, and long after the others have taken over and told the neighbours.
pub(super) const LASTS: Duration = Duration::from_secs(30);
/// The same after an agent ended in order: for longer than the others wait for it, and start its tasks.
pub(super) const LASTS_LEFT: Duration = Duration::from_secs(90);
/// So long who has just taken over looks whether the host that is away still answers for an address: by
/// then it has none left.
pub(super) const WATCHED: Millis = 120_000;

/// Which node held each address, before this one did.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Holders(BTreeMap<IpAddr, String>);

impl Holders {
    /// Takes note of who holds what now; those that were asked for by no node yet: another machine may
    /// have them. One that another node held until now may be there for a moment.
    pub(super) fn note(&mut self, now: BTreeMap<IpAddr, String>, me: &str) -> BTreeSet<IpAddr> {
        let new = now.keys().filter(|ip| self.of(ip, me).is_none());
        let new = new.copied().collect();
        for (ip, node) in now {
            // What is held here now was another's before, until it is somewhere else.
            if node != me || !self.0.contains_key(&ip) {
                self.0.insert(ip, node);
            }
        }
        new
    }

    /// The other node that held one before.
    pub(super) fn of(&self, ip: &IpAddr, me: &str) -> Option<&str> {
        let node = self.0.get(ip).map(String::as_str);
        node.filter(|node| !node.is_empty() && *node != me)
    }
}

/// An address that is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct On {
    pub(super) device: String,
    /// Since when.
    pub(super) since: Millis,
    /// The node it was taken from, if it was another's.
    pub(super) from: Option<String>,
}

/// The nodes that answer, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) live: BTreeSet<String>,
    pub(super) count: usize,
}

/// Whether the network is asked who has an address.
pub(super) fn is_asked(
    on: Option<&On>,
    (is_new, is_left): (bool, bool),
    (stand, repair, live): (Stand, bool, &BTreeSet<String>),
    now: Millis,
) -> bool {
    let Some(on) = on else {
        // Somebody may have it; who is not sure that it is his does not even take what was moved to him.
        return is_new || is_left || stand == Stand::Back;
    };
    let away = on.from.as_ref().is_some_and(|node| !live.contains(node));
    let watched = repair && away && now - on.since < WATCHED;
    stand != Stand::Sure || watched
}

/// Which of the addresses that are held are told to the neighbours, beside those that are new here.
///
/// Neighbours may still send to a node that held one before and led it on, and that is away now. Of those who
/// are cut off the others may have taken them. And a node that is back still has on its device what it held.
pub(super) fn told<'a>(
    on: &'a BTreeMap<IpAddr, On>,
    before: &Nodes,
    now: &Nodes,
    stand: Stand,
) -> BTreeSet<&'a IpAddr> {
    let gone = before.live.difference(&now.live).next().is_some();
    let lost = gone && 2 * now.live.len() >= now.count;
    let is_back = |node: &String| now.live.contains(node) && !before.live.contains(node);
    let sure = matches!(stand, Stand::Sure | Stand::Half);
    let back = |on: &On| sure && on.from.as_ref().is_some_and(is_back);
    let told = on.iter().filter(|(_, on)| lost || back(on));
    told.map(|(ip, _)| ip).collect()
}

/// Nodes with those last that are back since a moment: nothing is led to their tasks if there are others.
pub(super) fn back_last<'n>(nodes: &'n [Node], back: &BTreeSet<String>) -> Cow<'n, [Node]> {
    if back.is_empty() {
        return Cow::Borrowed(nodes);
    }
    let mut nodes = nodes.to_vec();
    for node in nodes.iter_mut().filter(|n| back.contains(&n.id)) {
        node.drained = true;
    }
    Cow::Owned(nodes)
}

/// How long an address stays if nobody says again that it is to; `tasks` is where the tasks of its stack would be
/// if this node were gone. What nobody else would take stays for ever: its containers go on without an
/// agent, and are reached.
pub(super) fn lasts<'a>(
    (owner, ip): (&Owner, IpAddr),
    me: &str,
    tasks: &Tasks,
    director: &Director,
    mut others: impl Iterator<Item = &'a str>,
) -> Option<Duration> {
    let Owner::Service { service, task, .. } = owner else {
        return None;
    };
    let mut places = tasks.get(service).into_iter().flatten();
    let moves = places.any(|(number, node)| task.is_none_or(|t| t == *number) && *node != me);
    (moves && others.any(|name| director.gives(name, ip))).then_some(LASTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn holders(all: &[(u8, &str)]) -> BTreeMap<IpAddr, String> {
        let all = all.iter();
        all.map(|(last, node)| (ip(*last), (*node).to_owned()))
            .collect()
    }

    fn nodes(live: &[&str], count: usize) -> Nodes {
        let live = live.iter().map(|n| (*n).to_owned()).collect();
        Nodes { live, count }
    }

    fn on(since: Millis, from: Option<&str>) -> On {
        On {
            device: "eth0".to_owned(),
            since,
            from: from.map(str::to_owned),
        }
    }

    #[test]
    fn what_another_node_held_needs_no_asking() {
        let mut seen = Holders::default();
        let new = |seen: &mut Holders, now: &[(u8, &str)]| -> Vec<IpAddr> {
            seen.note(holders(now), "me").into_iter().collect()
        };
        // After a start nothing is known of it, and nobody had what was just given.
        assert_eq!(
            new(&mut seen, &[(1, "me"), (2, "a"), (3, "")]),
            [1, 2, 3].map(ip)
        );
        assert_eq!(
            new(&mut seen, &[(1, "me"), (2, "me"), (3, "me")]),
            [1, 3].map(ip)
        );
        assert_eq!(
            (seen.of(&ip(2), "me"), seen.of(&ip(1), "me")),
            (Some("a"), None)
        );
        assert_eq!(new(&mut seen, &[(1, "b"), (2, "me")]), [ip(1)]);
        assert!(new(&mut seen, &[(1, "me"), (2, "me")]).is_empty());
        assert_eq!(seen.of(&ip(1), "me"), Some("b"));
    }

    #[test]
    fn who_is_not_sure_asks() {
        let live = nodes(&["me", "b"], 3).live;
        let asks = |on: Option<&On>, which, stand, repair, now| {
            is_asked(on, which, (stand, repair, &live), now)
        };
        let (new, left, moved) = ((true, false), (false, true), (false, false));
        assert!(asks(None, new, Stand::Sure, false, 0));
        assert!(asks(None, left, Stand::Sure, false, 0));
        assert!(
            !asks(None, moved, Stand::Sure, true, 0),
            "a take-over does not wait"
        );
        assert!(!asks(None, moved, Stand::Half, true, 0));
        assert!(asks(None, moved, Stand::Back, false, 0));
        let held = on(0, None);
        assert!(!asks(Some(&held), new, Stand::Sure, true, 5));
        for stand in [Stand::Half, Stand::Few, Stand::Back] {
            assert!(asks(Some(&held), new, stand, false, 5));
        }
        // Of a host that is away the agent may have gone alone.
        let taken = on(0, Some("a"));
        assert!(asks(Some(&taken), moved, Stand::Sure, true, 5));
        assert!(!asks(Some(&taken), moved, Stand::Sure, false, 5));
        assert!(!asks(Some(&taken), moved, Stand::Sure, true, WATCHED));
        assert!(!asks(Some(&on(0, Some("b"))), moved, Stand::Sure, true, 5));
    }

    #[test]
    fn neighbours_are_told_when_nodes_come_and_go() {
        let held: BTreeMap<IpAddr, On> = [(ip(1), on(0, None)), (ip(2), on(0, Some("a")))].into();
        let says = |before: &[&str], now: &[&str], stand| {
            let (before, now) = (nodes(before, 3), nodes(now, 3));
            told(&held, &before, &now, stand).len()
        };
        let (all, two, one) = (["me", "a", "b"], ["me", "b"], ["me"]);
        assert_eq!(says(&all, &all, Stand::Sure), 0);
        // Another one led it on.
        assert_eq!(says(&all, &two, Stand::Sure), 2);
        // This one is cut off.
        assert_eq!(says(&two, &one, Stand::Few), 0);
        // Who held it is back, and may not have heard.
        assert_eq!(says(&two, &all, Stand::Sure), 1);
        assert_eq!(says(&["me", "a"], &all, Stand::Sure), 0);
        // This one is back.
        assert_eq!(says(&one, &all, Stand::Back), 0);
    }

    #[test]
    fn what_nobody_would_take_stays() {
        let range = wharfie_core::director::Ranges {
            range: "192.0.2.1-192.0.2.9".parse().unwrap(),
            node: String::new(),
        };
        let mut director = Director {
            ranges: vec![range],
            ..Director::default()
        };
        let tasks = |all: &[(u32, &str)]| -> Tasks {
            let all = all.iter().map(|(n, node)| (*n, (*node).to_owned()));
            [("web".to_owned(), all.collect())].into()
        };
        let owner = Owner::service("shop", "web");
        let says = |owner: &Owner, all: &[(u32, &str)], director: &Director| {
            let others = ["h2", "h3"].into_iter();
            lasts((owner, ip(1)), "me", &tasks(all), director, others)
        };
        assert_eq!(says(&owner, &[(1, "b")], &director), Some(LASTS));
        assert_eq!(says(&owner, &[(1, "me"), (2, "b")], &director), Some(LASTS));
        // Its volume is here, or all others are away.
        assert_eq!(says(&owner, &[(1, "me")], &director), None);
        assert_eq!(says(&owner, &[], &director), None);
        let second = Owner::Service {
            stack: "shop".to_owned(),
            service: "web".to_owned(),
            task: Some(2),
        };
        assert_eq!(says(&second, &[(1, "b"), (2, "me")], &director), None);
        assert_eq!(says(&second, &[(2, "b")], &director), Some(LASTS));
        let own = Owner::Container {
            node: "me".to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!(says(&own, &[(1, "b")], &director), None);
        director.ranges[0].node = "h1".to_owned();
        assert_eq!(says(&owner, &[(1, "b")], &director), None);
    }
}
