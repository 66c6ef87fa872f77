//! The authoritative DNS server of a node, for the zone that is delegated to the cluster and its
//! reverse zones.
//!
//! ```text
//! let (content, conflicts) = entries.forward(start);         // what there is, as records
//! let version = serial::next(None, &content, changed, &peers);
//! let zone = Zone::new(content, version);                    // later: zone.then(content, changed, &peers)
//! let (zones, receiver) = watch::channel(Arc::new(Zones::new(vec![zone])));
//! let server = Server::new(Settings::default(), receiver);
//! server.listen(&addresses).await;                           // again whenever the list changes
//! ```
//!
//! Everything that is answered is a value ([`Zones`]) that is exchanged as a whole: answers stand in it
//! as they go out. A thread per socket reads packets, several at a time, and answers them; nothing is
//! locked and nothing waits but transfers and what is asked of others, which are tasks.

mod answer;
mod ask;
pub mod check;
mod content;
mod entries;
mod file;
mod forward;
mod limit;
mod metrics;
mod name;
mod notify;
mod query;
mod record;
mod reverse;
pub mod serial;
mod server;
mod table;
mod tcp;
mod text;
mod transfer;
mod tsig;
mod udp;
mod zones;

pub use content::{Changes, Content, Start};
pub use entries::{Entries, Node, Port, Service};
pub use file::{Fault, Imported, export, import, read_record};
pub use limit::RateLimit;
pub use metrics::Metrics;
pub use name::Name;
pub use record::{Data, Record, kind_name, kind_of};
pub use reverse::{Part, Span, parts, reverse_zones};
pub use serial::Version;
pub use server::{Server, Settings};
pub use text::show;
pub use tsig::Key;
pub use zones::{Allowed, Secondary, Zone, Zones};
