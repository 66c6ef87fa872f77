//! Images from node to node, on real Engines. Needs root: without, each test says so and passes,
//! unless `CI` is set, where that is a failure.
#![allow(clippy::unwrap_used)] // tests: what is not there is a failure

mod nodes;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nodes::{Fault, Node, fetcher, id_on, image, lab, packed, staged, staging};
use wharfie_host::layers::{Phase, Source, Status};
use wharfie_lab::EngineKind::{self, Debian, Sid28};
use wharfie_lab::Lab;

const MB: usize = 1 << 20;
/// What is said beside the layers' bytes: configuration, names, heads of archives.
const WORDS: u64 = 64 << 10;

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

fn sources(nodes: &[&Arc<Node>]) -> Vec<Arc<dyn Source>> {
    let source = |node: &&Arc<Node>| Arc::clone(node) as Arc<dyn Source>;
    nodes.iter().map(source).collect()
}

/// An image moves, runs where it came to, and only what was missing was sent.
async fn moves(lab: &Lab, kinds: &str) {
    let (from, to) = (lab.host(1), lab.host(2));
    let image = image("move:1", 1, &[2 * MB, MB, 0]);
    image.load(from);
    let (node, fetcher) = (Node::of(from).await, fetcher(to).await);
    let mut seen = Vec::new();
    let mut progress = |status: &Status| seen.push(status.clone());
    let fetched = fetcher
        .fetch("move:1", sources(&[&node]), &mut progress)
        .await;
    let fetched = fetched.unwrap();
    assert_eq!(id_on(to, "move:1").as_ref(), Some(&fetched.id), "{kinds}");
    assert_eq!(fetched.id, image.id, "{kinds}");
    // The base was there.
    assert_eq!(fetched.kept, 1, "{kinds}");
    let all = bytes(3 * MB);
    assert!(
        (all..all + WORDS).contains(&node.sent()),
        "{kinds}: {}",
        node.sent()
    );
    let last = seen.last().unwrap();
    assert_eq!((last.phase, last.done()), (Phase::Done, last.total()));
    assert!(
        last.layers
            .iter()
            .all(|l| l.whole && l.from.as_deref() == Some("h1"))
    );
    let ran = to.engine().run("move:1", &["wc", "-c", "/data0"]).unwrap();
    assert_eq!(
        (ran.status, ran.output.trim()),
        (0, "2097152 /data0"),
        "{kinds}"
    );
    assert!(!staging(to).join(&image.id[7..]).exists(), "{kinds}");

    // What is here already is only named.
    let before = node.sent();
    let engine = from.engine();
    engine.tag_image("move:1", "moved", "again").unwrap();
    let fetched = fetcher
        .fetch("moved:again", sources(&[&node]), &mut |_| {})
        .await;
    assert_eq!(fetched.unwrap().kept, 4);
    assert!(node.sent() - before < WORDS);
    assert_eq!(id_on(to, "moved:again"), Some(image.id), "{kinds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_moves_between_engines_of_all_kinds() {
    for (from, to) in [
        (Debian, Debian),
        (Sid28, Sid28),
        (Debian, Sid28),
        (Sid28, Debian),
    ] {
        if nodes::lab(1, Debian, &[]).is_none() {
            return;
        }
        let builder = Lab::builder().hosts(2).engine(from).engine_of(2, to);
        moves(&builder.start().unwrap(), &format!("{from} to {to}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_a_node_that_died_is_not_sent_again() {
    for kind in [Debian, Sid28] {
        resumes(kind).await;
    }
}

async fn resumes(kind: EngineKind) {
    let Some(lab) = lab(2, kind, &[]) else { return };
    let (from, to) = (lab.host(1), lab.host(2));
    let image = image("resume:1", 2, &[6 * MB]);
    image.load(from);
    let dying = Node::of(from).await.with(&[Fault::Die(bytes(4 * MB))]);
    let first = fetcher(to).await;
    let error = first
        .fetch("resume:1", sources(&[&dying]), &mut |_| {})
        .await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("resume:1") && error.contains("h1: "),
        "{error}"
    );
    assert!(error.contains("goes on from there"), "{error}");
    assert!(staged(to) > bytes(3 * MB), "{}", staged(to));
    // Another process goes on.
    let back = Node::of(from).await;
    let second = fetcher(to).await;
    let fetched = second
        .fetch("resume:1", sources(&[&back]), &mut |_| {})
        .await;
    assert_eq!(fetched.unwrap().id, image.id);
    assert!(back.sent() < bytes(3 * MB), "{}", back.sent());
    assert_eq!(staged(to), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_or_the_same_again_takes_over() {
    let Some(lab) = lab(3, Debian, &[]) else {
        return;
    };
    let image = image("over:1", 3, &[6 * MB, 6 * MB]);
    let (a, b, to) = (lab.host(1), lab.host(2), lab.host(3));
    image.load(a);
    image.load(b);
    let (dying, other) = (Node::of(a).await, Node::of(b).await);
    let dying = dying.with(&[Fault::Die(bytes(2 * MB))]);
    let fetcher = fetcher(to).await;
    let mut notes = Vec::new();
    let mut progress = |status: &Status| notes.clone_from(&status.notes);
    let fetched = fetcher
        .fetch("over:1", sources(&[&dying, &other]), &mut progress)
        .await;
    assert_eq!(fetched.unwrap().id, image.id);
    let all = dying.sent() + other.sent();
    assert!(all < bytes(13 * MB), "something was sent twice: {all}");
    assert!(notes.iter().any(|n| n.starts_with("h1: ")), "{notes:?}");

    to.engine().api("DELETE", "/images/over:1", None).unwrap();
    let twice = Node::of(a)
        .await
        .with(&[Fault::Cut(bytes(2 * MB)), Fault::Cut(bytes(MB))]);
    let fetched = fetcher
        .fetch("over:1", sources(&[&twice]), &mut |_| {})
        .await;
    assert_eq!(fetched.unwrap().id, image.id);
    assert_eq!(twice.opened.load(Ordering::Relaxed), 4);
    assert!(twice.sent() < bytes(13 * MB), "{}", twice.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_give_at_once_and_spoiled_bytes_are_noticed() {
    let Some(lab) = lab(3, Sid28, &[]) else {
        return;
    };
    let image = image("many:1", 4, &[4 * MB, 4 * MB, 4 * MB, 4 * MB]);
    let (a, b, to) = (lab.host(1), lab.host(2), lab.host(3));
    image.load(a);
    image.load(b);
    let (one, two) = (Node::of(a).await, Node::of(b).await);
    let fetcher = fetcher(to).await;
    let fetched = fetcher
        .fetch("many:1", sources(&[&one, &two]), &mut |_| {})
        .await;
    let fetched = fetched.unwrap();
    let half = bytes(8 * MB)..bytes(8 * MB) + 2 * WORDS;
    for (node, name) in [(&one, "h1"), (&two, "h2")] {
        assert!(half.contains(&node.sent()), "{}", node.sent());
        assert!(half.contains(&fetched.from[name]), "{fetched:?}");
    }

    to.engine().api("DELETE", "/images/many:1", None).unwrap();
    let (bad, good) = (Node::of(a).await, Node::of(b).await);
    let bad = bad.with(&[Fault::Spoil(bytes(MB))]);
    let mut notes = Vec::new();
    let mut progress = |status: &Status| notes.clone_from(&status.notes);
    let fetched = fetcher
        .fetch("many:1", sources(&[&bad, &good]), &mut progress)
        .await;
    assert_eq!(fetched.unwrap().id, image.id);
    let told = |note: &String| note.starts_with("h1: ") && note.contains("digest");
    assert!(notes.iter().any(told), "{notes:?}");
    // It was asked what is in the image, and once for layers.
    assert_eq!(bad.opened.load(Ordering::Relaxed), 2);

    to.engine().api("DELETE", "/images/many:1", None).unwrap();
    let bad = Node::of(a).await.with(&[Fault::Spoil(bytes(MB))]);
    let error = fetcher.fetch("many:1", sources(&[&bad]), &mut |_| {}).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("h1: ") && error.contains("digest"),
        "{error}"
    );
    assert_eq!(id_on(to, "many:1"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_at_once() {
    let Some(lab) = lab(2, Debian, &[]) else {
        return;
    };
    let lab = Arc::new(lab);
    let (from, to) = (lab.host(1), lab.host(2));
    let fetcher = fetcher(to).await;
    let node = Node::of(from).await;
    let error = fetcher
        .fetch("none:1", sources(&[&node]), &mut |_| {})
        .await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "cannot fetch none:1: h1 has no such image");
    let error = fetcher.fetch("none:1", Vec::new(), &mut |_| {}).await;
    assert!(error.unwrap_err().to_string().contains("no other node"));

    // It is removed while it is being taken.
    let image = image("gone:1", 5, &[6 * MB]);
    image.load(from);
    let node = Node::of(from).await;
    let there = Arc::clone(&lab);
    let remove = move || {
        let engine = there.host(1).engine();
        engine.api("DELETE", "/images/gone:1", None).unwrap();
    };
    *node.between.lock().unwrap() = Some(Box::new(remove));
    let error = fetcher
        .fetch("gone:1", sources(&[&node]), &mut |_| {})
        .await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("h1 has no such image"), "{error}");

    // There is no room for it.
    image.load(from);
    let small = staging(to);
    std::fs::create_dir_all(&small).unwrap();
    let size = c"size=2m";
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &small, "tmpfs", none, size).unwrap();
    let error = fetcher
        .fetch("gone:1", sources(&[&Node::of(from).await]), &mut |_| {})
        .await;
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("room") && error.contains("staging"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_same_waits_for_the_same() {
    let Some(lab) = lab(2, Debian, &[]) else {
        return;
    };
    let (from, to) = (lab.host(1), lab.host(2));
    let image = image("once:1", 6, &[4 * MB]);
    image.load(from);
    from.engine().tag_image("once:1", "once", "2").unwrap();
    let (node, fetcher) = (Node::of(from).await, fetcher(to).await);
    let mut ignore = [|_: &Status| {}, |_: &Status| {}, |_: &Status| {}];
    let [x, y, z] = &mut ignore;
    let (first, second, third) = tokio::join!(
        fetcher.fetch("once:1", sources(&[&node]), x),
        fetcher.fetch("once:1", sources(&[&node]), y),
        fetcher.fetch("once:2", sources(&[&node]), z),
    );
    for fetched in [first, second, third] {
        assert_eq!(fetched.unwrap().id, image.id);
    }
    assert!(node.sent() < bytes(4 * MB) + WORDS, "{}", node.sent());
    assert_eq!(id_on(to, "once:2"), Some(image.id));
}

/// Engines that keep images in containerd: other ids, compressed layers, all layers or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn images_kept_in_containerd_move_as_well() {
    let feature = ["--feature", "containerd-snapshotter=true"];
    let Some(newer) = lab(2, Sid28, &feature) else {
        return;
    };
    let Some(older) = lab(1, Debian, &[]) else {
        return;
    };
    let gzip = |layer: Vec<u8>| {
        use std::io::Write;
        let mut gzip = std::process::Command::new("gzip")
            .args(["-c", "-n"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = gzip.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&layer));
        let packed = gzip.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        packed
    };
    let image = packed("cd:1", 7, &[2 * MB, MB], gzip);
    image.load(newer.host(1));
    let node = Node::of(newer.host(1)).await;
    for (host, classic) in [(newer.host(2), false), (older.host(1), true)] {
        let fetcher = fetcher(host).await;
        let fetched = fetcher.fetch("cd:1", sources(&[&node]), &mut |_| {}).await;
        let fetched = fetched.unwrap();
        assert_eq!(id_on(host, "cd:1"), Some(fetched.id.clone()));
        assert_eq!(fetched.id == image.id, classic);
        assert_eq!(fetched.kept, usize::from(classic));
        let ran = host.engine().run("cd:1", &["wc", "-c", "/data0"]).unwrap();
        assert_eq!((ran.status, ran.output.trim()), (0, "2097152 /data0"));
    }
    // And back, from one that knows no compression.
    newer
        .host(2)
        .engine()
        .api("DELETE", "/images/cd:1", None)
        .unwrap();
    let node = Node::of(older.host(1)).await;
    let fetcher = fetcher(newer.host(2)).await;
    fetcher
        .fetch("cd:1", sources(&[&node]), &mut |_| {})
        .await
        .unwrap();
    let ran = newer.host(2).engine().run("cd:1", &["true"]).unwrap();
    assert_eq!(ran.status, 0);
}
