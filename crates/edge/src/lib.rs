//! Servers for the traffic of users. They decide nothing: what they answer and where they send
//! things is handed to them, and exchanged while they run.

mod bind;
mod counters;
pub mod dns;

pub mod forward;

pub mod zone;
