//! Bad input: each fault is named with its place, all of them at once, within bounds.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;
use std::time::{Duration, Instant};

use wharfie_compose::{Faults, LoadOptions, Loaded, load};

/// A folder of its own for each test, gone with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let dir =
            std::env::temp_dir().join(format!("wharfie-faults-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, content) in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Self(dir)
    }

    fn load(&self) -> Result<Loaded, Faults> {
        load(&LoadOptions {
            working_dir: self.0.clone(),
            ..LoadOptions::default()
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn faults(name: &str, text: &str) -> Vec<String> {
    let folder = Folder::new(name, &[("compose.yaml", text.as_bytes())]);
    let faults = folder.load().expect_err("the file has faults");
    faults.0.iter().map(ToString::to_string).collect()
}

/// Faults come within this time, whatever the input: far above what they take, far below a hang.
fn soon<T>(body: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = body();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "took {:?}",
        start.elapsed()
    );
    result
}

#[test]
fn every_fault_of_a_file_is_named_in_order() {
    let found = faults(
        "all",
        "services:\n  web:\n    imagee: nginx\n    ports: nope\n    init: maybe\n    networks: [gone]\n  db:\n    image: 5\n    mem_limit: lots\n",
    );
    let starts = [
        "compose.yaml:3:5: unknown attribute `imagee`",
        "compose.yaml:4:12: `services.web.ports` must be a list",
        "compose.yaml:5:11: `services.web.init`",
        "compose.yaml:8:12: `services.db.image` must be a string",
        "compose.yaml:9:16: `services.db.mem_limit`: invalid size",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (fault, start) in found.iter().zip(starts) {
        assert!(
            fault.starts_with(start),
            "{fault} does not begin with {start}"
        );
    }
}

#[test]
fn references_are_checked_all_at_once() {
    let found = faults(
        "refs",
        "services:\n  web:\n    image: a\n    networks: [gone]\n    depends_on: [nobody]\n    secrets: [missing]\n  empty: {}\n",
    );
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("compose.yaml:4:16: service `web` refers to network `gone`"));
    assert!(found[1].starts_with("compose.yaml:5:18: service `web` depends on service `nobody`"));
    assert!(found[2].starts_with("compose.yaml:6:15: service `web` refers to secret `missing`"));
    assert!(
        found[3].starts_with("compose.yaml:7:3: service `empty` has neither `image` nor `build`")
    );
}

#[test]
fn suggestions_help() {
    let folder = Folder::new(
        "help",
        &[("compose.yaml", b"services:\n  a:\n    imag: x\n")],
    );
    let faults = folder.load().unwrap_err();
    assert_eq!(faults.0[0].help.as_deref(), Some("did you mean `image`?"));
}

#[test]
fn required_variables_and_files() {
    let found = faults("var", "services:\n  a:\n    image: ${TAG:?say which}\n");
    assert_eq!(
        found,
        ["compose.yaml:3:12: required variable TAG is not set: say which"]
    );
    let found = faults(
        "env",
        "services:\n  a:\n    image: x\n    env_file: [gone.env]\n",
    );
    assert!(
        found[0].starts_with("compose.yaml:4:16: env_file")
            && found[0].contains("gone.env not found"),
        "{found:?}"
    );
}

#[test]
fn cycles() {
    let found = faults(
        "cycle",
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n",
    );
    assert!(
        found[0].contains("dependency cycle: a -> b -> c -> a"),
        "{found:?}"
    );
    let found = faults(
        "extends",
        "services:\n  a: {extends: b}\n  b: {extends: a}\n",
    );
    assert!(found[0].contains("circular reference"), "{found:?}");
    let folder = Folder::new(
        "include",
        &[
            ("compose.yaml", b"include: [b.yaml]\n"),
            ("b.yaml", b"include: [compose.yaml]\n"),
        ],
    );
    assert!(
        folder
            .load()
            .unwrap_err()
            .to_string()
            .contains("include cycle")
    );
    let found = faults("alias", "services: &s\n  a: *s\n");
    assert!(
        found[0].contains("inside the value it stands for"),
        "{found:?}"
    );
}

#[test]
fn broken_text() {
    let folder = Folder::new(
        "utf8",
        &[("compose.yaml", b"services:\n  a: {image: \xff}\n")],
    );
    let fault = folder.load().unwrap_err().to_string();
    assert!(
        fault.starts_with("compose.yaml:2:14: not valid UTF-8"),
        "{fault}"
    );
    let found = faults("tab", "services:\n\ta: {image: x}\n");
    assert!(
        found[0].starts_with("compose.yaml:2:") && found[0].contains("not valid YAML"),
        "{found:?}"
    );
    let found = faults("twice", "services:\n  a: {image: x}\n  a: {image: y}\n");
    assert_eq!(
        found,
        ["compose.yaml:3:3: `a` is already defined on line 2"]
    );
    let found = faults("empty", "");
    assert_eq!(found, ["the compose file is empty"]);
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "x-a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let previous = format!("*a{}, ", i - 1).repeat(9);
        bomb += &format!("x-a{i}: &a{i} [{}]\n", previous.trim_end_matches(", "));
    }
    let found = soon(|| faults("bomb", &(bomb + "services: {}\n")));
    assert!(
        found[0].contains("aliases expand to more than"),
        "{found:?}"
    );

    let deep = format!("x-a: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let found = soon(|| faults("deep", &deep));
    assert_eq!(found.len(), 1, "{found:?}");

    let mut deep = String::from("x-a:\n");
    for i in 1..2000 {
        deep += &format!("{}a:\n", " ".repeat(i));
    }
    let found = soon(|| faults("deep-blocks", &deep));
    assert!(
        found[0].contains("levels deep") || found[0].contains("not valid YAML"),
        "{found:?}"
    );
}

#[test]
fn ten_megabytes_are_refused_and_one_is_read() {
    let service =
        "  s0: {image: x, environment: {A: \"0123456789012345678901234567890123456789\"}}\n";
    let text = |bytes: usize| {
        let mut text = String::from("services:\n");
        let mut i = 0;
        while text.len() < bytes {
            text += &service.replace("s0", &format!("s{i}"));
            i += 1;
        }
        text
    };
    let found = soon(|| faults("large", &text(10 << 20)));
    assert!(found[0].contains("larger than"), "{found:?}");
    let folder = Folder::new("one", &[("compose.yaml", text(1 << 20).as_bytes())]);
    soon(|| {
        folder
            .load()
            .map(|l| l.project.services.len())
            .expect("it is a valid file")
    });
}

#[test]
fn places_lead_through_short_forms_and_included_files() {
    let folder = Folder::new(
        "places",
        &[
            ("compose.yaml", b"include: [sub/b.yaml]\nservices:\n  a:\n    image: x\n    ports:\n      - 80:80\n"),
            ("sub/b.yaml", b"services:\n  b:\n    image: x\n    privileged: true\n"),
        ],
    );
    let loaded = folder.load().unwrap();
    let place = |path: &str| loaded.locate(path).map(|l| (l.file, l.line, l.column));
    let main = Path::new("compose.yaml").to_owned();
    assert_eq!(
        place("services.a.ports[0].published"),
        Some((main.clone(), 6, 9))
    );
    assert_eq!(place("services.a.hostname"), Some((main, 3, 3)));
    assert_eq!(
        place("services.b.privileged"),
        Some((Path::new("sub/b.yaml").to_owned(), 4, 5))
    );
}

#[test]
fn own_settings_are_as_strict() {
    let found = faults(
        "x",
        "x-wharfie: {colour: red}\nservices:\n  a: {image: x, x-wharfie: {nope: 1}}\n",
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("compose.yaml:1:13: unknown attribute `colour`"),
        "{found:?}"
    );
    let found = faults(
        "y",
        "x-wharfie: {volumes: gone, singleton: 3}\nservices:\n  a: {image: x, x-wharfie: {when-isolated: no}}\n",
    );
    assert_eq!(found.len(), 3, "{found:?}");
    let good = "volumes: fresh, singleton: true, when-isolated: stop, heal: never";
    let file =
        format!("x-wharfie: {{{good}}}\nservices: {{a: {{image: x, x-wharfie: {{{good}}}}}}}\n");
    let folder = Folder::new("z", &[("compose.yaml", file.as_bytes())]);
    folder.load().expect("all of it is known");
}

#[test]
fn firewalls_are_checked_with_their_places() {
    let found = faults(
        "firewall",
        "services:
  vpn:
    image: x
    x-wharfie:
      firewall:
        default: reject
        egress:
          - {interface: tun0, colour: red}
          - {protocol: tcpp, ports: 53}
          - {cidr: 10.0.0.0/40}
          - {interface: a/b}
          - {interface: fifteen-letters*}
",
    );
    let starts = [
        "compose.yaml:6:18: `services.vpn.x-wharfie.firewall.default` cannot be `reject`",
        "compose.yaml:8:31: unknown attribute `colour`",
        "compose.yaml:9:24: `services.vpn.x-wharfie.firewall.egress[1].protocol` cannot be `tcpp`",
        "compose.yaml:10:20: `services.vpn.x-wharfie.firewall.egress[2].cidr` cannot be `10.0.0.0/40`",
        "compose.yaml:11:25: `services.vpn.x-wharfie.firewall.egress[3].interface` cannot be `a/b`",
        "compose.yaml:12:25: `services.vpn.x-wharfie.firewall.egress[4].interface` cannot be `fifteen-letters*`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (fault, start) in found.iter().zip(starts) {
        assert!(
            fault.starts_with(start),
            "{fault} does not begin with {start}"
        );
    }
    let found = faults(
        "firewall-refs",
        "x-wharfie: {firewall: {ingress: [{service: nobody}]}}
services:
  vpn:
    image: x
    x-wharfie:
      firewall:
        egress:
          - {service: [vpn, gone]}
          - {network: nowhere, ports: 0}
          - {cidr: 10.0.0.1, service: vpn}
          - {protocol: icmp, ports: 90-80}
  web:
    image: x
    network_mode: service:vpn
    x-wharfie: {firewall: {}}
",
    );
    let starts = [
        "compose.yaml:1:44: a firewall rule names service `nobody`",
        "compose.yaml:8:29: a firewall rule names service `gone`",
        "compose.yaml:9:23: a firewall rule names network `nowhere`",
        "compose.yaml:9:39: \"0\" is no port",
        "compose.yaml:10:14: a firewall rule has both `cidr` and `service`",
        "compose.yaml:11:30: a firewall rule has `ports`, which protocol icmp has not",
        "compose.yaml:11:37: \"90-80\" is no port",
        "compose.yaml:15:17: service `web` cannot have a firewall of its own: it shares the network of `vpn`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for start in starts {
        assert!(
            found.iter().any(|f| f.starts_with(start)),
            "none of {found:#?} begins with {start}"
        );
    }
    // The rules of the founding note.
    let folder = Folder::new(
        "firewall-good",
        &[(
            "compose.yaml",
            b"services:
  vpn:
    image: x
    x-wharfie:
      affinity: client
      firewall:
        default: drop
        log: true
        egress:
          - interface: tun0
          - {protocol: [tcp, udp], ports: [1198, 53]}
          - {protocol: tcp, ports: 22}
        ingress:
          - {protocol: tcp, ports: 8000-8010, network: default, action: accept}
",
        )],
    );
    folder.load().expect("all of it is known");
}

#[test]
fn endless_files_are_refused() {
    let found = soon(|| {
        faults(
            "zero",
            "services:\n  a:\n    image: x\n    env_file: /dev/zero\n",
        )
    });
    assert!(found[0].contains("larger than"), "{found:?}");
}
