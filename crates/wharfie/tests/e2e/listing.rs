//! `ps`, `ls`, `logs`.

use crate::stack::{Stack, text};

const MIXED: &str = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    ports: ['8190:80', '127.0.0.1:8191:81/udp']
    deploy: {replicas: 1}
    healthcheck: {test: [CMD, 'true'], interval: 1s}
  db: {image: busybox, init: true, command: sleep 1000, scale: 2}
  job: {image: busybox, command: [sh, -c, exit 5]}
";

#[test]
fn ps_lists_containers() {
    let Some(stack) = Stack::new("listing", MIXED) else {
        return;
    };
    stack.ok("up -d --wait web db");
    stack.ok("up -d job");
    crate::stack::soon(|| {
        anyhow::ensure!(stack.inspect("job-1")["State"]["Status"] == "exited");
        Ok(())
    });

    let table = stack.ok("ps");
    assert!(table.lines()[0].starts_with("NAME "), "{table}");
    for title in ["IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"] {
        assert!(table.lines()[0].contains(title), "{table}");
    }
    let names = |said: &crate::stack::Ran| -> Vec<String> {
        said.lines()
            .into_iter()
            .skip(1)
            .map(|l| l.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&table),
        ["listing-db-1", "listing-db-2", "listing-web-1"]
    );
    table.says([
        "(healthy)",
        "0.0.0.0:8190->80/tcp",
        "127.0.0.1:8191->81/udp",
        "\"sleep 1000\"",
    ]);
    let all = stack.ok("ps -a");
    assert_eq!(
        names(&all),
        [
            "listing-db-1",
            "listing-db-2",
            "listing-job-1",
            "listing-web-1"
        ]
    );
    all.says(["Exited (5)"]);
    assert_eq!(
        names(&stack.ok("ps --filter status=exited")),
        ["listing-job-1"]
    );
    assert_eq!(
        names(&stack.ok("ps -a --status running db")),
        ["listing-db-1", "listing-db-2"]
    );
    assert_eq!(stack.ok("ps --services").lines(), ["db", "web"]);

    let ids = stack.ok("ps -q");
    let expected: Vec<String> = ["db-1", "db-2", "web-1"]
        .iter()
        .map(|c| stack.id(c))
        .collect();
    assert_eq!(ids.lines(), expected);
    let json = stack.ok("ps -a --format json").json_lines();
    let services: Vec<String> = json.iter().map(|c| text(&c["Service"])).collect();
    assert_eq!(services, ["db", "db", "job", "web"]);
    assert_eq!(
        (&json[2]["State"], &json[2]["ExitCode"]),
        (&"exited".into(), &5.into())
    );
    assert_eq!(
        (&json[3]["Health"], &json[3]["Name"]),
        (&"healthy".into(), &"listing-web-1".into())
    );
    assert!(
        json[3]["Publishers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["PublishedPort"] == 8190)
    );

    // From elsewhere, by name.
    let elsewhere = stack.ok("--project-directory / -p listing ps -q");
    assert_eq!(elsewhere.stdout, ids.stdout);
    stack.fails(2, "ps nope").says(["nope"]);
    stack.fails(2, "ps --filter colour=red");
}

#[test]
fn ls_lists_projects() {
    let Some(stack) = Stack::new(
        "listed",
        "services: {a: {image: busybox, init: true, command: sleep 1000, scale: 2}}",
    ) else {
        return;
    };
    let mine = |args: &str| -> Option<serde_json::Value> {
        let list = stack.ok(format!("ls --format json {args}").as_str()).json();
        list.as_array()
            .unwrap()
            .iter()
            .find(|p| p["Name"] == "listed")
            .cloned()
    };
    assert_eq!(mine("-a"), None);
    stack.ok("up -d");
    let project = mine("").unwrap();
    assert_eq!(project["Status"], "running(2)");
    assert_eq!(
        text(&project["ConfigFiles"]),
        stack.path("compose.yaml").to_string_lossy()
    );
    assert!(stack.ok("ls").lines()[0].starts_with("NAME"));
    assert!(stack.ok("ls -q").lines().contains(&"listed"));
    assert_eq!(stack.ok("ls -q --filter name=isted").lines(), ["listed"]);
    stack.ok("stop -t 0");
    assert_eq!(mine(""), None);
    assert_eq!(mine("-a").unwrap()["Status"], "exited(2)");
    assert!(
        stack
            .ok("ls -a")
            .stdout
            .lines()
            .any(|l| l.starts_with("listed") && l.contains("exited(2)"))
    );
}

#[test]
fn logs_are_shown() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: [sh, -c, 'seq 1 20; echo trouble >&2; while read line <&3; do echo got $$line; done 3<>/pipe']
    entrypoint: [sh, -c, 'mkfifo /pipe; exec \"$$@\"', sh]
  other: {image: busybox, init: true, command: [sh, -c, 'echo other line; sleep 1000']}
";
    let Some(stack) = Stack::new("logged", compose) else {
        return;
    };
    stack.ok("up -d");
    let complete = |said: &str| said.contains("trouble") && said.contains("other line");
    crate::stack::soon(|| {
        anyhow::ensure!(complete(&stack.run("logs").stdout), "not all is said");
        Ok(())
    });
    let all = stack.ok("logs");
    assert_eq!(all.lines().len(), 22, "{all}");
    all.says([
        "web-1    | 1\n",
        "web-1    | 20\n",
        "web-1    | trouble\n",
        "other-1  | other line\n",
    ]);
    assert!(
        !all.stdout.contains('\u{1b}'),
        "colours outside a terminal: {all}"
    );
    // Which of the two outputs is heard first is chance; the end is the end of what was heard.
    let web = stack.ok("logs web");
    let last_two = web.lines()[19..].join(
        "
",
    );
    assert_eq!(stack.ok("logs --tail 2 web").stdout.trim_end(), last_two);
    assert_eq!(
        stack
            .ok("logs --tail 1 --no-log-prefix")
            .stdout
            .lines()
            .count(),
        2
    );
    assert_eq!(
        stack.ok("logs --no-log-prefix other").stdout,
        "other line\n"
    );
    assert_eq!(stack.ok("logs --tail 0").stdout, "");
    assert_eq!(stack.ok("logs --index 2 web").stdout, "");
    let stamped = stack.ok("logs -t --tail 1 other");
    let stamp = stamped
        .stdout
        .split("| ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    assert!(
        stamp.starts_with("20") && stamp.ends_with('Z') && stamp.len() == 30,
        "{stamped}"
    );

    // Following shows what comes, once.
    let mut follow = stack.start("logs -f --tail 1 web");
    follow.says(web.lines()[20]);
    stack.sh("web", "echo news >/pipe");
    follow.says("web-1  | got news");
    // What is made later is heard too.
    stack.ok("up -d --scale web=2");
    follow.says("web-2  | 20");
    follow.says("web-2  | trouble");
    follow.interrupt();
    let follow = follow.end();
    assert_eq!(follow.stdout.matches("got news").count(), 1, "{follow}");
    assert_eq!(follow.stdout.matches("web-1  |").count(), 2, "{follow}");

    // A time within what was said: nothing older, all that is younger.
    let news = stack.ok("logs -t --no-log-prefix web");
    let line = news
        .lines()
        .into_iter()
        .find(|l| l.ends_with("got news"))
        .unwrap()
        .to_owned();
    let since = stack.ok([
        "logs",
        "--no-log-prefix",
        "--since",
        line.split(' ').next().unwrap(),
        "--index",
        "1",
        "web",
    ]);
    assert_eq!(since.stdout, "got news\n");
    assert_eq!(
        stack.ok("logs --since 1h --no-log-prefix other").stdout,
        "other line\n"
    );
    assert_eq!(stack.ok("logs --until 1h").stdout, "");
    stack.fails(2, "logs --tail many");
    stack.fails(2, "logs nope").says(["nope"]);

    // Following ends with the containers.
    let mut follow = stack.start("logs -f --tail 0");
    crate::stack::soon(|| {
        anyhow::ensure!(follow.is_running(), "it must wait");
        Ok(())
    });
    stack.ok("down -t 0");
    follow.end().has_code(0);
}
