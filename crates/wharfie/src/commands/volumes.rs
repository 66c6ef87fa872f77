//! `wharfie volumes`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};
use wharfie_host::VolumeDetails;

use super::pick;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing, format};

/// Lists the volumes of a project.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie volumes\n  wharfie volumes --format json db   those that the containers of a service have"
)]
pub(crate) struct Volumes {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Services whose containers have the volumes [default: all volumes]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Volumes {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let project = meant.project();
        let seen = control.everywhere(|engine| async move { engine.volume_details(project).await });
        let mut volumes = Vec::new();
        for (node, of) in seen.await? {
            volumes.extend(of.into_iter().map(|v| (node.clone(), v)));
        }
        if !self.services.is_empty() {
            let containers = meant.containers(&control).await?;
            let used: BTreeSet<(&str, &str)> = containers
                .iter()
                .flat_map(|c| c.mounts.iter().map(|m| (c.node.as_str(), m.0.as_str())))
                .collect();
            volumes.retain(|(node, v)| used.contains(&(node.as_str(), v.name.as_str())));
        }
        volumes.sort_by(|(m, a), (n, b)| (&a.name, m).cmp(&(&b.name, n)));
        Ok(if self.quiet {
            output::lines(volumes.iter().map(|(_, v)| &v.name))
        } else if self.format == Listing::Json {
            output::lines(
                volumes
                    .iter()
                    .map(|(node, v)| format::html_safe(&entry(node, v))),
            )
        } else {
            let several = control.several();
            let mut titles = vec!["DRIVER".to_owned(), "VOLUME NAME".to_owned()];
            titles.extend(several.then(|| "NODE".to_owned()));
            let mut table = Table::with(10, titles);
            for (node, volume) in volumes {
                let mut cells = vec![volume.driver, volume.name];
                cells.extend(several.then_some(node));
                table.add(cells);
            }
            output::print(&table.render())
        }?)
    }
}

fn entry(node: &str, volume: &VolumeDetails) -> Value {
    let labels: Vec<String> = volume
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // Docker's listing has columns that are the cluster's or cost the Engine a walk.
    let mut entry = json!({
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": "N/A",
        "Status": "N/A",
    });
    if !node.is_empty() {
        entry["Node"] = node.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_docker_composes_keys() {
        let volume = VolumeDetails {
            name: "refa_data".to_owned(),
            driver: "local".to_owned(),
            mountpoint: "/v/refa_data/_data".to_owned(),
            scope: "local".to_owned(),
            labels: [
                ("a".to_owned(), "b".to_owned()),
                ("c".to_owned(), String::new()),
            ]
            .into(),
        };
        assert_eq!(
            entry("", &volume).to_string(),
            r#"{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":"a=b,c=","Links":"N/A","Mountpoint":"/v/refa_data/_data","Name":"refa_data","Scope":"local","Size":"N/A","Status":"N/A"}"#
        );
    }
}
