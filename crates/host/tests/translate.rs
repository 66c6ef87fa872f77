//! Every attribute that the support table says reaches the Engine does: it is set in a service,
//! and the create request is looked at.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharfie_compose::model::{Network, Project, Volume};
use wharfie_host::ApiVersion;
use wharfie_host::translate::{Given, Other, Wanted, network_request, request, volume_request};

const NEW: ApiVersion = ApiVersion(1, 51);
const OLD: ApiVersion = ApiVersion(1, 41);

/// A project with one service `a` that is made of the JSON of its attributes.
fn project(service: &Value) -> Project {
    let mut project: Project = serde_json::from_value(json!({
        "name": "demo",
        "services": {"a": service},
        "networks": {"front": {"name": "demo_front"}, "back": {"name": "demo_back"}},
        "volumes": {"data": {"name": "demo_data"}},
        "configs": {"file": {"file": "/host/config"}, "text": {"content": "hello"}},
        "secrets": {"file": {"file": "/host/secret"}},
    }))
    .unwrap();
    project.services.get_mut("a").unwrap().name = "a".to_owned();
    project.working_dir = "/nowhere".into();
    project
}

fn others() -> BTreeMap<String, Vec<Other>> {
    let other = |name: &str| Other {
        id: format!("id-{name}"),
        name: format!("demo-{name}-1"),
    };
    BTreeMap::from([
        ("db".to_owned(), vec![other("db")]),
        ("other".to_owned(), vec![other("other")]),
    ])
}

/// The create request as JSON, with the networks connected afterwards below `Connections`.
fn body(service: &Value, api: ApiVersion) -> Value {
    let project = project(service);
    let others = others();
    let wanted = Wanted {
        given: BTreeMap::new(),
        project: &project,
        service: &project.services["a"],
        number: 1,
        oneoff: false,
        image_id: "sha256:1".to_owned(),
        others: &others,
        inherited: BTreeMap::new(),
        socket: Some("/run/engine.sock"),
    };
    let name = wharfie_core::names::container("demo", &project.services["a"], 1);
    let request = request(&wanted, &name, api);
    let mut body = serde_json::to_value(request.body).unwrap();
    body["Connections"] = serde_json::to_value(request.connections).unwrap();
    body
}

/// An attribute, a service that has it, where it is to be in the request, and as what.
type Case = (&'static str, Value, &'static str, Value);

/// A list of [`Case`]s below `services.*`.
#[allow(clippy::too_many_lines)] // a table
fn cases() -> Vec<Case> {
    let bind = |more: Value| {
        let mut mount = json!({"type": "bind", "source": "/s", "target": "/t"});
        mount
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"volumes": [mount]})
    };
    let volume = |more: Value| {
        let mut mount = json!({"type": "volume", "source": "data", "target": "/t"});
        mount
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"volumes": [mount]})
    };
    let device =
        |more: Value| json!({"deploy": {"resources": {"reservations": {"devices": [more]}}}});
    let front = |more: Value| json!({"networks": {"front": more}});
    let throttle = || json!([{"path": "/dev/sda", "rate": 1000}]);
    vec![
        (
            "annotations",
            json!({"annotations": {"k": "v"}}),
            "/HostConfig/Annotations/k",
            json!("v"),
        ),
        (
            "blkio_config.weight",
            json!({"blkio_config": {"weight": 300}}),
            "/HostConfig/BlkioWeight",
            json!(300),
        ),
        (
            "blkio_config.weight_device",
            json!({"blkio_config": {"weight_device": [{"path": "/dev/sda", "weight": 400}]}}),
            "/HostConfig/BlkioWeightDevice/0",
            json!({"Path": "/dev/sda", "Weight": 400}),
        ),
        (
            "blkio_config.device_read_bps",
            json!({"blkio_config": {"device_read_bps": throttle()}}),
            "/HostConfig/BlkioDeviceReadBps/0",
            json!({"Path": "/dev/sda", "Rate": 1000}),
        ),
        (
            "blkio_config.device_read_iops",
            json!({"blkio_config": {"device_read_iops": throttle()}}),
            "/HostConfig/BlkioDeviceReadIOps/0",
            json!({"Path": "/dev/sda", "Rate": 1000}),
        ),
        (
            "blkio_config.device_write_bps",
            json!({"blkio_config": {"device_write_bps": throttle()}}),
            "/HostConfig/BlkioDeviceWriteBps/0",
            json!({"Path": "/dev/sda", "Rate": 1000}),
        ),
        (
            "blkio_config.device_write_iops",
            json!({"blkio_config": {"device_write_iops": throttle()}}),
            "/HostConfig/BlkioDeviceWriteIOps/0",
            json!({"Path": "/dev/sda", "Rate": 1000}),
        ),
        (
            "cap_add",
            json!({"cap_add": ["NET_ADMIN"]}),
            "/HostConfig/CapAdd",
            json!(["NET_ADMIN"]),
        ),
        (
            "cap_drop",
            json!({"cap_drop": ["ALL"]}),
            "/HostConfig/CapDrop",
            json!(["ALL"]),
        ),
        (
            "cgroup",
            json!({"cgroup": "private"}),
            "/HostConfig/CgroupnsMode",
            json!("private"),
        ),
        (
            "cgroup",
            json!({"cgroup": "host"}),
            "/HostConfig/CgroupnsMode",
            json!("host"),
        ),
        (
            "cgroup_parent",
            json!({"cgroup_parent": "m"}),
            "/HostConfig/CgroupParent",
            json!("m"),
        ),
        (
            "command",
            json!({"command": ["a", "b"]}),
            "/Cmd",
            json!(["a", "b"]),
        ),
        (
            "configs",
            json!({"configs": [{"source": "file"}]}),
            "/HostConfig/Mounts/0",
            json!({"Type": "bind", "Source": "/host/config", "Target": "/file", "ReadOnly": true}),
        ),
        (
            "configs[].target",
            json!({"configs": [{"source": "file", "target": "/etc/c"}]}),
            "/HostConfig/Mounts/0/Target",
            json!("/etc/c"),
        ),
        (
            "container_name",
            json!({"container_name": "mine", "networks": {"front": null}}),
            "/NetworkingConfig/EndpointsConfig/demo_front/Aliases/0",
            json!("mine"),
        ),
        (
            "cpu_period",
            json!({"cpu_period": 1000}),
            "/HostConfig/CpuPeriod",
            json!(1000),
        ),
        (
            "cpu_quota",
            json!({"cpu_quota": 2000}),
            "/HostConfig/CpuQuota",
            json!(2000),
        ),
        (
            "cpu_rt_period",
            json!({"cpu_rt_period": 3000}),
            "/HostConfig/CpuRealtimePeriod",
            json!(3000),
        ),
        (
            "cpu_rt_runtime",
            json!({"cpu_rt_runtime": 4000}),
            "/HostConfig/CpuRealtimeRuntime",
            json!(4000),
        ),
        (
            "cpu_shares",
            json!({"cpu_shares": 64}),
            "/HostConfig/CpuShares",
            json!(64),
        ),
        (
            "cpus",
            json!({"cpus": 0.3}),
            "/HostConfig/NanoCpus",
            json!(300_000_000),
        ),
        (
            "cpus",
            json!({"cpus": "1.25"}),
            "/HostConfig/NanoCpus",
            json!(1_250_000_000),
        ),
        (
            "cpuset",
            json!({"cpuset": "0-1"}),
            "/HostConfig/CpusetCpus",
            json!("0-1"),
        ),
        (
            "deploy.resources.limits.cpus",
            json!({"deploy": {"resources": {"limits": {"cpus": "0.1"}}}}),
            "/HostConfig/NanoCpus",
            json!(100_000_000),
        ),
        (
            "deploy.resources.limits.memory",
            json!({"deploy": {"resources": {"limits": {"memory": "64m"}}}}),
            "/HostConfig/Memory",
            json!(67_108_864),
        ),
        (
            "deploy.resources.limits.pids",
            json!({"deploy": {"resources": {"limits": {"pids": 9}}}}),
            "/HostConfig/PidsLimit",
            json!(9),
        ),
        (
            "deploy.resources.reservations.memory",
            json!({"deploy": {"resources": {"reservations": {"memory": "32m"}}}}),
            "/HostConfig/MemoryReservation",
            json!(33_554_432),
        ),
        (
            "deploy.resources.reservations.devices[].capabilities",
            device(json!({"capabilities": ["gpu", "x"]})),
            "/HostConfig/DeviceRequests/0/Capabilities",
            json!([["gpu", "x"]]),
        ),
        (
            "deploy.resources.reservations.devices[].count",
            device(json!({"capabilities": ["gpu"], "count": "all"})),
            "/HostConfig/DeviceRequests/0/Count",
            json!(-1),
        ),
        (
            "deploy.resources.reservations.devices[].device_ids",
            device(json!({"capabilities": ["gpu"], "device_ids": ["0", "3"]})),
            "/HostConfig/DeviceRequests/0/DeviceIDs",
            json!(["0", "3"]),
        ),
        (
            "deploy.resources.reservations.devices[].driver",
            device(json!({"capabilities": ["gpu"], "driver": "nvidia"})),
            "/HostConfig/DeviceRequests/0/Driver",
            json!("nvidia"),
        ),
        (
            "deploy.resources.reservations.devices[].options",
            device(json!({"capabilities": ["gpu"], "options": {"o": "p"}})),
            "/HostConfig/DeviceRequests/0/Options/o",
            json!("p"),
        ),
        (
            "deploy.restart_policy.condition",
            json!({"deploy": {"restart_policy": {"condition": "any"}}}),
            "/HostConfig/RestartPolicy/Name",
            json!("always"),
        ),
        (
            "deploy.restart_policy.condition",
            json!({"deploy": {"restart_policy": {"condition": "none"}}}),
            "/HostConfig/RestartPolicy/Name",
            json!("no"),
        ),
        (
            "deploy.restart_policy.max_attempts",
            json!({"deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 4}}}),
            "/HostConfig/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 4}),
        ),
        (
            "device_cgroup_rules",
            json!({"device_cgroup_rules": ["c 1:3 mr"]}),
            "/HostConfig/DeviceCgroupRules",
            json!(["c 1:3 mr"]),
        ),
        (
            "devices",
            json!({"devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}]}),
            "/HostConfig/Devices/0",
            json!({"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}),
        ),
        (
            "devices",
            json!({"devices": [{"source": "vendor.com/class=one", "target": "vendor.com/class=one", "permissions": "rwm"}]}),
            "/HostConfig/DeviceRequests/0",
            json!({"Driver": "cdi", "DeviceIDs": ["vendor.com/class=one"]}),
        ),
        (
            "dns",
            json!({"dns": ["1.1.1.1"]}),
            "/HostConfig/Dns",
            json!(["1.1.1.1"]),
        ),
        (
            "dns_opt",
            json!({"dns_opt": ["ndots:1"]}),
            "/HostConfig/DnsOptions",
            json!(["ndots:1"]),
        ),
        (
            "dns_search",
            json!({"dns_search": ["x.org"]}),
            "/HostConfig/DnsSearch",
            json!(["x.org"]),
        ),
        (
            "domainname",
            json!({"domainname": "d"}),
            "/Domainname",
            json!("d"),
        ),
        (
            "entrypoint",
            json!({"entrypoint": ["e"]}),
            "/Entrypoint",
            json!(["e"]),
        ),
        (
            "entrypoint",
            json!({"entrypoint": []}),
            "/Entrypoint",
            json!([""]),
        ),
        (
            "environment",
            json!({"environment": {"A": "1", "B": null}}),
            "/Env",
            json!(["A=1", "B"]),
        ),
        (
            "expose",
            json!({"expose": ["80", "90-91/udp"]}),
            "/ExposedPorts",
            json!({"80/tcp": {}, "90/udp": {}, "91/udp": {}}),
        ),
        (
            "external_links",
            json!({"external_links": ["else:it"], "networks": {"front": null}}),
            "/NetworkingConfig/EndpointsConfig/demo_front/Links",
            json!(["else:it"]),
        ),
        (
            "extra_hosts",
            json!({"extra_hosts": {"h": ["1.2.3.4", "::1"]}}),
            "/HostConfig/ExtraHosts",
            json!(["h:1.2.3.4", "h:::1"]),
        ),
        (
            "gpus[].capabilities",
            json!({"gpus": [{"capabilities": ["utility"]}]}),
            "/HostConfig/DeviceRequests/0/Capabilities",
            json!([["utility", "gpu"]]),
        ),
        (
            "gpus[].count",
            json!({"gpus": [{"count": 2}]}),
            "/HostConfig/DeviceRequests/0/Count",
            json!(2),
        ),
        (
            "gpus[].device_ids",
            json!({"gpus": [{"device_ids": ["7"]}]}),
            "/HostConfig/DeviceRequests/0/DeviceIDs",
            json!(["7"]),
        ),
        (
            "gpus[].driver",
            json!({"gpus": [{"driver": "nvidia"}]}),
            "/HostConfig/DeviceRequests/0/Driver",
            json!("nvidia"),
        ),
        (
            "gpus[].options",
            json!({"gpus": [{"options": {"o": "p"}}]}),
            "/HostConfig/DeviceRequests/0/Options/o",
            json!("p"),
        ),
        (
            "group_add",
            json!({"group_add": ["audio"]}),
            "/HostConfig/GroupAdd",
            json!(["audio"]),
        ),
        (
            "healthcheck.disable",
            json!({"healthcheck": {"disable": true}}),
            "/Healthcheck/Test",
            json!(["NONE"]),
        ),
        (
            "healthcheck.interval",
            json!({"healthcheck": {"interval": "2s"}}),
            "/Healthcheck/Interval",
            json!(2_000_000_000),
        ),
        (
            "healthcheck.retries",
            json!({"healthcheck": {"retries": 5}}),
            "/Healthcheck/Retries",
            json!(5),
        ),
        (
            "healthcheck.start_interval",
            json!({"healthcheck": {"start_interval": "1s"}}),
            "/Healthcheck/StartInterval",
            json!(1_000_000_000),
        ),
        (
            "healthcheck.start_period",
            json!({"healthcheck": {"start_period": "1m"}}),
            "/Healthcheck/StartPeriod",
            json!(60_000_000_000_i64),
        ),
        (
            "healthcheck.test",
            json!({"healthcheck": {"test": ["CMD", "x"]}}),
            "/Healthcheck/Test",
            json!(["CMD", "x"]),
        ),
        (
            "healthcheck.timeout",
            json!({"healthcheck": {"timeout": "3s"}}),
            "/Healthcheck/Timeout",
            json!(3_000_000_000_i64),
        ),
        (
            "hostname",
            json!({"hostname": "h"}),
            "/Hostname",
            json!("h"),
        ),
        (
            "image",
            json!({"image": "other:1"}),
            "/Image",
            json!("other:1"),
        ),
        (
            "init",
            json!({"init": true}),
            "/HostConfig/Init",
            json!(true),
        ),
        (
            "init",
            json!({"init": false}),
            "/HostConfig/Init",
            json!(false),
        ),
        (
            "ipc",
            json!({"ipc": "service:db"}),
            "/HostConfig/IpcMode",
            json!("container:id-db"),
        ),
        (
            "ipc",
            json!({"ipc": "shareable"}),
            "/HostConfig/IpcMode",
            json!("shareable"),
        ),
        (
            "isolation",
            json!({"isolation": "default"}),
            "/HostConfig/Isolation",
            json!("default"),
        ),
        (
            "labels",
            json!({"labels": {"k": "v"}}),
            "/Labels/k",
            json!("v"),
        ),
        (
            "links",
            json!({"links": ["db:store"], "networks": {"front": null}}),
            "/NetworkingConfig/EndpointsConfig/demo_front/Links",
            json!(["demo-db-1:store", "demo-db-1:db-1", "demo-db-1:demo-db-1"]),
        ),
        (
            "logging.driver",
            json!({"logging": {"driver": "none"}}),
            "/HostConfig/LogConfig/Type",
            json!("none"),
        ),
        (
            "logging.options",
            json!({"logging": {"driver": "json-file", "options": {"max-size": "1m"}}}),
            "/HostConfig/LogConfig/Config/max-size",
            json!("1m"),
        ),
        (
            "mac_address",
            json!({"mac_address": "02:42:00:00:00:01", "networks": {"front": null}}),
            "/NetworkingConfig/EndpointsConfig/demo_front/MacAddress",
            json!("02:42:00:00:00:01"),
        ),
        (
            "mem_limit",
            json!({"mem_limit": "1g"}),
            "/HostConfig/Memory",
            json!(1_073_741_824),
        ),
        (
            "mem_reservation",
            json!({"mem_reservation": "1m"}),
            "/HostConfig/MemoryReservation",
            json!(1_048_576),
        ),
        (
            "mem_swappiness",
            json!({"mem_swappiness": 60}),
            "/HostConfig/MemorySwappiness",
            json!(60),
        ),
        (
            "memswap_limit",
            json!({"memswap_limit": -1}),
            "/HostConfig/MemorySwap",
            json!(-1),
        ),
        (
            "network_mode",
            json!({"network_mode": "host"}),
            "/HostConfig/NetworkMode",
            json!("host"),
        ),
        (
            "network_mode",
            json!({"network_mode": "service:db"}),
            "/HostConfig/NetworkMode",
            json!("container:id-db"),
        ),
        (
            "network_mode",
            json!({"network_mode": "container:else"}),
            "/HostConfig/NetworkMode",
            json!("container:else"),
        ),
        (
            "networks",
            json!({"networks": {"back": null}}),
            "/HostConfig/NetworkMode",
            json!("demo_back"),
        ),
        (
            "networks.*.aliases",
            front(json!({"aliases": ["x"]})),
            "/NetworkingConfig/EndpointsConfig/demo_front/Aliases",
            json!(["demo-a-1", "a", "x"]),
        ),
        (
            "networks.*.driver_opts",
            front(json!({"driver_opts": {"k": "v"}})),
            "/NetworkingConfig/EndpointsConfig/demo_front/DriverOpts/k",
            json!("v"),
        ),
        (
            "networks.*.gw_priority",
            front(json!({"gw_priority": 7})),
            "/NetworkingConfig/EndpointsConfig/demo_front/GwPriority",
            json!(7),
        ),
        (
            "networks.*.interface_name",
            front(json!({"interface_name": "eth7"})),
            "/NetworkingConfig/EndpointsConfig/demo_front/DriverOpts/com.docker.network.endpoint.ifname",
            json!("eth7"),
        ),
        (
            "networks.*.ipv4_address",
            front(json!({"ipv4_address": "10.0.0.9"})),
            "/NetworkingConfig/EndpointsConfig/demo_front/IPAMConfig/IPv4Address",
            json!("10.0.0.9"),
        ),
        (
            "networks.*.ipv6_address",
            front(json!({"ipv6_address": "fd00::9"})),
            "/NetworkingConfig/EndpointsConfig/demo_front/IPAMConfig/IPv6Address",
            json!("fd00::9"),
        ),
        (
            "networks.*.link_local_ips",
            front(json!({"link_local_ips": ["169.254.1.1"]})),
            "/NetworkingConfig/EndpointsConfig/demo_front/IPAMConfig/LinkLocalIPs",
            json!(["169.254.1.1"]),
        ),
        (
            "networks.*.mac_address",
            front(json!({"mac_address": "02:42:00:00:00:02"})),
            "/NetworkingConfig/EndpointsConfig/demo_front/MacAddress",
            json!("02:42:00:00:00:02"),
        ),
        (
            "oom_kill_disable",
            json!({"oom_kill_disable": true}),
            "/HostConfig/OomKillDisable",
            json!(true),
        ),
        (
            "oom_score_adj",
            json!({"oom_score_adj": -5}),
            "/HostConfig/OomScoreAdj",
            json!(-5),
        ),
        (
            "pid",
            json!({"pid": "host"}),
            "/HostConfig/PidMode",
            json!("host"),
        ),
        (
            "pid",
            json!({"pid": "service:db"}),
            "/HostConfig/PidMode",
            json!("container:id-db"),
        ),
        (
            "pids_limit",
            json!({"pids_limit": -1}),
            "/HostConfig/PidsLimit",
            json!(-1),
        ),
        (
            "ports",
            json!({"ports": [{"target": 80, "published": "8080", "host_ip": "127.0.0.1", "protocol": "udp"}]}),
            "/HostConfig/PortBindings",
            json!({"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ),
        (
            "ports",
            json!({"ports": [{"target": 80, "published": "8080-8090"}, {"target": 80}]}),
            "/HostConfig/PortBindings/80~1tcp",
            json!([{"HostPort": "8080-8090"}, {}]),
        ),
        (
            "ports",
            json!({"ports": [{"target": 80}]}),
            "/ExposedPorts",
            json!({"80/tcp": {}}),
        ),
        (
            "privileged",
            json!({"privileged": true}),
            "/HostConfig/Privileged",
            json!(true),
        ),
        (
            "read_only",
            json!({"read_only": true}),
            "/HostConfig/ReadonlyRootfs",
            json!(true),
        ),
        (
            "restart",
            json!({"restart": "on-failure:3"}),
            "/HostConfig/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
        ),
        (
            "restart",
            json!({"restart": "unless-stopped", "deploy": {"restart_policy": {"condition": "none"}}}),
            "/HostConfig/RestartPolicy/Name",
            json!("unless-stopped"),
        ),
        (
            "runtime",
            json!({"runtime": "runsc"}),
            "/HostConfig/Runtime",
            json!("runsc"),
        ),
        (
            "secrets",
            json!({"secrets": [{"source": "file", "target": "x"}]}),
            "/HostConfig/Mounts/0",
            json!({"Type": "bind", "Source": "/host/secret", "Target": "/run/secrets/x", "ReadOnly": true}),
        ),
        (
            "secrets[].target",
            json!({"secrets": [{"source": "file", "target": "/abs"}]}),
            "/HostConfig/Mounts/0/Target",
            json!("/abs"),
        ),
        (
            "security_opt",
            json!({"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}),
            "/HostConfig/SecurityOpt",
            json!(["no-new-privileges:true", "seccomp=unconfined"]),
        ),
        (
            "shm_size",
            json!({"shm_size": "1m"}),
            "/HostConfig/ShmSize",
            json!(1_048_576),
        ),
        (
            "stdin_open",
            json!({"stdin_open": true}),
            "/OpenStdin",
            json!(true),
        ),
        (
            "stop_grace_period",
            json!({"stop_grace_period": "1500ms"}),
            "/StopTimeout",
            json!(2),
        ),
        (
            "stop_grace_period",
            json!({"stop_grace_period": "0s"}),
            "/StopTimeout",
            json!(0),
        ),
        (
            "stop_signal",
            json!({"stop_signal": "SIGUSR1"}),
            "/StopSignal",
            json!("SIGUSR1"),
        ),
        (
            "storage_opt",
            json!({"storage_opt": {"size": "1G"}}),
            "/HostConfig/StorageOpt/size",
            json!("1G"),
        ),
        (
            "sysctls",
            json!({"sysctls": {"net.core.somaxconn": "9"}}),
            "/HostConfig/Sysctls/net.core.somaxconn",
            json!("9"),
        ),
        (
            "tmpfs",
            json!({"tmpfs": ["/run:size=1m", "/tmp"]}),
            "/HostConfig/Tmpfs",
            json!({"/run": "size=1m", "/tmp": ""}),
        ),
        ("tty", json!({"tty": true}), "/Tty", json!(true)),
        (
            "ulimits",
            json!({"ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 3}}),
            "/HostConfig/Ulimits",
            json!([{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 3, "Hard": 3}]),
        ),
        (
            "use_api_socket",
            json!({"use_api_socket": true}),
            "/HostConfig/Binds",
            json!(["/run/engine.sock:/var/run/docker.sock"]),
        ),
        (
            "user",
            json!({"user": "1000:1000"}),
            "/User",
            json!("1000:1000"),
        ),
        (
            "userns_mode",
            json!({"userns_mode": "host"}),
            "/HostConfig/UsernsMode",
            json!("host"),
        ),
        (
            "uts",
            json!({"uts": "host"}),
            "/HostConfig/UTSMode",
            json!("host"),
        ),
        (
            "volumes[].type",
            bind(json!({})),
            "/HostConfig/Binds",
            json!(["/s:/t:rw"]),
        ),
        (
            "volumes[].read_only",
            bind(json!({"read_only": true})),
            "/HostConfig/Binds",
            json!(["/s:/t:ro"]),
        ),
        (
            "volumes[].bind.create_host_path",
            bind(json!({"bind": {"create_host_path": false}})),
            "/HostConfig/Mounts/0",
            json!({"Type": "bind", "Source": "/s", "Target": "/t", "BindOptions": {}}),
        ),
        (
            "volumes[].bind.propagation",
            bind(json!({"bind": {"propagation": "rshared", "create_host_path": false}})),
            "/HostConfig/Mounts/0/BindOptions/Propagation",
            json!("rshared"),
        ),
        (
            "volumes[].bind.propagation",
            bind(json!({"bind": {"propagation": "rslave", "create_host_path": true}})),
            "/HostConfig/Binds",
            json!(["/s:/t:rw,rslave"]),
        ),
        (
            "volumes[].bind.recursive",
            bind(json!({"bind": {"recursive": "disabled"}})),
            "/HostConfig/Mounts/0/BindOptions/NonRecursive",
            json!(true),
        ),
        (
            "volumes[].bind.recursive",
            bind(json!({"bind": {"recursive": "readonly"}})),
            "/HostConfig/Mounts/0/BindOptions/ReadOnlyForceRecursive",
            json!(true),
        ),
        (
            "volumes[].bind.recursive",
            bind(json!({"bind": {"recursive": "writable"}})),
            "/HostConfig/Mounts/0/BindOptions/ReadOnlyNonRecursive",
            json!(true),
        ),
        (
            "volumes[].bind.selinux",
            bind(json!({"bind": {"selinux": "Z"}})),
            "/HostConfig/Binds",
            json!(["/s:/t:rw,Z"]),
        ),
        (
            "volumes[].consistency",
            bind(json!({"consistency": "cached"})),
            "/HostConfig/Mounts/0/Consistency",
            json!("cached"),
        ),
        (
            "volumes[].source",
            volume(json!({})),
            "/HostConfig/Binds",
            json!(["demo_data:/t:rw"]),
        ),
        (
            "volumes[].volume.nocopy",
            volume(json!({"volume": {"nocopy": true}})),
            "/HostConfig/Binds",
            json!(["demo_data:/t:rw,nocopy"]),
        ),
        (
            "volumes[].volume.subpath",
            volume(json!({"volume": {"subpath": "x"}})),
            "/HostConfig/Mounts/0/VolumeOptions/Subpath",
            json!("x"),
        ),
        (
            "volumes[].volume.labels",
            json!({"volumes": [{"type": "volume", "target": "/t", "volume": {"labels": {"k": "v"}}}]}),
            "/HostConfig/Mounts/0/VolumeOptions/Labels/k",
            json!("v"),
        ),
        (
            "volumes[].target",
            json!({"volumes": [{"type": "volume", "target": "/t"}]}),
            "/Volumes",
            json!({"/t": {}}),
        ),
        (
            "volumes[].tmpfs.size",
            json!({"volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m"}}]}),
            "/HostConfig/Mounts/0/TmpfsOptions/SizeBytes",
            json!(1_048_576),
        ),
        (
            "volumes[].tmpfs.mode",
            json!({"volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"mode": 511}}]}),
            "/HostConfig/Mounts/0/TmpfsOptions/Mode",
            json!(511),
        ),
        (
            "volumes[].image.subpath",
            json!({"volumes": [{"type": "image", "source": "i", "target": "/t", "image": {"subpath": "x"}}]}),
            "/HostConfig/Mounts/0",
            json!({"Type": "image", "Source": "i", "Target": "/t", "ReadOnly": true, "ImageOptions": {"Subpath": "x"}}),
        ),
        (
            "volumes_from",
            json!({"volumes_from": ["db:ro", "other", "container:else:ro"]}),
            "/HostConfig/VolumesFrom",
            json!(["id-db:ro", "id-other", "else:ro"]),
        ),
        (
            "working_dir",
            json!({"working_dir": "/w"}),
            "/WorkingDir",
            json!("/w"),
        ),
    ]
}

#[test]
fn every_attribute_reaches_the_engine() {
    let without = body(&json!({"image": "i"}), NEW);
    let mut wrong = Vec::new();
    for (attribute, mut service, pointer, expected) in cases() {
        service
            .as_object_mut()
            .unwrap()
            .entry("image")
            .or_insert_with(|| json!("i"));
        let body = body(&service, NEW);
        let found = body.pointer(pointer).cloned().unwrap_or_default();
        if found != expected {
            wrong.push(format!("{attribute}: {pointer} is {found}, not {expected}"));
        }
        if without.pointer(pointer) == Some(&expected) {
            wrong.push(format!("{attribute}: {pointer} is the same without it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Attributes whose effect is not in the body of the create request, with where it is seen.
const ELSEWHERE: &[&str] = &[
    "configs[].gid",  // inject.rs
    "configs[].mode", // inject.rs
    "configs[].uid",  // inject.rs
    "secrets[].gid",  // inject.rs
    "secrets[].mode", // inject.rs
    "secrets[].uid",  // inject.rs
    "platform",       // a parameter of the request
];

#[test]
fn every_attribute_of_the_support_table_has_a_case() {
    let document = wharfie_host::support::markdown();
    let rows = document.lines().filter_map(|l| {
        let (path, support) = l.strip_prefix("| `services.*.")?.split_once("` | ")?;
        support.starts_with("Engine").then_some(path)
    });
    let cases = cases();
    let missing: Vec<&str> = rows
        .filter(|path| !ELSEWHERE.contains(path))
        .filter(|path| {
            // A case of a structure compares the whole of it, one of a part is one of the whole.
            !cases
                .iter()
                .any(|(case, ..)| path.starts_with(case) || case.starts_with(path))
        })
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn before_api_1_44_further_networks_are_connected_afterwards() {
    let service = json!({"image": "i", "networks": {
        "front": {"aliases": ["x"]},
        "back": {"priority": 9, "ipv4_address": "10.0.0.2"},
    }});
    let old = body(&service, OLD);
    let first = &old["NetworkingConfig"]["EndpointsConfig"];
    assert_eq!(first.as_object().unwrap().len(), 1);
    assert_eq!(first["demo_back"]["IPAMConfig"]["IPv4Address"], "10.0.0.2");
    assert_eq!(old["HostConfig"]["NetworkMode"], "demo_back");
    assert_eq!(old["Connections"][0][0], "demo_front");
    assert_eq!(
        old["Connections"][0][1]["Aliases"],
        json!(["demo-a-1", "a", "x"])
    );
    let new = body(&service, NEW);
    let all = new["NetworkingConfig"]["EndpointsConfig"]
        .as_object()
        .unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(new["Connections"], json!([]));
}

#[test]
fn labels_are_those_of_docker_compose() {
    let labels = body(&json!({"image": "i", "depends_on": {"db": {"condition": "service_healthy", "restart": true}}}), OLD)["Labels"].clone();
    let keys: Vec<&str> = labels
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = [
        "com.docker.compose.config-hash",
        "com.docker.compose.container-number",
        "com.docker.compose.depends_on",
        "com.docker.compose.image",
        "com.docker.compose.oneoff",
        "com.docker.compose.project",
        "com.docker.compose.project.config_files",
        "com.docker.compose.project.working_dir",
        "com.docker.compose.service",
        "com.docker.compose.version",
        "io.wharfie.revision",
        "io.wharfie.task",
    ];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(
        labels["com.docker.compose.depends_on"],
        "db:service_healthy:true"
    );
    assert_eq!(labels["io.wharfie.task"], "demo/a/1");
}

#[test]
fn anonymous_volumes_are_taken_over() {
    let project = project(&json!({"image": "i", "volumes": [{"type": "volume", "target": "/t"}]}));
    let inherited = [("/t", "one"), ("/from/image", "two")];
    let wanted = Wanted {
        given: BTreeMap::new(),
        project: &project,
        service: &project.services["a"],
        number: 1,
        oneoff: false,
        image_id: String::new(),
        others: &BTreeMap::new(),
        inherited: inherited.map(|(t, v)| (t.to_owned(), v.to_owned())).into(),
        socket: None,
    };
    let host = request(&wanted, "demo-a-1", OLD).body.host_config.unwrap();
    assert_eq!(host.binds.unwrap(), ["one:/t:rw", "two:/from/image"]);
}

#[test]
fn a_network_with_everything() {
    let network: Network = serde_json::from_value(json!({
        "name": "n", "driver": "macvlan", "driver_opts": {"parent": "eth0"}, "internal": true,
        "attachable": true, "enable_ipv4": false, "enable_ipv6": true, "labels": {"k": "v"},
        "ipam": {"driver": "default", "options": {"o": "p"}, "config": [{
            "subnet": "10.0.0.0/24", "gateway": "10.0.0.1", "ip_range": "10.0.0.128/25", "aux_addresses": {"h": "10.0.0.5"},
        }]},
    }))
    .unwrap();
    let mut body = serde_json::to_value(network_request("demo", "key", &network)).unwrap();
    let labels = body.as_object_mut().unwrap().remove("Labels").unwrap();
    assert_eq!(
        body,
        json!({
            "Name": "n", "Driver": "macvlan", "Options": {"parent": "eth0"}, "Internal": true,
            "Attachable": true, "EnableIPv4": false, "EnableIPv6": true,
            "IPAM": {"Driver": "default", "Options": {"o": "p"}, "Config": [{
                "Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1", "IPRange": "10.0.0.128/25", "AuxiliaryAddresses": {"h": "10.0.0.5"},
            }]},
        })
    );
    assert_eq!(labels["k"], "v");
    assert_eq!(labels["com.docker.compose.network"], "key");
    assert_eq!(labels["com.docker.compose.project"], "demo");
}

#[test]
fn a_volume_with_everything() {
    let volume: Volume = serde_json::from_value(json!({
        "name": "v", "driver": "d", "driver_opts": {"k": "v"}, "labels": {"l": "m"},
    }))
    .unwrap();
    let body = serde_json::to_value(volume_request("demo", "key", &volume)).unwrap();
    assert_eq!(body["Name"], "v");
    assert_eq!(body["Driver"], "d");
    assert_eq!(body["DriverOpts"], json!({"k": "v"}));
    assert_eq!(body["Labels"]["l"], "m");
    assert_eq!(body["Labels"]["com.docker.compose.volume"], "key");
}

#[test]
fn on_a_network_of_several_nodes_the_node_gives_addresses_and_answers_for_names() {
    let project = project(&json!({
        "image": "i", "dns": ["192.0.2.53"],
        "networks": {"front": {"aliases": ["www"], "priority": 1}, "back": {"aliases": ["store"]}},
    }));
    let given = Given {
        v4: Some([10, 128, 0, 2].into()),
        resolver: Some([10, 128, 0, 1].into()),
        ..Given::default()
    };
    let wanted = Wanted {
        given: [("demo_front".to_owned(), given)].into(),
        project: &project,
        service: &project.services["a"],
        number: 1,
        oneoff: false,
        image_id: String::new(),
        others: &BTreeMap::new(),
        inherited: BTreeMap::new(),
        socket: None,
    };
    let made = request(&wanted, "demo-a-1", NEW).body;
    let dns = made.host_config.unwrap().dns.unwrap();
    assert_eq!(dns, ["10.128.0.1", "192.0.2.53"]);
    let endpoints = made.networking_config.unwrap().endpoints_config.unwrap();
    let front = &endpoints["demo_front"];
    // A name that the Engine knows is answered by it, and hides other nodes' tasks.
    assert_eq!(front.aliases.as_ref().unwrap(), &["demo-a-1"]);
    let ipam = front.ipam_config.as_ref().unwrap();
    assert_eq!(ipam.ipv4_address.as_deref(), Some("10.128.0.2"));
    let back = &endpoints["demo_back"];
    assert_eq!(back.aliases.as_ref().unwrap(), &["demo-a-1", "a", "store"]);
    assert!(back.ipam_config.is_none());
}
