//! A stack under test: its folder, and `wharfie` run in it on a host of a lab.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wharfie_lab::{EngineKind, eventually};

use crate::SOON;
use crate::engines::{Shared, shared};

/// How long any command may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes names of folders and files different.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A stack in a folder of its own. It is taken down when the value is dropped; if the test fails,
/// all that was run and said is printed.
pub(crate) struct Stack {
    pub(crate) host: Shared,
    /// Name of the project, which is the folder's.
    pub(crate) name: String,
    root: PathBuf,
    dir: PathBuf,
    env: Vec<(String, String)>,
    /// Whether the host is one of a cluster: its agent is all that commands know, and what runs
    /// goes with the lab.
    is_node: bool,
    transcript: Mutex<Vec<Entry>>,
}

/// What was run, and how often in a row with the same result.
struct Entry {
    text: String,
    times: usize,
    took: Duration,
}

/// What a command said, and how it ended.
pub(crate) struct Ran {
    line: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

/// Variables by which commands find, or start, the agent of a host.
pub(crate) fn agent_of(host: &wharfie_lab::Host) -> [(&'static str, PathBuf); 2] {
    let home = host.dir().join("wharfie");
    [
        ("WHARFIE_SOCKET", home.join("w.sock")),
        ("WHARFIE_STATE_DIR", home.join("state")),
    ]
}

/// `GET` or `POST` to the agent at a socket.
pub(crate) fn ask_agent(socket: &Path, method: &str, path: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    Ok(serde_json::from_str(body).unwrap_or_default())
}

impl Stack {
    /// A stack on an Engine 20.10, of one file `compose.yaml`. The name must be one no other test
    /// has. None if there can be no Engine here.
    pub(crate) fn new(name: &str, compose: &str) -> Option<Self> {
        Some(Self::on(shared(EngineKind::Debian)?, name, compose))
    }

    /// The same on a given host.
    pub(crate) fn on(host: Shared, name: &str, compose: &str) -> Self {
        let stack = Self::empty(host, name);
        stack.write("compose.yaml", compose);
        stack
    }

    /// The same on a node of a cluster, whose agent the test starts.
    pub(crate) fn on_node(host: Shared, name: &str, compose: &str) -> Self {
        let mut stack = Self::empty(host, name);
        stack.is_node = true;
        stack.write("compose.yaml", compose);
        stack
    }

    /// A stack with a copy of one of `examples/`, named differently.
    pub(crate) fn example(host: Shared, example: &str, name: &str) -> Self {
        let stack = Self::empty(host, name);
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        copy(&examples.join("base"), &stack.root.join("base"));
        copy(&examples.join(example), &stack.dir);
        stack
    }

    fn empty(host: Shared, name: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("wharfie-e2e-{}-{number}", std::process::id()));
        let dir = root.join(name);
        fs::create_dir_all(&dir).unwrap();
        Self {
            host,
            name: name.to_owned(),
            root,
            dir,
            env: Vec::new(),
            is_node: false,
            transcript: Mutex::default(),
        }
    }

    /// Sets an environment variable for all that is run from here on.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file of the stack's folder.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    /// The path of a file in the stack's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// A command on the host, in the stack's folder.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.host.command(program);
        command
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        // What the developer has set must not reach the tests.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("COMPOSE_") || text.starts_with("DOCKER_") && text != "DOCKER_HOST"
            {
                command.env_remove(&name);
            }
        }
        if self.is_node {
            // It would name the Engine, and so nobody else's.
            command.env_remove("DOCKER_HOST");
        }
        command.envs(agent_of(&self.host));
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts `wharfie` in the background.
    pub(crate) fn start<A: Args>(&self, args: A) -> Background<'_> {
        self.spawn(wharfie(), &args.list())
    }

    fn spawn(&self, program: &str, args: &[&str]) -> Background<'_> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) = (
            self.root.join(format!("{number}.out")),
            self.root.join(format!("{number}.err")),
        );
        let child = self
            .command(program, args)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let program = Path::new(program).file_name().unwrap().to_string_lossy();
        Background {
            stack: self,
            line: format!("{program} {}", args.join(" ")),
            child,
            stdout,
            stderr,
            began: Instant::now(),
            done: false,
        }
    }

    /// Runs any program on the host to its end.
    pub(crate) fn program<A: Args>(&self, program: &str, args: A) -> Ran {
        self.spawn(program, &args.list()).end()
    }

    /// Runs `wharfie` to its end, however that is.
    pub(crate) fn run<A: Args>(&self, args: A) -> Ran {
        self.start(args).end()
    }

    /// Runs `wharfie`, which must succeed.
    #[track_caller]
    pub(crate) fn ok<A: Args>(&self, args: A) -> Ran {
        self.fails(0, args)
    }

    /// Runs `wharfie`, which must end with this exit code.
    #[track_caller]
    pub(crate) fn fails<A: Args>(&self, code: i32, args: A) -> Ran {
        let ran = self.run(args);
        ran.has_code(code);
        ran
    }

    /// Runs a shell script in the first container of a service; what it printed.
    #[track_caller]
    pub(crate) fn sh(&self, service: &str, script: &str) -> String {
        self.ok(["exec", "-T", service, "sh", "-c", script]).stdout
    }

    /// Containers of the stack as the Engine lists them, by name; stopped ones too.
    pub(crate) fn containers(&self) -> Vec<Value> {
        let target = format!("/containers/json?all=1&{}", self.label_filter());
        let mut list = self
            .host
            .engine()
            .api("GET", &target, None)
            .unwrap()
            .as_array()
            .unwrap()
            .clone();
        list.sort_by_key(name_of);
        list
    }

    /// Names of all containers of the stack, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.containers().iter().map(name_of).collect()
    }

    /// Names and ids of all containers of the stack, in order.
    pub(crate) fn ids(&self) -> Vec<(String, String)> {
        self.containers()
            .iter()
            .map(|c| (name_of(c), text(&c["Id"])))
            .collect()
    }

    /// Names of the stack's volumes, or networks.
    pub(crate) fn resources(&self, kind: &str) -> Vec<String> {
        let target = format!("/{kind}?{}", self.label_filter());
        let answer = self.host.engine().api("GET", &target, None).unwrap();
        let list = answer
            .get("Volumes")
            .unwrap_or(&answer)
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut names: Vec<String> = list.iter().map(|v| text(&v["Name"])).collect();
        names.sort();
        names
    }

    fn label_filter(&self) -> String {
        format!(
            "filters=%7B%22label%22%3A%5B%22com.docker.compose.project%3D{}%22%5D%7D",
            self.name
        )
    }

    /// What the Engine knows of a container; `web-1` is short for the stack's.
    #[track_caller]
    pub(crate) fn inspect(&self, short: &str) -> Value {
        let target = format!("/containers/{}-{short}/json", self.name);
        self.host.engine().api("GET", &target, None).unwrap()
    }

    /// The id of a container; `web-1` is short for the stack's.
    #[track_caller]
    pub(crate) fn id(&self, short: &str) -> String {
        text(&self.inspect(short)["Id"])
    }

    /// Fetches a page from the host itself, as soon as that works.
    #[track_caller]
    pub(crate) fn page(&self, url: &str) -> String {
        let page = eventually(SOON, || {
            let (status, body) = self.host.http_get(url)?;
            ensure!(status == 200, "{url}: {status} {body}");
            Ok(body)
        });
        page.unwrap()
    }

    fn transcript(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("──── {} in {}", self.name, self.dir.display());
            for Entry { text, times, took } in self.transcript().iter() {
                let times = if *times > 1 {
                    format!(", {times} times")
                } else {
                    String::new()
                };
                eprintln!("{text}, {:.1}s{times})", took.as_secs_f32());
            }
            eprintln!("────");
        }
        if self.is_node {
            let _ = fs::remove_dir_all(&self.root); // what is left is in the temporary folder
            return;
        }
        // From elsewhere and by name, because the files may be invalid by now.
        let mut down = self.host.command(wharfie());
        down.args([
            "-p",
            &self.name,
            "down",
            "-v",
            "--remove-orphans",
            "-t",
            "0",
        ])
        .envs(agent_of(&self.host))
        .current_dir("/");
        if self.host.engine().is_running() {
            match down.output() {
                Ok(done) if done.status.success() => {}
                Ok(done) => eprintln!(
                    "{} stays: {}",
                    self.name,
                    String::from_utf8_lossy(&done.stderr)
                ),
                Err(error) => eprintln!("{} stays: {error}", self.name),
            }
        }
        let _ = fs::remove_dir_all(&self.root); // what is left is in the temporary folder
    }
}

/// A command that runs. It is killed when the value is dropped before its end.
pub(crate) struct Background<'a> {
    stack: &'a Stack,
    line: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    began: Instant,
    done: bool,
}

impl Background<'_> {
    /// What it has printed to standard output.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it has printed to standard error.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Waits until it has printed a text to either.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        let seen = eventually(SOON, || {
            let ended = self.child.try_wait()?;
            let said = self.stdout() + &self.stderr();
            if said.contains(text) {
                return Ok(true);
            }
            match ended {
                Some(_) => Ok(false),
                None => bail!("not said: {text:?}"),
            }
        });
        assert!(
            matches!(seen, Ok(true)),
            "{} did not say {text:?}, but:\n{}{}",
            self.line,
            self.stdout(),
            self.stderr()
        );
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let ended = eventually(PATIENCE, || self.child.try_wait()?.context("still runs"));
        let status = match ended {
            Ok(status) => status,
            Err(_) => {
                let said = self.stop();
                panic!("{} has not ended within {PATIENCE:?}; {said}", self.line)
            }
        };
        self.done = true;
        self.record(&status.to_string());
        Ran {
            line: self.line.clone(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            status,
        }
    }

    /// Kills it; what it had said.
    fn stop(&mut self) -> String {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        self.done = true;
        self.record("killed by the test");
        format!("it said:\n{}{}", self.stdout(), self.stderr())
    }

    fn record(&self, end: &str) {
        let (out, err) = (self.stdout(), self.stderr());
        let between = if out.is_empty() || err.is_empty() {
            ""
        } else {
            "--- standard error:\n"
        };
        let text = format!("$ {}\n{out}{between}{err}({end}", self.line);
        let took = self.began.elapsed();
        let mut transcript = self.stack.transcript();
        match transcript.last_mut() {
            Some(last) if last.text == text => last.times += 1,
            _ => transcript.push(Entry {
                text,
                times: 1,
                took,
            }),
        }
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.stop();
        }
    }
}

impl Ran {
    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn has_code(&self, code: i32) -> &Self {
        let seen = self.status.code();
        assert_eq!(
            seen,
            Some(code),
            "signal {:?}: {self}",
            self.status.signal()
        );
        self
    }

    /// Fails unless it said all of these, on either output.
    #[track_caller]
    pub(crate) fn says<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> &Self {
        let said = format!("{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(said.contains(text), "{text:?} is not said by {self}");
        }
        self
    }

    /// Fails if it said this.
    #[track_caller]
    pub(crate) fn never_says(&self, text: &str) -> &Self {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert!(!said.contains(text), "{text:?} is said by {self}");
        self
    }

    /// Lines of the standard output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// The standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    /// Each line of the standard output as JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {}\n--- standard output:\n{}--- standard error:\n{}({})",
            self.line, self.stdout, self.stderr, self.status
        )
    }
}

/// Arguments: a list, or a text of words.
pub(crate) trait Args {
    /// One by one.
    fn list(&self) -> Vec<&str>;
}

impl Args for &str {
    fn list(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl<const N: usize> Args for [&str; N] {
    fn list(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Args for &[&str] {
    fn list(&self) -> Vec<&str> {
        self.to_vec()
    }
}

/// The binary under test.
pub(crate) fn wharfie() -> &'static str {
    env!("CARGO_BIN_EXE_wharfie")
}

/// Text of a JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Name of a container in the Engine's list.
pub(crate) fn name_of(container: &Value) -> String {
    text(&container["Names"][0])
        .trim_start_matches('/')
        .to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Waits for something to become so.
#[track_caller]
pub(crate) fn soon<T>(look: impl FnMut() -> Result<T>) -> T {
    eventually(SOON, look).unwrap()
}
