//! The model and every decision: pure, no async, no clock, no I/O.
//!
//! [`reconcile::up`] and [`reconcile::down`] compare what is wanted (a compose project) with
//! what is seen ([`Seen`]) and return a [`Plan`]: operations with their order. Whoever executes
//! the plan decides nothing.

pub mod assignment;
pub mod director;
pub mod extension;
pub mod heal;
pub mod intent;
pub mod labels;
pub mod names;
pub mod network;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod rollout;
pub mod schedule;
pub mod seen;
pub mod share;
pub mod shared;
pub mod spare;
pub mod wanted;

pub use intent::Intent;
pub use plan::{Operation, Plan, Step};
pub use seen::{Container, Health, Image, Network, Seen, State, Volume};
pub use share::Share;
pub use wanted::Stack;
