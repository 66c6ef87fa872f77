//! Which ends of a container are final.

use wharfie_compose::model::{Project, Service};

use crate::extension::{self, Heal};

/// When a container that has ended is started again (compose-spec `restart` and
/// `deploy.restart_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `x-wharfie.heal: never`: its containers are left alone.
    HandsOff,
    /// `restart: "no"`, `condition: none`: however it ended.
    Never,
    /// Nothing is said: what ended by itself stays so, what somebody else ended does not.
    Unset,
    /// `on-failure`, with the number of attempts after which the Engine gives up.
    OnFailure(Option<u64>),
    /// `always`, `unless-stopped`, `condition: any`.
    Always,
}

impl Policy {
    /// The policy of a service in its project: `x-wharfie.heal` over what the service says.
    #[must_use]
    pub fn within(project: &Project, service: &Service) -> Self {
        match extension::heal(project, service) {
            Heal::Auto => Self::of(service),
            Heal::Always => Self::Always,
            Heal::Never => Self::HandsOff,
        }
    }

    /// The policy of a service; `deploy.restart_policy` counts where `restart` is not given, as in
    /// docker compose.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let (name, count) = service
            .restart
            .split_once(':')
            .unwrap_or((&service.restart, ""));
        match name {
            "" => {}
            "always" | "unless-stopped" => return Self::Always,
            "on-failure" => return Self::OnFailure(count.parse().ok()),
            _ => return Self::Never,
        }
        let deploy = service.deploy.as_ref();
        match deploy.and_then(|d| d.restart_policy.as_ref()) {
            None => Self::Unset,
            Some(p) => match p.condition.as_str() {
                "none" => Self::Never,
                "on-failure" => Self::OnFailure(p.max_attempts),
                _ => Self::Always,
            },
        }
    }

    /// Whether a container that ended by itself with a code stays as it is.
    #[must_use]
    pub fn accepts(self, code: i64) -> bool {
        match self {
            Self::HandsOff | Self::Never | Self::Unset => true,
            // The Engine restarts it up to the limit; what is found ended has reached it.
            Self::OnFailure(limit) => code == 0 || limit.is_some(),
            Self::Always => false,
        }
    }
}
