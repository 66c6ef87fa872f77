//! The one transaction that makes changes in the kernel: all or nothing.

use super::super::Error;
use super::super::netlink::attributes::Attributes;
use super::super::netlink::message::{self, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use super::super::netlink::{Said, Socket};
use super::change::Op;
use super::field::concatenated;
use super::table::{Chain, ChainKind, Data, Family, Key, Set, TableId, Value};
use super::{LONGEST_NAME, MARK, expr};
use rustix::io::Errno;

pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;

pub(super) const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
pub(super) const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
pub(super) const NFT_MSG_GETSET: u16 = 10;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWSETELEM: u16 = 12;
pub(super) const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
pub(super) const NFT_MSG_GETGEN: u16 = 16;

/// `enum nft_set_flags`
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
/// `NFT_DATA_VERDICT`
const DATA_VERDICT: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`
pub(super) const INTERVAL_END: u32 = 1;

/// A list is one attribute, whose length has 16 bits; no element is longer than the difference.
const LIST_LIMIT: usize = 48 << 10;

/// Makes the changes in the kernel, in one transaction.
pub(super) fn commit(socket: &mut Socket, table: TableId<'_>, ops: &[Op]) -> Result<(), Error> {
    let mut batch = Batch {
        bytes: Vec::new(),
        table,
        origins: Vec::new(),
    };
    let first = socket.next_sequence();
    batch.frame(NFNL_MSG_BATCH_BEGIN, first);
    for (index, op) in ops.iter().enumerate() {
        let is_last = index + 1 == ops.len();
        batch.op(socket, index, op, is_last)?;
    }
    batch.frame(NFNL_MSG_BATCH_END, socket.next_sequence());
    let answers = socket.talk(&batch.bytes)?;
    let mut confirmed = false;
    for answer in answers.all {
        match answer.said {
            Said::Done => confirmed = true,
            Said::Object { .. } => {}
            Said::Refused { errno, words } => {
                let origin = batch
                    .origins
                    .iter()
                    .find(|(seen, _)| *seen == answer.sequence);
                let object = origin.and_then(|(_, index)| ops.get(*index));
                let object =
                    object.map_or_else(|| format!("the table {table}"), |op| op.describe(table));
                return Err(refusal(&object, errno, words.as_deref()));
            }
        }
    }
    if confirmed {
        return Ok(());
    }
    let reason = "the kernel did not confirm the transaction".to_owned();
    let doing = format!("change the table {table}");
    Err(Error::System {
        doing,
        reason,
        gone: false,
    })
}

fn refusal(object: &str, errno: i32, words: Option<&str>) -> Error {
    let missing = [Errno::OPNOTSUPP, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT];
    let missing = missing.iter().any(|error| error.raw_os_error() == errno);
    match Error::refused(object, errno, words) {
        Error::Refused { object, reason, .. } if missing => Error::NotSupported {
            what: "nftables, or not all of it",
            reason: format!("{object}: {reason}"),
        },
        other => other,
    }
}

struct Batch<'a> {
    bytes: Vec<u8>,
    table: TableId<'a>,
    /// Which change each message is of, by its number.
    origins: Vec<(u32, usize)>,
}

impl Batch<'_> {
    /// A message of `nfnetlink` itself; what it is about is in the place of the resource.
    fn frame(&mut self, kind: u16, sequence: u32) {
        message::write(&mut self.bytes, kind, 0, sequence, |out| {
            out.extend_from_slice(&[0, 0]); // AF_UNSPEC, version 0
            out.extend_from_slice(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
        });
    }

    fn op(
        &mut self,
        socket: &mut Socket,
        index: usize,
        op: &Op,
        is_last: bool,
    ) -> Result<(), Error> {
        let table = self.table.name;
        // Only the last is confirmed: it is, when all was done, and refusals come in any case.
        let ack = if is_last { NLM_F_ACK } else { 0 };
        let create = NLM_F_CREATE | ack;
        let mut send = |kind, flags, write: &dyn Fn(&mut Attributes<'_>)| {
            let sequence = socket.next_sequence();
            self.origins.push((sequence, index));
            let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
            message::write(&mut self.bytes, kind, flags, sequence, |out| {
                out.extend_from_slice(&[self.table.family as u8, 0, 0, 0]); // `struct nfgenmsg`
                write(&mut Attributes(out));
            });
        };
        match op {
            Op::Table => send(NFT_MSG_NEWTABLE, create, &|message| {
                message.text(1, table).bytes(6, &comment(MARK));
            }),
            Op::DropTable => send(NFT_MSG_DELTABLE, ack, &|message| {
                message.text(1, table);
            }),
            Op::Chain(name, chain) => {
                check_name(name)?;
                send(NFT_MSG_NEWCHAIN, create, &|message| {
                    write_chain(message, self.table, name, chain);
                });
            }
            Op::DropChain(name) => send(NFT_MSG_DELCHAIN, ack, &|message| {
                message.text(1, table).text(3, name);
            }),
            Op::Set(name, set) => {
                check_name(name)?;
                let id = u32::try_from(index + 1).unwrap_or(u32::MAX);
                send(NFT_MSG_NEWSET, create | NLM_F_EXCL, &|message| {
                    write_set(message, table, name, set, id);
                });
            }
            Op::DropSet(name) => send(NFT_MSG_DELSET, ack, &|message| {
                message.text(1, table).text(2, name);
            }),
            Op::Add(name, elements) => {
                let write = |list: &mut Attributes<'_>, (key, value): &(Key, Value)| {
                    write_element(list, key, value);
                };
                lists(elements, write, |list| {
                    send(NFT_MSG_NEWSETELEM, create | NLM_F_EXCL, &|message| {
                        message.text(1, table).text(2, name);
                        message.nest(3, |inner| inner.0.extend_from_slice(list));
                    });
                });
            }
            Op::Remove(name, keys) => {
                let write = |list: &mut Attributes<'_>, key: &Key| {
                    write_element(list, key, &Value::None);
                };
                lists(keys, write, |list| {
                    send(NFT_MSG_DELSETELEM, ack, &|message| {
                        message.text(1, table).text(2, name);
                        message.nest(3, |inner| inner.0.extend_from_slice(list));
                    });
                });
            }
            Op::Clear(name) => send(NFT_MSG_DELRULE, ack, &|message| {
                message.text(1, table).text(2, name);
            }),
            Op::Rule(name, rule) => send(NFT_MSG_NEWRULE, create | NLM_F_APPEND, &|message| {
                message.text(1, table).text(2, name);
                message.nest(4, |list| rule.write(list));
                message.bytes(7, &comment(&rule.comment()));
            }),
            Op::Insert(name, rule, before) => {
                // With a position and without "append" it comes before what is there.
                let append = if before.is_none() { NLM_F_APPEND } else { 0 };
                send(NFT_MSG_NEWRULE, create | append, &|message| {
                    message.text(1, table).text(2, name);
                    message.nest(4, |list| rule.write(list));
                    if let Some(handle) = before {
                        message.u64_be(6, *handle);
                    }
                    message.bytes(7, &comment(&rule.comment()));
                });
            }
            Op::Delete(name, handle) => send(NFT_MSG_DELRULE, ack, &|message| {
                message.text(1, table).text(2, name).u64_be(3, *handle);
            }),
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the name {name} is too long for nftables"
    )))
}

/// A comment as nft has it in the userdata of tables and rules: kind 0, length, text with its zero.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![0, length];
    bytes.extend_from_slice(&text.as_bytes()[..usize::from(length) - 1]);
    bytes.push(0);
    bytes
}

fn write_chain(message: &mut Attributes<'_>, table: TableId<'_>, name: &str, chain: &Chain) {
    message.text(1, table.name).text(3, name);
    let Some(hook) = chain.hook else { return };
    message.nest(4, |inner| {
        inner.u32_be(1, hook.at as u32);
        inner.u32_be(2, hook.priority.cast_unsigned());
        if table.family == Family::Netdev {
            inner.text(3, name);
        }
    });
    message.u32_be(5, hook.policy as u32);
    let kind = match hook.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    };
    message.text(7, kind);
}

/// The flags, and the kind and length of the key, as the kernel has them.
pub(super) fn set_header(set: &Set) -> (u32, u32, u32) {
    let map = if set.data == Data::None { 0 } else { MAP };
    let interval = if set.interval { INTERVAL } else { 0 };
    let (kind, length) = concatenated(&set.key);
    (map | interval, kind, length)
}

fn write_set(message: &mut Attributes<'_>, table: &str, name: &str, set: &Set, id: u32) {
    let (flags, kind, length) = set_header(set);
    message.text(1, table).text(2, name).u32_be(3, flags);
    message.u32_be(4, kind).u32_be(5, length);
    match &set.data {
        Data::None => {}
        Data::Verdict => drop(message.u32_be(6, DATA_VERDICT)),
        Data::Fields(types) => {
            let (kind, length) = concatenated(types);
            message.u32_be(6, kind).u32_be(7, length);
        }
    }
    // Trees of intervals grow without trouble.
    if !set.interval {
        let room = u32::try_from(set.room).unwrap_or(0);
        message.nest(9, |desc| {
            desc.u32_be(1, room);
        });
    }
    message.u32_be(10, id);
}

fn write_element(list: &mut Attributes<'_>, key: &Key, value: &Value) {
    list.nest(1, |element| {
        expr::value(element, 1, &key.bytes);
        match value {
            Value::None => {}
            Value::Bytes(bytes) => expr::value(element, 2, bytes),
            Value::Verdict(verdict) => expr::verdict(element, 2, verdict),
        }
        if key.end {
            element.u32_be(3, INTERVAL_END);
        }
    });
}

/// Elements in lists that are short enough.
fn lists<T>(all: &[T], write: impl Fn(&mut Attributes<'_>, &T), mut send: impl FnMut(&[u8])) {
    let mut list = Vec::new();
    for one in all {
        write(&mut Attributes(&mut list), one);
        if list.len() > LIST_LIMIT {
            send(&list);
            list.clear();
        }
    }
    if !list.is_empty() {
        send(&list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_sent_in_parts() {
        let keys: Vec<Key> = (0..10_000_u32)
            .map(|n| n.to_be_bytes().to_vec().into())
            .collect();
        let mut sizes = Vec::new();
        let write = |list: &mut Attributes<'_>, key: &Key| write_element(list, key, &Value::None);
        lists(&keys, write, |list| sizes.push(list.len()));
        assert!(sizes.iter().all(|size| *size < 60_000), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>() % 10_000, 0);
    }
}
