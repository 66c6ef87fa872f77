//! Leading addresses on to tasks.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use wharfie_host::net::{
    LanAddress, LanAddresses, Protocol, Published, Publisher, Publishing, Redirected, Redirecting,
    Redirector, Vip, Vips, purge,
};

use super::until;
use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{Client, ask, ask_udp, connect, ping_refusal, serve};

const V4: &str = "192.0.2.100";
const V6: &str = "2001:db8::100";

/// A host with two tasks and a container beside them, and a client outside.
pub(super) struct Setup {
    _lan: Lan,
    pub(super) host: Host,
    pub(super) tasks: [Container; 2],
    beside: Container,
    pub(super) outside: Host,
    pub(super) redirector: Redirector,
}

pub(super) fn setup() -> Setup {
    let mut lan = Lan::new();
    let (host, outside) = (lan.host(), lan.host());
    host.network(1);
    host.space.sysctl("net.ipv6.conf.all.forwarding", "1");
    let containers = [(10, "t1"), (20, "t2"), (30, "beside")].map(|(last, name)| {
        let container = host.container(1, last);
        container.space.ip("route add default via fd00:1::1:1");
        serve(&container.space, 80, name);
        container
    });
    let [t1, t2, beside] = containers;
    let addresses = [V4, V6].map(|address| LanAddress {
        address: address.parse().unwrap(),
        device: "eth0".into(),
        lasts: None,
    });
    let mut held = LanAddresses::open(&host.space.namespace()).unwrap();
    assert_eq!(held.apply(&addresses).unwrap().added.len(), 2);
    // Of IPv6 the kernel finishes them by itself.
    for address in [V4, V6] {
        until("the address is the host's", || {
            let way = host.space.ip(&format!("route get {address}"));
            way.starts_with("local ")
        });
    }
    let redirector = Redirector::open(&host.space.namespace()).unwrap();
    Setup {
        _lan: lan,
        host,
        tasks: [t1, t2],
        beside,
        outside,
        redirector,
    }
}

fn one(address: &str, tasks: &[&Container]) -> Redirected {
    let address: IpAddr = address.parse().unwrap();
    let of = |task: &&Container| match address.is_ipv6() {
        true => task.address6(),
        false => task.address(),
    };
    Redirected {
        address,
        tasks: tasks.iter().map(of).collect(),
        here: false,
    }
}

pub(super) fn to(tasks: &[&Container]) -> Redirecting {
    Redirecting {
        addresses: vec![one(V4, tasks), one(V6, tasks)],
        subnets: vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ],
        no_way_back: Vec::new(),
    }
}

pub(super) fn both() -> [IpAddr; 2] {
    [V4.parse().unwrap(), V6.parse().unwrap()]
}

fn own(host: &Host) -> [IpAddr; 2] {
    let six = format!("2001:db8::{}", host.number);
    [host.address(), six.parse().unwrap()]
}

/// Fails at once: not by waiting for somebody who never answers.
fn refused(outside: &Host, address: IpAddr) -> bool {
    let kind = connect(&outside.space, address, 80)
        .map(drop)
        .unwrap_err()
        .kind();
    kind == ErrorKind::ConnectionRefused
}

/// How many echo requests a namespace got, as the kernel counts.
fn pinged(task: &Container, ipv6: bool) -> u64 {
    task.space.inside(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        if ipv6 {
            let text = read("/proc/thread-self/net/snmp6");
            let line = text.lines().find(|l| l.starts_with("Icmp6InEchos "));
            return line
                .unwrap()
                .split_whitespace()
                .last()
                .unwrap()
                .parse()
                .unwrap();
        }
        let text = read("/proc/thread-self/net/snmp");
        let mut lines = text.lines().filter(|l| l.starts_with("Icmp:"));
        let names = lines.next().unwrap().split_whitespace();
        let place = names.clone().position(|name| name == "InEchos").unwrap();
        lines
            .next()
            .unwrap()
            .split_whitespace()
            .nth(place)
            .unwrap()
            .parse()
            .unwrap()
    })
}

#[test]
fn everything_sent_to_an_address_reaches_tasks_in_turn_and_they_see_the_client() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        tasks: [t1, t2],
        outside,
        redirector,
        ..
    } = &mut setup;
    assert!(redirector.apply(&to(&[t1, t2])).unwrap());
    assert!(!redirector.apply(&to(&[t1, t2])).unwrap());
    for (address, own) in both().into_iter().zip(own(outside)) {
        let mut said: Vec<String> = (0..4)
            .map(|_| ask(&outside.space, address, 80).unwrap())
            .collect();
        said.sort();
        let expected = ["t1", "t1", "t2", "t2"].map(|name| format!("{name} {own}"));
        assert_eq!(said, expected, "{address}");
        let said = ask_udp(&outside.space, address, 80).unwrap();
        assert!(said.ends_with(&format!(" {own}")), "{said}");
        for _ in 0..4 {
            assert!(outside.space.reaches(&address.to_string()));
        }
        assert_eq!([&*t1, &*t2].map(|t| pinged(t, address.is_ipv6())), [2, 2]);
        // Large ones come in pieces.
        let mut ping = outside.space.command("busybox");
        let ping = ping.args(["ping", "-c1", "-W1", "-s4000", &address.to_string()]);
        assert!(ping.output().unwrap().status.success());
    }
    // A port that no task has is refused by the task.
    for address in both() {
        let error = connect(&outside.space, address, 81).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn one_address_is_changed_and_open_connections_stay() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        host,
        tasks: [t1, t2],
        outside,
        redirector,
        ..
    } = &mut setup;
    redirector.apply(&to(&[t1])).unwrap();
    let other = Redirected {
        address: "192.0.2.200".parse().unwrap(),
        ..one(V4, &[t1])
    };
    assert!(redirector.set(&other).unwrap());
    let mut open = connect(&outside.space, both()[0], 80).unwrap();
    assert!(open.line().unwrap().starts_with("t1 "));
    assert!(redirector.set(&one(V4, &[t2])).unwrap());
    assert!(!redirector.set(&one(V4, &[t2])).unwrap());
    for _ in 0..3 {
        assert!(
            ask(&outside.space, both()[0], 80)
                .unwrap()
                .starts_with("t2 ")
        );
        assert!(
            ask(&outside.space, both()[1], 80)
                .unwrap()
                .starts_with("t1 ")
        );
    }
    assert_eq!(open.say("on").unwrap(), "t1 on");
    assert!(redirector.is_intact().unwrap());
    // The whole is what the parts made.
    let mut whole = to(&[t1]);
    whole.addresses[0] = one(V4, &[t2]);
    whole.addresses.push(other);
    redirector.apply(&whole).unwrap();
    assert!(!redirector.apply(&whole).unwrap());
    let mut again = Redirector::open(&host.space.namespace()).unwrap();
    assert!(!again.apply(&whole).unwrap());
    host.space.nft("flush map inet wharfie_director addresses4");
    assert!(!again.is_intact().unwrap());
    assert!(again.apply(&whole).unwrap());
    assert!(
        ask(&outside.space, both()[0], 80)
            .unwrap()
            .starts_with("t2 ")
    );
    assert!(again.remove(both()[0]).unwrap());
    assert!(!again.remove(both()[0]).unwrap());
    // It is the host's own now.
    serve(&host.space, 80, "host");
    assert!(
        ask(&outside.space, both()[0], 80)
            .unwrap()
            .starts_with("host ")
    );
}

#[test]
fn without_a_task_clients_are_refused_at_once_and_nobody_else_answers() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        host,
        tasks: [t1, t2],
        outside,
        redirector,
        ..
    } = &mut setup;
    // The host's own programs, ports that the cluster publishes, and Docker's, on all addresses.
    serve(&host.space, 80, "host");
    let port = Published {
        protocol: Protocol::Tcp,
        port: 81,
        target: 80,
        tasks: vec![t1.address(), t1.address6()],
    };
    let publishing = Publishing {
        ports: vec![port],
        subnets: to(&[]).subnets,
        no_way_back: Vec::new(),
    };
    let mut publisher = Publisher::open(&host.space.namespace()).unwrap();
    publisher.apply(&publishing).unwrap();
    for (program, task) in [("iptables", t1.address()), ("ip6tables", t1.address6())] {
        let task = if task.is_ipv6() {
            format!("[{task}]")
        } else {
            task.to_string()
        };
        for chain in ["PREROUTING", "OUTPUT"] {
            let mut rule = host.space.command(program);
            rule.args(["-t", "nat", "-A", chain, "-p", "tcp", "--dport", "82"]);
            rule.args(["-m", "addrtype", "--dst-type", "LOCAL", "-j", "DNAT"]);
            assert!(
                rule.args(["--to", &format!("{task}:80")])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
    // But for what was counted.
    let listed = |host: &Host| {
        let all = host.space.nft("list ruleset");
        let plain = |line: &str| line.split("packets").next().unwrap().to_owned();
        all.lines().map(plain).collect::<Vec<_>>()
    };
    let before = listed(host);
    for address in both() {
        for (port, by) in [(80, "host "), (81, "t1 "), (82, "t1 ")] {
            let said = ask(&outside.space, address, port).unwrap();
            assert!(said.starts_with(by), "{said}");
        }
    }
    redirector.apply(&to(&[])).unwrap();
    for address in both() {
        assert!(refused(outside, address) && refused(host, address));
        for port in [81, 82] {
            assert!(ask(&outside.space, address, port).is_err(), "{port}");
        }
        let client = Client::new(&outside.space, address.is_ipv6());
        client.connect(address, 80);
        assert_eq!(client.refusal(), Some(ErrorKind::ConnectionRefused));
        assert!(ping_refusal(&outside.space, address).is_some());
    }
    // The host's other addresses are as they were.
    for address in own(host) {
        for (port, by) in [(80, "host "), (81, "t1 "), (82, "t1 ")] {
            assert!(ask(&outside.space, address, port).unwrap().starts_with(by));
        }
    }
    // With a task in the host's own network, the host's programs answer, and only they.
    let mut here = to(&[]);
    here.addresses.iter_mut().for_each(|one| one.here = true);
    redirector.apply(&here).unwrap();
    for address in both() {
        assert!(
            ask(&outside.space, address, 80)
                .unwrap()
                .starts_with("host ")
        );
        assert!(ask(&outside.space, address, 81).is_err());
        assert!(ask(&outside.space, address, 82).is_err());
        assert!(outside.space.reaches(&address.to_string()));
    }
    // It takes turns with others.
    let mut mixed = to(&[t2]);
    mixed.addresses.iter_mut().for_each(|one| one.here = true);
    redirector.apply(&mixed).unwrap();
    for address in both() {
        let said = (0..4).map(|_| ask(&outside.space, address, 80).unwrap());
        let names: BTreeSet<String> = said
            .map(|said| said.split(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(names, BTreeSet::from(["host".to_owned(), "t2".to_owned()]));
    }
    redirector.purge().unwrap();
    assert_eq!(listed(host), before);
}

#[test]
fn the_host_containers_and_tasks_themselves_reach_the_address() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        host,
        tasks: [t1, t2],
        beside,
        redirector,
        ..
    } = &mut setup;
    // Where bridges call iptables, what a task sends to itself would go back by the port that it came
    // by, which bridges do not do: then the task's own namespace has the address as well (below).
    let calls = "net.bridge.bridge-nf-call-iptables";
    for calls in [calls, "net.bridge.bridge-nf-call-ip6tables"] {
        host.space.sysctl(calls, "0");
    }
    redirector.apply(&to(&[t1, t2])).unwrap();
    let gateways: [IpAddr; 2] = [[10, 1, 1, 1].into(), "fd00:1::1:1".parse().unwrap()];
    for (address, gateway) in both().into_iter().zip(gateways) {
        for space in [&host.space, &beside.space, &t1.space, &t2.space] {
            let said = [(); 2].map(|()| ask(space, address, 80).unwrap());
            assert_ne!(said[0], said[1], "both tasks in turn");
            for said in said {
                assert!(said.ends_with(&format!(" {gateway}")), "{said}");
            }
            assert!(ask_udp(space, address, 80).is_ok());
            assert!(space.reaches(&address.to_string()));
        }
    }
    for calls in [calls, "net.bridge.bridge-nf-call-ip6tables"] {
        host.space.sysctl(calls, "1");
    }
    let vip = |address| Vip {
        address,
        ports: Vec::new(),
        backends: one(&address.to_string(), &[t1, t2]).tasks,
        affinity: false,
    };
    let mut vips = Vips::open(&t1.space.namespace()).unwrap();
    vips.apply(&both().map(vip)).unwrap();
    for address in both() {
        for space in [&t1.space, &t2.space, &beside.space, &host.space] {
            let near = space.path() == t2.space.path();
            let said = [(); 2].map(|()| ask(space, address, 80));
            assert!(near || said.iter().all(|said| said.is_ok()), "{said:?}");
        }
        assert!(t1.space.reaches(&address.to_string()));
    }
}

#[test]
fn a_task_from_which_no_way_leads_back_sees_the_host() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        tasks: [t1, _],
        outside,
        redirector,
        ..
    } = &mut setup;
    let mut wanted = to(&[t1]);
    redirector.apply(&wanted).unwrap();
    t1.space.ip("route del default");
    t1.space.ip("-6 route del default");
    assert!(ask_udp(&outside.space, both()[0], 80).is_err());
    wanted.no_way_back = vec![t1.address(), t1.address6()];
    assert!(redirector.apply(&wanted).unwrap());
    assert_eq!(ask(&outside.space, both()[0], 80).unwrap(), "t1 10.1.1.1");
    assert_eq!(
        ask(&outside.space, both()[1], 80).unwrap(),
        "t1 fd00:1::1:1"
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_a_purge_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let Setup {
        host,
        tasks: [t1, _],
        redirector,
        ..
    } = &mut setup;
    host.space
        .nft("table inet other { comment \"not ours\"; chain c { counter; }; }");
    LanAddresses::open(&host.space.namespace())
        .unwrap()
        .remove_all()
        .unwrap();
    let state = |host: &Host| host.space.nft("list ruleset") + &host.space.ip("addr show");
    let before = state(host);
    let mut wrong = to(&[t1]);
    wrong.addresses[0].tasks = vec![t1.address6()];
    assert!(redirector.apply(&wrong).is_err() && redirector.set(&wrong.addresses[0]).is_err());
    let twice = Redirecting {
        addresses: vec![one(V4, &[t1]), one(V4, &[])],
        ..Redirecting::default()
    };
    assert!(redirector.apply(&twice).is_err());
    assert_eq!(state(host), before);
    redirector.apply(&to(&[t1])).unwrap();
    let address = LanAddress {
        address: both()[0],
        device: "eth0".into(),
        lasts: None,
    };
    let mut addresses = LanAddresses::open(&host.space.namespace()).unwrap();
    addresses.add(&address).unwrap();
    let purged = purge(&host.space.namespace()).unwrap();
    assert_eq!(purged.tables, ["inet wharfie_director"]);
    assert_eq!(purged.addresses, [both()[0]]);
    assert_eq!(state(host), before);
}

/// People, and programs such as firewalld, list all rules that there are.
#[test]
fn nft_can_show_it() {
    if !possible() {
        return;
    }
    let Setup {
        host,
        tasks,
        mut redirector,
        ..
    } = setup();
    let one = Redirected {
        address: V4.parse().unwrap(),
        tasks: tasks.iter().map(Container::address).collect(),
        here: false,
    };
    let none = Redirected {
        address: V6.parse().unwrap(),
        tasks: Vec::new(),
        here: false,
    };
    let all = Redirecting {
        addresses: vec![one, none],
        ..Redirecting::default()
    };
    redirector.apply(&all).unwrap();
    let listed = host.space.nft("list ruleset");
    assert!(listed.contains("table inet wharfie_director"), "{listed}");
}
