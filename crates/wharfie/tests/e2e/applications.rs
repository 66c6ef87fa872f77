//! The applications of `examples/`, on the oldest Engine and on a new one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::ensure;
use wharfie_lab::EngineKind;

use crate::engines::shared;
use crate::stack::{Ran, Stack, soon, text};

#[test]
fn os_and_db_on_20_10() {
    os_and_db(EngineKind::Debian);
}

#[test]
fn os_and_db_on_28() {
    os_and_db(EngineKind::Sid28);
}

#[test]
fn three_tiers_on_20_10() {
    three_tiers(EngineKind::Debian);
}

#[test]
fn three_tiers_on_28() {
    three_tiers(EngineKind::Sid28);
}

#[test]
fn one_front_on_20_10() {
    one_front(EngineKind::Debian);
}

#[test]
fn one_front_on_28() {
    one_front(EngineKind::Sid28);
}

#[test]
fn volumes_from_on_20_10() {
    volumes_from(EngineKind::Debian);
}

#[test]
fn volumes_from_on_28() {
    volumes_from(EngineKind::Sid28);
}

/// A stack of an example, under a name of its own.
pub(crate) fn example(kind: EngineKind, folder: &str, name: &str) -> Option<Stack> {
    static PREPARED: Once = Once::new();
    let host = shared(kind)?;
    PREPARED.call_once(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/prepare");
        assert!(Command::new(script).status().unwrap().success());
    });
    let mut stack = Stack::example(host, folder, name);
    // One of them names itself.
    stack.env("COMPOSE_PROJECT_NAME", name);
    Some(stack)
}

/// Brings an example up. The examples share images: built twice at a time they would be two, and
/// the containers of one stack out of date.
#[track_caller]
pub(crate) fn up(stack: &Stack, args: &str) -> Ran {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    stack.ok(args)
}

/// The addresses that a name has inside a service's first container.
fn addresses(stack: &Stack, service: &str, name: &str) -> BTreeSet<String> {
    let said = stack.sh(
        service,
        &format!("nslookup -timeout=1 -retry=1 {name} || true"),
    );
    // What stands before the first name is the server.
    let answers = said.lines().skip_while(|line| !line.starts_with("Name:"));
    let fields = answers.filter(|line| line.starts_with("Address"));
    fields
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.contains('.'))
                .map(str::to_owned)
        })
        .collect()
}

/// The addresses of a container, as the Engine knows them: network and address.
fn seen_addresses(stack: &Stack, short: &str) -> Vec<(String, String)> {
    let networks = stack.inspect(short)["NetworkSettings"]["Networks"].clone();
    let networks = networks.as_object().unwrap().iter();
    networks
        .map(|(name, network)| (name.clone(), text(&network["IPAddress"])))
        .collect()
}

fn one(address: &str) -> BTreeSet<String> {
    BTreeSet::from([address.to_owned()])
}

fn os_and_db(kind: EngineKind) {
    let Some(stack) = example(kind, "os-db", "osdb") else {
        return;
    };
    up(&stack, "up -d --scale os=2").says([
        "Container osdb-os-2  Started",
        "Network osdb_default  Created",
    ]);
    assert_eq!(stack.names(), ["osdb-db-1", "osdb-os-1", "osdb-os-2"]);

    let address = |short: &str| seen_addresses(&stack, short)[0].1.clone();
    let (os1, os2, db) = (address("os-1"), address("os-2"), address("db-1"));
    let both = BTreeSet::from([os1.clone(), os2.clone()]);
    for asker in ["os", "db"] {
        assert_eq!(addresses(&stack, asker, "os"), both);
        assert_eq!(addresses(&stack, asker, "db"), one(&db));
        assert_eq!(addresses(&stack, asker, "osdb-os-1"), one(&os1));
        assert_eq!(addresses(&stack, asker, "osdb-os-2"), one(&os2));
        assert_eq!(addresses(&stack, asker, "osdb-db-1"), one(&db));
        assert_eq!(addresses(&stack, asker, "web"), BTreeSet::new());
    }
    assert_eq!(stack.sh("os", "nc db 3306 </dev/null").trim(), "42 rows");
    stack.sh("os", "ping -c 1 -W 2 osdb-os-2 && ping -c 1 -W 2 db");
    stack.sh("db", "ping -c 1 -W 2 os");
    stack.ok([
        "exec",
        "-T",
        "--index",
        "2",
        "os",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        "osdb-os-1",
    ]);

    let listed = stack.ok("ps");
    for name in ["osdb-os-1", "osdb-os-2", "osdb-db-1"] {
        assert!(
            listed
                .lines()
                .iter()
                .any(|l| l.starts_with(name) && l.contains("Up ")),
            "{listed}"
        );
    }
    stack.ok("down").says([
        "Container osdb-db-1  Removed",
        "Network osdb_default  Removed",
    ]);
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

fn three_tiers(kind: EngineKind) {
    let Some(mut stack) = example(kind, "three-tier", "tiers") else {
        return;
    };
    stack.env("WEB_PORT", "8188");
    stack.env("USER", "me");
    up(&stack, "up -d --wait");

    let page = stack.page("http://127.0.0.1:8188/");
    assert_eq!(
        page,
        std::fs::read_to_string(stack.path("web/index.html")).unwrap()
    );
    let data = stack.page("http://127.0.0.1:8188/cgi-bin/data");
    assert_eq!(
        data.trim(),
        "three tiers, from me\napp says: db has 42 rows"
    );
    // From another machine too: the port is published, not only bound to the loopback interface.
    stack.page(&format!("http://{}:8188/", stack.host.address()));

    let networks = |short: &str| -> Vec<String> {
        seen_addresses(&stack, short)
            .into_iter()
            .map(|(n, _)| n)
            .collect()
    };
    assert_eq!(networks("web-1"), ["tiers_webapp"]);
    assert_eq!(networks("app-1"), ["tiers_appdb", "tiers_webapp"]);
    assert_eq!(networks("db-1"), ["tiers_appdb"]);
    let app = seen_addresses(&stack, "app-1");
    assert!(
        app.iter().all(|(_, address)| !address.is_empty()) && app[0].1 != app[1].1,
        "{app:?}"
    );
    for (_, address) in &app {
        assert!(
            stack
                .sh("app", "ip -4 addr")
                .contains(&format!("inet {address}/"))
        );
    }

    let db = seen_addresses(&stack, "db-1")[0].1.clone();
    assert_eq!(addresses(&stack, "web", "db"), BTreeSet::new());
    assert_eq!(addresses(&stack, "web", "tiers-db-1"), BTreeSet::new());
    assert_eq!(addresses(&stack, "app", "db"), one(&db));
    assert_eq!(
        stack
            .sh("app", &format!("nc -w 2 {db} 3306 </dev/null"))
            .trim(),
        "42 rows"
    );
    stack.fails(1, ["exec", "-T", "web", "nc", "-w", "1", &db, "3306"]);
    stack.fails(1, ["exec", "-T", "web", "ping", "-c", "1", "-W", "1", &db]);

    for container in stack.ok("ps --format json").json_lines() {
        let publishers = container["Publishers"].as_array().unwrap();
        let published: BTreeSet<u64> = publishers
            .iter()
            .filter_map(|p| p["PublishedPort"].as_u64())
            .filter(|p| *p > 0)
            .collect();
        let expected: &[u64] = if container["Service"] == "web" {
            &[8188]
        } else {
            &[]
        };
        assert_eq!(published, expected.iter().copied().collect(), "{container}");
    }
    assert_eq!(stack.ok("port web 80").stdout.trim(), "0.0.0.0:8188");
    stack.ok("down");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

fn one_front(kind: EngineKind) {
    let Some(mut stack) = example(kind, "front", "onefront") else {
        return;
    };
    stack.env("FRONT_PORT", "8189");
    up(&stack, "up -d");

    let content =
        |name: &str| std::fs::read_to_string(stack.path(&format!("{name}/index.html"))).unwrap();
    let url = |path: &str| format!("http://127.0.0.1:8189/{path}");
    assert_eq!(stack.page(&url("")).trim(), content("front").trim());
    for name in ["balance", "sales", "orders"] {
        assert_eq!(stack.page(&url(name)).trim(), content(name).trim());
    }
    assert_eq!(stack.host.http_get(&url("nothing")).unwrap().0, 404);
    assert_eq!(
        stack
            .containers()
            .iter()
            .filter(|c| !c["Ports"]
                .as_array()
                .unwrap()
                .iter()
                .all(|p| p["PublicPort"].is_null()))
            .count(),
        1
    );

    // The content is the folder's, not a copy's.
    stack.write("sales/index.html", "many sales\n");
    assert_eq!(stack.page(&url("sales")).trim(), "many sales");
    stack.fails(1, ["exec", "-T", "sales", "touch", "/www/new"]);

    // What dies comes back.
    let before = stack.inspect("orders-1");
    let pid = before["State"]["Pid"].to_string();
    stack.program("kill", ["-9", &pid]).has_code(0);
    soon(|| {
        let now = stack.inspect("orders-1");
        ensure!(
            now["State"]["Running"] == true && now["State"]["Pid"] != before["State"]["Pid"],
            "{}",
            now["State"]
        );
        ensure!(now["RestartCount"] == 1, "{}", now["RestartCount"]);
        Ok(())
    });
    assert_eq!(stack.id("orders-1"), text(&before["Id"]));
    soon(|| {
        let page = stack.page(&url("orders"));
        ensure!(page.trim() == content("orders").trim(), "{page}");
        Ok(())
    });
}

fn volumes_from(kind: EngineKind) {
    let Some(stack) = example(kind, "home-volume", "homevol") else {
        return;
    };
    up(&stack, "up -d");
    soon(|| {
        let said = stack.run([
            "exec",
            "-T",
            "reader",
            "cat",
            "/home/note",
            "/srv/scratch/note",
        ]);
        ensure!(said.stdout == "written by writer\nscratch\n", "{said}");
        Ok(())
    });
    for path in ["/home/other", "/srv/scratch/other"] {
        stack
            .fails(1, ["exec", "-T", "reader", "touch", path])
            .says(["Read-only file system"]);
        stack.ok(["exec", "-T", "writer", "touch", path]);
        stack.ok(["exec", "-T", "reader", "test", "-f", path]);
    }
    // The volume outlives the containers; the note is read by containers made later.
    stack.ok("down");
    assert_eq!(stack.resources("volumes"), ["homevol_home"]);
    up(&stack, "up -d home-volume reader");
    assert_eq!(stack.sh("reader", "cat /home/note"), "written by writer\n");
}
