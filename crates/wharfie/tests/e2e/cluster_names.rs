//! Names inside containers, with what their services say of names.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;

use crate::cluster::{Cluster, Node};
use crate::stack::soon;

const NAMES: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir -p /w; hostname >/w/index.html; exec httpd -f -h /w']
services:
  app:
    <<: *base
    dns: 127.7.7.7
    dns_search: [corp.example]
    extra_hosts: ['printer:10.4.4.4']
    networks: [front, back]
    deploy: {placement: {constraints: [node.hostname == h1]}}
  side:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    network_mode: service:app
    deploy: {placement: {constraints: [node.hostname == h1]}}
  web: {<<: *base, hostname: on-web, networks: [front], deploy: {placement: {constraints: [node.hostname == h2]}}}
  db: {<<: *base, hostname: on-db, networks: [back], deploy: {placement: {constraints: [node.hostname == h2]}}}
networks: {front: {}, back: {}}
";

/// A resolver of a company: every name is 10.9.8.7, but those of somebody else.
struct Company {
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Drop for Company {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Company {
    fn on(node: &Node) -> Self {
        let socket = node
            .host
            .machine()
            .inside(|| UdpSocket::bind("127.7.7.7:53"))
            .unwrap()
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let company = Self {
            asked: Arc::default(),
            over: Arc::default(),
        };
        let (asked, over) = (Arc::clone(&company.asked), Arc::clone(&company.over));
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !over.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let (name, end) = question(&packet[..length]);
                let is_a = packet[end - 3] == 1;
                asked.lock().unwrap().push(name);
                let mut answer = packet[..end].to_vec();
                // A response with one answer, and nothing else.
                answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
                if is_a {
                    answer
                        .extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 9, 8, 7]);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        company
    }
}

/// The name that a packet asks for, and where its question ends.
fn question(packet: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        name.push(String::from_utf8_lossy(&packet[at + 1..at + 1 + length]).into_owned());
        at += length + 1;
    }
    (name.join("."), at + 5)
}

fn get(node: &Node, from: &str, server: &str) -> String {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} 80 | tail -n 1");
    let said = node.run(["exec", "-T", from, "sh", "-c", ask.as_str()]);
    said.stdout.trim().to_owned()
}

#[test]
fn what_a_service_says_of_names_counts_for_it() {
    let Some(cluster) = Cluster::of(2, "names", NAMES) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    let company = Company::on(h1);
    h1.ok("up -d");
    // On two networks it sees those of both, and so does who shares its namespace.
    for from in ["app", "side"] {
        for (name, who) in [("web", "on-web"), ("db", "on-db"), ("db.names", "on-db")] {
            soon(|| {
                let said = get(h1, from, name);
                ensure!(said == who, "{from} hears {said:?} of {name}");
                Ok(())
            });
        }
    }
    // Its own resolver is asked for what is not here, with the names it is to try.
    let look = |node: &Node, from: &str, name: &str| {
        let script = format!("nslookup -type=a {name}; ping -c 1 -W 1 {name} 2>&1");
        node.run(["exec", "-T", from, "sh", "-c", script.as_str()])
            .stdout
    };
    soon(|| {
        let said = look(h1, "app", "files.corp.example");
        ensure!(said.contains("10.9.8.7"), "{said}");
        Ok(())
    });
    let said = look(h1, "app", "mail");
    assert!(said.contains("10.9.8.7"), "{said}");
    let asked = company.asked.lock().unwrap().clone();
    assert!(
        asked.contains(&"mail.corp.example".to_owned()),
        "the search list is used: {asked:?}"
    );
    assert!(
        !asked
            .iter()
            .any(|n| n.starts_with("db") || n.starts_with("web")),
        "names of the cluster stay in it: {asked:?}"
    );
    assert!(look(h1, "app", "printer").contains("10.4.4.4"));
    // Others have the host's resolvers.
    let said = look(h2, "web", "files.corp.example");
    assert!(!said.contains("10.9.8.7"), "{said}");
}
