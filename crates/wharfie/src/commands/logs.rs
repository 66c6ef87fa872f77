//! `wharfie logs`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::pick::{self, Meant};
use crate::context::Context;
use crate::control::{Container, ContainerEvent, Control, LogOptions};
use crate::failure::Failure;
use crate::follow::{Follow, Turn};
use crate::output::logs::{LogStyle, OwnPrinter};
use crate::output::{style, when};
use crate::signals::Interrupts;

/// Shows the output of the containers of a project.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie logs                     all there is\n  wharfie logs -f --tail 10 web    the last lines of a service, and what comes\n  wharfie logs -t --since 42m"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Logs {
    /// Go on as the containers write
    #[arg(short, long)]
    follow: bool,
    /// Number of lines from the end of each container's output, or "all"
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES", value_parser = parse_tail)]
    tail: Tail,
    /// Only since a time (2013-01-02T13:23:37Z) or for a span (42m)
    #[arg(long, value_name = "TIME", value_parser = when::parse_now)]
    since: Option<Timestamp>,
    /// Only until a time (2013-01-02T13:23:37Z) or a span ago (42m)
    #[arg(long, value_name = "TIME", value_parser = when::parse_now)]
    until: Option<Timestamp>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Number of the container, if its service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// Show no colours
    #[arg(long)]
    no_color: bool,
    /// Show no names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Services to show, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// How often is looked whether a container is left, while none is known to run.
const RECHECK: Duration = Duration::from_millis(200);

/// How many lines from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(usize),
}

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail::All),
        number => number
            .parse()
            .map(Tail::Lines)
            .map_err(|_| "write a number of lines or \"all\"".to_owned()),
    }
}

impl Logs {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let containers = self.containers(&control, &meant).await?;
        let style = LogStyle {
            prefix: !self.no_log_prefix,
            colour: !self.no_color && style::stdout_has_colour(),
        };
        let now = when::now_nanos();
        let mut follow = Follow::new(
            &control,
            meant.project(),
            OwnPrinter::own(style, true),
            self.timestamps,
        );
        follow.bounds(self.since, self.until);
        containers.iter().for_each(|c| follow.expect(&c.name));
        if !self.follow {
            return follow.in_order(&containers, &self.options(false)).await;
        }
        follow.watch(now / 1_000_000_000);
        for c in &containers {
            follow.open(&c.node, &c.id, &c.name, &self.options(c.is_running()));
        }
        self.go_on(&control, &meant, &mut follow, now).await
    }

    /// The containers whose output is shown.
    async fn containers(
        &self,
        control: &Control,
        meant: &Meant,
    ) -> Result<Vec<Container>, Failure> {
        let mut containers = meant.containers(control).await?;
        containers.retain(|c| self.index.is_none_or(|i| c.number == i));
        Ok(containers)
    }

    fn options(&self, follow: bool) -> LogOptions {
        LogOptions {
            follow,
            tail: match self.tail {
                Tail::All => None,
                Tail::Lines(lines) => Some(lines),
            },
            since: self.since.map(Timestamp::as_second),
            // The Engine takes whole seconds; the rest is cut off as the lines come.
            until: self.until.map(|u| u.as_second() + 1),
            timestamps: true,
        }
    }

    /// Shows what comes, also from containers that come, until none is left.
    async fn go_on(
        &self,
        control: &Control,
        meant: &Meant,
        follow: &mut Follow<'_>,
        now: i64,
    ) -> Result<(), Failure> {
        let mut up: BTreeSet<String> = BTreeSet::new();
        // Heard even where a script has the shell ignore it for what runs in the background.
        let mut interrupts = Interrupts::listen()?;
        loop {
            let idle = !follow.follows_any() && up.is_empty();
            if idle {
                let left = self.containers(control, meant).await?;
                if !left.iter().any(Container::is_running) {
                    return Ok(());
                }
            }
            let turn = tokio::select! {
                // The Engine's list may be a little behind its events.
                () = tokio::time::sleep(RECHECK), if idle => continue,
                () = interrupts.next() => return Err(Failure::Exit(130)),
                turn = follow.next(None) => turn?,
            };
            match turn {
                Turn::Event(event) if event.time >= now && self.shows(meant, &event) => {
                    match event.action.as_str() {
                        "start" => {
                            up.insert(event.id.clone());
                            let options = LogOptions {
                                // A first line may be older than the event of the start.
                                since: Some(event.time / 1_000_000_000 - 1),
                                tail: None,
                                ..self.options(true)
                            };
                            follow.open(&event.node, &event.id, &event.name, &options);
                        }
                        "die" => {
                            up.remove(&event.id);
                        }
                        _ => {}
                    }
                }
                Turn::Over => return Ok(()),
                _ => {}
            }
        }
    }

    fn shows(&self, meant: &Meant, event: &ContainerEvent) -> bool {
        let label = |name: &str| event.attributes.get(name).map_or("", String::as_str);
        let number = label(wharfie_core::labels::NUMBER).parse::<u32>().ok();
        meant.concerns(event) && (self.index.is_none() || self.index == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_read() {
        assert_eq!(parse_tail("all"), Ok(Tail::All));
        assert_eq!(parse_tail("0"), Ok(Tail::Lines(0)));
        assert_eq!(parse_tail("12"), Ok(Tail::Lines(12)));
        assert!(parse_tail("many").is_err() && parse_tail("-3").is_err());
    }
}
