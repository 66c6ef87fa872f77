//! Nothing stays behind.

use wharfie_host::net::{
    Action, ContainerFirewall, Firewall, Gateway, Hold, IsolatedNetwork, Isolation, Isolator, Mac,
    Overlay, Overlays, Protocol, Published, Publisher, Replies, Vip, Vips, purge,
};

use crate::lab::{Lan, Space, possible};

fn state(space: &Space) -> String {
    let parts = [
        space.nft("list ruleset"),
        space.ip("-br link"),
        space.ip("neigh show nud permanent"),
        space.ip("rule"),
        space.ip("-6 rule"),
        space.ip("route show table all"),
    ];
    // Devices get link-local addresses, and become up, at their own pace.
    let all = parts.map(|part| {
        let lines = part.lines();
        let lines = lines.filter(|line| !line.contains("fe80") && !line.contains("ff00"));
        let plain = |line: &str| line.replace(" UNKNOWN ", " UP      ") + "\n";
        lines.map(plain).collect::<String>()
    });
    all.concat()
}

#[test]
fn what_was_made_is_removed_and_nothing_else() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2) = (lan.host(), lan.host());
    for host in [&h1, &h2] {
        host.network(1);
    }
    let (a, b) = (h1.container(1, 10), h2.container(1, 10));
    for space in [&h1.space, &a.space] {
        space.nft(
            "table inet other { comment \"not ours\"; chain c { counter comment \"wharfie\"; }; }",
        );
        space.nft("add table ip wharfie_vip");
    }
    h1.space
        .ip("link add vother type vxlan id 9 local 192.0.2.1 dstport 4789");
    h1.space
        .ip("neigh replace 192.0.2.77 dev eth0 lladdr 02:00:00:00:00:01 nud permanent");
    let before = [&h1.space, &a.space].map(state);

    let host = h1.space.namespace();
    let overlay = Overlay {
        network: "demo_net".into(),
        vni: 5,
        bridge: "br1".into(),
        mtu: 1450,
        port: 4789,
        local: h1.address(),
        endpoints: vec![b.endpoint()],
    };
    Overlays::open(&host).unwrap().apply(&[overlay]).unwrap();
    Hold::open(&host).unwrap().hold(&[a.address()]).unwrap();
    let networks = vec![IsolatedNetwork {
        internal: false,
        bridge: "br1".into(),
        gateways: vec![[10, 1, 1, 1].into()],
    }];
    let isolation = Isolation {
        closed: Vec::new(),
        networks,
        ..Isolation::default()
    };
    Isolator::open(&host).unwrap().apply(&isolation).unwrap();
    let port = Published {
        protocol: Protocol::Tcp,
        port: 8080,
        target: 80,
        tasks: vec![a.address()],
    };
    Publisher::open(&host).unwrap().set(&port).unwrap();
    let inside = a.space.namespace();
    let gateway = Gateway {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        addresses: vec![[10, 1, 2, 1].into(), "fd00:1::2:1".parse().unwrap()],
    };
    Replies::open(&inside).unwrap().apply(&[gateway]).unwrap();
    let vip = Vip {
        address: [10, 1, 9, 9].into(),
        ports: Vec::new(),
        backends: vec![b.address()],
        affinity: false,
    };
    Vips::open(&inside).unwrap().apply(&[vip]).unwrap();
    let firewall = Firewall {
        name: "a".into(),
        ingress: Vec::new(),
        egress: Vec::new(),
        default_ingress: Action::Drop,
        default_egress: Action::Drop,
        log: true,
    };
    ContainerFirewall::open(&inside)
        .unwrap()
        .apply(&firewall)
        .unwrap();

    // Whoever lists all rules sees them.
    for space in [&h1.space, &a.space] {
        assert!(space.nft("list ruleset").contains("wharfie_"));
    }
    let purged = purge(&host).unwrap();
    assert_eq!(purged.devices, ["wvx5"]);
    assert_eq!(purged.tables.len(), 4, "{purged:?}");
    let purged = purge(&inside).unwrap();
    assert_eq!((purged.tables.len(), purged.routes), (3, 4), "{purged:?}");
    assert_eq!([&h1.space, &a.space].map(state), before);
    assert_eq!(purge(&host).unwrap(), wharfie_host::net::Purged::default());
}
