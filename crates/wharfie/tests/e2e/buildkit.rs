//! Images built with the Engine's BuildKit.

use std::fs;
use std::os::unix::net::UnixListener;

use wharfie_lab::EngineKind;

use crate::engines::shared;
use crate::stack::Stack;

/// The first steps of a Dockerfile: a shell without a base image.
const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n";

/// A stack with a Dockerfile that begins with [`BASE`].
fn stack(kind: EngineKind, name: &str, compose: &str, dockerfile: &str) -> Option<Stack> {
    let stack = Stack::on(shared(kind)?, name, compose);
    stack.write("Dockerfile", &format!("{BASE}{dockerfile}"));
    fs::copy("/bin/busybox", stack.path("busybox")).unwrap();
    Some(stack)
}

#[test]
fn secrets_agents_and_caches_reach_the_steps() {
    secrets_agents_and_caches(EngineKind::Debian);
}

#[test]
fn secrets_agents_and_caches_reach_the_steps_on_28() {
    secrets_agents_and_caches(EngineKind::Sid28);
}

fn secrets_agents_and_caches(kind: EngineKind) {
    let compose = "
services:
  web:
    build:
      context: .
      args: {A: from-file, B: }
      labels: {my.label: mine}
      tags: [bk-more:1]
      secrets: [plain, {source: variable, target: token}]
      ssh: [default, other=./other.sock]
      extra_hosts: ['h.example:10.9.8.7']
      cache_to: [type=inline]
    init: true
    command: sleep 1000
secrets:
  plain: {file: ./secret.txt}
  variable: {environment: TOKEN}
";
    let dockerfile = "ARG A
ARG B
COPY . /all
RUN find /all | sort; echo \"args $A $B\"; grep h.example /etc/hosts
RUN --mount=type=secret,id=plain --mount=type=secret,id=token,target=/t,uid=7,mode=0440 \
    echo \"secrets $(cat /run/secrets/plain | rev) $(cat /t | rev) $(stat -c %u:%a /t)\"
RUN --mount=type=ssh --mount=type=ssh,id=other,target=/other test -S $SSH_AUTH_SOCK -a -S /other && echo agents are there
RUN --mount=type=cache,target=/cache echo \"been here $(ls /cache | wc -l) times\"; touch /cache/$B
RUN test ! -e /run/secrets/plain
";
    let Some(mut stack) = stack(kind, "buildkit", compose, dockerfile) else {
        return;
    };
    stack.write("secret.txt", "12345");
    stack.write(".dockerignore", "*.md\n!README.md\n*.sock\n*.txt\n");
    stack.write("README.md", "");
    stack.write("other.md", "");
    stack.write("sub/file", "1");
    let _default = UnixListener::bind(stack.path("default.sock")).unwrap();
    let _other = UnixListener::bind(stack.path("other.sock")).unwrap();
    stack.fails(1, "build").says(["TOKEN is not set"]);
    stack.env("TOKEN", "abcde");
    stack.env("B", "first");
    stack
        .fails(1, "build")
        .says(["no SSH agent runs", "ssh-add"]);
    let socket = stack.path("default.sock").display().to_string();
    stack.env("SSH_AUTH_SOCK", &socket);

    let built = stack.ok("build");
    built.says([
        "args from-file first",
        "10.9.8.7\th.example",
        "secrets 54321 edcba 7:440",
        "agents are there",
        "been here 0 times",
        "/all/README.md",
        "/all/sub/file",
        "Image buildkit-web  Built",
    ]);
    for hidden in ["/all/other.md", "/all/secret.txt", "12345", "abcde"] {
        built.never_says(hidden);
    }
    // The same again comes from the cache; a change is seen, and the cache mount has stayed.
    stack.ok("build").says(["CACHED"]).never_says("been here 0");
    stack.write("sub/file", "changed");
    stack.env("B", "second");
    stack
        .ok("build")
        .says(["args from-file second", "been here 1 times"]);

    // It runs, under all its names.
    stack.ok("up -d");
    assert_eq!(stack.sh("web", "cat /all/sub/file"), "changed");
    let image = |name: &str| {
        let target = format!("/images/{name}/json");
        stack.host.engine().api("GET", &target, None).unwrap()
    };
    assert_eq!(image("bk-more:1")["Id"], image("buildkit-web")["Id"]);
    let labels = &image("bk-more:1")["Config"]["Labels"];
    assert_eq!(labels["my.label"], "mine");
    assert_eq!(labels["com.docker.compose.project"], "buildkit");
    let history = stack
        .host
        .engine()
        .api("GET", "/images/buildkit-web/history", None);
    let history = history.unwrap().to_string();
    assert!(
        !history.contains("12345") && !history.contains("abcde"),
        "{history}"
    );
}

#[test]
fn failures_name_the_step_and_what_is_missing() {
    let compose = "
services:
  web: {build: {context: ., target: $TARGET}}
";
    let dockerfile = "FROM base AS broken
RUN echo said before; exit 7
FROM base AS secretive
RUN --mount=type=secret,id=nowhere,required=true true
";
    let Some(mut stack) = stack(EngineKind::Sid28, "bkfails", compose, dockerfile) else {
        return;
    };
    stack.env("TARGET", "broken");
    stack.fails(1, "build").says([
        "said before",
        "RUN echo said before; exit 7",
        "exit code: 7",
    ]);
    stack.fails(1, "build -q").says(["said before"]);
    stack.env("TARGET", "secretive");
    stack.fails(1, "build").says(["nowhere", "not found"]);
    stack.env("TARGET", "absent");
    stack.fails(1, "build").says(["absent"]);
    stack.env("TARGET", "base");
    stack.ok("build -q");
    stack.write(
        "Dockerfile",
        "# syntax=localhost:1/docker/dockerfile:9\nFROM scratch\n",
    );
    stack.fails(1, "build").says([
        "# syntax=localhost:1/docker/dockerfile:9",
        "without the line",
    ]);
}

#[test]
fn contexts_have_names() {
    let compose = "
services:
  web:
    build:
      context: .
      additional_contexts:
        files: ./files
        lib: service:lib
        img: docker-image://busybox
    init: true
    command: sleep 1000
  lib:
    build:
      context: ./lib
      dockerfile_inline: |
        FROM scratch
        COPY made /made
";
    let dockerfile = "COPY --from=files . /files
COPY --from=lib /made /made
COPY --from=img /bin/busybox /other
";
    let Some(stack) = stack(EngineKind::Sid28, "bkcontexts", compose, dockerfile) else {
        return;
    };
    stack.write("files/sub/a", "a");
    stack.write("files/b.md", "b");
    stack.write("files/.dockerignore", "*.md");
    stack.write("lib/made", "one");
    stack.ok("up -d web");
    let all = "cd /files; find . -type f | sort; cat /made; test -x /other";
    assert_eq!(stack.sh("web", all), "./.dockerignore\n./sub/a\none");
    // A change in what the service is made from reaches it.
    stack.write("lib/made", "two");
    stack.ok("up -d --build web");
    assert_eq!(stack.sh("web", "cat /made"), "two");
}

#[test]
fn what_the_builder_cannot_do_is_refused() {
    let compose = "
services:
  web:
    build:
      context: .
      $ATTRIBUTE
    command: /bin/true
";
    for kind in [EngineKind::Debian, EngineKind::Sid28] {
        let Some(stack) = stack(kind, "bkrefuses", compose, "") else {
            return;
        };
        let with = |attribute: &str| {
            stack.write("compose.yaml", &compose.replace("$ATTRIBUTE", attribute));
        };
        with("cache_to: [type=gha]");
        stack
            .fails(1, "build")
            .says(["compose.yaml:6:", "build.cache_to", "type=inline"]);
        with("entitlements: [everything]");
        stack
            .fails(1, "build")
            .says(["compose.yaml:6:", "build.entitlements"]);
        // The image store of these Engines holds one platform, and no attestations.
        with("platforms: [linux/amd64, linux/arm64]");
        stack
            .fails(1, "build")
            .says(["build.platforms", "containerd-snapshotter"]);
        with("provenance: mode=max");
        stack.fails(1, "build").says(["build.provenance"]);
        with("labels: {a: b}");
        stack.fails(1, "build --sbom true").says(["build.sbom"]);
        stack.ok("build --provenance=false");
        stack
            .fails(2, "build --builder other")
            .says(["--builder other"]);
        with("privileged: true");
        stack
            .fails(1, "build --no-cache")
            .says(["security.insecure"]);
    }
    let Some(old) = stack(EngineKind::Debian, "bkold", compose, "") else {
        return;
    };
    let attribute = "additional_contexts: {a: ./x}";
    old.write("compose.yaml", &compose.replace("$ATTRIBUTE", attribute));
    old.fails(1, "build")
        .says(["compose.yaml:6:", "Engine 23", "1.41"]);
}

#[test]
fn the_classic_builder_is_still_there() {
    let compose = "
services:
  web: {build: {context: ., ulimits: {nofile: 1234}}}
  modern: {build: {context: ., secrets: [s]}}
secrets: {s: {file: ./Dockerfile}}
";
    let dockerfile = "RUN echo limit $(ulimit -n)\n";
    let Some(mut stack) = stack(EngineKind::Debian, "bkclassic", compose, dockerfile) else {
        return;
    };
    // The BuildKit of this Engine knows no limits: the builder that does is taken.
    stack.ok("build web").says(["limit 1234", "Step 4/"]);
    stack.ok("build modern").says(["#5 "]);
    stack.ok("build --memory 64m web").says(["Step 4/"]);
    stack
        .fails(1, "build --memory 64m modern")
        .says(["--memory"]);
    stack.env("DOCKER_BUILDKIT", "0");
    stack
        .fails(1, "build modern")
        .says(["compose.yaml:4:", "BuildKit"]);
    stack.ok("build web").says(["Step 4/"]);
}
