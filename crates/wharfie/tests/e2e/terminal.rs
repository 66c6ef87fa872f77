//! What only a real terminal shows: tmux is the terminal, and its screen is what is looked at.

use std::process::Command;

use anyhow::ensure;

use crate::stack::{Stack, soon, wharfie};

/// A terminal in which one `wharfie` runs. When that has ended, its exit code and the terminal's
/// state are on the screen.
pub(crate) struct Terminal<'a> {
    stack: &'a Stack,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// Opens one of 100 columns and 30 rows.
    pub(crate) fn run(stack: &'a Stack, arguments: &str) -> Self {
        let socket = stack.path("terminal.socket").display().to_string();
        let terminal = Self { stack, socket };
        // A developer's wish for no colours is none for no movement.
        let line = format!(
            "unset NO_COLOR; {} {arguments}; echo code=$?; stty -a | grep -o '.icanon'; exec sleep 1000",
            wharfie()
        );
        let ran = terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            &line,
        ]);
        ran.has_code(0);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> crate::stack::Ran {
        let all: Vec<&str> = ["-S", &self.socket]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.stack.program("tmux", all.as_slice())
    }

    /// Types keys, named as tmux names them.
    fn keys(&self, keys: &[&str]) {
        let all: Vec<&str> = ["send-keys"]
            .into_iter()
            .chain(keys.iter().copied())
            .collect();
        self.tmux(&all).has_code(0);
    }

    /// Types a line.
    pub(crate) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).has_code(0);
        self.keys(&["Enter"]);
    }

    pub(crate) fn resize(&self, columns: &str, rows: &str) {
        self.tmux(&["resize-window", "-x", columns, "-y", rows])
            .has_code(0);
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).stdout
    }

    /// Waits for a screen.
    #[track_caller]
    fn shows(&self, what: &str, look: impl Fn(&str) -> bool) -> String {
        soon(|| {
            let screen = self.screen();
            ensure!(look(&screen), "{what} is not on the screen:\n{screen}");
            Ok(screen)
        })
    }

    /// Waits for a text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        self.shows(text, |screen| screen.contains(text))
    }

    /// Waits for the end with this code, after which the terminal must read lines again.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> String {
        self.shows("the end", |screen| {
            screen.contains(&format!("code={code}\n icanon"))
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// A stack, if there can be a terminal for it.
fn stack(name: &str, compose: &str) -> Option<Stack> {
    if !there_is_a_terminal() {
        return None;
    }
    Stack::new(name, compose)
}

/// Whether there can be a terminal here.
pub(crate) fn there_is_a_terminal() -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "cannot be tested: tmux is not installed"
    );
    if !there {
        eprintln!("skipped: tmux is not installed");
    }
    there
}

const WEB: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000}
  shell: {image: busybox, tty: true, stdin_open: true, command: sh}
";

#[test]
fn exec_hands_the_terminal_over() {
    let Some(stack) = stack("execterm", WEB) else {
        return;
    };
    stack.ok("up -d web");
    let terminal = Terminal::run(&stack, "exec web sh");
    terminal.says("/ #");
    terminal.line("echo a''b");
    terminal.says("\nab\n");
    // Ctrl-C is for the process inside.
    // The shell gives the terminal back before it runs anything: only then is there an echo.
    terminal.line("echo no''w; cat");
    terminal.says("\nnow\n");
    terminal.line("hello");
    terminal.shows("an echo", |screen| screen.matches("hello\n").count() == 2);
    terminal.keys(&["C-c"]);
    terminal.line("echo ended with $?");
    terminal.says("ended with 130");
    // So is a new size, as soon as it has arrived.
    terminal.resize("77", "22");
    soon(|| {
        terminal.line("stty size");
        let screen = terminal.screen();
        ensure!(screen.contains("22 77"), "{screen}");
        Ok(())
    });
    terminal.line("clear; exit 4");
    terminal.ends_with(4);
}

#[test]
fn an_attached_container_can_be_left() {
    let Some(stack) = stack("attachterm", WEB) else {
        return;
    };
    stack.ok("up -d shell");
    let started = || stack.inspect("shell-1")["State"]["StartedAt"].clone();
    let before = started();
    {
        let terminal = Terminal::run(&stack, "attach shell");
        terminal.line("");
        terminal.says("/ #");
        terminal.line("echo a''b");
        terminal.says("\nab\n");
        terminal.keys(&["C-p", "C-q"]);
        terminal.ends_with(0);
    }
    assert_eq!(stack.inspect("shell-1")["State"]["Running"], true);
    assert_eq!(started(), before);
    let terminal = Terminal::run(&stack, "attach --detach-keys ctrl-x,x shell");
    terminal.line("");
    terminal.says("/ #");
    // Now these are the shell's: they bring the last line back, which is then wiped.
    terminal.keys(&["C-p", "C-q", "C-u"]);
    terminal.line("exit 3");
    terminal.ends_with(3);
}

#[test]
fn stats_are_renewed_in_place() {
    let Some(stack) = stack("statsterm", WEB) else {
        return;
    };
    stack.ok("up -d web");
    let terminal = Terminal::run(&stack, "stats web");
    terminal.says("statsterm-web-1");
    stack.ok("up -d --scale web=3 web");
    let screen = terminal.shows("the third", |screen| {
        screen.contains("statsterm-web-3") && !screen.contains("--")
    });
    assert_eq!(screen.matches("CONTAINER ID").count(), 1, "{screen}");
    assert_eq!(screen.matches("statsterm-web-1").count(), 1, "{screen}");
    // Less room: lines are cut rather than wrapped, so that none is left over.
    terminal.resize("50", "10");
    let narrow = |screen: &str| {
        screen.lines().filter(|l| !l.trim().is_empty()).count() == 4
            && screen.lines().all(|l| l.chars().count() <= 50)
            && screen.contains("statsterm-web-3")
    };
    terminal.shows("a narrow table", narrow);
    stack.ok("up -d --scale web=1 web");
    terminal.shows("only the first", |screen| {
        screen.contains("statsterm-web-1")
            && !screen.contains("statsterm-web-2")
            && !screen.contains("statsterm-web-3")
    });
    terminal.keys(&["C-c"]);
    terminal.ends_with(130);
}

#[test]
fn progress_changes_in_place() {
    let compose = "
services:
  slow: {image: busybox, init: true, command: sleep 1000, healthcheck: {test: [CMD, test, -e, /ready], interval: 1s, retries: 100}}
  after: {image: busybox, init: true, command: [sh, -c, 'echo it speaks; sleep 1000'], depends_on: {slow: {condition: service_healthy}}}
";
    let Some(stack) = stack("upterm", compose) else {
        return;
    };
    {
        let terminal = Terminal::run(&stack, "up -d");
        // What goes on stands there once, and is not done yet.
        let screen = terminal.shows("a container that is waited for", |screen| {
            screen.contains("upterm-slow-1") && screen.contains("Waiting")
        });
        assert_eq!(
            screen.matches("Container upterm-slow-1").count(),
            1,
            "{screen}"
        );
        terminal.resize("60", "12");
        stack.ok("exec -T slow touch /ready");
        let screen = terminal.ends_with(0);
        assert_eq!(
            screen.matches("Container upterm-slow-1").count(),
            1,
            "{screen}"
        );
        assert_eq!(screen.matches("[+] Running").count(), 1, "{screen}");
        assert!(
            screen.contains("Container upterm-after-1") && !screen.contains("Waiting"),
            "{screen}"
        );
    }
    stack.ok("stop -t 0 after");
    let terminal = Terminal::run(&stack, "up -t 0");
    terminal.says("it speaks");
    terminal.keys(&["C-c"]);
    terminal.says("Gracefully");
    terminal.ends_with(130);
    assert_eq!(stack.inspect("after-1")["State"]["Running"], false);
}
