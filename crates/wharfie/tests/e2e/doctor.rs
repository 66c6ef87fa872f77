//! `wharfie doctor` on a host.

use crate::stack::Stack;

#[test]
fn the_doctor_sees_the_engine_and_who_has_ports() {
    let compose = "
services:
  web: {image: busybox, init: true, command: sleep 1000, ports: ['51820:1/udp', '443:2']}
";
    let Some(stack) = Stack::new("sick", compose) else {
        return;
    };
    let doctor = "doctor --state-dir state --socket run/wharfie.sock";
    let well = stack.ok(doctor);
    well.says([
        "ok       Engine ",
        "ok       bridge ",
        "ok       veth ",
        "ok       port 443/tcp ",
    ]);
    assert!(!stack.path("state").exists());

    stack.ok("up -d");
    stack.ok(doctor).says([
        "warning  port 443/tcp",
        "container sick-web-1 has it; Wharfie uses it for HTTPS from outside",
        "mend: publish another port for sick-web-1",
        "warning  port 51820/udp",
    ]);

    stack.write("compose.yaml", &compose.replace("443:2", "7701:2"));
    stack.ok("up -d");
    let findings = stack.fails(1, format!("{doctor} --format json").as_str());
    let findings = findings.json();
    let port = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["check"] == "port 7701/tcp");
    assert_eq!(port.unwrap()["verdict"], "broken");
}
