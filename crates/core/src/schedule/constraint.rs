//! Constraints on nodes (`deploy.placement.constraints`, `platform`), read as Swarm reads them.

use super::Node;

/// What of a node is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Id,
    Name,
    Os,
    Arch,
    /// There are no roles: every node is a manager and a worker.
    Role,
    Label(String),
    EngineLabel(String),
    /// `os/arch`: what is not known of a node does not exclude it.
    Platform,
}

impl Subject {
    /// The subject that a text such as `node.labels.zone` names.
    pub(super) fn read(text: &str) -> Option<Self> {
        let label = |prefix: &str| {
            let start = text.get(..prefix.len())?;
            let rest = &text[start.len()..];
            (start.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then(|| rest.to_owned())
        };
        Some(match text.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Name,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            "node.role" => Self::Role,
            _ => {
                let own = label("node.labels.").map(Self::Label);
                own.or_else(|| label("engine.labels.").map(Self::EngineLabel))?
            }
        })
    }

    /// What a node has there; empty if nothing.
    pub(super) fn of<'a>(&self, node: &'a Node) -> &'a str {
        match self {
            Self::Id => &node.id,
            Self::Name => &node.name,
            Self::Os => &node.os,
            Self::Arch => arch(&node.arch),
            Self::Role | Self::Platform => "",
            Self::Label(key) => node.labels.get(key).map_or("", String::as_str),
            Self::EngineLabel(key) => node.engine_labels.get(key).map_or("", String::as_str),
        }
    }
}

/// A condition that a node must meet.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    subject: Subject,
    equal: bool,
    value: String,
    /// As it is shown to people.
    pub(super) text: String,
}

impl Constraint {
    /// Reads `key == value` or `key != value`; an error says what is wrong, for people.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("constraint {text:?} cannot be read: {what}");
        let operator = ["==", "!="].into_iter().filter_map(|o| text.find(o)).min();
        let at = operator.ok_or_else(|| wrong("it has no == or !="))?;
        let (key, value) = (text[..at].trim(), text[at + 2..].trim());
        let subject = Subject::read(key).ok_or_else(|| {
            wrong(&format!(
                "{key:?} is none of node.id, node.hostname, node.role, node.platform.os, \
                 node.platform.arch, node.labels.KEY and engine.labels.KEY"
            ))
        })?;
        if value.is_empty() {
            return Err(wrong("it has no value"));
        }
        let operator = &text[at..at + 2];
        let plain = if subject == Subject::Arch {
            arch(value)
        } else {
            value
        };
        Ok(Self {
            equal: operator == "==",
            value: plain.to_owned(),
            text: format!("{key} {operator} {value}"),
            subject,
        })
    }

    /// A service's `platform`.
    pub(super) fn platform(platform: &str) -> Self {
        Self {
            subject: Subject::Platform,
            equal: true,
            value: platform.to_owned(),
            text: format!("platform {platform}"),
        }
    }

    pub(super) fn holds(&self, node: &Node) -> bool {
        let same = match self.subject {
            Subject::Role => ["manager", "worker"]
                .iter()
                .any(|r| r.eq_ignore_ascii_case(&self.value)),
            Subject::Platform => runs(&self.value, node),
            _ => self.subject.of(node).eq_ignore_ascii_case(&self.value),
        };
        same == self.equal
    }
}

/// Whether a node is of a platform (`linux`, `linux/arm64`, `linux/arm/v7`), as far as known.
fn runs(platform: &str, node: &Node) -> bool {
    let mut parts = platform.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let (os, wanted) = match second {
        Some(arch) => (first, arch),
        None if ["linux", "windows", "darwin", "freebsd"].contains(&first) => (first, ""),
        None => ("", first),
    };
    let fits = |wanted: &str, has: &str| {
        wanted.is_empty() || has.is_empty() || wanted.eq_ignore_ascii_case(has)
    };
    fits(os, &node.os) && fits(arch(wanted), arch(&node.arch))
}

/// An architecture as image platforms name it.
fn arch(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" | "arm64v8" => "arm64",
        "i386" | "i686" => "386",
        "armv5l" | "armv6l" | "armv7l" | "armhf" => "arm",
        other => other,
    }
}
