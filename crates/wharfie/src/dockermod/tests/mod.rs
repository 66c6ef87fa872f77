//! The protocol over several nodes, some of them dead, and over HTTP.

mod door;
mod fake;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use wharfie_cluster::{NodeId, Replica, Store};

use super::act::{Deadlines, Service};
use super::templates::Templates;
use crate::agent::fleet::{Alone, Fleet};
use Health::{Babbles, CutsOff, Hangs, Refuses, Silent, Well};
use fake::{Fakes, Health};

/// A store that goes with the test.
struct Kept(PathBuf, Templates);

impl Kept {
    fn new(name: &str) -> Self {
        let name = format!("wharfie-dockermod-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let store = Arc::new(Store::open(&dir).unwrap());
        let replica = Arc::new(Replica::open(store, NodeId::NONE, 1).unwrap());
        let report = tokio::sync::watch::Sender::default().subscribe();
        let fleet = Arc::new(Fleet::new(Arc::new(Alone::new()), report));
        Self(dir, Templates::new(replica, fleet))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What answers over nodes like these.
struct Cluster {
    service: Service,
    nodes: Arc<Fakes>,
    kept: Kept,
}

fn cluster(name: &str, health: &[Health]) -> Cluster {
    let (nodes, kept) = (Fakes::new(health), Kept::new(name));
    let service = Service::new(Arc::clone(&nodes) as _, kept.1.clone());
    let service = service.with_deadlines(Deadlines {
        look: Duration::from_secs(1),
        create: Duration::from_secs(1),
        change: Duration::from_secs(1),
    });
    Cluster {
        service,
        nodes,
        kept,
    }
}

impl Cluster {
    async fn ask(&self, request: Value) -> Value {
        self.service.reply(request.as_object().unwrap()).await
    }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// Names of a reply's nodes, `-` where one kept silent.
fn instances(reply: &Value) -> Vec<&str> {
    let list = reply["containers"].as_array().unwrap();
    list.iter()
        .map(|r| match r["dockerInstance"].as_str() {
            Some(name) => name,
            None => {
                assert_eq!(r, &json!({"error": "timeout"}));
                "-"
            }
        })
        .collect()
}

#[tokio::test]
async fn replies_are_the_engines_answers_with_their_headers() {
    let cluster = cluster("replies", &[Well]);
    let id = id('a');
    cluster.nodes.add(1, &id, "web");
    let on = |action: &str| json!({"action": action, "id": id});
    let empty = |status: u16| json!({"statusCode": status, "Api-Version": "1.41", "Date": "now", "Response": "", "dockerInstance": "h1"});
    for (request, reply) in [
        (on("start-container"), empty(204)),
        (on("start-container"), empty(304)),
        (on("restart-container"), empty(204)),
        (on("stop-container"), empty(204)),
        (
            on("inspect-container"),
            json!({
                "statusCode": 200, "Api-Version": "1.41", "Content-Type": "application/json",
                "Date": "now", "Content-Length": "74", "Response": {"Body": {"Id": id}},
                "dockerInstance": "h1",
            }),
        ),
        (
            json!({"action": "list-containers"}),
            json!({
                "statusCode": 200, "Content-Type": "application/json", "Date": "now",
                "Transfer-Encoding": "chunked",
                "Response": {"Body": [{"Id": id, "Names": ["/web"]}]}, "dockerInstance": "h1",
            }),
        ),
        (on("delete-container"), empty(204)),
        (
            json!({"action": "create-container", "image": "missing"}),
            json!({
                "statusCode": 404, "Api-Version": "1.41", "Content-Type": "application/json",
                "Date": "now", "Content-Length": "37",
                "Response": {"Body": {"message": "No such image: missing"}},
                "dockerInstance": "h1",
            }),
        ),
    ] {
        assert_eq!(cluster.ask(request.clone()).await, reply, "{request}");
    }
    // Keys stand as DockerMod put them.
    let reply = cluster.ask(json!({"action": "list-images"})).await;
    let keys: Vec<&String> = reply.as_object().unwrap().keys().collect();
    assert_eq!(*keys[0], "statusCode");
    assert_eq!(keys[keys.len() - 2..], ["Response", "dockerInstance"]);
}

#[tokio::test]
async fn a_stop_has_grace_unless_a_kill_is_asked_for() {
    let cluster = cluster("stop", &[Well]);
    let id = id('a');
    cluster.nodes.add(1, &id, "web");
    for (more, asked) in [
        (json!({}), "stop"),
        (json!({"timeout": 3}), "stop?t=3"),
        (json!({"kill": true}), "kill"),
    ] {
        let mut request = json!({"action": "stop-container", "id": "web"});
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        cluster.ask(request).await;
        let asked = format!("POST /containers/{id}/{asked}");
        assert_eq!(cluster.nodes.engine(1).asked.last(), Some(&asked));
    }
}

#[tokio::test]
async fn a_shutdown_stops_and_removes() {
    let cluster = cluster("shutdown", &[Well, Well]);
    cluster.nodes.add(2, &id('a'), "web");
    cluster.nodes.add(2, &id('b'), "db");
    cluster
        .ask(json!({"action": "start-container", "id": "web"}))
        .await;
    for name in ["web", "db"] {
        let request = json!({"action": "shutdown-container", "id": name});
        let reply = cluster.ask(request).await;
        assert_eq!(
            (&reply["statusCode"], &reply["dockerInstance"]),
            (&json!(204), &json!("h2"))
        );
    }
    assert_eq!(cluster.nodes.counts(), [0, 0]);
}

#[tokio::test]
async fn instances_are_spread_evenly() {
    for count in 1..=7 {
        let cluster = cluster(&format!("spread{count}"), &[Well, Well, Well]);
        let request = json!({"action": "create-container", "image": "a", "instances": count});
        let reply = cluster.ask(request).await;
        assert_eq!(instances(&reply).len(), count);
        let counts = cluster.nodes.counts();
        assert_eq!(counts.iter().sum::<usize>(), count);
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        assert!(most - least <= 1, "{count}: {counts:?}");
    }
    // One after the other they go round as well, and come alone.
    let cluster = cluster("spread", &[Well, Well, Well]);
    for _ in 0..6 {
        let reply = cluster
            .ask(json!({"action": "create-container", "image": "a"}))
            .await;
        assert_eq!(reply["statusCode"], 201);
        assert_eq!(reply["Response"]["Body"]["Warnings"], Value::Null);
    }
    assert_eq!(cluster.nodes.counts(), [2, 2, 2]);
}

#[tokio::test]
async fn a_dead_node_holds_nothing_up() {
    let kinds = [
        ("refuses", Refuses),
        ("hangs", Hangs),
        ("silent", Silent),
        ("cut", CutsOff),
        ("babbles", Babbles),
    ];
    join_all(kinds.map(|(name, dead)| holds_nothing_up(name, dead))).await;
    let alone = cluster("alone", &[Silent]);
    for action in ["list-containers", "list-images"] {
        let reply = alone.ask(json!({ "action": action })).await;
        assert_eq!(reply, json!({"status": "timeout or no such id"}));
    }
}

async fn holds_nothing_up(name: &str, dead: Health) {
    let cluster = cluster(name, &[Well, dead, Well]);
    cluster.nodes.add(1, &id('a'), "one");
    cluster.nodes.add(3, &id('b'), "three");
    for action in ["list-containers", "list-images"] {
        let reply = cluster.ask(json!({"action": action, "all": true})).await;
        assert_eq!(instances(&reply), ["h1", "-", "h3"], "{name}");
    }
    let request = json!({"action": "create-container", "image": "a", "instances": 6});
    let reply = cluster.ask(request).await;
    assert_eq!(
        instances(&reply),
        ["h1", "-", "h3", "h1", "-", "h3"],
        "{name}"
    );
    // What is elsewhere is found, by id, name and beginning.
    for wanted in [id('b'), "three".to_owned(), "bbb".to_owned()] {
        let request = json!({"action": "inspect-container", "id": wanted});
        assert_eq!(cluster.ask(request).await["dockerInstance"], "h3", "{name}");
    }
    let nobody = json!({"status": "timeout or no such id"});
    let request = json!({"action": "inspect-container", "id": "nope"});
    assert_eq!(cluster.ask(request).await, nobody, "{name}");
    // A single container that was to be there.
    cluster
        .ask(json!({"action": "create-container", "image": "a"}))
        .await;
    let reply = cluster
        .ask(json!({"action": "create-container", "image": "a"}))
        .await;
    assert_eq!(reply, nobody, "{name}");
    // Once it is known to be dead, it is not asked any more.
    cluster.nodes.set_up(2, false);
    let reply = cluster
        .ask(json!({"action": "list-containers", "all": true}))
        .await;
    assert_eq!(instances(&reply), ["h1", "h3"], "{name}");
}

#[tokio::test]
async fn a_whole_id_does_not_wait_for_the_silent() {
    let (nodes, kept) = (Fakes::new(&[Hangs, Well]), Kept::new("whole"));
    // With the usual deadlines an answer in time is one that did not wait.
    let service = Service::new(Arc::clone(&nodes) as _, kept.1.clone());
    let service = service.with_deadlines(Deadlines {
        look: Duration::from_secs(3600),
        ..Deadlines::default()
    });
    nodes.add(2, &id('c'), "web");
    let request = json!({"action": "inspect-container", "id": id('c')});
    let reply = service.reply(request.as_object().unwrap()).await;
    assert_eq!(reply["dockerInstance"], "h2");
}

#[tokio::test]
async fn ids_that_may_mean_several_do_nothing() {
    let cluster = cluster("several", &[Well, Well]);
    let (one, two) = (
        format!("ab{}", "0".repeat(62)),
        format!("ab{}", "1".repeat(62)),
    );
    cluster.nodes.add(1, &one, "web");
    cluster.nodes.add(2, &two, "web");
    for wanted in ["ab", "web"] {
        let request = json!({"action": "delete-container", "id": wanted});
        let reply = cluster.ask(request).await;
        let said =
            format!("id {wanted} may mean 2 containers: ab0000000000 on h1, ab1111111111 on h2");
        assert_eq!(reply, json!({"status": "error", "message": said}));
    }
    assert_eq!(cluster.nodes.counts(), [1, 1]);
    let request = json!({"action": "delete-container", "id": "ab0"});
    assert_eq!(cluster.ask(request).await["statusCode"], 204);
    assert_eq!(cluster.nodes.counts(), [0, 1]);
}

#[tokio::test]
async fn templates_and_raw_bodies_reach_the_engine() {
    let cluster = cluster("templates", &[Well]);
    let template = json!({"Image": "a", "Cmd": ["x"], "PortSpecs": ["80"], "VolumesFrom": ""});
    let template = template.as_object().unwrap().clone();
    let templates = &cluster.kept.1;
    templates.put("test", template.clone(), 5).await.unwrap();
    let modern = json!({"Image": "a", "Cmd": ["x"], "ExposedPorts": {"80/tcp": {}}});
    for request in [
        json!({"action": "create-container", "template": "test"}),
        json!({"action": "create-container", "template": "test", "image": "other"}),
        json!({"action": "create-raw-container", "body": template}),
    ] {
        let reply = cluster.ask(request.clone()).await;
        assert_eq!(reply["statusCode"], 201, "{request}");
        assert_eq!(cluster.nodes.engine(1).bodies.last(), Some(&modern));
    }
    let image = json!({"action": "create-container", "image": "b"});
    cluster.ask(image).await;
    let body = cluster.nodes.engine(1).bodies.last().cloned();
    assert_eq!(body, Some(json!({"Image": "b"})));

    assert!(templates.remove("test", 5).await.unwrap());
    assert!(!templates.remove("test", 5).await.unwrap());
    let gone = json!({"action": "create-container", "template": "test"});
    let said = "there is no template test: `wharfie template ls` lists them";
    let error = json!({"status": "error", "message": said});
    assert_eq!(cluster.ask(gone).await, error);
}

#[tokio::test]
async fn unregistered_nodes_get_no_containers_and_keep_theirs() {
    let cluster = cluster("register", &[Well, Well]);
    cluster.nodes.add(2, &id('a'), "web");
    let ok = json!({"status": "ok"});
    let register = |action: &str, name: &str| json!({"action": action, "hostname": name});
    assert_eq!(cluster.ask(register("unregister", "h2")).await, ok);
    let list = json!({"action": "list-containers", "all": true});
    assert_eq!(instances(&cluster.ask(list.clone()).await), ["h1"]);
    let create = json!({"action": "create-container", "image": "a", "instances": 3});
    assert_eq!(instances(&cluster.ask(create).await), ["h1"; 3]);
    let start = json!({"action": "start-container", "id": "web"});
    assert_eq!(cluster.ask(start).await["dockerInstance"], "h2");
    assert_eq!(cluster.ask(register("register", "h2")).await, ok);
    assert_eq!(instances(&cluster.ask(list).await), ["h1", "h2"]);
    for action in ["register", "unregister"] {
        let reply = cluster.ask(register(action, "h9")).await;
        assert!(
            reply["message"]
                .as_str()
                .unwrap()
                .contains("there is no node h9")
        );
    }
    // Without anybody to ask there is an answer all the same.
    for name in ["h1", "h2"] {
        cluster.ask(register("unregister", name)).await;
    }
    let nobody = json!({"status": "timeout or no such id"});
    for create in [
        json!({"action": "create-container", "image": "a"}),
        json!({"action": "create-container", "image": "a", "instances": 2}),
    ] {
        assert_eq!(cluster.ask(create).await, nobody);
    }
}
