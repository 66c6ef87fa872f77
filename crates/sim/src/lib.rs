//! Whole clusters in virtual time: the decisions of `core` and the state machines of `cluster`, on
//! model Engines, over a simulated network, with faults. A seed makes a run, and makes it again.
//!
//! ```
//! let outcome = wharfie_sim::run(&wharfie_sim::Setup::new(1, 3));
//! assert!(outcome.violation.is_none(), "{outcome}");
//! ```
//!
//! What is modelled, and what is not, is in `docs/simulation.md`.

mod ask;
mod checks;
mod coordinate;
mod engine;
mod faults;
pub mod figures;
mod heal;
mod look;
mod memory;
mod mesh;
mod mutation;
mod network;
mod node;
mod quiet;
mod rollouts;
mod sim;
mod stacks;
mod sync;
mod time;
mod view;

pub use mutation::Mutation;
pub use sim::{Outcome, Setup, Stats, run, size};
