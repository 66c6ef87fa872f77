//! The authoritative server over loopback, its answers read by other implementations: hickory-proto,
//! and bind9 as a secondary.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod zone {
    mod bind;
    mod check;
    mod conformance;
    mod here;
    mod hostile;
    mod serving;
}
