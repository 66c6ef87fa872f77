//! What is broken on the LAN, and the nftables rules that break it. Pure.
//!
//! The rules live on the bridge, between the hosts, like a bad switch: the hosts' own interfaces
//! stay up, and nothing on a host can tell why nobody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One direction of traffic, seen from the host it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What the host would receive.
    In,
    /// What the host sends.
    Out,
}

/// All faults of a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Hosts and clients cut off from everyone, by direction.
    pub cut: BTreeSet<(String, Direction)>,
    /// Ordered pairs: what the first sends does not reach the second.
    pub apart: BTreeSet<(String, String)>,
    /// Percentage of packets lost, in each direction.
    pub loss: BTreeMap<String, u8>,
}

impl Faults {
    /// Cuts a host off in both directions.
    pub fn cut(&mut self, name: &str) {
        self.cut_one_way(name, Direction::In);
        self.cut_one_way(name, Direction::Out);
    }

    /// Cuts a host off in one direction.
    pub fn cut_one_way(&mut self, name: &str, direction: Direction) {
        self.cut.insert((name.to_owned(), direction));
    }

    /// Parts two hosts in both directions; others reach both.
    pub fn part(&mut self, one: &str, other: &str) {
        self.part_one_way(one, other);
        self.part_one_way(other, one);
    }

    /// What `from` sends does not reach `to`.
    pub fn part_one_way(&mut self, from: &str, to: &str) {
        self.apart.insert((from.to_owned(), to.to_owned()));
    }

    /// Loses this percentage of a host's packets, in each direction; 0 ends it.
    pub fn lose(&mut self, name: &str, percent: u8) {
        if percent == 0 {
            self.loss.remove(name);
        } else {
            self.loss.insert(name.to_owned(), percent.min(100));
        }
    }

    /// Takes away every fault a host has a part in.
    pub fn heal(&mut self, name: &str) {
        self.cut.retain(|(host, _)| host != name);
        self.apart.retain(|(from, to)| from != name && to != name);
        self.loss.remove(name);
    }

    /// What is wrong with a host, in words, for listings.
    pub fn describe(&self, name: &str) -> String {
        let mut words = Vec::new();
        let has = |direction| self.cut.contains(&(name.to_owned(), direction));
        match (has(Direction::In), has(Direction::Out)) {
            (true, true) => words.push("cut".to_owned()),
            (true, false) => words.push("cut in".to_owned()),
            (false, true) => words.push("cut out".to_owned()),
            (false, false) => {}
        }
        for (from, to) in &self.apart {
            if from == name {
                words.push(format!("does not reach {to}"));
            }
        }
        if let Some(percent) = self.loss.get(name) {
            words.push(format!("loses {percent} %"));
        }
        words.join(", ")
    }

    /// The whole table, to be put in place of the former one in a single transaction.
    pub(crate) fn ruleset(&self) -> String {
        const TABLE: &str = "table bridge wharfie_lab";
        let mut rules = String::new();
        for (name, direction) in &self.cut {
            let _ = writeln!(rules, "    {} drop", port(name, *direction));
        }
        for (from, to) in &self.apart {
            let _ = writeln!(rules, "    iifname \"{from}\" oifname \"{to}\" drop");
        }
        for (name, percent) in &self.loss {
            for direction in [Direction::In, Direction::Out] {
                let port = port(name, direction);
                let _ = writeln!(rules, "    {port} numgen random mod 100 < {percent} drop");
            }
        }
        // The router is the bridge itself: what goes there passes input and output, not forward.
        let mut text = format!("{TABLE}\ndelete {TABLE}\n{TABLE} {{\n");
        for hook in ["forward", "input", "output"] {
            let _ = write!(
                text,
                "  chain {hook} {{\n    type filter hook {hook} priority 0\n{rules}  }}\n"
            );
        }
        text + "}\n"
    }
}

/// The match for a host's port of the bridge: what the host sends comes in there.
fn port(name: &str, direction: Direction) -> String {
    match direction {
        Direction::Out => format!("iifname \"{name}\""),
        Direction::In => format!("oifname \"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_faults_no_rules() {
        let ruleset = Faults::default().ruleset();
        assert!(!ruleset.contains("drop"));
        assert!(ruleset.starts_with("table bridge wharfie_lab\ndelete table"));
    }

    #[test]
    fn each_fault_becomes_its_rule() {
        let mut faults = Faults::default();
        faults.cut_one_way("h1", Direction::Out);
        faults.part_one_way("h2", "h3");
        faults.lose("h2", 30);
        let ruleset = faults.ruleset();
        assert!(ruleset.contains("iifname \"h1\" drop"));
        assert!(!ruleset.contains("oifname \"h1\" drop"));
        assert!(ruleset.contains("iifname \"h2\" oifname \"h3\" drop"));
        assert!(ruleset.contains("oifname \"h2\" numgen random mod 100 < 30 drop"));
        assert_eq!(faults.describe("h2"), "does not reach h3, loses 30 %");
    }

    #[test]
    fn healing_takes_every_fault_of_the_host_and_no_other() {
        let mut faults = Faults::default();
        faults.cut("h1");
        faults.cut("h2");
        faults.part("h1", "h3");
        faults.lose("h1", 5);
        faults.heal("h1");
        let mut expected = Faults::default();
        expected.cut("h2");
        assert_eq!(faults, expected);
    }
}
