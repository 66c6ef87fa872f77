//! What commands say when there is no Engine, or when what is typed makes no sense: no Engine is
//! needed for that.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder with a project, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wharfie-no-engine-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        std::fs::write(path.join("compose.yaml"), "services: {web: {image: a}}\n")
            .expect("a file can be written");
        Self(path)
    }

    fn wharfie(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfie"));
        let host = format!("unix://{}/nobody.sock", self.0.display());
        command
            .args(args)
            .current_dir(&self.0)
            .env_clear()
            .env("DOCKER_HOST", host);
        command
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what is left is in the temporary folder
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_an_engine_the_code_is_4_and_the_way_out_is_told() {
    let folder = Folder::new("engine");
    for args in [
        &["up", "-d"][..],
        &["up"],
        &["up", "--dry-run"],
        &["plan"],
        &["down"],
        &["-p", "x", "down"],
        &["ps"],
        &["ls"],
        &["logs", "-f"],
        &["scale", "web=2"],
        &["pull"],
        &["exec", "web", "true"],
        &["run", "--rm", "web", "true"],
        &["create"],
        &["start"],
        &["stop"],
        &["restart"],
        &["kill"],
        &["rm", "-f"],
        &["pause"],
        &["unpause"],
        &["wait", "web"],
        &["top"],
        &["stats", "--no-stream"],
        &["cp", "web:/etc/hosts", "."],
        &["images"],
        &["volumes"],
        &["inspect"],
        &["attach", "web"],
        &["export", "-o", "web.tar", "web"],
        &["commit", "web"],
        &["push"],
        &["port", "web", "80"],
        &["events"],
    ] {
        let output = folder.wharfie(args);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {text}");
        assert!(
            text.starts_with("error: the Docker Engine is not running"),
            "{args:?}: {text}"
        );
        assert!(
            text.contains("help: start it with `systemctl start docker`"),
            "{args:?}: {text}"
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn nonsense_has_code_2() {
    let folder = Folder::new("usage");
    for args in [
        &["up", "--nope"][..],
        &["up", "--force-recreate", "--no-recreate"],
        &["up", "--build", "--no-build"],
        &["up", "--scale", "web"],
        &["up", "--scale", "nope=2"],
        &["up", "-d", "nope"],
        &["up", "-d", "--abort-on-container-exit"],
        &["up", "--wait-timeout", "3"],
        &["up", "--exit-code-from", "nope"],
        &["down", "nope"],
        &["ps", "nope"],
        &["ps", "--filter", "name=x"],
        &["ps", "--status", "asleep"],
        &["logs", "--tail", "many"],
        &["logs", "--since", "soon"],
        &["scale"],
        &["scale", "web=-1"],
        &["exec", "web"],
        &["run", "-p", "x", "web"],
        &["run", "-v", "a:b", "web"],
        &["port", "web", "http"],
        &["build", "nope"],
        &["wait"],
        &["ls", "--format", "xml"],
    ] {
        let output = folder.wharfie(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn an_unknown_service_is_told_with_those_there_are() {
    let folder = Folder::new("service");
    let text = err(&folder.wharfie(&["logs", "wbe"]));
    assert!(text.contains("no such service: wbe"), "{text}");
    assert!(text.contains("are: web"), "{text}");
}

#[test]
fn only_sockets_are_engine_addresses() {
    let folder = Folder::new("address");
    let output = folder.wharfie(&["-H", "tcp://127.0.0.1:1", "ls"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(err(&output).contains("unix:///"), "{}", err(&output));
}

#[test]
fn the_doctor_finds_that_there_is_none() {
    let folder = Folder::new("doctor");
    let output = folder.wharfie(&["doctor", "--state-dir", "state", "--socket", "run/sock"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}{}", err(&output));
    for text in [
        "broken   Engine",
        "mend: start it with `systemctl start docker`",
        "state is not there yet; the agent makes it",
        "ok       memory",
    ] {
        assert!(said.contains(text), "{text:?} is not in\n{said}");
    }
    assert!(err(&output).contains("error: something is broken"));
    assert!(
        !folder.0.join("state").exists(),
        "the doctor changes nothing"
    );
}
