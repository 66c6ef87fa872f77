//! `exec`, `run`, `build`: commands that run something.

use anyhow::ensure;

use crate::stack::{Stack, soon, text, wharfie};

const SERVER: &str = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    working_dir: /tmp
    environment: [COLOUR=red]
    ports: ['8192:80']
    depends_on: [db]
  db: {image: busybox, init: true, command: sleep 1000}
";

#[test]
fn exec_runs_in_a_container() {
    let Some(stack) = Stack::new("executing", SERVER) else {
        return;
    };
    stack
        .fails(1, "exec -T web true")
        .says(["web", "not running"]);
    stack.ok("up -d --scale db=2");
    assert_eq!(
        stack
            .ok(["exec", "-T", "web", "sh", "-c", "pwd; echo $COLOUR"])
            .stdout,
        "/tmp\nred\n"
    );
    let failed = stack.fails(
        7,
        [
            "exec",
            "-T",
            "web",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ],
    );
    assert_eq!(
        (failed.stdout.as_str(), failed.stderr.as_str()),
        ("out\n", "err\n")
    );
    let code = stack.run("exec -T web no-such-program").status.code();
    assert!(
        matches!(code, Some(126 | 127)),
        "{code:?}: it depends on the Engine"
    );
    stack.fails(2, "exec -T nope true").says(["nope"]);
    stack.fails(1, "exec -T --index 3 db true").says(["3"]);
    let second = stack.ok("exec -T --index 2 db hostname");
    assert!(
        stack.id("db-2").starts_with(second.stdout.trim()),
        "{second}"
    );
    let options = stack.ok([
        "exec",
        "-T",
        "-w",
        "/",
        "-e",
        "COLOUR=blue",
        "-u",
        "1234",
        "web",
        "sh",
        "-c",
        "pwd; echo $COLOUR; id -u",
    ]);
    assert_eq!(options.stdout, "/\nblue\n1234\n");

    // Input goes in, to its end; output is as it was, byte by byte.
    let script = format!(
        "head -c 300000 /dev/urandom >in; {} exec -T web cat <in >out && cmp in out",
        wharfie()
    );
    stack.program("sh", ["-c", &script]).has_code(0);
    stack.ok("exec -d web touch /detached");
    soon(|| {
        ensure!(
            stack.run("exec -T web test -f /detached").status.success(),
            "not yet"
        );
        Ok(())
    });
}

#[test]
fn a_terminal_is_handed_through() {
    let Some(stack) = Stack::new("terminal", SERVER) else {
        return;
    };
    stack.ok("up -d db");
    // `script` gives what it runs a terminal; -e hands its exit code through.
    let on_terminal = |command: &str| {
        let line = format!("stty rows 33 cols 99; {} {command}", wharfie());
        stack.program("script", ["-qec", &line, "/dev/null"])
    };
    // The Engine learns the size a moment after the start.
    let size =
        "for i in $(seq 50); do stty size 2>/dev/null | grep \"33 99\" && break; sleep 0.1; done";
    let exec = on_terminal(&format!("exec db sh -c 'tty; {size}; exit 5'"));
    exec.has_code(5).says(["/dev/pts/", "33 99\r\n"]);
    let run = on_terminal(&format!(
        "run --rm --no-deps web sh -c 'tty; {size}; exit 6'"
    ));
    run.has_code(6).says(["/dev/pts/", "33 99\r\n"]);
    let plain = on_terminal("exec -T db tty");
    plain.has_code(1).says(["not a tty"]);
    // Progress moves on a terminal, and has colours unless they are unwanted.
    let moving = on_terminal("up -d --force-recreate db").stdout;
    assert!(
        moving.contains("[+] Running") && moving.contains("\u{1b}["),
        "{moving:?}"
    );
    let line = format!("NO_COLOR=1 {} ps", wharfie());
    let calm = stack.program("script", ["-qec", &line, "/dev/null"]).stdout;
    assert!(
        calm.contains("terminal-db-1") && !calm.contains("\u{1b}["),
        "{calm:?}"
    );
}

#[test]
fn run_is_for_once() {
    let Some(stack) = Stack::new("once", SERVER) else {
        return;
    };
    let ran = stack.fails(
        9,
        [
            "run",
            "--rm",
            "-T",
            "web",
            "sh",
            "-c",
            "pwd; echo $COLOUR; nc -w 1 -z db 1 || echo db is there; exit 9",
        ],
    );
    assert!(ran.stdout.starts_with("/tmp\nred\n"), "{ran}");
    // What it depends on was started and stays; the container is gone.
    assert_eq!(stack.names(), ["once-db-1"]);

    // A second one of the service does not get in the way of the first, nor of `up`.
    stack.ok("up -d");
    stack
        .ok("run --rm -T --no-deps -e COLOUR=blue -e MORE=1 --entrypoint env web")
        .says(["COLOUR=blue", "MORE=1"]);
    let id = stack.ok("run -d --name once-more web sleep 1000");
    let id = id.stdout.trim();
    let extra = stack
        .host
        .engine()
        .api("GET", "/containers/once-more/json", None)
        .unwrap();
    assert_eq!(text(&extra["Id"]), id);
    assert_eq!(
        extra["HostConfig"]["PortBindings"]
            .as_object()
            .map_or(0, serde_json::Map::len),
        0,
        "its ports are taken"
    );
    stack.ok("ps").never_says("once-more");
    stack.ok("ps -a").says(["once-more"]);
    stack
        .ok("up -d")
        .says(["Nothing to do"])
        .never_says("orphan");
    assert_eq!(stack.names(), ["once-db-1", "once-more", "once-web-1"]);

    stack.ok("run -T --name once-left web true");
    assert_eq!(stack.inspect("left")["State"]["ExitCode"], 0);
    let script = format!("echo piped | {} run --rm -T web cat", wharfie());
    assert_eq!(stack.program("sh", ["-c", &script]).stdout, "piped\n");
    stack.fails(2, "run --rm -T nope").says(["nope"]);
    stack.ok("down -t 0");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let Some(stack) = Stack::new("cutrun", SERVER) else {
        return;
    };
    let mut run = stack.start([
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "web",
        "sh",
        "-c",
        "echo begun; sleep 1000",
    ]);
    run.says("begun");
    run.interrupt();
    let ended = run.end();
    assert!(!ended.status.success(), "{ended}");
    soon(|| {
        ensure!(stack.names().is_empty(), "{:?}", stack.names());
        Ok(())
    });
}

#[test]
fn images_are_built() {
    let compose = "
services:
  app:
    build:
      context: ./app
      args: {WHO: me}
      target: second
      labels: [made=by-test]
    init: true
    depends_on: [inline]
  inline:
    image: mine/inline:1
    init: true
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        COPY data /data
        CMD [\"tail\", \"-f\", \"/data\"]
";
    let Some(stack) = Stack::new("building", compose) else {
        return;
    };
    stack.write("app/Dockerfile", "FROM busybox AS first\nRUN echo first >/stage\nFROM first AS second\nARG WHO=nobody\nRUN echo second for $WHO >/stage\nCMD [\"sleep\", \"1000\"]\nFROM second AS third\nRUN exit 1\n");
    stack.write("data", "one\n");
    stack.fails(1, "up -d --no-build").says(["building-app"]);
    assert!(stack.names().is_empty());
    stack
        .ok("build")
        .says(["building-app  Built", "mine/inline:1", "building-app"]);
    assert!(stack.names().is_empty());
    stack.ok("up -d");
    assert_eq!(stack.sh("app", "cat /stage"), "second for me\n");
    assert_eq!(stack.sh("inline", "cat /data"), "one\n");
    let image = stack
        .host
        .engine()
        .api("GET", "/images/building-app:latest/json", None)
        .unwrap();
    assert_eq!(image["Config"]["Labels"]["made"], "by-test");

    // Nothing is built again unless asked for; what changes is.
    stack.write("data", "two\n");
    stack.ok("up -d").says(["Nothing to do"]);
    let app = stack.id("app-1");
    stack
        .ok("up -d --build")
        .says(["building-inline-1  Recreated"]);
    assert_eq!(stack.sh("inline", "cat /data"), "two\n");
    assert_eq!(stack.id("app-1"), app);

    let broken = "FROM busybox\nRUN echo this is why >&2; exit 4\n";
    stack.write("app/Dockerfile", broken);
    stack.write(
        "compose.yaml",
        &compose.replace("target: second", "no_cache: true"),
    );
    stack.fails(1, "build app").says(["this is why", "app"]);
    stack.fails(1, "build --quiet app").says(["app"]);
    stack.ok("down --rmi local");
    assert!(
        stack
            .host
            .engine()
            .api("GET", "/images/building-app:latest/json", None)
            .is_err(),
        "the image stays"
    );
}
