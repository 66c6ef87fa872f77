//! What is done to one host: the Docker Engine through its API, the network through netlink. Nothing
//! here decides; it observes, and it executes the plans of `wharfie-core`.

mod archive;
pub mod build;
mod connect;
mod container;
pub mod copy;
mod dial;
mod digest;
pub mod doctor;
mod error;
mod execute;
mod image;
mod inject;
pub mod layers;
mod listing;
mod memory;
pub mod net;
mod observe;
mod podman;
mod port_owner;
pub mod provider;
mod push;
mod raw;
mod registry;
mod session;
mod stats;
mod streams;
pub mod support;
pub mod translate;
pub mod volume;
mod watch;

pub use build::{BuildFlags, Builder};
pub use connect::{ApiVersion, DEFAULT_HOST, Engine, EngineVersion};
pub use dial::{BoxedStream, Bytestream, Dialer, Dialling};
pub use error::Error;
pub use execute::{Addresses, Elsewhere, Event, ExecuteContext, Progress};
pub use image::RemovedImages;
pub use listing::{ImageDetails, VolumeDetails};
pub use observe::{ProjectSummary, Scope, summaries};
pub use port_owner::owner as port_owner;
pub use push::CommitOptions;
pub use session::{ExecOptions, OneOff, Resizer, Session};
pub use stats::Usage;
pub use streams::{ContainerEvent, LogOptions, Output};
pub use volume::LocalVolume;
pub use watch::{Change, Happened};
