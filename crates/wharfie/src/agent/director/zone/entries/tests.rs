//! Who has which name.

use super::*;
use serde_json::{Value, json};
use wharfie_core::report::ReportedContainer;
use wharfie_edge::zone::export;

fn stack(name: &str, services: Value) -> Arc<Stack> {
    let active: Vec<String> = services.as_object().unwrap().keys().cloned().collect();
    let project = json!({ "project": { "name": name, "services": services } });
    let stack = json!({ "project": project, "active": active });
    Arc::new(serde_json::from_value(stack).unwrap())
}

fn address(last: u8, made: i64) -> Address {
    Address {
        v4: Some([10, 0, 0, last].into()),
        made,
        ..Address::default()
    }
}

fn node(name: &str, last: u8) -> Seen {
    Seen {
        id: format!("id-{name}"),
        name: name.to_owned(),
        addresses: vec![[10, 0, 0, last].into()],
        up: true,
        serves: true,
        report: None,
    }
}

/// The names with addresses and services, without the nodes' own; and what could not be.
fn names(
    addresses: &[(&str, Address)],
    records: &[(&str, &[&str])],
    stacks: &[Arc<Stack>],
    nodes: &[Seen],
) -> (Vec<String>, Vec<String>) {
    let settings = Director {
        zone: "z.example".to_owned(),
        ..Director::default()
    };
    let addresses = addresses.iter();
    let addresses = addresses.map(|(owner, a)| (Owner::read(owner).unwrap(), a.clone()));
    let records = records.iter().map(|(object, values)| {
        let set = RecordSet {
            ttl: 60,
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        };
        ((*object).to_owned(), set)
    });
    let start = start(&settings).unwrap();
    let added = Added::read(&records.collect(), &start.origin);
    let sight = Sight {
        settings: &settings,
        addresses: &addresses.collect(),
        added: &added,
        stacks,
        nodes,
    };
    let (entries, mut words) = (sight.entries(), added.bad.clone());
    let origin = start.origin.clone();
    let (content, more) = entries.forward(start);
    words.extend(more);
    let shown = export(&origin, None, content.records());
    let lines = shown.lines().skip(1).map(|l| {
        let line = l.replace(".z.example.", "").replace('\t', " ");
        line.replace(" IN ", " ")
    });
    let quiet = |l: &String| !l.contains(" TXT ") && !l.contains(" NS ");
    (lines.filter(quiet).collect(), words)
}

#[test]
fn a_service_has_the_names_of_its_addresses() {
    let web = json!({
        "ports": [{"name": "http", "target": 80, "published": "8080", "protocol": "tcp"}, {"target": 81}],
        "expose": ["80", "53/udp", "90-99"],
        "x-wharfie": {"names": ["@"], "owner": "it"},
    });
    let shop = stack("shop", json!({ "web": web, "db": {} }));
    let mut gone = address(9, 1);
    gone.freed = Some(5);
    let (lines, words) = names(
        &[("shop/web", address(1, 1)), ("shop/db", gone)],
        &[],
        &[shop],
        &[],
    );
    let of_web = [
        "web 5 A 10.0.0.1",
        "_http._tcp.web 5 SRV 0 1 80 web",
        "_81._tcp.web 5 SRV 0 1 81 web",
        "_53._udp.web 5 SRV 0 1 53 web",
        "web.shop 5 A 10.0.0.1",
        "z.example. 5 A 10.0.0.1",
    ];
    for wanted in of_web {
        assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
    }
    assert!(!lines.iter().any(|l| l.contains("db")), "{lines:#?}");
    // Ranges too, by their numbers.
    assert!(lines.iter().any(|l| l == "_99._tcp.web 5 SRV 0 1 99 web"));
    assert_eq!(lines.len(), 29, "{lines:#?}");
    assert_eq!(words, [""; 0]);
}

#[test]
fn tasks_with_addresses_are_named_by_number() {
    let (lines, words) = names(
        &[("shop/web/1", address(1, 1)), ("shop/web/2", address(2, 1))],
        &[],
        &[],
        &[],
    );
    assert_eq!(
        lines
            .iter()
            .filter(|l| !l.contains(".shop"))
            .collect::<Vec<_>>(),
        [
            "web 5 A 10.0.0.1",
            "web 5 A 10.0.0.2",
            "web-1 5 A 10.0.0.1",
            "web-2 5 A 10.0.0.2",
        ]
    );
    assert_eq!(words, [""; 0]);
}

#[test]
fn the_nodes_that_are_up_answer_for_published_ports() {
    let web = json!({ "ports": [{"target": 80, "published": "8080", "mode": "ingress"}] });
    let own = json!({ "ports": [{"target": 80, "published": "81", "mode": "host"}] });
    let shop = stack("shop", json!({ "web": web, "own": own, "db": {} }));
    let away = Seen {
        up: false,
        ..node("h2", 8)
    };
    let nodes = [node("h1", 7), away, node("h3", 9)];
    let (lines, _) = names(&[], &[], std::slice::from_ref(&shop), &nodes);
    let of_web: Vec<_> = lines.iter().filter(|l| l.starts_with("web ")).collect();
    assert_eq!(of_web, ["web 5 A 10.0.0.7", "web 5 A 10.0.0.9"]);
    assert!(lines.contains(&"_8080._tcp.web 5 SRV 0 1 8080 web".to_owned()));
    // The name of a node stays its own, up or not.
    assert!(lines.contains(&"h2 5 A 10.0.0.8".to_owned()));
    assert!(
        !lines
            .iter()
            .any(|l| l.starts_with("own") || l.starts_with("db"))
    );
    // One with an address of its own has that, however young it is.
    let (lines, words) = names(&[("late/web", address(1, 99))], &[], &[shop], &nodes);
    assert!(lines.contains(&"web 5 A 10.0.0.1".to_owned()), "{lines:#?}");
    assert_eq!(words.len(), 1, "{words:#?}");
}

#[test]
fn containers_have_the_name_of_their_node_or_project() {
    let container = |name: &str, project: &str, service: &str| ReportedContainer {
        name: name.to_owned(),
        project: project.to_owned(),
        service: service.to_owned(),
        ..ReportedContainer::default()
    };
    let report = Report {
        containers: vec![
            container("jenkins", "", ""),
            container("old-web-1", "old", "web"),
            container("old-web-2", "old", "web"),
        ],
        ..Report::default()
    };
    let h1 = Seen {
        report: Some(Arc::new(report)),
        ..node("h1", 7)
    };
    let (lines, _) = names(
        &[
            ("@id-h1/jenkins", address(1, 1)),
            ("@id-h1/old-web-1", address(2, 1)),
            ("@id-h1/old-web-2", address(3, 1)),
            ("@removed/x", address(4, 1)),
        ],
        &[],
        &[],
        &[h1],
    );
    for wanted in [
        "h1 5 A 10.0.0.7",
        "jenkins.h1 5 A 10.0.0.1",
        "jenkins 5 A 10.0.0.1",
        "web.old 5 A 10.0.0.2",
        "web.old 5 A 10.0.0.3",
        "web 5 A 10.0.0.2",
        "web 5 A 10.0.0.3",
    ] {
        assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
}

#[test]
fn what_was_added_is_there_or_said_to_be_bad() {
    let (lines, words) = names(
        &[],
        &[
            ("www A", &["192.0.2.1", "192.0.2.2"]),
            ("mail A", &["192.0.2"]),
            ("nonsense", &["x"]),
        ],
        &[],
        &[],
    );
    assert_eq!(lines, ["www 60 A 192.0.2.1", "www 60 A 192.0.2.2"]);
    assert_eq!(
        words,
        [
            "mail A: `192.0.2` is no IPv4 address; it was added, and is left out",
            "nonsense: it has no type; it was added, and is left out",
        ]
    );
}

#[test]
fn who_cares_for_the_zone_is_in_its_start() {
    let settings = Director {
        zone: "z.example".to_owned(),
        contact: "it.desk@example.org".to_owned(),
        ..Director::default()
    };
    let start = start(&settings).unwrap();
    assert_eq!(start.contact.to_string(), "it\\.desk.example.org.");
}

#[test]
fn addresses_of_services_are_no_nodes_own() {
    let listed = [
        "10.0.0.5:7700",
        "127.0.0.1:7700",
        "[fd00::5]:7700",
        "10.0.0.9:7700",
        "10.0.0.5:9",
    ];
    let listed = listed.map(str::to_owned);
    let given = BTreeSet::from([[10, 0, 0, 9].into()]);
    let all: Vec<String> = reached_at(&listed, &given)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(all, ["10.0.0.5", "fd00::5"]);
}

#[test]
fn a_zone_is_answered_whoever_cares_for_it() {
    let settings = |contact: &str| Director {
        zone: "apps.example.org".to_owned(),
        contact: contact.to_owned(),
        ..Director::default()
    };
    let (begun, wrong) = begin(&settings("it.desk@example.org")).unwrap();
    assert_eq!(
        (begun.contact.to_string().as_str(), wrong),
        ("it\\.desk.example.org.", None)
    );
    let (begun, wrong) = begin(&settings("it@example..org")).unwrap();
    assert_eq!(begun, begin(&settings("")).unwrap().0);
    assert!(wrong.unwrap().contains("is no e-mail address"));
}
