//! Docker's filter, as it is between our rules and its containers.

use wharfie_host::net::{Gate, purge};

use super::redirect::{both, setup, to};
use crate::lab::{Host, possible};
use crate::talk::{ask, opens};

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

fn run(host: &Host, program: &str, arguments: &str) -> String {
    let mut command = host.space.command(program);
    let output = command.args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// All rules, but for what was counted.
fn rules(host: &Host) -> Vec<String> {
    let all = PROGRAMS.map(|program| run(host, program, "-S"));
    all.concat().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_led_on_passes_dockers_filter_and_nothing_else_does() {
    if !possible() {
        return;
    }
    let mut setup = setup();
    let [t1, t2] = &setup.tasks;
    let (host, outside) = (&setup.host, &setup.outside);
    setup.redirector.apply(&to(&[t1])).unwrap();
    for program in PROGRAMS {
        for rule in [
            "-N DOCKER-USER",
            "-P FORWARD DROP",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -o br1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -i br1 ! -o br1 -j ACCEPT",
            "-A DOCKER-USER -i nowhere -j DROP",
            "-A DOCKER-USER -j RETURN",
        ] {
            run(host, program, rule);
        }
    }
    outside.space.ip("route add 10.1.0.0/16 via 192.0.2.1");
    outside.space.ip("route add fd00:1::/64 via 2001:db8::1");
    let before = rules(host);
    let closed = || {
        let mut all = both().into_iter().chain([t2.address(), t2.address6()]);
        all.all(|address| !opens(&outside.space, address, 80))
    };
    assert!(closed());
    let namespace = host.space.namespace();
    let mut gate = Gate::for_redirected(&namespace).unwrap();
    // That of published ports is for our own bridges: it leaves this one as it is, and is left.
    let mut published = Gate::open(&namespace).unwrap();
    assert!(published.set_open(true).unwrap());
    assert!(closed());
    for _ in 0..2 {
        assert!(gate.set_open(true).unwrap());
    }
    for address in both() {
        assert!(ask(&outside.space, address, 80).unwrap().starts_with("t1 "));
    }
    // By its own address a container is as closed as ever.
    for address in [t2.address(), t2.address6(), t1.address(), t1.address6()] {
        assert!(!opens(&outside.space, address, 80));
    }
    let listed = || {
        let all = run(host, "iptables", "-S DOCKER-USER");
        let plain = |line: &str| {
            let [start, comment] = [" -m comment --comment ", " -j "].map(|part| line.find(part));
            match (start, comment) {
                (Some(start), Some(end)) => line[..start].to_owned() + &line[end..],
                _ => line.to_owned(),
            }
        };
        all.lines().skip(1).map(plain).collect::<Vec<_>>()
    };
    let ours = [
        "-A DOCKER-USER -i nowhere -j DROP",
        "-A DOCKER-USER -o wbr+ -m conntrack --ctstate DNAT -j ACCEPT",
        "-A DOCKER-USER -m connmark --mark 0x57440000/0xffff0000 -j ACCEPT",
        "-A DOCKER-USER -j RETURN",
    ];
    assert_eq!(listed(), ours);
    // Behind what returns they would do nothing.
    run(host, "iptables", "-D DOCKER-USER -j RETURN");
    run(host, "iptables", "-I DOCKER-USER 2 -j RETURN");
    assert!(published.set_open(true).unwrap() && gate.set_open(true).unwrap());
    assert_eq!(listed(), ours);

    assert!(published.set_open(false).unwrap());
    assert!(ask(&outside.space, both()[0], 80).is_ok());
    assert!(published.set_open(true).unwrap());
    gate.set_open(false).unwrap();
    assert!(closed());
    gate.set_open(true).unwrap();
    purge(&namespace).unwrap();
    assert_eq!(rules(host), before);
}
