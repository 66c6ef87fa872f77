//! The seam between nodes: links to peers whose keys are known, with streams and datagrams.
//!
//! [`QuicTransport`] is the real one; [`memory::Network`] joins nodes of one process, for tests.

mod keys;
pub mod memory;
mod nearby;
mod quic;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::id::NodeId;
pub use quic::{BindError, Listen, QuicTransport, own_addresses};

/// A future in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The largest datagram, in bytes: it fits into every path's packets, beside what QUIC adds.
pub const LARGEST_DATAGRAM: usize = 1_150;

/// Bytes in both directions.
pub trait Bidirectional: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bidirectional for T {}

/// A stream of bytes to a peer.
pub type Stream = Box<dyn Bidirectional>;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Between members.
    Member,
    /// From a stranger who asks to be let in.
    Join,
}

/// Why a link was closed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The agent ends.
    Leaving,
    /// The peer is no member.
    Stranger,
    /// The peer was removed from the cluster.
    Removed,
    /// Another link to the same peer is in use.
    Spare,
    /// The peer speaks another protocol.
    Protocol,
}

impl Why {
    const ALL: [Self; 5] = [
        Self::Leaving,
        Self::Stranger,
        Self::Removed,
        Self::Spare,
        Self::Protocol,
    ];

    /// Its number on the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Leaving => 1,
            Self::Stranger => 2,
            Self::Removed => 3,
            Self::Spare => 4,
            Self::Protocol => 5,
        }
    }

    /// From the number on the wire.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|why| u64::from(why.code()) == code)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaving => "its agent ends",
            Self::Stranger => "this node is no member of its cluster",
            Self::Removed => "this node was removed from its cluster",
            Self::Spare => "another connection is in use",
            Self::Protocol => "it speaks another version of the protocol",
        })
    }
}

/// How a link came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it.
    ByPeer(Why),
    /// This side closed it.
    Here,
    /// Nothing was heard of the peer any more, or its process ended.
    Lost,
}

/// A peer that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It refuses.
    #[error("it refuses: {0}")]
    Refused(Why),
    /// No answer.
    #[error("{0}")]
    Silent(String),
}

/// Who may connect: asked for every link, whoever dialled.
pub type Gate = Arc<dyn Fn(NodeId, Purpose) -> Result<(), Why> + Send + Sync>;

/// The way to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// This node.
    fn id(&self) -> NodeId;

    /// Connects to a peer, at these addresses or where else it is known to be. It is certain that
    /// it is this peer.
    fn connect(
        &self,
        peer: NodeId,
        addresses: Vec<SocketAddr>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Unreachable>>;

    /// The next link that a peer made; none once the transport is closed.
    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Link>>>;

    /// Where this node can be reached.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// Says to nodes that are near where this one is to be reached, if that can be said.
    fn say(&self, _: &[SocketAddr]) {}

    /// Tells all peers that this node leaves.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A connection to a peer.
pub trait Link: Send + Sync + 'static {
    /// The peer.
    fn peer(&self) -> NodeId;

    /// What it is for.
    fn purpose(&self) -> Purpose;

    /// Whether this side made it.
    fn outgoing(&self) -> bool;

    /// Where the peer is, for people.
    fn address(&self) -> Option<SocketAddr>;

    /// The address of this host that the peer is linked to, as far as that is known.
    fn local(&self) -> Option<IpAddr> {
        None
    }

    /// Opens a stream. The peer learns of it with the first byte.
    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// The next stream that the peer opened.
    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// Sends a datagram of up to [`LARGEST_DATAGRAM`] bytes, which may get lost.
    fn send(&self, datagram: Bytes);

    /// The next datagram.
    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Ended>>;

    /// Closes it.
    fn close(&self, why: Why);

    /// Returns when it has ended.
    fn ended(&self) -> BoxFuture<'_, Ended>;

    /// How it ended, if it has.
    fn has_ended(&self) -> Option<Ended>;
}
