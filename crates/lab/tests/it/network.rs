//! The LAN and its faults.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use wharfie_lab::{Direction, Lab, Machine, eventually};

use crate::{SOON, skipped};

/// Whether `from` reaches `to`; looked at for a while, since a path may just be opening.
fn expect_path(from: &Machine, to: &Machine, open: bool) -> Result<()> {
    eventually(SOON, || {
        let reached = from.reaches(to.address())?;
        ensure!(
            reached == open,
            "{} → {}: {reached}",
            from.name(),
            to.name()
        );
        Ok(())
    })
}

#[test]
fn paths_are_cut_one_way_by_pair_and_as_a_whole_and_heal() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::builder().hosts(2).client("c1").start()?;
    let (one, two, client) = (lab.host(1), lab.host(2), lab.client("c1")?);
    expect_path(one, two, true)?;
    expect_path(&client, two, true)?;
    assert!(one.reaches(lab.subnet().router())?);

    one.cut()?;
    expect_path(one, two, false)?;
    expect_path(&client, one, false)?;
    expect_path(&client, two, true)?;
    assert!(!one.reaches(lab.subnet().router())?);
    one.heal()?;
    expect_path(one, two, true)?;

    one.cut_from(two)?;
    expect_path(one, two, false)?;
    expect_path(&client, one, true)?;
    lab.heal()?;
    expect_path(two, one, true)?;

    lab.partition(&[one.machine(), &client], &[two])?;
    expect_path(one, two, false)?;
    expect_path(&client, two, false)?;
    expect_path(&client, one, true)?;
    lab.heal()?;

    one.unplug()?;
    expect_path(two, one, false)?;
    let link = one.run("ip", ["link", "show", one.interface()])?;
    assert!(link.contains("NO-CARRIER"), "{link}");
    one.heal()?;
    expect_path(two, one, true)
}

#[test]
fn a_one_way_fault_lets_the_other_direction_pass() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::builder().hosts(1).start()?;
    let (host, client) = (lab.host(1), lab.client("c1")?);
    // Ping needs both ways. What a datagram does by itself, both sides' sockets tell.
    let bind = |machine: &Machine| -> Result<std::net::UdpSocket> {
        let address = (machine.address(), 7000);
        let socket = machine.inside(|| std::net::UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(socket)
    };
    let (at_host, at_client) = (bind(host)?, bind(&client)?);
    let arrives = |from: &std::net::UdpSocket, to: &std::net::UdpSocket| -> Result<bool> {
        from.send_to(b"x", to.local_addr()?)?;
        Ok(to.recv(&mut [0]).is_ok())
    };
    // Addresses are resolved now, both ways; afterwards only the fault decides.
    eventually(SOON, || {
        ensure!(arrives(&at_host, &at_client)?, "host → client");
        ensure!(arrives(&at_client, &at_host)?, "client → host");
        Ok(())
    })?;

    host.cut_one_way(Direction::In)?;
    assert!(arrives(&at_host, &at_client)?);
    assert!(!arrives(&at_client, &at_host)?);
    host.heal()?;
    host.cut_one_way(Direction::Out)?;
    assert!(!arrives(&at_host, &at_client)?);
    assert!(arrives(&at_client, &at_host)?);
    host.heal()?;

    host.loss(50)?;
    let mut received = 0;
    for _ in 0..200 {
        at_client.send_to(b"x", at_host.local_addr()?)?;
    }
    at_host.set_read_timeout(Some(Duration::from_millis(300)))?;
    while at_host.recv(&mut [0]).is_ok() {
        received += 1;
    }
    assert!((50..150).contains(&received), "{received} of 200");
    Ok(())
}

#[test]
fn sockets_and_processes_belong_to_their_machine() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lab = Lab::single()?;
    let (host, client) = (lab.host(1), lab.client("c1")?);

    let listener = host.inside(|| TcpListener::bind((host.address(), 7000)))??;
    let mut sent = client.tcp_connect((host.address(), 7000), SOON)?;
    sent.write_all(b"hello")?;
    drop(sent);
    let (mut received, from) = listener.accept()?;
    let mut text = String::new();
    received.read_to_string(&mut text)?;
    assert_eq!(
        (text.as_str(), from.ip()),
        ("hello", client.address().into())
    );

    let mut command = host.command("sh");
    command.args([
        "-c",
        "hostname; echo $DOCKER_HOST; echo ready >&2; exec sleep 600",
    ]);
    let process = host.spawn(command)?;
    process.wait_for_output("ready", SOON)?;
    assert_eq!(
        process.log(),
        format!("h1\n{}\nready\n", host.docker_host())
    );
    assert!(process.is_running());
    process.freeze()?;
    process.thaw()?;
    let status = process.terminate(SOON)?;
    assert!(!status.success());
    assert!(process.wait_for_output("never", SOON).is_err());

    let env = client.run("env", [""; 0])?;
    assert!(!env.contains("DOCKER_HOST"), "{env}");
    Ok(())
}
