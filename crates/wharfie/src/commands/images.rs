//! `wharfie images`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use wharfie_host::ImageDetails;

use super::pick;
use crate::context::Context;
use crate::control::Container;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing, bytes, format, when};

/// Lists the images that the containers of a project were made from.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie images\n  wharfie images -q web           ids, each once\n  wharfie images --format json"
)]
pub(crate) struct Images {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Images {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let mut containers = match meant.target().filter(|_| meant.named.is_empty()) {
            // Those of `run` too.
            Some(target) => control.containers(&target.name).await?,
            None => meant.containers(&control).await?,
        };
        let of_service =
            |c: &Container| meant.services.is_empty() || meant.services.contains(&c.service);
        containers.retain(|c| !meant.named.is_empty() || of_service(c));
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |c: &Container| (c.image_id.clone(), c.node.clone());
        let mut ids: Vec<(String, String)> = containers.iter().map(key).collect();
        ids.sort_unstable();
        ids.dedup();
        let details = ids.iter().map(|(id, node)| {
            let control = control.at_node(node);
            async move { control.engine().image_details(id).await }
        });
        let details = try_join_all(details).await?;
        let images: BTreeMap<(String, String), ImageDetails> = ids
            .into_iter()
            .zip(details.into_iter().map(Option::unwrap_or_default))
            .collect();
        let rows: Vec<(&Container, &ImageDetails)> = containers
            .iter()
            .filter_map(|c| Some((c, images.get(&key(c))?)))
            .collect();
        Ok(if self.quiet {
            output::lines(
                images
                    .keys()
                    .map(|(id, _)| plain(id))
                    .collect::<BTreeSet<_>>(),
            )
        } else if self.format == Listing::Json {
            let list = rows.iter().map(|(c, i)| entry(c, i)).collect();
            output::json(&Value::Array(list))
        } else {
            output::print(&table(&rows, when::now(), control.several()))
        }?)
    }
}

fn table(rows: &[(&Container, &ImageDetails)], now: i64, several: bool) -> String {
    let mut titles = vec![
        "CONTAINER",
        "REPOSITORY",
        "TAG",
        "PLATFORM",
        "IMAGE ID",
        "SIZE",
        "CREATED",
    ];
    if several {
        titles.insert(1, "NODE");
    }
    let mut table = Table::with(20, titles.into_iter().map(str::to_owned).collect());
    let or_none = |text: String| match text.is_empty() {
        true => "<none>".to_owned(),
        false => text,
    };
    for (container, image) in rows {
        let (repository, tag) = name(&container.image);
        let id = plain(&container.image_id);
        let tagged = image.tagged.as_ref();
        let tagged = tagged.and_then(|t| t.parse::<Timestamp>().ok());
        let mut cells = vec![
            container.name.clone(),
            or_none(repository),
            or_none(tag),
            image.platform.clone(),
            id.get(..12).unwrap_or(id).to_owned(),
            bytes::decimal(image.size),
            tagged.map_or("N/A".to_owned(), |t| format::ago(t.as_second(), now)),
        ];
        if several {
            cells.insert(1, container.node.clone());
        }
        table.add(cells);
    }
    table.render()
}

fn entry(container: &Container, image: &ImageDetails) -> Value {
    let (repository, tag) = name(&container.image);
    let mut entry = json!({
        "ID": container.image_id,
        "ContainerName": container.name,
        "Repository": repository,
        "Tag": tag,
        "Platform": image.platform,
        "Size": image.size,
    });
    if !container.node.is_empty() {
        entry["Node"] = container.node.as_str().into();
    }
    if let Some(tagged) = &image.tagged {
        entry["LastTagTime"] = tagged.as_str().into();
    }
    entry
}

/// An id without its kind.
fn plain(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Repository and tag of a reference. An image that has lost its name is known by its id, and has
/// neither; one with a digest only has no tag.
fn name(reference: &str) -> (String, String) {
    let is_id = |text: &str| text.len() >= 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id(plain(reference)) {
        return Default::default();
    }
    let (named, digest) = match reference.split_once('@') {
        Some((named, _)) => (named, true),
        None => (reference, false),
    };
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    match named[slash..].split_once(':') {
        Some((_, tag)) => {
            let repository = &named[..named.len() - tag.len() - 1];
            (repository.to_owned(), tag.to_owned())
        }
        None if digest => (named.to_owned(), String::new()),
        None => (named.to_owned(), "latest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        for (reference, repository, tag) in [
            ("busybox", "busybox", "latest"),
            ("busybox:1", "busybox", "1"),
            ("reg.local:5000/x/y:1", "reg.local:5000/x/y", "1"),
            ("reg.local:5000/x", "reg.local:5000/x", "latest"),
            ("a/b@sha256:0123", "a/b", ""),
            ("a/b:2@sha256:0123", "a/b", "2"),
            ("sha256:d508dec2ef03ad62", "", ""),
            ("d508dec2ef03", "", ""),
        ] {
            let expected = (repository.to_owned(), tag.to_owned());
            assert_eq!(name(reference), expected, "{reference}");
        }
    }

    #[test]
    fn the_table_is_docker_composes() {
        let container = Container {
            name: "refa-db-1".to_owned(),
            image: "busybox".to_owned(),
            image_id: "sha256:d508dec2ef03ad624275864c1be9".to_owned(),
            ..Container::default()
        };
        let image = ImageDetails {
            platform: "linux/amd64".to_owned(),
            size: 1_985_599,
            tagged: Some("1970-01-01T00:01:00.5Z".to_owned()),
            ..ImageDetails::default()
        };
        assert_eq!(
            table(&[(&container, &image)], 116, false),
            "CONTAINER           REPOSITORY          TAG                 PLATFORM            IMAGE ID            SIZE                CREATED\n\
             refa-db-1           busybox             latest              linux/amd64         d508dec2ef03        1.99MB              56 seconds ago\n"
        );
        assert_eq!(
            entry(&container, &image).to_string(),
            r#"{"ID":"sha256:d508dec2ef03ad624275864c1be9","ContainerName":"refa-db-1","Repository":"busybox","Tag":"latest","Platform":"linux/amd64","Size":1985599,"LastTagTime":"1970-01-01T00:01:00.5Z"}"#
        );
    }
}
