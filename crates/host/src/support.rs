//! Which attribute of the Compose Specification does what: the one table behind the refusal of
//! what cannot be done, the notices, and `docs/compose-support.md`.

use std::fmt::Write as _;

use serde_json::Value;
use wharfie_compose::model::Project;
use wharfie_core::{Operation, Plan};

use crate::build::Builder;
use crate::{ApiVersion, translate};

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It reaches the Engine.
    Engine,
    /// It reaches Engines with BuildKit; the classic builder cannot do it.
    BuildKit,
    /// It reaches Engines with at least this API.
    Since(ApiVersion),
    /// Wharfie itself acts on it, while loading, planning or showing.
    Wharfie,
    /// It is documentation: nothing is to be done.
    Documentation,
    /// It is accepted and the user is told that it has no effect here.
    Notice(&'static str),
    /// It is refused.
    Refused(&'static str),
}

/// A rule for an attribute and all below it that have no rule of their own.
struct Rule {
    path: &'static str,
    /// Only for this value.
    value: Option<&'static str>,
    support: Support,
    note: &'static str,
}

const fn rule(path: &'static str, support: Support, note: &'static str) -> Rule {
    Rule {
        path,
        value: None,
        support,
        note,
    }
}

const fn on(path: &'static str, value: &'static str, support: Support) -> Rule {
    Rule {
        path,
        value: Some(value),
        support,
        note: "",
    }
}

use Support::{BuildKit, Documentation, Engine, Notice, Refused, Since, Wharfie};

/// The first API of Engines that know CDI devices: Engine 25.
const CDI: ApiVersion = ApiVersion(1, 44);
const WINDOWS: &str = "only Windows containers have it";
const NO_STORE: &str =
    "there is no store for them yet: give a file, an environment variable or the content";

#[rustfmt::skip]
static RULES: &[Rule] = &[
    rule("version", Documentation, "obsolete"),
    rule("name", Wharfie, "project name"),
    rule("include", Wharfie, "read while loading"),
    rule("models", Refused("models need a model runner, which plain Engines do not have"), ""),
    rule("services.*.annotations", Since(ApiVersion(1, 43)), ""),
    rule("services.*.attach", Wharfie, "whether `up` shows its log"),
    rule("services.*.blkio_config", Engine, ""),
    rule("services.*.build", Wharfie, "BuildKit in the Engine, or its classic builder"),
    rule("services.*.build.additional_contexts", BuildKit, "from API 1.42; directories, `docker-image://`, `service:` and addresses"),
    rule("services.*.build.cache_from", Wharfie, "images"),
    rule("services.*.build.cache_to", BuildKit, "`type=inline`; `type=registry` with containerd's image store"),
    rule("services.*.build.entitlements", BuildKit, "as the Engine's `builder.entitlements` allows"),
    rule("services.*.build.isolation", Refused(WINDOWS), ""),
    rule("services.*.build.network", Wharfie, "`default`, `none`, `host`; others with the classic builder only"),
    rule("services.*.build.platforms", Wharfie, "one platform; several with BuildKit and containerd's image store"),
    rule("services.*.build.privileged", BuildKit, "as the Engine's `builder.entitlements` allows"),
    rule("services.*.build.provenance", BuildKit, "with containerd's image store; `false` is accepted everywhere"),
    rule("services.*.build.sbom", BuildKit, "with containerd's image store; `false` is accepted everywhere"),
    rule("services.*.build.secrets", BuildKit, ""),
    rule("services.*.build.secrets[].uid", Documentation, "the Dockerfile's `--mount=type=secret` says it"),
    rule("services.*.build.secrets[].gid", Documentation, "the Dockerfile's `--mount=type=secret` says it"),
    rule("services.*.build.secrets[].mode", Documentation, "the Dockerfile's `--mount=type=secret` says it"),
    rule("services.*.build.ssh", BuildKit, "agents by their sockets; key files are refused"),
    rule("services.*.cap_add", Engine, ""),
    rule("services.*.cap_drop", Engine, ""),
    rule("services.*.cgroup", Engine, ""),
    rule("services.*.cgroup_parent", Engine, ""),
    rule("services.*.command", Engine, ""),
    rule("services.*.configs", Engine, "files are mounted; content, variables and files with owner or mode are kept in memory and mounted, or copied in without root"),
    rule("services.*.container_name", Engine, ""),
    rule("services.*.cpu_count", Refused(WINDOWS), ""),
    rule("services.*.cpu_percent", Refused(WINDOWS), ""),
    rule("services.*.cpu_period", Engine, ""),
    rule("services.*.cpu_quota", Engine, ""),
    rule("services.*.cpu_rt_period", Engine, ""),
    rule("services.*.cpu_rt_runtime", Engine, ""),
    rule("services.*.cpu_shares", Engine, ""),
    rule("services.*.cpus", Engine, ""),
    rule("services.*.cpuset", Engine, ""),
    rule("services.*.credential_spec", Refused(WINDOWS), ""),
    rule("services.*.depends_on", Wharfie, "order and conditions of starts"),
    rule("services.*.deploy.endpoint_mode", Wharfie, "on networks over several hosts; on one host names resolve to all containers"),
    rule("services.*.deploy.labels", Notice("they belong to a cluster's service, not to containers"), ""),
    rule("services.*.deploy.mode", Wharfie, "on one host `global` is one container"),
    on("services.*.deploy.mode", "replicated-job", Refused("jobs come with the cluster")),
    on("services.*.deploy.mode", "global-job", Refused("jobs come with the cluster")),
    rule("services.*.deploy.placement", Wharfie, "where tasks run; without other nodes it has no effect"),
    rule("services.*.deploy.replicas", Wharfie, "number of containers"),
    rule("services.*.deploy.resources.limits", Engine, ""),
    rule("services.*.deploy.resources.reservations.cpus", Wharfie, "where tasks run; without other nodes it has no effect"),
    rule("services.*.deploy.resources.reservations.devices", Engine, ""),
    rule("services.*.deploy.resources.reservations.generic_resources", Refused("a plain Engine has no generic resources"), ""),
    rule("services.*.deploy.resources.reservations.memory", Engine, ""),
    rule("services.*.deploy.restart_policy.condition", Engine, "unless `restart` is set"),
    rule("services.*.deploy.restart_policy.delay", Notice("the Engine has its own delays"), ""),
    rule("services.*.deploy.restart_policy.max_attempts", Engine, "with `on-failure`"),
    rule("services.*.deploy.restart_policy.window", Notice("the Engine has its own window"), ""),
    rule("services.*.deploy.rollback_config", Wharfie, "how a rollout goes back"),
    rule("services.*.deploy.update_config", Wharfie, "rollouts, by the agent"),
    rule("services.*.develop", Wharfie, "by `watch` and `up --watch`"),
    rule("services.*.device_cgroup_rules", Engine, ""),
    rule("services.*.devices", Engine, "CDI names from API 1.44"),
    rule("services.*.dns", Engine, ""),
    rule("services.*.dns_opt", Engine, ""),
    rule("services.*.dns_search", Engine, ""),
    rule("services.*.domainname", Engine, ""),
    rule("services.*.entrypoint", Engine, ""),
    rule("services.*.env_file", Wharfie, "read while loading"),
    rule("services.*.environment", Engine, ""),
    rule("services.*.expose", Engine, ""),
    rule("services.*.extends", Wharfie, "read while loading"),
    rule("services.*.external_links", Engine, ""),
    rule("services.*.extra_hosts", Engine, ""),
    rule("services.*.gpus", Engine, ""),
    rule("services.*.group_add", Engine, ""),
    rule("services.*.healthcheck", Engine, ""),
    rule("services.*.healthcheck.start_interval", Since(ApiVersion(1, 44)), ""),
    rule("services.*.hostname", Engine, ""),
    rule("services.*.image", Engine, ""),
    rule("services.*.init", Engine, ""),
    rule("services.*.ipc", Engine, ""),
    rule("services.*.isolation", Engine, "Linux knows `default` only"),
    rule("services.*.label_file", Wharfie, "read while loading"),
    rule("services.*.labels", Engine, ""),
    rule("services.*.links", Engine, ""),
    rule("services.*.logging", Engine, ""),
    rule("services.*.mac_address", Since(ApiVersion(1, 44)), ""),
    rule("services.*.mem_limit", Engine, ""),
    rule("services.*.mem_reservation", Engine, ""),
    rule("services.*.mem_swappiness", Engine, ""),
    rule("services.*.memswap_limit", Engine, ""),
    rule("services.*.models", Refused("models need a model runner, which plain Engines do not have"), ""),
    rule("services.*.network_mode", Engine, ""),
    rule("services.*.networks", Engine, ""),
    rule("services.*.networks.*.gw_priority", Since(ApiVersion(1, 48)), ""),
    rule("services.*.networks.*.interface_name", Since(ApiVersion(1, 49)), ""),
    rule("services.*.networks.*.mac_address", Since(ApiVersion(1, 44)), ""),
    rule("services.*.networks.*.priority", Wharfie, "order of connection"),
    rule("services.*.oom_kill_disable", Engine, ""),
    rule("services.*.oom_score_adj", Engine, ""),
    rule("services.*.pid", Engine, ""),
    rule("services.*.pids_limit", Engine, ""),
    rule("services.*.platform", Engine, ""),
    rule("services.*.ports", Engine, ""),
    rule("services.*.ports[].app_protocol", Documentation, ""),
    rule("services.*.ports[].mode", Wharfie, "with several hosts `ingress` is every one of them, `host` those of the tasks"),
    rule("services.*.ports[].name", Documentation, ""),
    rule("services.*.post_start", Wharfie, "run in the container after its start"),
    rule("services.*.pre_stop", Wharfie, "run in the container before it is stopped"),
    rule("services.*.privileged", Engine, ""),
    rule("services.*.profiles", Wharfie, "which services are to run"),
    rule("services.*.provider", Wharfie, "the program is run by `up` and `down`, before any container"),
    rule("services.*.pull_policy", Wharfie, "when the image is pulled or built"),
    rule("services.*.pull_refresh_after", Documentation, "no effect, with a warning; use `pull_policy: every_…`"),
    rule("services.*.read_only", Engine, ""),
    rule("services.*.restart", Engine, ""),
    rule("services.*.runtime", Engine, ""),
    rule("services.*.scale", Wharfie, "number of containers"),
    rule("services.*.secrets", Engine, "files are mounted; variables and files with owner or mode are kept in memory and mounted, or copied in without root"),
    rule("services.*.security_opt", Engine, "a seccomp profile is read from its file"),
    rule("services.*.shm_size", Engine, ""),
    rule("services.*.stdin_open", Engine, ""),
    rule("services.*.stop_grace_period", Engine, ""),
    rule("services.*.stop_signal", Engine, ""),
    rule("services.*.storage_opt", Engine, ""),
    rule("services.*.sysctls", Engine, ""),
    rule("services.*.tmpfs", Engine, ""),
    rule("services.*.tty", Engine, ""),
    rule("services.*.ulimits", Engine, ""),
    rule("services.*.use_api_socket", Engine, "the Engine's socket is mounted; credentials are not"),
    rule("services.*.user", Engine, ""),
    rule("services.*.userns_mode", Engine, ""),
    rule("services.*.uts", Engine, ""),
    rule("services.*.volumes", Engine, ""),
    on("services.*.volumes[].type", "npipe", Refused(WINDOWS)),
    on("services.*.volumes[].type", "cluster", Refused("cluster volumes need Swarm")),
    on("services.*.volumes[].type", "image", Since(ApiVersion(1, 48))),
    rule("services.*.volumes[].image", Since(ApiVersion(1, 48)), ""),
    rule("services.*.volumes[].volume.subpath", Since(ApiVersion(1, 45)), ""),
    on("services.*.volumes[].bind.recursive", "writable", Since(ApiVersion(1, 44))),
    on("services.*.volumes[].bind.recursive", "readonly", Since(ApiVersion(1, 44))),
    rule("services.*.volumes_from", Engine, ""),
    rule("services.*.working_dir", Engine, ""),
    rule("networks.*", Engine, ""),
    rule("networks.*.driver", Engine, "`overlay` and `bridge` are the same: over several hosts where there are several"),
    rule("networks.*.enable_ipv4", Since(ApiVersion(1, 48)), ""),
    rule("networks.*.external", Wharfie, "must exist; is never made or removed"),
    rule("volumes.*", Engine, ""),
    rule("volumes.*.external", Wharfie, "must exist; is never made or removed"),
    rule("secrets.*", Wharfie, "see `services.*.secrets`"),
    rule("secrets.*.driver", Refused(NO_STORE), ""),
    rule("secrets.*.driver_opts", Refused(NO_STORE), ""),
    rule("secrets.*.external", Refused(NO_STORE), ""),
    rule("secrets.*.labels", Documentation, ""),
    rule("secrets.*.template_driver", Refused(NO_STORE), ""),
    rule("configs.*", Wharfie, "see `services.*.configs`"),
    rule("configs.*.external", Refused(NO_STORE), ""),
    rule("configs.*.labels", Documentation, ""),
    rule("configs.*.template_driver", Refused(NO_STORE), ""),
];

/// Something about an attribute that a project has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the attribute, as in `services.web.ports[0].mode`.
    pub path: String,
    /// What there is to say.
    pub reason: String,
}

/// What a plan would run into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Attributes that cannot be honoured: nothing may be done.
    pub refused: Vec<Finding>,
    /// Attributes without effect.
    pub notices: Vec<Finding>,
}

/// Checks what a plan makes against what an Engine with this API and this builder can do.
#[must_use]
pub fn check(project: &Project, plan: &Plan, api: ApiVersion, builder: Builder) -> Findings {
    let mut findings = Findings::default();
    let mut containers: Vec<&str> = Vec::new();
    let mut builds: Vec<&str> = Vec::new();
    let mut networks: Vec<&str> = Vec::new();
    for step in &plan.steps {
        match &step.operation {
            Operation::CreateContainer { service, .. }
            | Operation::RecreateContainer { service, .. } => containers.push(service),
            Operation::BuildImage { service, .. } => builds.push(service),
            Operation::CreateNetwork { network, .. } => networks.push(network),
            _ => {}
        }
    }
    containers.sort_unstable();
    containers.dedup();
    for name in containers {
        let Some(service) = project.any_service(name) else {
            continue;
        };
        let mut value = serde_json::to_value(service).unwrap_or_default(); // plain data always serialises
        if let Some(map) = value.as_object_mut() {
            map.remove("build");
        }
        for rule in RULES {
            examine(
                rule,
                "services.*",
                &format!("services.{name}"),
                &value,
                api,
                &mut findings,
            );
        }
        for (i, device) in service.devices.iter().enumerate() {
            if translate::is_cdi(device) && api < CDI {
                findings.refused.push(Finding {
                    path: format!("services.{name}.devices[{i}]"),
                    reason: format!("CDI devices need Engine API {CDI}, and this Engine has {api}"),
                });
            }
        }
        for (section, used, objects) in [
            ("secrets", &service.secrets, &project.secrets),
            ("configs", &service.configs, &project.configs),
        ] {
            for reference in used {
                let Some(object) = objects.get(&reference.source) else {
                    continue;
                };
                let value = serde_json::to_value(object).unwrap_or_default(); // plain data always serialises
                let at = format!("{section}.{}", reference.source);
                let variable = &object.environment;
                if !variable.is_empty() && !project.environment.contains_key(variable) {
                    findings.refused.push(Finding {
                        path: format!("{at}.environment"),
                        reason: format!("the environment variable {variable} is not set"),
                    });
                }
                for rule in RULES {
                    examine(
                        rule,
                        &format!("{section}.*"),
                        &at,
                        &value,
                        api,
                        &mut findings,
                    );
                }
            }
        }
    }
    for name in builds {
        let Some(build) = project.any_service(name).and_then(|s| s.build.as_ref()) else {
            continue;
        };
        let unsupported = crate::build::unsupported(name, build, builder);
        findings.refused.extend(
            unsupported
                .into_iter()
                .map(|(path, reason)| Finding { path, reason }),
        );
    }
    for key in networks {
        let Some(network) = project.networks.get(key) else {
            continue;
        };
        let value = serde_json::to_value(network).unwrap_or_default(); // plain data always serialises
        for rule in RULES {
            examine(
                rule,
                "networks.*",
                &format!("networks.{key}"),
                &value,
                api,
                &mut findings,
            );
        }
    }
    findings.refused.sort_by(|a, b| a.path.cmp(&b.path));
    findings.refused.dedup();
    findings.notices.sort_by(|a, b| a.path.cmp(&b.path));
    findings.notices.dedup();
    findings
}

/// Applies a rule to an element: `prefix` is what the rule's path begins with, `at` the
/// element's own path.
fn examine(
    rule: &Rule,
    prefix: &str,
    at: &str,
    value: &Value,
    api: ApiVersion,
    findings: &mut Findings,
) {
    let (list, reason) = match rule.support {
        Support::Refused(why) => (&mut findings.refused, why.to_owned()),
        Support::Notice(why) => (&mut findings.notices, why.to_owned()),
        Support::Since(needed) if api < needed => (
            &mut findings.refused,
            format!("it needs Engine API {needed}, and this Engine has {api}"),
        ),
        _ => return,
    };
    let Some(rest) = rule
        .path
        .strip_prefix(prefix)
        .and_then(|r| r.strip_prefix('.'))
    else {
        return;
    };
    let mut found = Vec::new();
    lookup(value, rest, at.to_owned(), &mut found);
    for (path, value) in found {
        if rule
            .value
            .is_none_or(|wanted| value.as_str() == Some(wanted))
        {
            list.push(Finding {
                path,
                reason: reason.clone(),
            });
        }
    }
}

/// Every value that a path such as `networks.*.mac_address` or `volumes[].type` leads to.
fn lookup<'a>(value: &'a Value, path: &str, at: String, out: &mut Vec<(String, &'a Value)>) {
    if path.is_empty() {
        out.push((at, value));
        return;
    }
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    if head == "*" {
        for (key, value) in value.as_object().into_iter().flatten() {
            lookup(value, rest, format!("{at}.{key}"), out);
        }
    } else if let Some(name) = head.strip_suffix("[]") {
        let items = value.get(name).and_then(Value::as_array);
        for (i, value) in items.into_iter().flatten().enumerate() {
            lookup(value, rest, format!("{at}.{name}[{i}]"), out);
        }
    } else if let Some(value) = value
        .get(head)
        .filter(|v| !v.is_null() && !v.as_object().is_some_and(serde_json::Map::is_empty))
    {
        lookup(value, rest, format!("{at}.{head}"), out);
    }
}

/// The rule of an attribute: its own, or that of the nearest element above it.
fn rule_of(path: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .filter(|r| r.value.is_none())
        .filter(|r| {
            path.strip_prefix(r.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|r| r.path.len())
}

/// `docs/compose-support.md`: every attribute with what becomes of it.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# What becomes of each Compose attribute\n\n\
         Made from the code by `make docs`; a test keeps it so. Every attribute of the Compose\n\
         Specification is honoured, or refused with its place in the file before anything is done,\n\
         or you are told that it has no effect.\n\n\
         | attribute | support | note |\n| --- | --- | --- |\n",
    );
    for path in wharfie_compose::attribute_paths() {
        // Sections and structures are rows only where they say something themselves.
        let Some(rule) = rule_of(&path) else {
            continue;
        };
        let (support, why) = match rule.support {
            Support::Engine => ("Engine".to_owned(), ""),
            Support::Since(api) => (format!("Engine, from API {api}; refused before"), ""),
            Support::BuildKit => ("BuildKit; refused with the classic builder".to_owned(), ""),
            Support::Wharfie => ("Wharfie".to_owned(), ""),
            Support::Documentation => ("no effect by nature".to_owned(), ""),
            Support::Notice(why) => ("accepted, with a notice".to_owned(), why),
            Support::Refused(why) => ("refused".to_owned(), why),
        };
        let special: Vec<String> = RULES
            .iter()
            .filter(|r| r.path == path)
            .filter_map(|r| Some((r.value?, r.support)))
            .map(|(value, support)| match support {
                Support::Since(api) => format!("`{value}` from API {api}"),
                Support::Refused(why) => format!("`{value}` is refused: {why}"),
                Support::Notice(why) => format!("`{value}`: {why}"),
                _ => format!("`{value}`"),
            })
            .collect();
        let notes: Vec<&str> = [why, rule.note]
            .into_iter()
            .chain(special.iter().map(String::as_str))
            .filter(|n| !n.is_empty())
            .collect();
        let _ = writeln!(out, "| `{path}` | {support} | {} |", notes.join("; "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_has_a_rule() {
        let sections = ["services", "networks", "volumes", "secrets", "configs"];
        let without: Vec<String> = wharfie_compose::attribute_paths()
            .into_iter()
            .filter(|p| !sections.contains(&p.as_str()))
            .filter(|p| rule_of(p).is_none())
            // Structures whose parts all have rules.
            .filter(|p| {
                ![
                    "deploy",
                    "deploy.resources",
                    "deploy.resources.reservations",
                    "deploy.restart_policy",
                ]
                .iter()
                .any(|d| p == &format!("services.*.{d}"))
            })
            .collect();
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn every_rule_is_of_an_attribute() {
        let paths = wharfie_compose::attribute_paths();
        for rule in RULES {
            let known = paths
                .iter()
                .any(|p| p == rule.path || p.starts_with(&format!("{}.", rule.path)));
            assert!(known, "{} is no attribute", rule.path);
        }
    }

    #[test]
    fn the_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compose-support.md");
        if std::env::var_os("WHARFIE_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/compose-support.md is out of date: run `make docs`"
        );
    }

    #[test]
    fn what_cannot_be_done_is_found_with_its_path() {
        let service = serde_json::json!({
            "image": "x",
            "credential_spec": {"file": "f"},
            "annotations": {"a": "b"},
            "volumes": [{"type": "bind", "source": "/a", "target": "/a"}, {"type": "npipe", "source": "p", "target": "/p"}],
            "networks": {"default": {"mac_address": "02:42:ac:11:00:01"}},
            "deploy": {"labels": {"a": "b"}},
        });
        let mut project: Project =
            serde_json::from_value(serde_json::json!({"name": "p", "services": {"a": service}}))
                .unwrap();
        project.services.get_mut("a").unwrap().name = "a".to_owned();
        let mut plan = Plan::default();
        let create = Operation::CreateContainer {
            service: "a".to_owned(),
            number: 1,
            name: "p-a-1".to_owned(),
        };
        plan.push(create, Vec::new());
        let old = check(&project, &plan, ApiVersion(1, 41), Builder::Classic);
        let paths: Vec<&str> = old.refused.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "services.a.annotations",
                "services.a.credential_spec",
                "services.a.networks.default.mac_address",
                "services.a.volumes[1].type"
            ]
        );
        assert_eq!(
            old.notices
                .iter()
                .map(|f| f.path.as_str())
                .collect::<Vec<_>>(),
            ["services.a.deploy.labels"]
        );
        let new = check(&project, &plan, ApiVersion(1, 51), Builder::Classic);
        assert_eq!(new.refused.len(), 2, "{new:?}");
        assert_eq!(
            check(
                &project,
                &Plan::default(),
                ApiVersion(1, 41),
                Builder::Classic
            ),
            Findings::default()
        );
    }
}
