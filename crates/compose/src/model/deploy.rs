//! `deploy`: how a service is run on a cluster (compose-spec, deploy).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, DeviceCount, Duration, Extensions, Mapping, Number, is_zero};

/// How a service is deployed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Deploy {
    /// `replicated` or `global`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Labels of the service (not of its containers).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// How an update is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How a failed update is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Limits and reservations.
    #[serde(default)]
    pub resources: Resources,
    /// When containers are restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where containers may run.
    #[serde(default)]
    pub placement: Placement,
    /// `vip` or `dnsrr`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint_mode: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Pace and policy of an update or a rollback.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Containers updated at a time; 0 is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u64>,
    /// Pause between groups.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub delay: Duration,
    /// `continue`, `rollback` or `pause`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_action: String,
    /// How long a new container is watched.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub monitor: Duration,
    /// Share of failures that is tolerated, 0 to 1.
    #[serde(default, skip_serializing_if = "Number::is_zero")]
    pub max_failure_ratio: Number,
    /// `stop-first` or `start-first`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub order: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Limits and reservations of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// What a container may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resource>,
    /// What a container is guaranteed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Resource>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// An amount of resources.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resource {
    /// Number of CPUs.
    #[serde(default, skip_serializing_if = "Number::is_zero")]
    pub cpus: Number,
    /// Memory.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub memory: Bytes,
    /// Number of processes (limits only).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pids: i64,
    /// Devices (reservations only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRequest>,
    /// User-defined resources (reservations only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A request for devices such as GPUs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// What the devices must be able to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Driver.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// How many; [`DeviceCount::ALL`] for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<DeviceCount>,
    /// Which, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: Mapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A user-defined resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GenericResource {
    /// The resource, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A counted user-defined resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiscreteResource {
    /// Kind, such as `SSD`.
    #[serde(default)]
    pub kind: String,
    /// How many.
    #[serde(default)]
    pub value: i64,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// When containers of a service are restarted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// Pause before a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// How often at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// How long a container must run to count as started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Where containers of a service may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Conditions every node must meet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Labels to spread over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PlacementPreference>,
    /// Containers of the service on one node at most; 0 is no limit.
    #[serde(
        default,
        rename = "max_replicas_per_node",
        skip_serializing_if = "is_zero_u64"
    )]
    pub max_replicas: u64,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands out references
fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

/// A preference for placement.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlacementPreference {
    /// The label whose values containers are spread over.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spread: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}
