//! Devices that are known from what the kernel tells.

use wharfie_host::net::Watch;

use crate::lab::{Space, possible};

#[test]
fn what_is_told_comes_to_what_is_listed() {
    if !possible() {
        return;
    }
    let space = Space::new();
    let mut watch = Watch::open(&space.namespace()).unwrap();
    let mut same = |after: &str| {
        let listed = Watch::open(&space.namespace()).unwrap().bridges().unwrap();
        assert_eq!(watch.bridges().unwrap(), listed, "{after}");
        listed
    };
    assert!(same("nothing").is_empty());
    for change in [
        "link add one type bridge",
        "link add two type bridge",
        "link set one address 02:00:00:00:00:07",
        // A port that leaves its bridge is told of as if it were removed.
        "link add in type veth peer name out",
        "link set in master one up",
        "link set in nomaster",
        "link set two name three",
        "link del out",
        "link del one",
        "link add one type bridge",
    ] {
        space.ip(change);
        same(change);
    }
    assert_eq!(same("all").keys().collect::<Vec<_>>(), ["one", "three"]);
    // More than there is room for: what was lost is listed.
    let commands = (0..400).map(|n| format!("link add b{n} type bridge\nlink set b{n} up\n"));
    let file = std::env::temp_dir().join(format!("wharfie-watch-{}", std::process::id()));
    std::fs::write(&file, commands.collect::<String>()).unwrap();
    let mut ip = space.command("ip");
    assert!(ip.arg("-batch").arg(&file).status().unwrap().success());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(same("many").len(), 402);
}
