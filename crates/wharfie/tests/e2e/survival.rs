//! What an agent survives: its own death at any moment, the Engine's, the host's, a full disk.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wharfie_lab::{EngineKind, throughout};

use crate::engines::own;
use crate::stack::{Stack, agent_of, ask_agent, name_of, soon, text};

const STACK: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000, depends_on: [db], volumes: ['data:/data']}
  db: {image: busybox, init: true, command: sleep 1000}
  os: {image: busybox, init: true, command: sleep 1000, scale: 2}
volumes: {data: }
";

fn names(stack: &Stack) -> Vec<String> {
    ["db-1", "os-1", "os-2", "web-1"]
        .map(|n| format!("{}-{n}", stack.name))
        .to_vec()
}

/// Everything is there once, and runs.
fn whole(stack: &Stack) -> Result<()> {
    // One list for both: between two, containers are made.
    let containers = stack.containers();
    let there: Vec<String> = containers.iter().map(name_of).collect();
    ensure!(there == names(stack), "{there:?}");
    for container in containers {
        ensure!(container["State"] == "running", "{container}");
    }
    ensure!(stack.resources("networks").len() == 1, "networks");
    ensure!(stack.resources("volumes").len() == 1, "volumes");
    Ok(())
}

fn nothing(stack: &Stack) -> Result<()> {
    let there = stack.names();
    ensure!(there.is_empty(), "{there:?}");
    ensure!(stack.resources("networks").is_empty(), "networks");
    Ok(())
}

/// `GET` or `POST` to the agent of a stack's host.
fn ask(stack: &Stack, method: &str, path: &str) -> Result<Value> {
    let [(_, socket), _] = agent_of(&stack.host);
    ask_agent(&socket, method, path)
}

fn pid(stack: &Stack) -> Result<String> {
    Ok(ask(stack, "GET", "/v1/info")?["pid"].to_string())
}

fn kill_agent(stack: &Stack) {
    let pid = pid(stack).unwrap();
    stack.program("kill", ["-9", &pid]).has_code(0);
    soon(|| {
        ensure!(ask(stack, "GET", "/v1/info").is_err(), "it still answers");
        Ok(())
    });
}

/// Starts an agent as `wharfie up` does, with more arguments.
fn start_agent(stack: &Stack, engine: &Path, more: &[&str]) -> wharfie_lab::Spawned {
    let [socket, state] = agent_of(&stack.host);
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie"));
    command
        .arg("agent")
        .arg("--engine")
        .arg(format!("unix://{}", engine.display()))
        .args(more)
        .envs([socket, state]);
    let agent = stack.host.machine().spawn(command).unwrap();
    soon(|| ask(stack, "GET", "/v1/info"));
    agent
}

/// A way to an Engine on which an agent is killed at a chosen request that changes something.
struct Trap {
    socket: PathBuf,
    /// Requests until it springs; negative once it has, or if it is not set.
    left: Arc<AtomicI64>,
    /// Whether the request still reaches the Engine.
    passes: Arc<Mutex<bool>>,
    victim: Arc<Mutex<Option<wharfie_lab::Spawned>>>,
}

impl Trap {
    fn new(stack: &Stack) -> Self {
        let socket = stack.host.dir().join("trap.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let trap = Self {
            socket,
            left: Arc::new(AtomicI64::new(-1)),
            passes: Arc::default(),
            victim: Arc::default(),
        };
        let engine = stack.host.engine().socket();
        let (left, passes, victim) = (
            Arc::clone(&trap.left),
            Arc::clone(&trap.passes),
            Arc::clone(&trap.victim),
        );
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&engine) else {
                    continue;
                };
                let (back, mut to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || copy(back, &mut to_client, |_| true));
                let (left, passes, victim) =
                    (Arc::clone(&left), Arc::clone(&passes), Arc::clone(&victim));
                std::thread::spawn(move || {
                    let mut server = server;
                    copy(client, &mut server, |bytes| {
                        if !(bytes.starts_with(b"POST") || bytes.starts_with(b"DELETE"))
                            || left.fetch_sub(1, Ordering::SeqCst) != 0
                        {
                            return true;
                        }
                        if let Some(victim) = victim.lock().unwrap().take() {
                            victim.kill().unwrap();
                        }
                        *passes.lock().unwrap()
                    });
                });
            }
        });
        trap
    }

    fn set(&self, after: i64, passes: bool, victim: wharfie_lab::Spawned) {
        *self.victim.lock().unwrap() = Some(victim);
        *self.passes.lock().unwrap() = passes;
        self.left.store(after, Ordering::SeqCst);
    }

    /// Whether it has sprung; it is not set any more.
    fn sprung(&self) -> bool {
        self.left.store(-1, Ordering::SeqCst);
        self.victim.lock().unwrap().is_none()
    }

    /// The agent that was to be killed, and was not.
    fn survivor(&self) -> Option<wharfie_lab::Spawned> {
        self.victim.lock().unwrap().take()
    }
}

fn copy(mut from: UnixStream, to: &mut UnixStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || (pass(&buffer[..n]) && to.write_all(&buffer[..n]).is_err()) {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// The agent is killed at each request that changes something on the Engine, before and after the
/// Engine got it; every time the next agent brings things to their end.
#[test]
fn an_agent_killed_at_any_engine_call_loses_and_doubles_nothing() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let mut stack = Stack::on(host, "killed9", STACK);
    let trap = Trap::new(&stack);
    let engine = trap.socket.clone();
    // The command line goes the same way: it names no Engine of its own.
    stack.env("DOCKER_HOST", &format!("unix://{}", engine.display()));
    let mut rounds = 0;
    for passes in [false, true] {
        for (command, outcome) in [
            ("up -d", whole as fn(&Stack) -> Result<()>),
            ("down -v -t 0", nothing),
        ] {
            for at in 0.. {
                if command.starts_with("down") {
                    start_agent(&stack, &engine, &[]);
                    stack.ok("up -d");
                    kill_agent(&stack);
                }
                let agent = start_agent(&stack, &engine, &[]);
                trap.set(at, passes, agent);
                let ran = stack.run(command);
                let sprung = trap.sprung();
                if sprung {
                    assert!(!ran.status.success(), "{ran}");
                    ran.says(["agent", "went away"]);
                    start_agent(&stack, &engine, &[]);
                }
                soon(|| outcome(&stack));
                // It stays so.
                throughout(Duration::from_millis(500), || outcome(&stack)).unwrap();
                if command.starts_with("up") {
                    stack.ok("down -v -t 0");
                }
                if let Some(survivor) = trap.survivor() {
                    survivor.kill().unwrap();
                } else {
                    kill_agent(&stack);
                }
                rounds += 1;
                if !sprung {
                    break;
                }
            }
        }
    }
    assert!(rounds > 20, "only {rounds} moments");
}

/// Containers do not notice what happens to the agent, an upgrade of its program included.
#[test]
fn containers_outlive_agents() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(host, "outlive", STACK);
    stack
        .ok("up -d")
        .says(["Started an agent in the background"]);
    let started = |stack: &Stack| -> Vec<String> {
        let containers = names(stack);
        let short = containers.iter().map(|n| &n[stack.name.len() + 1..]);
        short
            .map(|n| text(&stack.inspect(n)["State"]["StartedAt"]))
            .collect()
    };
    let before = started(&stack);
    // One that is started to stay takes the place of the one in the background.
    let engine = stack.host.engine().socket();
    start_agent(&stack, &engine, &[]);
    soon(|| {
        let info = ask(&stack, "GET", "/v1/info")?;
        ensure!(info["background"] == false, "{info}");
        Ok(())
    });
    kill_agent(&stack);
    // Another program in its place, and it is started as before.
    let copy = stack.host.dir().join("wharfie-new");
    std::fs::copy(env!("CARGO_BIN_EXE_wharfie"), &copy).unwrap();
    let [socket, state] = agent_of(&stack.host);
    let mut command = Command::new(&copy);
    let engine = format!("unix://{}", stack.host.engine().socket().display());
    command
        .args(["agent", "--engine", &engine])
        .envs([socket, state]);
    let upgraded = stack.host.machine().spawn(command).unwrap();
    soon(|| ask(&stack, "GET", "/v1/info"));
    assert_eq!(started(&stack), before);
    stack.ok("up -d").says(["Nothing to do"]);
    // A polite end, and what happens meanwhile is made good afterwards.
    upgraded.terminate(Duration::from_secs(10)).unwrap();
    let engine = stack.host.engine();
    engine.remove_container("outlive-db-1").unwrap();
    engine
        .api("POST", "/containers/outlive-os-1/kill", None)
        .unwrap();
    stack.ok("ps");
    start_agent(&stack, &engine.socket(), &[]);
    soon(|| whole(&stack));
    // Two agents on one state, or one socket, are one too many.
    let second = stack.run(["agent", "--idle-exit", "1s"]);
    second.has_code(1).says(["in use by another agent"]);
    assert!(whole(&stack).is_ok());
}

#[test]
fn engines_come_and_go() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(host, "engines", STACK);
    stack.ok("up -d");
    let engine = stack.host.engine();
    // In order, which ends the containers; by force; and gone for a while.
    engine.restart().unwrap();
    soon(|| whole(&stack));
    engine.kill().unwrap();
    engine.start().unwrap();
    soon(|| whole(&stack));
    engine.stop().unwrap();
    stack.fails(4, "up -d").says(["Engine"]);
    stack.fails(4, "ps").says(["Engine"]);
    soon(|| {
        let away = ask(&stack, "GET", "/v1/info")?["engine_away"].clone();
        ensure!(away.is_string(), "{away}");
        Ok(())
    });
    engine.start().unwrap();
    soon(|| whole(&stack));
    stack.ok("up -d");
}

#[test]
fn a_host_whose_plug_was_pulled_comes_back_whole() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(host, "plugged", STACK);
    stack.ok("up -d");
    stack.ok("stop -t 0 os");
    stack.host.power_off().unwrap();
    stack.host.power_on().unwrap();
    start_agent(&stack, &stack.host.engine().socket(), &[]);
    soon(|| {
        let now: Vec<(String, String)> = stack
            .containers()
            .iter()
            .map(|c| (text(&c["Names"][0]), text(&c["State"])))
            .collect();
        let states: Vec<&str> = now.iter().map(|(_, s)| s.as_str()).collect();
        ensure!(
            states == ["running", "exited", "exited", "running"],
            "{now:?}"
        );
        Ok(())
    });
    stack.ok("start os");
    soon(|| whole(&stack));
}

#[test]
fn a_full_or_read_only_disk_leaves_what_was_there() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let mut stack = Stack::on(host, "fulldisk", STACK);
    let dir = stack.host.dir().join("small");
    std::fs::create_dir_all(&dir).unwrap();
    let path = text_of(&dir);
    stack
        .program("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", &path])
        .has_code(0);
    let state = dir.join("state");
    stack.env("WHARFIE_STATE_DIR", &text_of(&state));
    stack.ok("up -d");
    // Full.
    let filler = text_of(&dir.join("filler"));
    let fill = format!("cat /dev/zero >{filler} 2>/dev/null; true");
    stack.program("sh", ["-c", &fill]).has_code(0);
    stack.write("compose.yaml", &big_change());
    let refused = stack.fails(1, "up -d");
    refused.says(["cannot use the state in", "make room"]);
    throughout(Duration::from_secs(2), || whole(&stack)).unwrap();
    stack.program("rm", ["-f", &filler]).has_code(0);
    stack.ok("up -d");
    assert!(stack.names().contains(&"fulldisk-more-1".to_owned()));
    // Read-only.
    let remount = |how: &str| {
        let how = format!("remount,{how}");
        stack.program("mount", ["-o", &how, &path])
    };
    kill_agent(&stack);
    remount("ro").has_code(0);
    stack.fails(1, "down").says(["Read-only"]);
    assert_eq!(stack.names().len(), 5, "{:?}", stack.names());
    remount("rw").has_code(0);
    stack.ok("down -v -t 0");
    assert!(stack.names().is_empty());
    let pid = pid_of_small(&stack);
    if let Some(pid) = pid {
        stack.program("kill", [pid.as_str()]).has_code(0);
    }
    soon(|| {
        let unmounted = stack.program("umount", [path.as_str()]);
        ensure!(unmounted.status.success(), "{unmounted}");
        Ok(())
    });
}

fn pid_of_small(stack: &Stack) -> Option<String> {
    pid(stack).ok()
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

/// A change whose wanted state is larger than a page or two.
fn big_change() -> String {
    let filler = "x".repeat(600_000);
    format!(
        "{STACK}\nconfigs: {{big: {{content: '{filler}'}}}}\n"
    )
    .replace(
        "volumes: {data: }",
        "  more: {image: busybox, init: true, command: sleep 1000, configs: [big]}\nvolumes: {data: }",
    )
}

#[test]
fn settings_are_read_anew_without_a_restart() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(host, "settings", STACK);
    stack.fails(4, "reload").says(["no agent is running"]);
    stack.write("wharfie.toml", "log-format = \"json\"\n");
    let file = text_of(&stack.path("wharfie.toml"));
    let engine = stack.host.engine().socket();
    let agent = start_agent(&stack, &engine, &["--config", &file]);
    let pid = pid(&stack).unwrap();
    soon(|| {
        let log = agent.log();
        let line = log.lines().find(|l| l.contains("agent started"));
        let line: Value = serde_json::from_str(line.context("not yet")?)?;
        ensure!(line["level"] == "INFO" && line["stacks"] == 0, "{line}");
        Ok(())
    });
    stack.ok("reload").says(["nothing changed"]);
    stack.write(
        "wharfie.toml",
        "log-format = \"text\"\nlog-level = \"debug\"\nresync = \"1s\"\n",
    );
    stack
        .ok("reload")
        .says(["log-level", "log-format", "resync"]);
    // Bad settings change nothing.
    stack.write("wharfie.toml", "resync = \"1s\"\nlog-lewel = \"debug\"\n");
    stack.fails(2, "reload").says(["line 2", "log-lewel"]);
    stack.write("wharfie.toml", "resync = \"often\"\n");
    stack.program("kill", ["-HUP", &pid]).has_code(0);
    agent
        .wait_for_output("the settings stay as they were", Duration::from_secs(20))
        .unwrap();
    stack.write("wharfie.toml", "idle-exit = \"1s\"\n");
    stack.program("kill", ["-HUP", &pid]).has_code(0);
    // Nothing is wanted: it ends by itself.
    agent.wait(Duration::from_secs(20)).unwrap();
    assert!(agent.log().contains("nothing is wanted"));
}
