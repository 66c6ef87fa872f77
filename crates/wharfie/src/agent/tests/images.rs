//! Images between agents, with Engines of a lab. Needs root: without it says so and passes, unless
//! `CI` is set.

use std::collections::BTreeMap;

use wharfie_lab::{Lab, prerequisites};

use super::{Cluster, until};
use crate::api::{FetchImage, Fetching, ImagesRemoved, PruneImages, RemoveImage};
use crate::control::Client;
use crate::failure::Failure;

/// What a fetch says last, and what it said before.
async fn fetch(
    agent: &Client,
    path: &str,
    image: &str,
    from: &[&str],
) -> Result<(BTreeMap<String, u64>, Vec<String>), Failure> {
    let wanted = FetchImage {
        image: image.to_owned(),
        from: from.iter().map(|n| (*n).to_owned()).collect(),
    };
    let mut said = Vec::new();
    let last = agent.lines(path, &wanted, |line| match line {
        Fetching::At { text, .. } | Fetching::Note { text } => {
            said.push(text);
            None
        }
        Fetching::Done { from, .. } => Some(Ok(from)),
        Fetching::Failed { fault } => Some(Err(Failure::from(fault))),
    });
    let from = last.await.and_then(|last| last)?;
    Ok((from, said))
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_from_node_to_node() {
    if let Some(reason) = prerequisites::unavailable() {
        let ci = std::env::var_os("CI").is_some();
        assert!(!ci, "cannot be tested: {reason}");
        eprintln!("skipped: {reason}");
        return;
    }
    let lab = Lab::builder().hosts(3).start().unwrap();
    let address = |number| Some(lab.host(number).docker_host());
    let cluster = Cluster::with(&[
        ("alpha", address(1)),
        ("beta", address(2)),
        ("gamma", address(3)),
    ])
    .await;
    let mut files = wharfie_lab::base().unwrap();
    files.file("etc/app", 0o644, &[7; 100_000]);
    let archive = files.finish();
    lab.host(1)
        .engine()
        .import_image(&archive, "shop/web", "1")
        .unwrap();
    let has = |number: usize| {
        let found = lab
            .host(number)
            .engine()
            .api("GET", "/images/shop/web:1/json", None);
        found.ok().map(|image| image["Id"].to_string())
    };

    // Asked here for another node, which takes it from whoever has it.
    let agent = Client::new(cluster.members[0].socket.clone());
    let (from, said) = fetch(&agent, "/v1/images/fetch?on=gamma", "shop/web:1", &[])
        .await
        .unwrap();
    assert_eq!(from.keys().collect::<Vec<_>>(), ["alpha"]);
    assert!(
        said.iter().any(|line| line.contains("from alpha")),
        "{said:?}"
    );
    assert!(has(3).is_some());
    assert_eq!(has(1), has(3));

    // The first one is away: the other that has it gives it.
    cluster.net.set("alpha", crate::api::NodeState::Down);
    let beta = Client::new(cluster.members[1].socket.clone());
    let (from, _) = fetch(&beta, "/v1/images/fetch", "shop/web:1", &[])
        .await
        .unwrap();
    assert_eq!(from.keys().collect::<Vec<_>>(), ["gamma"]);
    let error = fetch(&beta, "/v1/images/fetch", "shop/web:2", &["alpha"]).await;
    let error = error.unwrap_err().text();
    assert!(
        error.contains("shop/web:2") && error.contains("alpha"),
        "{error}"
    );
    cluster.net.set("alpha", crate::api::NodeState::Up);
    let error = fetch(&beta, "/v1/images/fetch?on=delta", "shop/web:1", &[]).await;
    assert!(error.unwrap_err().text().contains("no such node: delta"));

    // All know of it.
    let fleet = &cluster.members[0].agent.keeper.fleet;
    until(|| {
        let nodes = fleet.nodes();
        let reports = nodes.iter().filter_map(|n| n.report.as_ref());
        reports.filter(|r| r.image("shop/web:1").is_some()).count() == 3
    })
    .await;

    let removal = RemoveImage {
        image: "shop/web:1".to_owned(),
        force: false,
    };
    let removed: ImagesRemoved = agent
        .tell("/v1/images/remove?on=beta", &removal)
        .await
        .unwrap();
    assert_eq!(removed.untagged, ["shop/web:1"]);
    assert!(has(2).is_none() && has(1).is_some());
    let again: Result<ImagesRemoved, _> = agent.tell("/v1/images/remove?on=beta", &removal).await;
    assert!(again.unwrap_err().text().contains("shop/web:1"));
    let pruning = PruneImages { named: true };
    let pruned: ImagesRemoved = agent
        .tell("/v1/images/prune?on=gamma", &pruning)
        .await
        .unwrap();
    assert!(
        pruned.untagged.contains(&"shop/web:1".to_owned()),
        "{pruned:?}"
    );
    assert!(has(3).is_none() && has(1).is_some());
}
