//! Holding containers back until they have their rules.

use wharfie_host::net::{Hold, Overlay, Overlays};

use crate::lab::{Lan, possible};
use crate::talk::{opens, serve};

#[test]
fn nothing_goes_to_or_from_a_held_container() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2) = (lan.host(), lan.host());
    let mut hold = Hold::open(&h1.space.namespace()).unwrap();
    for host in [&h1, &h2] {
        host.network(1);
    }
    h1.network(2);
    let (held, near, routed, far) = (
        h1.container(1, 10),
        h1.container(1, 20),
        h1.container(2, 30),
        h2.container(1, 40),
    );
    for host in [&h1, &h2] {
        let overlay = Overlay {
            network: "demo_net".into(),
            vni: 77,
            bridge: "br1".into(),
            mtu: 1450,
            port: 4789,
            local: host.address(),
            endpoints: vec![held.endpoint(), near.endpoint(), far.endpoint()],
        };
        Overlays::open(&host.space.namespace())
            .unwrap()
            .apply(&[overlay])
            .unwrap();
    }
    for container in [&held, &near, &routed, &far] {
        serve(&container.space, 80, "any");
    }
    let own = [held.address(), held.address6()];
    let others = [&near, &far];
    // By its address on the way in, and its address on the way out.
    let all_open = || {
        others.iter().all(|other| {
            opens(&other.space, held.address(), 80)
                && opens(&other.space, held.address6(), 80)
                && opens(&held.space, other.address(), 80)
                && opens(&held.space, other.address6(), 80)
        }) && opens(&routed.space, held.address(), 80)
            && opens(&held.space, routed.address(), 80)
            && opens(&h1.space, held.address(), 80)
            && held.space.reaches("10.1.1.1")
    };
    let any_open = || {
        others.iter().any(|other| {
            opens(&other.space, held.address(), 80)
                || opens(&other.space, held.address6(), 80)
                || opens(&held.space, other.address(), 80)
                || opens(&held.space, other.address6(), 80)
        }) || opens(&routed.space, held.address(), 80)
            || opens(&held.space, routed.address(), 80)
            || opens(&h1.space, held.address(), 80)
            || held.space.reaches("10.1.1.1")
    };
    assert!(all_open());
    assert!(hold.hold(&own).unwrap());
    assert!(!hold.hold(&own).unwrap());
    assert!(!any_open());
    assert!(
        opens(&near.space, far.address(), 80),
        "others are not concerned"
    );
    // An agent that starts anew finds them held, and decides.
    let mut again = Hold::open(&h1.space.namespace()).unwrap();
    assert!(!again.apply(&own).unwrap());
    assert!(!any_open());
    assert!(again.is_intact().unwrap());
    again.lift(&own).unwrap();
    assert!(all_open());
    again.hold(&own[..1]).unwrap();
    assert!(!opens(&near.space, held.address(), 80) && opens(&near.space, held.address6(), 80));
    h1.space.nft("flush set bridge wharfie_hold held4");
    assert!(again.apply(&own).unwrap());
    assert!(!any_open());
    again.purge().unwrap();
    assert!(all_open());
}

/// The kernel is told how much room a set needs: when that is used up it is made anew.
#[test]
fn more_are_held_than_there_was_room_for() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let host = lan.host();
    let mut hold = Hold::open(&host.space.namespace()).unwrap();
    let address = |last: u8| std::net::IpAddr::from([10, 9, 0, last]);
    for last in 0..200 {
        assert!(hold.hold(&[address(last)]).unwrap());
    }
    assert!(hold.is_intact().unwrap());
    let listed = host.space.nft("list set bridge wharfie_hold held4");
    assert_eq!(listed.matches("10.9.0.").count(), 200, "{listed}");
    let few: Vec<_> = (0..3).map(address).collect();
    assert!(hold.apply(&few).unwrap());
    assert!(
        !Hold::open(&host.space.namespace())
            .unwrap()
            .apply(&few)
            .unwrap()
    );
}
