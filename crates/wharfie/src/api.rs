//! What is said over the agent's socket: HTTP with JSON; answers that take a while are lines of
//! JSON, one [`Message`] each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharfie_core::heal::Trouble;
use wharfie_core::report::Report;
use wharfie_core::{Intent, Plan};

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
    /// Name of its home, the node that keeps it.
    #[serde(default)]
    pub(crate) node: String,
    /// Id of its home; empty if there is only one node.
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
    /// Node that is to be the stack's home: its name, id, or the beginning of its id. A stack that
    /// has a home stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on: Option<String>,
    /// Wait until the change is durable on so many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicated: Option<usize>,
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
    },
    /// Something happened to a step of the plan.
    Step {
        /// Index of the step.
        step: usize,
        /// What happened.
        event: StepEvent,
    },
    /// All is done.
    Done {
        /// Revision of what is wanted now, if the stack is wanted.
        revision: Option<u64>,
        /// On how many nodes a change is durable, where there are several.
        #[serde(default)]
        durable: Option<Durable>,
    },
    /// The stack's home is away: what is wanted is written down, and done when it is back.
    Noted {
        /// The home, and since when it is away.
        home: String,
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
