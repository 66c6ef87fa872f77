//! What is said over the agent's socket: HTTP with JSON; answers that take a while are lines of
//! JSON, one [`Message`] each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use wharfie_core::heal::Trouble;
use wharfie_core::report::Report;
use wharfie_core::rollout::Status;
use wharfie_core::{Intent, Plan, Stack};

use crate::failure::{Failure, Message as Words};

/// `GET /v1/info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Info {
    /// Version of the agent.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Address of the Engine it keeps.
    pub(crate) engine: String,
    /// Why the Engine cannot be used now, if it cannot.
    pub(crate) engine_away: Option<String>,
    /// Directory of its state.
    pub(crate) state_dir: String,
    /// Whether a command started it in the background: it makes room for one that is started to
    /// stay.
    pub(crate) background: bool,
    /// Number of nodes in its cluster, itself counted.
    #[serde(default = "one")]
    pub(crate) nodes: usize,
}

fn one() -> usize {
    1
}

/// One node in `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Id: its public key; empty as long as it has none.
    pub(crate) id: String,
    /// Name.
    pub(crate) name: String,
    /// Whether it is the one that answers.
    pub(crate) me: bool,
    /// State.
    pub(crate) state: NodeState,
    /// Since when it is in this state, in milliseconds since 1970.
    pub(crate) since: i64,
    /// Where it can be reached.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    /// Labels.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Version of its agent.
    #[serde(default)]
    pub(crate) version: String,
    /// By how many milliseconds its clock is ahead of that of the node that answers.
    #[serde(default)]
    pub(crate) skew: Option<i64>,
    /// Whether everything is to go elsewhere.
    #[serde(default)]
    pub(crate) drained: bool,
    /// What is seen there, as it said last.
    #[serde(default)]
    pub(crate) report: Option<Report>,
}

/// `POST /v1/cluster/token`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenRequest {
    /// For how many seconds it is good.
    pub(crate) ttl: u64,
}

/// The answer to [`TokenRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenReply {
    /// The token.
    pub(crate) token: String,
    /// Until when it is good, in seconds since 1970.
    pub(crate) expires: u64,
    /// Where this node can be reached.
    pub(crate) addresses: Vec<String>,
}

/// `POST /v1/cluster/join`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    /// The token.
    pub(crate) token: String,
    /// Name of this node; its own if unset.
    pub(crate) name: Option<String>,
    /// Join with a key that was never used.
    #[serde(default)]
    pub(crate) new_key: bool,
}

/// `POST /v1/nodes/{node}`: labels to set, and with no value to remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Labels {
    /// Labels.
    pub(crate) labels: BTreeMap<String, Option<String>>,
}

/// State of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeState {
    /// It answers.
    Up,
    /// It did not answer just now.
    Suspect,
    /// It is away.
    Down,
    /// It is of the cluster no longer.
    Removed,
}

/// The host of an address that a node is reached at: with a port, or without one.
pub(crate) fn host_of(address: &str) -> Option<IpAddr> {
    let socket = address.parse::<SocketAddr>().map(|s| s.ip());
    socket.or_else(|_| address.parse()).ok()
}

impl Node {
    /// A node that takes no part: one that was removed a moment ago.
    pub(crate) fn nobody() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            me: true,
            state: NodeState::Removed,
            since: 0,
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            version: String::new(),
            skew: None,
            drained: false,
            report: None,
        }
    }

    /// Whether it is worth trying to reach it.
    pub(crate) fn may_answer(&self) -> bool {
        matches!(self.state, NodeState::Up | NodeState::Suspect)
    }

    /// That it is away, and since when.
    pub(crate) fn away(&self) -> String {
        let zone = jiff::tz::TimeZone::system();
        let since = jiff::Timestamp::from_millisecond(self.since).unwrap_or_default();
        let since = since.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z");
        let state = match self.state {
            NodeState::Removed => "was removed from the cluster",
            _ => "is away",
        };
        match self.since {
            0 => format!("node {} {state}", self.name),
            _ => format!("node {} {state} since {since}", self.name),
        }
    }
}

/// One stack in `GET /v1/stacks`, and `GET /v1/stacks/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackInfo {
    /// Name.
    pub(crate) name: String,
    /// Revision of what is wanted.
    pub(crate) revision: u64,
    /// Services that are to run.
    pub(crate) services: Vec<String>,
    /// Tasks that were stopped and are to stay so.
    pub(crate) halted: Vec<String>,
    /// Tasks that are not well.
    pub(crate) troubles: Vec<Trouble>,
    /// Why the stack as a whole cannot be healed.
    pub(crate) trouble: Option<String>,
    /// Names of the nodes that its tasks are on, with commas between them.
    #[serde(default)]
    pub(crate) node: String,
    /// Id of the node that most of it is on; empty if there is only one node.
    #[serde(default)]
    pub(crate) home: String,
}

/// One entry of `GET /v1/stacks/{name}/history`, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    /// What it is called: the revision, and for a lost one `~` and the begin of its author's id.
    pub(crate) id: String,
    /// Revision.
    pub(crate) revision: u64,
    /// When, in milliseconds since 1970.
    pub(crate) time: i64,
    /// The command that wrote it.
    pub(crate) command: String,
    /// Services that were to run; none if the stack was taken down.
    pub(crate) services: Option<Vec<String>>,
    /// What changed against the version before.
    pub(crate) changes: Vec<String>,
    /// It was overwritten by somebody who did not know it.
    pub(crate) lost: bool,
}

/// One template in `GET /v1/templates`; `GET /v1/templates/{name}` is its document, and `PUT` takes
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TemplateInfo {
    /// Name.
    pub(crate) name: String,
    /// Its image.
    pub(crate) image: String,
    /// Revision.
    pub(crate) revision: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) time: i64,
}

/// `POST /v1/stacks/{name}`: a change that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The change.
    #[serde(flatten)]
    pub(crate) what: What,
    /// Requests to the Engine at a time; 0 for the usual number.
    #[serde(default)]
    pub(crate) parallel: usize,
    /// Node that a new stack is to be on, as far as nothing stands against it: its name, id, or the
    /// beginning of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on: Option<String>,
    /// Wait until the change is durable on so many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicated: Option<usize>,
    /// Ids of the images that were prepared, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) images: BTreeMap<String, String>,
}

/// `POST /v1/stacks/{name}/share`: a node's part of a change that its coordinator has written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShareRequest {
    /// The change.
    pub(crate) intent: Intent,
    /// What was wanted before.
    pub(crate) before: Option<Box<Stack>>,
    /// What was written, as nodes send it to each other, in base64.
    pub(crate) records: String,
    /// Services whose tasks begin anew.
    pub(crate) anew: Vec<String>,
    /// Tasks that are stopped by this.
    pub(crate) halted: BTreeSet<String>,
    /// Requests to the Engine at a time; 0 for the usual number.
    pub(crate) parallel: usize,
}

/// One rollout in `GET /v1/stacks/{name}/rollout`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// Whether it has come to its end.
    pub(crate) over: bool,
    /// How far it is.
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// `POST /v1/stacks/{name}/rollout`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RolloutChange {
    /// What is to be done.
    pub(crate) change: Change,
    /// The services; all that it applies to, if none is named.
    #[serde(default)]
    pub(crate) services: Vec<String>,
}

/// `POST /v1/nodes/{node}/drain`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Drain {
    /// Whether everything is to go elsewhere.
    pub(crate) drained: bool,
}

/// `POST /v1/rebalance`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rebalance {
    /// The stacks; all if none is named.
    pub(crate) stacks: Vec<String>,
    /// Only say which moves there would be.
    pub(crate) dry_run: bool,
}

/// A task that goes to another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// The stack.
    pub(crate) stack: String,
    /// The task, as `service/number`.
    pub(crate) task: String,
    /// Name of the node that it leaves.
    pub(crate) from: String,
    /// Name of the node that it goes to.
    pub(crate) to: String,
}

/// One task in `POST /v1/stacks/{name}/placement`, which takes a stack, or nothing for the one that is
/// wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// The task, as `service/number`.
    pub(crate) task: String,
    /// Name of the node that it is to be on, if there is one.
    pub(crate) node: Option<String>,
    /// Why.
    pub(crate) why: String,
}

/// What can be done to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// It waits.
    Pause,
    /// It goes on.
    Resume,
    /// The former revision comes back.
    Undo,
}

impl Change {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Undo => "undo",
        }
    }
}

/// On how many nodes a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durable {
    /// On the disks of so many.
    pub(crate) on: usize,
    /// Of so many.
    pub(crate) nodes: usize,
}

/// A change, said in full or by reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// In full.
    Intent(Box<Intent>),
    /// What an earlier revision said.
    Undo {
        /// The version's [`Version::id`]; the one before the current if unset.
        to: Option<String>,
    },
}

/// A line of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Message {
    /// Another change of the stack is at work.
    Waiting,
    /// What will be done.
    Plan {
        /// The plan.
        plan: Plan,
        /// Name of the node that does it; empty if it is the one that decides.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        node: String,
    },
    /// Something happened to a step of the plan.
    Step {
        /// Name of the node; empty if it is the one that decides.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        node: String,
        /// Index of the step.
        step: usize,
        /// What happened.
        event: StepEvent,
    },
    /// A service goes from one revision to the next, by and by.
    Rollout {
        /// The service.
        service: String,
        /// How far it is.
        status: String,
        /// Whether it has come to its end.
        over: bool,
    },
    /// All is done.
    Done {
        /// Revision of what is wanted now, if the stack is wanted.
        revision: Option<u64>,
        /// On how many nodes a change is durable, where there are several.
        #[serde(default)]
        durable: Option<Durable>,
    },
    /// A node does not answer: its part is done when it is back.
    Noted {
        /// Why it does not.
        why: String,
    },
    /// It came to nothing, or to less than all.
    Failed {
        /// Everything that went wrong.
        failures: Vec<Fault>,
    },
}

/// What happens to a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StepEvent {
    /// It has begun.
    Started,
    /// A line of its output.
    Note(String),
    /// It is done.
    Done,
    /// It has failed.
    Failed(String),
}

impl From<wharfie_host::Event> for StepEvent {
    fn from(event: wharfie_host::Event) -> Self {
        match event {
            wharfie_host::Event::Started => Self::Started,
            wharfie_host::Event::Note(line) => Self::Note(line),
            wharfie_host::Event::Done => Self::Done,
            wharfie_host::Event::Failed(why) => Self::Failed(why),
        }
    }
}

impl From<StepEvent> for wharfie_host::Event {
    fn from(event: StepEvent) -> Self {
        match event {
            StepEvent::Started => Self::Started,
            StepEvent::Note(line) => Self::Note(line),
            StepEvent::Done => Self::Done,
            StepEvent::Failed(why) => Self::Failed(why),
        }
    }
}

/// `POST /v1/images/fetch`: the node takes an image from others. As with all requests about images,
/// `?on=NODE` says which node is meant, if it is another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FetchImage {
    /// Reference or id.
    pub(crate) image: String,
    /// The nodes to take it from; all that have it, if none is named.
    #[serde(default)]
    pub(crate) from: Vec<String>,
}

/// A line of the answer to a [`FetchImage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Fetching {
    /// How far it is.
    At {
        /// In a line.
        text: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes of all.
        total: u64,
        /// A line for each layer that is taken.
        layers: Vec<String>,
    },
    /// Something that did not end it.
    Note {
        /// What.
        text: String,
    },
    /// The image is there.
    Done {
        /// Its id on that node.
        id: String,
        /// Bytes that came from each node.
        from: BTreeMap<String, u64>,
    },
    /// It came to nothing.
    Failed {
        /// Why.
        fault: Fault,
    },
}

/// `POST /v1/images/remove`: a name of an image goes, and the image with its last one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RemoveImage {
    /// Reference or id.
    pub(crate) image: String,
    /// Even if several names or containers that do not run use it.
    #[serde(default)]
    pub(crate) force: bool,
}

/// `POST /v1/images/prune`: images go that no container uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PruneImages {
    /// Those that have a name, too.
    #[serde(default)]
    pub(crate) named: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImagesRemoved {
    /// Names.
    pub(crate) untagged: Vec<String>,
    /// Ids of images and layers.
    pub(crate) deleted: Vec<String>,
    /// Bytes that are free now, where the Engine says so.
    pub(crate) freed: u64,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// Which kind of failure.
    pub(crate) kind: FaultKind,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    /// The attribute that is at fault, such as `networks.front`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
}

/// Kinds of failures, as exit codes tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// The work failed.
    Failed,
    /// What was asked for makes no sense.
    Usage,
    /// The Engine is away.
    Engine,
}

impl From<wharfie_host::Error> for Fault {
    fn from(error: wharfie_host::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let (kind, words) = match failure {
            Failure::NoEngine(words) => (FaultKind::Engine, words),
            Failure::Usage(words) => (FaultKind::Usage, words),
            Failure::Failed(words) | Failure::TimedOut(words) | Failure::Interrupted(words) => {
                (FaultKind::Failed, words)
            }
            other => (FaultKind::Failed, Words::new(format!("{other:?}"))),
        };
        Self {
            kind,
            what: words.what,
            help: words.help,
            path: None,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let words = Words {
            what: fault.what,
            help: fault.help,
        };
        match fault.kind {
            FaultKind::Failed => Self::Failed(words),
            FaultKind::Usage => Self::Usage(words),
            FaultKind::Engine => Self::NoEngine(words),
        }
    }
}

/// `GET /v1/volumes`: a local volume of which all nodes know where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TiedVolume {
    /// Name.
    pub(crate) name: String,
    /// Id of the node.
    pub(crate) node: String,
    /// The stack it was made for.
    pub(crate) stack: String,
}

/// `POST /v1/volumes/move`: volumes go from the node that `?on=NODE` names to another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MoveVolumes {
    /// Their names.
    pub(crate) names: Vec<String>,
    /// The other node.
    pub(crate) to: String,
    /// The old ones are not removed.
    #[serde(default)]
    pub(crate) keep: bool,
}

/// A line of the answer to [`MoveVolumes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Moving {
    /// What is done now.
    At {
        /// In a line.
        text: String,
    },
    /// Something that did not end it.
    Note {
        /// What.
        text: String,
    },
    /// They are there.
    Done,
    /// They are where they were.
    Failed {
        /// Why.
        fault: Fault,
    },
}

/// `POST /v1/volumes/remove`: removes a volume of the node that `?on=NODE` names; or, with
/// `/v1/volumes/forget`, only that it is known to be on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RemoveVolume {
    /// Its name.
    pub(crate) name: String,
}
