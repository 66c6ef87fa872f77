//! The seam to the cluster: which nodes there are, and a stream of bytes to a service of one.

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::agent::settings::Settings;

/// A node's Engine, as a service that streams are opened to.
pub(crate) const ENGINE: &str = "engine";

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

/// A cluster of one: this host.
#[derive(Debug)]
pub(crate) struct Alone {
    name: String,
    settings: watch::Receiver<Settings>,
}

impl Alone {
    /// This host, whose Engine is where the settings say.
    pub(crate) fn new(settings: watch::Receiver<Settings>) -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            name: name.trim().to_owned(),
            settings,
        }
    }
}

impl Nodes for Alone {
    fn nodes(&self) -> Vec<Node> {
        vec![Node {
            id: self.name.clone(),
            name: self.name.clone(),
            me: true,
            up: true,
        }]
    }

    fn open<'a>(
        &'a self,
        _node: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if service != ENGINE {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let address = self.settings.borrow().engine.clone();
            let address = address.unwrap_or_else(|| wharfie_host::DEFAULT_HOST.to_owned());
            let path = address.trim_start_matches("unix://");
            let stream = UnixStream::connect(path).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
