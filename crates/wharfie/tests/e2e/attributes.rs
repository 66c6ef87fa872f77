//! Attributes of services that need more than to be passed on, on an old and a new Engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::json;
use wharfie_lab::EngineKind;

use crate::engines::shared;
use crate::stack::{Stack, soon, text};

#[test]
fn secrets_are_in_memory() {
    secrets_in_memory(EngineKind::Debian, "inmemory");
}

#[test]
fn secrets_are_in_memory_on_28() {
    secrets_in_memory(EngineKind::Sid28, "inmemory28");
}

fn secrets_in_memory(kind: EngineKind, name: &str) {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    user: '1000:1000'
    read_only: true
    secrets:
      - {source: token, uid: '1000', gid: '100', mode: 0400}
      - {source: plain, target: /etc/plain, mode: 0440, gid: '1000'}
    configs:
      - {source: app, target: /etc/app.conf}
secrets:
  token: {environment: TOKEN}
  plain: {file: ./plain.txt}
configs:
  app: {content: 'a=b'}
";
    let Some(host) = shared(kind) else { return };
    let mut stack = Stack::on(host, name, compose);
    stack.write("plain.txt", "of a file");
    stack.env("TOKEN", "very secret");
    stack.ok("up -d");
    let all = "cat /run/secrets/token; stat -c ' %u:%g %a' /run/secrets/token; \
               cat /etc/plain; stat -c ' %u:%g %a' /etc/plain; cat /etc/app.conf";
    let expected = "very secret 1000:100 400\nof a file 0:1000 440\na=b";
    assert_eq!(stack.sh("web", all), expected);
    let mounts = stack.sh(
        "web",
        "grep -E ' (/run/secrets/token|/etc/app.conf) ' /proc/mounts",
    );
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[2], &words[3][..3]), ("tmpfs", "ro,"), "{line}");
    }
    assert_eq!(mounts.lines().count(), 2);
    let folder = kept(&stack, "web-1");
    assert!(folder.is_dir());

    // They outlive a restart, and a new container gets new ones.
    stack.ok("restart -t 0 web");
    assert_eq!(stack.sh("web", all), expected);
    stack.ok("up -d").says(["Nothing to do"]);
    stack.ok("up -d --force-recreate -t 0");
    assert_eq!(stack.sh("web", all), expected);
    assert!(!folder.exists(), "{} stays", folder.display());

    // A boot takes them away.
    stack.ok("stop -t 0");
    let folder = kept(&stack, "web-1");
    fs::remove_dir_all(&folder).unwrap();
    stack.ok("up -d").says(["making it anew"]);
    assert_eq!(stack.sh("web", all), expected);
    assert_eq!(stack.names(), [format!("{name}-web-1")]);

    // So does whatever removes their container.
    let folder = kept(&stack, "web-1");
    let one_off = stack.ok("run --rm -T web cat /run/secrets/token");
    assert_eq!(one_off.stdout, "very secret");
    let siblings = || fs::read_dir(folder.parent().unwrap()).unwrap();
    let of_stack = || {
        siblings()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with(&format!("{name}-")))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_stack().len(), 1, "{:?}", of_stack());
    let target = format!("/containers/{name}-web-1?force=1");
    stack.host.engine().api("DELETE", &target, None).unwrap();
    stack.ok("up -d");
    assert_eq!(stack.sh("web", all), expected);
    stack.ok("down -t 0");
    soon(|| {
        ensure!(of_stack().is_empty(), "{:?}", of_stack());
        Ok(())
    });
}

/// Where the files of a container are kept.
fn kept(stack: &Stack, short: &str) -> PathBuf {
    let inspected = stack.inspect(short);
    let mounts = inspected["Mounts"].as_array().unwrap();
    let secret = mounts
        .iter()
        .find(|m| m["Destination"] == "/run/secrets/token")
        .unwrap();
    Path::new(&text(&secret["Source"]))
        .parent()
        .unwrap()
        .to_owned()
}

#[test]
fn volumes_of_every_type() {
    volumes(EngineKind::Debian, "vtypes");
}

#[test]
fn volumes_of_every_type_on_28() {
    volumes(EngineKind::Sid28, "vtypes28");
}

fn volumes(kind: EngineKind, name: &str) {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    tmpfs: /plain
    volumes:
      - ./made:/made
      - {type: bind, source: ./there, target: /there, read_only: true, bind: {propagation: rprivate}}
      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0o700}}
      - {type: volume, source: data, target: /data, volume: {nocopy: true}}
      - {type: volume, target: /anonymous}
      - $MORE
volumes:
  data: {labels: {kind: mine}}
";
    let Some(host) = shared(kind) else { return };
    let stack = Stack::on(host, name, &compose.replace("$MORE", "data:/again:ro"));
    stack.write("there/file", "there");
    stack.ok("up -d");
    let script = "set -e; cat /there/file; touch /made/x /data/y /anonymous/z /plain/p; \
                  ! touch /there/no 2>/dev/null; ! touch /again/no 2>/dev/null; ls /again; \
                  stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'";
    assert_eq!(stack.sh("web", script), "therey\n700\n1024\n");
    assert!(stack.path("made/x").exists());
    let volume = stack.resources("volumes");
    assert_eq!(volume, [format!("{name}_data")]);

    // A bind that must exist is not made.
    let strict = "{type: bind, source: ./nowhere, target: /n, bind: {create_host_path: false}}";
    stack.write("compose.yaml", &compose.replace("$MORE", strict));
    stack.fails(1, "up -d").says(["nowhere"]);
    assert!(!stack.path("nowhere").exists());

    // What is not there for this Engine is refused where it is written.
    let refused = [
        ("{type: npipe, source: p, target: /p}", "Windows"),
        ("{type: cluster, source: c, target: /c}", "Swarm"),
    ];
    for (mount, why) in refused {
        stack.write("compose.yaml", &compose.replace("$MORE", mount));
        stack.fails(1, "up -d").says(["compose.yaml:14:", why]);
    }
    let image = "{type: image, source: busybox, target: /img, image: {subpath: bin}}";
    let subpath = "{type: volume, source: data, target: /sub, volume: {subpath: inner}}";
    for (mount, script, said) in [
        (
            image,
            "test -x /img/busybox && ! touch /img/x 2>/dev/null && echo mounted",
            "mounted\n",
        ),
        (subpath, "ls /sub", "deep\n"),
    ] {
        stack.write("compose.yaml", &compose.replace("$MORE", mount));
        if kind == EngineKind::Debian {
            stack
                .fails(1, "up -d")
                .says(["compose.yaml:14:", "needs Engine API"]);
            continue;
        }
        stack.sh("web", "mkdir -p /data/inner; touch /data/inner/deep");
        stack.ok("up -d -t 0");
        assert_eq!(stack.sh("web", script), said);
    }
}

#[test]
fn devices_and_reservations() {
    let compose = "
services:
  web:
    image: busybox
    command: sleep 1000
    $MORE
";
    for kind in [EngineKind::Debian, EngineKind::Sid28] {
        let Some(host) = shared(kind) else { return };
        let stack = Stack::on(host, &format!("devices-{kind:?}").to_lowercase(), compose);
        let with = |more: &str| {
            stack.write("compose.yaml", &compose.replace("$MORE", more));
        };
        with("devices: ['/dev/zero:/dev/nothing:r']");
        stack.ok("up -d -t 0");
        let read = stack.sh("web", "head -c 3 /dev/nothing | od -An -tx1");
        assert_eq!(read.trim(), "00 00 00");
        let device = &stack.inspect("web-1")["HostConfig"]["Devices"][0];
        assert_eq!(device["CgroupPermissions"], "r");
        // There are none here: the Engine is asked, and says so.
        with("gpus: all");
        stack.fails(1, "up -d -t 0").says(["gpu"]);
        let device = &stack.inspect("web-1")["HostConfig"]["DeviceRequests"][0];
        assert_eq!(
            (&device["Count"], &device["Capabilities"]),
            (&json!(-1), &json!([["gpu"]]))
        );
        with("deploy: {resources: {reservations: {devices: [{capabilities: [tpu], count: 2}]}}}");
        stack.fails(1, "up -d -t 0").says(["tpu"]);
        with("devices: ['example.com/class=one']");
        let ran = stack.fails(1, "up -d -t 0");
        match kind {
            EngineKind::Debian => ran.says(["compose.yaml:6:", "CDI", "1.44"]),
            _ => ran.says(["example.com/class=one"]),
        };
    }
}

#[test]
fn pull_policies() {
    let compose = "
services:
  web:
    image: $IMAGE
    pull_policy: $POLICY
    command: sleep 1000
    build: $BUILD
";
    let Some(stack) = Stack::new("pullpolicy", "services: {}") else {
        return;
    };
    // Nothing can be pulled here: a try shows.
    let with = |image: &str, policy: &str, build: &str| {
        let compose = compose.replace("$IMAGE", image).replace("$POLICY", policy);
        let compose = match build {
            "" => compose.replace("    build: $BUILD\n", ""),
            build => compose.replace("$BUILD", build),
        };
        stack.write("compose.yaml", &compose);
    };
    let absent = "localhost:1/absent:1";
    for policy in [
        "missing",
        "if_not_present",
        "daily",
        "weekly",
        "refresh",
        "always",
        "every_1h",
    ] {
        with(absent, policy, "");
        stack
            .fails(1, "up -d")
            .says(["cannot pull localhost:1/absent:1"]);
    }
    with(absent, "never", "");
    stack.fails(1, "up -d").says(["its pull policy is `never`"]);
    with(absent, "build", "");
    stack.fails(1, "up -d").says(["no `build`"]);
    for policy in [
        "missing", "daily", "weekly", "every_2d", "every_1w", "never",
    ] {
        with("busybox", policy, "");
        stack.ok("up -d -t 0").never_says("Pulling");
    }
    let inline = "{dockerfile_inline: 'FROM busybox'}";
    with("localhost:1/pulled:1", "build", inline);
    stack.ok("up -d -t 0").says(["localhost:1/pulled:1  Built"]);
    stack.ok("up -d -t 0").says(["localhost:1/pulled:1  Built"]);
    // It got its name a moment ago, or so long ago that it is asked for again.
    let tag = "/images/busybox/tag?repo=localhost:1/pulled&tag=1";
    stack.host.engine().api("POST", tag, None).unwrap();
    with("localhost:1/pulled:1", "every_1h", "");
    stack.ok("up -d -t 0").never_says("Pulling");
    with("localhost:1/pulled:1", "every_1s", "");
    soon(|| {
        let ran = stack.run("up -d -t 0");
        ensure!(
            ran.stderr.contains("cannot pull localhost:1/pulled:1"),
            "{ran}"
        );
        Ok(())
    });
}

#[test]
fn what_needs_others_is_refused_where_it_is_written() {
    let Some(stack) = Stack::new("needsothers", "services: {}") else {
        return;
    };
    let compose = "
services:
  web:
    image: busybox
    command: sleep 1000
    $MORE
";
    for (more, why) in [
        ("credential_spec: {file: ./spec.json}", "Windows"),
        ("cpu_count: 2", "Windows"),
        (
            "models: [llm]\nmodels: {llm: {model: ai/some}}",
            "model runner",
        ),
    ] {
        stack.write("compose.yaml", &compose.replace("$MORE", more));
        stack.fails(1, "up -d").says(["compose.yaml:6:", why]);
        assert!(stack.names().is_empty());
    }
    stack.write(
        "compose.yaml",
        &compose.replace("$MORE", "platform: linux/s390x"),
    );
    let ran = stack.fails(1, "up -d");
    ran.says(["linux/s390x"]);
    stack.write(
        "compose.yaml",
        &compose.replace("$MORE", "platform: linux/amd64"),
    );
    stack.ok("up -d");
}

#[test]
fn providers_are_run() {
    let compose = "
services:
  database:
    provider:
      type: ./provider.sh
      options: {size: [10], tag: [a, b], unknown: [x]}
  web:
    image: busybox
    command: sleep 1000
    depends_on: [database]
  other: {image: busybox, command: sleep 1000}
";
    let Some(stack) = Stack::new("provided", compose) else {
        return;
    };
    let program = "#!/bin/sh
if [ \"$*\" = 'compose metadata' ]; then
  echo '{\"up\": {\"parameters\": [{\"name\": \"size\"}, {\"name\": \"tag\"}]}}'
  exit
fi
echo \"$*\" >>calls
[ -e broken ] && echo '{\"type\": \"error\", \"message\": \"out of disks\"}' && exit 1
echo '{\"type\": \"info\", \"message\": \"at work\"}'
echo '{\"type\": \"debug\", \"message\": \"not for everybody\"}'
echo '{\"type\": \"setenv\", \"message\": \"URL=db://here\"}'
";
    stack.write("provider.sh", program);
    fs::set_permissions(stack.path("provider.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    stack
        .ok("up -d -t 0")
        .says(["database | at work", "Provider database  Created"])
        .never_says("not for everybody");
    let calls = || fs::read_to_string(stack.path("calls")).unwrap();
    let call = "compose --project-name=provided up --size=10 --tag=a --tag=b database\n";
    assert_eq!(calls(), call);
    assert_eq!(stack.sh("web", "echo $DATABASE_URL"), "db://here\n");
    assert_eq!(stack.sh("other", "echo $DATABASE_URL"), "\n");
    stack.ok("up -d").says(["Nothing to do"]);
    stack.write("broken", "");
    stack.fails(1, "up -d").says(["database", "out of disks"]);
    fs::remove_file(stack.path("broken")).unwrap();
    stack.ok("down -t 0").says(["Provider database  Removed"]);
    let last = calls().lines().last().unwrap().to_owned();
    assert_eq!(last, "compose --project-name=provided down database");
    let absent = compose.replace("./provider.sh", "nosuchprovider");
    stack.write("compose.yaml", &absent);
    stack
        .fails(1, "up -d")
        .says(["services.database.provider", "nosuchprovider"]);
    assert!(stack.names().is_empty());
}
