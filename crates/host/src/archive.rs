//! Archives that come from the Engine while a thread reads them.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// What comes through a channel, to be read by a thread.
pub(crate) struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Incoming {
    /// Reads a channel to its end.
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
