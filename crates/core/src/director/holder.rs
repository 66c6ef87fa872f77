//! Which node holds an address.

use crate::schedule::hash;

/// A node that may hold an address: it answers, and is where the address belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Id.
    pub node: String,
    /// Tasks of the owner that are there and ready.
    pub ready: usize,
    /// Tasks that are to be there.
    pub tasks: usize,
    /// Whether it reaches tasks on other nodes: the network they are on is there too.
    pub reaches: bool,
    /// It is being emptied: only if there is no other.
    pub drained: bool,
}

/// The node that is to hold an address of somebody's; `current` is the one that does, and `elsewhere` the number
/// of ready tasks on nodes that cannot hold it. A move costs those who are connected their connections: as long
/// as the current one leads to a task, it stays.
#[must_use]
pub fn holder(
    owner: &str,
    current: &str,
    candidates: &[Candidate],
    elsewhere: usize,
) -> Option<String> {
    let ready: usize = candidates.iter().map(|c| c.ready).sum();
    // A node that is to have a task may not have its network yet: until then nobody would answer there.
    let others = candidates
        .iter()
        .any(|c| !c.drained && c.tasks > 0 && (ready == 0 || c.ready > 0));
    let good = |c: &Candidate| {
        let leads = match ready + elsewhere {
            0 => c.tasks > 0,
            _ => c.ready > 0 || c.reaches,
        };
        leads && !(c.drained && others)
    };
    let none = candidates.iter().all(|c| c.tasks == 0) && ready == 0;
    let reached = elsewhere > 0 && candidates.iter().any(|c| c.reaches);
    if !current.is_empty() && none && !reached {
        // Where it is to go is about to be decided, or it would lead nowhere from there.
        return Some(current.to_owned());
    }
    let stays = candidates.iter().find(|c| c.node == current);
    if stays.is_some_and(good) {
        return Some(current.to_owned());
    }
    let owner = hash::text(owner);
    let rank = |c: &&Candidate| {
        let drained = c.drained && others;
        let tie = hash::pair(owner, hash::text(&c.node));
        (!drained, c.ready, c.tasks, c.reaches, tie)
    };
    candidates.iter().max_by_key(rank).map(|c| c.node.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: usize, tasks: usize) -> Candidate {
        Candidate {
            node: name.to_owned(),
            ready,
            tasks,
            ..Candidate::default()
        }
    }

    fn chosen(current: &str, of: &[Candidate]) -> String {
        holder("shop/web", current, of, 0).unwrap_or_default()
    }

    #[test]
    fn an_address_is_near_its_tasks() {
        assert_eq!(chosen("", &[node("a", 0, 0), node("b", 0, 1)]), "b");
        assert_eq!(chosen("a", &[node("a", 0, 0), node("b", 1, 1)]), "b");
        assert_eq!(chosen("", &[node("b", 0, 0), node("c", 0, 0)]).len(), 1);
        // Its node is away, and nobody has its tasks yet.
        assert_eq!(chosen("a", &[node("b", 0, 0), node("c", 0, 0)]), "a");
        assert_eq!(holder("x", "", &[], 0), None);
    }

    #[test]
    fn it_is_where_it_leads_to_tasks_that_cannot_have_it_beside_them() {
        let far = |name, reaches| Candidate {
            reaches,
            ..node(name, 0, 0)
        };
        let chosen = |current: &str, of: &[Candidate]| holder("shop/web", current, of, 1).unwrap();
        let (a, b) = (far("a", false), far("b", true));
        // The task is on c, whose cable was pulled.
        assert_eq!(chosen("c", &[a.clone(), b.clone()]), "b");
        assert_eq!(chosen("a", &[a.clone(), b.clone()]), "b");
        assert_eq!(chosen("b", &[far("a", true), b]), "b");
        // Nobody else gets there either.
        assert_eq!(chosen("c", std::slice::from_ref(&a)), "c");
        assert_eq!(chosen("c", &[]), "c");
        assert_eq!(chosen("", &[a]), "a");
    }

    #[test]
    fn it_stays_as_long_as_it_leads_somewhere() {
        assert_eq!(chosen("a", &[node("a", 1, 1), node("b", 2, 2)]), "a");
        // Its container is being started again.
        assert_eq!(chosen("a", &[node("a", 0, 1), node("b", 0, 1)]), "a");
        assert_eq!(chosen("a", &[node("a", 0, 0), node("b", 0, 0)]), "a");
        let far = Candidate {
            reaches: true,
            ..node("a", 0, 1)
        };
        assert_eq!(chosen("a", &[far.clone(), node("b", 1, 1)]), "a");
        let leaving = Candidate {
            drained: true,
            ..far
        };
        assert_eq!(chosen("a", &[leaving.clone(), node("b", 1, 1)]), "b");
        assert_eq!(chosen("a", std::slice::from_ref(&leaving)), "a");
        // The other one has not begun yet, and this one still leads somewhere; then it does, or this one ends.
        let last = Candidate {
            ready: 1,
            ..leaving
        };
        assert_eq!(chosen("a", &[last.clone(), node("b", 0, 1)]), "a");
        assert_eq!(chosen("a", &[last.clone(), node("b", 1, 1)]), "b");
        let ended = Candidate { ready: 0, ..last };
        assert_eq!(chosen("a", &[ended, node("b", 0, 1)]), "b");
    }
}
