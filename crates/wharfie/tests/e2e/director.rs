//! Services have addresses of the network around, and names in a zone.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wharfie_lab::Lab;

use crate::asker::{Echo, serves, who};
use crate::cluster::{Cluster, Node};
use crate::cluster_dns::{It, is_installed};
use crate::director_v6::udp;
use crate::stack::soon;

/// Two servers with the same ports, none of which is mapped.
pub(crate) const TOOLS: &str = concat!(
    serves!("httpd -h /w -p 8080\n      exec httpd -f -h /w -p 50000"),
    "services:
  jenkins:
    <<: *serve
    hostname: jenkins
  artifactory:
    <<: *serve
    hostname: artifactory
    deploy: {replicas: 1, placement: {constraints: [node.hostname != h1]}}
"
);

/// It publishes the port that the index page has.
const WWW: &str = concat!(
    serves!("exec httpd -f -h /w -p 80"),
    "services:
  www:
    <<: *serve
    hostname: www
    ports: ['80:80']
"
);

/// The addresses of a lab's network that nobody has.
pub(crate) fn range(of: &Node) -> String {
    let [a, b, c, _] = of.host.address().octets();
    format!("{a}.{b}.{c}.150-{a}.{b}.{c}.169")
}

/// Who has which address, by owner: addresses, node and state.
fn table(node: &Node) -> Result<Vec<Value>> {
    let said = node.run("director status --format json");
    let lines = said.stdout.lines();
    lines
        .map(|l| serde_json::from_str(l).context("no JSON"))
        .collect()
}

pub(crate) fn line(node: &Node, owner: &str) -> Result<Value> {
    let mut all = table(node)?.into_iter();
    all.find(|l| l["Owner"] == owner)
        .with_context(|| format!("{owner} has no address"))
}

pub(crate) fn address(node: &Node, owner: &str) -> Result<Ipv4Addr> {
    let line = line(node, owner)?;
    let text = line["Addresses"][0]
        .as_str()
        .context("no address")?
        .to_owned();
    Ok(text.parse()?)
}

/// Runs Docker's own program.
#[track_caller]
pub(crate) fn docker(node: &Node, arguments: &str) {
    let engine = format!("unix://{}", node.host.engine().socket().display());
    node.program("docker", format!("-H {engine} {arguments}").as_str())
        .has_code(0);
}

#[test]
fn services_have_addresses_that_follow_them() {
    let builder = Lab::builder().hosts(3).client("user");
    let Some(cluster) = Cluster::with(builder, "toolbox", TOOLS) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let user = cluster.lab().client("user").unwrap();
    h1.fails(1, "director status")
        .says(["there is no director"]);
    h1.fails(2, "director init --range 192.0.2.1-9")
        .says(["no device of this host is on the network"]);
    h1.fails(2, "director init --device eth7 --range 192.0.2.1-9")
        .says(["this host has no eth7"]);
    h2.ok(format!(
        "director init --zone toolbox.example.com --range {}",
        range(h1)
    )
    .as_str())
        .says(["zone toolbox.example.com"]);
    h1.ok("up -d");
    let names = ["jenkins", "artifactory"];
    let owners = names.map(|n| format!("toolbox/{n}"));
    let at = [0, 1].map(|i| soon(|| address(h3, &owners[i])));
    assert_ne!(at[0], at[1]);
    // Both have the same ports; the client's own address arrives.
    for (name, at) in names.iter().zip(&at) {
        for port in [8080, 50_000] {
            let said = soon(|| who(&user, *at, port));
            assert_eq!(said, ((*name).to_owned(), user.address().to_string()));
        }
        user.run("busybox", ["ping", "-c1", "-W2", &at.to_string()])
            .unwrap();
    }
    // From the hosts too, whoever holds it, and from other containers.
    for node in [h1, h2, h3] {
        soon(|| who(&node.host, at[0], 8080));
    }
    h1.ok(format!("exec jenkins wget -qO- http://{}:8080/cgi-bin/who", at[1]).as_str())
        .says(["artifactory"]);
    h1.ok(format!("exec jenkins wget -qO- http://{}:8080/cgi-bin/who", at[0]).as_str())
        .says(["jenkins"]);

    // The index page makes way for a service that publishes its port.
    let pages_are_there = || {
        for node in [h1, h2, h3] {
            soon(|| {
                let url = format!("http://{}/", node.host.address());
                let (_, said) = user.http_get(&url)?;
                ensure!(said.contains("<h1>Services</h1>"), "{said}");
                Ok(())
            });
        }
    };
    pages_are_there();
    h1.write("www.yaml", WWW);
    h1.ok("-p www -f www.yaml up -d");
    for node in [h1, h2, h3] {
        // At first by way of the node, then as who one is.
        soon(|| {
            let (name, asker) = who(&user, node.host.address(), 80)?;
            ensure!(name == "www", "{name} answers");
            ensure!(asker == user.address().to_string(), "{asker} asks");
            Ok(())
        });
    }
    soon(|| {
        let said = h2.run("director status").stdout;
        let why = "the index page is not at port 80, which www/www publishes";
        ensure!(said.contains(why), "{said}");
        Ok(())
    });
    // On a host without the device that people say addresses are not held, if another one gets there.
    let held = || -> Result<String> {
        let node = line(h1, "www/www")?["Node"].as_str().map(str::to_owned);
        node.context("nobody holds it")
    };
    let at_www = soon(|| address(h1, "www/www"));
    let without = soon(held);
    let other = if without == "h1" { h2 } else { h1 };
    let device = h1.host.machine().interface();
    other.ok(format!("director init --device {device} --device eth9@{without}").as_str());
    soon(|| {
        ensure!(held()? != without, "{without} still has it");
        who(&user, at_www, 80)
    });
    soon(|| {
        let said = h1.run("director status").stdout;
        ensure!(said.contains("device eth9 is not there"), "{said}");
        Ok(())
    });
    other.ok(format!("director init --device {device}").as_str());
    h1.ok("-p www -f www.yaml down -t 0");
    pages_are_there();

    // The host that holds an address dies: the service starts on another one, and its address is there.
    let held = line(h1, &owners[1]).unwrap()["Node"]
        .as_str()
        .unwrap()
        .to_owned();
    let (dead, alive) = if held == "h2" { (h2, h3) } else { (h3, h2) };
    assert_eq!(dead.name(), held);
    dead.host.machine().cut().unwrap();
    soon(|| who(&user, at[1], 8080).with_context(|| format!("{:?}", line(h1, &owners[1]))));
    assert_eq!(line(h1, &owners[1]).unwrap()["Node"], alive.name());
    // Back again, only one has it.
    dead.host.machine().heal().unwrap();
    h1.sees(dead, "up");
    soon(|| {
        let held = dead.host.machine().run("ip", ["-o", "addr"])?;
        ensure!(!held.contains(&format!(" {}/32", at[1])), "{held}");
        Ok(())
    });
    soon(|| who(&user, at[1], 50_000));

    // A service that is gone and comes back has the address it had.
    h1.ok("down -t 0");
    soon(|| {
        ensure!(table(h2)?.is_empty(), "{:?}", table(h2));
        ensure!(who(&user, at[0], 8080).is_err());
        Ok(())
    });
    h2.write("compose.yaml", TOOLS);
    h2.ok("up -d");
    assert_eq!(soon(|| address(h1, &owners[0])), at[0]);
    soon(|| who(&user, at[0], 8080));

    // All of it is taken away again.
    h3.ok("director release");
    for node in [h1, h2, h3] {
        soon(|| {
            let machine = node.host.machine();
            let seen = machine.run("ip", ["-o", "addr"])?;
            ensure!(
                at.iter().all(|a| !seen.contains(&format!(" {a}/32"))),
                "{seen}"
            );
            let rules = machine.run("nft", ["list", "ruleset"])?;
            ensure!(
                !rules.contains("wharfie_director") && !rules.contains("led on by the cluster"),
                "{rules}"
            );
            Ok(())
        });
    }
}

/// Addresses that files ask for, that others have, and that containers of no stack get.
#[test]
fn addresses_are_asked_for_probed_and_kept() {
    let builder = Lab::builder().hosts(1).client("user");
    let Some(cluster) = Cluster::with(builder, "asked", TOOLS) else {
        return;
    };
    let h1 = cluster.node(1);
    let user = cluster.lab().client("user").unwrap();
    let [a, b, c, _] = h1.host.address().octets();
    let at = |last: u8| Ipv4Addr::new(a, b, c, last);
    // The index page leaves the port of a container alone.
    docker(h1, "run -d --name front -p 80:80 busybox httpd -f");
    h1.ok(format!("director init --range {} --default all", range(h1)).as_str());
    soon(|| {
        let said = h1.run("director status").stdout;
        let why = "the index page is not at port 80, which container front publishes";
        ensure!(said.contains(why), "{said}");
        Ok(())
    });
    docker(h1, "rm -f front");
    // Another machine has one of them.
    let taken = at(155);
    user.run(
        "ip",
        [
            "addr",
            "add",
            &format!("{taken}/24"),
            "dev",
            user.interface(),
        ],
    )
    .unwrap();
    let file = |service: &str, of: &str| {
        format!(
            "services:\n  {service}:\n    image: busybox\n    init: true\n    command: httpd -f -p 8080\n    x-wharfie: {{address: {of}}}\n"
        )
    };
    h1.write("wrong.yaml", &file("web", "ten"));
    h1.fails(2, "-f wrong.yaml up -d")
        .says(["wrong.yaml:6:26", "neither an address such as"]);
    h1.write("outside.yaml", &file("web", &at(240).to_string()));
    h1.fails(1, "-f outside.yaml up -d")
        .says(["is in none of the director's ranges"]);
    assert_eq!(
        h1.host
            .engine()
            .api("GET", "/containers/json?all=1", None)
            .unwrap(),
        Value::Array(vec![])
    );
    h1.write("good.yaml", &file("web", &at(160).to_string()));
    h1.ok("-p one -f good.yaml up -d");
    assert_eq!(address(h1, "one/web").unwrap(), at(160));
    soon(|| user.http_get(&format!("http://{}:8080/", at(160))));
    h1.fails(1, "-p two -f good.yaml up -d")
        .says(["is that of one/web already"]);

    // A container that somebody else started has one by its name.
    docker(h1, "run -d --name cadvisor busybox httpd -f -p 8080");
    let own = soon(|| address(h1, "cadvisor"));
    soon(|| user.http_get(&format!("http://{own}:8080/")));
    docker(h1, "rm -f cadvisor");
    soon(|| {
        ensure!(address(h1, "cadvisor").is_err());
        Ok(())
    });
    docker(h1, "run -d --name cadvisor busybox httpd -f -p 8080");
    assert_eq!(soon(|| address(h1, "cadvisor")), own);
    // One that has ended has none until it is started again.
    docker(h1, "stop -t 0 cadvisor");
    soon(|| {
        ensure!(address(h1, "cadvisor").is_err());
        Ok(())
    });
    docker(h1, "start cadvisor");
    assert_eq!(soon(|| address(h1, "cadvisor")), own);
    let says = |why: &str| {
        soon(|| {
            let said = h1.run("director status");
            ensure!(said.stdout.contains(why), "{said}");
            Ok(())
        });
    };
    docker(
        h1,
        "run -d --name odd --label io.wharfie.address=192.168.1.999 busybox sleep 1000",
    );
    says("container odd has no address: its label io.wharfie.address says \"192.168.1.999\"");

    // What somebody else has is not taken; what was taken away is put back.
    h1.write("used.yaml", &file("web", &taken.to_string()));
    h1.run("-p three -f used.yaml up -d");
    soon(|| {
        let said = h1.run("director status");
        ensure!(
            said.stdout
                .contains("is used by another machine of the network"),
            "{}",
            said.stdout
        );
        Ok(())
    });
    let there = || h1.host.machine().run("ip", ["-o", "addr"]).unwrap();
    assert!(!there().contains(&format!(" {taken}/32")), "{}", there());
    h1.host
        .machine()
        .run(
            "ip",
            [
                "addr",
                "del",
                &format!("{own}/32"),
                "dev",
                h1.host.machine().interface(),
            ],
        )
        .unwrap();
    soon(|| user.http_get(&format!("http://{own}:8080/")));

    // An address is for a name, and for nobody else.
    let kept = at(161);
    h1.ok(format!("director init --reserve cadvisor={kept}").as_str());
    soon(|| {
        ensure!(address(h1, "cadvisor")? == kept);
        user.http_get(&format!("http://{kept}:8080/"))
    });
    h1.write("kept.yaml", &file("web", &kept.to_string()));
    h1.fails(1, "-p four -f kept.yaml up -d")
        .says(["is reserved for cadvisor"]);
    // Another machine takes it, and insists: there is another address.
    let device = user.interface();
    let words = ["addr", "add", &format!("{kept}/24"), "dev", device];
    user.run("ip", words).unwrap();
    let kept = kept.to_string();
    let words = ["arping", "-U", "-c", "4", "-I", device, &kept];
    let said = user.command("busybox").args(words).output().unwrap();
    let new = soon(|| {
        let new = address(h1, "cadvisor")?;
        ensure!(new.to_string() != kept, "{new} {said:?}");
        Ok(new)
    });
    soon(|| user.http_get(&format!("http://{new}:8080/")));
    says("which is reserved for its name: another machine of the network uses it");
    // All is given away.
    let last = at(160);
    h1.ok(format!("director init --range {last} --reserve web={last}").as_str());
    says("cadvisor has no address: all in the director's ranges are given away");
    soon(|| user.http_get(&format!("http://{last}:8080/")));
    // Somebody takes all rules away: what leads to addresses is back.
    let machine = h1.host.machine();
    machine.run("nft", ["flush", "ruleset"]).unwrap();
    soon(|| user.http_get(&format!("http://{last}:8080/")));
}

/// What a team has: several with the same ports, none of them mapped.
const TOOLBOX: &str = "
x-serve: &serve
  image: busybox
  init: true
  restart: always
  stop_grace_period: 0s
services:
  jenkins:
    <<: *serve
    command: sh -c 'mkdir /w; echo jenkins >/w/index.html; httpd -h /w -p 8080; exec httpd -f -h /w -p 50000'
    expose: [8080, 50000]
  artifactory:
    <<: *serve
    command: sh -c 'mkdir /w; echo artifactory >/w/index.html; httpd -h /w -p 8080; exec httpd -f -h /w -p 8081'
    expose: [8080, 8081]
  www:
    <<: *serve
    command: sh -c 'mkdir /w; echo www >/w/index.html; exec httpd -f -h /w -p 80'
    expose: [80]
  cadvisor:
    <<: *serve
    command: sh -c 'mkdir /w; echo cadvisor >/w/index.html; exec httpd -f -h /w -p 8080'
    expose: [8080]
  dns:
    <<: *serve
    command: sh -c 'mkdir /w; echo dns >/w/index.html; exec httpd -f -h /w -p 53'
    expose: [53, 53/udp]
";

/// The founding example: IT delegates a sub-domain and gives some addresses, once.
#[test]
fn it_is_asked_once() {
    if !is_installed() {
        return;
    }
    let Some(cluster) = Cluster::with(Lab::builder().hosts(3).client("it"), "toolbox", TOOLBOX)
    else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let mut it = It::on(&cluster);
    let own = it.address();
    let glue = |node: &Node| format!("{0}.toolbox A {1}\n", node.name(), node.host.address());
    let servers = |node: &Node| format!("toolbox NS {}.toolbox\n", node.name());
    let records: String = cluster
        .nodes()
        .iter()
        .map(|n| glue(n) + &servers(n))
        .collect();
    it.has_records(&records);
    let range = range(h1);
    h1.ok([
        "director",
        "init",
        "--zone",
        "toolbox.example.org",
        "--title",
        "The toolbox",
        "--range",
        &range,
    ]);
    h1.ok("up -d");
    let tools = [
        ("jenkins", vec![8080, 50_000]),
        ("artifactory", vec![8080, 8081]),
        ("www", vec![80]),
        ("cadvisor", vec![8080]),
        // Beside the nodes' own.
        ("dns", vec![53]),
    ];
    // Each name, by way of IT's server, and each port.
    let all_answer = || {
        for (name, ports) in &tools {
            soon(|| {
                let found = it.short(&own, &format!("{name}.toolbox.example.org"));
                let at = found.first().context("no address")?;
                for port in ports {
                    let (status, said) = it.machine.http_get(&format!("http://{at}:{port}/"))?;
                    ensure!((status, said.trim()) == (200, *name), "{status} {said}");
                }
                Ok(())
            });
        }
    };
    all_answer();
    let addresses = || {
        tools
            .iter()
            .map(|(name, _)| address(h1, &format!("toolbox/{name}")))
            .collect::<Result<Vec<_>>>()
    };
    let before = addresses().unwrap();
    {
        let there = line(h1, "toolbox/dns").unwrap();
        let there = cluster.nodes().iter().find(|n| there["Node"] == n.name());
        let _echo = Echo::begin(there.unwrap(), "toolbox-dns-1", 53).unwrap();
        let at = address(h1, "toolbox/dns").unwrap();
        let said = soon(|| udp(&it.machine, at, 53));
        assert_eq!(said, it.machine.address().to_string());
    }
    // The page of any node has links to all of them.
    soon(|| {
        let (_, page) = it
            .machine
            .http_get(&format!("http://{}/", h2.host.address()))?;
        ensure!(page.contains("<h1>The toolbox</h1>"), "{page}");
        ensure!(
            page.contains("<a href=\"http://jenkins.toolbox.example.org:8080/\">jenkins</a>"),
            "{page}"
        );
        ensure!(
            page.contains("<a href=\"http://www.toolbox.example.org/\">www</a>"),
            "{page}"
        );
        Ok(())
    });
    // Everything is started again.
    for node in cluster.nodes() {
        node.host.power_off().unwrap();
    }
    for node in cluster.nodes() {
        node.host.power_on().unwrap();
        node.begin();
    }
    cluster.is_whole();
    all_answer();
    assert_eq!(addresses().unwrap(), before);
    // The host that has Jenkins dies.
    let held = line(h1, "toolbox/jenkins").unwrap()["Node"]
        .as_str()
        .unwrap()
        .to_owned();
    let dead = [h1, h2, h3].into_iter().find(|n| n.name() == held).unwrap();
    dead.host.power_off().unwrap();
    all_answer();
}

/// What OctoCopDD was told is taken over: its names keep their addresses.
#[test]
fn what_octocopdd_had_goes_on() {
    let Some(cluster) = Cluster::with(Lab::builder().hosts(1).client("user"), "import", TOOLS)
    else {
        return;
    };
    let h1 = cluster.node(1);
    let user = cluster.lab().client("user").unwrap();
    let [a, b, c, _] = h1.host.address().octets();
    let zone = h1.path("toolbox.zone").display().to_string();
    h1.write(
        "ocdd.conf",
        &format!(
            "DEBUG=0\nNETWORK_DEVICE='{}'\nIP_SUBNET='{a}.{b}.{c}'\nIP_RANGE_START=150\nIP_RANGE_END=169\n\
             TOOLBOX_SUBDOMAIN_NAME='toolbox.example.com'\nDNS_ZONE_FILE={zone}\n",
            h1.host.machine().interface(),
        ),
    );
    h1.write(
        "toolbox.zone",
        &format!(
            "@ IN SOA dockerhost.toolbox.example.com. it.example.com. ( 3 3600 7200 3600 14400 )\n\
             @ IN NS dockerhost.toolbox.example.com.\nwiki IN A {a}.{b}.{c}.200\n\
             jenkins \t IN \t A \t {a}.{b}.{c}.163 \t ; ADDED-BY-OCDD-SCRIPT\n"
        ),
    );
    h1.write("wrong.conf", "IP_SUBNET=10.0.0\nCOLOUR=red\n");
    h1.fails(2, "director import wrong.conf")
        .says(["wrong.conf:2: \"COLOUR\" is no setting of OctoCopDD"]);
    docker(
        h1,
        "run -d --name tools_jenkins_1 --label com.docker.compose.project=tools --label com.docker.compose.service=jenkins busybox httpd -f -p 8080",
    );
    h1.ok("--dry-run director import ocdd.conf")
        .says(["nothing is changed"]);
    h1.fails(1, "director status")
        .says(["there is no director"]);
    h1.ok("director import ocdd.conf")
        .says(["1 names keep their addresses; 1 records"]);
    let at = soon(|| address(h1, "tools_jenkins_1"));
    assert_eq!(at, Ipv4Addr::new(a, b, c, 163));
    // A second time it takes nothing away: what was said since stays, what it replaces is said.
    h1.ok("dns add own A 192.0.2.1");
    h1.ok("dns add wiki A 192.0.2.2 --replace");
    let excluded = format!("director init --exclude {a}.{b}.{c}.155");
    h1.ok(excluded.as_str());
    let wiki = format!("record wiki A 14400 192.0.2.2 is replaced by 14400 {a}.{b}.{c}.200");
    h1.ok("--dry-run director import ocdd.conf")
        .says([wiki.as_str()]);
    h1.ok("director import ocdd.conf").says([wiki.as_str()]);
    soon(|| {
        let said = h1.run("dns ls");
        ensure!(said.stdout.contains("192.0.2.1") && !said.stdout.contains("192.0.2.2"));
        Ok(())
    });
    h1.fails(2, "director init --dns-port 53 --contact it@example..org")
        .says(["is no e-mail address"]);
    soon(|| user.http_get(&format!("http://{at}:8080/")));
    soon(|| {
        let said = h1.run("dns ls");
        ensure!(
            said.stdout.contains("wiki") && said.stdout.contains("jenkins"),
            "{}",
            said.stdout
        );
        Ok(())
    });
}
