//! What is done to one host: the Docker Engine through its API. Nothing here decides; it
//! observes, and it executes the plans of `wharfie-core`.

pub mod build;
mod connect;
mod container;
pub mod copy;
mod error;
mod execute;
mod image;
mod inject;
mod listing;
mod lock;
mod observe;
mod port_owner;
mod push;
mod raw;
mod session;
mod stats;
mod streams;
pub mod support;
pub mod translate;

pub use connect::{ApiVersion, Engine, EngineVersion};
pub use error::Error;
pub use execute::{BuildFlags, Event, ExecuteContext, Progress};
pub use listing::{ImageDetails, VolumeDetails};
pub use lock::ProjectLock;
pub use observe::{ProjectSummary, Scope};
pub use push::CommitOptions;
pub use session::{ExecOptions, OneOff, Resizer, Session};
pub use stats::Usage;
pub use streams::{ContainerEvent, LogOptions, Output};
