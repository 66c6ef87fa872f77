//! Attributes of services, as they are seen from inside the containers.

use anyhow::ensure;
use serde_json::json;
use wharfie_lab::EngineKind;

use crate::engines::shared;
use crate::stack::{Stack, soon, text};

#[test]
fn secrets_and_configs_are_files() {
    secrets_and_configs(EngineKind::Debian);
}

#[test]
fn secrets_and_configs_are_files_on_28() {
    secrets_and_configs(EngineKind::Sid28);
}

fn secrets_and_configs(kind: EngineKind) {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    user: '1000'
    secrets:
      - from_file
      - {source: from_env, target: token, uid: '1000', gid: '1000', mode: 0400}
    configs:
      - from_file
      - {source: written, target: /etc/app/app.conf, mode: 0444}
      - {source: from_env, target: /etc/app/env.conf}
secrets:
  from_file: {file: ./secret.txt}
  from_env: {environment: TOKEN}
configs:
  from_file: {file: ./config.txt}
  from_env: {environment: TOKEN}
  written:
    content: |
      colour = ${COLOUR}
      price = $$5
";
    let Some(host) = shared(kind) else { return };
    let mut stack = Stack::on(host, "secretive", compose);
    stack.write("secret.txt", "from a file\n");
    stack.write("config.txt", "config of a file\n");
    stack.fails(1, "up -d").says(["TOKEN"]);
    assert!(stack.names().is_empty());
    stack.env("TOKEN", "very secret");
    stack.env("COLOUR", "red");
    stack.ok("up -d");
    assert_eq!(
        stack.sh("web", "cat /run/secrets/from_file"),
        "from a file\n"
    );
    assert_eq!(
        stack.sh(
            "web",
            "cat /run/secrets/token; stat -c ' %u:%g %a' /run/secrets/token"
        ),
        "very secret 1000:1000 400\n"
    );
    assert_eq!(stack.sh("web", "cat /from_file"), "config of a file\n");
    assert_eq!(
        stack.sh("web", "cat /etc/app/app.conf"),
        "colour = red\nprice = $5\n"
    );
    assert_eq!(
        stack.sh("web", "stat -c %a /etc/app/app.conf; cat /etc/app/env.conf"),
        "444\nvery secret"
    );
    stack.ok([
        "exec",
        "-T",
        "-u",
        "1000",
        "web",
        "cat",
        "/run/secrets/token",
    ]);
    let known = stack.inspect("web-1").to_string();
    assert!(
        !known.contains("very secret"),
        "the secret is in what everybody can inspect: {known}"
    );

    // It survives a stop, and new content comes with a new container.
    stack.ok("restart -t 0 web");
    assert_eq!(stack.sh("web", "cat /run/secrets/token"), "very secret");
    stack.ok("up -d").says(["Nothing to do"]);
    stack.env("COLOUR", "blue");
    stack.ok("up -d").says(["secretive-web-1  Recreated"]);
    assert_eq!(
        stack.sh("web", "head -n 1 /etc/app/app.conf"),
        "colour = blue\n"
    );
}

#[test]
fn a_pod_shares_its_network() {
    let compose = "
services:
  front:
    image: busybox
    init: true
    command: sleep 1000
    restart: always
    ports: ['8193:80']
    environment: [A=1]
  server:
    image: busybox
    init: true
    command: [sh, -c, 'mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www']
    network_mode: service:front
";
    let Some(stack) = Stack::new("pod", compose) else {
        return;
    };
    stack.ok("up -d");
    assert_eq!(stack.page("http://127.0.0.1:8193/"), "served\n");
    assert_eq!(stack.sh("front", "wget -qO- http://127.0.0.1/"), "served\n");
    assert_eq!(
        stack.inspect("server-1")["HostConfig"]["NetworkMode"],
        format!("container:{}", stack.id("front-1"))
    );
    stack.ok("up -d").says(["Nothing to do"]);

    // One that ends and that the Engine starts again has another network: who lives there is brought along.
    let server = stack.id("server-1");
    stack.run("exec -T front killall sleep");
    soon(|| {
        let count = stack.inspect("front-1")["RestartCount"].as_u64();
        ensure!(count > Some(0), "front was not started again: {count:?}");
        Ok(())
    });
    assert_eq!(stack.page("http://127.0.0.1:8193/"), "served\n");
    assert_eq!(stack.id("server-1"), server, "it need not be made anew");

    // Who lives in another's network moves with it.
    stack.write("compose.yaml", &compose.replace("A=1", "A=2"));
    stack
        .ok("up -d")
        .says(["pod-front-1  Recreated", "pod-server-1  Recreated"]);
    assert_ne!(stack.id("server-1"), server);
    assert_eq!(stack.page("http://127.0.0.1:8193/"), "served\n");
}

#[test]
fn hooks_run_in_the_container() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    user: '1000'
    volumes: [data:/data]
    post_start:
      - {command: [sh, -c, 'echo started by $$(id -u) >>/data/note'], user: root}
      - {command: [sh, -c, 'chmod 666 /data/note; echo with $$A >>/data/note'], user: root, environment: [A=b]}
    pre_stop:
      - {command: [sh, -c, 'echo stopping >>/data/note']}
volumes: {data: }
";
    let Some(stack) = Stack::new("hooks", compose) else {
        return;
    };
    stack.ok("up -d");
    assert_eq!(stack.sh("web", "cat /data/note"), "started by 0\nwith b\n");
    stack.ok("down");
    stack.ok("up -d");
    assert_eq!(
        stack.sh("web", "head -n 3 /data/note"),
        "started by 0\nwith b\nstopping\n"
    );

    stack.write(
        "compose.yaml",
        &compose.replace("chmod 666 /data/note;", "echo no luck; exit 3;"),
    );
    stack.fails(1, "up -d").says(["post_start", "3"]);
}

#[test]
fn networks_are_as_written() {
    let compose = "
services:
  a:
    image: busybox
    init: true
    command: sleep 1000
    hostname: alpha
    networks:
      front: {ipv4_address: 10.123.45.67, aliases: [first, other]}
      closed:
    extra_hosts: ['far=10.9.8.7']
    dns: [10.123.45.67]
  b:
    image: busybox
    init: true
    command: sleep 1000
    networks: [front]
    links: ['a:linked']
  alone: {image: busybox, init: true, command: sleep 1000, network_mode: none}
  fixed: {image: busybox, init: true, command: sleep 1000, container_name: my-own-name, networks: [theirs]}
networks:
  front:
    name: front-of-networks
    driver_opts: {com.docker.network.bridge.name: br-of-nets}
    labels: {kind: front}
    ipam: {config: [{subnet: 10.123.45.0/24, gateway: 10.123.45.1}]}
  closed: {internal: true}
  theirs: {external: true, name: theirs-of-networks}
  unused: {}
";
    let Some(stack) = Stack::new("networks", compose) else {
        return;
    };
    let engine = stack.host.engine();
    stack
        .fails(1, "up -d")
        .says(["theirs-of-networks", "compose.yaml:"]);
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
    engine
        .api(
            "POST",
            "/networks/create",
            Some(&json!({ "Name": "theirs-of-networks" })),
        )
        .unwrap();
    stack.ok("up -d");
    assert_eq!(
        stack.resources("networks"),
        ["front-of-networks", "networks_closed"]
    );
    assert_eq!(
        stack.sh(
            "a",
            "hostname; ip -4 addr | grep -c 10.123.45.67/24; cat /etc/hosts | grep far | cut -f 1"
        ),
        "alpha\n1\n10.9.8.7\n"
    );
    for name in [
        "a",
        "first",
        "other",
        "linked",
        "networks-a-1",
        "10.123.45.67",
    ] {
        stack.ok(["exec", "-T", "b", "ping", "-c", "1", "-W", "2", name]);
    }
    assert_eq!(stack.sh("alone", "ls /sys/class/net"), "lo\n");
    let fixed = engine
        .api("GET", "/containers/my-own-name/json", None)
        .unwrap();
    assert_eq!(
        fixed["Config"]["Labels"]["com.docker.compose.service"],
        "fixed"
    );
    let closed = engine
        .api("GET", "/networks/networks_closed", None)
        .unwrap();
    assert_eq!(closed["Internal"], true);
    stack
        .fails(1, "up -d --scale fixed=2")
        .says(["container_name"]);
    stack.ok("down -t 0");
    assert!(stack.resources("networks").is_empty());
    engine
        .api("DELETE", "/networks/theirs-of-networks", None)
        .expect("an external network is not ours to remove");
}

#[test]
fn attributes_reach_the_engine() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    entrypoint: [sleep]
    command: ['1000']
    user: '12:34'
    working_dir: /srv
    hostname: here
    env_file: [one.env, {path: none.env, required: false}]
    environment: {DIRECT: 'yes', FROM_SHELL: }
    labels: {my.label: value}
    stop_signal: SIGINT
    stop_grace_period: 7s
    restart: on-failure:3
    cap_add: [NET_ADMIN]
    cap_drop: [MKNOD]
    ulimits: {nofile: {soft: 1000, hard: 2000}, nproc: 500}
    sysctls: {net.core.somaxconn: 99}
    tmpfs: ['/scratch:size=1m,mode=700']
    shm_size: 8m
    read_only: true
    mem_limit: 64m
    pids_limit: 50
    cpus: 0.5
    oom_score_adj: 100
    security_opt: [no-new-privileges:true]
    group_add: ['77']
    logging: {driver: json-file, options: {max-size: 1m}}
    devices: ['/dev/null:/dev/mine:r']
    ipc: private
    volumes:
      - {type: bind, source: ./made, target: /made, bind: {create_host_path: true}}
      - {type: tmpfs, target: /t, tmpfs: {size: 65536}}
";
    let Some(mut stack) = Stack::new("attributes", compose) else {
        return;
    };
    stack.write("one.env", "FILED=in ${WHERE:-file}\nDIRECT=no\n");
    stack.env("FROM_SHELL", "shell");
    stack.ok("up -d");
    let seen = stack.inspect("web-1");
    let (config, host) = (&seen["Config"], &seen["HostConfig"]);
    for (name, value, expected) in [
        ("entrypoint", &config["Entrypoint"], json!(["sleep"])),
        ("command", &config["Cmd"], json!(["1000"])),
        ("user", &config["User"], json!("12:34")),
        ("working_dir", &config["WorkingDir"], json!("/srv")),
        ("hostname", &config["Hostname"], json!("here")),
        ("label", &config["Labels"]["my.label"], json!("value")),
        ("stop_signal", &config["StopSignal"], json!("SIGINT")),
        ("stop_grace_period", &config["StopTimeout"], json!(7)),
        (
            "restart",
            &host["RestartPolicy"],
            json!({ "Name": "on-failure", "MaximumRetryCount": 3 }),
        ),
        (
            "sysctls",
            &host["Sysctls"]["net.core.somaxconn"],
            json!("99"),
        ),
        ("shm_size", &host["ShmSize"], json!(8 << 20)),
        ("read_only", &host["ReadonlyRootfs"], json!(true)),
        ("mem_limit", &host["Memory"], json!(64 << 20)),
        ("pids_limit", &host["PidsLimit"], json!(50)),
        ("cpus", &host["NanoCpus"], json!(500_000_000)),
        ("oom_score_adj", &host["OomScoreAdj"], json!(100)),
        ("group_add", &host["GroupAdd"], json!(["77"])),
        (
            "logging",
            &host["LogConfig"],
            json!({ "Type": "json-file", "Config": { "max-size": "1m" } }),
        ),
        ("ipc", &host["IpcMode"], json!("private")),
        ("init", &host["Init"], json!(true)),
        (
            "ulimits",
            &host["Ulimits"],
            json!([
                { "Name": "nofile", "Hard": 2000, "Soft": 1000 },
                { "Name": "nproc", "Hard": 500, "Soft": 500 }
            ]),
        ),
    ] {
        assert_eq!(*value, expected, "{name}");
    }
    assert!(
        text(&host["CapAdd"][0]).ends_with("NET_ADMIN")
            && text(&host["CapDrop"][0]).ends_with("MKNOD")
    );
    let inside = stack.sh(
        "web",
        "echo $DIRECT $FILED $FROM_SHELL; ls -ld /scratch | cut -c 1-10; id -G; test -d /made && echo made; \
         cat /proc/sys/net/core/somaxconn; test -c /dev/mine && echo device; touch /x 2>&1; df -k /t | grep -c ' 64 '",
    );
    assert_eq!(
        inside,
        "yes in file shell\ndrwx------\n34 77\nmade\n99\ndevice\ntouch: /x: Read-only file system\n1\n"
    );
    assert!(stack.path("made").is_dir());
    soon(|| {
        anyhow::ensure!(stack.inspect("web-1")["State"]["Running"] == true);
        Ok(())
    });
}
