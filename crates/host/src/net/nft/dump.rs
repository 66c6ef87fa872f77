//! Reading back: whether what is in the kernel is still what was written, and what was counted.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::super::Error;
use super::super::netlink::attributes::{Attributes, attribute, attributes, be_u32, be_u64, text};
use super::super::netlink::message::{self, NLM_F_ACK, NLM_F_DUMP};
use super::super::netlink::{Said, Socket};
use super::batch::{
    INTERVAL_END, NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE,
    NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, set_header,
};
use super::expr::Verdict;
use super::table::{Chain, Family, Key, Set, Table, TableId, Value};
use super::{MARK, expr};

/// How often a list is asked for that changes while it is read.
const ATTEMPTS: u32 = 5;
/// `struct nfgenmsg`
const HEADER: usize = 4;

/// What a rule counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) chain: String,
    pub(crate) comment: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Asks; each object's family, and attributes. What is not there is an empty list.
fn ask(
    socket: &mut Socket,
    kind: u16,
    family: u8,
    flags: u16,
    about: &str,
    write: impl Fn(&mut Attributes<'_>),
) -> Result<Vec<(u8, Vec<u8>)>, Error> {
    for _ in 0..ATTEMPTS {
        let mut bytes = Vec::new();
        let sequence = socket.next_sequence();
        message::write(
            &mut bytes,
            NFNL_SUBSYS_NFTABLES << 8 | kind,
            flags,
            sequence,
            |out| {
                out.extend_from_slice(&[family, 0, 0, 0]);
                write(&mut Attributes(out));
            },
        );
        let answers = socket.talk(&bytes)?;
        if answers.interrupted {
            continue;
        }
        let mut objects = Vec::new();
        for answer in answers.all {
            match answer.said {
                Said::Object { body, .. } => {
                    let family = body.first().copied().unwrap_or(0);
                    objects.push((family, body.get(HEADER..).unwrap_or(&[]).to_vec()));
                }
                Said::Refused { errno, .. } if errno == Errno::NOENT.raw_os_error() => {
                    return Ok(Vec::new());
                }
                Said::Refused { errno, words } => {
                    return Err(Error::refused(
                        format!("to list {about}"),
                        errno,
                        words.as_deref(),
                    ));
                }
                Said::Done => {}
            }
        }
        return Ok(objects);
    }
    Err(Error::System {
        doing: format!("list {about}"),
        reason: "it changes all the time".into(),
        gone: false,
    })
}

/// The number of the last change of anything in the namespace's nftables.
pub(super) fn generation(socket: &mut Socket) -> Result<u32, Error> {
    let about = "the generation of nftables";
    let objects = ask(socket, NFT_MSG_GETGEN, 0, 0, about, |_| {})?;
    let id = objects
        .first()
        .and_then(|(_, body)| be_u32(attribute(body, 1)?));
    Ok(id.unwrap_or(0))
}

/// Whether a table of this name is there. One without our mark is an error.
pub(super) fn is_there(socket: &mut Socket, id: TableId<'_>) -> Result<bool, Error> {
    let about = format!("the table {id}");
    let found = ask(
        socket,
        NFT_MSG_GETTABLE,
        id.family as u8,
        NLM_F_ACK,
        &about,
        |message| {
            message.text(1, id.name);
        },
    )?;
    match found.first() {
        None => Ok(false),
        Some((_, body)) if is_marked(body) => Ok(true),
        Some(_) => Err(Error::Foreign {
            object: format!("the nftables table {id}"),
        }),
    }
}

fn is_marked(table: &[u8]) -> bool {
    attribute(table, 6).and_then(comment).as_deref() == Some(MARK)
}

/// The tables with our mark: family and name.
pub(super) fn ours(socket: &mut Socket) -> Result<Vec<(Family, String)>, Error> {
    let tables = ask(
        socket,
        NFT_MSG_GETTABLE,
        0,
        NLM_F_DUMP,
        "the tables of nftables",
        |_| {},
    )?;
    let marked = tables.into_iter().filter(|(_, body)| is_marked(body));
    let table = |(family, body): (u8, Vec<u8>)| {
        Some((Family::from_number(family)?, text(attribute(&body, 1)?)))
    };
    Ok(marked.filter_map(table).collect())
}

/// The comment in userdata, as nft writes it.
fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, more @ ..] = rest {
        let value = more.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        rest = &more[value.len()..];
    }
    None
}

/// Whether the kernel has just what is in the value.
pub(super) fn is_as_written(
    socket: &mut Socket,
    id: TableId<'_>,
    table: &Table,
) -> Result<bool, Error> {
    if !is_there(socket, id)? {
        return Ok(false);
    }
    Ok(chains_are(socket, id, table)?
        && rules_are(socket, id, table)?
        && sets_are(socket, id, table)?)
}

fn list(
    socket: &mut Socket,
    id: TableId<'_>,
    kind: u16,
    what: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let about = format!("the {what} of table {id}");
    let objects = ask(
        socket,
        kind,
        id.family as u8,
        NLM_F_DUMP,
        &about,
        |message| {
            message.text(1, id.name);
        },
    )?;
    // Not every kernel leaves out those of other tables.
    let of_table = |(_, body): (u8, Vec<u8>)| {
        (attribute(&body, 1).map(text).as_deref() == Some(id.name)).then_some(body)
    };
    Ok(objects.into_iter().filter_map(of_table).collect())
}

fn chains_are(socket: &mut Socket, id: TableId<'_>, table: &Table) -> Result<bool, Error> {
    let chains = list(socket, id, NFT_MSG_GETCHAIN, "chains")?;
    let is_known = |body: &Vec<u8>| {
        let name = attribute(body, 3).map(text).unwrap_or_default();
        let chain = table.chains.get(&name);
        chain.is_some_and(|chain| hook_is(body, chain))
    };
    Ok(chains.len() == table.chains.len() && chains.iter().all(is_known))
}

fn hook_is(body: &[u8], chain: &Chain) -> bool {
    let number = |bytes: Option<&[u8]>| bytes.and_then(be_u32);
    let seen = attribute(body, 4).map(|hook| {
        let policy = number(attribute(body, 5));
        (
            number(attribute(hook, 1)),
            number(attribute(hook, 2)),
            policy,
        )
    });
    let wanted = chain.hook.map(|hook| {
        let priority = hook.priority.cast_unsigned();
        (
            Some(hook.at as u32),
            Some(priority),
            Some(hook.policy as u32),
        )
    });
    seen == wanted
}

fn rules_are(socket: &mut Socket, id: TableId<'_>, table: &Table) -> Result<bool, Error> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for body in list(socket, id, NFT_MSG_GETRULE, "rules")? {
        let chain = attribute(&body, 2).map(text).unwrap_or_default();
        let tag = attribute(&body, 7).and_then(comment).unwrap_or_default();
        seen.entry(chain).or_default().push(tag);
    }
    let with_rules = table
        .chains
        .iter()
        .filter(|(_, chain)| !chain.rules.is_empty());
    let wanted: BTreeMap<String, Vec<String>> = with_rules
        .map(|(name, chain)| {
            (
                name.clone(),
                chain.rules.iter().map(super::Rule::comment).collect(),
            )
        })
        .collect();
    Ok(seen == wanted)
}

fn sets_are(socket: &mut Socket, id: TableId<'_>, table: &Table) -> Result<bool, Error> {
    let sets = list(socket, id, NFT_MSG_GETSET, "sets")?;
    if sets.len() != table.sets.len() {
        return Ok(false);
    }
    for body in sets {
        let name = attribute(&body, 2).map(text).unwrap_or_default();
        let Some(set) = table.sets.get(&name) else {
            return Ok(false);
        };
        let number = |kind| attribute(&body, kind).and_then(be_u32);
        // The kernel leaves out flags if there are none.
        let header = (number(3).or(Some(0)), number(4), number(5));
        let (flags, kind, length) = set_header(set);
        if header != (Some(flags), Some(kind), Some(length)) {
            return Ok(false);
        }
        if !elements_are(socket, id, &name, set)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn elements_are(
    socket: &mut Socket,
    id: TableId<'_>,
    name: &str,
    set: &Set,
) -> Result<bool, Error> {
    let about = format!("the elements of {name} in table {id}");
    let write = |message: &mut Attributes<'_>| {
        message.text(1, id.name).text(2, name);
    };
    let family = id.family as u8;
    let parts = ask(
        socket,
        NFT_MSG_GETSETELEM,
        family,
        NLM_F_DUMP,
        &about,
        write,
    )?;
    let mut seen = BTreeSet::new();
    for (_, body) in &parts {
        for (_, element) in attribute(body, 3).into_iter().flat_map(attributes) {
            let (key, data) = read_element(element);
            if !set
                .elements
                .get(&key)
                .is_some_and(|value| is_value(value, data))
            {
                return Ok(false);
            }
            seen.insert(key);
        }
    }
    Ok(seen.len() == set.elements.len())
}

fn read_element(element: &[u8]) -> (Key, Option<&[u8]>) {
    let bytes = attribute(element, 1).and_then(|key| attribute(key, 1));
    let flags = attribute(element, 3).and_then(be_u32).unwrap_or(0);
    let key = Key {
        bytes: bytes.unwrap_or(&[]).to_vec(),
        end: flags & INTERVAL_END != 0,
    };
    (key, attribute(element, 2))
}

fn is_value(value: &Value, data: Option<&[u8]>) -> bool {
    match value {
        Value::None => data.is_none(),
        Value::Bytes(bytes) => data.and_then(|data| attribute(data, 1)) == Some(bytes),
        Value::Verdict(verdict) => {
            let seen = data.and_then(|data| attribute(data, 2));
            seen.is_some_and(|seen| is_verdict(verdict, seen))
        }
    }
}

fn is_verdict(verdict: &Verdict, seen: &[u8]) -> bool {
    let mut wanted = Vec::new();
    expr::verdict(&mut Attributes(&mut wanted), 2, verdict);
    let wanted = attribute(&wanted, 2).and_then(|data| attribute(data, 2));
    wanted.is_some_and(|wanted| {
        let part = |bytes, kind| attribute(bytes, kind).map(<[u8]>::to_vec);
        part(wanted, 1) == part(seen, 1) && part(wanted, 2) == part(seen, 2)
    })
}

/// A rule of a chain of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) handle: u64,
    pub(super) comment: String,
    /// All it does is to return.
    pub(super) only_returns: bool,
}

/// The rules of a chain that may be somebody else's; `None` if there is no such chain.
pub(super) fn rules_of(
    socket: &mut Socket,
    id: TableId<'_>,
    chain: &str,
) -> Result<Option<Vec<Listed>>, Error> {
    let chains = list(socket, id, NFT_MSG_GETCHAIN, "chains")?;
    let is_named = |body: &Vec<u8>| attribute(body, 3).map(text).as_deref() == Some(chain);
    if !chains.iter().any(is_named) {
        return Ok(None);
    }
    let rules = list(socket, id, NFT_MSG_GETRULE, "rules")?;
    let rules = rules.iter().filter_map(|body| {
        let listed = Listed {
            handle: be_u64(attribute(body, 3)?)?,
            comment: attribute(body, 7).and_then(comment).unwrap_or_default(),
            only_returns: only_returns(attribute(body, 4)?),
        };
        (attribute(body, 2).map(text).as_deref() == Some(chain)).then_some(listed)
    });
    Ok(Some(rules.collect()))
}

/// Whether steps match everything and return.
fn only_returns(steps: &[u8]) -> bool {
    let mut returns = false;
    for (_, step) in attributes(steps) {
        match attribute(step, 1).map(text).as_deref() {
            Some("counter") => {}
            Some("immediate") => {
                let data = attribute(step, 2).and_then(|data| attribute(data, 2));
                let data = data.and_then(|data| attribute(data, 2));
                returns = data.is_some_and(|data| is_verdict(&Verdict::Return, data));
            }
            _ => return false,
        }
    }
    returns
}

/// What the rules of a table counted: those that count.
pub(super) fn counted(socket: &mut Socket, id: TableId<'_>) -> Result<Vec<Counted>, Error> {
    let rules = list(socket, id, NFT_MSG_GETRULE, "rules")?;
    Ok(rules.iter().filter_map(|body| of_rule(body)).collect())
}

fn of_rule(body: &[u8]) -> Option<Counted> {
    let mut steps = attributes(attribute(body, 4)?);
    let data = steps.find_map(|(_, step)| {
        let is_counter = text(attribute(step, 1)?) == "counter";
        is_counter.then(|| attribute(step, 2)).flatten()
    })?;
    Some(Counted {
        chain: text(attribute(body, 2)?),
        comment: attribute(body, 7).and_then(comment).unwrap_or_default(),
        bytes: be_u64(attribute(data, 1)?)?,
        packets: be_u64(attribute(data, 2)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_in_userdata() {
        let mine = super::super::batch::comment("wharfie");
        assert_eq!(comment(&mine).as_deref(), Some("wharfie"));
        let other = [[7, 2, 1, 2].to_vec(), mine].concat();
        assert_eq!(comment(&other).as_deref(), Some("wharfie"));
        for broken in [&[][..], &[0], &[0, 9, 1], &[1, 0]] {
            assert_eq!(comment(broken), None);
        }
    }
}
