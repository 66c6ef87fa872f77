//! `wharfie top`.

use clap::Args;
use futures_util::future::try_join_all;

use super::pick;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::table::Table;

/// Shows the processes of running containers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie top web")]
pub(crate) struct Top {
    /// Services, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Top {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.services).await?;
        let mut containers = meant.containers(&control).await?;
        containers.retain(|c| c.is_running());
        let tops = containers.iter().map(|c| {
            let control = control.at(c);
            async move { control.top(&c.id).await }
        });
        let tops = try_join_all(tops).await?;
        let mut table: Option<Table> = None;
        for (container, (titles, rows)) in containers.iter().zip(tops) {
            let table = table.get_or_insert_with(|| {
                let headers = ["SERVICE".to_owned(), "#".to_owned()]
                    .into_iter()
                    .chain(titles);
                Table::narrow(headers.collect())
            });
            for row in rows {
                let service = match container.service.as_str() {
                    "" => container.name.clone(),
                    service => service.to_owned(),
                };
                let cells = [service, container.number.to_string()]
                    .into_iter()
                    .chain(row);
                table.add(cells.collect());
            }
        }
        Ok(output::print(
            &table.map(|t| t.render()).unwrap_or_default(),
        )?)
    }
}
