//! DockerMod's protocol at an agent, its templates, and the import of what DockerMod had.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wharfie_lab::{EngineKind, Request, Spawned};

use crate::engines::own;
use crate::stack::{Stack, agent_of, ask_agent, soon, text, wharfie};

const TOKEN: &str = "0123456789abcdef";

/// As DockerMod shipped it, with a comment.
const CONF: &str = r#"// Example
{
  "main": "com.deblox.docker.DockerMod",
  "services": ["com.deblox.docker.services.HttpService"],
  "clusterAddress": "deblox",
  "dockerHost": "localhost",
  "dockerPort": 5555,
  "announceInterval": 1250,
  "taskTimeout": 2500
}
"#;

const TEMPLATE: &str = r#"{
  "Hostname": "TESTNODE", "Memory": 0, "PortSpecs": ["80", "22"], "Env": null,
  "Cmd": ["/bin/sleep", "1000"], "Dns": null, "Image": "busybox", "VolumesFrom": "",
  "HostConfig": {"PublishAllPorts": true}
}
"#;

/// A folder, and an agent that reads `wharfie.toml` in it.
fn agent(name: &str) -> Option<(Stack, Spawned)> {
    let stack = Stack::on(own(EngineKind::Debian)?, name, "services: {}");
    stack.write("wharfie.toml", "log-level = \"debug\"\n");
    let mut command = stack.host.command(wharfie());
    command
        .args(["agent", "--config"])
        .arg(stack.path("wharfie.toml"))
        .arg("--engine")
        .arg(format!("unix://{}", stack.host.engine().socket().display()))
        .envs(agent_of(&stack.host));
    let agent = stack.host.machine().spawn(command).unwrap();
    soon(|| {
        let [(_, socket), _] = agent_of(&stack.host);
        let info = ask_agent(&socket, "GET", "/v1/info")?;
        ensure!(info["engine_away"].is_null(), "{info}");
        Ok(())
    });
    Some((stack, agent))
}

fn post(stack: &Stack, url: &str, token: Option<&str>, body: &Value) -> Result<(u16, Value)> {
    let mut request = Request::new("POST", "/").body(body.to_string());
    if let Some(token) = token {
        request = request.header("Authorization", &format!("Bearer {token}"));
    }
    let response = stack.host.http(url, &request)?;
    Ok((response.status, response.json()?))
}

#[test]
fn what_dockermod_had_goes_on() {
    let Some((stack, _agent)) = agent("imported") else {
        return;
    };
    stack.write("conf.json", CONF);
    stack.write("templates/test.json", TEMPLATE);
    let url = "http://127.0.0.1:8080/";
    let list = json!({"action": "list-containers"});

    // Nothing is done that only was to be said.
    let import = "dockermod import conf.json --config wharfie.toml";
    stack
        .ok(&*format!("--dry-run {import}"))
        .says(["127.0.0.1:8080", "would be added"]);
    assert!(stack.ok("template ls -q").lines().is_empty());
    assert!(post(&stack, url, None, &list).is_err());

    let said = stack.ok(import);
    for key in [
        "services",
        "clusterAddress",
        "dockerPort",
        "templates/test.json",
    ] {
        said.says([key]);
    }
    stack.ok("reload").says(["changed: dockermod-listen"]);
    stack.ok("reload").says(["nothing changed"]);
    let (status, reply) = post(&stack, url, None, &list).unwrap();
    assert_eq!(
        (status, &reply["statusCode"]),
        (200, &json!(200)),
        "{reply}"
    );
    let create = json!({"action": "create-container", "template": "test", "instances": 2});
    let (_, reply) = post(&stack, url, None, &create).unwrap();
    let made = reply["containers"].as_array().unwrap();
    assert_eq!(made.len(), 2, "{reply}");
    for made in made {
        assert_eq!(made["statusCode"], 201, "{reply}");
        let id = text(&made["Response"]["Body"]["Id"]);
        let start = json!({"action": "start-container", "id": id});
        let (_, reply) = post(&stack, url, None, &start).unwrap();
        assert_eq!(
            (&reply["statusCode"], &reply["Response"]),
            (&json!(204), &json!(""))
        );
        let engine = stack.host.engine();
        let target = format!("/containers/{id}/json");
        let container = engine.api("GET", &target, None).unwrap();
        assert_eq!(container["State"]["Running"], true);
        assert!(
            container["NetworkSettings"]["Ports"]["22/tcp"].is_array(),
            "{container}"
        );
        let shutdown = json!({"action": "shutdown-container", "id": &id[..12], "timeout": 0});
        let (_, reply) = post(&stack, url, None, &shutdown).unwrap();
        assert_eq!(reply["statusCode"], 204, "{reply}");
        assert!(engine.api("GET", &target, None).is_err());
    }

    // What is set stays, and is said.
    let again = stack.ok(&*format!("{import} --format json")).json();
    let services = again
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["key"] == "services");
    let what = text(&services.unwrap()["what"]);
    assert!(what.contains("already"), "{what}");
    let settings = std::fs::read_to_string(stack.path("wharfie.toml")).unwrap();
    assert_eq!(
        settings.matches("dockermod-listen").count(),
        1,
        "{settings}"
    );

    stack.write("conf.json", "{\"main\": 1,\n ]");
    stack
        .fails(2, import)
        .says(["conf.json:2:2: it is no JSON"]);
    stack.write("conf.json", CONF);
    stack.write("templates/web.json", "{\"Cmd\": []}");
    stack.fails(2, import).says(["web.json: it has no `Image`"]);
}

#[test]
fn templates_are_kept() {
    let Some((stack, _agent)) = agent("templates") else {
        return;
    };
    stack.write("test.json", TEMPLATE);
    stack.ok("--dry-run template put test test.json");
    assert!(stack.ok("template ls -q").lines().is_empty());
    stack.ok("template put test test.json");
    let shown = stack.ok("template show test").json();
    let written: Value = serde_json::from_str(TEMPLATE).unwrap();
    assert_eq!(shown, written);
    stack.write("other.json", "{\"Image\": \"other\"}");
    stack.ok("template put test other.json");
    stack.ok("template put more test.json");
    let list = stack.ok("template ls --format json").json();
    let rows: Vec<(String, String, &Value)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (text(&t["name"]), text(&t["image"]), &t["revision"]))
        .collect();
    let expected = [
        ("more".to_owned(), "busybox".to_owned(), &json!(1)),
        ("test".to_owned(), "other".to_owned(), &json!(2)),
    ];
    assert_eq!(rows, expected);
    stack.ok("template ls").says(["NAME", "IMAGE", "REVISION"]);

    stack.write("bad.json", "{\n  \"Image\": \"a\"\n  \"Cmd\": []\n}");
    let bad = stack.fails(2, "template put bad bad.json");
    bad.says(["bad.json:3:3: it is no JSON: expected `,` or `}`"]);
    stack.write("bad.json", "{}");
    stack
        .fails(2, "template put bad bad.json")
        .says(["it has no `Image`"]);
    stack
        .fails(2, "template put bad/name test.json")
        .says(["is no name"]);
    stack
        .fails(2, "template put bad nowhere.json")
        .says(["cannot read nowhere.json"]);
    stack
        .fails(1, "template show bad")
        .says(["there is no template bad"]);

    stack
        .fails(1, "template rm bad test")
        .says(["there is no template bad"]);
    stack
        .ok("--dry-run template rm more")
        .says(["remove template more"]);
    assert_eq!(stack.ok("template ls -q").lines(), ["more"]);
    stack.fails(1, "template show test");
}

#[test]
fn it_listens_only_where_it_may() {
    let Some((stack, agent)) = agent("listens") else {
        return;
    };
    let engine = stack.host.engine();
    let published = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8090"}]}},
    });
    engine.start_container("holder", &published).unwrap();
    let set = |lines: &str| stack.write("wharfie.toml", lines);

    set("dockermod-listen = 8090");
    let taken = stack.fails(1, "reload");
    taken.says([
        "port 8090 is already taken: container holder has it",
        "another port",
    ]);
    set("dockermod-listen = \"0.0.0.0:8080\"");
    stack
        .fails(2, "reload")
        .says(["other hosts can reach 0.0.0.0:8080", "dockermod-token"]);
    let args = ["agent", "--dockermod-listen", "10.99.0.1:80"];
    stack
        .fails(2, args)
        .says(["other hosts can reach 10.99.0.1:80"]);
    set(&format!(
        "dockermod-listen = \"10.1.2.3:80\"\ndockermod-token = \"{TOKEN}\""
    ));
    stack
        .fails(1, "reload")
        .says(["set `dockermod-listen` to an address of this host"]);

    let (local, lan) = (
        "http://127.0.0.1:8080/",
        format!("http://{}:8080/", stack.host.address()),
    );
    let list = json!({"action": "list-images", "all": true});
    set("dockermod-listen = 8080");
    stack.ok("reload");
    assert_eq!(post(&stack, local, None, &list).unwrap().0, 200);
    assert!(post(&stack, &lan, None, &list).is_err());
    set(&format!(
        "dockermod-listen = \"0.0.0.0:8080\"\ndockermod-token = \"{TOKEN}\""
    ));
    stack
        .ok("reload")
        .says(["dockermod-listen, dockermod-token"]);
    for url in [local, &lan] {
        assert_eq!(post(&stack, url, None, &list).unwrap().0, 401);
        let wrong = Some("0123456789abcdeX");
        assert_eq!(post(&stack, url, wrong, &list).unwrap().0, 401);
        let (status, reply) = post(&stack, url, Some(TOKEN), &list).unwrap();
        assert_eq!(
            (status, &reply["containers"][0]["statusCode"]),
            (200, &json!(200))
        );
    }
    // Nobody reads it in the log.
    assert!(
        agent.log().contains("DockerMod: listening"),
        "{}",
        agent.log()
    );
    assert!(!agent.log().contains(TOKEN));
    set("");
    stack.ok("reload");
    assert!(post(&stack, local, Some(TOKEN), &list).is_err());
    engine.remove_container("holder").unwrap();
}
