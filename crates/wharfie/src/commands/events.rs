//! `wharfie events`.

use clap::Args;
use futures_util::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::pick;
use crate::context::Context;
use crate::control::ContainerEvent;
use crate::failure::Failure;
use crate::output::{self, when};

/// Shows what happens to the containers of a project, as it happens.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie events --json web\n  wharfie events --since 1h --until 0s    the last hour"
)]
pub(crate) struct Events {
    /// A JSON object a line
    #[arg(long)]
    json: bool,
    /// Begin in the past, at a time or a span ago
    #[arg(long, value_name = "TIME", value_parser = when::parse_now)]
    since: Option<Timestamp>,
    /// End at a time or a span ago
    #[arg(long, value_name = "TIME", value_parser = when::parse_now)]
    until: Option<Timestamp>,
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Events {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let seconds = |t: Option<Timestamp>| t.map(Timestamp::as_second);
        let mut events = std::pin::pin!(control.events(
            meant.project(),
            seconds(self.since),
            seconds(self.until)
        ));
        while let Some(event) = events.next().await {
            let event = event?;
            // Health checks run commands all the time.
            let noise = event.action.starts_with("exec_");
            if noise || !meant.concerns(&event) {
                continue;
            }
            output::lines([if self.json {
                as_json(&event)
            } else {
                as_text(&event)
            }])?;
        }
        Ok(())
    }
}

fn local(event: &ContainerEvent, form: &str) -> String {
    let time = Timestamp::from_nanosecond(event.time.into()).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime(form).to_string()
}

/// Attributes without the labels that every container has.
fn attributes(event: &ContainerEvent) -> impl Iterator<Item = (&String, &String)> {
    event
        .attributes
        .iter()
        .filter(|(k, _)| !k.starts_with("com.docker.compose.") && !k.starts_with("io.wharfie."))
}

fn as_text(event: &ContainerEvent) -> String {
    let mut attributes: Vec<String> = attributes(event).map(|(k, v)| format!("{k}={v}")).collect();
    if !event.node.is_empty() {
        attributes.push(format!("node={}", event.node));
    }
    format!(
        "{} container {} {} ({})",
        local(event, "%Y-%m-%d %H:%M:%S%.6f"),
        event.action,
        event.id,
        attributes.join(", ")
    )
}

fn as_json(event: &ContainerEvent) -> String {
    let attributes: serde_json::Map<_, _> = attributes(event)
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    let mut object = json!({
        "action": event.action,
        "attributes": attributes,
        "id": event.id,
        "service": event.service,
        "time": local(event, "%Y-%m-%dT%H:%M:%S%.9f%:z"),
        "type": "container",
    });
    if !event.node.is_empty() {
        object["node"] = event.node.as_str().into();
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfie_core::labels;

    #[test]
    fn events_are_shown_without_our_labels() {
        let attributes = [
            ("name", "x-web-1"),
            ("image", "busybox"),
            (labels::PROJECT, "x"),
        ];
        let event = ContainerEvent {
            id: "0123".to_owned(),
            name: "x-web-1".to_owned(),
            service: "web".to_owned(),
            action: "start".to_owned(),
            time: 1_795_323_402_000_000_000,
            exit_code: None,
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            node: String::new(),
        };
        assert!(as_text(&event).ends_with(" container start 0123 (image=busybox, name=x-web-1)"));
        assert!(as_json(&event).contains(r#""attributes":{"image":"busybox","name":"x-web-1"}"#));
    }
}
