//! The versions of zones that this node gave last, kept over its restarts: a serial never falls, even
//! if there is nobody else who remembers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::debug;
use wharfie_edge::zone::{Content, Name, Version, Zone};

use crate::agent::keeper::{Keeper, with_replica};

/// Under this key they are kept on this node.
const KEY: &str = "zone-versions";

/// Versions by the name of their zone: serial and digest.
#[derive(Debug, Default)]
pub(super) struct Versions {
    kept: BTreeMap<String, (u32, u64)>,
}

impl Keeper {
    /// What this node gave last.
    pub(super) async fn zone_versions(&self) -> Versions {
        let bytes = with_replica(&self.replica, |r| r.store().local(KEY)).await;
        let bytes = bytes.ok().flatten().unwrap_or_default();
        Versions {
            kept: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }
}

impl Versions {
    /// What was given of a zone before this life. There may have been one more, which the agent had no
    /// time to write down: other content comes after that.
    pub(super) fn last(&self, origin: &Name, content: &Content) -> Option<Version> {
        let (serial, digest) = *self.kept.get(&origin.to_string())?;
        let more = u32::from(digest != content.digest());
        Some(Version {
            serial: serial.wrapping_add(more),
            digest,
        })
    }

    /// Writes down what is given now.
    pub(super) async fn note(&mut self, keeper: &Keeper, zones: &[Arc<Zone>]) {
        // What of other zones was given once stays: they may be wanted again.
        let mut kept = self.kept.clone();
        for zone in zones {
            let version = zone.version();
            kept.insert(zone.origin().to_string(), (version.serial, version.digest));
        }
        if kept == self.kept {
            return;
        }
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        let written = with_replica(&keeper.replica, move |r| {
            r.store().set_local(KEY, Some(&bytes))
        });
        match written.await {
            Ok(()) => self.kept = kept,
            // Others remember it as well, and the time goes on.
            Err(e) => debug!("{}", e.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfie_edge::zone::{Start, serial};

    #[test]
    fn a_serial_goes_on_after_a_restart() {
        let origin: Name = "z.example".parse().unwrap();
        let (content, _) = Content::new(Start::new(origin.clone()), &[], Vec::new());
        let versions = |digest| Versions {
            kept: [(origin.to_string(), (7_000, digest))].into(),
        };
        let next = |versions: &Versions| {
            let last = versions.last(&origin, &content);
            serial::next(last, &content, 5, &[]).serial
        };
        assert_eq!(next(&versions(content.digest())), 7_000);
        assert_eq!(next(&versions(1)), 7_002);
        assert_eq!(next(&Versions::default()), 5);
    }
}
