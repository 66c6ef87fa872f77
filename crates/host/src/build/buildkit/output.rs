//! What BuildKit tells of a build, as lines: `#3 [1/2] COPY . /`, `#3 DONE 0.1s`.

use std::collections::{BTreeMap, HashMap};

use super::wire::{Value, fields};

/// A point in time, in seconds.
fn time(value: Value<'_>) -> f64 {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for (field, value) in fields(value.bytes()) {
        match field {
            1 => seconds = value.number(),
            2 => nanoseconds = value.number(),
            _ => {}
        }
    }
    seconds as f64 + nanoseconds as f64 / 1e9
}

#[derive(Debug, Default)]
struct Step {
    number: usize,
    name: String,
    /// The beginning of a line whose end has not come yet.
    line: String,
    ended: bool,
    /// Parts that were told to be done.
    parts: Vec<String>,
}

/// The steps of a build that were heard of.
#[derive(Debug, Default)]
pub(super) struct Output {
    steps: HashMap<String, Step>,
    count: usize,
    /// The step that failed.
    pub(super) failed: Option<String>,
    warnings: BTreeMap<String, ()>,
}

impl Output {
    /// Takes a status and hands on what is new in it.
    pub(super) fn take(&mut self, status: &[u8], line: &mut (dyn FnMut(&str) + Send)) {
        for (field, value) in fields(status) {
            match field {
                1 => self.vertex(value, line),
                2 => self.part(value, line),
                3 => self.log(value, line),
                4 => self.warning(value, line),
                _ => {}
            }
        }
    }

    fn vertex(&mut self, vertex: Value<'_>, line: &mut (dyn FnMut(&str) + Send)) {
        let (mut digest, mut name, mut error) = (String::new(), String::new(), String::new());
        let (mut cached, mut started, mut completed) = (false, None, None);
        for (field, value) in fields(vertex.bytes()) {
            match field {
                1 => digest = value.text(),
                3 => name = value.text(),
                4 => cached = value.number() != 0,
                5 => started = Some(time(value)),
                6 => completed = Some(time(value)),
                7 => error = value.text(),
                _ => {}
            }
        }
        // What only waits is not worth a line.
        let Some(started) = started else { return };
        let step = self.steps.entry(digest).or_default();
        if step.number == 0 {
            self.count += 1;
            step.number = self.count;
            step.name = name;
            line(&format!("#{} {}", step.number, step.name));
        }
        let Some(completed) = completed.filter(|_| !step.ended) else {
            return;
        };
        step.ended = true;
        let number = step.number;
        let rest = std::mem::take(&mut step.line);
        if !rest.trim_end().is_empty() {
            line(&format!("#{number} {}", rest.trim_end()));
        }
        if error.is_empty() {
            let took = completed - started;
            match cached {
                true => line(&format!("#{number} CACHED")),
                false => line(&format!("#{number} DONE {took:.1}s")),
            }
        } else {
            // One failure cancels the steps beside it.
            if !error.ends_with("context canceled") || self.failed.is_none() {
                self.failed = Some(step.name.clone());
            }
            line(&format!("#{number} ERROR: {error}"));
        }
    }

    fn part(&mut self, part: Value<'_>, line: &mut (dyn FnMut(&str) + Send)) {
        let (mut id, mut vertex, mut completed) = (String::new(), String::new(), false);
        for (field, value) in fields(part.bytes()) {
            match field {
                1 => id = value.text(),
                2 => vertex = value.text(),
                8 => completed = true,
                _ => {}
            }
        }
        let Some(step) = self.steps.get_mut(&vertex) else {
            return;
        };
        if completed && !step.ended && !step.parts.contains(&id) {
            line(&format!("#{} {id} done", step.number));
            step.parts.push(id);
        }
    }

    fn log(&mut self, log: Value<'_>, line: &mut (dyn FnMut(&str) + Send)) {
        let (mut vertex, mut text) = (String::new(), String::new());
        for (field, value) in fields(log.bytes()) {
            match field {
                1 => vertex = value.text(),
                4 => text = value.text(),
                _ => {}
            }
        }
        let Some(step) = self.steps.get_mut(&vertex) else {
            return;
        };
        step.line.push_str(&text);
        while let Some(end) = step.line.find('\n') {
            let rest = step.line.split_off(end + 1);
            let whole = std::mem::replace(&mut step.line, rest);
            // Of a line that was overwritten with carriage returns, its last state.
            let whole = whole.trim_end();
            let last = whole.rsplit('\r').next().unwrap_or(whole);
            line(&format!("#{} {last}", step.number));
        }
    }

    fn warning(&mut self, warning: Value<'_>, line: &mut (dyn FnMut(&str) + Send)) {
        let mut all = fields(warning.bytes());
        if let Some((_, short)) = all.find(|(field, _)| *field == 3) {
            let text = short.text();
            if self.warnings.insert(text.clone(), ()).is_none() {
                line(&format!("WARN: {text}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Message;
    use super::*;

    fn vertex(name: &str, cached: u64, end: Option<u64>, error: &str) -> Vec<u8> {
        let at = |seconds| Message::default().number(1, seconds).done();
        let mut vertex = Message::default()
            .text(1, name)
            .text(3, name)
            .number(4, cached)
            .bytes(5, &at(10));
        if let Some(end) = end {
            vertex = vertex.bytes(6, &at(end));
        }
        Message::default()
            .bytes(1, &vertex.text(7, error).done())
            .done()
    }

    fn log(name: &str, text: &str) -> Vec<u8> {
        let log = Message::default().text(1, name).text(4, text);
        Message::default().bytes(3, &log.done()).done()
    }

    #[test]
    fn lines() {
        let mut output = Output::default();
        let mut lines = Vec::new();
        let mut said = |line: &str| lines.push(line.to_owned());
        for status in [
            vertex("a", 0, None, ""),
            log("a", "one\ntw"),
            vertex("b", 1, Some(10), ""),
            log("a", "o\nthree"),
            vertex("a", 0, Some(12), ""),
            vertex("a", 0, Some(12), ""),
            vertex("c", 0, Some(11), "exit code: 1"),
        ] {
            output.take(&status, &mut said);
        }
        let expected = [
            "#1 a",
            "#1 one",
            "#2 b",
            "#2 CACHED",
            "#1 two",
            "#1 three",
            "#1 DONE 2.0s",
            "#3 c",
            "#3 ERROR: exit code: 1",
        ];
        assert_eq!(lines, expected);
        assert_eq!(output.failed.as_deref(), Some("c"));
    }
}
