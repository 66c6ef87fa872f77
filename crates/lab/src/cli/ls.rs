use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use wharfie_lab::{Faults, Host, Lab};

use super::print;

/// List the labs and their machines
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab ls\n  wharfie-lab ls --format json")]
pub(super) struct Ls {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

const COLUMNS: [&str; 7] = ["lab", "name", "address", "engine", "pid", "faults", "dir"];

impl Ls {
    pub(super) fn run(self) -> Result<()> {
        let mut rows = Vec::new();
        for name in Lab::names()? {
            match Lab::open(&name) {
                Ok(lab) => rows.extend(machines(&lab)?),
                // It may just be going; and one lab that cannot be read must not hide the others.
                Err(error) => eprintln!("warning: lab {name}: {error:#}"),
            }
        }
        match self.format {
            Format::Json => print(&format!("{:#}\n", Value::Array(rows))),
            Format::Table => print(&table(&rows)),
        }
    }
}

fn machines(lab: &Lab) -> Result<Vec<Value>> {
    let faults = lab.faults()?;
    let mut rows: Vec<Value> = lab
        .hosts()
        .iter()
        .map(|host| host_row(lab, host, &faults))
        .collect();
    for client in lab.clients_so_far() {
        rows.push(json!({
            "lab": lab.name(), "name": client.name(), "address": client.address(),
            "engine": Value::Null, "pid": Value::Null,
            "faults": faults.describe(client.name()), "dir": client.dir(),
        }));
    }
    Ok(rows)
}

fn host_row(lab: &Lab, host: &Host, faults: &Faults) -> Value {
    let engine = host.engine();
    json!({
        "lab": lab.name(), "name": host.name(), "address": host.address(),
        "engine": engine.kind().name(), "pid": engine.pid(),
        "faults": faults.describe(host.name()), "dir": host.dir(),
    })
}

fn table(rows: &[Value]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_uppercase)];
    lines.extend(
        rows.iter()
            .map(|row| COLUMNS.map(|column| cell(&row[column]))),
    );
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
