//! A service's `build` in the words of the Engine's API.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use serde_json::json;
use wharfie_compose::model::{Build, Ulimit};

use super::{BuildError, BuildRequest};

/// What the client library can put into an address is a little less than 64 KiB; this leaves
/// room for its own parameters.
const LIMIT: usize = 40 * 1024;

/// What a build cannot do with the classic builder: for each attribute that is set and cannot
/// be honoured its path (`services.web.build.secrets`) and the reason.
pub(super) fn unsupported(service_name: &str, build: &Build) -> Vec<(String, String)> {
    const BUILDKIT: &str =
        "only BuildKit can do this, and images are built with the Engine's classic builder";
    let remote = is_remote(&build.context);
    let ssh = build.context.starts_with("ssh://") || build.context.starts_with("git@");
    let cache = build
        .cache_from
        .iter()
        .any(|from| cache_image(from).is_none());
    let local_file = remote && Path::new(&build.dockerfile).is_absolute();
    let several = format!("one build makes an image for one platform; {BUILDKIT}");
    let checks: [(&str, bool, &str); 13] = [
        (
            "additional_contexts",
            !build.additional_contexts.is_empty(),
            BUILDKIT,
        ),
        (
            "cache_from",
            cache,
            "the classic builder takes only images as cache: name an image, or `type=registry,ref=IMAGE`",
        ),
        ("cache_to", !build.cache_to.is_empty(), BUILDKIT),
        (
            "context",
            ssh,
            "the Engine has no keys to fetch this with: use an https:// address, or clone it and name the directory",
        ),
        (
            "dockerfile",
            local_file,
            "the Dockerfile of a remote context is looked for in that context: give a relative path",
        ),
        (
            "dockerfile_inline",
            remote && !build.dockerfile_inline.is_empty(),
            "the classic builder cannot put a file into a remote context: clone it and name the directory",
        ),
        ("entitlements", !build.entitlements.is_empty(), BUILDKIT),
        (
            "isolation",
            !matches!(build.isolation.as_str(), "" | "default"),
            "isolation is a matter of Windows; Linux has only \"default\"",
        ),
        ("platforms", build.platforms.len() > 1, &several),
        ("privileged", build.privileged, BUILDKIT),
        ("provenance", attestation(&build.provenance), BUILDKIT),
        ("sbom", attestation(&build.sbom), BUILDKIT),
        ("secrets", !build.secrets.is_empty(), BUILDKIT),
    ];
    let keys = [("ssh", !build.ssh.is_empty(), BUILDKIT)];
    let set = checks.into_iter().chain(keys).filter(|(_, set, _)| *set);
    set.map(|(name, _, why)| {
        (
            format!("services.{service_name}.build.{name}"),
            why.to_owned(),
        )
    })
    .collect()
}

/// Whether an attestation is asked for.
pub(super) fn attestation(value: &str) -> bool {
    !matches!(value, "" | "false" | "0")
}

/// Whether a context is fetched by the Engine rather than sent to it.
pub(super) fn is_remote(context: &str) -> bool {
    const SIGNS: [&str; 6] = [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
    ];
    SIGNS.iter().any(|sign| context.starts_with(sign))
}

/// The image that an entry of `cache_from` names; none if it names something else.
fn cache_image(from: &str) -> Option<&str> {
    if !from.split(',').any(|part| part.starts_with("type=")) {
        return Some(from);
    }
    let mut parts = from.split(',');
    if !parts.any(|part| part == "type=registry") {
        return None;
    }
    from.split(',').find_map(|part| part.strip_prefix("ref="))
}

/// The options that the client library knows.
pub(super) fn options(request: &BuildRequest<'_>, build: &Build) -> BuildImageOptions {
    let mut options = BuildImageOptionsBuilder::new()
        .t(&request.image)
        .nocache(request.flags.no_cache || build.no_cache)
        .rm(true)
        .forcerm(true)
        .target(&build.target);
    if !build.dockerfile.is_empty() {
        options = options.dockerfile(&build.dockerfile);
    }
    if request.flags.pull || build.pull {
        options = options.pull("1");
    }
    if !build.network.is_empty() {
        options = options.networkmode(&build.network);
    }
    let single = if let [platform] = build.platforms.as_slice() {
        platform.as_str()
    } else {
        ""
    };
    let own = request.service.platform.as_str();
    options
        .platform(if own.is_empty() { single } else { own })
        .build()
}

/// A client that adds to its requests the parameters that its library does not know, or of
/// which it takes only one, and those that may be long.
pub(super) fn with_more(
    docker: &Docker,
    request: &BuildRequest<'_>,
    build: &Build,
) -> Result<Docker, BuildError> {
    let mut query = String::new();
    for (name, value) in more(request, build) {
        query.push('&');
        query.push_str(name);
        query.push('=');
        encode(&value, &mut query);
    }
    if query.len() > LIMIT {
        let service = request.service.name.clone();
        return Err(BuildError::TooLong {
            service,
            size: query.len(),
            limit: LIMIT,
        });
    }
    Ok(docker.clone().with_request_modifier(move |mut request| {
        if let Ok(uri) = format!("{}{query}", request.uri()).parse() {
            *request.uri_mut() = uri;
        }
        request
    }))
}

fn more(request: &BuildRequest<'_>, build: &Build) -> Vec<(&'static str, String)> {
    let mut more: Vec<(&'static str, String)> = Vec::new();
    more.extend(build.tags.iter().map(|tag| ("t", tag.clone())));
    for (host, addresses) in &build.extra_hosts.0 {
        more.extend(
            addresses
                .iter()
                .map(|address| ("extrahosts", format!("{host}:{address}"))),
        );
    }
    let args = args(request, build);
    if !args.is_empty() {
        more.push(("buildargs", json!(args).to_string()));
    }
    more.push((
        "labels",
        json!(labels(request, build, Some("classic"))).to_string(),
    ));
    let cache: Vec<&str> = build
        .cache_from
        .iter()
        .filter_map(|from| cache_image(from))
        .collect();
    if !cache.is_empty() {
        more.push(("cachefrom", json!(cache).to_string()));
    }
    if request.flags.memory > 0 {
        more.push(("memory", request.flags.memory.to_string()));
    }
    if !build.shm_size.is_zero() {
        more.push(("shmsize", build.shm_size.0.to_string()));
    }
    if !build.ulimits.is_empty() {
        let limits = build.ulimits.iter().map(|(name, limit)| {
            let (soft, hard) = match *limit {
                Ulimit::Single(both) => (both, both),
                Ulimit::Pair { soft, hard } => (soft, hard),
            };
            json!({ "Name": name, "Soft": soft, "Hard": hard })
        });
        more.push(("ulimits", json!(limits.collect::<Vec<_>>()).to_string()));
    }
    more
}

/// Arguments of the file, then those of the request; what has no value anywhere is left out.
pub(super) fn args(request: &BuildRequest<'_>, build: &Build) -> BTreeMap<String, String> {
    let mut all = build.args.clone();
    all.extend(request.flags.args.clone());
    let environment = &request.project.environment;
    let valued = all.into_iter().filter_map(|(name, value)| {
        let value = value.or_else(|| environment.get(&name).cloned())?;
        Some((name, value))
    });
    valued.collect()
}

/// Labels of the file and those by which docker compose finds the images of a project.
pub(super) fn labels(
    request: &BuildRequest<'_>,
    build: &Build,
    builder: Option<&str>,
) -> BTreeMap<String, String> {
    let own = [
        ("com.docker.compose.project", request.project.name.as_str()),
        ("com.docker.compose.service", request.service.name.as_str()),
    ];
    let mut labels = build.labels.clone();
    let builder = builder.map(|b| ("com.docker.compose.image.builder", b));
    let own = own.into_iter().chain(builder);
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

/// Percent-encodes `value` for a query.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::BuildFlags;
    use wharfie_compose::model::{Bytes, ExtraHosts, Project, Service, SshKeys};

    fn text(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_refused() {
        let plain = Build {
            context: "/src".into(),
            provenance: "false".into(),
            isolation: "default".into(),
            platforms: vec!["linux/amd64".into()],
            cache_from: vec!["a:1".into(), "type=registry,ref=b:2".into()],
            ..Build::default()
        };
        assert!(unsupported("web", &plain).is_empty());

        let build = Build {
            context: "git@example.com:a/b.git".into(),
            dockerfile_inline: "FROM scratch".into(),
            additional_contexts: text(&[("a", "b")]),
            cache_from: vec!["type=gha".into()],
            cache_to: vec!["type=inline".into()],
            entitlements: vec!["network.host".into()],
            isolation: "hyperv".into(),
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            privileged: true,
            provenance: "mode=max".into(),
            sbom: "true".into(),
            secrets: vec![wharfie_compose::model::FileReference::default()],
            ssh: SshKeys([("default".to_owned(), None)].into()),
            ..Build::default()
        };
        let refused = unsupported("web", &build);
        let names: Vec<&str> = refused
            .iter()
            .filter_map(|(path, why)| {
                path.strip_prefix("services.web.build.")
                    .filter(|_| !why.is_empty())
            })
            .collect();
        let expected = "additional_contexts cache_from cache_to context dockerfile_inline entitlements \
                        isolation platforms privileged provenance sbom secrets ssh";
        assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn what_is_asked_for() {
        let build = Build {
            args: [
                ("A".into(), Some("file".into())),
                ("B".into(), None),
                ("C".into(), None),
            ]
            .into(),
            labels: text(&[("l", "1"), ("com.docker.compose.project", "mine")]),
            tags: vec!["t:1".into(), "t:2".into()],
            extra_hosts: ExtraHosts(
                [(
                    "h".to_owned(),
                    vec!["10.0.0.1".to_owned(), "::1".to_owned()],
                )]
                .into(),
            ),
            shm_size: Bytes(1 << 40),
            ulimits: [("nofile".to_owned(), Ulimit::Pair { soft: 1, hard: 2 })].into(),
            cache_from: vec!["type=registry,ref=b:2".into()],
            ..Build::default()
        };
        let project = Project {
            name: "p".into(),
            environment: text(&[("B", "env")]),
            ..Project::default()
        };
        let service = Service {
            name: "web".into(),
            platform: "linux/amd64".into(),
            ..Service::default()
        };
        let request = BuildRequest {
            project: &project,
            service: &service,
            image: "p-web".into(),
            flags: BuildFlags {
                no_cache: true,
                pull: true,
                args: [("A".to_owned(), Some("line & more".to_owned()))].into(),
                ..BuildFlags::default()
            },
        };
        let more = more(&request, &build);
        let all = |name: &str| -> Vec<&str> {
            more.iter()
                .filter(|(n, _)| *n == name)
                .map(|(_, value)| value.as_str())
                .collect()
        };
        assert_eq!(all("t"), ["t:1", "t:2"]);
        assert_eq!(all("extrahosts"), ["h:10.0.0.1", "h:::1"]);
        assert_eq!(all("buildargs"), [r#"{"A":"line & more","B":"env"}"#]);
        assert_eq!(all("shmsize"), ["1099511627776"]);
        assert_eq!(all("ulimits"), [r#"[{"Name":"nofile","Soft":1,"Hard":2}]"#]);
        assert_eq!(all("cachefrom"), [r#"["b:2"]"#]);
        let labels = all("labels").concat();
        assert!(
            labels.contains(r#""com.docker.compose.project":"p""#),
            "{labels}"
        );
        assert!(labels.contains(r#""l":"1""#), "{labels}");
        let options = options(&request, &build);
        assert!(options.nocache && options.rm && options.forcerm);
        assert_eq!(
            (options.platform.as_str(), options.pull.as_deref()),
            ("linux/amd64", Some("1"))
        );
        let mut encoded = String::new();
        encode("a&b=ü", &mut encoded);
        assert_eq!(encoded, "a%26b%3D%C3%BC");
    }
}
