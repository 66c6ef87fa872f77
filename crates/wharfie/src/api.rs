//! What is said over the agent's socket: HTTP with JSON; answers that take a while are lines of
//! JSON, one [`Message`] each.

use serde::{Deserialize, Serialize};
use wharfie_core::heal::Trouble;
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
}

/// One entry of `GET /v1/stacks/{name}/history`, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
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
}

/// A change, said in full or by reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// In full.
    Intent(Box<Intent>),
    /// What an earlier revision said.
    Undo {
        /// The revision; the one before the current if unset.
        to: Option<u64>,
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
