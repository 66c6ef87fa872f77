//! A table in the kernel that is kept as it should be.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::super::netlink::Socket;
use super::super::{Error, Namespace};
use super::batch;
use super::change::{self, Op};
use super::dump::{self, Counted};
use super::rule::Rule;
use super::table::{Chain, Key, Table, TableId, Value};

/// A table of one namespace, with what was last written: a change costs what changes, whatever
/// else the table has.
pub(crate) struct Live {
    socket: Socket,
    id: TableId<'static>,
    /// What is in the kernel, as far as we know. Nothing is known at first, when an earlier run
    /// may have left a table.
    known: Option<Table>,
    /// The generation of nftables after our last change. While it is that, nobody else has
    /// changed anything.
    generation: Option<u32>,
}

/// A socket for nftables and conntrack.
pub(crate) fn connect(namespace: &Namespace) -> Result<Socket, Error> {
    Socket::open(namespace, NETLINK_NETFILTER)
}

impl Live {
    pub(crate) fn open(namespace: &Namespace, id: TableId<'static>) -> Result<Self, Error> {
        Ok(Self {
            socket: connect(namespace)?,
            id,
            known: None,
            generation: None,
        })
    }

    /// What was last written.
    pub(crate) fn known(&self) -> Option<&Table> {
        self.known.as_ref()
    }

    /// Makes the table what it should be, in one transaction, and repairs what others did to it.
    /// Says whether anything had to be done.
    pub(crate) fn set(&mut self, wanted: Table) -> Result<bool, Error> {
        if self.is_intact()? {
            let known = self.known.as_ref();
            let Some(ops) = known.and_then(|known| change::difference(known, &wanted)) else {
                return self.make_anew(wanted).map(|()| true);
            };
            return self.carry_out(&ops);
        }
        // An earlier run may have left just this: counters then go on counting.
        let before = dump::generation(&mut self.socket)?;
        if dump::is_as_written(&mut self.socket, self.id, &wanted)? {
            self.generation = Some(before);
            self.known = Some(wanted);
            return Ok(false);
        }
        self.make_anew(wanted)?;
        Ok(true)
    }

    /// Makes some changes, in one transaction. Says whether there were any.
    pub(crate) fn edit(
        &mut self,
        changes: impl FnOnce(&mut Edit<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let Some(table) = &self.known else {
            let words = format!("the table {} must be written before it is changed", self.id);
            return Err(Error::Invalid(words));
        };
        let mut edit = Edit {
            table,
            ops: Vec::new(),
        };
        changes(&mut edit)?;
        let ops = edit.ops;
        self.carry_out(&ops)
    }

    fn carry_out(&mut self, ops: &[Op]) -> Result<bool, Error> {
        if ops.is_empty() {
            return Ok(false);
        }
        let before = dump::generation(&mut self.socket)?;
        match batch::commit(&mut self.socket, self.id, ops) {
            Ok(()) => {
                change::apply(ops, self.known.get_or_insert_default());
                self.take_note(before)?;
                Ok(true)
            }
            // Something is not as we left it: others were here. Or a set is full.
            Err(error)
                if [Errno::NOENT, Errno::EXIST, Errno::BUSY, Errno::NFILE]
                    .iter()
                    .any(|no| error.is(*no)) =>
            {
                let mut wanted = self.known.take().unwrap_or_default();
                change::apply(ops, &mut wanted);
                self.make_anew(wanted)?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn make_anew(&mut self, wanted: Table) -> Result<(), Error> {
        dump::is_there(&mut self.socket, self.id)?; // refuses to replace someone else's
        let before = dump::generation(&mut self.socket)?;
        batch::commit(&mut self.socket, self.id, &change::anew(&wanted))?;
        self.known = Some(wanted);
        self.take_note(before)
    }

    fn take_note(&mut self, before: u32) -> Result<(), Error> {
        let after = dump::generation(&mut self.socket)?;
        // If it is more, someone else changed something as well: then we look more closely.
        self.generation = (after == before.wrapping_add(1)).then_some(after);
        Ok(())
    }

    /// Whether the table is as it was last written.
    pub(crate) fn is_intact(&mut self) -> Result<bool, Error> {
        let Some(known) = &self.known else {
            return Ok(false);
        };
        let now = dump::generation(&mut self.socket)?;
        if self.generation == Some(now) {
            return Ok(true);
        }
        let is_intact = dump::is_as_written(&mut self.socket, self.id, known)?;
        if is_intact {
            self.generation = Some(now);
        }
        Ok(is_intact)
    }

    /// What the rules counted.
    pub(crate) fn counted(&mut self) -> Result<Vec<Counted>, Error> {
        dump::counted(&mut self.socket, self.id)
    }

    /// Removes the table, if it is there.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        self.known = None;
        if dump::is_there(&mut self.socket, self.id)? {
            batch::commit(&mut self.socket, self.id, &[Op::Table, Op::DropTable])?;
        }
        Ok(())
    }
}

/// Changes of a table, gathered to be made at once. What is as wanted already is left out.
pub(crate) struct Edit<'a> {
    table: &'a Table,
    ops: Vec<Op>,
}

impl Edit<'_> {
    /// The table before all this.
    pub(crate) fn table(&self) -> &Table {
        self.table
    }

    /// Makes a chain without a hook, or changes the rules of any.
    pub(crate) fn rules(&mut self, chain: &str, rules: &[Rule]) {
        let known = self.table.chains.get(chain);
        if known.is_some_and(|known| known.rules == rules) {
            return;
        }
        match known {
            None => self.ops.push(Op::Chain(chain.to_owned(), Chain::default())),
            Some(known) if !known.rules.is_empty() => self.ops.push(Op::Clear(chain.to_owned())),
            Some(_) => {}
        }
        let rules = rules
            .iter()
            .map(|rule| Op::Rule(chain.to_owned(), rule.clone()));
        self.ops.extend(rules);
    }

    /// Makes these the elements of a set whose keys begin so.
    pub(crate) fn part(&mut self, set: &str, prefix: &[u8], wanted: &BTreeMap<Key, Value>) {
        let known = self.table.sets.get(set);
        let known: BTreeMap<&Key, &Value> = known
            .map(|set| set.part(prefix).collect())
            .unwrap_or_default();
        let gone = known
            .iter()
            .filter(|(key, value)| wanted.get(key) != Some(value));
        let gone: Vec<Key> = gone.map(|(key, _)| (*key).clone()).collect();
        let come = wanted
            .iter()
            .filter(|(key, value)| known.get(key) != Some(value));
        let come: Vec<_> = come
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !gone.is_empty() {
            self.ops.push(Op::Remove(set.to_owned(), gone));
        }
        if !come.is_empty() {
            self.ops.push(Op::Add(set.to_owned(), come));
        }
    }

    /// Puts an element into a set, or another value to its key.
    pub(crate) fn put(&mut self, set: &str, key: impl Into<Key>, value: Value) {
        let key = key.into();
        match self
            .table
            .sets
            .get(set)
            .and_then(|set| set.elements.get(&key))
        {
            Some(known) if *known == value => return,
            Some(_) => self.ops.push(Op::Remove(set.to_owned(), vec![key.clone()])),
            None => {}
        }
        self.ops.push(Op::Add(set.to_owned(), vec![(key, value)]));
    }

    /// Takes an element out of a set.
    pub(crate) fn take(&mut self, set: &str, key: impl Into<Key>) {
        let key = key.into();
        let known = self.table.sets.get(set);
        if known.is_some_and(|known| known.elements.contains_key(&key)) {
            self.ops.push(Op::Remove(set.to_owned(), vec![key]));
        }
    }
}

/// All tables with our mark in a namespace; their names.
pub(crate) fn all(namespace: &Namespace) -> Result<Vec<String>, Error> {
    let mut socket = connect(namespace)?;
    let ours = dump::ours(&mut socket)?.into_iter();
    let names = ours.map(|(family, name)| {
        let name = name.as_str();
        TableId { family, name }.to_string()
    });
    Ok(names.collect())
}

/// Removes all tables with our mark from a namespace; their names.
pub(crate) fn remove(namespace: &Namespace) -> Result<Vec<String>, Error> {
    let mut socket = connect(namespace)?;
    let mut removed = Vec::new();
    for (family, name) in dump::ours(&mut socket)? {
        let id = TableId {
            family,
            name: &name,
        };
        batch::commit(&mut socket, id, &[Op::Table, Op::DropTable])?;
        removed.push(id.to_string());
    }
    Ok(removed)
}
