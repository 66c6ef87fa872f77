//! The seam to the cluster: which nodes there are, and a stream of bytes to a service of one.

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use crate::agent::fleet::ENGINE;
use crate::agent::fleet::Fleet;

/// A stream of bytes to a service.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its id, which no other node has.
    pub(crate) id: String,
    /// Its name: `dockerInstance` of the replies.
    pub(crate) name: String,
    /// Whether it is this one.
    pub(crate) me: bool,
    /// Whether it is believed to be there; others get no requests.
    pub(crate) up: bool,
}

/// The nodes, and the way to them.
pub(crate) trait Nodes: Send + Sync + 'static {
    /// All of them, this one too.
    fn nodes(&self) -> Vec<Node>;

    /// A new stream to a service of a node, given by its id.
    ///
    /// # Errors
    /// The node is unknown, cannot be reached, or its service does not listen. It may take its
    /// time to find out: whoever asks sets a deadline.
    fn open<'a>(
        &'a self,
        node: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

impl Nodes for Fleet {
    fn nodes(&self) -> Vec<Node> {
        let all = self.members().into_iter();
        all.map(|node| Node {
            up: node.may_answer(),
            id: node.id,
            name: node.name,
            me: node.me,
        })
        .collect()
    }

    fn open<'a>(
        &'a self,
        node: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let node = self.by_id(node).ok_or(io::ErrorKind::NotFound)?;
            let opened = Self::open(self, &node, service).await;
            let stream = opened.map_err(|failure| io::Error::other(failure.text()))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
