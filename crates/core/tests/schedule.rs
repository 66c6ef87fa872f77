//! Placement: each rule with the words it gives as its reason, then what holds of any cluster.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod schedule {
    mod any;
    mod rules;
    mod ties;
    mod world;
}
