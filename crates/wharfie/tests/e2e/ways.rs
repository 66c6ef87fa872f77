//! An Engine reached through its agent, as other nodes reach it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharfie_host::{BoxedStream, Dialer, Engine, ExecOptions, LogOptions};

use crate::stack::{Stack, agent_of, ask_agent, text};

/// Asks for a way to the Engine of a node.
fn request(node: &str) -> String {
    format!(
        "GET /v1/nodes/{node}/engine HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: wharfie-stream\r\n\r\n"
    )
}

/// A socket that leads through the agent to its Engine.
fn relay(stack: &Stack, agent: &Path, node: &str) -> PathBuf {
    let path = stack.path("relay.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (agent, request) = (agent.to_owned(), request(node));
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let mut way = UnixStream::connect(&agent).unwrap();
            way.write_all(request.as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                way.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "));
            let copy = |mut from: UnixStream, mut to: UnixStream| {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                })
            };
            copy(client.try_clone().unwrap(), way.try_clone().unwrap());
            copy(way, client);
        }
    });
    path
}

const COMPOSE: &str = "
services:
  web:
    build: .
    image: ways-web
    init: true
    command: sh -c 'echo up; exec sleep 1000'
";

#[test]
fn everything_works_through_the_agent() {
    let Some(stack) = Stack::new("ways", COMPOSE) else {
        return;
    };
    std::fs::copy("/bin/busybox", stack.path("busybox")).unwrap();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\nRUN echo built > /mark\n";
    stack.write("Dockerfile", dockerfile);
    stack.ok("up -d");
    let [(_, agent), _] = agent_of(&stack.host);
    let nodes = ask_agent(&agent, "GET", "/v1/nodes").unwrap();
    let node = text(&nodes[0]["name"]);
    assert_eq!(nodes[0]["me"], true);
    assert_eq!(nodes[0]["state"], "up");

    // What a stranger to us sees of it: everything, BuildKit's sessions and terminals too.
    let relay = relay(&stack, &agent, &node);
    let host = format!("unix://{}", relay.display());
    let there = |words: &[&str]| {
        let mut all = vec!["-H", host.as_str()];
        all.extend(words);
        stack.ok(all.as_slice())
    };
    there(&["build", "--no-cache"]);
    assert_eq!(
        there(&["exec", "-T", "web", "cat", "/mark"]).stdout,
        "built\n"
    );
    assert_eq!(there(&["logs", "--no-log-prefix", "web"]).stdout, "up\n");
    there(&["stats", "--no-stream", "web"]).says(["ways-web-1"]);
    assert_eq!(
        there(&["run", "--rm", "-T", "web", "echo", "once"]).stdout,
        "once\n"
    );

    // What another node's command line does.
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(through(agent, &node, &stack.id("web-1")));

    // A container is known without its project.
    let elsewhere = stack.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let dir = elsewhere.display().to_string();
    let alone = |line: &str| {
        let program = crate::stack::wharfie();
        let script = format!("cd {dir} && exec env -u DOCKER_HOST {program} {line}");
        stack.program("sh", ["-c", &script])
    };
    let id = stack.id("web-1");
    let said = alone(&format!("exec -T {} cat /mark", &id[..10]));
    assert_eq!(said.stdout, "built\n");
    alone("ps -A").says(["ways-web-1"]);
    alone("restart -t 1 ways-web-1").has_code(0);
    alone("exec nobody true").has_code(2);
}

async fn through(agent: PathBuf, node: &str, id: &str) {
    let request = request(node);
    let dialer = Dialer::new(move || {
        let (agent, request) = (agent.clone(), request.clone());
        Box::pin(async move {
            let mut stream = tokio::net::UnixStream::connect(agent).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            Ok(Box::new(stream) as BoxedStream)
        })
    });
    let engine = Engine::connect_through(dialer, "node x").await.unwrap();
    let containers = engine.all_containers(false).await.unwrap();
    assert!(containers.iter().any(|c| c.id == id));
    let raw = engine.inspect_raw(id, false).await.unwrap();
    assert_eq!(raw["Id"], id);
    let mut log = Box::pin(engine.logs(id, &LogOptions::default()));
    assert_eq!(log.next().await.unwrap().unwrap().bytes, "up\n");
    for tty in [false, true] {
        let options = ExecOptions {
            command: ["sh", "-c", "read word; echo \"$word.\"; exit 5"]
                .map(str::to_owned)
                .to_vec(),
            tty,
            interactive: true,
            ..ExecOptions::default()
        };
        let mut session = engine.exec(id, &options).await.unwrap().unwrap();
        session.resize(80, 20).await.unwrap_or_default();
        session.input.write_all(b"hello\n").await.unwrap();
        session.input.flush().await.unwrap();
        let mut said = Vec::new();
        while let Some(piece) = session.output.next().await {
            said.extend_from_slice(&piece.unwrap().bytes);
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("hello."), "{said}");
        assert_eq!(session.exit_code().await.unwrap(), 5);
    }
}
