//! A service and what belongs to it alone (compose-spec 05).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeSeq};

use super::{
    Build, Bytes, Deploy, Develop, DeviceRequest, Duration, Extensions, FileMode, Mapping, Number,
    OptionalMapping, is_false, is_zero,
};

/// A service: what its containers are made of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Name of the service: its key.
    #[serde(skip)]
    pub name: String,
    /// Profiles the service belongs to; none means always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Annotations of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Mapping,
    /// Whether `up` shows the service's logs; yes unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<bool>,
    /// How the image is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// What happens when sources change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub develop: Option<Develop>,
    /// Block I/O limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blkio_config: Option<BlkioConfig>,
    /// Capabilities added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Parent cgroup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// Cgroup namespace: `host` or `private`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// Number of usable CPUs (Windows).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_count: i64,
    /// Usable share of the CPUs in percent (Windows).
    #[serde(default, skip_serializing_if = "Number::is_zero")]
    pub cpu_percent: Number,
    /// CFS period, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_period: i64,
    /// CFS quota, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_quota: i64,
    /// Real-time period, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_rt_period: i64,
    /// Real-time runtime, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_rt_runtime: i64,
    /// Number of CPUs.
    #[serde(default, skip_serializing_if = "Number::is_zero")]
    pub cpus: Number,
    /// CPUs to run on, such as `0-3,5`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpuset: String,
    /// Relative weight for CPU time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_shares: i64,
    /// Command; unset takes the image's, empty clears it.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Configs mounted into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<FileReference>,
    /// Name of the container, in place of `<project>-<service>-<number>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// Credentials of a managed service account (Windows).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<CredentialSpec>,
    /// Services that must come first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Dependency>,
    /// How the service is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// Rules of the device cgroup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// Devices of the host given to the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceMapping>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Options of the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
    /// Search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Domain name of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Entrypoint; unset takes the image's, empty clears it.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// A program that provides the service in place of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Environment variables; no value means unset in the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: OptionalMapping,
    /// Files with environment variables; read into `environment` while loading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_file: Vec<EnvFile>,
    /// Ports open to other services, as documentation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Links to containers outside the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_links: Vec<String>,
    /// Further host names.
    #[serde(default, skip_serializing_if = "ExtraHosts::is_empty")]
    pub extra_hosts: ExtraHosts,
    /// Further groups of the container's user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<DeviceRequest>,
    /// Host name of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// How health is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Image to run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Whether an init process runs as PID 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// IPC namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipc: String,
    /// Isolation technology (Windows).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Labels of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Files with labels; read into `labels` while loading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_file: Vec<String>,
    /// Links to other services, with aliases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Log driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Memory limit.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub mem_limit: Bytes,
    /// Memory reservation (soft limit).
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub mem_reservation: Bytes,
    /// Memory and swap limit; -1 is unlimited.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub memswap_limit: Bytes,
    /// Readiness to swap, 0 to 100.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub mem_swappiness: Bytes,
    /// MAC address of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Models bound to the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Option<ServiceModel>>,
    /// Network mode: `host`, `none`, `service:…`, `container:…` or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// Networks the service is on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Option<ServiceNetwork>>,
    /// Whether the OOM killer passes the container over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_kill_disable: bool,
    /// OOM score adjustment, -1000 to 1000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
    /// PID namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pid: String,
    /// Number of processes at most; -1 is unlimited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pids_limit: i64,
    /// Platform, such as `linux/arm64`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Whether the container has extended privileges.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// When the image is pulled or built.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pull_policy: String,
    /// Whether the root file system is read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Restart policy: `no`, `always`, `on-failure[:n]`, `unless-stopped`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restart: String,
    /// OCI runtime.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Number of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<i64>,
    /// Secrets mounted into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference>,
    /// Security options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Size of `/dev/shm`.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub shm_size: Bytes,
    /// Whether standard input stays open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stdin_open: bool,
    /// Time to stop before the container is killed; 10 s unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Duration>,
    /// Signal that stops the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Options of the storage driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: Mapping,
    /// Kernel parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: Mapping,
    /// Temporary file systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Whether a terminal is allocated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tty: bool,
    /// Resource limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Whether the container gets the Engine's API socket.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_api_socket: bool,
    /// User the container runs as.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// User namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub userns_mode: String,
    /// UTS namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uts: String,
    /// Mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// Services or containers whose mounts are shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Commands run in the container after its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    /// Commands run in the container before its stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

impl Service {
    /// How many containers are wanted: `scale`, else `deploy.replicas`, else one.
    #[must_use]
    pub fn replicas(&self) -> i64 {
        self.scale
            .or_else(|| self.deploy.as_ref().and_then(|d| d.replicas))
            .unwrap_or(1)
    }
}

/// A dependency on another service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Dependency {
    /// What to wait for.
    #[serde(default)]
    pub condition: Condition,
    /// Whether this service is restarted when the other is updated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restart: bool,
    /// Whether the other service must be there at all.
    #[serde(default = "yes")]
    pub required: bool,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

fn yes() -> bool {
    true
}

/// What a dependency waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Condition {
    /// The service's containers run.
    #[default]
    #[serde(rename = "service_started")]
    Started,
    /// They are healthy.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// They ended with exit code 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// Block I/O limits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BlkioConfig {
    /// Relative weight, 10 to 1000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weight: i64,
    /// Weight per device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes read per second and device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<ThrottleDevice>,
    /// Reads per second and device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<ThrottleDevice>,
    /// Bytes written per second and device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<ThrottleDevice>,
    /// Writes per second and device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<ThrottleDevice>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Weight of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WeightDevice {
    /// Device node.
    #[serde(default)]
    pub path: String,
    /// Relative weight.
    #[serde(default)]
    pub weight: i64,
}

/// Rate limit of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ThrottleDevice {
    /// Device node.
    #[serde(default)]
    pub path: String,
    /// Bytes or operations per second.
    #[serde(default)]
    pub rate: Bytes,
}

/// Use of a config or a secret by a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FileReference {
    /// Key of the config or secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gid: String,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Credentials of a managed service account (Windows).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CredentialSpec {
    /// Config with the credential spec.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// File with the credential spec.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Registry key with the credential spec.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A device of the host given to a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Path on the host, or a CDI device name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Cgroup permissions: any of `r`, `w`, `m`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub permissions: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A program that provides a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provider {
    /// Name of the program.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Options, each with one or more values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Vec<String>>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A file with environment variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Absolute path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Whether it must be there.
    #[serde(default = "yes")]
    pub required: bool,
    /// Format: empty for the `.env` dialect, `raw` for values taken as they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
}

/// Further host names, each with its addresses. Written as sorted `name=address` strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtraHosts(pub BTreeMap<String, Vec<String>>);

impl ExtraHosts {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for ExtraHosts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut lines: Vec<String> = self
            .0
            .iter()
            .flat_map(|(host, addresses)| addresses.iter().map(move |a| format!("{host}={a}")))
            .collect();
        lines.sort();
        let mut seq = s.serialize_seq(Some(lines.len()))?;
        for line in &lines {
            seq.serialize_element(line)?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for ExtraHosts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // By host as the loader has them, or in lines as they are written.
        let lines = match MapOrList::deserialize(d)? {
            MapOrList::Map(map) => return Ok(Self(map)),
            MapOrList::List(lines) => lines,
        };
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let Some((host, address)) = line.split_once('=') else {
                return Err(D::Error::custom(format!("{line:?} is no HOST=ADDRESS")));
            };
            let addresses = hosts.entry(host.to_owned()).or_default();
            addresses.push(address.to_owned());
        }
        Ok(Self(hosts))
    }
}

/// A map, or the lines it is written as.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum MapOrList<T> {
    Map(BTreeMap<String, T>),
    List(Vec<String>),
}

/// How health is checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// How long a check may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    /// Time after the start in which failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Duration>,
    /// Time between checks during the start period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Duration>,
    /// No check, whatever the image says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable: bool,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Log driver of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Logging {
    /// Driver.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: Mapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A model bound to a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceModel {
    /// Variable that gets the endpoint's URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint_var: String,
    /// Variable that gets the model's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model_var: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// How a service is on a network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// Further names on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Options of the driver for this endpoint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: Mapping,
    /// The network with the highest value is the default gateway.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gw_priority: i64,
    /// Name of the interface in the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// Static IPv4 address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// Static IPv6 address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Link-local addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
    /// MAC address on this network.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Networks with a higher value are connected first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Port {
    /// Name, as documentation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `ingress` or `host`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Host address to listen on; all when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// Port in the container.
    #[serde(default)]
    pub target: u16,
    /// Port or range on the host; chosen by the Engine when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub published: String,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Application protocol, such as `http`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app_protocol: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ulimit {
    /// One value for both.
    Single(i64),
    /// Soft and hard limits.
    Pair {
        /// Soft limit.
        soft: i64,
        /// Hard limit.
        hard: i64,
    },
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match *self {
            Self::Single(n) if n != 0 => s.serialize_i64(n),
            Self::Single(_) => s.serialize_map(Some(0))?.end(),
            Self::Pair { soft, hard } => {
                let mut map = s.serialize_map(None)?;
                if soft != 0 {
                    map.serialize_entry("soft", &soft)?;
                }
                if hard != 0 {
                    map.serialize_entry("hard", &hard)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = |v: &serde_json::Value| {
            v.as_i64()
                .ok_or_else(|| D::Error::custom("a limit must be a whole number"))
        };
        match serde_json::Value::deserialize(d)? {
            // What a single 0 is written as.
            serde_json::Value::Object(map) if map.is_empty() => Ok(Self::Single(0)),
            serde_json::Value::Object(map) => Ok(Self::Pair {
                soft: map.get("soft").map(number).transpose()?.unwrap_or(0),
                hard: map.get("hard").map(number).transpose()?.unwrap_or(0),
            }),
            other => number(&other).map(Self::Single),
        }
    }
}

/// A mount of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Mount {
    /// Kind of the source.
    #[serde(default, rename = "type")]
    pub kind: MountKind,
    /// Host path, volume key, image or device; empty for anonymous volumes and tmpfs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Whether the mount is read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Consistency (Docker Desktop).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// Options of a bind mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindOptions>,
    /// Options of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeOptions>,
    /// Options of a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TmpfsOptions>,
    /// Options of an image mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Kind of a mount's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// A Windows named pipe.
    Npipe,
    /// A cluster volume (CSI).
    Cluster,
    /// The content of an image.
    Image,
}

/// Options of a bind mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BindOptions {
    /// Re-labelling: `z` shared, `Z` private.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selinux: String,
    /// Propagation mode.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Whether a missing host path is made; the short syntax asks for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_host_path: bool,
    /// How submounts are treated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recursive: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Options of a volume mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// Labels of an anonymous volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Whether the image's content is not copied into an empty volume.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nocopy: bool,
    /// Path inside the volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// Size; unlimited when zero.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub size: Bytes,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mode: i64,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Options of an image mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageOptions {
    /// Path inside the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A command run in a container at a point of its life.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Hook {
    /// The command.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// User it runs as.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Whether it has extended privileges.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// Working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: OptionalMapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}
