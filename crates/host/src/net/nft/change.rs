//! Changes of a table: what makes one out of another, and one change after another.

use std::collections::BTreeMap;

use super::rule::Rule;
use super::table::{Chain, Key, Set, Table, TableId, Value};

/// One change. Chains and sets are made empty: rules and elements refer to them, so they follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Makes the table; nothing happens if it is there.
    Table,
    DropTable,
    /// Makes the chain; of one that is there the policy may change.
    Chain(String, Chain),
    DropChain(String),
    Set(String, Set),
    DropSet(String),
    Add(String, Vec<(Key, Value)>),
    Remove(String, Vec<Key>),
    /// Takes all rules out of a chain.
    Clear(String),
    Rule(String, Rule),
    /// In a chain of others: puts a rule before the one with the handle, or at the end.
    Insert(String, Rule, Option<u64>),
    /// In a chain of others: removes the rule with the handle.
    Delete(String, u64),
}

impl Op {
    pub(super) fn describe(&self, table: TableId<'_>) -> String {
        match self {
            Self::Table | Self::DropTable => format!("the table {table}"),
            Self::Chain(name, _) | Self::DropChain(name) => {
                format!("the chain {name} of table {table}")
            }
            Self::Set(name, _) | Self::DropSet(name) => format!("the set {name} of table {table}"),
            Self::Add(name, elements) => {
                format!(
                    "{} elements for the set {name} of table {table}",
                    elements.len()
                )
            }
            Self::Remove(name, keys) => {
                let count = keys.len();
                format!("the removal of {count} elements from the set {name} of table {table}")
            }
            Self::Clear(name) => {
                format!("the removal of the rules of chain {name} of table {table}")
            }
            Self::Delete(name, _) => format!("a rule of chain {name} of table {table}"),
            Self::Rule(name, rule) | Self::Insert(name, rule, _) => {
                format!(
                    "the rule {:?} of chain {name} of table {table}",
                    rule.comment()
                )
            }
        }
    }
}

/// The changes that make `new` out of `old`, or none if that takes a new table.
pub(super) fn difference(old: &Table, new: &Table) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            Some(known) if known.hook == chain.hook => {}
            Some(known) => {
                // Of a chain that is there only the policy can be changed.
                let (known, wanted) = (known.hook?, chain.hook?);
                if known.policy(wanted.policy) != wanted {
                    return None;
                }
                ops.push(Op::Chain(name.clone(), chain.clone()));
            }
            None => ops.push(Op::Chain(name.clone(), chain.clone())),
        }
    }
    let kept = |name: &String| new.chains.get(name).map(|chain| &chain.rules);
    let cleared = old
        .chains
        .iter()
        .filter(|(name, chain)| !chain.rules.is_empty() && kept(name) != Some(&chain.rules));
    ops.extend(cleared.map(|(name, _)| Op::Clear(name.clone())));
    let mut contents = Vec::new();
    for (name, set) in &new.sets {
        match old.sets.get(name) {
            Some(known) if !known.same_kind(set) => return None,
            Some(known) if known.is_too_small_for(set) => return None,
            Some(known) => contents.extend(elements(name, known, set)),
            None => {
                ops.push(Op::Set(name.clone(), set.with_room()));
                contents.extend(additions(name, set.elements.clone()));
            }
        }
    }
    // Rules before elements: for each rule that uses a map the kernel goes through all of it.
    for (name, chain) in &new.chains {
        if old.chains.get(name).map(|known| &known.rules) != Some(&chain.rules) {
            let rule = |rule: &Rule| Op::Rule(name.clone(), rule.clone());
            ops.extend(chain.rules.iter().map(rule));
        }
    }
    ops.append(&mut contents);
    // Sets first: what leads from them to a chain keeps the chain.
    let gone = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
    ops.extend(gone.map(|name| Op::DropSet(name.clone())));
    let gone = old
        .chains
        .keys()
        .filter(|name| !new.chains.contains_key(*name));
    ops.extend(gone.map(|name| Op::DropChain(name.clone())));
    Some(ops)
}

/// The changes that make a table anew, whatever is there.
pub(super) fn anew(table: &Table) -> Vec<Op> {
    // It is made first, because one that is not there cannot be removed.
    let mut ops = vec![Op::Table, Op::DropTable, Op::Table];
    ops.extend(difference(&Table::default(), table).unwrap_or_default());
    ops
}

fn elements(name: &str, old: &Set, new: &Set) -> Vec<Op> {
    let differs = |other: &Set, key: &Key, value: &Value| other.elements.get(key) != Some(value);
    let gone = old
        .elements
        .iter()
        .filter(|(key, value)| differs(new, key, value));
    let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
    let come = new
        .elements
        .iter()
        .filter(|(key, value)| differs(old, key, value));
    let removal = (!gone.is_empty()).then(|| Op::Remove(name.to_owned(), gone));
    let added = additions(name, come.map(|(key, value)| (key.clone(), value.clone())));
    removal.into_iter().chain(added).collect()
}

fn additions(name: &str, elements: impl IntoIterator<Item = (Key, Value)>) -> Option<Op> {
    let elements: Vec<_> = elements.into_iter().collect();
    (!elements.is_empty()).then(|| Op::Add(name.to_owned(), elements))
}

/// Makes the changes in the value as they were made in the kernel.
pub(super) fn apply(ops: &[Op], table: &mut Table) {
    for op in ops {
        match op {
            Op::Table => {}
            Op::DropTable => *table = Table::default(),
            Op::Chain(name, chain) => {
                table.chains.entry(name.clone()).or_default().hook = chain.hook;
            }
            Op::DropChain(name) => drop(table.chains.remove(name)),
            Op::Set(name, set) => {
                let elements = BTreeMap::new();
                let set = Set {
                    elements,
                    key: set.key.clone(),
                    data: set.data.clone(),
                    ..*set
                };
                table.sets.insert(name.clone(), set);
            }
            Op::DropSet(name) => drop(table.sets.remove(name)),
            Op::Add(name, elements) => {
                if let Some(set) = table.sets.get_mut(name) {
                    set.elements.extend(elements.iter().cloned());
                }
            }
            Op::Remove(name, keys) => {
                if let Some(set) = table.sets.get_mut(name) {
                    keys.iter().for_each(|key| drop(set.elements.remove(key)));
                }
            }
            Op::Clear(name) => {
                if let Some(chain) = table.chains.get_mut(name) {
                    chain.rules.clear();
                }
            }
            Op::Rule(name, rule) => {
                table
                    .chains
                    .entry(name.clone())
                    .or_default()
                    .rules
                    .push(rule.clone());
            }
            // Chains of others are no part of it.
            Op::Insert(..) | Op::Delete(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::Type;
    use super::super::table::{At, Hook, Policy};
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        let hook = Some(Hook::filter(At::Input, 0));
        let rules = vec![Rule::new().counter(), Rule::new().accept()];
        table.chains.insert("in".into(), Chain { hook, rules });
        table
            .sets
            .insert("ports".into(), Set::of([Type::Port]).with([vec![0, 80]]));
        table
    }

    #[test]
    fn differences_make_one_out_of_the_other() {
        let old = table();
        assert_eq!(difference(&old, &old), Some(Vec::new()));
        let mut new = old.clone();
        new.sets
            .insert("more".into(), Set::of([Type::Ip4]).with([vec![1, 2, 3, 4]]));
        new.sets
            .get_mut("ports")
            .unwrap()
            .elements
            .insert(vec![0, 81].into(), Value::None);
        new.chains.insert("side".into(), Chain::default());
        new.chains.get_mut("in").unwrap().rules.pop();
        for (from, to) in [(&old, &new), (&new, &old), (&Table::default(), &new)] {
            let mut made = from.clone();
            apply(&difference(from, to).unwrap(), &mut made);
            assert_eq!(&made, to);
        }
        let mut made = old;
        apply(&anew(&new), &mut made);
        assert_eq!(made, new);
    }

    #[test]
    fn only_what_differs_is_sent() {
        let old = table();
        let mut new = old.clone();
        let ports = &mut new.sets.get_mut("ports").unwrap().elements;
        ports.clear();
        ports.insert(vec![1, 187].into(), Value::None);
        let expected = [
            Op::Remove("ports".into(), vec![vec![0, 80].into()]),
            Op::Add("ports".into(), vec![(vec![1, 187].into(), Value::None)]),
        ];
        assert_eq!(difference(&old, &new).unwrap(), expected);
    }

    #[test]
    fn a_policy_changes_in_place_and_a_hook_does_not() {
        let old = table();
        let mut new = old.clone();
        let chain = new.chains.get_mut("in").unwrap();
        chain.hook = chain.hook.map(|hook| hook.policy(Policy::Drop));
        let ops = difference(&old, &new).unwrap();
        assert!(
            matches!(&ops[..], [Op::Chain(name, _)] if name == "in"),
            "{ops:?}"
        );
        new.chains.get_mut("in").unwrap().hook = Some(Hook::filter(At::Output, 0));
        assert_eq!(difference(&old, &new), None);
    }
}
