//! Limits, reservations and devices of a container.

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, HostConfigIsolationEnum, ResourcesBlkioWeightDevice,
    ResourcesUlimits, ThrottleDevice,
};
use wharfie_compose::model::{self, Service, Ulimit};

use super::{list, positive, text};
use crate::ApiVersion;

/// The part of the host configuration that limits what a container may use.
pub(super) fn limits(service: &Service) -> HostConfig {
    let mut host = HostConfig {
        cpu_shares: positive(service.cpu_shares),
        cpu_period: positive(service.cpu_period),
        cpu_quota: positive(service.cpu_quota),
        cpu_realtime_period: positive(service.cpu_rt_period),
        cpu_realtime_runtime: positive(service.cpu_rt_runtime),
        cpuset_cpus: text(&service.cpuset),
        nano_cpus: nano(service.cpus.0),
        memory: positive(service.mem_limit.0),
        memory_reservation: positive(service.mem_reservation.0),
        memory_swap: positive(service.memswap_limit.0),
        memory_swappiness: positive(service.mem_swappiness.0),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        oom_score_adj: positive(service.oom_score_adj),
        pids_limit: positive(service.pids_limit),
        devices: list(devices(service)),
        device_cgroup_rules: list(service.device_cgroup_rules.clone()),
        ulimits: list(ulimits(service)),
        isolation: match service.isolation.as_str() {
            "default" => Some(HostConfigIsolationEnum::DEFAULT),
            "process" => Some(HostConfigIsolationEnum::PROCESS),
            "hyperv" => Some(HostConfigIsolationEnum::HYPERV),
            _ => None,
        },
        ..HostConfig::default()
    };
    if let Some(blkio) = &service.blkio_config {
        host.blkio_weight = u16::try_from(blkio.weight).ok().filter(|w| *w != 0);
        host.blkio_weight_device = list(
            blkio
                .weight_device
                .iter()
                .map(|d| ResourcesBlkioWeightDevice {
                    path: text(&d.path),
                    weight: usize::try_from(d.weight).ok(),
                })
                .collect(),
        );
        let throttle = |devices: &[model::ThrottleDevice]| {
            list(
                devices
                    .iter()
                    .map(|d| ThrottleDevice {
                        path: text(&d.path),
                        rate: Some(d.rate.0),
                    })
                    .collect(),
            )
        };
        host.blkio_device_read_bps = throttle(&blkio.device_read_bps);
        host.blkio_device_read_iops = throttle(&blkio.device_read_iops);
        host.blkio_device_write_bps = throttle(&blkio.device_write_bps);
        host.blkio_device_write_iops = throttle(&blkio.device_write_iops);
    }
    if let Some(deploy) = &service.deploy {
        if let Some(limits) = &deploy.resources.limits {
            host.nano_cpus = nano(limits.cpus.0).or(host.nano_cpus);
            host.memory = positive(limits.memory.0).or(host.memory);
            host.pids_limit = positive(limits.pids).or(host.pids_limit);
        }
        if let Some(reservations) = &deploy.resources.reservations {
            host.memory_reservation = positive(reservations.memory.0).or(host.memory_reservation);
        }
    }
    host
}

fn nano(cpus: f32) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation)] // a number of CPUs
    let nano = (f64::from(cpus) * 1e9).round() as i64;
    // An f32 such as 0.1 is not exact: the fourth digit is as fine as the kernel's quota.
    positive(nano / 100_000 * 100_000 + if nano % 100_000 >= 50_000 { 100_000 } else { 0 })
}

/// Whether a device names a CDI device (`vendor.com/class=name`) rather than a path.
pub(crate) fn is_cdi(device: &model::DeviceMapping) -> bool {
    !device.source.starts_with('/') && device.source.contains('=')
}

fn devices(service: &Service) -> Vec<DeviceMapping> {
    service
        .devices
        .iter()
        .filter(|d| !is_cdi(d))
        .map(|d| DeviceMapping {
            path_on_host: text(&d.source),
            path_in_container: text(&d.target),
            cgroup_permissions: text(&d.permissions).or_else(|| Some("rwm".to_owned())),
        })
        .collect()
}

fn ulimits(service: &Service) -> Vec<ResourcesUlimits> {
    service
        .ulimits
        .iter()
        .map(|(name, limit)| {
            let (soft, hard) = match *limit {
                Ulimit::Single(n) => (n, n),
                Ulimit::Pair { soft, hard } => (soft, hard),
            };
            ResourcesUlimits {
                name: Some(name.clone()),
                soft: Some(soft),
                hard: Some(hard),
            }
        })
        .collect()
}

/// GPUs, reserved devices and CDI devices.
pub(super) fn device_requests(service: &Service, _api: ApiVersion) -> Vec<DeviceRequest> {
    let reserved = service
        .deploy
        .iter()
        .filter_map(|d| d.resources.reservations.as_ref())
        .flat_map(|r| &r.devices);
    let mut requests: Vec<DeviceRequest> = reserved.map(|d| device_request(d, None)).collect();
    requests.extend(service.gpus.iter().map(|d| device_request(d, Some("gpu"))));
    let cdi: Vec<String> = service
        .devices
        .iter()
        .filter(|d| is_cdi(d))
        .map(|d| d.source.clone())
        .collect();
    if !cdi.is_empty() {
        requests.push(DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(cdi),
            ..DeviceRequest::default()
        });
    }
    requests
}

fn device_request(wanted: &model::DeviceRequest, implied: Option<&str>) -> DeviceRequest {
    let mut capabilities = wanted.capabilities.clone();
    if let Some(implied) = implied
        && !capabilities.iter().any(|c| c == implied)
    {
        capabilities.push(implied.to_owned());
    }
    DeviceRequest {
        driver: text(&wanted.driver),
        count: wanted.count.map(|c| c.0),
        device_ids: list(wanted.device_ids.clone()),
        capabilities: Some(vec![capabilities]),
        options: Some(wanted.options.clone().into_iter().collect()),
    }
}
