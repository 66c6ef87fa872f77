//! Leaving nothing in the kernel once there are no networks any more, also what an agent before this one
//! put there.

use tracing::{debug, info};
use wharfie_host::LocalNetwork;

use crate::agent::keeper::{Keeper, with_replica};
use crate::failure::Failure;
use crate::sweep::{Broom, sweep};

/// Under this key it is kept on this node that something of ours is in the kernel.
const TRACES: &str = "network-traces";

impl Keeper {
    /// Notes that something of ours comes into the kernel.
    pub(super) async fn note_traces(&self) {
        let noted = with_replica(&self.replica, |r| r.store().set_local(TRACES, Some(b"yes")));
        if let Err(e) = noted.await {
            debug!("{}", e.text());
        }
    }

    /// Takes away what is of ours on this host and in its containers, if it was noted that there is any;
    /// whether there is none now.
    pub(super) async fn leave_nothing(&self) -> bool {
        let left = self.leave().await;
        left.inspect_err(|e| debug!("{}", e.text())).is_ok()
    }

    async fn leave(&self) -> Result<(), Failure> {
        let noted = with_replica(&self.replica, |r| r.store().local(TRACES)).await?;
        if noted.is_none() {
            return Ok(());
        }
        self.holds.close();
        let engine = self.engine().map_err(Failure::from)?;
        let all = |_: &LocalNetwork| true;
        let broom = Broom {
            wanted: &all,
            served: &|_| false,
            host: true,
            dry_run: false,
        };
        let swept = sweep(Some(&engine), &broom).await?;
        if !swept.removed.is_empty() {
            info!(removed = ?swept.removed, "no network is left");
        }
        with_replica(&self.replica, |r| r.store().set_local(TRACES, None)).await
    }
}
