//! nftables over netlink, as `linux/netfilter/nf_tables.h` has it: tables as plain values, their
//! encoding, and tables that are kept as they should be with one small transaction per change.

mod batch;
mod change;
mod dump;
mod expr;
mod field;
mod foreign;
mod live;
mod rule;
mod table;

pub(crate) use dump::Counted;
pub(crate) use expr::{Direction, Expr, Reject, Verdict};
pub(crate) use field::{Field, Type, concat};
pub(crate) use foreign::Foreign;
pub(crate) use live::{Edit, Live, all, connect, remove};
pub(crate) use rule::{Draw, End, Load, NewPort, Rule, TCP, UDP};
pub(crate) use table::{
    At, Chain, Data, Family, Hook, Key, Policy, Set, Table, TableId, Value, range_of, ranges,
};

/// The comment of our tables, by which they are known as ours.
pub(crate) const MARK: &str = "wharfie";

/// The longest name the kernel takes (`NFT_NAME_MAXLEN`, less its zero).
pub(crate) const LONGEST_NAME: usize = 255;
