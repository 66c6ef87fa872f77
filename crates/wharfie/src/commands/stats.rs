//! `wharfie stats`.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{BoxStream, SelectAll};
use serde_json::{Value, json};
use wharfie_host::{Error, Usage};

use super::pick::{self, Meant};
use super::ps::short_id;
use crate::context::Context;
use crate::control::{Container, Control};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing, bytes, format};
use crate::signals::Interrupts;
use crate::terminal::{self, Resizes};

/// Shows what containers use: CPU, memory, network, disk, processes.
///
/// On a terminal the figures are renewed in place until Ctrl-C; containers that start and end
/// meanwhile come and go.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie stats                            live, of all that run\n  wharfie stats --no-stream web            once, of one service\n  wharfie stats --no-stream --format json  a JSON object a line"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Stats {
    /// Show stopped containers too
    #[arg(short, long)]
    all: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Show the first figures only
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Services to show, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Time between two displays.
const TICK: Duration = Duration::from_millis(500);
/// Ticks that a display waits for the first figures of all containers.
const PATIENCE: u32 = 4;

/// A container and what is known of it; nothing yet, or nothing any more.
type Row = (Container, Option<Usage>);

impl Stats {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        if self.no_stream {
            return self.once(&control, &meant).await;
        }
        let screen = std::io::stdout().is_terminal() && self.format == Listing::Table;
        Live::new(self, &control, &meant, screen).run().await
    }

    async fn once(&self, control: &Control, meant: &Meant) -> Result<(), Failure> {
        let containers = self.containers(control, meant).await?;
        let samples = containers.iter().map(|c| async {
            let mut stream = Box::pin(control.at(c).engine().stats(&c.id, false));
            match stream.next().await.transpose() {
                Ok(usage) => Ok(usage),
                Err(e) if e.is_away() && control.leave_out(&c.node, &e.to_string()) => Ok(None),
                // It is gone, which is nobody's fault.
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(Failure::from(e)),
            }
        });
        let mut interrupts = Interrupts::listen()?;
        let samples = tokio::select! {
            samples = try_join_all(samples) => samples?,
            () = interrupts.next() => return Err(Failure::Exit(130)),
        };
        let rows: Vec<Row> = containers.into_iter().zip(samples).collect();
        Ok(output::print(&self.text(&rows))?)
    }

    /// The containers that are shown.
    async fn containers(
        &self,
        control: &Control,
        meant: &Meant,
    ) -> Result<Vec<Container>, Failure> {
        let mut containers = meant.containers(control).await?;
        containers.retain(|c| self.all || c.is_running());
        Ok(containers)
    }

    fn text(&self, rows: &[Row]) -> String {
        match self.format {
            Listing::Table => self.table(rows),
            Listing::Json => rows
                .iter()
                .map(|row| format::html_safe(&self.json(row)) + "\n")
                .collect(),
        }
    }

    fn table(&self, rows: &[Row]) -> String {
        let several = rows.iter().any(|(c, _)| !c.node.is_empty());
        let mut titles = vec![
            "CONTAINER ID",
            "NAME",
            "CPU %",
            "MEM USAGE / LIMIT",
            "MEM %",
            "NET I/O",
            "BLOCK I/O",
            "PIDS",
        ];
        if several {
            titles.insert(2, "NODE");
        }
        let mut table = Table::with(10, titles.into_iter().map(str::to_owned).collect());
        for (container, usage) in rows {
            let Cells {
                cpu,
                memory,
                memory_percent,
                network,
                blocks,
                pids,
            } = Cells::new(usage.as_ref());
            let (id, name) = (self.id(container).to_owned(), container.name.clone());
            let mut cells = vec![id, name, cpu, memory, memory_percent, network, blocks, pids];
            if several {
                cells.insert(2, container.node.clone());
            }
            table.add(cells);
        }
        table.render()
    }

    fn json(&self, (container, usage): &Row) -> Value {
        let cells = Cells::new(usage.as_ref());
        let mut object = json!({
            "BlockIO": cells.blocks,
            "CPUPerc": cells.cpu,
            "Container": container.id,
            "ID": self.id(container),
            "MemPerc": cells.memory_percent,
            "MemUsage": cells.memory,
            "Name": container.name,
            "NetIO": cells.network,
            "PIDs": cells.pids,
        });
        if !container.node.is_empty() {
            object["Node"] = container.node.as_str().into();
        }
        object
    }

    fn id<'c>(&self, container: &'c Container) -> &'c str {
        if self.no_trunc {
            &container.id
        } else {
            short_id(container)
        }
    }
}

/// The figures as they are written.
struct Cells {
    cpu: String,
    memory: String,
    memory_percent: String,
    network: String,
    blocks: String,
    pids: String,
}

impl Cells {
    fn new(usage: Option<&Usage>) -> Self {
        let none = || "--".to_owned();
        let Some(usage) = usage else {
            return Self {
                cpu: none(),
                memory: "-- / --".to_owned(),
                memory_percent: none(),
                network: none(),
                blocks: none(),
                pids: none(),
            };
        };
        let both = |one, other| format!("{} / {}", bytes::decimal(one), bytes::decimal(other));
        Self {
            cpu: format!("{:.2}%", usage.cpu),
            memory: format!(
                "{} / {}",
                bytes::binary(usage.memory),
                bytes::binary(usage.memory_limit)
            ),
            memory_percent: format!("{:.2}%", usage.memory_percent()),
            network: both(usage.received, usage.sent),
            blocks: both(usage.read, usage.written),
            pids: usage.pids.to_string(),
        }
    }
}

/// What comes of a container: figures, or the end.
type Sample = (String, Option<Result<Usage, Error>>);

/// The display that renews itself.
struct Live<'a> {
    stats: &'a Stats,
    control: &'a Control,
    meant: &'a Meant,
    /// Whether it is renewed in place.
    screen: bool,
    rows: Vec<Row>,
    samples: SelectAll<BoxStream<'static, Sample>>,
    /// Ids of the containers whose figures come.
    heard: BTreeSet<String>,
    /// Whether figures have ended of a container that may run: it may have been restarted.
    doubtful: bool,
    /// Whether anything was shown yet.
    shown: bool,
}

impl<'a> Live<'a> {
    fn new(stats: &'a Stats, control: &'a Control, meant: &'a Meant, screen: bool) -> Self {
        Self {
            stats,
            control,
            meant,
            screen,
            rows: Vec::new(),
            samples: SelectAll::new(),
            heard: BTreeSet::new(),
            doubtful: false,
            shown: false,
        }
    }

    async fn run(mut self) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let mut resizes = Resizes::listen()?;
        // Heard before the list is asked for, so that nothing is missed in between.
        let mut events = Box::pin(self.control.events(self.meant.project(), None, None));
        self.refresh().await?;
        let mut ticks = tokio::time::interval(TICK);
        let (mut waited, mut news) = (0, true);
        loop {
            tokio::select! {
                () = interrupts.next() => return Err(Failure::Exit(130)),
                _ = resizes.next() => self.show()?,
                _ = ticks.tick() => {
                    waited += 1;
                    if std::mem::take(&mut self.doubtful) {
                        self.refresh().await?;
                    }
                    let complete = self.rows.iter().all(|(_, usage)| usage.is_some());
                    if news && (self.shown || complete || waited > PATIENCE) {
                        self.show()?;
                        news = false;
                    }
                }
                Some((id, sample)) = self.samples.next(), if !self.samples.is_empty() => {
                    self.take(&id, sample)?;
                    news = true;
                }
                event = events.next() => match event {
                    Some(event) => {
                        if matches!(event?.action.as_str(), "start" | "die" | "create" | "destroy") {
                            self.refresh().await?;
                            news = true;
                        }
                    }
                    None => {
                        // The Engine is gone, and says so best if it is asked.
                        self.refresh().await?;
                        return Err(Failure::failed("the Engine's events have ended"));
                    }
                },
            }
        }
    }

    /// Takes in which containers there are now.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let containers = self.stats.containers(self.control, self.meant).await?;
        let mut before = std::mem::take(&mut self.rows);
        for container in containers {
            let known = before.iter().position(|(c, _)| c.id == container.id);
            let known = known.map(|at| before.swap_remove(at));
            let usage = match known {
                // The Engine says nothing of those that do not run.
                _ if !container.is_running() => Some(Usage::default()),
                Some((before, usage)) if before.is_running() => usage,
                _ => None,
            };
            if container.is_running() && self.heard.insert(container.id.clone()) {
                self.listen(&container);
            }
            self.rows.push((container, usage));
        }
        Ok(())
    }

    fn listen(&mut self, container: &Container) {
        let id = container.id.as_str();
        let (of, end) = (id.to_owned(), id.to_owned());
        let samples = self.control.at(container).engine().stats(id, true);
        let samples = samples.map(move |sample| (of.clone(), Some(sample)));
        let end = futures_util::stream::once(async move { (end, None) });
        self.samples.push(samples.chain(end).boxed());
    }

    fn take(&mut self, id: &str, sample: Option<Result<Usage, Error>>) -> Result<(), Failure> {
        let row = self.rows.iter_mut().find(|(c, _)| c.id == id);
        match (row, sample) {
            (Some((container, seen)), Some(Ok(usage))) if container.is_running() => {
                *seen = Some(usage);
            }
            (_, Some(Ok(_))) => {}
            (row, None) => {
                self.doubtful |= row.is_some_and(|(c, _)| c.is_running());
                self.heard.remove(id);
            }
            (_, Some(Err(e))) if e.is_engine_away() && !self.control.several() => {
                return Err(e.into());
            }
            // The end follows, and a lost Engine fails the next look at its containers.
            (_, Some(Err(_))) => {}
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), Failure> {
        let text = self.stats.text(&self.rows);
        if self.screen {
            let size = terminal::size(rustix::stdio::stdout()).unwrap_or((80, 24));
            let text = drawn(&text, size, !self.shown);
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        } else {
            output::print(&text)?;
        }
        self.shown = true;
        Ok(())
    }
}

/// What draws a text from the upper left corner over what was there: only as much as has room,
/// because a line that wraps or scrolls would never be overwritten.
fn drawn(text: &str, (width, height): (u16, u16), first: bool) -> String {
    let mut drawn = String::from(if first {
        "\u{1b}[2J\u{1b}[H"
    } else {
        "\u{1b}[H"
    });
    for line in text.lines().take(usize::from(height).saturating_sub(1)) {
        drawn.extend(line.chars().take(usize::from(width)));
        drawn.push_str("\u{1b}[K\r\n");
    }
    drawn.push_str("\u{1b}[J");
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        Stats {
            all: false,
            format: Listing::Table,
            no_stream: true,
            no_trunc: false,
            services: Vec::new(),
        }
    }

    fn rows() -> Vec<Row> {
        let container = |id: &str, name: &str| Container {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Container::default()
        };
        let usage = Usage {
            cpu: 0.145,
            memory: 462_848,
            memory_limit: 25_276_000_000,
            received: 1040,
            sent: 0,
            read: 0,
            written: 0,
            pids: 2,
        };
        vec![
            (container("56fc2877dd57e2a9", "refa-web-1"), Some(usage)),
            (container("e4fc53bed62a7c00", "refa-web-2"), None),
        ]
    }

    #[test]
    fn the_table_is_docker_composes() {
        assert_eq!(
            stats().table(&rows()),
            "CONTAINER ID   NAME         CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       BLOCK I/O   PIDS\n\
             56fc2877dd57   refa-web-1   0.14%     452KiB / 23.54GiB   0.00%     1.04kB / 0B   0B / 0B     2\n\
             e4fc53bed62a   refa-web-2   --        -- / --             --        --            --          --\n"
        );
    }

    #[test]
    fn json_has_docker_composes_keys() {
        let value = stats().json(&rows()[0]);
        assert_eq!(
            value.to_string(),
            r#"{"BlockIO":"0B / 0B","CPUPerc":"0.14%","Container":"56fc2877dd57e2a9","ID":"56fc2877dd57","MemPerc":"0.00%","MemUsage":"452KiB / 23.54GiB","Name":"refa-web-1","NetIO":"1.04kB / 0B","PIDs":"2"}"#
        );
    }

    #[test]
    fn a_drawing_stays_within_the_terminal() {
        assert_eq!(
            drawn("abcdef\ngh\nij\n", (4, 3), false),
            "\u{1b}[Habcd\u{1b}[K\r\ngh\u{1b}[K\r\n\u{1b}[J"
        );
        assert!(drawn("a\n", (4, 3), true).starts_with("\u{1b}[2J"));
    }
}
