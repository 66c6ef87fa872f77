//! The check of a zone against servers that are as they should be, and such as are not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wharfie_edge::zone::check::{Level, Plan};
use wharfie_edge::zone::{Content, Name, Start, Zone, Zones, import, serial};

use super::here::{Here, serve};

fn make(origin: &str, servers: &[&str], text: &str) -> Arc<Zone> {
    let origin: Name = origin.parse().unwrap();
    let records = import(text, "text", &origin, 60).unwrap().records;
    let servers: Vec<Name> = servers.iter().map(|s| s.parse().unwrap()).collect();
    let (content, words) = Content::new(Start::new(origin), &servers, records);
    assert!(words.is_empty(), "{words:?}");
    let version = serial::next(None, &content, 5, &[]);
    Zone::new(content, version)
}

async fn judged(plan: &Plan) -> Vec<String> {
    let replies = plan.ask(Duration::from_secs(3)).await;
    plan.judge(&replies)
        .iter()
        .map(ToString::to_string)
        .collect()
}

async fn above(text: &str) -> Here {
    serve(Zones::new(vec![make(
        "example.org",
        &["ns.example.org"],
        text,
    )]))
    .await
}

#[tokio::test]
async fn a_zone_is_looked_at_from_outside_in() {
    let zone = make(
        "apps.example.org",
        &["n1.apps.example.org"],
        "n1 A 127.0.0.1\nweb A 192.0.2.1",
    );
    let here = serve(Zones::new(vec![Arc::clone(&zone)])).await;
    let good = above("ns A 127.0.0.1\napps NS n1.apps\nn1.apps A 127.0.0.1").await;
    let bad = above("ns A 127.0.0.1\napps NS n9.apps\nn9.apps A 127.0.0.9").await;
    let none = above("ns A 127.0.0.1").await;
    let stale = above("ns A 127.0.0.1\napps NS n1.apps\nn1.apps A 127.0.0.7").await;
    let plan = |parents: &[SocketAddr], resolvers: &[SocketAddr]| Plan {
        zone: Arc::clone(&zone),
        parents: parents.to_vec(),
        resolvers: resolvers.to_vec(),
        port: here.at.port(),
        names: 100,
    };
    // Ours stands for a resolver: it finds what it has.
    let found = judged(&plan(&[good.at], &[here.at])).await;
    let port = here.at.port();
    assert_eq!(
        found,
        [
            "warning: apps.example.org. has one server: if that node is down, no name is found; let a second node answer, or have secondaries".to_owned(),
            format!("ok: n1.apps.example.org. (127.0.0.1) port {port}/udp answers"),
            format!("ok: n1.apps.example.org. (127.0.0.1) port {port}/tcp answers"),
            format!("ok: {} delegates apps.example.org. to all its servers", good.at),
            format!("ok: {} finds 2 of 2 names", here.at),
        ]
    );
    let found = judged(&plan(&[bad.at, none.at, stale.at], &[none.at]))
        .await
        .join("\n");
    for want in [
        format!("fault: {} does not lead to n1.apps.example.org.", bad.at),
        format!("warning: {} leads to n9.apps.example.org.", bad.at),
        format!(
            "fault: {} does not delegate apps.example.org.: it says there is no such name",
            none.at
        ),
        format!(
            "fault: {} has [127.0.0.7] for n1.apps.example.org.",
            stale.at
        ),
        format!(
            "fault: the resolver {} does not find apps.example.org. (code 3)",
            none.at
        ),
    ] {
        assert!(found.contains(&want), "{want} in\n{found}");
    }
    let text = plan(&[], &[]).delegation();
    assert!(
        text.contains("\napps.example.org.\t3600\tIN\tNS\tn1.apps.example.org.\n"),
        "{text}"
    );
    assert!(
        text.contains("\nn1.apps.example.org.\t3600\tIN\tA\t127.0.0.1\n"),
        "{text}"
    );
    // What is to be entered is what the zone above needs.
    let records = import(&text, "text", &"example.org".parse().unwrap(), 60).unwrap();
    assert_eq!(records.records.len(), 2);
}

#[tokio::test]
async fn servers_that_do_not_answer_are_named() {
    let zone = make(
        "apps.example.org",
        &["n1.apps.example.org", "n2.apps.example.org"],
        "n1 A 127.0.0.1\nn2 A 127.0.0.2",
    );
    let other = serve(Zones::new(vec![make("example.net", &[], "a A 192.0.2.1")])).await;
    let plan = Plan {
        zone,
        parents: Vec::new(),
        resolvers: Vec::new(),
        port: other.at.port(),
        names: 10,
    };
    let replies = plan.ask(Duration::from_millis(300)).await;
    let found = plan.judge(&replies);
    assert!(
        found.iter().all(|f| f.level == Level::Fault) && found.len() == 4,
        "{found:?}"
    );
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        shown[0].contains("(127.0.0.1)") && shown[0].contains("answers with code 5"),
        "{shown:?}"
    );
    assert!(
        shown[2].contains("(127.0.0.2)") && shown[2].contains("does not answer"),
        "{shown:?}"
    );
}
