//! The director: addresses of the surrounding network for services, asked of IT once.
//!
//! [`Director`] is what people say: which addresses there are, and for whom. From it follows who wants
//! one ([`wanted`]), which one it is ([`allot`]), which node holds it ([`holder`](fn@holder)) and to which
//! tasks a node leads those that it holds ([`lead`](fn@lead)). What is decided is kept in [`Address`] objects:
//! written by the coordinator of a stack, or by the node of a container that is of no stack.

mod address;
mod allot;
mod family;
mod holder;
mod lead;
mod range;
mod records;
mod rivals;
mod settings;
mod wanted;

pub use address::{ADDRESS, Address, Addresses, Owner};
pub use allot::{Changes, Lan, allot};
pub use family::{Families, Way};
pub use holder::{Candidate, holder};
pub use lead::{Led, beside, is_ready, lead};
pub use range::Range;
pub use records::{RECORD, RecordSet, record_name, record_of_name};
pub use rivals::{Asked, Peer, Rivals, Stand, Verdict};
pub use settings::{
    DIRECTOR, DNS_PORT, Director, For, KEEP, Ranges, SETTINGS, Secondary, Transfer, TsigKey,
};
pub use wanted::{
    Claim, LABEL, families_of, families_of_container, of_container, wanted, wrong_label,
};
