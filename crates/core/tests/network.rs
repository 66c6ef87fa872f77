//! Decisions about networks over several nodes.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod network {
    mod addresses;
    mod allot;
    mod forwarding;
    mod names;
    mod names_more;
    mod rules;
    mod ways;
    mod world;
}
