//! From `up` to `down`, with changes in between.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::stack::{Ran, Stack, soon, text};

const TWO: &str = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    environment: [COLOUR=red]
    depends_on: [db]
  db:
    image: busybox
    init: true
    command: sleep 1000
";

#[test]
fn a_second_up_does_nothing() {
    let Some(stack) = Stack::new("second", TWO) else {
        return;
    };
    stack.ok("up -d").says([
        "Container second-web-1  Started",
        "Container second-db-1  Started",
    ]);
    let before = stack.ids();
    let started = text(&stack.inspect("web-1")["State"]["StartedAt"]);

    assert_eq!(stack.ok("plan").stdout, "");
    assert_eq!(stack.ok("up -d --dry-run").stdout, "");
    let again = stack.ok("up -d");
    again.says([
        "Nothing to do",
        "Container second-web-1  Running",
        "Container second-db-1  Running",
    ]);
    assert_eq!(done(&again), Vec::<String>::new(), "{again}");
    stack.ok("up -d --wait --no-deps web");
    assert_eq!(stack.ids(), before);
    assert_eq!(text(&stack.inspect("web-1")["State"]["StartedAt"]), started);
}

#[test]
fn only_what_changed_is_recreated() {
    let Some(stack) = Stack::new("changed", TWO) else {
        return;
    };
    stack.ok("up -d");
    let (web, db) = (stack.id("web-1"), stack.id("db-1"));

    stack.write("compose.yaml", &TWO.replace("red", "blue"));
    let plan = stack.ok("plan");
    assert_eq!(
        plan.lines(),
        [
            "recreate container changed-web-1: its configuration changed",
            "start container changed-web-1"
        ]
    );
    stack
        .ok("up -d")
        .says(["Container changed-web-1  Recreated"])
        .never_says("changed-db-1  Recreated");
    assert_ne!(stack.id("web-1"), web);
    assert_eq!(stack.id("db-1"), db);
    assert_eq!(stack.sh("web", "echo $COLOUR").trim(), "blue");
    assert_eq!(stack.names(), ["changed-db-1", "changed-web-1"]);

    let web = stack.id("web-1");
    stack.write("compose.yaml", &TWO.replace("red", "green"));
    stack.ok("up -d --no-recreate");
    assert_eq!(stack.id("web-1"), web);
    stack.ok("up -d --force-recreate web");
    assert_ne!(stack.id("web-1"), web);
    assert_eq!(stack.id("db-1"), db);
    let web = stack.id("web-1");
    stack.ok("up -d --force-recreate");
    assert!(stack.id("web-1") != web && stack.id("db-1") != db);
}

#[test]
fn a_changed_image_or_network_recreates() {
    let compose = "
services:
  web: {image: 'mine/changing:1', init: true, command: sleep 1000}
  db: {image: busybox, init: true, command: sleep 1000}
networks:
  default: {labels: [a=1]}
";
    let Some(stack) = Stack::new("anew", compose) else {
        return;
    };
    let engine = stack.host.engine();
    engine.tag_image("busybox", "mine/changing", "1").unwrap();
    stack.ok("up -d");
    let before = stack.ids();

    // The same name is another image now.
    engine
        .import_image(&wharfie_lab::base_archive().unwrap(), "mine/changing", "1")
        .unwrap();
    stack
        .ok("up -d")
        .says(["anew-web-1  Recreated"])
        .never_says("anew-db-1  Recreated");
    assert_eq!(stack.ids()[0], before[0]);
    assert_eq!(
        text(&stack.inspect("web-1")["Image"]),
        text(
            &engine
                .api("GET", "/images/mine/changing:1/json", None)
                .unwrap()["Id"]
        )
    );

    stack.write("compose.yaml", &compose.replace("a=1", "a=2"));
    stack.ok("up -d").says([
        "Network anew_default  Removed",
        "Network anew_default  Created",
    ]);
    assert_eq!(stack.names(), ["anew-db-1", "anew-web-1"]);
    stack.sh("web", "ping -c 1 -W 2 db");
}

#[test]
fn scaling_keeps_the_low_numbers() {
    let Some(stack) = Stack::new("scaling", TWO) else {
        return;
    };
    stack.ok("up -d --scale web=3");
    assert_eq!(
        stack.names(),
        [
            "scaling-db-1",
            "scaling-web-1",
            "scaling-web-2",
            "scaling-web-3"
        ]
    );
    let ids: BTreeMap<_, _> = stack.ids().into_iter().collect();

    stack.ok("scale web=1");
    assert_eq!(stack.names(), ["scaling-db-1", "scaling-web-1"]);
    assert_eq!(stack.id("web-1"), ids["scaling-web-1"]);

    stack.ok("scale web=3 db=2");
    assert_eq!(stack.names().len(), 5);
    assert_eq!(stack.id("web-1"), ids["scaling-web-1"]);
    assert_eq!(stack.id("db-1"), ids["scaling-db-1"]);

    // A gap is filled, by the agent.
    let removed = stack.id("web-2");
    stack
        .host
        .engine()
        .remove_container("scaling-web-2")
        .unwrap();
    soon(|| {
        let ids: BTreeMap<_, _> = stack.ids().into_iter().collect();
        ensure!(ids.len() == 5 && ids["scaling-web-2"] != removed, "{ids:?}");
        Ok(())
    });
    stack.ok("up -d --scale web=3 --scale db=2");
    assert_eq!(stack.names().len(), 5);

    // The file's number counts again; and none is a number.
    stack.ok("up -d --scale db=0");
    assert_eq!(stack.names(), ["scaling-web-1"]);
    stack.fails(2, "scale nope=2").says(["nope"]);
    stack.fails(2, "up -d --scale web=many").says(["many"]);
}

#[test]
fn orphans_are_named_and_removed_on_request() {
    let Some(stack) = Stack::new("orphaned", TWO) else {
        return;
    };
    stack.ok("up -d");
    stack.write(
        "compose.yaml",
        "services: {db: {image: busybox, init: true, command: sleep 1000}}\n",
    );
    let db = stack.id("db-1");
    stack
        .ok("up -d")
        .says(["orphan", "orphaned-web-1", "--remove-orphans"]);
    assert_eq!(stack.names(), ["orphaned-db-1", "orphaned-web-1"]);
    assert_eq!(
        stack.ok("plan --remove-orphans").lines(),
        ["remove container orphaned-web-1: its service is not in the project"]
    );
    stack
        .ok("up -d --remove-orphans")
        .says(["Container orphaned-web-1  Removed"]);
    assert_eq!(stack.ids(), [("orphaned-db-1".to_owned(), db)]);

    stack.write(
        "compose.yaml",
        "services: {other: {image: busybox, init: true, command: sleep 1000}}\n",
    );
    stack.ok("down").says(["orphaned-db-1"]);
    assert_eq!(stack.names(), ["orphaned-db-1"]);
    stack.ok("down --remove-orphans");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

#[test]
fn volumes_outlive_containers() {
    let compose = "
services:
  db:
    image: busybox
    init: true
    command: sleep 1000
    volumes: ['data:/data', 'theirs:/theirs', '/scratch']
volumes:
  data: {labels: [kind=data]}
  theirs: {external: true, name: theirs-of-volumes}
";
    let Some(stack) = Stack::new("volumes", compose) else {
        return;
    };
    let engine = stack.host.engine();
    // An external volume must be there; nothing is made before it is.
    stack
        .fails(1, "up -d")
        .says(["theirs-of-volumes", "compose.yaml:10:"]);
    assert!(
        stack.names().is_empty()
            && stack.resources("volumes").is_empty()
            && stack.resources("networks").is_empty()
    );
    engine
        .api(
            "POST",
            "/volumes/create",
            Some(&serde_json::json!({ "Name": "theirs-of-volumes" })),
        )
        .unwrap();

    stack.ok("up -d").says(["Volume volumes_data  Created"]);
    stack.sh(
        "db",
        "echo kept >/data/note; echo mine >/theirs/note; echo gone >/scratch/note",
    );
    stack.ok("down").never_says("Volume");
    assert_eq!(stack.resources("volumes"), ["volumes_data"]);

    stack.ok("up -d").never_says("Volume volumes_data  Created");
    assert_eq!(
        stack.sh("db", "cat /data/note /theirs/note; ls /scratch"),
        "kept\nmine\n"
    );

    let anonymous = volume_at(&stack, "/scratch");
    stack.ok("down -v").says(["Volume volumes_data  Removed"]);
    assert!(stack.resources("volumes").is_empty());
    assert!(
        engine
            .api("GET", &format!("/volumes/{anonymous}"), None)
            .is_err(),
        "the anonymous volume stays"
    );
    engine
        .api("DELETE", "/volumes/theirs-of-volumes", None)
        .expect("an external volume is not ours to remove");
}

#[test]
fn anonymous_volumes_survive_recreation() {
    let compose = "
services:
  db: {image: busybox, init: true, command: sleep 1000, environment: [A=1], volumes: [/scratch]}
";
    let Some(stack) = Stack::new("anonymous", compose) else {
        return;
    };
    stack.ok("up -d");
    stack.sh("db", "echo kept >/scratch/note");
    let volume = volume_at(&stack, "/scratch");
    stack.write("compose.yaml", &compose.replace("A=1", "A=2"));
    stack.ok("up -d").says(["anonymous-db-1  Recreated"]);
    assert_eq!(stack.sh("db", "cat /scratch/note"), "kept\n");
    assert_eq!(volume_at(&stack, "/scratch"), volume);
    stack.ok("up -d --force-recreate --renew-anon-volumes");
    assert_eq!(stack.sh("db", "ls /scratch"), "");
}

#[test]
fn the_plan_is_what_up_does() {
    let first = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    environment: [COLOUR=red]
    depends_on:
      db: {condition: service_healthy, restart: true}
      setup: {condition: service_completed_successfully}
    networks: [front, back]
    volumes: [data:/data]
  setup: {image: busybox, command: 'true', networks: [back]}
  db:
    image: busybox
    init: true
    command: sleep 1000
    networks: [back]
    healthcheck: {test: [CMD, 'true'], interval: 1s}
  old: {image: busybox, init: true, command: sleep 1000, network_mode: none}
networks: {front: , back: }
volumes: {data: }
";
    let Some(stack) = Stack::new("planned", first) else {
        return;
    };
    check_plan(&stack, "", 13);
    check_plan(&stack, "", 1);
    stack.write(
        "compose.yaml",
        &first.replace("red", "blue").replace("  old:", "  new:"),
    );
    check_plan(&stack, "--scale web=3 --remove-orphans", 1);
    stack.write(
        "compose.yaml",
        &first.replace(
            "sleep 1000\n    networks: [back]",
            "sleep 1001\n    networks: [back]",
        ),
    );
    check_plan(&stack, "--remove-orphans --scale web=2", 1);
    check_plan(&stack, "--force-recreate --no-deps db", 1);
    stack.ok("stop -t 0 web");
    check_plan(&stack, "web", 1);
}

/// Compares what `plan` and `up --dry-run` say with what `up` then does, operation by operation.
#[track_caller]
fn check_plan(stack: &Stack, args: &str, at_least: usize) {
    // A job that comes to its end in between would change the plan.
    settled(stack);
    let before = stack.ids();
    let plan = stack.ok(format!("plan {args}").as_str());
    let dry = stack.ok(format!("up -d --dry-run {args}").as_str());
    assert_eq!(plan.stdout, dry.stdout);
    assert_eq!(stack.ids(), before, "something was done by planning");
    let json = stack
        .ok(format!("plan --format json {args}").as_str())
        .json();
    assert_eq!(
        json["steps"].as_array().map(Vec::len),
        Some(plan.lines().len()),
        "{json}"
    );
    let up = stack.ok(format!("up -d {args}").as_str());
    let mut planned: Vec<String> = plan.lines().into_iter().map(outcome).collect();
    planned.sort();
    assert_eq!(planned, done(&up), "{plan}\n{up}");
    assert!(planned.len() >= at_least, "{plan}");
    settled(stack);
    let rest = stack.ok(format!("plan {args}").as_str());
    if !args.contains("--force") {
        // What runs to its end is run again, as the reference does.
        let rest: Vec<&str> = rest
            .lines()
            .into_iter()
            .filter(|l| !l.contains("setup"))
            .collect();
        assert_eq!(rest, Vec::<&str>::new());
    }
}

/// Waits until the one that only runs for a moment does not.
#[track_caller]
fn settled(stack: &Stack) {
    soon(|| {
        let containers = stack.containers();
        let setup = containers
            .iter()
            .find(|c| text(&c["Names"][0]).contains("-setup-"));
        ensure!(
            setup.is_none_or(|c| c["State"] != "running"),
            "setup still runs"
        );
        Ok(())
    });
}

/// What `up` says when a planned operation is done.
fn outcome(line: &str) -> String {
    let line = line.split(": ").next().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let (kind, name, done) = match words[..] {
        ["wait", "until", "container", name, "is", "healthy"] => ("Container", name, "Healthy"),
        ["wait", "until", "container", name, "has", ..] => ("Container", name, "Exited"),
        [verb, kind, name] => {
            let done = match verb {
                "create" => "Created",
                "recreate" => "Recreated",
                "start" => "Started",
                "restart" => "Restarted",
                "remove" => "Removed",
                _ => panic!("{line:?}"),
            };
            let kind = match kind {
                "container" => "Container",
                "network" => "Network",
                "volume" => "Volume",
                _ => panic!("{line:?}"),
            };
            (kind, name, done)
        }
        _ => panic!("{line:?} is not understood"),
    };
    format!("{kind} {name}  {done}")
}

/// Operations that a command says it has done, in alphabetical order.
fn done(ran: &Ran) -> Vec<String> {
    let ends = [
        "Created",
        "Recreated",
        "Started",
        "Restarted",
        "Removed",
        "Healthy",
        "Exited",
        "Stopped",
        "Pulled",
        "Built",
    ];
    let lines = ran.stderr.lines().map(str::trim);
    let mut done: Vec<String> = lines
        .filter(|l| {
            l.rsplit_once("  ")
                .is_some_and(|(_, end)| ends.contains(&end))
        })
        .map(str::to_owned)
        .collect();
    done.sort();
    done
}

/// The name of the volume that a stack's `db` has at a path.
fn volume_at(stack: &Stack, path: &str) -> String {
    let container = stack.inspect("db-1");
    let mounts = container["Mounts"].as_array().unwrap();
    text(&mounts.iter().find(|m| m["Destination"] == path).unwrap()["Name"])
}

#[test]
fn containers_are_stopped_started_and_removed() {
    let Some(stack) = Stack::new("verbs", TWO) else {
        return;
    };
    stack
        .ok("create")
        .says(["verbs-web-1  Created"])
        .never_says("Started");
    let ids = stack.ids();
    let state = |short: &str| text(&stack.inspect(short)["State"]["Status"]);
    assert_eq!(
        (state("web-1"), state("db-1")),
        ("created".to_owned(), "created".to_owned())
    );
    stack
        .ok("start")
        .says(["verbs-web-1  Started", "verbs-db-1  Started"]);
    assert_eq!(
        (state("web-1"), state("db-1")),
        ("running".to_owned(), "running".to_owned())
    );
    stack
        .ok("stop web")
        .says(["verbs-web-1  Stopped"])
        .never_says("verbs-db-1");
    assert_eq!(
        (state("web-1"), state("db-1")),
        ("exited".to_owned(), "running".to_owned())
    );
    stack.ok("up -d").says(["verbs-web-1  Started"]);
    let started = text(&stack.inspect("db-1")["State"]["StartedAt"]);
    stack.ok("restart db");
    assert_ne!(text(&stack.inspect("db-1")["State"]["StartedAt"]), started);
    stack.ok("pause db");
    assert_eq!(state("db-1"), "paused");
    stack.ok("unpause db");
    assert_eq!(state("db-1"), "running");
    stack.ok("kill db");
    assert_eq!(stack.inspect("db-1")["State"]["ExitCode"], 137);
    assert_eq!(stack.ids(), ids);
    stack.ok("rm -f");
    assert_eq!(stack.names(), ["verbs-web-1"]);
    stack.ok("top").says(["sleep 1000"]);
    // By name alone, without the files, from anywhere.
    stack
        .program(
            crate::stack::wharfie(),
            ["--project-directory", "/", "-p", "verbs", "down"],
        )
        .has_code(0);
    assert!(stack.names().is_empty());
    stack.ok("down").says(["no resource found"]);
}
