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
