//! First processes of containers, by which their network namespaces are found. The Engine may be slow to
//! say them: nothing else waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::debug;

use crate::agent::keeper::Keeper;

/// Questions at a time.
const AT_ONCE: usize = 4;
/// The pause after the Engine did not know.
const AGAIN: Duration = Duration::from_millis(200);

/// Who is asked for, and what was said.
pub(super) struct Processes {
    asked: BTreeSet<String>,
    known: BTreeMap<String, u32>,
    room: Arc<Semaphore>,
    tell: UnboundedSender<(String, Option<u32>)>,
    told: UnboundedReceiver<(String, Option<u32>)>,
}

impl Processes {
    pub(super) fn new() -> Self {
        let (tell, told) = unbounded_channel();
        Self {
            asked: BTreeSet::new(),
            known: BTreeMap::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            tell,
            told,
        }
    }

    /// Asks for containers, unless they are asked for already.
    pub(super) fn ask(&mut self, keeper: &Keeper, containers: Vec<String>) {
        let Ok(engine) = keeper.engine() else {
            return;
        };
        for id in containers {
            if self.known.contains_key(&id) || !self.asked.insert(id.clone()) {
                continue;
            }
            let (engine, tell) = (engine.clone(), self.tell.clone());
            let room = Arc::clone(&self.room);
            tokio::spawn(async move {
                let _place = room.acquire().await;
                let pid = engine.first_process(&id).await;
                let pid = pid.inspect_err(|e| debug!(container = id, "{e}"));
                let pid = pid.ok().flatten();
                if pid.is_none() {
                    tokio::time::sleep(AGAIN).await;
                }
                // Nobody listens any more when the agent ends.
                let _ = tell.send((id, pid));
            });
        }
    }

    /// Waits until something is said.
    pub(super) async fn come(&mut self) {
        if let Some(said) = self.told.recv().await {
            self.note(said);
        }
    }

    /// What was said since, by id.
    pub(super) fn take(&mut self) -> BTreeMap<String, u32> {
        while let Ok(said) = self.told.try_recv() {
            self.note(said);
        }
        std::mem::take(&mut self.known)
    }

    fn note(&mut self, (id, pid): (String, Option<u32>)) {
        self.asked.remove(&id);
        self.known.extend(pid.map(|pid| (id, pid)));
    }
}
