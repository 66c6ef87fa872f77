//! `env_file` and `label_file`: read into `environment` and `labels`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::discover::dotenv_fault;
use crate::dotenv;
use crate::fault::Fault;
use crate::model::{EnvFile, Project, Service};

/// Reads the files of every service that is to run. Returns each fault with the path of its
/// attribute. Without `variables` only labels are read (`--no-env-resolution`).
pub(crate) fn resolve(project: &mut Project, variables: bool) -> Vec<(String, Fault)> {
    let mut faults = Vec::new();
    let environment = &project.environment;
    let directory = project.working_dir.clone();
    for (name, service) in &mut project.services {
        if variables && let Err((i, fault)) = resolve_environment(service, environment, &directory)
        {
            faults.push((format!("services.{name}.env_file[{i}]"), fault));
        }
        if let Err((i, fault)) = resolve_labels(service, environment, &directory) {
            faults.push((format!("services.{name}.label_file[{i}]"), fault));
        }
    }
    faults
}

fn resolve_environment(
    service: &mut Service,
    environment: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<(), (usize, Fault)> {
    let own = std::mem::take(&mut service.environment);
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (i, file) in std::mem::take(&mut service.env_file).iter().enumerate() {
        let lookup = |name: &str| {
            environment
                .get(name)
                .cloned()
                .or_else(|| own.get(name).cloned().flatten())
                .or_else(|| values.get(name).cloned().flatten())
        };
        let pairs = read(file, directory, &lookup).map_err(|fault| (i, fault))?;
        values.extend(pairs.into_iter().map(|(k, v)| (k, Some(v))));
    }
    for (name, value) in own {
        let value = value.or_else(|| environment.get(&name).cloned());
        // A variable without any value does not hide the file's.
        if value.is_some() || !values.contains_key(&name) {
            values.insert(name, value);
        }
    }
    service.environment = values;
    Ok(())
}

/// Reads a file of variables as `run --env-from-file` means it: what it says is all there is, the
/// environment of the process has no part in it.
///
/// # Errors
/// The file cannot be read, or a line of it is no variable.
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, Fault> {
    let text = crate::source::read_text(path)
        .map_err(|e| Fault::new(format!("cannot read {}: {e}", path.display())))?;
    dotenv::parse(&text, &|_| None).map_err(|fault| dotenv_fault(path, &fault))
}

fn read(
    file: &EnvFile,
    directory: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<dotenv::Pairs, Fault> {
    // Paths are absolute already, unless they were to stay as written.
    let path = &directory.join(&file.path);
    let text = match crate::source::read_text(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !file.required => {
            return Ok(Vec::new());
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Fault::new(format!("env_file {} not found", file.path))
                .help("create it, or write `required: false` if it may be missing"));
        }
        Err(e) => {
            return Err(Fault::new(format!(
                "cannot read env_file {}: {e}",
                file.path
            )));
        }
    };
    match file.format.as_str() {
        "" => dotenv::parse(&text, lookup),
        "raw" => dotenv::parse_raw(&text, lookup),
        other => {
            return Err(Fault::new(format!("unknown env_file format `{other}`"))
                .help("it takes `raw`, or nothing"));
        }
    }
    .map_err(|fault| dotenv_fault(path, &fault))
}

fn resolve_labels(
    service: &mut Service,
    environment: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<(), (usize, Fault)> {
    let mut labels = BTreeMap::new();
    for (i, file) in std::mem::take(&mut service.label_file).iter().enumerate() {
        let path = &directory.join(file);
        let text = crate::source::read_text(path)
            .map_err(|e| (i, Fault::new(format!("cannot read label_file {file}: {e}"))))?;
        let lookup = |name: &str| environment.get(name).cloned();
        let pairs =
            dotenv::parse(&text, &lookup).map_err(|fault| (i, dotenv_fault(path, &fault)))?;
        labels.extend(pairs);
    }
    labels.append(&mut service.labels);
    service.labels = labels;
    Ok(())
}
