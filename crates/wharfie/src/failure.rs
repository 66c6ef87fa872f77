//! What can go wrong, how it is told, and which exit code it has.

use std::io;
use std::process::ExitCode;

use miette::{GraphicalReportHandler, GraphicalTheme};
use wharfie_compose::Faults;

use crate::output::{say, style};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work failed. Exit code 1.
    Failed(Message),
    /// The work failed in several places. Exit code 1.
    Several(Vec<Message>),
    /// The files are valid, but cannot be carried out here. Exit code 1.
    Refused(Faults),
    /// The command line asks for something that makes no sense. Exit code 2.
    Usage(Message),
    /// The files are invalid. Exit code 2.
    Invalid(Faults),
    /// Waiting took longer than allowed. Exit code 3.
    TimedOut(Message),
    /// There is no Engine, or it does not let us in. Exit code 4.
    NoEngine(Message),
    /// There is no agent. Exit code 4.
    NoAgent,
    /// A container's own exit code, handed through in silence.
    Exit(u8),
    /// The user interrupted the work. Exit code 130.
    Interrupted(Message),
    /// The reader of our output is gone: no error.
    BrokenPipe,
}

/// What is wrong and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// The work failed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(Message::new(what))
    }

    /// The command line makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(Message::new(what))
    }

    /// Adds what to do about it, where there is a message.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Self::Failed(m)
        | Self::Usage(m)
        | Self::TimedOut(m)
        | Self::NoEngine(m)
        | Self::Interrupted(m) = &mut self
        {
            m.help = Some(help.into());
        }
        self
    }

    /// One failure of many, with the messages of all.
    pub(crate) fn all(failures: impl IntoIterator<Item = Self>) -> Self {
        let mut messages: Vec<Message> = Vec::new();
        for failure in failures {
            match failure {
                Self::Failed(m) if messages.iter().all(|other| other.what != m.what) => {
                    messages.push(m)
                }
                Self::Failed(_) => {}
                Self::Several(several) => messages.extend(several),
                // A lost Engine fails everything at once: once is enough, as is anything else
                // that says more than that the work failed.
                other => return other,
            }
        }
        match messages.len() {
            1 => Self::Failed(messages.remove(0)),
            _ => Self::Several(messages),
        }
    }

    /// The same failure once more, to be told to several.
    pub(crate) fn said(&self) -> Self {
        match self {
            Self::NoEngine(m) => Self::NoEngine(m.clone()),
            other => Self::failed(other.text()),
        }
    }

    /// What is wrong and what to do, in one line.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Failed(m)
            | Self::Usage(m)
            | Self::TimedOut(m)
            | Self::NoEngine(m)
            | Self::Interrupted(m) => match &m.help {
                Some(help) => format!("{}; {help}", m.what),
                None => m.what.clone(),
            },
            Self::Several(messages) => {
                let texts: Vec<&str> = messages.iter().map(|m| m.what.as_str()).collect();
                texts.join("; ")
            }
            Self::Refused(faults) | Self::Invalid(faults) => faults.to_string(),
            Self::NoAgent => no_agent().what,
            Self::Exit(code) => format!("exit code {code}"),
            Self::BrokenPipe => "nobody reads".to_owned(),
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The exit code as a number.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed(_) | Self::Several(_) | Self::Refused(_) => 1,
            Self::Usage(_) | Self::Invalid(_) => 2,
            Self::TimedOut(_) => 3,
            Self::NoEngine(_) | Self::NoAgent => 4,
            Self::Exit(code) => *code,
            Self::Interrupted(_) => 130,
        }
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(&self) {
        match self {
            Self::BrokenPipe | Self::Exit(_) => {}
            Self::NoAgent => no_agent().report(),
            Self::Invalid(faults) | Self::Refused(faults) => report_faults(faults),
            Self::Failed(m)
            | Self::Usage(m)
            | Self::TimedOut(m)
            | Self::NoEngine(m)
            | Self::Interrupted(m) => m.report(),
            Self::Several(messages) => messages.iter().for_each(Message::report),
        }
    }
}

fn no_agent() -> Message {
    Message {
        what: "no agent is running".to_owned(),
        help: Some("`wharfie up` starts one in the background, `wharfie agent` here".to_owned()),
    }
}

fn report_faults(faults: &Faults) {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
        .with_width(usize::MAX / 2)
        .with_wrap_lines(false)
        .with_links(false);
    for fault in &faults.0 {
        let mut text = String::new();
        if handler.render_report(&mut text, fault).is_err() {
            text = format!("error: {fault}\n");
        }
        say(text.trim_end());
    }
    if faults.0.len() > 1 {
        say(&format!("{} faults", faults.0.len()));
    }
}

impl Message {
    /// A message without advice.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: None,
        }
    }

    fn report(&self) {
        let (on, off) = (style::ERROR.render(), style::ERROR.render_reset());
        say(&format!("{on}error:{off} {}", self.what));
        if let Some(help) = &self.help {
            let (on, off) = (style::HELP.render(), style::HELP.render_reset());
            say(&format!(" {on}help:{off} {help}"));
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Invalid(faults)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::failed(error.to_string())
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
