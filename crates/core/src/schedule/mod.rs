//! Which node each task runs on: pure, and the same on every node that computes it.
//!
//! Placement is sticky: a task leaves its node only when that is gone, drained or no longer
//! fits. A task with local data goes where its data is, or waits for it.
//!
//! ```text
//! let mut cluster = Cluster::new(&nodes, &volumes);
//! for stack in stacks { cluster.add(stack, &assigned[stack]); }
//! for stack in mine {
//!     if let Some(placement) = place_if_needed(stack, current, running, &cluster) {
//!         cluster.add(stack, &placement.tasks);   // in place of what it had
//!     }
//! }
//! ```

mod choose;
mod cluster;
mod constraint;
pub(crate) mod hash;
mod item;
mod needs;
mod node;
mod pinned;
mod placer;
mod rebalance;
mod room;
mod ties;
mod words;

use std::collections::BTreeMap;

pub use cluster::Cluster;
pub use hash::coordinator;
pub use node::{Load, Node, Port, Standing};
pub use rebalance::rebalance;

use crate::wanted::Stack;
use placer::{Placer, Reasons};

/// Where the tasks of a stack are: service, number from 1, id of the node.
pub type Tasks = BTreeMap<String, BTreeMap<u32, String>>;

/// Where the tasks of a stack are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The node of each task; a task that fits nowhere is absent.
    pub tasks: Tasks,
    /// Local volumes that are tied to a node from now on: name on the Engine, id of the node.
    pub volumes: BTreeMap<String, String>,
    /// What was decided of each task, and why; only of [`explain`].
    pub decisions: Vec<Decision>,
}

/// What was decided of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Service.
    pub service: String,
    /// Number of the task.
    pub slot: u32,
    /// What.
    pub verdict: Verdict,
}

/// What becomes of a task. Nodes are named by their ids, reasons name them by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Stays {
        /// The node.
        on: String,
    },
    /// It is new on a node.
    Chosen {
        /// The node.
        on: String,
        /// Why this one.
        why: String,
    },
    /// It goes to another node.
    Moved {
        /// The node it was on.
        from: String,
        /// The node it goes to.
        to: String,
        /// Why it leaves.
        why: String,
    },
    /// It cannot run now.
    Waits {
        /// The node it stays assigned to, if it does.
        on: Option<String>,
        /// What it waits for.
        why: String,
    },
}

/// A task that goes from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Service.
    pub service: String,
    /// Number of the task.
    pub slot: u32,
    /// Id of the node it leaves.
    pub from: String,
    /// Id of the node it goes to.
    pub to: String,
}

/// Places the tasks of a stack. `current` is what was assigned before; `running` is where
/// containers of tasks without an assignment are seen: such a task goes where it runs, if it
/// fits. What `cluster` accounts of this stack makes no difference.
#[must_use]
pub fn place(stack: &Stack, current: &Tasks, running: &Tasks, cluster: &Cluster<'_>) -> Placement {
    let mut placer = Placer::new(stack, current, running, cluster);
    placer.settle();
    placer.choose();
    placer.outcome()
}

/// [`place`], if [`needs_placing`] says so; costs less than both.
#[must_use]
pub fn place_if_needed(
    stack: &Stack,
    current: &Tasks,
    running: &Tasks,
    cluster: &Cluster<'_>,
) -> Option<Placement> {
    let mut placer = Placer::new(stack, current, running, cluster);
    placer.settle();
    placer.has_work().then(|| {
        placer.choose();
        placer.outcome()
    })
}

/// [`place`], with what was decided of each task and why.
#[must_use]
pub fn explain(
    stack: &Stack,
    current: &Tasks,
    running: &Tasks,
    cluster: &Cluster<'_>,
) -> Placement {
    let mut placer = Placer::new(stack, current, running, cluster);
    placer.reasons = Some(Reasons::default());
    placer.settle();
    placer.choose();
    placer.outcome()
}

/// Whether [`place`] may change anything: a task has no node or has to leave its, or a volume is
/// not yet known to be tied. Costs less.
#[must_use]
pub fn needs_placing(
    stack: &Stack,
    current: &Tasks,
    running: &Tasks,
    cluster: &Cluster<'_>,
) -> bool {
    let mut placer = Placer::new(stack, current, running, cluster);
    placer.settle();
    placer.has_work()
}
