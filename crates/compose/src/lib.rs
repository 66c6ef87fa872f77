//! Compose files in, one normalised and typed model out.
//!
//! [`load`] finds the files, reads and merges them as the
//! [Compose Specification](https://compose-spec.io) says, and returns a [`Project`]
//! or every fault of the files at once, each with its place.

mod address;
mod check;
mod consistency;
mod discover;
mod dotenv;
mod emit;
mod environment;
mod fault;
mod firewall;
mod load;
mod merge;
pub mod model;
mod node;
mod normalize;
pub mod output;
mod paths;
mod schema;
mod short;
mod source;
mod template;
pub mod units;
mod yaml;

pub use environment::read_env_file;
pub use fault::{Fault, Faults, Location};
pub use load::{LoadOptions, Loaded, load, variables};
pub use model::Project;
pub use output::{config_hash, network_hash, volume_hash};
pub use schema::attribute_paths;
pub use template::Variable;
