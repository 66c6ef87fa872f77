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
