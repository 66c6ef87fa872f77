//! A service's `build` in BuildKit's words.

use std::collections::BTreeMap;

use wharfie_compose::model::{Build, Ulimit};

use super::super::options::{self, attestation};
use super::super::{BuildError, BuildRequest};
use super::wire::Message;
use crate::ApiVersion;

/// The oldest API of an Engine whose BuildKit knows named contexts, limits and sizes: Engine 23.
const GROWN_UP: ApiVersion = ApiVersion(1, 42);
const GATEWAY: &str = "host-gateway";
const CLASSIC: &str = "with DOCKER_BUILDKIT=0 the classic builder takes it";
const STORE: &str = "the Engine's image store cannot hold it; containerd's can: turn on `containerd-snapshotter` under `features` in daemon.json";

/// A cache as `type=…,key=value` or a plain image.
fn cache(text: &str) -> (String, BTreeMap<String, String>) {
    if !text.contains('=') {
        let attrs = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
        return ("registry".to_owned(), attrs);
    }
    let mut attrs: BTreeMap<String, String> = text
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(k, v)| (k.trim().to_lowercase(), v.trim().to_owned()))
        .collect();
    let kind = attrs
        .remove("type")
        .unwrap_or_else(|| "registry".to_owned());
    (kind, attrs)
}

/// What a build cannot do with the Engine's BuildKit, as far as that can be told beforehand: path
/// and reason of each attribute.
pub(in super::super) fn unsupported(
    service_name: &str,
    build: &Build,
    api: ApiVersion,
) -> Vec<(String, String)> {
    let mut refused: Vec<(&str, String)> = Vec::new();
    if !build.additional_contexts.is_empty() && api < GROWN_UP {
        refused.push((
            "additional_contexts",
            format!("the Engine's BuildKit knows no named contexts: it needs API {GROWN_UP} (Engine 23), and this Engine has {api}"),
        ));
    }
    let layout = |v: &String| v.starts_with("oci-layout://");
    if build.additional_contexts.values().any(layout) {
        let why = "an `oci-layout://` cannot be sent to the Engine: load it as an image and name that with docker-image://";
        refused.push(("additional_contexts", why.to_owned()));
    }
    for from in &build.cache_from {
        let (kind, attrs) = cache(from);
        if kind != "registry" || !attrs.contains_key("ref") {
            let why = format!(
                "{from:?}: the Engine's BuildKit takes images as cache: name one, or `type=registry,ref=IMAGE`"
            );
            refused.push(("cache_from", why));
        }
    }
    for to in &build.cache_to {
        let (kind, _) = cache(to);
        if !matches!(kind.as_str(), "inline" | "registry") {
            let why = format!(
                "{to:?}: the Engine's BuildKit writes its cache into the image (`type=inline`) or to a registry"
            );
            refused.push(("cache_to", why));
        }
    }
    let ssh = build.context.starts_with("ssh://") || build.context.starts_with("git@");
    if ssh && build.ssh.is_empty() {
        let why = "fetching this needs a key: name an agent with `ssh: [default]`";
        refused.push(("context", why.to_owned()));
    }
    for wanted in &build.entitlements {
        if !matches!(wanted.as_str(), "network.host" | "security.insecure") {
            let why = format!("{wanted:?}: BuildKit knows `network.host` and `security.insecure`");
            refused.push(("entitlements", why));
        }
    }
    if !matches!(build.isolation.as_str(), "" | "default") {
        let why = "isolation is a matter of Windows; Linux has only \"default\"";
        refused.push(("isolation", why.to_owned()));
    }
    if !matches!(build.network.as_str(), "" | "default" | "none" | "host") {
        let why = format!("BuildKit knows only `default`, `none` and `host`; {CLASSIC}");
        refused.push(("network", why));
    }
    for (name, set) in [
        ("shm_size", !build.shm_size.is_zero()),
        ("ulimits", !build.ulimits.is_empty()),
    ] {
        if set && api < GROWN_UP {
            let why = format!(
                "the Engine's BuildKit ignores it before API {GROWN_UP} (Engine 23); {CLASSIC}"
            );
            refused.push((name, why));
        }
    }
    let path = |name| format!("services.{service_name}.build.{name}");
    refused
        .into_iter()
        .map(|(name, why)| (path(name), why))
        .collect()
}

fn provenance<'a>(request: &'a BuildRequest<'_>, build: &'a Build) -> &'a str {
    request
        .flags
        .provenance
        .as_deref()
        .unwrap_or(&build.provenance)
}

fn sbom<'a>(request: &'a BuildRequest<'_>, build: &'a Build) -> &'a str {
    request.flags.sbom.as_deref().unwrap_or(&build.sbom)
}

/// Whether the build makes what only containerd's image store can hold.
pub(super) fn needs_store(request: &BuildRequest<'_>, build: &Build) -> bool {
    !without_store(request, build).is_empty()
}

/// What cannot be done unless images are in containerd's store.
pub(super) fn without_store(request: &BuildRequest<'_>, build: &Build) -> Vec<(String, String)> {
    let exports = build.cache_to.iter().any(|to| cache(to).0 != "inline");
    let checks = [
        ("cache_to", exports, "a cache in a registry"),
        (
            "platforms",
            build.platforms.len() > 1,
            "an image of several platforms",
        ),
        (
            "provenance",
            attestation(provenance(request, build)),
            "an attestation",
        ),
        ("sbom", attestation(sbom(request, build)), "an attestation"),
    ];
    let service = &request.service.name;
    checks
        .into_iter()
        .filter(|(_, set, _)| *set)
        .map(|(name, _, what)| {
            (
                format!("services.{service}.build.{name}"),
                format!("{what}: {STORE}"),
            )
        })
        .collect()
}

/// Whether the build wants to know what `host-gateway` stands for.
pub(super) fn needs_gateway(build: &Build) -> bool {
    build.extra_hosts.0.values().flatten().any(|a| a == GATEWAY)
}

/// Attributes of the Dockerfile's reader.
pub(super) fn frontend(
    request: &BuildRequest<'_>,
    build: &Build,
    gateway: Option<&str>,
) -> Result<BTreeMap<String, String>, BuildError> {
    let flags = &request.flags;
    let mut attrs = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(attrs.insert(name.to_owned(), value));
    if !build.target.is_empty() {
        set("target", build.target.clone());
    }
    for (name, value) in options::args(request, build) {
        set(&format!("build-arg:{name}"), value);
    }
    for (name, value) in super::labels(request, build) {
        set(&format!("label:{name}"), value);
    }
    if flags.no_cache || build.no_cache {
        set("no-cache", String::new());
    }
    let pull = flags.pull || build.pull;
    set(
        "image-resolve-mode",
        if pull { "pull" } else { "local" }.to_owned(),
    );
    let own = &request.service.platform;
    if !build.platforms.is_empty() {
        set("platform", build.platforms.join(","));
    } else if !own.is_empty() {
        set("platform", own.clone());
    }
    if matches!(build.network.as_str(), "host" | "none") {
        set("force-network-mode", build.network.clone());
    }
    let mut hosts = Vec::new();
    for (name, addresses) in &build.extra_hosts.0 {
        for address in addresses {
            let address = match (address.as_str(), gateway) {
                (GATEWAY, Some(gateway)) => gateway,
                (GATEWAY, None) => {
                    return Err(BuildError::Refused(format!(
                        "the Engine's BuildKit does not tell what `host-gateway` is: give {name} an address in `build.extra_hosts`"
                    )));
                }
                (address, _) => address,
            };
            hosts.push(format!("{name}={address}"));
        }
    }
    if !hosts.is_empty() {
        set("add-hosts", hosts.join(","));
    }
    if !build.shm_size.is_zero() {
        set("shm-size", build.shm_size.0.to_string());
    }
    if !build.ulimits.is_empty() {
        let limits = build.ulimits.iter().map(|(name, limit)| match *limit {
            Ulimit::Single(both) => format!("{name}={both}:{both}"),
            Ulimit::Pair { soft, hard } => format!("{name}={soft}:{hard}"),
        });
        set("ulimit", limits.collect::<Vec<_>>().join(","));
    }
    if !build.cache_from.is_empty() {
        let imports = build.cache_from.iter().map(|from| {
            let (kind, attrs) = cache(from);
            serde_json::json!({ "Type": kind, "Attrs": attrs })
        });
        let refs = build
            .cache_from
            .iter()
            .filter_map(|from| cache(from).1.remove("ref"));
        // Older BuildKits read the second.
        set(
            "cache-imports",
            serde_json::Value::from_iter(imports).to_string(),
        );
        set("cache-from", refs.collect::<Vec<_>>().join(","));
    }
    for (name, wanted) in [
        ("attest:provenance", provenance(request, build)),
        ("attest:sbom", sbom(request, build)),
    ] {
        if attestation(wanted) {
            let value = if matches!(wanted, "true" | "1") {
                ""
            } else {
                wanted
            };
            set(name, value.to_owned());
        }
    }
    Ok(attrs)
}

/// The request to build.
pub(super) fn solve(
    request: &BuildRequest<'_>,
    build: &Build,
    id: &str,
    attrs: &BTreeMap<String, String>,
) -> Vec<u8> {
    let names = std::iter::once(&request.image).chain(&build.tags);
    let names: Vec<&str> = names.map(String::as_str).collect();
    let export = BTreeMap::from([("name".to_owned(), names.join(","))]);
    let mut message = Message::default()
        .text(1, id)
        .text(3, "moby")
        .map(4, &export)
        .text(5, id)
        .text(6, "dockerfile.v0")
        .map(7, attrs);
    let mut caches = Message::default();
    for to in &build.cache_to {
        let (kind, attrs) = cache(to);
        let entry = Message::default().text(1, &kind).map(2, &attrs);
        caches = caches.bytes(4, &entry.done());
    }
    message = message.bytes(8, &caches.done());
    let mut entitlements: Vec<&str> = build.entitlements.iter().map(String::as_str).collect();
    if build.network == "host" {
        entitlements.push("network.host");
    }
    if build.privileged {
        entitlements.push("security.insecure");
    }
    entitlements.sort_unstable();
    entitlements.dedup();
    for wanted in entitlements {
        message = message.text(9, wanted);
    }
    message.done()
}

#[cfg(test)]
mod tests {
    use super::super::wire::fields;
    use super::*;
    use crate::build::BuildFlags;
    use wharfie_compose::model::{ExtraHosts, FileReference, Project, Service, SshKeys};

    fn with<T>(build: &Build, flags: BuildFlags, test: impl FnOnce(&BuildRequest<'_>) -> T) -> T {
        let project = Project {
            name: "p".into(),
            ..Project::default()
        };
        let service = Service {
            name: "web".into(),
            build: Some(build.clone()),
            ..Service::default()
        };
        test(&BuildRequest {
            project: &project,
            service: &service,
            image: "p-web".into(),
            flags,
        })
    }

    #[test]
    fn caches() {
        let attrs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(
            cache("a:1"),
            ("registry".to_owned(), attrs(&[("ref", "a:1")]))
        );
        assert_eq!(
            cache("type=local,src=/x"),
            ("local".to_owned(), attrs(&[("src", "/x")]))
        );
    }

    #[test]
    fn what_is_refused() {
        let names = |build: &Build, api| {
            let refused = unsupported("web", build, api);
            let names = refused.into_iter().map(|(path, _)| path);
            names
                .map(|p| p.trim_start_matches("services.web.build.").to_owned())
                .collect::<Vec<_>>()
        };
        let fine = Build {
            additional_contexts: [("a".to_owned(), "/b".to_owned())].into(),
            cache_from: vec!["a".into(), "type=registry,ref=b".into()],
            cache_to: vec!["type=inline".into()],
            secrets: vec![FileReference::default()],
            ssh: SshKeys([("default".to_owned(), None)].into()),
            context: "git@host:x.git".into(),
            network: "host".into(),
            privileged: true,
            ..Build::default()
        };
        assert_eq!(names(&fine, ApiVersion(1, 42)), Vec::<String>::new());
        assert_eq!(names(&fine, ApiVersion(1, 41)), ["additional_contexts"]);
        let bad = Build {
            additional_contexts: [("a".to_owned(), "oci-layout:///b".to_owned())].into(),
            cache_from: vec!["type=local,src=/x".into()],
            cache_to: vec!["type=gha".into()],
            context: "git@host:x.git".into(),
            entitlements: vec!["all".into()],
            isolation: "hyperv".into(),
            network: "mine".into(),
            ..Build::default()
        };
        let all = "additional_contexts cache_from cache_to context entitlements isolation network";
        assert_eq!(names(&bad, ApiVersion(1, 51)).join(" "), all);
    }

    #[test]
    fn what_is_asked_for() {
        let build = Build {
            args: [("A".to_owned(), Some("1".to_owned()))].into(),
            cache_from: vec!["c:1".into()],
            cache_to: vec!["type=inline".into()],
            extra_hosts: ExtraHosts(
                [("h".to_owned(), vec!["::1".to_owned(), GATEWAY.to_owned()])].into(),
            ),
            network: "host".into(),
            privileged: true,
            tags: vec!["t:1".into()],
            ulimits: [("nofile".to_owned(), Ulimit::Pair { soft: 1, hard: 2 })].into(),
            ..Build::default()
        };
        let flags = BuildFlags {
            no_cache: true,
            ..BuildFlags::default()
        };
        with(&build, flags, |request| {
            let attrs = frontend(request, &build, Some("10.0.0.1")).unwrap();
            for (name, value) in [
                ("build-arg:A", "1"),
                ("label:com.docker.compose.project", "p"),
                ("no-cache", ""),
                ("image-resolve-mode", "local"),
                ("force-network-mode", "host"),
                ("add-hosts", "h=::1,h=10.0.0.1"),
                ("ulimit", "nofile=1:2"),
                ("cache-from", "c:1"),
                (
                    "cache-imports",
                    r#"[{"Type":"registry","Attrs":{"ref":"c:1"}}]"#,
                ),
            ] {
                assert_eq!(attrs.get(name).map(String::as_str), Some(value), "{name}");
            }
            assert!(frontend(request, &build, None).is_err());
            let solve = solve(request, &build, "id", &attrs);
            let of = |wanted: u32| -> Vec<String> {
                let all = fields(&solve).filter(|(field, _)| *field == wanted);
                all.map(|(_, v)| v.text()).collect()
            };
            assert_eq!(of(9), ["network.host", "security.insecure"]);
            assert!(of(4)[0].contains("p-web,t:1"));
        });
    }

    #[test]
    fn what_needs_containerds_store() {
        let build = Build {
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            provenance: "false".into(),
            ..Build::default()
        };
        let flags = BuildFlags {
            sbom: Some("true".to_owned()),
            ..BuildFlags::default()
        };
        let refused = with(&build, flags, |request| without_store(request, &build));
        let paths: Vec<&str> = refused.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["services.web.build.platforms", "services.web.build.sbom"]
        );
    }
}
