//! The zone that IT delegates: names of services and nodes for everybody, found by way of IT's own
//! servers (Debian's bind9).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::json;
use wharfie_lab::{Lab, Machine, Spawned};

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

const SHOP: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sleep, '10000']
services:
  web:
    <<: *base
    ports: [{name: http, target: 80}]
    x-wharfie: {names: ['@'], owner: it}
  open:
    <<: *base
    ports: ['18080:80']
    x-wharfie: {address: false}
  pair:
    <<: *base
    deploy: {replicas: 2}
    x-wharfie: {address-per: task}
";

const NAMED: &str = "/usr/sbin/named";
const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==";

/// IT's server, on a machine of its own.
pub(crate) struct It {
    pub(crate) machine: Machine,
    named: Option<Spawned>,
}

/// Whether there is IT's server, and a program to ask with.
pub(crate) fn is_installed() -> bool {
    let there = Path::new(NAMED).exists();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "bind9 is not installed");
        eprintln!("skipped: bind9 is not installed");
    }
    there
}

/// A cluster with a machine of IT's beside it. None if there can be no lab here, or no server.
fn cluster(hosts: usize, name: &str) -> Option<Cluster> {
    is_installed().then_some(())?;
    Cluster::with(Lab::builder().hosts(hosts).client("it"), name, SHOP)
}

impl It {
    pub(crate) fn on(cluster: &Cluster) -> Self {
        let machine = cluster.lab().client("it").unwrap();
        let machine: &Machine = machine.as_ref();
        Self {
            machine: machine.clone(),
            named: None,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.machine.address().to_string()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.machine.dir().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Answers for `example.org`, which has these records too, and asks others for everybody.
    pub(crate) fn has_records(&mut self, records: &str) {
        self.has_zones(&[("example.org", records)]);
    }

    /// Answers for these zones.
    fn has_zones(&mut self, zones: &[(&str, &str)]) {
        let own = self.address();
        let mut config = String::new();
        for (zone, records) in zones {
            self.file(
                zone,
                &format!("$TTL 5\n@ SOA ns it 1 60 60 600 1\n@ NS ns\nns A {own}\n{records}\n"),
            );
            config += &format!("zone \"{zone}\" {{ type primary; file \"{zone}\"; }};\n");
        }
        self.runs("recursion yes; allow-recursion { any; };", &config);
    }

    /// Keeps the zone of the nodes as a secondary.
    fn is_secondary_of(&mut self, nodes: &[&Node]) {
        let nodes = nodes.iter();
        let primaries: String = nodes
            .map(|n| format!("{} key \"to-it\"; ", n.host.address()))
            .collect();
        self.runs(
            "recursion no;",
            &format!(
                "key \"to-it\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
                 zone \"apps.example.org\" {{ type secondary; file \"apps.db\"; primaries {{ {primaries} }};\n\
                 min-retry-time 1; max-retry-time 1; }};"
            ),
        );
    }

    fn runs(&mut self, options: &str, more: &str) {
        if let Some(old) = self.named.take() {
            old.kill().unwrap();
        }
        let (dir, own) = (self.machine.dir(), self.address());
        let dir = dir.display();
        let config = self.file(
            "named.conf",
            &format!(
                "options {{ directory \"{dir}\"; listen-on {{ {own}; }}; listen-on-v6 {{ none; }};\n\
                 pid-file none; session-keyfile none; managed-keys-directory \"{dir}\";\n\
                 dnssec-validation no; allow-query {{ any; }}; notify no; max-ncache-ttl 1; empty-zones-enable no;\n\
                 allow-transfer {{ none; }}; {options} }};\ncontrols {{ }};\n{more}\n"
            ),
        );
        let mut command = self.machine.command(NAMED);
        command.args(["-g", "-n", "1", "-c"]).arg(config);
        self.named = Some(self.machine.spawn(command).unwrap());
    }

    /// Asks a server; what dig prints.
    fn dig(&self, server: &str, words: &str) -> String {
        let mut command = self.machine.command("dig");
        let at = format!("@{server}");
        command.args(["+tries=1", "+time=2", "+nocookie", at.as_str()]);
        command.args(words.split_whitespace());
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The data of an answer, in order.
    pub(crate) fn short(&self, server: &str, words: &str) -> Vec<String> {
        let said = self.dig(server, &format!("+short {words}"));
        let lines = said.lines().filter(|l| !l.starts_with(";"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Waits until an answer is as wanted.
    #[track_caller]
    pub(crate) fn hears<T: AsRef<str>>(&self, server: &str, words: &str, wanted: &[T]) {
        let mut wanted: Vec<&str> = wanted.iter().map(AsRef::as_ref).collect();
        wanted.sort_unstable();
        soon(|| {
            let heard = self.short(server, words);
            ensure!(
                heard == wanted,
                "{words} at {server}: {heard:?}, not {wanted:?}\n{}",
                self.log()
            );
            Ok(())
        });
    }

    fn log(&self) -> String {
        self.named.as_ref().map(Spawned::log).unwrap_or_default()
    }
}

fn address(node: &Node) -> String {
    node.host.address().to_string()
}

/// The addresses of a service, as its records say.
fn of_service(node: &Node, name: &str) -> Result<Vec<String>> {
    let listed = node.run("dns ls --format json").json_lines();
    let of = listed
        .iter()
        .filter(|r| r["Name"] == name && r["Type"] == "A");
    let found: Vec<String> = of.map(|r| text(&r["Value"])).collect();
    ensure!(!found.is_empty(), "{name} has no address: {listed:?}");
    Ok(found)
}

#[test]
fn everybody_finds_services_nodes_and_records() {
    let Some(cluster) = cluster(3, "shop") else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let [a1, a2, a3] = [h1, h2, h3].map(address);
    let mut it = It::on(&cluster);
    let own = it.address();
    it.has_records("");
    h1.fails(1, "dns add www A 192.0.2.1")
        .says(["no zone is set", "wharfie director init --zone"]);
    let subnet = cluster.lab().subnet();
    let (first, last) = (subnet.address(200), subnet.address(220));
    let init = format!("director init --zone apps.example.org --range {first}-{last}");
    h1.ok(init.as_str());
    h1.ok("up -d");
    let check = format!("dns check --resolver {own} --parent {own}");
    // Not delegated yet: it says what is to be entered.
    let told = soon(|| {
        let told = h2.run(check.as_str());
        for wanted in ["h1", "h2", "h3"] {
            let wanted = format!("apps.example.org.\t3600\tIN\tNS\t{wanted}.apps.example.org.");
            ensure!(told.stdout.contains(&wanted), "{told}");
        }
        Ok(told)
    });
    told.has_code(1).says([
        "does not delegate apps.example.org.",
        "fault: the resolver",
        "things are wrong with the zone",
    ]);
    let (_, delegation) = told.stdout.split_once("; Delegation").unwrap();
    let (delegation, back) = delegation.split_once("; So that").unwrap();
    // Others have addresses of the network too: IT keeps its zone, and leads to names of the nodes' addresses only.
    let [a, b, c, _] = first.octets();
    let reverse = format!("{c}.{b}.{a}.in-addr.arpa");
    for wanted in [
        format!("do NOT delegate {reverse}."),
        format!("cluster-apps.{reverse}.\t3600\tIN\tNS\th1.apps.example.org."),
    ] {
        assert!(back.contains(&wanted), "{wanted} in {back}");
    }
    it.has_zones(&[
        ("example.org", &format!(";{delegation}")),
        (&reverse, &format!("250 PTR router.example.org.\n;{back}")),
    ]);
    soon(|| {
        let told = h3.run(check.as_str());
        ensure!(told.status.success(), "{told}\n{}", it.log());
        told.says(["delegates apps.example.org. to all its servers", "finds "]);
        Ok(())
    });

    // By way of IT's server: services by both names, nodes, and back.
    let web = soon(|| of_service(h1, "web"));
    for name in ["web.", "web.shop.", "WEB.Shop.", ""] {
        it.hears(&own, &format!("{name}apps.example.org"), &web);
    }
    let srv = "_http._tcp.web.apps.example.org SRV";
    it.hears(&own, srv, &["0 1 80 web.apps.example.org."]);
    it.hears(
        &own,
        "web.shop.apps.example.org TXT",
        &["\"owner=it\"", "\"stack=shop\""],
    );
    it.hears(&own, "h2.apps.example.org", &[&a2]);
    let pair = soon(|| {
        let found = of_service(h1, "pair")?;
        ensure!(found.len() == 2, "{found:?}");
        Ok(found)
    });
    it.hears(&own, "pair.apps.example.org", &pair);
    let each = [1, 2].map(|n| of_service(h3, &format!("pair-{n}")).unwrap().concat());
    assert!(
        each[0] != each[1] && each.iter().all(|a| pair.contains(a)),
        "{each:?}"
    );
    it.hears(&a2, "pair-2.shop.apps.example.org", &[&each[1]]);
    // A container that nobody's file knows.
    let body = json!({
        "Image": "busybox",
        "Cmd": ["sleep", "10000"],
        "Labels": {"io.wharfie.address": "true"},
    });
    let engine = h2.host.engine();
    engine
        .api("POST", "/containers/create?name=jenkins", Some(&body))
        .unwrap();
    engine
        .api("POST", "/containers/jenkins/start", None)
        .unwrap();
    let jenkins = soon(|| of_service(h1, "jenkins"));
    it.hears(&own, "jenkins.h2.apps.example.org", &jenkins);
    it.hears(&own, "jenkins.apps.example.org", &jenkins);
    h1.ok("dns ls jenkins")
        .says(["container jenkins of node h2"]);
    let all = [a1.clone(), a2.clone(), a3.clone()];
    it.hears(&own, "open.apps.example.org", &all);
    for node in [&a1, &a2, &a3] {
        it.hears(node, &format!("-x {}", web[0]), &["web.apps.example.org."]);
    }
    let last = web[0].rsplit('.').next().unwrap();
    let alias = format!("{last}.cluster-apps.{reverse}.");
    let there = [alias.as_str(), "web.apps.example.org."];
    it.hears(&own, &format!("-x {}", web[0]), &there);
    let router = format!("-x {}", subnet.address(250));
    it.hears(&own, &router, &["router.example.org."]);
    it.hears(&a1, &router, &[""; 0]);
    // What has no address of its own is on the page as well.
    soon(|| {
        let (_, page) = it.machine.http_get(&format!("http://{a2}/"))?;
        let line = page.lines().find(|l| l.contains("<td>open</td>"));
        ensure!(line.is_some_and(|l| l.contains("18080/tcp")), "{page}");
        Ok(())
    });
    h1.ok("director status").never_says("open");
    // What is not there says for how long that holds; what is outside is refused, by whoever is asked.
    let none = it.dig(&a3, "nobody.apps.example.org");
    assert!(
        none.contains("status: NXDOMAIN") && none.contains("SOA"),
        "{none}"
    );
    assert!(none.contains(" aa"), "{none}");
    let outside = it.dig(&a1, "example.com");
    assert!(outside.contains("status: REFUSED"), "{outside}");
    let by_tcp = it.dig(&a2, "+tcp web.apps.example.org");
    assert!(by_tcp.contains("status: NOERROR"), "{by_tcp}");

    // Records of people, from any node to all.
    h2.ok("dns add www A 192.0.2.1 192.0.2.2 --ttl 5s");
    for node in [&own, &a1, &a3] {
        it.hears(node, "www.apps.example.org", &["192.0.2.1", "192.0.2.2"]);
    }
    h3.ok("dns rm www A 192.0.2.1")
        .says(["removed www 5 A 192.0.2.1"]);
    it.hears(&a1, "www.apps.example.org", &["192.0.2.2"]);
    // All have the same version.
    soon(|| {
        let serials: Vec<_> = [&a1, &a2, &a3]
            .map(|a| it.short(a, "apps.example.org SOA"))
            .into();
        ensure!(
            serials[0] == serials[1] && serials[1] == serials[2],
            "{serials:?}"
        );
        Ok(())
    });
    // A service that is gone has no name.
    h1.ok("down -t 0");
    it.hears(&a2, "web.apps.example.org", &[""; 0]);

    // A dead node is no server of the zone any more, and names are found all the same.
    h3.kill_agent();
    h1.sees(h3, "down");
    it.hears(
        &a1,
        "apps.example.org NS",
        &["h1", "h2"].map(|h| format!("{h}.apps.example.org.")),
    );
    it.hears(&own, "h1.apps.example.org", &[&a1]);
    it.hears(&own, "www.apps.example.org", &["192.0.2.2"]);
    let serial = |at: &str| -> Result<u32> {
        let soa = it.short(at, "apps.example.org SOA");
        let word = soa.first().and_then(|s| s.split_whitespace().nth(2));
        Ok(word.unwrap_or_default().parse()?)
    };
    let before = serial(&a1).unwrap();
    h3.start_agent();
    it.hears(
        &a3,
        "apps.example.org NS",
        &["h1", "h2", "h3"].map(|h| format!("{h}.apps.example.org.")),
    );
    soon(|| {
        ensure!(serial(&a3)? == serial(&a1)? && serial(&a3)? > before);
        Ok(())
    });
}

#[test]
fn secondaries_of_it_keep_the_zone() {
    let Some(cluster) = cluster(2, "zone") else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    let [a1, a2] = [h1, h2].map(address);
    let mut it = It::on(&cluster);
    let own = it.address();
    // Somebody has the port already: that is said everywhere, with his name.
    let place = h1.path("");
    let conf = format!(
        "options {{ directory \"{}\"; listen-on {{ any; }}; listen-on-v6 {{ none; }}; pid-file none;\n\
         session-keyfile none; recursion no; }};\ncontrols {{ }};\n",
        place.display()
    );
    h1.write("named.conf", &conf);
    let mut command = h1.host.command(NAMED);
    command
        .args(["-g", "-n", "1", "-c"])
        .arg(h1.path("named.conf"));
    let taker = h1.host.machine().spawn(command).unwrap();
    taker.wait_for_output("running", crate::SOON).unwrap();
    h1.write("to-it.secret", &format!("{SECRET}\n"));
    let key = format!("to-it:hmac-sha256:@{}", h1.path("to-it.secret").display());
    h1.fails(
        2,
        "director init --zone apps.example.org --key to-it:hmac-sha256:@nowhere",
    )
    .says(["key to-it: cannot read nowhere"]);
    let it_is = format!("{own}=to-it");
    h1.ok([
        "director",
        "init",
        "--zone",
        "apps.example.org",
        "--key",
        &key,
        "--transfer",
        &it_is,
        "--secondary",
        &it_is,
        "--contact",
        "it.desk@example.org",
    ]);
    let owner = format!(
        "port 53 of {a1} is not answered: named (process {})",
        taker.id()
    );
    soon(|| {
        let status = h2.run("status");
        ensure!(status.stdout.contains(&owner), "{status}");
        Ok(())
    });
    h1.run("dns ls")
        .says(["this node does not answer for the zone"]);
    h2.fails(
        1,
        format!("dns check --resolver {own} --parent {own}").as_str(),
    )
    .says([owner.as_str(), "apps.example.org. has one server"]);
    it.hears(&a2, "apps.example.org NS", &["h2.apps.example.org."]);
    taker.kill().unwrap();
    it.hears(&a1, "h1.apps.example.org", &[&a1]);
    it.hears(
        &a2,
        "apps.example.org NS",
        &["h1", "h2"].map(|h| format!("{h}.apps.example.org.")),
    );

    // What is on the command line wrong is said in words, and changes nothing.
    h1.fails(2, "dns add www.example.com. A 192.0.2.1")
        .says(["is not in the zone apps.example.org."]);
    h1.fails(2, "dns add www A 192.0.2")
        .says(["`192.0.2` is no IPv4 address"]);
    h1.ok("dns add www A 192.0.2.1")
        .says(["added www 3600 A 192.0.2.1"]);
    h1.fails(2, "dns add www CNAME elsewhere.example.net.")
        .says(["beside a CNAME there is nothing else"]);
    h1.fails(1, "dns rm h1")
        .says(["no record that was added is h1"]);
    h1.ok("--dry-run dns rm www")
        .says(["remove www 3600 A 192.0.2.1"]);
    h1.ok("dns add h2 A 192.0.2.9")
        .says(["h2.apps.example.org. A that was added is left out: the name is node h2"]);
    h1.ok("dns rm h2 A");
    h2.write(
        "bad.zone",
        "$TTL 60\nmail A 192.0.2\n@ MX 10 mail\nold A 192.0.2.8 192.0.2.9\n",
    );
    h2.fails(2, "dns import bad.zone").says([
        "bad.zone:2: `192.0.2` is no IPv4 address",
        "bad.zone:4: ",
        "has 2 faults: nothing was imported",
    ]);
    h2.write(
        "good.zone",
        "$TTL 60\n@ SOA a b 1 2 3 4 5\nmail A 192.0.2.5\n@ MX 10 mail\n*.any TXT \"all of it\"\n",
    );
    h2.ok("--dry-run dns import good.zone")
        .says(["add mail 60 A 192.0.2.5", "SOA is made by the cluster"]);
    h2.ok("dns import good.zone");
    it.hears(&a1, "apps.example.org MX", &["10 mail.apps.example.org."]);
    it.hears(&a1, "x.any.apps.example.org TXT", &["\"all of it\""]);
    let listed = h1.ok("dns ls mail --format json").json_lines();
    assert_eq!(
        (&listed[0]["Value"], &listed[0]["Of"]),
        (&"192.0.2.5".into(), &"added".into())
    );
    h1.ok("dns ls").says(["node h1", "the cluster", "added"]);
    let exported = h1.ok("dns export").stdout;
    assert!(
        exported.contains("IN\tSOA\th1.apps.example.org. it\\.desk.example.org. "),
        "{exported}"
    );
    // It is read in as it was written.
    h1.write("all.zone", &exported);
    h1.ok("--dry-run dns import all.zone").never_says("add www");

    // Nobody gets the whole zone without the key; who has it gets differences too.
    let refused = it.dig(&a1, "apps.example.org AXFR");
    assert!(refused.contains("Transfer failed"), "{refused}");
    let sign = format!("-y hmac-sha256:to-it:{SECRET}");
    let whole = it.dig(&a1, &format!("{sign} apps.example.org AXFR"));
    assert!(
        whole.contains("www.apps.example.org.\t3600\tIN\tA\t192.0.2.1"),
        "{whole}"
    );
    let soa = whole.lines().find(|l| l.contains("\tSOA\t")).unwrap();
    let serial = soa.split_whitespace().nth(6).unwrap();
    h1.ok("dns add new A 192.0.2.7");
    it.hears(&a1, "new.apps.example.org", &["192.0.2.7"]);
    let difference = it.dig(&a1, &format!("{sign} apps.example.org IXFR={serial}"));
    assert!(difference.contains("new.apps.example.org."), "{difference}");
    assert!(
        !difference.contains("www.apps.example.org."),
        "{difference}"
    );
    // A secondary gets it, signed, and follows every change at once.
    it.is_secondary_of(&[h1, h2]);
    it.hears(&own, "mail.apps.example.org", &["192.0.2.5"]);
    h2.ok("dns add www A 192.0.2.2 --replace");
    it.hears(&own, "www.apps.example.org", &["192.0.2.2"]);
    h1.ok("dns rm mail");
    it.hears(&own, "mail.apps.example.org", &[""; 0]);
    assert!(
        it.log()
            .contains("received notify for zone 'apps.example.org'"),
        "{}",
        it.log()
    );
    it.hears(&own, "new.apps.example.org", &["192.0.2.7"]);
    // Servers of IT are servers of the zone as well; those in it are the nodes.
    h1.fails(2, "dns add @ NS h9.apps.example.org.")
        .says(["are made by the cluster"]);
    h1.ok("dns add @ NS ns1.example.org.");
    let servers = [
        "h1.apps.example.org.",
        "h2.apps.example.org.",
        "ns1.example.org.",
    ];
    it.hears(&own, "apps.example.org NS", &servers);
    // With the primaries away it goes on.
    h1.kill_agent();
    h2.kill_agent();
    it.hears(&own, "new.apps.example.org", &["192.0.2.7"]);
    // After a start the serial goes on where it was.
    h1.start_agent();
    soon(|| {
        let soa = it.short(&a1, "apps.example.org SOA");
        let now = soa
            .first()
            .and_then(|s| s.split_whitespace().nth(2))
            .unwrap_or("0");
        ensure!(now.parse::<u32>()? > serial.parse::<u32>()?, "{soa:?}");
        Ok(())
    });
}

#[test]
fn a_node_of_no_cluster_answers_too() {
    if !is_installed() {
        return;
    }
    let Some(cluster) = Cluster::apart(1, "lone", SHOP) else {
        return;
    };
    let h1 = cluster.node(1);
    let at = format!("@{}", address(h1));
    let ask = |words: &str| {
        let words = format!("+short +tries=1 +time=2 {at} {words}");
        h1.program("dig", words.as_str()).stdout.trim().to_owned()
    };
    h1.ok("director init --zone apps.example.org");
    h1.ok("up -d open");
    for name in ["h1", "open", "open.lone"] {
        soon(|| {
            let heard = ask(&format!("{name}.apps.example.org"));
            ensure!(heard == address(h1), "{name}: {heard:?}");
            Ok(())
        });
    }
    h1.ok("status").says(["All is well"]);
    // Whatever ends the agent, its serial goes on.
    let serial = || -> Result<u32> {
        let soa = ask("apps.example.org SOA");
        let word = soa.split_whitespace().nth(2).unwrap_or_default();
        Ok(word.parse()?)
    };
    for _ in 0..30 {
        h1.ok("dns add one A 192.0.2.1");
        h1.ok("dns rm one");
    }
    let before = soon(serial);
    h1.kill_agent();
    h1.start_agent();
    let after = soon(serial);
    assert!(after >= before, "{after} after {before}");
    h1.ok("dns add one A 192.0.2.1");
    soon(|| {
        ensure!(ask("one.apps.example.org") == "192.0.2.1");
        Ok(())
    });
    assert!(serial().unwrap() > before);
    h1.ok("down -t 0");
}
