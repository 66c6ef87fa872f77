//! Why, in words for people.

use super::choose::Rank;
use super::item::Item;
use super::needs::{ALL, Needs};
use super::pinned::Goal;
use super::placer::{NONE, Placer, UNKNOWN};
use super::room::Refusal;
use super::{Decision, Standing, Verdict};

/// Names that are listed at most.
const NAMES: usize = 5;

/// Bytes, rounded down to a tenth: what is free is not overstated.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut size = 1_u64;
    while unit + 1 < units.len() && bytes / size >= 1024 {
        size *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(size);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    match tenth {
        0 => format!("{whole} {}", units[unit]),
        _ => format!("{whole}.{tenth} {}", units[unit]),
    }
}

/// Thousandths of a processor as processors: `0.5`.
fn cpus(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How many of a resource.
fn amount(amount: i64) -> String {
    match amount {
        ALL => "all".to_owned(),
        amount => amount.to_string(),
    }
}

/// What speaks against a node, with its verb.
pub(super) fn refused(refusal: &Refusal, needs: &Needs) -> String {
    match refusal {
        Refusal::Standing(why) => why.clone(),
        Refusal::Rule(rule) => format!("does not satisfy {rule}"),
        Refusal::Most(most) => format!("has {most} of its tasks, as many as it may"),
        Refusal::Port(port) => format!("has port {port} taken"),
        Refusal::Generic(kind, free, wanted) => {
            format!("has {free} {kind} free, not {}", amount(*wanted))
        }
        Refusal::Cpus(free) => {
            let wanted = cpus(needs.cpus);
            format!("has {} processors free, not {wanted}", cpus(*free))
        }
        Refusal::Memory(free) => {
            let wanted = bytes(needs.memory);
            format!("has {} of memory free, not {wanted}", bytes(*free))
        }
    }
}

/// The same where a headline says already what is missing.
fn briefly(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Standing(why) => why.clone(),
        Refusal::Rule(_) => "does not".to_owned(),
        Refusal::Most(most) => format!("has {most}"),
        Refusal::Port(_) => "has it taken".to_owned(),
        Refusal::Generic(_, free, _) => format!("has {free}"),
        Refusal::Cpus(free) => format!("has {}", cpus(*free)),
        Refusal::Memory(free) => format!("has {}", bytes(*free)),
    }
}

/// What is missing everywhere; none if that differs.
fn headline(refusals: &[(&str, Refusal)], item: &Item<'_>) -> Option<String> {
    let mut able = (refusals.iter().map(|(_, r)| r)).filter(|r| !matches!(r, Refusal::Standing(_)));
    let Some(first) = able.next() else {
        return Some("no node is ready".to_owned());
    };
    let same = able.all(|other| match (first, other) {
        (Refusal::Rule(a), Refusal::Rule(b)) => a == b,
        (Refusal::Port(a), Refusal::Port(b)) => a == b,
        (Refusal::Generic(a, ..), Refusal::Generic(b, ..)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    });
    same.then(|| match first {
        Refusal::Standing(_) => String::new(),
        Refusal::Rule(rule) => format!("no node satisfies {rule}"),
        Refusal::Most(_) => format!("max_replicas_per_node is {}", item.most),
        Refusal::Port(port) => format!("no node has port {port} free"),
        Refusal::Generic(kind, _, wanted) => format!("no node has {} {kind} free", amount(*wanted)),
        Refusal::Cpus(_) => format!("no node has {} processors free", cpus(item.needs.cpus)),
        Refusal::Memory(_) => format!("no node has {} of memory free", bytes(item.needs.memory)),
    })
}

/// Something that is said of one, said of several.
fn plural(said: &str) -> String {
    let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
    match verb {
        "is" => format!("are {rest}"),
        "has" => format!("have {rest}"),
        "does" => format!("do {rest}"),
        _ => said.to_owned(),
    }
}

/// What is said of nodes, those together of whom the same is said: `a, b are drained; c is away`.
fn list(said: &[(&str, String)]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, what) in said {
        match groups.iter_mut().find(|(w, _)| w == what) {
            Some((_, names)) => names.push(name),
            None => groups.push((what, vec![name])),
        }
    }
    let several = groups.iter().any(|(_, names)| names.len() > 1);
    let parts = groups.iter().map(|(what, names)| match names.as_slice() {
        [name] => format!("{name} {what}"),
        names => {
            let shown = names[..names.len().min(NAMES)].join(", ");
            let more = match names.len().saturating_sub(NAMES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{shown}{more} {}", plural(what))
        }
    });
    let parts: Vec<String> = parts.collect();
    parts.join(if several { "; " } else { ", " })
}

/// Why one node is better than the next, with its verb.
pub(super) fn rank(best: Rank, next: Rank, service: &str) -> String {
    if best.apart != next.apart {
        "keeps the stack together".to_owned()
    } else if best.own != next.own {
        format!("has fewest tasks of {service}")
    } else if best.no_image != next.no_image {
        "has the image".to_owned()
    } else if best.tasks != next.tasks {
        "has fewest tasks".to_owned()
    } else {
        "is as good as others".to_owned()
    }
}

impl Placer<'_> {
    /// Notes why tasks of a group wait: for any node, or because of one, of which is said why it
    /// is that one.
    pub(super) fn explain_waiting(&mut self, group: usize, on: Option<(u32, String)>) {
        let Some(mut reasons) = self.reasons.take() else {
            return;
        };
        let g = &self.groups[group];
        for item in g.members.iter().copied() {
            let wanted = &self.items[item];
            let why = match (&wanted.malformed, &on) {
                (Some(wrong), _) => wrong.clone(),
                (None, Some((node, what))) => {
                    let own = self.at[item].iter().filter(|n| *n == node).count() as u32;
                    let name = &self.cluster.node(*node).name;
                    match self.room.refusal(*node, wanted, own) {
                        Some(r) => {
                            let refused = refused(&r, &wanted.needs);
                            format!("node {name}, which {what}, {refused}")
                        }
                        None => continue,
                    }
                }
                (None, None) if g.is_pinned() => self.nowhere(&g.as_one(&self.items), &[]),
                (None, None) => self.nowhere(wanted, &self.at[item]),
            };
            reasons.waits.insert(item, why);
        }
        self.reasons = Some(reasons);
    }

    /// Why no node can take one more task.
    fn nowhere(&self, item: &Item<'_>, at: &[u32]) -> String {
        if let Some(wrong) = &item.malformed {
            return wrong.clone();
        }
        let mut own = vec![0; self.cluster.nodes.len()];
        for node in at.iter().filter(|n| **n < UNKNOWN) {
            own[*node as usize] += 1;
        }
        let nodes = (0..).zip(&self.cluster.nodes).zip(own);
        let mut refusals: Vec<(&str, Refusal)> = nodes
            .filter_map(|((n, node), own)| {
                Some((node.name.as_str(), self.room.refusal(n, item, own)?))
            })
            .collect();
        if refusals.is_empty() {
            return "there is no node".to_owned();
        }
        // First what its own needs leave out, then who is away.
        refusals.sort_by_key(|(name, r)| (matches!(r, Refusal::Standing(_)), *name));
        match headline(&refusals, item) {
            Some(headline) => {
                let said = refusals.iter().map(|(name, r)| (*name, briefly(r)));
                format!("{headline}: {}", list(&said.collect::<Vec<_>>()))
            }
            None => {
                let said = refusals
                    .iter()
                    .map(|(name, r)| (*name, refused(r, &item.needs)));
                format!("no node fits: {}", list(&said.collect::<Vec<_>>()))
            }
        }
    }

    /// Why a task leaves a node.
    fn leaves(&self, group: usize, item: usize, from: u32) -> String {
        if from >= UNKNOWN {
            return "its node is no longer a member".to_owned();
        }
        if let Goal::Node(node, what) = self.goal(group)
            && node != from
        {
            return format!("{what} is on {}", self.cluster.node(node).name);
        }
        let (node, wanted) = (self.cluster.node(from), &self.items[item]);
        let refusal = match &node.standing {
            Standing::Drained => Some(Refusal::Standing("is drained".to_owned())),
            Standing::Gone(why) => Some(Refusal::Standing(why.clone())),
            _ => {
                let own = self.at[item].iter().filter(|n| **n == from).count() as u32;
                let rule = self.room.broken(from, wanted);
                rule.map(|r| Refusal::Rule(r.to_owned()))
                    .or_else(|| self.room.refusal(from, wanted, own))
            }
        };
        match refusal {
            Some(refusal) => format!("{} {}", node.name, refused(&refusal, &wanted.needs)),
            None => format!("{} has no room for all of it", node.name),
        }
    }

    /// What was decided of each task.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        let Some(reasons) = &self.reasons else {
            return Vec::new();
        };
        let mut group_of = vec![0; self.items.len()];
        for (group, g) in self.groups.iter().enumerate() {
            g.members.iter().for_each(|i| group_of[*i] = group);
        }
        let mut decisions = Vec::new();
        for (item, wanted) in self.items.iter().enumerate() {
            let mut decide = |slot: u32, verdict| {
                let service = wanted.name.to_owned();
                decisions.push(Decision {
                    service,
                    slot,
                    verdict,
                });
            };
            let before = self.current.get(wanted.name);
            let blocked = self.blocked[group_of[item]].as_ref();
            let waits = || blocked.or(reasons.waits.get(&item)).cloned();
            for (slot, node) in (1..).zip(&self.at[item]) {
                let was = before.and_then(|b| b.get(&slot));
                let on = match *node {
                    NONE if wanted.global => continue,
                    NONE => None,
                    UNKNOWN => was.cloned(),
                    node => Some(self.cluster.node(node).id.clone()),
                };
                let gone = |on: &String| {
                    let node = self.cluster.index(on).map(|n| self.cluster.node(n));
                    let standing = node.and_then(|n| n.standing.why_not());
                    standing.map(|why| format!("waits for its node, which {why}"))
                };
                let verdict = match (on, was) {
                    (None, _) => Verdict::Waits {
                        on: None,
                        why: waits().unwrap_or_default(),
                    },
                    (Some(on), Some(was)) if on == *was => match blocked {
                        Some(why) => Verdict::Waits {
                            on: Some(on),
                            why: why.clone(),
                        },
                        None => match gone(&on).filter(|_| wanted.global) {
                            Some(why) => Verdict::Waits { on: Some(on), why },
                            None => Verdict::Stays { on },
                        },
                    },
                    (Some(to), Some(from)) => Verdict::Moved {
                        from: from.clone(),
                        why: self.leaves(
                            group_of[item],
                            item,
                            self.cluster.index(from).unwrap_or(UNKNOWN),
                        ),
                        to,
                    },
                    (Some(on), None) => {
                        let why = reasons.chosen.get(&(item, slot)).cloned();
                        let why = why.unwrap_or_else(|| "it runs there".to_owned());
                        Verdict::Chosen { on, why }
                    }
                };
                decide(slot, verdict);
            }
            let lacks = reasons.lacks.iter().filter(|(i, _)| *i == item);
            let free = (1..).filter(|slot| {
                let at = self.at[item].get(*slot as usize - 1);
                at.is_none_or(|n| *n == NONE)
            });
            for ((_, why), slot) in lacks.zip(free) {
                let (on, why) = (None, why.clone());
                decide(slot, Verdict::Waits { on, why });
            }
            if wanted.global
                && let Some(why) = reasons.waits.get(&item)
            {
                let (on, why) = (None, why.clone());
                decide(1, Verdict::Waits { on, why });
            }
        }
        decisions
    }
}
