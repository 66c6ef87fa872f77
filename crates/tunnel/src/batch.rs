//! Datagrams of one size to one address, on their way to be sent at once.

use std::net::SocketAddr;

use crate::udp::Socket;

/// All of them together (`UDP_MAX_SEGMENTS` and the longest UDP packet, less its headers).
const LONGEST: usize = 65_000;
/// The longest packet of a handshake is 148 bytes, and an encrypted one has its own length.
const SPARE: usize = 70_000;

/// Such datagrams.
pub(crate) struct Batch {
    buffer: Vec<u8>,
    used: usize,
    count: usize,
    size: usize,
    to: Option<SocketAddr>,
    is_closed: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; LONGEST + SPARE],
            used: 0,
            count: 0,
            size: 0,
            to: None,
            is_closed: false,
        }
    }

    /// Room for one of this length, which is sent with those before it if it can be.
    pub(crate) fn room(&mut self, to: SocketAddr, length: usize, socket: &Socket) -> &mut [u8] {
        let joins = self.to == Some(to)
            && !self.is_closed
            && length <= self.size
            && self.used + length <= LONGEST
            && self.count < socket.at_once();
        if !joins {
            self.send(socket);
            self.to = Some(to);
            self.size = length;
        }
        &mut self.buffer[self.used..]
    }

    /// What was written is to be sent: of the length that was said, or, if it is something else, on
    /// its own.
    pub(crate) fn wrote(&mut self, length: usize, said: usize, socket: &Socket) {
        if length == said {
            self.used += length;
            self.count += 1;
            self.is_closed = length < self.size;
            return;
        }
        let own = self.used..self.used + length;
        let to = self.to;
        self.send(socket);
        if let Some(to) = to {
            deliver(socket, to, &self.buffer[own], length);
        }
    }

    /// Sends what there is.
    pub(crate) fn send(&mut self, socket: &Socket) {
        if let Some(to) = self.to.take()
            && self.used > 0
        {
            deliver(socket, to, &self.buffer[..self.used], self.size);
        }
        self.used = 0;
        self.count = 0;
        self.is_closed = false;
    }
}

/// Whoever sent what cannot be sent now will send it again, as with any network.
pub(crate) fn deliver(socket: &Socket, to: SocketAddr, contents: &[u8], size: usize) {
    if let Err(e) = socket.send(to, contents, size) {
        tracing::trace!(%to, bytes = contents.len(), "not sent: {e}");
    }
}
