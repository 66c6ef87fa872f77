//! Zones that change, addresses that come and go, and what is asked of others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use wharfie_edge::zone::{Zones, reverse_zones, serial};

use super::here::{Here, SOON, ask, name, question, send_udp, serve, serve_with, with, zone};

#[tokio::test]
async fn a_change_is_seen_at_once() {
    let first = zone(1);
    let here = serve(Zones::new(vec![Arc::clone(&first)])).await;
    let answer = ask(here.at, "new", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let second = with(&first, "new", "192.0.2.77", 1000);
    assert_eq!(second.version().serial, 1000);
    here.zones.send_replace(Arc::new(Zones::new(vec![second])));
    let answer = ask(here.at, "new", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn addresses_have_names_in_the_reverse_zone() {
    let forward = zone(1);
    let networks: [ipnet::IpNet; 2] = ["192.0.2.0/24", "2001:db8::/32"].map(|n| n.parse().unwrap());
    let whole = |n: &ipnet::IpNet| n.network()..=n.broadcast();
    let own: Vec<_> = networks.iter().map(whole).collect();
    let (reverse, _) = reverse_zones(forward.content(), &networks, &own);
    let mut zones = vec![Arc::clone(&forward)];
    for content in reverse {
        let version = serial::next(None, &content, 5, &[]);
        zones.push(wharfie_edge::zone::Zone::new(content, version));
    }
    let here = serve(Zones::new(zones)).await;
    let answer = ask(here.at, "53.2.0.192.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.answers[0].data.to_string(), "ns.apps.example.org.");
    let answer = ask(here.at, "2.0.192.in-addr.arpa.", RecordType::SOA).await;
    assert_eq!(answer.answers.len(), 1);
    let answer = ask(here.at, "200.2.0.192.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn addresses_come_and_go() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let other: SocketAddr = ([127, 0, 0, 3], here.at.port()).into();
    for _ in 0..3 {
        let failed = here.server.listen(&BTreeSet::from([other])).await;
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(ask(other, "www", RecordType::A).await.answers.len(), 1);
        let failed = here.server.listen(&BTreeSet::from([here.at])).await;
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(ask(here.at, "www", RecordType::A).await.answers.len(), 1);
    }
}

/// A server of others, with a zone of one record.
async fn of_others(origin: &str, record: wharfie_edge::zone::Record) -> Here {
    let start = wharfie_edge::zone::Start::new(name(origin));
    let servers = [name("ns.example.net.")];
    let (content, _) = wharfie_edge::zone::Content::new(start, &servers, vec![record]);
    let version = serial::next(None, &content, 5, &[]);
    let zone = wharfie_edge::zone::Zone::new(content, version);
    serve(Zones::new(vec![zone])).await
}

/// Of a network that others have addresses in they know the other names.
#[tokio::test]
async fn names_of_addresses_of_others_are_theirs() {
    let data = wharfie_edge::zone::Data::Pointer(name("printer.example.net."));
    let record = wharfie_edge::zone::Record::new(name("200.2.0.192.in-addr.arpa."), 60, &data);
    let theirs = of_others("2.0.192.in-addr.arpa.", record).await;
    let forward = zone(1);
    let ours = "192.0.2.53".parse().unwrap()..="192.0.2.53".parse().unwrap();
    let networks = ["192.0.2.0/24".parse().unwrap()];
    let (reverse, _) = reverse_zones(forward.content(), &networks, &[ours]);
    let made = reverse.into_iter().map(|content| {
        let version = serial::next(None, &content, 5, &[]);
        wharfie_edge::zone::Zone::new(content, version)
    });
    let mut zones = Zones::new([forward].into_iter().chain(made).collect());
    let limit = wharfie_edge::zone::RateLimit::default();
    let here = serve_with(zones.clone(), limit, vec![theirs.at]).await;
    let asked = async |address: &str| {
        let mut asked = question(&format!("{address}.2.0.192.in-addr.arpa."), RecordType::PTR);
        asked.metadata.recursion_desired = true;
        let answer = send_udp(here.at, &asked.to_vec().unwrap(), SOON)
            .await
            .unwrap();
        let answer = hickory_proto::op::Message::from_vec(&answer).unwrap();
        answer.answers.first().map(|a| a.data.to_string())
    };
    assert_eq!(asked("53").await.as_deref(), Some("ns.apps.example.org."));
    assert_eq!(asked("200").await, None);
    zones.forward_for = vec!["127.0.0.0/8".parse().unwrap()];
    here.zones.send_replace(Arc::new(zones));
    assert_eq!(asked("200").await.as_deref(), Some("printer.example.net."));
    assert_eq!(asked("53").await.as_deref(), Some("ns.apps.example.org."));
    assert_eq!(
        asked("53.cluster-apps").await.as_deref(),
        Some("ns.apps.example.org.")
    );
}

#[tokio::test]
async fn others_are_asked_for_whom_that_is_allowed() {
    // Another server of the same kind, with what the first one does not have.
    let data = wharfie_edge::zone::Data::Address("192.0.2.200".parse().unwrap());
    let record = wharfie_edge::zone::Record::new(name("www.example.net."), 60, &data);
    let theirs = of_others("example.net.", record).await;
    let mut zones = Zones::new(vec![zone(1)]);
    zones.forward_for = vec!["127.0.0.0/8".parse().unwrap()];
    let limit = wharfie_edge::zone::RateLimit::default();
    let here = serve_with(zones.clone(), limit, vec![theirs.at]).await;
    let mut asked = question("www.example.net.", RecordType::A);
    // Who does not want recursion does not get it.
    let plain = asked.to_vec().unwrap();
    let answer = send_udp(here.at, &plain, SOON).await.unwrap();
    assert_eq!(answer[3] & 15, 5);
    asked.metadata.recursion_desired = true;
    let packet = asked.to_vec().unwrap();
    for _ in 0..2 {
        let answer = send_udp(here.at, &packet, SOON).await.unwrap();
        assert_eq!((answer[3] & 15, answer[7]), (0, 1));
    }
    assert_eq!(here.metric("forwarded"), 2);
    zones.forward_for = vec!["10.0.0.0/8".parse().unwrap()];
    here.zones.send_replace(Arc::new(zones));
    let answer = send_udp(here.at, &packet, SOON).await.unwrap();
    assert_eq!(answer[3] & 15, 5);
}
