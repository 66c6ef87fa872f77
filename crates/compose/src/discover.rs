//! Which files, which environment, which project name and profiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::load::LoadOptions;
use crate::{dotenv, paths};

/// File names that are looked for, best first.
const NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// File names of overrides, taken if they stand beside the file.
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What a load starts from.
#[derive(Debug)]
pub(crate) struct Found {
    /// Files to read, absolute or `-`.
    pub(crate) files: Vec<PathBuf>,
    /// Absolute project directory.
    pub(crate) directory: PathBuf,
    /// Process environment over `.env` files.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) profiles: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Finds files and environment.
pub(crate) fn discover(options: &LoadOptions) -> Result<Found, Fault> {
    let current = absolute(&options.working_dir)?;
    let mut warnings = Vec::new();
    let mut environment = options.environment.clone();
    let directory = options
        .project_directory
        .as_ref()
        .map(|d| paths::clean(&current.join(d)));

    environment
        .entry("PWD".to_owned())
        .or_insert_with(|| current.display().to_string());

    // Without `-f` the `.env` of the current directory may say which files to take.
    let first = directory.clone().unwrap_or_else(|| current.clone());
    if options.files.is_empty() {
        read_env_files(options, &current, &first, &mut environment)?;
    }

    let named = if options.files.is_empty() {
        environment
            .get("COMPOSE_FILE")
            .filter(|f| !f.is_empty())
            .map(|list| {
                let separator = environment
                    .get("COMPOSE_PATH_SEPARATOR")
                    .filter(|s| !s.is_empty())
                    .map_or(":", String::as_str);
                list.split(separator).map(str::to_owned).collect()
            })
    } else {
        Some(options.files.clone())
    };
    let files: Vec<PathBuf> = match named {
        Some(files) => files
            .iter()
            .map(|f| {
                if f == "-" {
                    PathBuf::from("-")
                } else {
                    paths::clean(&current.join(f))
                }
            })
            .collect(),
        None => search(&first, &mut warnings)?,
    };
    let directory = directory.unwrap_or_else(|| {
        let first = files.first().filter(|f| *f != Path::new("-"));
        let parent = first.and_then(|f| f.parent());
        parent.map_or_else(|| current.clone(), Path::to_owned)
    });
    if directory != first || !options.files.is_empty() {
        read_env_files(options, &current, &directory, &mut environment)?;
    }
    let profiles = if options.profiles.is_empty() {
        let listed = environment
            .get("COMPOSE_PROFILES")
            .map_or("", String::as_str);
        listed
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect()
    } else {
        options.profiles.clone()
    };
    Ok(Found {
        files,
        directory,
        environment,
        profiles,
        warnings,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path)
        .map(|p| paths::clean(&p))
        .map_err(|e| Fault::new(format!("cannot find the current directory: {e}")))
}

fn search(start: &Path, warnings: &mut Vec<String>) -> Result<Vec<PathBuf>, Fault> {
    for directory in start.ancestors() {
        let found: Vec<&str> = NAMES
            .into_iter()
            .filter(|n| directory.join(n).is_file())
            .collect();
        let Some(best) = found.first() else { continue };
        if found.len() > 1 {
            warnings.push(format!(
                "found several files with supported names ({}); using {best}",
                found.join(", ")
            ));
        }
        let mut files = vec![directory.join(best)];
        let overrides: Vec<&str> = OVERRIDES
            .into_iter()
            .filter(|n| directory.join(n).is_file())
            .collect();
        if overrides.len() > 1 {
            warnings.push(format!(
                "found several override files with supported names ({}); using {}",
                overrides.join(", "),
                overrides[0]
            ));
        }
        files.extend(overrides.first().map(|n| directory.join(n)));
        return Ok(files);
    }
    Err(Fault::new(format!(
        "no compose file found in {} or any directory above",
        start.display()
    ))
    .help("name one with -f, or create compose.yaml"))
}

fn read_env_files(
    options: &LoadOptions,
    current: &Path,
    directory: &Path,
    environment: &mut BTreeMap<String, String>,
) -> Result<(), Fault> {
    let mut files: Vec<PathBuf> = options.env_files.iter().map(|f| current.join(f)).collect();
    if files.is_empty() {
        let listed = environment
            .get("COMPOSE_ENV_FILES")
            .cloned()
            .unwrap_or_default();
        files = listed
            .split(',')
            .filter(|f| !f.is_empty())
            .map(|f| current.join(f))
            .collect();
    }
    if files.is_empty() {
        let default = directory.join(".env");
        let disabled = environment
            .get("COMPOSE_DISABLE_ENV_FILE")
            .is_some_and(|v| matches!(v.as_str(), "1" | "true" | "TRUE" | "True" | "t" | "T"));
        if disabled || !default.is_file() {
            return Ok(());
        }
        files.push(default);
    }
    let values = env_files(&files, environment)?;
    for (name, value) in values {
        environment.entry(name).or_insert(value);
    }
    Ok(())
}

/// Reads environment files; later ones win, and all see `environment` first.
pub(crate) fn env_files(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let text = crate::source::read_text(file).map_err(|e| {
            Fault::new(format!(
                "cannot read environment file {}: {e}",
                file.display()
            ))
        })?;
        let pairs = {
            let lookup = |name: &str| environment.get(name).cloned();
            dotenv::parse_after(&text, &lookup, values.clone())
                .map_err(|f| dotenv_fault(file, &f))?
        };
        values.extend(pairs);
    }
    Ok(values)
}

/// A fault of an environment file, with its line.
pub(crate) fn dotenv_fault(file: &Path, fault: &dotenv::DotenvFault) -> Fault {
    Fault::new(format!(
        "{}:{}: {}",
        file.display(),
        fault.line,
        fault.message
    ))
}

/// Makes a valid project name of any text: lower case, without other characters.
pub(crate) fn normalize_name(text: &str) -> String {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}
