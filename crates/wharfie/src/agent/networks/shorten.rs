//! The short way of packets between containers of this node and those of others.

use std::collections::BTreeSet;

use tracing::info;
use wharfie_host::net::{Cable, Error, Namespace, Overlay, Shortcut, Shortcuts};

use super::view::Scene;

/// Docker's option of a network whose containers are not to reach each other: its rules for that are
/// shown only what goes over the bridge.
const TOGETHER: &str = "com.docker.network.bridge.enable_icc";

/// The kernel's part of it.
#[derive(Default)]
pub(super) struct Shorten {
    open: Option<Shortcuts>,
    /// What there is.
    known: (Vec<Shortcut>, BTreeSet<Cable>),
    /// Why it failed last.
    failed: Option<Error>,
}

impl Shorten {
    /// Gives short ways to these overlays, for these cables. Where that fails packets go over the bridge.
    pub(super) fn apply(
        &mut self,
        scene: &Scene,
        overlays: &[Overlay],
        cables: BTreeSet<Cable>,
        repair: bool,
    ) {
        let overlays = overlays.iter().filter(|o| is_open(scene, &o.network));
        let each = overlays.map(|overlay| Shortcut {
            vni: overlay.vni,
            bridge: overlay.bridge.clone(),
            remote: overlay.endpoints.iter().map(|e| e.mac).collect(),
        });
        let wanted = (each.collect(), cables);
        if !repair && wanted == self.known {
            return;
        }
        let done = self.try_to(&wanted, repair);
        self.known = wanted;
        if let Err(error) = &done
            && self.failed.as_ref() != Some(error)
        {
            info!("packets between hosts take the longer way: {error}");
        }
        self.failed = done.err();
    }

    fn try_to(
        &mut self,
        (overlays, cables): &(Vec<Shortcut>, BTreeSet<Cable>),
        repair: bool,
    ) -> Result<(), Error> {
        if overlays.is_empty() && self.open.is_none() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Shortcuts::open(&Namespace::here()?)?,
        };
        if overlays.is_empty() {
            return open.purge();
        }
        // What is half right leads astray: if it fails it is begun anew.
        if repair {
            open.forget();
        }
        open.apply(overlays, cables).inspect_err(|_| {
            let _ = open.purge();
        })?;
        self.open = Some(open);
        Ok(())
    }
}

/// Whether containers of a network may reach each other.
fn is_open(scene: &Scene, network: &str) -> bool {
    let network = scene.book.networks.get(network);
    let option = network.and_then(|n| n.options.get(TOGETHER));
    // What Docker takes for "no".
    let no = ["0", "f", "F", "false", "FALSE", "False"];
    option.is_none_or(|said| !no.contains(&said.as_str()))
}
