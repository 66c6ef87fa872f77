//! One host and its Engine.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wharfie_lab::{Engine, EngineKind, Lab, eventually};

use crate::{SOON, skipped};

/// A web server that comes back with the Engine, published on the host's port 8080.
fn start_web(engine: &Engine) -> Result<String> {
    let settings = json!({
        "Image": "wharfie/base",
        "Cmd": ["sh", "-c", "echo wharfie > /index.html; exec httpd -f -p 80 -h /"],
        "ExposedPorts": { "80/tcp": {} },
        "HostConfig": {
            "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] },
            "RestartPolicy": { "Name": "always" },
        },
    });
    engine.start_container("web", &settings)
}

fn is_served(lab: &Lab) -> Result<()> {
    let url = format!("http://{}:8080/", lab.host(1).address());
    let (status, body) = lab.client("c1")?.http_get(&url)?;
    ensure!(
        (status, body.trim()) == (200, "wharfie"),
        "{status}: {body}"
    );
    Ok(())
}

fn container_pid(engine: &Engine, id: &str) -> Result<u64> {
    let facts = engine.api("GET", &format!("/containers/{id}/json"), None)?;
    facts["State"]["Pid"].as_u64().context("no pid")
}

#[test]
fn every_engine_runs_the_base_image_and_publishes_ports() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for kind in EngineKind::ALL {
        let lab = Lab::builder().hosts(1).engine(kind).start()?;
        let engine = lab.host(1).engine();
        let ran = engine.run("busybox", &["sh", "-c", "echo hello; exit 3"])?;
        assert_eq!((ran.status, ran.output.trim()), (3, "hello"), "{kind}");
        let info = engine.api("GET", "/info", None)?;
        assert_eq!(info["Name"], "h1", "{kind}");
        start_web(engine)?;
        eventually(SOON, || is_served(&lab)).with_context(|| kind.to_string())?;
        lab.down()?;
    }
    Ok(())
}

#[test]
fn a_killed_engine_starts_again_beside_its_surviving_containers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::builder()
        .hosts(1)
        .dockerd_args(["--live-restore"])
        .start()?;
    let engine = lab.host(1).engine();
    let id = start_web(engine)?;
    let pid = container_pid(engine, &id)?;
    let before = engine.pid();

    engine.kill()?;
    assert!(!engine.is_running());
    assert!(engine.ping().is_err());
    assert!(
        std::fs::exists(format!("/proc/{pid}"))?,
        "the container goes on"
    );

    engine.start()?;
    assert_ne!(engine.pid(), before);
    assert_eq!(
        container_pid(engine, &id)?,
        pid,
        "and is the same afterwards"
    );
    eventually(SOON, || is_served(&lab))
}

#[test]
fn an_engine_stops_in_order_freezes_and_thaws() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::single()?;
    let engine = lab.host(1).engine();
    engine.freeze()?;
    assert!(engine.is_running());
    assert!(engine.ping().is_err(), "it accepts, and never answers");
    engine.thaw()?;
    engine.ping()?;
    engine.stop()?;
    assert!(!engine.is_running());
    assert!(!engine.socket().exists());
    engine.start()?;
    engine.restart()?;
    engine.ping()
}

#[test]
fn a_host_whose_plug_was_pulled_boots_with_its_containers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::single()?;
    let host = lab.host(1);
    let id = start_web(host.engine())?;
    let pid = container_pid(host.engine(), &id)?;
    eventually(SOON, || is_served(&lab))?;

    host.power_off()?;
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(
        cmdline.is_empty(),
        "the container is gone, or a zombie: {cmdline:?}"
    );
    let web = (host.address(), 8080);
    let soon = std::time::Duration::from_millis(300);
    assert!(lab.client("c1")?.tcp_connect(web, soon).is_err());

    host.power_on()?;
    eventually(SOON, || is_served(&lab))
}

#[test]
fn an_engine_that_cannot_start_says_why_and_leaves_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let failed = Lab::builder()
        .hosts(2)
        .dockerd_args(["--no-such-flag"])
        .start();
    let error = format!("{:#}", failed.err().context("must fail")?);
    assert!(error.contains("no-such-flag"), "{error}");
    // Each lab of this process has its pid in its name: other tests' labs are among them, this is not.
    for name in Lab::names()? {
        let started_by_this_test =
            std::fs::read_to_string(Lab::open(&name)?.dir().join("state.json"))
                .is_ok_and(|state| state.contains("no-such-flag"));
        assert!(!started_by_this_test, "{name}");
    }
    Ok(())
}
