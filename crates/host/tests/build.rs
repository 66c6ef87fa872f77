//! Builds images with an Engine's classic builder. Skipped unless `WHARFIE_TEST_ENGINE` names one
//! (`unix:///var/run/docker.sock`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, PruneImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use wharfie_compose::model::{Build, Project, Service};
use wharfie_host::build::{BuildError, BuildRequest, build};
use wharfie_host::{BuildFlags, Builder, Engine};

/// A context directory, the image built from it and the client; all cleaned up by `end`.
struct Lab {
    docker: Docker,
    dir: PathBuf,
    image: String,
}

impl Lab {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(host) = std::env::var("WHARFIE_TEST_ENGINE")
            .ok()
            .filter(|host| !host.is_empty())
        else {
            eprintln!("skipped: WHARFIE_TEST_ENGINE does not name a Docker Engine");
            return None;
        };
        let path = host.strip_prefix("unix://").unwrap_or(&host);
        let docker = Docker::connect_with_unix(path, 120, bollard::API_DEFAULT_VERSION).unwrap();
        let name = format!(
            "wharfie-build-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        Some(Self {
            docker,
            dir,
            image: format!("{name}:test"),
        })
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn busybox(&self) -> &Self {
        fs::copy("/bin/busybox", self.dir.join("busybox")).unwrap();
        self
    }

    /// The first steps of a Dockerfile, labelled so that what is left of it can be found.
    fn base(&self) -> String {
        let label = &self.image;
        format!(
            "FROM scratch AS base\nLABEL io.wharfie.test={label}\nCOPY busybox /bin/busybox\n\
             RUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n"
        )
    }

    async fn build(
        &self,
        wanted: Build,
        args: &[(&str, Option<&str>)],
    ) -> (Result<String, BuildError>, Vec<String>) {
        let host = std::env::var("WHARFIE_TEST_ENGINE").unwrap();
        let engine = Engine::connect(Some(&host)).await.unwrap();
        let engine = engine.with_builder(Builder::Classic);
        let project = Project {
            name: "lab".into(),
            environment: [("FROM_ENV".to_owned(), "env".to_owned())].into(),
            working_dir: self.dir.clone(),
            ..Project::default()
        };
        let service = Service {
            name: "web".into(),
            build: Some(wanted),
            ..Service::default()
        };
        let args = args
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)));
        let request = BuildRequest {
            project: &project,
            service: &service,
            image: self.image.clone(),
            flags: BuildFlags {
                args: args.collect::<BTreeMap<_, _>>(),
                ..BuildFlags::default()
            },
        };
        let mut lines = Vec::new();
        let result = build(&engine, &request, &mut |line| lines.push(line.to_owned())).await;
        (result, lines)
    }

    async fn end(self, images: &[&str]) {
        for image in images.iter().copied().chain([self.image.as_str()]) {
            let force = RemoveImageOptionsBuilder::new().force(true).build();
            let _ = self.docker.remove_image(image, Some(force), None).await;
        }
        let left = [
            ("dangling", vec!["true".to_owned()]),
            ("label", vec![format!("io.wharfie.test={}", self.image)]),
        ];
        let left = PruneImagesOptionsBuilder::new()
            .filters(&left.into())
            .build();
        self.docker.prune_images(Some(left)).await.unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn plain() -> Build {
    Build {
        context: ".".into(),
        dockerfile: "Dockerfile".into(),
        ..Build::default()
    }
}

#[tokio::test]
async fn arguments_target_ignore_file_tags_and_labels() {
    let Some(lab) = Lab::new() else { return };
    lab.busybox()
        .file("Dockerfile", &format!(
            "{}ARG A\nARG B\nARG C\nARG FROM_ENV\nARG NOWHERE=default\n\
             RUN echo \"got $A $B $C $FROM_ENV $NOWHERE\" && cat /etc/hosts && ulimit -n && df /dev/shm\n\
             COPY . /all\nRUN find /all | sort\n\
             FROM base AS other\nRUN exit 1\n",
            lab.base()
        ))
        .file(".dockerignore", "busybox2\n*.md\n!README.md\n")
        .file("README.md", "")
        .file("secret.md", "")
        .file("sub/x", "");
    let tag = lab.image.replace(":test", ":more");
    let asked = Build {
        args: [
            ("A", Some("file")),
            ("B", Some("file")),
            ("FROM_ENV", None),
            ("NOWHERE", None),
        ]
        .map(|(k, v)| (k.to_owned(), v.map(str::to_owned)))
        .into(),
        target: "base".into(),
        labels: [("mine".to_owned(), "a & b".to_owned())].into(),
        tags: vec![tag.clone()],
        extra_hosts: wharfie_compose::model::ExtraHosts(
            [
                ("one".to_owned(), vec!["10.1.1.1".to_owned()]),
                ("two".to_owned(), vec!["10.1.1.2".to_owned()]),
            ]
            .into(),
        ),
        ulimits: [(
            "nofile".to_owned(),
            wharfie_compose::model::Ulimit::Single(777),
        )]
        .into(),
        platforms: vec!["linux/amd64".into()],
        ..plain()
    };
    let (id, lines) = lab
        .build(asked, &[("B", Some("asked")), ("C", Some("x&y=ü"))])
        .await;
    let output = lines.join("\n");
    let id = id.unwrap_or_else(|e| panic!("{e}\n{output}"));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("Step 1/") && line.ends_with(" : FROM scratch AS base")),
        "{output}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line == "got file asked x&y=ü env default"),
        "{output}"
    );
    assert!(
        output.contains("10.1.1.1\tone") && output.contains("10.1.1.2\ttwo"),
        "{output}"
    );
    assert!(lines.iter().any(|line| line == "777"), "{output}");
    let all: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("/all"))
        .collect();
    let expected = [
        "/all",
        "/all/.dockerignore",
        "/all/Dockerfile",
        "/all/README.md",
        "/all/busybox",
        "/all/sub",
        "/all/sub/x",
    ];
    assert_eq!(all, expected);

    for name in [&lab.image, &tag] {
        let image = lab.docker.inspect_image(name).await.unwrap();
        assert_eq!(image.id.as_deref(), Some(id.as_str()));
        let labels = image.config.unwrap().labels.unwrap();
        assert_eq!(labels["mine"], "a & b");
        assert_eq!(labels["com.docker.compose.project"], "lab");
        assert_eq!(labels["com.docker.compose.service"], "web");
    }
    lab.end(&[&tag]).await;
}

#[tokio::test]
async fn dockerfiles_from_elsewhere_leave_no_trace() {
    let Some(lab) = Lab::new() else { return };
    lab.busybox().file("in/a", "");
    fs::rename(lab.dir.join("busybox"), lab.dir.join("in/busybox")).unwrap();
    let text = format!("{}COPY . /all\nRUN find /all | sort\n", lab.base());
    lab.file("Outside", &text);
    let outside = Build {
        context: "in".into(),
        dockerfile: "../Outside".into(),
        ..plain()
    };
    let (id, lines) = lab.build(outside, &[]).await;
    let id = id.unwrap();
    let all: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("/all"))
        .collect();
    assert_eq!(all, ["/all", "/all/a", "/all/busybox"]);
    // The same again comes wholly from the cache.
    let inline = Build {
        context: "in".into(),
        dockerfile_inline: text,
        ..Build::default()
    };
    assert_eq!(lab.build(inline, &[]).await.0.unwrap(), id);
    lab.end(&[]).await;
}

#[tokio::test]
async fn a_failing_step_is_named() {
    let Some(lab) = Lab::new() else { return };
    lab.busybox().file(
        "Dockerfile",
        &format!("{}RUN echo trying; exit 3\n", lab.base()),
    );
    let (result, lines) = lab.build(plain(), &[]).await;
    assert!(lines.iter().any(|line| line == "trying"), "{lines:?}");
    let fault = result.unwrap_err();
    assert!(matches!(fault, BuildError::Step { .. }), "{fault}");
    assert_eq!(
        fault.to_string().split_once(" : ").unwrap().1,
        "RUN echo trying; exit 3: The command '/bin/sh -c echo trying; exit 3' returned a non-zero code: 3"
    );
    lab.file("Dockerfile", "NONSENSE\n");
    let fault = lab.build(plain(), &[]).await.0.unwrap_err();
    assert!(
        fault.to_string().contains("unknown instruction: NONSENSE"),
        "{fault}"
    );
    let target = Build {
        target: "nope".into(),
        ..plain()
    };
    lab.file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let fault = lab.build(target, &[]).await.0.unwrap_err();
    assert!(fault.to_string().contains("nope"), "{fault}");
    lab.end(&[]).await;
}

#[tokio::test]
async fn a_context_that_cannot_be_read_is_named() {
    let Some(lab) = Lab::new() else { return };
    lab.file("Dockerfile", "FROM scratch\nCOPY . /\n");
    // Even root cannot read these.
    let attributes = Build {
        context: "/proc/self/attr".into(),
        dockerfile: lab.dir.join("Dockerfile").display().to_string(),
        ..plain()
    };
    let fault = lab.build(attributes, &[]).await.0.unwrap_err();
    assert!(matches!(fault, BuildError::Unreadable { .. }), "{fault}");
    assert!(fault.to_string().contains("/attr/"), "{fault}");
    lab.end(&[]).await;
}

#[tokio::test]
async fn a_dropped_build_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.busybox()
        .file("Dockerfile", &format!("{}RUN sleep 30\n", lab.base()));
    let waited = tokio::time::timeout(Duration::from_secs(4), lab.build(plain(), &[])).await;
    assert!(waited.is_err());
    let sleeping = async || {
        let all = ListContainersOptionsBuilder::new().all(true).build();
        let all = lab.docker.list_containers(Some(all)).await.unwrap();
        let mark = |c: &ContainerSummary| {
            c.labels
                .as_ref()
                .and_then(|l| l.get("io.wharfie.test").cloned())
        };
        all.iter()
            .filter(|c| mark(c).as_deref() == Some(lab.image.as_str()))
            .count()
    };
    for _ in 0..50 {
        if sleeping().await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(sleeping().await, 0, "the Engine still builds");
    assert!(lab.docker.inspect_image(&lab.image).await.is_err());
    lab.end(&[]).await;
}
