//! Servers for the traffic of users. They decide nothing: what they answer and where they send
//! things is handed to them, and exchanged while they run.

mod bind;
mod counters;
pub mod dns;
pub mod forward;
mod listening;
mod places;
pub mod zone;

pub use places::{Place, Places};
