//! A plan: operations, each with those that must be done before it.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharfie_compose::model::Condition;

/// Operations in an order that respects what each comes after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The operations. A step only comes after steps before it in this list.
    pub steps: Vec<Step>,
    /// What the user should know, such as orphans that stay.
    pub notices: Vec<String>,
}

/// One operation and the steps it comes after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// Indices of the steps that come first.
    pub after: Vec<usize>,
}

impl Plan {
    /// Whether it makes containers.
    #[must_use]
    pub fn makes_containers(&self) -> bool {
        let makes = |o: &Operation| {
            matches!(
                o,
                Operation::CreateContainer { .. } | Operation::RecreateContainer { .. }
            )
        };
        self.steps.iter().any(|s| makes(&s.operation))
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds an operation; returns its index.
    pub fn push(&mut self, operation: Operation, mut after: Vec<usize>) -> usize {
        after.sort_unstable();
        after.dedup();
        self.steps.push(Step { operation, after });
        self.steps.len() - 1
    }

    /// Adds the steps of another plan, which come after nothing of this one.
    pub fn append(&mut self, other: &Self) {
        let first = self.steps.len();
        for step in &other.steps {
            let after = step.after.iter().map(|i| i + first).collect();
            self.push(step.operation.clone(), after);
        }
    }

    /// Whether images are pulled or built. What comes after depends on the result, so an
    /// executor does these alone and then plans again.
    #[must_use]
    pub fn prepares_images(&self) -> bool {
        self.steps.iter().any(|s| s.operation.is_image())
    }

    /// Only the operations on images.
    #[must_use]
    pub fn images_only(&self) -> Self {
        let steps = self
            .steps
            .iter()
            .filter(|s| s.operation.is_image())
            .map(|s| Step {
                operation: s.operation.clone(),
                after: Vec::new(),
            })
            .collect();
        Self {
            steps,
            notices: Vec::new(),
        }
    }
}

/// One thing done to an Engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Operation {
    /// Pull a service's image.
    PullImage {
        /// Service.
        service: String,
        /// Reference.
        image: String,
    },
    /// Build a service's image.
    BuildImage {
        /// Service.
        service: String,
        /// Name the image gets.
        image: String,
    },
    /// Make a network of the project.
    CreateNetwork {
        /// Key in the file.
        network: String,
        /// Name on the Engine.
        name: String,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Name on the Engine.
        name: String,
        /// Why.
        reason: String,
    },
    /// Make a volume of the project.
    CreateVolume {
        /// Key in the file.
        volume: String,
        /// Name on the Engine.
        name: String,
    },
    /// Remove a volume.
    RemoveVolume {
        /// Name on the Engine.
        name: String,
    },
    /// Remove an image.
    RemoveImage {
        /// Reference.
        image: String,
    },
    /// Make a container.
    CreateContainer {
        /// Service.
        service: String,
        /// Number within the service.
        number: u32,
        /// Name.
        name: String,
    },
    /// Make a container in the place of another, which is stopped and removed.
    RecreateContainer {
        /// Service.
        service: String,
        /// Number within the service.
        number: u32,
        /// Name.
        name: String,
        /// Id of the container it takes the place of.
        old: String,
        /// Why.
        reason: String,
        /// Whether anonymous volumes are not taken over.
        renew_volumes: bool,
        /// Whether the new one runs before the old one is stopped.
        #[serde(default)]
        start_first: bool,
        /// Seconds to stop in, in place of the service's own.
        timeout: Option<i64>,
    },
    /// Start a container.
    StartContainer {
        /// Service.
        service: String,
        /// Name.
        name: String,
    },
    /// Stop and start a container.
    RestartContainer {
        /// Service.
        service: String,
        /// Name.
        name: String,
        /// Why.
        reason: String,
        /// Seconds to stop in, in place of the service's own.
        timeout: Option<i64>,
    },
    /// Wait until a container meets a condition.
    Wait {
        /// Service.
        service: String,
        /// Name.
        name: String,
        /// The condition.
        condition: Condition,
        /// Whether it is a failure if it does not.
        required: bool,
        /// Whether it is on another node.
        #[serde(default)]
        elsewhere: bool,
    },
    /// Stop a container.
    StopContainer {
        /// Service.
        service: String,
        /// Id.
        id: String,
        /// Name.
        name: String,
        /// Seconds to stop in, in place of the service's own.
        timeout: Option<i64>,
    },
    /// Send a signal to a container.
    SignalContainer {
        /// Service.
        service: String,
        /// Id.
        id: String,
        /// Name.
        name: String,
        /// The signal, such as `SIGKILL`.
        signal: String,
    },
    /// Stop a container if it runs, and remove it.
    RemoveContainer {
        /// Service.
        service: String,
        /// Id.
        id: String,
        /// Name.
        name: String,
        /// Why.
        reason: String,
        /// Whether it runs now.
        running: bool,
        /// Whether its anonymous volumes go too.
        volumes: bool,
        /// Seconds to stop in, in place of the service's own.
        timeout: Option<i64>,
    },
}

impl Operation {
    /// The container it is done to, with its service: `(service, name)`.
    #[must_use]
    pub fn container(&self) -> Option<(&str, &str)> {
        match self {
            Self::CreateContainer { service, name, .. }
            | Self::RecreateContainer { service, name, .. }
            | Self::StartContainer { service, name }
            | Self::RestartContainer { service, name, .. }
            | Self::Wait { service, name, .. }
            | Self::StopContainer { service, name, .. }
            | Self::SignalContainer { service, name, .. }
            | Self::RemoveContainer { service, name, .. } => Some((service, name)),
            _ => None,
        }
    }

    /// Whether it prepares an image.
    #[must_use]
    pub fn is_image(&self) -> bool {
        matches!(self, Self::PullImage { .. } | Self::BuildImage { .. })
    }

    /// What it is done to, as docker compose shows it: `Container demo-web-1`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::PullImage { image, .. }
            | Self::BuildImage { image, .. }
            | Self::RemoveImage { image } => {
                format!("Image {image}")
            }
            Self::CreateNetwork { name, .. } | Self::RemoveNetwork { name, .. } => {
                format!("Network {name}")
            }
            Self::CreateVolume { name, .. } | Self::RemoveVolume { name } => {
                format!("Volume {name}")
            }
            Self::CreateContainer { name, .. }
            | Self::RecreateContainer { name, .. }
            | Self::StartContainer { name, .. }
            | Self::RestartContainer { name, .. }
            | Self::Wait { name, .. }
            | Self::StopContainer { name, .. }
            | Self::SignalContainer { name, .. }
            | Self::RemoveContainer { name, .. } => format!("Container {name}"),
        }
    }

    /// Words for it while it is done and when it is: `("Creating", "Created")`.
    #[must_use]
    pub fn progress(&self) -> (&'static str, &'static str) {
        match self {
            Self::PullImage { .. } => ("Pulling", "Pulled"),
            Self::BuildImage { .. } => ("Building", "Built"),
            Self::CreateNetwork { .. }
            | Self::CreateVolume { .. }
            | Self::CreateContainer { .. } => ("Creating", "Created"),
            Self::RemoveNetwork { .. }
            | Self::RemoveVolume { .. }
            | Self::RemoveImage { .. }
            | Self::RemoveContainer { .. } => ("Removing", "Removed"),
            Self::RecreateContainer { .. } => ("Recreating", "Recreated"),
            Self::StartContainer { .. } => ("Starting", "Started"),
            Self::RestartContainer { .. } => ("Restarting", "Restarted"),
            Self::Wait {
                condition: Condition::Healthy,
                ..
            } => ("Waiting", "Healthy"),
            Self::Wait {
                condition: Condition::CompletedSuccessfully,
                ..
            } => ("Waiting", "Exited"),
            Self::Wait {
                condition: Condition::Started,
                ..
            } => ("Waiting", "Running"),
            Self::StopContainer { .. } => ("Stopping", "Stopped"),
            Self::SignalContainer { .. } => ("Killing", "Killed"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage { service, image } => write!(f, "pull image {image} for {service}"),
            Self::BuildImage { service, image } => write!(f, "build image {image} for {service}"),
            Self::CreateNetwork { name, .. } => write!(f, "create network {name}"),
            Self::RemoveNetwork { name, reason } => write!(f, "remove network {name}: {reason}"),
            Self::CreateVolume { name, .. } => write!(f, "create volume {name}"),
            Self::RemoveVolume { name } => write!(f, "remove volume {name}"),
            Self::RemoveImage { image } => write!(f, "remove image {image}"),
            Self::CreateContainer { name, .. } => write!(f, "create container {name}"),
            Self::RecreateContainer { name, reason, .. } => {
                write!(f, "recreate container {name}: {reason}")
            }
            Self::StartContainer { name, .. } => write!(f, "start container {name}"),
            Self::RestartContainer { name, reason, .. } => {
                write!(f, "restart container {name}: {reason}")
            }
            Self::Wait {
                name, condition, ..
            } => match condition {
                Condition::Started => write!(f, "wait until container {name} runs"),
                Condition::Healthy => write!(f, "wait until container {name} is healthy"),
                Condition::CompletedSuccessfully => {
                    write!(f, "wait until container {name} has ended well")
                }
            },
            Self::StopContainer { name, .. } => write!(f, "stop container {name}"),
            Self::SignalContainer { name, .. } => write!(f, "kill container {name}"),
            Self::RemoveContainer { name, reason, .. } => {
                write!(f, "remove container {name}: {reason}")
            }
        }
    }
}
