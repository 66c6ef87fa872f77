//! The DNS server over loopback, its answers read by another implementation (hickory-proto).
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod dns {
    mod forward;
    mod here;
    mod names;
    mod outside;
}
