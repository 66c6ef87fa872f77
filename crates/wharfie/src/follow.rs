//! The output of the containers of a project as it comes, also of containers that come later.

use std::collections::{HashMap, VecDeque};
use std::io;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;

use crate::agent::fleet;
use crate::control::{Container, ContainerEvent, Control, LogOptions, Output};
use crate::failure::{Failure, Message};
use crate::output::logs::{OwnPrinter, Stream};
use crate::output::progress::Progress;
use crate::output::stamps::{Piece, Stamps};

/// What came next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Something was shown.
    Shown,
    /// A container's output has ended.
    Ended(String),
    /// Something happened to a container of the project.
    Event(ContainerEvent),
    /// Nothing is followed and nothing more will happen.
    Over,
}

/// Follows the output of containers, and what happens to them.
pub(crate) struct Follow<'a> {
    control: &'a Control,
    project: String,
    printer: OwnPrinter,
    timestamps: bool,
    sources: HashMap<String, Source>,
    streams: SelectAll<BoxStream<'static, (String, Item)>>,
    /// Nothing before the first and nothing after the second is shown, where they are not empty.
    bounds: (String, String),
    events: Option<BoxStream<'static, Result<ContainerEvent, Failure>>>,
}

#[derive(Default)]
struct Source {
    /// The node that its container is on.
    node: String,
    stamps: [Stamps; 2],
    /// Time of the last thing shown.
    last: String,
    /// Nothing up to this time is shown: it was when the container ran before.
    floor: String,
    /// Whether its stream is open.
    open: bool,
    /// To be opened again once it has ended: the container has been started again.
    again: Option<LogOptions>,
    /// How it is followed; nothing once it is read for the last time.
    followed: Option<LogOptions>,
}

/// The output of one of several containers that are shown together.
struct Track {
    id: String,
    node: String,
    output: Option<BoxStream<'static, Result<Output, Failure>>>,
    waiting: VecDeque<(Stream, Piece)>,
}

enum Item {
    Output(Result<Output, Failure>),
    End,
}

impl<'a> Follow<'a> {
    /// Follows nothing yet.
    pub(crate) fn new(
        control: &'a Control,
        project: &str,
        printer: OwnPrinter,
        timestamps: bool,
    ) -> Self {
        Self {
            control,
            project: project.to_owned(),
            printer,
            timestamps,
            sources: HashMap::new(),
            streams: SelectAll::new(),
            bounds: Default::default(),
            events: None,
        }
    }

    /// Shows only what was written between two times.
    pub(crate) fn bounds(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        self.bounds = (
            since.map(stamp).unwrap_or_default(),
            until.map(stamp).unwrap_or_default(),
        );
    }

    /// From now on [`Turn::Event`]s come, of what happens from a time on (seconds since 1970).
    pub(crate) fn watch(&mut self, since: i64) {
        self.events = Some(self.control.events(&self.project, Some(since), None));
    }

    /// Makes room for the name of a container and gives it a colour.
    pub(crate) fn expect(&mut self, name: &str) {
        self.printer.expect(&short_name(name, &self.project));
    }

    /// Shows the output of a container of a node. What was shown of it before is not shown again.
    pub(crate) fn open(&mut self, node: &str, id: &str, name: &str, options: &LogOptions) {
        self.printer.add(id, &short_name(name, &self.project));
        let source = self.sources.entry(id.to_owned()).or_default();
        source.node = node.to_owned();
        if source.open {
            source.again = Some(options.clone());
            return;
        }
        source.open = true;
        source.floor.clone_from(&source.last);
        source.followed = options.follow.then(|| options.clone());
        if options.tail == Some(0) && source.last.is_empty() {
            // What was there before is not to be shown at the last read either.
            source.last = stamp(Timestamp::now());
        }
        self.read(id, options);
    }

    fn read(&mut self, id: &str, options: &LogOptions) {
        let options = LogOptions {
            timestamps: true,
            ..options.clone()
        };
        let (id, end) = (id.to_owned(), id.to_owned());
        let output = self
            .control
            .at_node(self.node(&id))
            .logs(&id, &options)
            .map(move |o| (id.clone(), Item::Output(o)));
        let end = stream::once(async move { (end, Item::End) });
        self.streams.push(output.chain(end).boxed());
    }

    /// The node that a container is on.
    fn node(&self, id: &str) -> &str {
        self.sources.get(id).map_or("", |s| s.node.as_str())
    }

    /// Reads the log of a container whose stream has ended once more: the Engine may leave out
    /// its last words while it is followed, if they end in the middle of a line. Whether there is
    /// a need.
    fn read_again(&mut self, id: &str) -> bool {
        let Some(source) = self.sources.get_mut(id) else {
            return false;
        };
        let Some(options) = source.followed.take() else {
            return false;
        };
        source.floor.clone_from(&source.last);
        let mut options = LogOptions {
            follow: false,
            ..options
        };
        if let Ok(last) = source.last.parse::<Timestamp>() {
            options.since = Some(last.as_second());
            options.tail = None;
        }
        self.read(id, &options);
        true
    }

    /// Whether the output of a container is being followed.
    pub(crate) fn follows(&self, id: &str) -> bool {
        self.sources.get(id).is_some_and(|s| s.open)
    }

    /// Whether any output is being followed.
    pub(crate) fn follows_any(&self) -> bool {
        !self.streams.is_empty()
    }

    /// A remark about a container among its output.
    pub(crate) fn remark(
        &mut self,
        id: &str,
        remark: &str,
        above: Option<&Progress>,
    ) -> io::Result<()> {
        match above {
            Some(progress) => progress.above(|| self.printer.remark(id, remark)),
            None => self.printer.remark(id, remark),
        }
    }

    /// Waits for what comes next and shows it, above the progress if there is one. Safe to drop
    /// and call again.
    pub(crate) async fn next(&mut self, above: Option<&Progress>) -> Result<Turn, Failure> {
        tokio::select! {
            biased;
            Some((id, item)) = self.streams.next() => match item {
                Item::Output(output) => {
                    let output = match output {
                        Ok(output) => output,
                        // It was removed in between, or has no log to read: its end comes next.
                        Err(Failure::Failed(m)) => {
                            self.complain(&id, &m.what);
                            return Ok(Turn::Shown);
                        }
                        Err(Failure::NoEngine(m)) if self.control.leave_out(self.node(&id), &m.what) => {
                            // The other nodes go on; its end comes next.
                            return Ok(Turn::Shown);
                        }
                        Err(Failure::NoEngine(m)) => {
                            let what = m.what.replace(&id, self.printer.name(&id));
                            return Err(Failure::NoEngine(Message { what, ..m }));
                        }
                        Err(failure) => return Err(failure),
                    };
                    match above {
                        Some(progress) => progress.above(|| self.show(&id, &output)),
                        None => self.show(&id, &output),
                    }?;
                    Ok(Turn::Shown)
                }
                Item::End if self.read_again(&id) => Ok(Turn::Shown),
                Item::End => {
                    self.end(&id)?;
                    Ok(Turn::Ended(id))
                }
            },
            Some(event) = next_of(&mut self.events) => Ok(Turn::Event(event?)),
            else => Ok(Turn::Over),
        }
    }

    /// Shows what some containers have said, all together in the order of time.
    pub(crate) async fn in_order(
        &mut self,
        containers: &[Container],
        options: &LogOptions,
    ) -> Result<(), Failure> {
        let options = LogOptions {
            timestamps: true,
            ..options.clone()
        };
        let mut tracks = Vec::new();
        let mut gone: Vec<String> = Vec::new();
        for c in containers {
            self.printer.add(&c.id, &short_name(&c.name, &self.project));
            self.sources.entry(c.id.clone()).or_default();
            tracks.push(Track {
                id: c.id.clone(),
                node: c.node.clone(),
                output: Some(self.control.at(c).logs(&c.id, &options).boxed()),
                waiting: VecDeque::new(),
            });
        }
        loop {
            for track in &mut tracks {
                // What another container of its node has shown need not be waited for again.
                track.output.take_if(|_| gone.contains(&track.node));
                while track.waiting.is_empty()
                    && let Some(output) = &mut track.output
                {
                    let next = match self.control.several() {
                        true => tokio::time::timeout(fleet::PATIENCE, output.next()).await,
                        false => Ok(output.next().await),
                    };
                    let late = || format!("it was silent for {} s", fleet::PATIENCE.as_secs());
                    match next.unwrap_or_else(|_| Some(Err(fleet::unreachable(late())))) {
                        Some(Ok(output)) => track.waiting.extend(self.cut(&track.id, &output)),
                        Some(Err(Failure::Failed(m))) => self.complain(&track.id, &m.what),
                        Some(Err(Failure::NoEngine(m)))
                            if self.control.leave_out(&track.node, &m.what) =>
                        {
                            track.output = None;
                            gone.push(track.node.clone());
                        }
                        Some(Err(failure)) => return Err(failure),
                        None => track.output = None,
                    }
                }
            }
            let earliest = tracks
                .iter_mut()
                .filter(|t| !t.waiting.is_empty())
                .min_by(|a, b| a.waiting[0].1.time.cmp(&b.waiting[0].1.time));
            let Some(track) = earliest else { break };
            if let Some((stream, piece)) = track.waiting.pop_front() {
                self.write(&track.id, stream, &piece)?;
            }
        }
        for c in containers {
            self.end(&c.id)?;
        }
        Ok(())
    }

    /// Shows what is there already, without waiting.
    pub(crate) fn drain(&mut self) -> Result<(), Failure> {
        while let Some(turn) = self.next(None).now_or_never() {
            if matches!(turn?, Turn::Over) {
                break;
            }
        }
        Ok(())
    }

    fn show(&mut self, id: &str, output: &Output) -> io::Result<()> {
        for (stream, piece) in self.cut(id, output) {
            self.write(id, stream, &piece)?;
        }
        Ok(())
    }

    /// The pieces of an output that are to be shown.
    fn cut(&mut self, id: &str, output: &Output) -> Vec<(Stream, Piece)> {
        let Some(source) = self.sources.get_mut(id) else {
            return Vec::new();
        };
        let (since, until) = &self.bounds;
        let stream = if output.stderr {
            Stream::Err
        } else {
            Stream::Out
        };
        let mut pieces = source.stamps[stream as usize].cut(&output.bytes);
        pieces.retain(|p| {
            let seen_before = !source.floor.is_empty() && p.time <= source.floor;
            !seen_before && p.time >= *since && (until.is_empty() || p.time <= *until)
        });
        if let Some(last) = pieces.iter().map(|p| &p.time).max()
            && *last > source.last
        {
            source.last.clone_from(last);
        }
        pieces.into_iter().map(|p| (stream, p)).collect()
    }

    fn write(&mut self, id: &str, stream: Stream, piece: &Piece) -> io::Result<()> {
        if self.timestamps && piece.begins {
            let stamp = format!("{} ", piece.time);
            self.printer.write(id, stream, stamp.as_bytes())?;
        }
        self.printer.write(id, stream, &piece.text)
    }

    fn end(&mut self, id: &str) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(id) else {
            return Ok(());
        };
        source.open = false;
        for stream in [Stream::Out, Stream::Err] {
            let rest = source.stamps[stream as usize].end();
            self.printer.write(id, stream, &rest)?;
        }
        let again = source.again.take();
        self.printer.end(id)?;
        if let Some(options) = again {
            let name = self.printer.name(id).to_owned();
            let node = self.node(id).to_owned();
            self.open(&node, id, &name, &options);
        }
        Ok(())
    }

    fn complain(&self, id: &str, what: &str) {
        // A container that is gone has nothing more to say.
        if !what.contains("No such container") && !what.contains("dead or marked for removal") {
            crate::output::warn(&what.replace(id, self.printer.name(id)));
        }
    }
}

/// A time as the Engine writes it into logs.
fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

async fn next_of<T>(stream: &mut Option<BoxStream<'static, T>>) -> Option<T> {
    match stream {
        Some(stream) => stream.next().await,
        None => None,
    }
}

/// A container's name without its project's, where it was made from the project's.
pub(crate) fn short_name(name: &str, project: &str) -> String {
    name.strip_prefix(project)
        .and_then(|n| n.strip_prefix('-'))
        .unwrap_or(name)
        .to_owned()
}
