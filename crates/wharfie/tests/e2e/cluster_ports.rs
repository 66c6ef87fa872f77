//! Published ports are answered on every node, by tasks on any.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use wharfie_lab::Lab;

use crate::asker::{serves, who};
use crate::cluster::{Cluster, Node};
use crate::stack::soon;

const WEB: &str = concat!(
    serves!("exec httpd -f -h /w"),
    "services:
  web:
    <<: *serve
    ports: ['18080:80', {target: 80, published: '18081', mode: host}]
    deploy: {replicas: 2, placement: {constraints: [node.hostname != h3]}}
"
);

/// All who answer at a node, and all who they say asks.
fn all(
    from: &wharfie_lab::Machine,
    node: &Node,
    port: u16,
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let each = (0..6).map(|_| who(from, node.host.address(), port));
    Ok(each.collect::<Result<Vec<_>>>()?.into_iter().unzip())
}

#[test]
fn every_node_answers_and_the_clients_address_arrives() {
    let builder = Lab::builder().hosts(3).client("user");
    let Some(cluster) = Cluster::with(builder, "doors", WEB) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let user = cluster.lab().client("user").unwrap();
    h1.ok("up -d");
    // On every node, one without a task too, both tasks answer and see the user's own address.
    let own = BTreeSet::from([user.address().to_string()]);
    for node in [h1, h2, h3] {
        soon(|| {
            let (tasks, askers) = all(&user, node, 18080)?;
            ensure!(tasks.len() == 2, "{tasks:?}");
            ensure!(askers == own, "{askers:?}");
            Ok(())
        });
    }
    // So do programs on the nodes themselves.
    for node in [h1, h3] {
        soon(|| who(&node.host, Ipv4Addr::LOCALHOST, 18080));
        soon(|| who(&node.host, node.host.address(), 18080));
    }
    // `mode: host` is where the tasks are, and there alone.
    for node in [h1, h2] {
        let (tasks, askers) = all(&user, node, 18081).unwrap();
        assert_eq!((tasks.len(), &askers), (1, &own));
    }
    assert!(who(&user, h3.host.address(), 18081).is_err());
    h3.ok("ps").says(["0.0.0.0:18080->80/tcp"]);
    h2.ok("port web 80").says(["0.0.0.0:18080"]);

    // Three more tasks fit on two nodes, since none of them holds the port.
    h2.write(
        "more.yaml",
        &WEB.replace(", {target: 80, published: '18081', mode: host}", "")
            .replace("replicas: 2", "replicas: 4"),
    );
    h2.ok("-f more.yaml up -d");
    for node in [h1, h2, h3] {
        soon(|| {
            let (tasks, _) = all(&user, node, 18080)?;
            ensure!(tasks.len() == 4, "{tasks:?}");
            Ok(())
        });
    }

    // Another stack cannot have the same port, and is told who has it.
    h3.write(
        "other/compose.yaml",
        "services: {web: {image: busybox, command: sleep 1000, ports: ['18080:80']}}",
    );
    h3.fails(1, "-p other -f other/compose.yaml up -d")
        .says(["every node publishes 18080/tcp for doors/web already"]);

    // A host that dies takes its tasks with it, not the port.
    h2.host.machine().cut().unwrap();
    soon(|| {
        let (tasks, _) = all(&user, h3, 18080)?;
        ensure!(!tasks.is_empty());
        Ok(())
    });
    h2.host.machine().heal().unwrap();
    h1.sees(h2, "up");
    h1.ok("down -t 0");
    for node in [h1, h2, h3] {
        soon(|| {
            let left = node.host.machine().http_get("http://127.0.0.1:18080/");
            ensure!(left.is_err(), "somebody answers");
            let networks = node.host.engine().api("GET", "/networks", None)?;
            ensure!(!networks.to_string().contains("doors"), "{networks}");
            Ok(())
        });
    }
}

/// A port that a program of the host has stays its own; where it is free it is published.
#[test]
fn what_a_host_has_itself_is_left_to_it() {
    let Some(cluster) = Cluster::of(2, "taken", WEB) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h2.host
        .machine()
        .run("busybox", ["httpd", "-p", "18080", "-h", "/usr/share"])
        .unwrap();
    h1.write(
        "compose.yaml",
        &WEB.replace("constraints: [node.hostname != h3]", "")
            .replace(", {target: 80, published: '18081', mode: host}", ""),
    );
    h1.ok("up -d");
    soon(|| who(&h1.host, h1.host.address(), 18080));
    let (status, _) = h1
        .host
        .machine()
        .http_get(&format!("http://{}:18080/cgi-bin/who", h2.host.address()))
        .unwrap();
    assert_eq!(status, 404, "the program of the host answers");
    soon(|| {
        let log = h2.log();
        ensure!(
            log.contains("port 18080/tcp of taken/web is not published here"),
            "{log}"
        );
        Ok(())
    });
}
