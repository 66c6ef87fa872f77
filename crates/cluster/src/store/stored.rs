//! The bytes of a version on the disk: whether it was lost, and then what goes between nodes too.

use super::Error;
use crate::replica::{Record, wire};

/// A version as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Stored<'a> {
    /// It was overwritten by somebody who did not know it.
    pub(crate) lost: bool,
    /// The version.
    pub(crate) wire: wire::Wire<'a>,
}

impl<'a> Stored<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = || Error::Damaged("a version of an object cannot be read".to_owned());
        let (lost, rest) = bytes.split_first().ok_or_else(damaged)?;
        Ok(Self {
            lost: *lost != 0,
            wire: postcard::from_bytes(rest).map_err(|_| damaged())?,
        })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.lost)];
        bytes.extend(wire::stored(&self.wire));
        bytes
    }

    pub(crate) fn record(&self) -> Result<Record, Error> {
        let record = self.wire.record();
        record.map_err(|refusal| Error::Damaged(refusal.to_string()))
    }
}
