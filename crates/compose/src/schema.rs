//! Every attribute of the Compose Specification: its type, and how two files' values merge.
//!
//! This table is the one place that knows which attributes there are. [`crate::check`] walks a
//! tree with it to validate, expand short syntaxes and cast scalars; [`crate::merge`] walks two.

use crate::firewall;
use crate::node::Node;
use crate::short;

/// What a value may be.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Anything (`x-*`).
    Any,
    /// A string.
    Text,
    /// A string or nothing.
    OptionalText,
    /// A string or a number, as text.
    Scalar,
    /// A string, a number, a boolean or nothing, as text.
    Value,
    /// A string, a boolean, as text.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A string that a function accepts; the words say what it takes.
    Matching(fn(&str) -> bool, &'static str),
    /// A boolean, or a string that reads as one.
    Bool,
    /// A boolean; strings are refused.
    StrictBool,
    /// A whole number within bounds, or a string that reads as one.
    Int(i64, i64),
    /// A whole number; strings are refused.
    StrictInt,
    /// A number, or a string that reads as one.
    Number,
    /// A size in bytes, or a string with a unit.
    Size,
    /// A string with a size.
    SizeText,
    /// A duration.
    Duration,
    /// Permission bits.
    Mode,
    /// A number of devices or `all`.
    Count,
    /// `true`, `false`, or the obsolete `{name: …}`.
    External,
    /// A list.
    List(&'static Shape),
    /// A list without equal elements.
    Set(&'static Shape),
    /// One string or a list of them; a list afterwards.
    Words,
    /// A command line: nothing, a string to split, or a list.
    Command,
    /// `healthcheck.test`: a string for a shell, or a list.
    Test,
    /// `environment`-like: a mapping or a list of `K=V`; a mapping afterwards, null when unset.
    Environment,
    /// `labels`-like: a mapping or a list of `K=V`; a mapping afterwards, empty when unset.
    Labels,
    /// `extra_hosts`: a mapping afterwards, each name with a list of addresses.
    Hosts,
    /// `ssh`: ids with paths.
    Ssh,
    /// Provider options: each with one or more scalars; lists afterwards.
    Options,
    /// A mapping with keys of the user's.
    Dict(&'static Shape),
    /// A mapping with names (`[a-zA-Z0-9._-]+`) of the user's.
    Named(&'static Shape),
    /// A string or a whole number, as text.
    Port,
    /// A list of names, or a mapping from names; a mapping afterwards, with this value for bare names.
    Names(&'static Shape, fn() -> Node),
    /// A structure, or nothing where that is allowed.
    Object(&'static Object),
    /// A structure or nothing.
    OptionalObject(&'static Object),
    /// A structure, or a string (or number) that a function expands into one or more.
    Short(short::Expand, &'static Object),
    /// A number with bounds or a structure (`ulimits`).
    Ulimit,
    /// One value or a list of them; a list afterwards.
    OneOrMany(&'static Shape),
    /// `gpus`: `all` or a list of device requests.
    Gpus,
}

/// How values of two files combine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Mappings are merged, lists appended, scalars replaced.
    Deep,
    /// The later value replaces the earlier.
    Replace,
    /// Lists are appended; of elements with one key the later replaces the earlier.
    Unique(Key),
    /// Merged if both name the same driver or one names none, else replaced.
    Logging,
    /// Address pools are merged by subnet.
    Subnets,
}

/// What makes two elements of a list the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// The text before `=`.
    Name,
    /// `target`, or what a default makes of `source`.
    Mount(&'static str),
    /// `target`.
    Target,
    /// Address, ports and protocol.
    Port,
    /// `path`.
    Path,
    /// The whole text.
    Text,
}

/// One attribute.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) merge: Merge,
    pub(crate) required: bool,
}

impl Field {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn merge(mut self, merge: Merge) -> Self {
        self.merge = merge;
        self
    }

    const fn unique(self, key: Key) -> Self {
        self.merge(Merge::Unique(key))
    }
}

/// A structure with known attributes.
pub(crate) struct Object {
    /// What it is, for messages: "a service".
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
    /// Whether `x-*` attributes are allowed.
    pub(crate) extensions: bool,
}

impl Object {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

const fn f(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        merge: Merge::Deep,
        required: false,
    }
}

const fn object(name: &'static str, fields: &'static [Field]) -> Object {
    Object {
        name,
        fields,
        extensions: true,
    }
}

const fn closed(name: &'static str, fields: &'static [Field]) -> Object {
    Object {
        name,
        fields,
        extensions: false,
    }
}

use Shape::{
    Any, Bool, Choice, Command, Count, Dict, Duration, Environment, External, Flag, Gpus, Hosts,
    Int, Labels, List, Matching, Mode, Named, Names, Number, OneOrMany, OptionalObject,
    OptionalText, Options, Scalar, Set, Short, Size, SizeText, Ssh, StrictBool, StrictInt, Test,
    Text, Ulimit, Value, Words,
};

const INT: Shape = Int(i64::MIN, i64::MAX);
const NATURAL: Shape = Int(0, i64::MAX);

/// The whole file.
pub(crate) static PROJECT: Object = object(
    "a compose file",
    &[
        f("version", Text),
        f("name", Text),
        f("include", List(&Short(short::include, &INCLUDE))),
        f("services", Named(&Shape::Object(&SERVICE))),
        f("models", Dict(&Shape::Object(&MODEL))),
        f("networks", Dict(&OptionalObject(&NETWORK))),
        f("volumes", Named(&OptionalObject(&VOLUME))),
        f("secrets", Named(&Shape::Object(&SECRET))),
        f("configs", Named(&Shape::Object(&CONFIG))),
    ],
);

static INCLUDE: Object = closed(
    "an include",
    &[
        f("path", Words),
        f("env_file", Words),
        f("project_directory", Text),
    ],
);

/// A service: all its attributes.
pub(crate) static SERVICE: Object = object(
    "a service",
    &[
        f("annotations", Labels),
        f("attach", Bool),
        f("blkio_config", Shape::Object(&BLKIO)),
        f("build", Short(short::build, &BUILD)),
        f("cap_add", List(&Text)).unique(Key::Name),
        f("cap_drop", List(&Text)).unique(Key::Name),
        f("cgroup", Choice(&["host", "private"])),
        f("cgroup_parent", Text),
        f("command", Command).merge(Merge::Replace),
        f(
            "configs",
            List(&Short(short::file_reference, &FILE_REFERENCE)),
        )
        .unique(Key::Mount("")),
        f(
            "container_name",
            Matching(
                is_container_name,
                "letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
            ),
        ),
        f("cpu_count", NATURAL),
        f("cpu_percent", Int(0, 100)),
        f("cpu_period", INT),
        f("cpu_quota", INT),
        f("cpu_rt_period", INT),
        f("cpu_rt_runtime", INT),
        f("cpu_shares", INT),
        f("cpus", Number),
        f("cpuset", Text),
        f("credential_spec", Shape::Object(&CREDENTIAL_SPEC)),
        f(
            "depends_on",
            Names(&Shape::Object(&DEPENDENCY), short::dependency),
        ),
        f("deploy", OptionalObject(&DEPLOY)),
        f("develop", OptionalObject(&DEVELOP)),
        f("device_cgroup_rules", Set(&Text)).unique(Key::Text),
        f("devices", List(&Short(short::device, &DEVICE_MAPPING))).unique(Key::Target),
        f("dns", Words).unique(Key::Name),
        f("dns_opt", List(&Text)).unique(Key::Name),
        f("dns_search", Words).unique(Key::Name),
        f("domainname", Text),
        f("entrypoint", Command).merge(Merge::Replace),
        f("env_file", OneOrMany(&Short(short::env_file, &ENV_FILE))).unique(Key::Path),
        f("environment", Environment),
        f("expose", List(&Shape::Port)).unique(Key::Text),
        f("extends", Short(short::extends, &EXTENDS)),
        f("external_links", Set(&Text)).unique(Key::Text),
        f("extra_hosts", Hosts),
        f("gpus", Gpus),
        f("group_add", Set(&Scalar)).unique(Key::Text),
        f("healthcheck", Shape::Object(&HEALTHCHECK)),
        f("hostname", Text),
        f("image", Text),
        f("init", Bool),
        f("ipc", Text),
        f("isolation", Text),
        f("label_file", Words),
        f("labels", Labels),
        f("links", List(&Text)).unique(Key::Name),
        f("logging", Shape::Object(&LOGGING)).merge(Merge::Logging),
        f("mac_address", Text),
        f("mem_limit", Size),
        f("mem_reservation", Size),
        f("mem_swappiness", Size),
        f("memswap_limit", Size),
        f(
            "models",
            Names(&OptionalObject(&SERVICE_MODEL), Node::default),
        ),
        f("network_mode", Text),
        f(
            "networks",
            Names(&OptionalObject(&SERVICE_NETWORK), Node::default),
        ),
        f("oom_kill_disable", Bool),
        f("oom_score_adj", Int(-1000, 1000)),
        f("pid", OptionalText),
        f("pids_limit", INT),
        f("platform", Text),
        f("ports", List(&Short(short::ports, &PORT))).unique(Key::Port),
        f("post_start", List(&Shape::Object(&HOOK))),
        f("pre_stop", List(&Shape::Object(&HOOK))),
        f("privileged", Bool),
        f("profiles", List(&Text)).unique(Key::Name),
        f("provider", Shape::Object(&PROVIDER)),
        f(
            "pull_policy",
            Matching(
                is_pull_policy,
                "always, never, missing, if_not_present, build, refresh, daily, weekly or every_<duration>",
            ),
        ),
        f("pull_refresh_after", Text),
        f("read_only", Bool),
        f("restart", Text),
        f("runtime", Text),
        f("scale", NATURAL),
        f(
            "secrets",
            List(&Short(short::file_reference, &FILE_REFERENCE)),
        )
        .unique(Key::Mount("/run/secrets")),
        f("security_opt", Set(&Text)).unique(Key::Text),
        f("shm_size", Size),
        f("stdin_open", Bool),
        f("stop_grace_period", Duration),
        f("stop_signal", Text),
        f("storage_opt", Dict(&Value)),
        f("sysctls", Labels),
        f("tmpfs", Words).unique(Key::Name),
        f("tty", Bool),
        f("ulimits", Dict(&Ulimit)),
        f("use_api_socket", StrictBool),
        f("user", Text),
        f("userns_mode", Text),
        f("uts", Text),
        f("volumes", List(&Short(short::volume, &MOUNT))).unique(Key::Target),
        f("volumes_from", Set(&Text)).unique(Key::Text),
        f("working_dir", Text),
    ],
);

static BLKIO: Object = closed(
    "blkio_config",
    &[
        f("device_read_bps", List(&Shape::Object(&BLKIO_LIMIT))),
        f("device_read_iops", List(&Shape::Object(&BLKIO_LIMIT))),
        f("device_write_bps", List(&Shape::Object(&BLKIO_LIMIT))),
        f("device_write_iops", List(&Shape::Object(&BLKIO_LIMIT))),
        f("weight", INT),
        f("weight_device", List(&Shape::Object(&BLKIO_WEIGHT))),
    ],
);

static BLKIO_LIMIT: Object = closed("a block I/O limit", &[f("path", Text), f("rate", Size)]);
static BLKIO_WEIGHT: Object = closed("a block I/O weight", &[f("path", Text), f("weight", INT)]);

static BUILD: Object = object(
    "build",
    &[
        f("additional_contexts", Labels),
        f("args", Environment),
        f("cache_from", List(&Text)),
        f("cache_to", List(&Text)),
        f("context", Text),
        f("dockerfile", Text),
        f("dockerfile_inline", Text),
        f("entitlements", List(&Text)),
        f("extra_hosts", Hosts),
        f("isolation", Text),
        f("labels", Labels),
        f("network", Text),
        f("no_cache", Bool),
        f("platforms", List(&Text)),
        f("privileged", Bool),
        f("provenance", Flag),
        f("pull", Bool),
        f("sbom", Flag),
        f(
            "secrets",
            List(&Short(short::file_reference, &FILE_REFERENCE)),
        ),
        f("shm_size", Size),
        f("ssh", Ssh),
        f("tags", List(&Text)).unique(Key::Name),
        f("target", Text),
        f("ulimits", Dict(&Ulimit)),
    ],
);

static CREDENTIAL_SPEC: Object = object(
    "credential_spec",
    &[f("config", Text), f("file", Text), f("registry", Text)],
);

static DEPENDENCY: Object = object(
    "a dependency",
    &[
        f(
            "condition",
            Choice(&[
                "service_started",
                "service_healthy",
                "service_completed_successfully",
            ]),
        )
        .required(),
        f("restart", Bool),
        f("required", StrictBool),
    ],
);

static DEPLOY: Object = object(
    "deploy",
    &[
        f("endpoint_mode", Text),
        f("labels", Labels),
        f("mode", Text),
        f("placement", Shape::Object(&PLACEMENT)),
        f("replicas", NATURAL),
        f("resources", Shape::Object(&RESOURCES)),
        f("restart_policy", Shape::Object(&RESTART_POLICY)),
        f("rollback_config", Shape::Object(&UPDATE_CONFIG)),
        f("update_config", Shape::Object(&UPDATE_CONFIG)),
    ],
);

static PLACEMENT: Object = object(
    "placement",
    &[
        f("constraints", List(&Text)),
        f("max_replicas_per_node", NATURAL),
        f("preferences", List(&Shape::Object(&PREFERENCE))),
    ],
);

static PREFERENCE: Object = object("a placement preference", &[f("spread", Text)]);

static RESOURCES: Object = object(
    "resources",
    &[
        f("limits", Shape::Object(&LIMITS)),
        f("reservations", Shape::Object(&RESERVATIONS)),
    ],
);

static LIMITS: Object = object(
    "limits",
    &[f("cpus", Number), f("memory", SizeText), f("pids", INT)],
);

static RESERVATIONS: Object = object(
    "reservations",
    &[
        f("cpus", Number),
        f("devices", List(&Shape::Object(&DEVICE_REQUEST))),
        f("generic_resources", List(&Shape::Object(&GENERIC_RESOURCE))),
        f("memory", SizeText),
    ],
);

static GENERIC_RESOURCE: Object = object(
    "a generic resource",
    &[f(
        "discrete_resource_spec",
        Shape::Object(&DISCRETE_RESOURCE),
    )],
);

static DISCRETE_RESOURCE: Object = object(
    "discrete_resource_spec",
    &[f("kind", Text), f("value", INT)],
);

/// A request for devices.
pub(crate) static DEVICE_REQUEST: Object = object(
    "a device request",
    &[
        f("capabilities", Set(&Text)).required(),
        f("count", Count),
        f("device_ids", Set(&Text)),
        f("driver", Text),
        f("options", Labels),
    ],
);

/// A request for GPUs: the capability is implied.
pub(crate) static GPU_REQUEST: Object = object(
    "a GPU request",
    &[
        f("capabilities", Set(&Text)),
        f("count", Count),
        f("device_ids", Set(&Text)),
        f("driver", Text),
        f("options", Labels),
    ],
);

static RESTART_POLICY: Object = object(
    "restart_policy",
    &[
        f("condition", Text),
        f("delay", Duration),
        f("max_attempts", NATURAL),
        f("window", Duration),
    ],
);

static UPDATE_CONFIG: Object = object(
    "update_config",
    &[
        f("delay", Duration),
        f("failure_action", Text),
        f("max_failure_ratio", Number),
        f("monitor", Duration),
        f("order", Choice(&["start-first", "stop-first"])),
        f("parallelism", NATURAL),
    ],
);

static DEVELOP: Object = object("develop", &[f("watch", List(&Shape::Object(&WATCH)))]);

static WATCH: Object = object(
    "a watch rule",
    &[
        f(
            "action",
            Choice(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
        )
        .required(),
        f("exec", Shape::Object(&HOOK)),
        f("ignore", Words),
        f("include", Words),
        f("initial_sync", StrictBool),
        f("path", Text).required(),
        f("target", Text),
    ],
);

static DEVICE_MAPPING: Object = object(
    "a device",
    &[
        f("permissions", Text),
        f("source", Text).required(),
        f("target", Text).required(),
    ],
);

static ENV_FILE: Object = closed(
    "an env_file",
    &[
        f("format", Text),
        f("path", Text).required(),
        f("required", Bool),
    ],
);

static EXTENDS: Object = closed("extends", &[f("file", Text), f("service", Text).required()]);

static HEALTHCHECK: Object = object(
    "healthcheck",
    &[
        f("disable", Bool),
        f("interval", Duration),
        f("retries", NATURAL),
        f("start_interval", Duration),
        f("start_period", Duration),
        f("test", Test).merge(Merge::Replace),
        f("timeout", Duration),
    ],
);

static LOGGING: Object = object("logging", &[f("driver", Text), f("options", Dict(&Value))]);

static SERVICE_MODEL: Object = object(
    "a model binding",
    &[f("endpoint_var", Text), f("model_var", Text)],
);

static SERVICE_NETWORK: Object = object(
    "a network attachment",
    &[
        f("aliases", List(&Text)).unique(Key::Name),
        f("driver_opts", Dict(&Scalar)),
        f("gw_priority", StrictInt),
        f("interface_name", Text),
        f("ipv4_address", Text),
        f("ipv6_address", Text),
        f("link_local_ips", List(&Text)).unique(Key::Name),
        f("mac_address", Text),
        f("priority", StrictInt),
    ],
);

static PORT: Object = object(
    "a port",
    &[
        f("app_protocol", Text),
        f("host_ip", Text),
        f("mode", Text),
        f("name", Text),
        f("protocol", Text),
        f("published", Scalar),
        f("target", Int(0, 65_535)).required(),
    ],
);

static HOOK: Object = object(
    "a hook",
    &[
        f("command", Command).required(),
        f("environment", Environment),
        f("privileged", Bool),
        f("user", Text),
        f("working_dir", Text),
    ],
);

static PROVIDER: Object = object(
    "provider",
    &[f("options", Options), f("type", Text).required()],
);

static FILE_REFERENCE: Object = object(
    "a config or secret of a service",
    &[
        f("gid", Text),
        f("mode", Mode),
        f("source", Text),
        f("target", Text),
        f("uid", Text),
    ],
);

static MOUNT: Object = object(
    "a volume of a service",
    &[
        f("bind", Shape::Object(&BIND)),
        f("consistency", Text),
        f("image", Shape::Object(&IMAGE_MOUNT)),
        f("read_only", Bool),
        f("source", Text),
        f("target", Text).required(),
        f("tmpfs", Shape::Object(&TMPFS)),
        f(
            "type",
            Choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
        )
        .required(),
        f("volume", Shape::Object(&VOLUME_MOUNT)),
    ],
);

static BIND: Object = object(
    "bind",
    &[
        f("create_host_path", Bool),
        f("propagation", Text),
        f(
            "recursive",
            Choice(&["enabled", "disabled", "writable", "readonly"]),
        ),
        f("selinux", Choice(&["z", "Z"])),
    ],
);

static VOLUME_MOUNT: Object = object(
    "volume",
    &[f("labels", Labels), f("nocopy", Bool), f("subpath", Text)],
);

static TMPFS: Object = object("tmpfs", &[f("mode", StrictInt), f("size", Size)]);
static IMAGE_MOUNT: Object = object("image", &[f("subpath", Text)]);

static MODEL: Object = object(
    "a model",
    &[
        f("context_size", StrictInt),
        f("model", Text).required(),
        f("name", Text),
        f("runtime_flags", List(&Text)),
    ],
);

static NETWORK: Object = object(
    "a network",
    &[
        f("attachable", Bool),
        f("driver", Text),
        f("driver_opts", Dict(&Scalar)),
        f("enable_ipv4", Bool),
        f("enable_ipv6", Bool),
        f("external", External),
        f("internal", Bool),
        f("ipam", Shape::Object(&IPAM)),
        f("labels", Labels),
        f("name", Text),
    ],
);

static IPAM: Object = object(
    "ipam",
    &[
        f("config", List(&Shape::Object(&IPAM_POOL))).merge(Merge::Subnets),
        f("driver", Text),
        f("options", Dict(&Text)),
    ],
);

static IPAM_POOL: Object = object(
    "an address pool",
    &[
        f("aux_addresses", Dict(&Text)),
        f("gateway", Text),
        f("ip_range", Text),
        f("subnet", Text),
    ],
);

static VOLUME: Object = object(
    "a volume",
    &[
        f("driver", Text),
        f("driver_opts", Dict(&Scalar)),
        f("external", External),
        f("labels", Labels),
        f("name", Text),
    ],
);

static SECRET: Object = object(
    "a secret",
    &[
        f("driver", Text),
        f("driver_opts", Dict(&Scalar)),
        f("environment", Text),
        f("external", External),
        f("file", Text),
        f("labels", Labels),
        f("name", Text),
        f("template_driver", Text),
    ],
);

static CONFIG: Object = object(
    "a config",
    &[
        f("content", Text),
        f("environment", Text),
        f("external", External),
        f("file", Text),
        f("labels", Labels),
        f("name", Text),
        f("template_driver", Text),
    ],
);

/// Wharfie's own settings at the top of a file: they hold for every service that says nothing else.
pub(crate) static X_WHARFIE_STACK: Object = closed("x-wharfie", &X_WHARFIE);
/// Wharfie's own settings of a service.
pub(crate) static X_WHARFIE_SERVICE: Object = closed("x-wharfie of a service", &X_WHARFIE);
static X_WHARFIE: [Field; 10] = [
    f("address", OneOrMany(&Flag)),
    f("address-per", Choice(&["service", "task"])),
    f("affinity", Choice(&["client", "none"])),
    f("firewall", Shape::Object(&FIREWALL)),
    f("heal", Choice(&["auto", "always", "never"])),
    f("names", OneOrMany(&Text)),
    f("owner", Text),
    f("singleton", Bool),
    f("volumes", Choice(&["stay", "fresh"])),
    f("when-isolated", Choice(&["keep", "stop"])),
];

static FIREWALL: Object = closed(
    "a firewall",
    &[
        f("default", Choice(&["accept", "drop"])),
        f("dns", Bool),
        f("egress", List(&Shape::Object(&FIREWALL_RULE))),
        f("ingress", List(&Shape::Object(&FIREWALL_RULE))),
        f("log", Bool),
    ],
);

static FIREWALL_RULE: Object = closed(
    "a firewall rule",
    &[
        f("action", Choice(&["accept", "drop"])),
        f(
            "cidr",
            OneOrMany(&Matching(
                firewall::is_range,
                "an address or a range such as 10.1.0.0/16",
            )),
        ),
        f(
            "interface",
            OneOrMany(&Matching(
                firewall::is_interface,
                "the name of an interface, or the beginning of one and `*`",
            )),
        ),
        f("network", OneOrMany(&Text)),
        f("ports", OneOrMany(&Shape::Port)),
        f(
            "protocol",
            OneOrMany(&Choice(&["tcp", "udp", "sctp", "icmp"])),
        ),
        f("service", OneOrMany(&Text)),
    ],
);

/// The shape of an `x-*` attribute of an object.
pub(crate) fn extension(object: &Object, name: &str) -> Shape {
    match name {
        "x-wharfie" if std::ptr::eq(object, &raw const PROJECT) => Shape::Object(&X_WHARFIE_STACK),
        "x-wharfie" if std::ptr::eq(object, &raw const SERVICE) => {
            Shape::Object(&X_WHARFIE_SERVICE)
        }
        _ => Any,
    }
}

fn is_container_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn is_pull_policy(policy: &str) -> bool {
    matches!(
        policy,
        "always"
            | "never"
            | "missing"
            | "if_not_present"
            | "build"
            | "refresh"
            | "daily"
            | "weekly"
    ) || policy
        .strip_prefix("every_")
        .is_some_and(|d| crate::units::parse_duration(d).is_ok())
}

/// Every attribute as a path such as `services.*.build.args`, in the order of the table;
/// the support table of the documentation is made from it.
#[must_use]
pub fn attribute_paths() -> Vec<String> {
    fn walk(object: &'static Object, prefix: &str, out: &mut Vec<String>) {
        for field in object.fields {
            let path = if prefix.is_empty() {
                field.name.to_owned()
            } else {
                format!("{prefix}.{}", field.name)
            };
            out.push(path.clone());
            descend(&field.shape, &path, out);
        }
    }
    fn descend(shape: &Shape, path: &str, out: &mut Vec<String>) {
        match shape {
            Shape::Object(o) | OptionalObject(o) | Short(_, o) => walk(o, path, out),
            List(inner) | Set(inner) | OneOrMany(inner) => {
                descend(inner, &format!("{path}[]"), out)
            }
            Dict(inner) | Named(inner) | Names(inner, _) => {
                descend(inner, &format!("{path}.*"), out)
            }
            Gpus => walk(&GPU_REQUEST, &format!("{path}[]"), out),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(&PROJECT, "", &mut out);
    out
}
