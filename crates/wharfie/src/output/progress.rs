//! What goes on, on standard error: lines that change in place on a terminal, a line a change
//! elsewhere.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{say, style};
use crate::terminal;

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// As lines that change in place on a terminal, plain elsewhere.
    #[default]
    Auto,
    /// As lines that change in place.
    Tty,
    /// A line a change.
    Plain,
    /// A JSON object a change.
    Json,
    /// Not at all.
    Quiet,
}

/// What an operation is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It goes on.
    Working,
    /// It is done.
    Done,
    /// It failed.
    Failed,
}

/// Time between redraws.
const TICK: Duration = Duration::from_millis(100);
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Shows what goes on.
pub(crate) struct Progress {
    mode: Mode,
    inner: Mutex<Inner>,
}

struct Inner {
    title: &'static str,
    items: Vec<Item>,
    /// Lines on the screen that the next drawing replaces.
    drawn: usize,
    frame: usize,
}

struct Item {
    id: String,
    text: String,
    detail: String,
    state: State,
    since: Instant,
    took: Option<Duration>,
}

impl Progress {
    /// A display in the given mode; `auto` is decided here.
    pub(crate) fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if terminal::is_terminal(rustix::stdio::stderr()) && movable() => Mode::Tty,
            Mode::Auto => Mode::Plain,
            mode => mode,
        };
        Self {
            mode,
            inner: Mutex::new(Inner {
                title: "Running",
                items: Vec::new(),
                drawn: 0,
                frame: 0,
            }),
        }
    }

    /// Whether lines change in place.
    pub(crate) fn is_tty(&self) -> bool {
        self.mode == Mode::Tty
    }

    /// Names what goes on in the line above all (`Running`, `Pulling`).
    pub(crate) fn title(&self, title: &'static str) {
        self.inner().title = title;
    }

    /// Says what an operation is at now.
    pub(crate) fn update(&self, id: &str, text: &str, state: State) {
        let mut inner = self.inner();
        if !inner.update(id, text, state) {
            return;
        }
        match self.mode {
            Mode::Plain => say(&format!(" {id}  {text}")),
            Mode::Json => {
                let mut object = json!({ "id": id, "status": text });
                if state == State::Failed {
                    object["error"] = json!(true);
                }
                say(&object.to_string());
            }
            Mode::Tty => self.draw(&mut inner),
            Mode::Quiet | Mode::Auto => {}
        }
    }

    /// Says more about an operation, such as how far it is. Seen on a terminal only.
    pub(crate) fn detail(&self, id: &str, detail: &str) {
        let mut inner = self.inner();
        if let Some(item) = inner.items.iter_mut().find(|i| i.id == id) {
            detail.clone_into(&mut item.detail);
        }
    }

    /// Writes a line of a longer text, such as a build's output, above what changes in place.
    pub(crate) fn line(&self, line: &str) {
        let mut inner = self.inner();
        match self.mode {
            Mode::Plain => say(line),
            Mode::Json => say(&json!({ "text": line }).to_string()),
            Mode::Tty => {
                inner.erase();
                say(line);
                self.draw(&mut inner);
            }
            Mode::Quiet | Mode::Auto => {}
        }
    }

    /// Lets something be written above what changes in place.
    pub(crate) fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut inner = self.inner();
        if self.mode != Mode::Tty || inner.drawn == 0 {
            return write();
        }
        inner.erase();
        let result = write();
        self.draw(&mut inner);
        result
    }

    /// Shows progress while the work goes on.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        if self.mode != Mode::Tty {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.finish();
                    return done;
                }
                _ = ticks.tick() => {
                    let mut inner = self.inner();
                    inner.frame += 1;
                    self.draw(&mut inner);
                }
            }
        }
    }

    /// Draws for the last time; what comes next starts a new display.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner();
        if self.mode == Mode::Tty && !inner.items.is_empty() {
            self.draw(&mut inner);
        }
        inner.items.clear();
        inner.drawn = 0;
    }

    fn draw(&self, inner: &mut Inner) {
        let (width, height) = terminal::size(rustix::stdio::stderr()).unwrap_or((80, 24));
        let text = inner.render(usize::from(width), usize::from(height));
        let mut err = anstream::stderr().lock();
        // A display that cannot be written is no reason to stop the work.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the cursor can be moved: colours may be unwanted where movement is fine.
fn movable() -> bool {
    std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        && anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

impl Inner {
    /// Whether that is news.
    fn update(&mut self, id: &str, text: &str, state: State) -> bool {
        let item = match self.items.iter_mut().find(|i| i.id == id) {
            Some(item) if item.text == text && item.state == state => return false,
            Some(item) => item,
            None => {
                self.items.push(Item {
                    id: id.to_owned(),
                    text: String::new(),
                    detail: String::new(),
                    state,
                    since: Instant::now(),
                    took: None,
                });
                let last = self.items.len() - 1;
                &mut self.items[last]
            }
        };
        if item.took.is_some() && state == State::Working {
            item.since = Instant::now();
        }
        text.clone_into(&mut item.text);
        item.detail.clear();
        item.state = state;
        item.took = (state != State::Working).then(|| item.since.elapsed());
        true
    }

    /// Takes the drawn lines off the screen.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let mut err = anstream::stderr().lock();
            let _ = write!(err, "\r\x1b[{}A\x1b[J", self.drawn); // see draw
            self.drawn = 0;
        }
    }

    /// The whole display, with the movements that put it in place of the last one.
    fn render(&mut self, width: usize, height: usize) -> String {
        // A key that the terminal echoed may have moved the cursor.
        let mut text = "\r".to_owned();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn); // a String takes everything
        }
        let all = self.items.len();
        let done = self
            .items
            .iter()
            .filter(|i| i.state != State::Working)
            .count();
        let room = height.saturating_sub(3).max(1);
        // Where not all fit, what goes on is more telling than what is done.
        let mut hidden = all.saturating_sub(room);
        let shown: Vec<&Item> = self
            .items
            .iter()
            .filter(|i| {
                let hide = hidden > 0 && i.state == State::Done;
                hidden -= usize::from(hide);
                !hide
            })
            .collect();
        let shown = &shown[shown.len().saturating_sub(room)..];
        let names = shown
            .iter()
            .map(|i| i.id.chars().count())
            .max()
            .unwrap_or(0);
        let _ = writeln!(text, "[+] {} {done}/{all}\x1b[K", self.title);
        let spinner = SPINNER[self.frame % SPINNER.len()];
        for item in shown {
            item.render(&mut text, width, names, spinner);
        }
        let _ = write!(text, "\x1b[J");
        self.drawn = shown.len() + 1;
        text
    }
}

impl Item {
    fn render(&self, text: &mut String, width: usize, names: usize, spinner: char) {
        let (sign, colour) = match self.state {
            State::Working => (spinner, style::WORKING),
            State::Done => ('✔', style::DONE),
            State::Failed => ('✘', style::FAILED),
        };
        let took = self.took.unwrap_or_else(|| self.since.elapsed());
        let took = format!("{:.1}s", took.as_secs_f32());
        // Sign, name, text and time must fit one line, or the display would not stay in place.
        let name = super::format::shorten(&self.id, names.min(width.saturating_sub(16)));
        let names = names.min(width.saturating_sub(16));
        let used = names + took.len() + 7;
        let mut what = self.text.clone();
        if !self.detail.is_empty() {
            what = format!("{what} {}", self.detail);
        }
        let room = width.saturating_sub(used);
        let what = super::format::shorten(&what.replace(['\n', '\r', '\t'], " "), room);
        let blanks = " ".repeat(room - what.chars().count());
        let (on, off, quiet) = (
            colour.render(),
            colour.render_reset(),
            style::QUIET.render(),
        );
        // A String takes everything.
        let _ = writeln!(
            text,
            " {on}{sign}{off} {name:<names$}  {on}{what}{off}{blanks} {quiet}{took}{off}\x1b[K"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(text: &str) -> String {
        anstream::adapter::strip_str(text)
            .to_string()
            .replace('\r', "")
    }

    fn inner() -> Inner {
        Inner {
            title: "Running",
            items: Vec::new(),
            drawn: 0,
            frame: 0,
        }
    }

    #[test]
    fn every_operation_has_a_line() {
        let mut inner = inner();
        assert!(inner.update("Network x_default", "Created", State::Done));
        assert!(inner.update("Container x-web-1", "Starting", State::Working));
        assert!(!inner.update("Container x-web-1", "Starting", State::Working));
        let text = strip(&inner.render(60, 24));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "[+] Running 1/2");
        assert!(
            lines[1].starts_with(" ✔ Network x_default  Created  "),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].starts_with(" ⠋ Container x-web-1  Starting  "),
            "{}",
            lines[2]
        );
        assert!(lines.iter().all(|l| l.chars().count() < 60), "{text}");
        assert_eq!(inner.drawn, 3);
    }

    #[test]
    fn a_small_terminal_shows_what_goes_on() {
        let mut inner = inner();
        for i in 0..50 {
            let state = if i < 45 { State::Done } else { State::Working };
            inner.update(&format!("Container {i}"), "x", state);
        }
        let text = strip(&inner.render(40, 10));
        assert_eq!(text.lines().count(), 8);
        assert!(
            text.contains("45/50")
                && text.contains("Container 49")
                && text.contains("Container 45")
        );
        assert!(!text.contains("Container 1 "));
    }

    #[test]
    fn long_texts_stay_in_their_line() {
        let mut inner = inner();
        inner.update(&"n".repeat(100), &"t".repeat(100), State::Working);
        let text = strip(&inner.render(40, 10));
        assert!(text.lines().all(|l| l.chars().count() <= 40), "{text}");
    }
}
