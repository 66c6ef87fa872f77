//! A service as the Engine's create request. Pure: everything from outside comes in.
//!
//! Engine API: `POST /containers/create`. What the Engine cannot do is found beforehand by
//! [`crate::support`]; here every attribute it can do is written.

mod mounts;
mod network;
mod resources;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use wharfie_compose::model::{Healthcheck, Port, Project, Service};
use wharfie_core::network::publish::{self, PublishedPort};

pub(crate) use mounts::{Content, Injected};
pub use network::{connections, network_request, volume_request};
pub(crate) use resources::is_cdi;

use crate::ApiVersion;

/// A container to be made.
pub struct Wanted<'a> {
    /// Project it belongs to.
    pub project: &'a Project,
    /// Service it is of.
    pub service: &'a Service,
    /// Number within the service.
    pub number: u32,
    /// Whether it is a one-off container.
    pub oneoff: bool,
    /// Id of its image.
    pub image_id: String,
    /// Containers of other services by service, first number first: namespaces, links and
    /// `volumes_from` refer to them.
    pub others: &'a BTreeMap<String, Vec<Other>>,
    /// Anonymous volumes taken over from the container it replaces: target to volume name.
    pub inherited: BTreeMap<String, String>,
    /// Path of the Engine's socket, for `use_api_socket`.
    pub socket: Option<&'a str>,
    /// What it gets on networks that span nodes, by the networks' names.
    pub given: BTreeMap<String, Given>,
}

/// What a container gets on a network that spans nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Who answers for the names on the network: what the Engine knew would be answered by it, and
    /// hide what other nodes have.
    pub resolver: Option<IpAddr>,
}

/// Another container that a container may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// What is sent to the Engine for a container.
#[derive(Debug, Clone)]
pub struct Request {
    /// The body of the create request.
    pub body: ContainerCreateBody,
    /// Networks to connect before the start: those that do not fit in the body.
    pub connections: Vec<(String, bollard::models::EndpointSettings)>,
    /// Files copied into the container before the start.
    pub(crate) injected: Vec<Injected>,
}

impl Request {
    /// Whether the container is not complete once it is created.
    pub(crate) fn needs_finishing(&self) -> bool {
        !self.injected.is_empty()
    }
}

/// Makes the request. `name` is the container's name, an alias on its networks.
#[must_use]
pub fn request(wanted: &Wanted, name: &str, api: ApiVersion) -> Request {
    let service = wanted.service;
    let mut mounts = mounts::mounts(wanted, api);
    let (networking, connections) = network::networking(wanted, name, api);
    // What every node publishes, its Engine must not; a container of `run` is none of the service's.
    let clusters = !wanted.oneoff && publish::is_clusters(wanted.project, service);
    let everywhere = |p: &&Port| clusters && PublishedPort::of(p).is_some();
    let ports = network::ports(service.ports.iter().filter(|p| !everywhere(p)));
    let first = |other: &str| Some(wanted.others.get(other)?.first()?.id.clone());
    let hash = wharfie_core::shared::config_hash(service, first).unwrap_or_default();
    let mut labels = wharfie_core::labels::container(
        wanted.project,
        service,
        &hash,
        (!wanted.oneoff).then_some(wanted.number),
        &wanted.image_id,
    );
    if clusters {
        let of = publish::everywhere(service);
        let all: Vec<String> = of.map(|(port, target)| port.mapping(target)).collect();
        if !all.is_empty() {
            labels.insert(wharfie_core::labels::PORTS.to_owned(), all.join(" "));
        }
    }
    let mut exposed: Vec<String> = service
        .expose
        .iter()
        .flat_map(|e| network::exposed(e))
        .collect();
    exposed.extend(network::ports(&service.ports).into_keys());
    exposed.sort();
    exposed.dedup();
    let anonymous = std::mem::take(&mut mounts.anonymous);
    let host_config = HostConfig {
        binds: list(mounts.binds),
        mounts: list(mounts.mounts),
        tmpfs: map(mounts.tmpfs),
        volumes_from: list(volumes_from(wanted)),
        port_bindings: (!ports.is_empty()).then_some(ports),
        network_mode: Some(network::mode(wanted)),
        ..host_config(wanted, api)
    };
    let body = ContainerCreateBody {
        hostname: text(&service.hostname),
        domainname: text(&service.domainname),
        user: text(&service.user),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        attach_stdin: Some(false),
        exposed_ports: list(exposed),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        stdin_once: Some(false),
        env: Some(environment(&service.environment)),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.as_ref().map(|e| {
            // The Engine reads an empty list as "the image's"; one empty word clears it.
            if e.is_empty() {
                vec![String::new()]
            } else {
                e.clone()
            }
        }),
        healthcheck: service.healthcheck.as_ref().map(|h| healthcheck(h, api)),
        image: Some(wharfie_core::names::image(wanted.project, service)),
        volumes: list(anonymous),
        working_dir: text(&service.working_dir),
        labels: Some(labels.into_iter().collect()),
        stop_signal: text(&service.stop_signal),
        stop_timeout: service.stop_grace_period.map(|d| seconds_up(d.0)),
        host_config: Some(host_config),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    Request {
        body,
        connections,
        injected: mounts.injected,
    }
}

fn host_config(wanted: &Wanted, api: ApiVersion) -> HostConfig {
    let service = wanted.service;
    let mut host = resources::limits(service);
    host.annotations = map(service.annotations.clone().into_iter().collect());
    host.cap_add = list(service.cap_add.clone());
    host.cap_drop = list(service.cap_drop.clone());
    host.cgroup_parent = text(&service.cgroup_parent);
    host.cgroupns_mode = match service.cgroup.as_str() {
        "host" => Some(HostConfigCgroupnsModeEnum::HOST),
        "private" => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    let own = network::resolvers(wanted);
    host.dns = list(own.into_iter().chain(service.dns.clone()).collect());
    host.dns_options = list(service.dns_opt.clone());
    host.dns_search = list(service.dns_search.clone());
    host.extra_hosts = list(
        service
            .extra_hosts
            .0
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |a| format!("{name}:{a}")))
            .collect(),
    );
    host.group_add = list(service.group_add.clone());
    host.init = service.init;
    host.ipc_mode = text(&shared_mode(&service.ipc, wanted));
    host.pid_mode = text(&shared_mode(&service.pid, wanted));
    host.uts_mode = text(&service.uts);
    host.userns_mode = text(&service.userns_mode);
    host.log_config = service.logging.as_ref().map(|l| HostConfigLogConfig {
        typ: text(&l.driver),
        config: Some(l.options.clone().into_iter().collect()),
    });
    host.privileged = service.privileged.then_some(true);
    host.readonly_rootfs = service.read_only.then_some(true);
    host.restart_policy = restart_policy(service);
    host.runtime = text(&service.runtime);
    host.security_opt = list(
        service
            .security_opt
            .iter()
            .map(|o| security_opt(o, wanted.project))
            .collect(),
    );
    host.shm_size = positive(service.shm_size.0);
    host.storage_opt = map(service.storage_opt.clone().into_iter().collect());
    host.sysctls = map(service.sysctls.clone().into_iter().collect());
    host.device_requests = list(resources::device_requests(service, api));
    host.links = None;
    host
}

/// `service:x` and `container:x` for namespaces; other modes as they are.
fn shared_mode(mode: &str, wanted: &Wanted) -> String {
    match mode.strip_prefix("service:") {
        Some(other) => match wanted.others.get(other).and_then(|c| c.first()) {
            Some(container) => format!("container:{}", container.id),
            None => mode.to_owned(),
        },
        None => mode.to_owned(),
    }
}

fn volumes_from(wanted: &Wanted) -> Vec<String> {
    wanted
        .service
        .volumes_from
        .iter()
        .map(|source| {
            if let Some(container) = source.strip_prefix("container:") {
                return container.to_owned();
            }
            let (name, mode) = source.split_once(':').unwrap_or((source, ""));
            let id = wanted
                .others
                .get(name)
                .and_then(|c| c.first())
                .map_or(name, |c| c.id.as_str());
            if mode.is_empty() {
                id.to_owned()
            } else {
                format!("{id}:{mode}")
            }
        })
        .collect()
}

/// A seccomp profile given as a file is sent by its content.
fn security_opt(option: &str, project: &Project) -> String {
    let parts = option.split_once('=').or_else(|| option.split_once(':'));
    if let Some(("seccomp", profile)) = parts
        && profile != "unconfined"
        && profile != "builtin"
        && let Ok(content) = std::fs::read_to_string(project.working_dir.join(profile))
    {
        let compact =
            serde_json::from_str::<serde_json::Value>(&content).map_or(content, |v| v.to_string());
        return format!("seccomp={compact}");
    }
    option.to_owned()
}

fn environment(variables: &BTreeMap<String, Option<String>>) -> Vec<String> {
    variables
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            // A bare name takes the variable away from the image's environment.
            None => name.clone(),
        })
        .collect()
}

fn healthcheck(check: &Healthcheck, api: ApiVersion) -> HealthConfig {
    let nanoseconds = |d: Option<wharfie_compose::model::Duration>| d.map(|d| d.0);
    HealthConfig {
        test: if check.disable {
            Some(vec!["NONE".to_owned()])
        } else {
            list(check.test.clone())
        },
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: check.retries.and_then(|r| i64::try_from(r).ok()),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval).filter(|_| api >= ApiVersion(1, 44)),
    }
}

/// `restart`, else `deploy.restart_policy`.
fn restart_policy(service: &Service) -> Option<RestartPolicy> {
    let policy = |name, count| {
        Some(RestartPolicy {
            name: Some(name),
            maximum_retry_count: count,
        })
    };
    if !service.restart.is_empty() {
        let (name, count) = service
            .restart
            .split_once(':')
            .unwrap_or((&service.restart, ""));
        return match name {
            "always" => policy(RestartPolicyNameEnum::ALWAYS, None),
            "unless-stopped" => policy(RestartPolicyNameEnum::UNLESS_STOPPED, None),
            "on-failure" => policy(RestartPolicyNameEnum::ON_FAILURE, count.parse().ok()),
            _ => policy(RestartPolicyNameEnum::NO, None),
        };
    }
    let wanted = service.deploy.as_ref()?.restart_policy.as_ref()?;
    let count = wanted.max_attempts.and_then(|n| i64::try_from(n).ok());
    match wanted.condition.as_str() {
        "none" => policy(RestartPolicyNameEnum::NO, None),
        "on-failure" => policy(RestartPolicyNameEnum::ON_FAILURE, count),
        _ => policy(RestartPolicyNameEnum::ALWAYS, None),
    }
}

/// Whole seconds, rounded up: a grace period is never cut short.
pub(crate) fn seconds_up(nanoseconds: i64) -> i64 {
    nanoseconds.max(0).saturating_add(999_999_999) / 1_000_000_000
}

pub(crate) fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

pub(crate) fn list<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

pub(crate) fn map(values: HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!values.is_empty()).then_some(values)
}

pub(crate) fn positive(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}
