//! Nothing may stay, however it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wharfie_lab::{Lab, eventually};

use crate::{SOON, leftovers, skipped};

/// A lab with everything in it that may be left: containers, networks, processes, mounts.
fn busy_lab() -> Result<Lab> {
    let lab = Lab::builder().hosts(1).client("c1").start()?;
    let (host, client) = (lab.host(1), lab.client("c1")?);
    let settings = json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "HostConfig": { "RestartPolicy": { "Name": "always" } },
    });
    host.engine().start_container("sleeper", &settings)?;
    // One whose cgroup is its own choice, on the host's network.
    let settings = json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "HostConfig": { "NetworkMode": "host" },
    });
    host.engine().start_container("neighbour", &settings)?;
    // A daemon that has left its parent, as an agent in the background does.
    host.run(
        "sh",
        ["-c", "setsid sleep 600 >/dev/null 2>&1 </dev/null &"],
    )?;
    let mut sleep = client.command("sleep");
    sleep.arg("600");
    client.spawn(sleep)?;
    Ok(lab)
}

#[test]
fn dropping_removes_everything_also_in_a_panic() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = busy_lab()?;
    let (name, dir) = (lab.name().to_owned(), lab.dir().to_owned());
    assert!(
        leftovers(&name, &dir).len() > 4,
        "the search finds what is there"
    );
    drop(lab);
    assert_eq!(leftovers(&name, &dir), [""; 0]);

    let lab = busy_lab()?;
    let (name, dir) = (lab.name().to_owned(), lab.dir().to_owned());
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(leftovers(&name, &dir), [""; 0]);
    Ok(())
}

/// Run as a process of its own by the test below, which kills it.
#[test]
#[ignore = "only as the child of another test"]
fn owner_that_will_be_killed() -> Result<()> {
    let lab = busy_lab()?;
    println!("\nlab {} {}", lab.name(), lab.dir().display());
    // Until the parent kills this process, or ends.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[test]
fn what_a_killed_process_leaves_is_removed_and_the_living_are_spared() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mine = Lab::single()?;
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "cleanup::owner_that_will_be_killed"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(owner.stdout.take().context("piped")?).lines();
    let told = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("lab ")?.to_owned()))
        .context("the owner made no lab")?;
    let (name, dir) = told.split_once(' ').context("name and folder")?;
    let dir = PathBuf::from(dir);

    // While it lives its lab is not garbage.
    ensure!(!Lab::collect_garbage()?.contains(&name.to_owned()));
    Lab::open(name)?.host(1).engine().ping()?;

    owner.kill()?;
    owner.wait()?;
    assert!(
        leftovers(name, &dir).len() > 4,
        "a killed owner removes nothing"
    );
    // Another test's start may have been first; either way it is gone now.
    Lab::collect_garbage()?;
    assert_eq!(leftovers(name, &dir), [""; 0]);
    mine.host(1).engine().ping()
}

#[test]
fn a_lab_grows_and_is_used_by_others() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut lab = Lab::single()?;
    lab.add_host(wharfie_lab::EngineKind::Debian)?;
    let opened = Lab::open(lab.name())?;
    opened.host(2).engine().ping()?;
    opened.client("late")?;
    opened.host(2).cut()?;
    assert_eq!(lab.faults()?.describe("h2"), "cut");
    drop(opened);
    eventually(SOON, || lab.host(2).engine().ping())
}
