//! N Docker hosts on one machine, for development and tests: network namespaces on a LAN of their
//! own, each with a Docker Engine and an offline base image; clients beside them; and faults.
//!
//! ```no_run
//! use wharfie_lab::{EngineKind, Lab};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().hosts(3).engine(EngineKind::Debian).start()?;
//! let said = lab.host(1).engine().run("busybox", &["echo", "hello"])?;
//! assert_eq!(said.output.trim(), "hello");
//!
//! lab.host(2).cut()?;
//! assert!(!lab.client("c1")?.reaches(lab.host(2).address())?);
//! lab.heal()?;
//! # Ok(())
//! # }
//! ```
//!
//! The lab is removed when the value is dropped; what a killed process left, the next start removes.
//! It needs root, and works on Debian and its kin. It runs `ip`, `nft`, `nsenter` and `apt-get`,
//! which the product itself never does.

mod builder;
mod cancel;
mod capture;
mod engine;
mod faults;
mod host;
mod http;
mod image;
mod lab;
mod lan;
mod layout;
mod machine;
mod mounts;
pub mod prerequisites;
mod process;
mod registry;
mod spawned;
mod state;
mod tar;
mod teardown;
mod tools;
mod wait;

pub use builder::LabBuilder;
pub use cancel::cancel_on_signals;
pub use capture::Capture;
pub use engine::{Engine, EngineKind, Installation, RunOutput};
pub use faults::{Direction, Faults};
pub use host::{Client, Host};
pub use http::{Request, Response};
pub use image::{BASE_IMAGES, base, base_archive};
pub use lab::Lab;
pub use layout::Subnet;
pub use machine::Machine;
pub use spawned::Spawned;
pub use tar::Archive;
pub use wait::{eventually, throughout};
