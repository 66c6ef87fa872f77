//! `stats`, `cp`, `images`, `volumes`, `inspect`, `attach`, `export`, `commit`, `push`, `watch`.

use anyhow::ensure;

use crate::stack::{Stack, soon, text};

const TWO: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000, scale: 2}
  db: {image: busybox, init: true, command: sleep 1000}
  job: {image: busybox, command: [sh, -c, exit 3]}
";

#[test]
fn stats_tell_what_containers_use() {
    let Some(stack) = Stack::new("using", TWO) else {
        return;
    };
    stack.ok("up -d");
    soon(|| {
        ensure!(stack.inspect("job-1")["State"]["Status"] == "exited");
        Ok(())
    });
    let table = stack.ok("stats --no-stream");
    let titles = "CONTAINER ID NAME CPU % MEM USAGE / LIMIT MEM % NET I/O BLOCK I/O PIDS";
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(table.lines()[0]), titles);
    let names: Vec<&str> = table.lines()[1..]
        .iter()
        .filter_map(|l| l.split_whitespace().nth(1))
        .collect();
    assert_eq!(names, ["using-db-1", "using-web-1", "using-web-2"]);

    let json = stack
        .ok("stats --no-stream --format json --no-trunc web")
        .json_lines();
    assert_eq!(json.len(), 2);
    let first = &json[0];
    assert_eq!(text(&first["ID"]), stack.id("web-1"));
    assert_eq!(first["Name"], "using-web-1");
    // A shell's sleep and its init; some memory, of what the host has.
    assert_eq!(first["PIDs"], "2");
    let memory = text(&first["MemUsage"]);
    assert!(
        memory.contains("iB / ") && !memory.starts_with("0B"),
        "{memory}"
    );
    stack
        .ok("stats --no-stream -a")
        .says(["using-job-1", "0B / 0B"]);
    stack.fails(2, "stats nope").says(["nope"]);

    // Live: what comes is shown, what goes is not, and Ctrl-C ends it.
    let mut live = stack.start("stats --format json");
    live.says("using-db-1");
    stack.ok("up -d --scale web=3");
    live.says("using-web-3");
    live.interrupt();
    live.end().has_code(130);
}

#[test]
fn files_are_copied_in_and_out() {
    let Some(stack) = Stack::new("copying", TWO) else {
        return;
    };
    stack.ok("up -d");
    stack.write("site/page", "one\n");
    stack.write("site/deep/other", "two\n");
    stack.write("file", "three\n");
    let in_web = |number: &str, path: &str| {
        let line = ["exec", "-T", "--index", number, "web", "cat", path];
        stack.run(line).stdout
    };

    // Into all containers of a service: under its name, under a new one, and only the content.
    stack.ok("cp site web:/tmp");
    stack.ok("cp site web:/tmp/new");
    stack.ok("cp site/. web:/home");
    stack.ok("cp --index 2 file web:/tmp/renamed");
    for number in ["1", "2"] {
        assert_eq!(in_web(number, "/tmp/site/deep/other"), "two\n");
        assert_eq!(in_web(number, "/tmp/new/page"), "one\n");
        assert_eq!(in_web(number, "/home/page"), "one\n");
    }
    assert_eq!(in_web("2", "/tmp/renamed"), "three\n");
    assert_eq!(in_web("1", "/tmp/renamed"), "");

    // Out of the first one, the same way; a stopped container is as good.
    stack.sh(
        "web",
        "chmod 640 /tmp/site/page; ln -s site/page /tmp/link; ln -s /tmp/site /dir",
    );
    stack.ok("stop -t 0 web");
    stack.ok("cp web:/tmp/site out");
    stack.ok("cp web:/tmp/site out");
    stack.ok("cp web:/tmp/site/. out/content");
    stack.ok("cp web:/tmp/link out/link");
    stack.ok("cp -L web:/tmp/link out");
    stack.ok("cp -L web:/dir out");
    let read = |path: &str| std::fs::read_to_string(stack.path(path)).unwrap();
    for path in [
        "out/page",
        "out/site/page",
        "out/content/page",
        "out/dir/page",
    ] {
        assert_eq!(read(path), "one\n", "{path}");
    }
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(stack.path("out/page")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(
        !std::fs::symlink_metadata(stack.path("out/link"))
            .unwrap()
            .is_symlink()
    );
    stack.ok("start web");

    // Archives.
    let wharfie = crate::stack::wharfie();
    let script = format!("{wharfie} cp web:/tmp/site - | tar t");
    let listed = stack.program("sh", ["-c", &script]);
    listed.has_code(0).says(["site/deep/other"]);
    let script = format!("tar c file | {wharfie} cp - web:/home");
    stack.program("sh", ["-c", &script]).has_code(0);
    assert_eq!(
        (in_web("1", "/home/file"), in_web("2", "/home/file")),
        ("three\n".into(), "three\n".into())
    );

    // What makes no sense changes nothing: one of two containers has no such directory.
    stack.sh("web", "mkdir /only-here");
    stack
        .fails(1, "cp file web:/only-here/file")
        .says(["web-2", "/only-here"]);
    assert_eq!(in_web("1", "/only-here/file"), "");
    stack.fails(1, "cp nowhere web:/").says(["nowhere"]);
    stack
        .fails(1, "cp site web:/home/file")
        .says(["/home/file"]);
    stack.fails(1, "cp file web:/no/such/").says(["/no/such"]);
    stack.fails(1, "cp web:/nowhere .").says(["/nowhere"]);
    stack
        .fails(1, "cp web:/home/file no/such/place")
        .says(["no/such"]);
    stack.fails(1, "cp --index 3 file web:/").says(["3"]);
    stack.fails(2, "cp file nope:/").says(["nope"]);
    stack.fails(2, "cp web:/a db:/b");
    stack.fails(2, "cp a b").says(["SERVICE:PATH"]);
    stack
        .ok("cp --dry-run file web:/not-there")
        .says(["copy file to web:/not-there"]);
    assert_eq!(in_web("1", "/not-there"), "");
}

const STORED: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000, scale: 2, volumes: ['data:/data']}
  db: {image: busybox, init: true, command: sleep 1000, volumes: ['logs:/logs', '/anonymous']}
volumes: {data: {}, logs: {}}
";

#[test]
fn images_volumes_and_containers_are_shown() {
    let Some(stack) = Stack::new("shown", STORED) else {
        return;
    };
    stack.ok("up -d");
    let images = stack.ok("images");
    assert!(
        images.lines()[0].starts_with("CONTAINER           REPOSITORY          TAG"),
        "{images}"
    );
    assert_eq!(images.lines().len(), 4, "{images}");
    assert!(
        images.lines()[1]
            .starts_with("shown-db-1          busybox             latest              linux/"),
        "{images}"
    );
    let json = stack.ok("images --format json web").json();
    assert_eq!(json[1]["ContainerName"], "shown-web-2");
    assert_eq!(json[0]["ID"], stack.inspect("web-1")["Image"]);
    assert!(json[0]["Size"].as_u64().unwrap() > 100_000, "{json}");
    let ids = stack.ok("images -q");
    assert_eq!(
        text(&json[0]["ID"]),
        format!("sha256:{}", ids.stdout.trim())
    );
    stack.fails(2, "images nope").says(["nope"]);

    assert_eq!(
        stack.ok("volumes").stdout,
        "DRIVER    VOLUME NAME\nlocal     shown_data\nlocal     shown_logs\n"
    );
    assert_eq!(stack.ok("volumes -q db").lines(), ["shown_logs"]);
    let volumes = stack.ok("volumes --format json").json_lines();
    assert_eq!(
        (volumes.len(), &volumes[0]["Name"]),
        (2, &"shown_data".into())
    );
    assert!(text(&volumes[0]["Mountpoint"]).contains("shown_data"));
    stack.fails(2, "volumes nope").says(["nope"]);

    // Word for word what the Engine says.
    assert_eq!(
        in_order(stack.ok("inspect shown-web-2").json()[0].clone()),
        in_order(stack.inspect("web-2"))
    );
    let web = stack.ok("inspect web").json();
    let names: Vec<String> = web
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(&c["Name"]))
        .collect();
    assert_eq!(names, ["/shown-web-1", "/shown-web-2"]);
    let id = stack.id("db-1");
    let inspected = stack.ok(["inspect", &id[..8], "db"]).json();
    assert_eq!(inspected.as_array().unwrap().len(), 1);
    assert_eq!(
        in_order(inspected[0].clone()),
        in_order(stack.inspect("db-1"))
    );
    assert!(stack.ok("inspect -s db").json()[0]["SizeRootFs"].is_u64());
    let missing = stack.fails(2, "inspect db nope");
    missing.says(["nope"]);
    assert_eq!(missing.stdout, "");
}

#[test]
fn a_container_is_attached_to() {
    let compose = "
services:
  echo:
    image: busybox
    init: true
    stdin_open: true
    command: [sh, -c, 'while read line; do echo got $$line; [ \"$$line\" = end ] && exit 7; done; sleep 1000']
  loop:
    image: busybox
    command: [sh, -c, 'trap \"echo trapped; exit 5\" INT; while :; do echo tick; sleep 0.2; done']
    scale: 2
";
    let Some(stack) = Stack::new("attaching", compose) else {
        return;
    };
    stack.fails(1, "attach echo").says(["not running"]);
    stack.ok("up -d");
    // Input goes in, and the exit code comes out.
    let script = format!(
        "(echo one; echo end) | {} attach echo",
        crate::stack::wharfie()
    );
    let said = stack.program("sh", ["-c", &script]);
    said.has_code(7).says(["got one\ngot end\n"]);

    // Without signals only the view ends; with them the container gets them.
    let mut watch = stack.start("attach --no-stdin --sig-proxy=false loop");
    watch.says("tick");
    watch.interrupt();
    watch.end().has_code(130);
    assert_eq!(stack.inspect("loop-1")["State"]["Running"], true);
    let mut hold = stack.start("attach --index 2 loop");
    hold.says("tick");
    hold.interrupt();
    let hold = hold.end();
    hold.has_code(5).says(["trapped"]);
    assert_eq!(stack.inspect("loop-2")["State"]["ExitCode"], 5);
    assert_eq!(stack.inspect("loop-1")["State"]["Running"], true);

    stack.ok("pause loop");
    stack.fails(1, "attach loop").says(["paused", "unpause"]);
    stack.ok("unpause loop");
    stack.fails(1, "attach --index 3 loop").says(["3"]);
    stack.fails(2, "attach nope").says(["nope"]);
    stack
        .fails(2, "attach --detach-keys nonsense loop")
        .says(["ctrl-p"]);
}

#[test]
fn containers_become_archives_and_images() {
    let Some(stack) = Stack::new("exporting", TWO) else {
        return;
    };
    stack.ok("up -d");
    stack.sh("web", "echo mine >/marker");
    stack.ok("export -o web.tar web");
    let list = stack.program("tar", ["-tf", "web.tar"]);
    list.has_code(0).says(["marker", "bin/busybox"]);
    let script = format!("{} export --index 2 web | tar t", crate::stack::wharfie());
    let second = stack.program("sh", ["-c", &script]);
    second
        .has_code(0)
        .says(["bin/busybox"])
        .never_says("marker");
    let left = std::fs::read_dir(stack.path("")).unwrap().count();
    assert_eq!(left, 2, "the files and the archive");
    stack
        .fails(1, "export -o no/such/web.tar web")
        .says(["no/such"]);
    stack.fails(1, "export -o . web").says(["directory"]);
    stack.fails(1, "export --index 3 web").says(["3"]);
    stack.fails(2, "export nope").says(["nope"]);

    let made = stack.ok([
        "commit",
        "-m",
        "why",
        "-a",
        "who",
        "-c",
        "CMD [\"cat\", \"/marker\"]",
        "-c",
        "ENV A=b",
        "web",
        "exporting/web:1",
    ]);
    made.says(["exporting-web-1", "Committed as sha256:"]);
    let image = || {
        stack
            .host
            .engine()
            .api("GET", "/images/exporting/web:1/json", None)
    };
    let seen = image().unwrap();
    assert_eq!(
        (&seen["Comment"], &seen["Author"]),
        (&"why".into(), &"who".into())
    );
    assert_eq!(seen["Config"]["Cmd"], serde_json::json!(["cat", "/marker"]));
    assert!(
        seen["Config"]["Env"]
            .as_array()
            .unwrap()
            .contains(&"A=b".into())
    );
    stack.write(
        "committed.yaml",
        "services: {a: {image: 'exporting/web:1', pull_policy: never}}",
    );
    let ran = stack.ok("-f committed.yaml run --rm -T a");
    assert_eq!(ran.stdout, "mine\n");
    // The container's own command is kept, unless another one is named.
    stack.ok("commit --pause=false --index 2 web exporting/web:2");
    let second = stack
        .host
        .engine()
        .api("GET", "/images/exporting/web:2/json", None)
        .unwrap();
    assert_eq!(
        second["Config"]["Cmd"],
        serde_json::json!(["sleep", "1000"])
    );
    stack
        .fails(1, "commit -c NONSENSE web x:1")
        .says(["nonsense"]);
    stack.fails(1, "commit web UPPER").says(["UPPER"]);
    stack.fails(2, "commit nope").says(["nope"]);
    for tag in ["1", "2"] {
        let target = format!("/images/exporting/web:{tag}?force=1");
        stack.host.engine().api("DELETE", &target, None).unwrap();
    }
}

#[test]
fn images_are_pushed() {
    let Some(host) = crate::engines::shared(wharfie_lab::EngineKind::Debian) else {
        return;
    };
    let registry = crate::registry::Registry::start(host.machine());
    let at = &registry.address;
    let compose = format!(
        "
services:
  app:
    image: {at}/pushing/app:1
    build: {{context: ., dockerfile_inline: FROM busybox, tags: ['{at}/pushing/app:extra']}}
    depends_on: [base, plain]
  base:
    image: {at}/pushing/base
    build: {{context: ., dockerfile_inline: FROM busybox}}
  plain: {{image: busybox}}
"
    );
    let mut stack = Stack::on(host, "pushing", &compose);
    // What `docker login` leaves: "me:secret".
    let login = format!("{{\"auths\": {{\"{at}\": {{\"auth\": \"bWU6c2VjcmV0\"}}}}}}");
    stack.write("docker/config.json", &login);
    let config = stack.path("docker").display().to_string();
    stack.env("DOCKER_CONFIG", &config);
    stack.ok("build");
    let pushed = |paths: &[&str]| {
        let mut seen: Vec<String> = registry.seen().into_iter().map(|s| s.manifest).collect();
        seen.sort();
        seen.dedup();
        let paths: Vec<String> = paths.iter().map(|p| format!("/v2/pushing/{p}")).collect();
        assert_eq!(seen, paths);
    };
    stack.ok("push --dry-run").says(["pushing/app:1"]);
    pushed(&[]);
    stack.ok("push app").says(["pushing/app:1", "Pushed"]);
    pushed(&["app/manifests/1", "app/manifests/extra"]);
    assert!(
        registry
            .seen()
            .iter()
            .all(|s| s.authorization == "Basic bWU6c2VjcmV0")
    );
    stack
        .ok("push --include-deps app")
        .says(["plain", "Skipped"]);
    pushed(&[
        "app/manifests/1",
        "app/manifests/extra",
        "base/manifests/latest",
    ]);
    let quiet = stack.ok("push -q base");
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    stack.fails(2, "push nope").says(["nope"]);

    // Nothing listens there.
    let away = compose.replace(&format!("{at}/pushing/base"), "127.0.0.1:9/pushing/base");
    stack.write("compose.yaml", &away);
    stack.ok("build base");
    stack
        .fails(1, "push base")
        .says(["cannot push 127.0.0.1:9/pushing/base"]);
    stack.ok("push --ignore-push-failures").says([
        "warning",
        "cannot push 127.0.0.1:9/pushing/base",
        "Pushed",
    ]);
}

#[test]
fn ps_tells_sizes() {
    let Some(stack) = Stack::new(
        "sized",
        "services: {a: {image: busybox, init: true, command: sleep 1000}}",
    ) else {
        return;
    };
    stack.ok("up -d");
    stack.sh("a", "head -c 2000000 /dev/zero >/big");
    let table = stack.ok("ps --size");
    assert!(table.lines()[0].ends_with("SIZE"), "{table}");
    table.says(["2MB (virtual "]);
    stack.ok("ps").never_says("SIZE");
    let size = text(&stack.ok("ps -s --format json").json_lines()[0]["Size"]);
    assert!(size.starts_with("2MB (virtual "), "{size}");
}

const WATCHED: &str = "
services:
  app:
    build: {context: app}
    init: true
    develop:
      watch:
        - {path: app/Dockerfile, action: rebuild}
        - {path: app/site, action: sync, target: /srv/site, initial_sync: true, ignore: [drafts]}
  daemon:
    image: busybox
    init: true
    command: sleep 1000
    scale: 2
    develop:
      watch:
        - {path: daemon.conf, action: sync+restart, target: /etc/daemon.conf}
        - path: scripts
          action: sync+exec
          target: /scripts
          include: ['*.sh']
          exec: {command: [sh, -c, 'echo run >>/ran; echo the hook speaks']}
        - {path: flag, action: restart}
";

/// The stack of the rules above, with its files.
fn watched(name: &str) -> Option<Stack> {
    let stack = Stack::new(name, WATCHED)?;
    stack.write(
        "app/Dockerfile",
        "FROM busybox\nRUN echo one >/version\nCMD [\"sleep\", \"1000\"]\n",
    );
    stack.write("app/.dockerignore", "site/secret\n");
    stack.write("app/site/index", "first\n");
    stack.write("app/site/drafts/idea", "no\n");
    stack.write("app/site/secret", "no\n");
    stack.write("daemon.conf", "a=1\n");
    stack.write("scripts/README", "x\n");
    stack.write("flag", "");
    Some(stack)
}

#[test]
fn changes_are_brought_into_containers() {
    let Some(stack) = watched("watched") else {
        return;
    };
    let has = |service: &str, path: &str, content: &str| {
        soon(|| {
            let seen = stack.run(["exec", "-T", service, "cat", path]).stdout;
            ensure!(seen == content, "{path}: {seen:?}");
            Ok(())
        });
    };
    let lacks = |service: &str, path: &str| {
        !stack
            .run(["exec", "-T", service, "test", "-e", path])
            .status
            .success()
    };
    let mut watch = stack.start("watch");
    watch.says("Watch enabled");
    // What was there is copied, where it was asked for.
    assert_eq!(stack.sh("app", "cat /srv/site/index"), "first\n");
    assert!(lacks("app", "/srv/site/drafts") && lacks("app", "/srv/site/secret"));

    stack.write("app/site/index", "second\n");
    stack.write("app/site/new/deep/page", "page\n");
    stack.write("app/site/drafts/other", "no\n");
    stack.write("app/site/.page.swp", "no\n");
    has("app", "/srv/site/index", "second\n");
    has("app", "/srv/site/new/deep/page", "page\n");
    assert!(lacks("app", "/srv/site/drafts") && lacks("app", "/srv/site/.page.swp"));
    std::fs::remove_dir_all(stack.path("app/site/new")).unwrap();
    soon(|| {
        ensure!(lacks("app", "/srv/site/new"), "it stays");
        Ok(())
    });

    let started = |short: &str| text(&stack.inspect(short)["State"]["StartedAt"]);
    let before = [started("daemon-1"), started("daemon-2"), started("app-1")];
    stack.write("daemon.conf", "a=2\n");
    watch.says("\"daemon\" restarted");
    let after = [started("daemon-1"), started("daemon-2"), started("app-1")];
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
    assert_eq!(stack.sh("daemon", "cat /etc/daemon.conf"), "a=2\n");

    stack.write("scripts/notes.txt", "no\n");
    stack.write("scripts/job.sh", "yes\n");
    watch.says("the hook speaks");
    has("daemon", "/scripts/job.sh", "yes\n");
    has("daemon", "/ran", "run\n");
    assert!(lacks("daemon", "/scripts/notes.txt"));

    // A build that fails ends nothing; the next one mends it.
    let app = stack.id("app-1");
    stack.write("app/Dockerfile", "FROM busybox\nRUN exit 3\n");
    watch.says("Rebuilding service(s) \"app\"");
    watch.says("error:");
    assert_eq!(stack.id("app-1"), app);
    stack.write(
        "app/Dockerfile",
        "FROM busybox\nRUN echo two >/version\nCMD [\"sleep\", \"1000\"]\n",
    );
    watch.says("successfully built");
    assert_ne!(stack.id("app-1"), app);
    has("app", "/version", "two\n");

    watch.interrupt();
    watch.end().has_code(130);
    assert_eq!(stack.inspect("app-1")["State"]["Running"], true);
    stack
        .ok("watch --dry-run --no-up")
        .says(["app/site", "Sync"]);
}

#[test]
fn up_watches_too() {
    let Some(stack) = watched("upwatched") else {
        return;
    };
    let mut up = stack.start("up --watch -t 0");
    up.says("Watch enabled");
    stack.write("flag", "x");
    up.says("\"daemon\" restarted");
    stack.write("app/site/index", "third\n");
    soon(|| {
        let seen = stack.run("exec -T app cat /srv/site/index").stdout;
        ensure!(seen == "third\n", "{seen:?}");
        Ok(())
    });
    assert!(up.is_running());
    up.interrupt();
    up.end().has_code(130);
    assert_eq!(stack.inspect("app-1")["State"]["Running"], false);
    stack.fails(2, "up --watch -d");
    stack.fails(2, "up --watch --no-build").says(["--no-build"]);
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let Some(stack) = Stack::new("unwatched", "services: {a: {image: busybox}}") else {
        return;
    };
    stack
        .fails(1, "watch")
        .says(["nothing is to be watched", "develop.watch"]);
    let with = |rule: &str| {
        let compose = format!(
            "services:\n  a:\n    image: busybox\n    develop:\n      watch:\n        - {rule}\n"
        );
        stack.write("compose.yaml", &compose);
    };
    with("{path: nowhere, action: restart}");
    stack.fails(1, "watch").says(["compose.yaml:6", "nowhere"]);
    with("{path: ., action: rebuild}");
    stack.fails(1, "watch").says(["rebuild needs a `build`"]);
    with("{path: ., action: sync+exec, target: /x}");
    stack.fails(1, "watch").says(["sync+exec needs a command"]);
    with("{path: ., action: sync, target: /x, ignore: ['[a']}");
    stack.fails(1, "watch").says(["[a"]);
    stack.fails(2, "watch nope").says(["nope"]);
    assert!(stack.names().is_empty());
}

/// What an Engine says of a container, whose mounts it tells in any order.
fn in_order(mut container: serde_json::Value) -> serde_json::Value {
    if let Some(mounts) = container["Mounts"].as_array_mut() {
        mounts.sort_by_key(|m| text(&m["Destination"]));
    }
    container
}
