//! `wharfie top`.

use clap::Args;
use futures_util::future::try_join_all;

use super::pick;
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output;
use crate::output::table::Table;

/// Shows the processes of running containers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie top web")]
pub(crate) struct Top {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Top {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let target = context.target(&self.services)?;
        let control = &Control::connect(context).await?;
        let mut containers = pick::containers(control, &target, &self.services).await?;
        containers.retain(|c| c.is_running());
        let tops = try_join_all(containers.iter().map(|c| control.top(&c.id))).await?;
        let mut table: Option<Table> = None;
        for (container, (titles, rows)) in containers.iter().zip(tops) {
            let table = table.get_or_insert_with(|| {
                let headers = ["SERVICE".to_owned(), "#".to_owned()]
                    .into_iter()
                    .chain(titles);
                Table::narrow(headers.collect())
            });
            for row in rows {
                let cells = [container.service.clone(), container.number.to_string()]
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
