//! One rule of ours in a chain that somebody else made, as the chain's owner wishes it to be used.

use super::super::netlink::Socket;
use super::super::{Error, Namespace};
use super::batch;
use super::change::Op;
use super::dump::{self, Listed};
use super::rule::Rule;
use super::table::TableId;
use super::{MARK, connect};

/// A chain of somebody else's, and what the comment of our rule in it begins with: the chain may
/// have others of ours.
pub(crate) struct Foreign {
    socket: Socket,
    table: TableId<'static>,
    chain: &'static str,
    note: &'static str,
}

/// Whether it is any rule of ours.
fn is_any(rule: &Listed) -> bool {
    rule.comment.contains(&format!("({MARK} "))
}

impl Foreign {
    pub(crate) fn open(
        namespace: &Namespace,
        table: TableId<'static>,
        chain: &'static str,
        note: &'static str,
    ) -> Result<Self, Error> {
        let socket = connect(namespace)?;
        Ok(Self {
            socket,
            table,
            chain,
            note,
        })
    }

    fn is_ours(&self, rule: &Listed) -> bool {
        rule.comment.starts_with(&format!("{} ({MARK} ", self.note))
    }

    /// Has the rule in the chain once, and none other of this note: behind all rules of others but a last one
    /// that only returns. Without a rule there is none of it. Says whether the chain is there.
    pub(crate) fn set(&mut self, wanted: Option<&Rule>) -> Result<bool, Error> {
        let Some(rules) = dump::rules_of(&mut self.socket, self.table, self.chain)? else {
            return Ok(false);
        };
        let mut others = rules.iter().enumerate().filter(|(_, rule)| !is_any(rule));
        let last = others.next_back().filter(|(_, rule)| rule.only_returns);
        let (end, before) = last.map_or((rules.len(), None), |(at, rule)| (at, Some(rule.handle)));
        let comment = wanted.map(Rule::comment);
        let mut is_there = false;
        let mut ops = Vec::new();
        for (at, rule) in rules.iter().enumerate().filter(|(_, r)| self.is_ours(r)) {
            if !is_there && at < end && Some(&rule.comment) == comment.as_ref() {
                is_there = true;
            } else {
                ops.push(Op::Delete(self.chain.to_owned(), rule.handle));
            }
        }
        if let Some(rule) = wanted.filter(|_| !is_there) {
            ops.push(Op::Insert(self.chain.to_owned(), rule.clone(), before));
        }
        if !ops.is_empty() {
            batch::commit(&mut self.socket, self.table, &ops)?;
        }
        Ok(true)
    }
}
