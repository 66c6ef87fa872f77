//! What containers use: CPU, memory, network, disk, processes.

use bollard::models::{
    ContainerBlkioStats, ContainerCpuStats, ContainerMemoryStats, ContainerNetworkStats,
    ContainerStatsResponse,
};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::{Stream, StreamExt};

use crate::{Engine, Error};

/// What a container uses, in the figures that `docker stats` shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Share of one CPU in percent since the sample before; 200 are two CPUs.
    pub cpu: f64,
    /// Bytes of memory without the page cache that could be given up.
    pub memory: u64,
    /// Bytes of memory it may use: its limit, or all the host has.
    pub memory_limit: u64,
    /// Bytes received on all its networks.
    pub received: u64,
    /// Bytes sent on all its networks.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to block devices.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    /// Share of the memory it may use, in percent.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a percentage has no 53 digits
    pub fn memory_percent(&self) -> f64 {
        match self.memory_limit {
            0 => 0.0,
            limit => self.memory as f64 / limit as f64 * 100.0,
        }
    }
}

impl Engine {
    /// What a container uses (`GET /containers/{id}/stats`): about once a second if `stream`,
    /// else once. The Engine takes a second for the first figure, since it needs two samples.
    ///
    /// A container that does not run uses nothing, and if `stream` says nothing until it does.
    pub fn stats(
        &self,
        id: &str,
        stream: bool,
    ) -> impl Stream<Item = Result<Usage, Error>> + Send + use<> {
        let id = id.to_owned();
        let options = StatsOptionsBuilder::default().stream(stream).build();
        self.docker
            .stats(&id, Some(options))
            .map(move |item| match item {
                Ok(sample) => Ok(usage(&sample)),
                Err(e) => Err(Error::from_engine(format!("cannot read what {id} uses"), e)),
            })
    }
}

/// The figures in the Engine's sample.
fn usage(sample: &ContainerStatsResponse) -> Usage {
    let (received, sent) = sample
        .networks
        .as_ref()
        .map_or((0, 0), |n| transferred(n.values()));
    let (read, written) = sample.blkio_stats.as_ref().map_or((0, 0), blocks);
    let memory = sample.memory_stats.as_ref();
    let now = sample.cpu_stats.as_ref();
    Usage {
        cpu: now.map_or(0.0, |now| cpu(now, sample.precpu_stats.as_ref())),
        memory: memory.map_or(0, used_memory),
        memory_limit: memory.and_then(|m| m.limit).unwrap_or(0),
        received,
        sent,
        read,
        written,
        pids: sample
            .pids_stats
            .as_ref()
            .and_then(|p| p.current)
            .unwrap_or(0),
    }
}

/// The container's part of what all CPUs did between two samples, times their number.
#[allow(clippy::cast_precision_loss)] // a percentage has no 53 digits
fn cpu(now: &ContainerCpuStats, before: Option<&ContainerCpuStats>) -> f64 {
    let own = |s: &ContainerCpuStats| s.cpu_usage.as_ref().and_then(|u| u.total_usage);
    let delta = |read: &dyn Fn(&ContainerCpuStats) -> Option<u64>| {
        let before = before.and_then(read).unwrap_or(0);
        read(now).unwrap_or(0).saturating_sub(before) as f64
    };
    let (own, all) = (delta(&own), delta(&|s| s.system_cpu_usage));
    // Old kernels tell the usage of each CPU instead of their number.
    let listed = || Some(now.cpu_usage.as_ref()?.percpu_usage.as_ref()?.len());
    let cpus = match now.online_cpus {
        Some(n @ 1..) => f64::from(n),
        _ => listed().unwrap_or(0) as f64,
    };
    if own > 0.0 && all > 0.0 {
        own / all * cpus * 100.0
    } else {
        0.0
    }
}

/// Used memory without inactive page cache: `total_inactive_file` is cgroup v1's word for it,
/// `inactive_file` v2's (v1 has that too, but there it leaves out the children).
fn used_memory(memory: &ContainerMemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or(0);
    let stat = |key: &str| memory.stats.as_ref().and_then(|s| s.get(key)).copied();
    let counted = |cache: &u64| *cache < usage;
    stat("total_inactive_file")
        .filter(counted)
        .or_else(|| stat("inactive_file").filter(counted))
        .map_or(usage, |cache| usage - cache)
}

/// Bytes received and sent.
fn transferred<'a>(networks: impl Iterator<Item = &'a ContainerNetworkStats>) -> (u64, u64) {
    networks.fold((0, 0), |(received, sent), n| {
        (
            received + n.rx_bytes.unwrap_or(0),
            sent + n.tx_bytes.unwrap_or(0),
        )
    })
}

/// Bytes read and written. cgroup v1 writes `Read` and `Write`, v2 `read` and `write`.
fn blocks(stats: &ContainerBlkioStats) -> (u64, u64) {
    let entries = stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| {
        let value = entry.value.unwrap_or(0);
        match entry.op.as_deref().and_then(|op| op.chars().next()) {
            Some('r' | 'R') => (read + value, written),
            Some('w' | 'W') => (read, written + value),
            _ => (read, written),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(value: serde_json::Value) -> ContainerStatsResponse {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_sample_of_cgroup_v1() {
        let usage = usage(&sample(json!({
            "cpu_stats": {
                "cpu_usage": {"total_usage": 3_000, "percpu_usage": [2_000, 1_000]},
                "system_cpu_usage": 20_000, "online_cpus": 2
            },
            "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000},
            "memory_stats": {
                "usage": 1_000, "limit": 4_000,
                "stats": {"total_inactive_file": 600, "inactive_file": 100}
            },
            "networks": {
                "eth0": {"rx_bytes": 1, "tx_bytes": 10},
                "eth1": {"rx_bytes": 2, "tx_bytes": 20}
            },
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "Read", "value": 5}, {"op": "Write", "value": 7},
                {"op": "Sync", "value": 9}, {"op": "Total", "value": 12},
                {"op": "Read", "value": 1}
            ]},
            "pids_stats": {"current": 4}
        })));
        assert_eq!(
            usage,
            Usage {
                cpu: 40.0,
                memory: 400,
                memory_limit: 4_000,
                received: 3,
                sent: 30,
                read: 6,
                written: 7,
                pids: 4
            }
        );
        assert!((usage.memory_percent() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_sample_of_cgroup_v2() {
        let usage = usage(&sample(json!({
            "memory_stats": {"usage": 1_000, "limit": 4_000, "stats": {"inactive_file": 100}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "read", "value": 5}, {"op": "write", "value": 7}
            ]},
        })));
        assert_eq!((usage.memory, usage.read, usage.written), (900, 5, 7));
    }

    #[test]
    fn cache_is_only_taken_off_where_it_fits() {
        let memory = |stats| ContainerMemoryStats {
            usage: Some(1_000),
            stats: Some(stats),
            ..ContainerMemoryStats::default()
        };
        let cache = |pairs: &[(&str, u64)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), *v));
            used_memory(&memory(pairs.collect()))
        };
        assert_eq!(cache(&[]), 1_000);
        assert_eq!(cache(&[("inactive_file", 2_000)]), 1_000);
        // As docker does: where v1's figure makes no sense, the other one counts.
        let both = [("total_inactive_file", 2_000), ("inactive_file", 300)];
        assert_eq!(cache(&both), 700);
    }

    #[test]
    fn a_first_sample_and_one_of_a_stopped_container() {
        assert_eq!(usage(&ContainerStatsResponse::default()), Usage::default());
        assert!(Usage::default().memory_percent().abs() < f64::EPSILON);
        let stopped = sample(json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 0}, "throttling_data": {}},
            "precpu_stats": {"cpu_usage": {"total_usage": 10}, "system_cpu_usage": 10},
            "memory_stats": {}, "pids_stats": {}
        }));
        assert_eq!(usage(&stopped), Usage::default());
        let without_number = ContainerCpuStats {
            online_cpus: Some(0),
            ..sample(json!({"cpu_stats": {
                "cpu_usage": {"total_usage": 1, "percpu_usage": [1, 0, 0, 0]},
                "system_cpu_usage": 4
            }}))
            .cpu_stats
            .unwrap()
        };
        assert!((cpu(&without_number, None) - 100.0).abs() < 1e-9);
    }
}
