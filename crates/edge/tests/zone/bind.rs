//! bind9 as a secondary, as IT would have it. Left out, and said so, where it is not installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use wharfie_edge::zone::{Allowed, Data, Key, Record, Secondary, Zone, Zones, serial};

use super::here::{
    Here, ORIGIN, content, name, question, records, send_tcp, send_udp, serve, with, zone,
};

const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==";
const OTHER: &str = "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI=";

/// named, ended with the test.
struct Named {
    child: Child,
    port: u16,
    place: std::path::PathBuf,
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

fn program() -> Option<&'static str> {
    let known = ["/usr/sbin/named", "/usr/bin/named"];
    let found = known.into_iter().find(|p| Path::new(p).exists());
    if found.is_none() {
        eprintln!("left out: bind9 is not installed");
    }
    found
}

impl Named {
    fn start(program: &str, port: u16, primary: u16, secret: &str) -> Self {
        let place =
            std::env::temp_dir().join(format!("wharfie-bind-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let config = place.join("named.conf");
        let shown = place.display();
        let text = format!(
            "options {{ directory \"{shown}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
             pid-file none; session-keyfile none; recursion no; allow-transfer {{ none; }}; notify no;\n\
             managed-keys-directory \"{shown}\"; dnssec-validation no; }};\n\
             controls {{ }};\n\
             key \"to-it\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
             server 127.0.0.1 {{ keys {{ \"to-it\"; }}; }};\n\
             zone \"apps.example.org\" {{ type secondary; file \"zone.db\"; masterfile-format text;\n\
             primaries port {primary} {{ 127.0.0.1 key \"to-it\"; }};\n\
             min-retry-time 1; max-retry-time 1; allow-notify {{ 127.0.0.1; }}; }};\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(place.join("log")).unwrap();
        let child = Command::new(program)
            .args(["-g", "-n", "1", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, place }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    /// Asks until the answer is as wanted.
    async fn has(&self, text: &str, kind: RecordType, wanted: impl Fn(&Message) -> bool) {
        let end = Instant::now() + Duration::from_secs(40);
        let packet = question(text, kind).to_vec().unwrap();
        let at = ([127, 0, 0, 1], self.port).into();
        loop {
            // Nobody listens there before it has started.
            let answer = ask_or_none(at, &packet).await;
            let answer = answer.and_then(|a| Message::from_vec(&a).ok());
            if answer.as_ref().is_some_and(&wanted) {
                return;
            }
            assert!(Instant::now() < end, "{text}: {answer:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn logs(&self, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(40);
        while !self.log().contains(wanted) {
            assert!(Instant::now() < end, "no `{wanted}` in\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn ask_or_none(at: std::net::SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(packet).await.ok()?;
    let mut buffer = vec![0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await;
    let length = received.ok()?.ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn zones(zone: &Arc<Zone>, from: &str, notify: u16) -> Zones {
    let key = Arc::new(Key::new("to-it", "hmac-sha256", SECRET).unwrap());
    let mut zones = Zones::new(vec![Arc::clone(zone)]);
    zones.allowed.push(Allowed {
        from: from.parse().unwrap(),
        key: Some(key.name().clone()),
    });
    zones.secondaries.push(Secondary {
        at: ([127, 0, 0, 1], notify).into(),
        key: Some(key.name().clone()),
    });
    zones.keys.push(key);
    zones
}

fn soa(serial: u32) -> impl Fn(&Message) -> bool {
    move |m| {
        m.answers
            .iter()
            .any(|r| r.data.to_string().contains(&format!(" {serial} ")))
    }
}

async fn until(here: &Here, metric: &str, wanted: u64) {
    let end = Instant::now() + Duration::from_secs(40);
    while here.metric(metric) < wanted {
        assert!(Instant::now() < end, "{metric} is {}", here.metric(metric));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn bind_is_a_secondary() {
    let Some(program) = program() else { return };
    let (first, notify) = (zone(1000), port());
    let here = serve(zones(&first, "127.0.0.0/8", notify)).await;
    let named = Named::start(program, notify, here.at.port(), SECRET);
    // By AXFR, signed.
    named.has("@", RecordType::SOA, soa(1000)).await;
    named
        .has("foo.bar.wild", RecordType::TXT, |m| m.answers.len() == 1)
        .await;
    named
        .has("big", RecordType::TXT, |m| m.metadata.truncation)
        .await;
    assert_eq!(here.metric("transfers"), 1);
    // It is told of each change, long before its time would have come, and gets the difference.
    let second = with(&first, "new", "192.0.2.77", 2000);
    here.zones
        .send_replace(Arc::new(zones(&second, "127.0.0.0/8", notify)));
    named
        .has("new", RecordType::A, |m| m.answers.len() == 1)
        .await;
    named.has("@", RecordType::SOA, soa(2000)).await;
    let third = with(&second, "newer", "192.0.2.78", 3000);
    let fourth = with(&third, "newest", "192.0.2.79", 4000);
    here.zones
        .send_replace(Arc::new(zones(&fourth, "127.0.0.0/8", notify)));
    named
        .has("newest", RecordType::A, |m| m.answers.len() == 1)
        .await;
    named
        .has("newer", RecordType::A, |m| m.answers.len() == 1)
        .await;
    named.has("@", RecordType::SOA, soa(4000)).await;
    until(&here, "notified", 2).await;
    assert_eq!(
        (here.metric("transfers"), here.metric("differences")),
        (1, 2),
        "{}",
        named.log()
    );
    assert_eq!(here.metric("bad_signatures"), 0);
}

#[tokio::test]
async fn a_large_zone_comes_in_many_signed_messages() {
    let Some(program) = program() else { return };
    let notify = port();
    let mut records = records();
    for i in 0..20_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + i);
        let data = Data::Address(address.into());
        records.push(Record::new(name(&format!("host-{i}")), 60, &data));
    }
    let content = content(records);
    let version = serial::next(None, &content, 1000, &[]);
    let zone = Zone::new(content, version);
    let here = serve(zones(&zone, "127.0.0.0/8", notify)).await;
    let named = Named::start(program, notify, here.at.port(), SECRET);
    named
        .has("host-19999", RecordType::A, |m| m.answers.len() == 1)
        .await;
    assert_eq!(here.metric("transfers"), 1);
}

/// The types of the records of a transfer.
async fn transferred(here: &Here, serial: u32) -> Vec<RecordType> {
    let mut asked = question("@", RecordType::IXFR);
    let mut packet = asked.to_vec().unwrap();
    asked.metadata.id = 7;
    // The SOA that there is, of which only the serial is looked at.
    packet[9] = 1;
    packet.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
    for number in [serial, 1, 1, 1, 1] {
        packet.extend(number.to_be_bytes());
    }
    let answer = send_tcp(here.at, &[packet], 1).await.remove(0);
    let answer = Message::from_vec(&answer).unwrap();
    answer.answers.iter().map(|r| r.record_type()).collect()
}

#[tokio::test]
async fn differences_are_given_by_who_gave_the_version_before() {
    use RecordType::{A, SOA};
    let first = zone(1000);
    let second = with(&first, "new", "192.0.2.77", 2000);
    let third = with(&second, "newer", "192.0.2.78", 3000);
    let open = |zone: &Arc<Zone>| {
        let mut zones = zones(zone, "127.0.0.0/8", 9);
        zones.allowed[0].key = None;
        zones.secondaries.clear();
        zones
    };
    let whole = first.content().records().len() + 2;
    let here = serve(open(&first)).await;
    assert_eq!(transferred(&here, 1000).await, [SOA]);
    assert_eq!(transferred(&here, 2000).await, [SOA]);
    assert_eq!(transferred(&here, 999).await.len(), whole);
    here.zones.send_replace(Arc::new(open(&third)));
    assert_eq!(
        transferred(&here, 1000).await,
        [SOA, SOA, SOA, A, SOA, SOA, A, SOA]
    );
    assert_eq!(transferred(&here, 3000).await, [SOA]);
    // What is not known, and what another server has given.
    assert_eq!(transferred(&here, 1999).await.len(), whole + 2);
    let elsewhere = serve(open(&third)).await;
    assert_eq!(transferred(&elsewhere, 2000).await.len(), whole + 2);
}

#[tokio::test]
async fn who_has_another_key_gets_nothing() {
    let Some(program) = program() else { return };
    let notify = port();
    let here = serve(zones(&zone(1000), "127.0.0.0/8", notify)).await;
    let named = Named::start(program, notify, here.at.port(), OTHER);
    named.logs("tsig verify failure").await;
    until(&here, "bad_signatures", 1).await;
    assert_eq!(here.metric("transfers"), 0);
}

#[tokio::test]
async fn who_is_not_allowed_gets_nothing() {
    let Some(program) = program() else { return };
    let notify = port();
    let here = serve(zones(&zone(1000), "10.0.0.0/8", notify)).await;
    let named = Named::start(program, notify, here.at.port(), SECRET);
    named.logs("REFUSED").await;
    until(&here, "transfers_refused", 1).await;
    assert_eq!(here.metric("transfers"), 0);
}

#[tokio::test]
async fn without_the_key_there_is_no_transfer() {
    let here = serve(zones(&zone(1000), "127.0.0.0/8", 9)).await;
    let packet = question(ORIGIN, RecordType::AXFR).to_vec().unwrap();
    let answer = send_tcp(here.at, std::slice::from_ref(&packet), 1)
        .await
        .remove(0);
    assert_eq!(answer[3] & 15, 5);
    let answer = send_udp(here.at, &packet, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(answer[3] & 15, 5);
}
