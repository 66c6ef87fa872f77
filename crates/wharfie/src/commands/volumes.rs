//! `wharfie volumes`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};
use wharfie_host::VolumeDetails;

use super::pick;
use crate::context::Context;
use crate::control::Control;
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
        let target = context.target(&self.services)?;
        let control = Control::connect(context).await?;
        let mut volumes = control.engine().volume_details(&target.name).await?;
        if !self.services.is_empty() {
            let mut containers = control.containers(&target.name).await?;
            pick::check_known(&target, &containers, &self.services)?;
            containers.retain(|c| self.services.contains(&c.service));
            let used: BTreeSet<&str> = containers
                .iter()
                .flat_map(|c| &c.mounts)
                .map(|(source, _)| source.as_str())
                .collect();
            volumes.retain(|v| used.contains(v.name.as_str()));
        }
        Ok(if self.quiet {
            output::lines(volumes.iter().map(|v| &v.name))
        } else if self.format == Listing::Json {
            output::lines(volumes.iter().map(|v| format::html_safe(&entry(v))))
        } else {
            let mut table = Table::new(10, ["DRIVER", "VOLUME NAME"]);
            for volume in volumes {
                table.row([volume.driver, volume.name]);
            }
            output::print(&table.render())
        }?)
    }
}

fn entry(volume: &VolumeDetails) -> Value {
    let labels: Vec<String> = volume
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // Docker's listing has columns that are the cluster's or cost the Engine a walk.
    json!({
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
    })
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
            entry(&volume).to_string(),
            r#"{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":"a=b,c=","Links":"N/A","Mountpoint":"/v/refa_data/_data","Name":"refa_data","Scope":"local","Size":"N/A","Status":"N/A"}"#
        );
    }
}
