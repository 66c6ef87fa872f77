//! Who is not let into a cluster, and what nobody can read between its nodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use wharfie_cluster::Token;
use wharfie_lab::throughout;

use crate::cluster::{Cluster, Node};
use crate::cluster_commands::stacks;
use crate::stack::{agent_of, soon};

const SECRET: &str = "open-sesame-4711";

const SAYS_IT: &str = "
services:
  web:
    image: busybox
    init: true
    environment: {PASSWORD: open-sesame-4711}
    command: [sh, -c, 'echo $$PASSWORD; sleep 1000']
";

/// Fails unless a node is alone, and knows no stack of others.
#[track_caller]
fn has_learned_nothing(node: &Node) {
    let states = node.states().unwrap();
    assert_eq!(states, [(node.name().to_owned(), "up".to_owned())]);
    soon(|| {
        let stacks = stacks(node)?;
        ensure!(stacks.is_empty(), "{stacks:?}");
        Ok(())
    });
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn who_is_not_welcome_is_told_why_and_learns_nothing() {
    let Some(cluster) = Cluster::apart(4, "welcome", SAYS_IT) else {
        return;
    };
    let [h1, h2, h3, h4] = [1, 2, 3, 4].map(|n| cluster.node(n));
    let two = |node: &Node| {
        soon(|| {
            let states = node.states()?;
            ensure!(states.len() == 2, "{states:?}");
            Ok(())
        });
    };
    h2.join(h1);
    h1.ok("up -d --replicated 2");

    // What is no token, or is not whole.
    let token = h1.token();
    let joins = |node: &Node, code: i32, token: &str, says: &[&str]| {
        let refused = node.fails(code, ["join", token]);
        refused.says(says.iter().copied());
    };
    joins(h3, 2, "open-sesame", &["this is no join token"]);
    joins(h3, 2, &token[..token.len() - 5], &["cut off or mistyped"]);
    joins(h3, 2, &token.replace("-1-", "-9-"), &["another version"]);
    h1.fails(2, "token --ttl 0s").says(["--ttl"]);
    let mut forged: Token = token.parse().unwrap();
    forged.secret[0] ^= 1;
    joins(h3, 1, &forged.to_string(), &["the token is not known here"]);
    // It is good once.
    h4.ok(["join", &token]);
    joins(
        h3,
        1,
        &token,
        &["the token was used by node", "make a new one"],
    );
    // It is good for a while, and on another node than that which made it.
    let brief = h1.ok("token --ttl 1s").stdout.trim().to_owned();
    soon(|| {
        let brief: Token = brief.parse()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        ensure!(brief.expires < now, "not yet expired");
        Ok(())
    });
    joins(h3, 1, &brief, &["the token expired"]);
    let mut longer: Token = brief.parse().unwrap();
    longer.expires += 3600;
    joins(
        h3,
        1,
        &longer.to_string(),
        &["the token expired", "make a new one"],
    );
    has_learned_nothing(h3);
    let own = h3.token();
    joins(h3, 1, &own, &["was made here"]);

    // Who is removed while it is away hears of it when it comes back, and has to join anew.
    h4.kill_agent();
    h1.ok("node rm h4").says(["Removed h4"]);
    two(h2);
    h4.start_agent();
    soon(|| {
        ensure!(h4.states()?.len() == 1, "{:?}", h4.states());
        Ok(())
    });
    assert!(h4.log().contains("was removed"), "{}", h4.log());
    two(h1);
    has_learned_nothing(h4);

    // Two clusters do not become one, nor two stacks.
    h4.ok(["join", &own]);
    assert_eq!(
        stacks(h3).unwrap(),
        [],
        "what was another cluster's is brought along"
    );
    joins(
        h4,
        1,
        &h1.token(),
        &["in a cluster already", "do not merge"],
    );
    h3.ok("node rm h4");
    soon(|| {
        ensure!(h4.states()?.len() == 1, "{:?}", h4.states());
        Ok(())
    });
    h4.ok("up -d");
    joins(h4, 1, &h1.token(), &["have stack welcome", "another name"]);
    assert_eq!(h4.states().unwrap().len(), 1);
    assert_eq!(h4.names(), ["welcome-web-1"]);

    // A copy of a machine has its key: there is no second one of it.
    h3.end_agent();
    let key = |node: &Node| {
        let [_, (_, state)] = agent_of(&node.host);
        state.join("node.key")
    };
    std::fs::copy(key(h2), key(h3)).unwrap();
    h3.start_agent();
    joins(h3, 1, &h1.token(), &["is a member already", "--new-key"]);
    assert_eq!(h3.states().unwrap().len(), 1);
    throughout(Duration::from_secs(2), || {
        let states = h1.states()?;
        let up = |name: &str| states.contains(&(name.to_owned(), "up".to_owned()));
        ensure!(states.len() == 2 && up("h1") && up("h2"), "{states:?}");
        Ok(())
    })
    .unwrap();
    h3.ok(["join", "--new-key", &h1.token()]);
    h3.ok("exec -T web true");
    // A removed one is welcome again, as a new one.
    h1.ok("node rm h3");
    soon(|| {
        ensure!(h3.states()?.len() == 1, "{:?}", h3.states());
        Ok(())
    });
    h3.ok(["join", &h1.token()]);
    h3.ok("exec -T web true");
}

#[test]
fn nobody_reads_along() {
    let Some(cluster) = Cluster::apart(3, "secret", SAYS_IT) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let capture = cluster.lab().capture().unwrap();
    let token = h1.token();
    h2.ok(["join", &token]);
    h3.join(h1);
    cluster.is_whole();
    h1.ok("up -d --replicated 3");
    for node in [h2, h3] {
        soon(|| {
            let said = node.ok("logs");
            ensure!(said.stdout.contains(SECRET), "{said}");
            Ok(())
        });
        node.ok(["exec", "-T", "web", "env"]).says([SECRET]);
        node.ok("inspect web").says([SECRET]);
    }
    assert!(capture.count() > 100, "{} packets", capture.count());
    for word in [SECRET, "PASSWORD", "secret-web-1", "exec", &token] {
        assert_eq!(capture.with(word.as_bytes()), 0, "{word} was to be read");
    }
    // It would have been seen.
    let mut server = h2.host.command("busybox");
    server.args(["httpd", "-f", "-p", "7000"]);
    h2.host.machine().spawn(server).unwrap();
    let url = format!("http://{}:7000/{SECRET}", h2.host.address());
    soon(|| {
        h1.host.http_get(&url)?;
        ensure!(capture.with(SECRET.as_bytes()) > 0, "it was not seen");
        Ok(())
    });
}
