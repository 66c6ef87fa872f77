//! The Engines that tests share: made with the first test that wants one, removed with the last.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wharfie_lab::{EngineKind, Host, Lab, LabBuilder, prerequisites};

/// A Docker host that may be shared with other tests. It is gone when nobody uses it any more.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Lab>, usize);

impl Shared {
    /// The lab it is in.
    pub(crate) fn lab(&self) -> &Lab {
        &self.0
    }
}

impl Deref for Shared {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.0.host(self.1)
    }
}

static LABS: Mutex<Vec<(EngineKind, Weak<Lab>)>> = Mutex::new(Vec::new());

/// A host with this Engine, shared with other tests. None if there can be no lab here.
pub(crate) fn shared(kind: EngineKind) -> Option<Shared> {
    if skipped() {
        return None;
    }
    let mut labs = LABS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lab) = labs
        .iter()
        .find(|(k, _)| *k == kind)
        .and_then(|(_, lab)| lab.upgrade())
    {
        return Some(Shared(lab, 1));
    }
    let lab = Arc::new(hosts(kind, 1).start().unwrap());
    labs.retain(|(k, _)| *k != kind);
    labs.push((kind, Arc::downgrade(&lab)));
    Some(Shared(lab, 1))
}

/// A host that no other test uses, for tests that stop its Engine. None if there can be no lab here.
pub(crate) fn own(kind: EngineKind) -> Option<Shared> {
    several(hosts(kind, 1))?.pop()
}

/// The hosts of a lab of their own. None if there can be no lab here.
pub(crate) fn several(builder: LabBuilder) -> Option<Vec<Shared>> {
    if skipped() {
        return None;
    }
    let lab = Arc::new(builder.start().unwrap());
    let hosts = 1..=lab.hosts().len();
    Some(hosts.map(|n| Shared(Arc::clone(&lab), n)).collect())
}

fn hosts(kind: EngineKind, hosts: usize) -> LabBuilder {
    Lab::builder().hosts(hosts).engine(kind)
}

fn skipped() -> bool {
    let Some(reason) = prerequisites::unavailable() else {
        return false;
    };
    assert!(
        std::env::var_os("CI").is_none(),
        "cannot be tested: {reason}"
    );
    eprintln!("skipped: {reason}");
    true
}
