//! Cases with the model that the reference implementation makes of them.
//!
//! `tests/cases` holds our own (its README says how they are made). The corpus of real files
//! stands beside the checkout (`../shared/corpus`, or where `WHARFIE_CORPUS` says).
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wharfie_compose::{LoadOptions, Loaded, load, output};

/// One case: a folder with files, arguments, environment and what is expected.
struct Case {
    dir: PathBuf,
    options: LoadOptions,
    config_args: Vec<String>,
}

fn lines(path: &Path) -> Option<Vec<String>> {
    let dir = path
        .parent()
        .expect("a file has a folder")
        .to_string_lossy();
    let text = std::fs::read_to_string(path)
        .ok()
        .filter(|_| path.is_file())?;
    let text = text.replace("${PROJECT_DIR}", &dir);
    Some(
        text.lines()
            .map(str::to_owned)
            .filter(|l| !l.is_empty())
            .collect(),
    )
}

impl Case {
    fn read(dir: &Path) -> Self {
        let default = ["-p", "proj", "-f", "compose.yaml", "--profile", "*"];
        let args = lines(&dir.join("args")).unwrap_or_else(|| default.map(str::to_owned).to_vec());
        let mut options = LoadOptions {
            working_dir: dir.to_owned(),
            ..LoadOptions::default()
        };
        let env = lines(&dir.join("env")).unwrap_or_default();
        options.environment = [("PATH", "/usr/bin:/bin"), ("HOME", "/root")]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .chain(
                env.iter()
                    .filter_map(|l| l.split_once('='))
                    .map(|(k, v)| (k.to_owned(), v.to_owned())),
            )
            .collect();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let value = inline
                .or_else(|| args.next())
                .expect("an argument has a value");
            match flag.as_str() {
                "-p" | "--project-name" => options.project_name = Some(value),
                "-f" | "--file" => options.files.push(value),
                "--profile" => options.profiles.push(value),
                "--env-file" => options.env_files.push(value.into()),
                "--project-directory" => options.project_directory = Some(value.into()),
                other => panic!("{}: unknown argument {other}", dir.display()),
            }
        }
        let config_args = lines(&dir.join("config-args")).unwrap_or_default();
        for arg in &config_args {
            match arg.as_str() {
                "--no-interpolate" => options.interpolate = false,
                "--no-normalize" => options.normalize = false,
                "--no-path-resolution" => options.resolve_paths = false,
                "--no-consistency" => options.check_consistency = false,
                "--no-env-resolution" => options.resolve_environment = false,
                _ => {}
            }
        }
        Self {
            dir: dir.to_owned(),
            options,
            config_args,
        }
    }

    /// Whether the library alone can answer: selections and other outputs are the command's.
    fn is_model(&self) -> bool {
        self.dir.join("expected.json").is_file()
            && self.options.interpolate
            && self
                .config_args
                .iter()
                .all(|a| a.starts_with("--no-") || a == "--format=json")
    }

    fn check(&self) -> Result<(), String> {
        if self.dir.join("expected.error").is_file() {
            let selects = self.config_args.iter().any(|a| !a.starts_with("--no-"));
            return match load(&self.options) {
                _ if selects => Ok(()),
                Ok(_) => Err("accepted, but the reference refuses it: ".to_owned()
                    + &std::fs::read_to_string(self.dir.join("expected.error"))
                        .unwrap_or_default()),
                Err(faults) if faults.is_empty() => Err("refused without a fault".to_owned()),
                Err(_) => Ok(()),
            };
        }
        if !self.is_model() {
            return Ok(());
        }
        let loaded = load(&self.options).map_err(|f| format!("refused: {f}"))?;
        let printed = printed(&loaded, &self.dir);
        let text =
            std::fs::read_to_string(self.dir.join("expected.json")).map_err(|e| e.to_string())?;
        let expected: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let mut differences = Vec::new();
        differ("", &expected, &printed, &mut differences);
        if differences.is_empty() {
            Ok(())
        } else {
            Err(differences.join("\n    "))
        }
    }
}

fn printed(loaded: &Loaded, dir: &Path) -> Value {
    let text = output::to_json(&loaded.project).replace(&*dir.to_string_lossy(), "${PROJECT_DIR}");
    serde_json::from_str(&text).expect("the output is JSON")
}

/// Lists where two values differ.
fn differ(path: &str, expected: &Value, actual: &Value, out: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => differ(&path, x, y, out),
                    (Some(x), None) => out.push(format!("{path}: missing {x}")),
                    (None, Some(y)) => out.push(format!("{path}: extra {y}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{i}]"), x, y, out);
            }
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        _ if expected != actual => out.push(format!("{path}: expected {expected}, got {actual}")),
        _ => {}
    }
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect();
    out.sort();
    out
}

#[test]
fn own_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let only = std::env::var("CASE").unwrap_or_default();
    let deviations: BTreeMap<String, String> = lines(&root.join("deviations"))
        .expect("the list of deviations is there")
        .iter()
        .filter_map(|l| l.split_once(": "))
        .map(|(name, why)| (name.to_owned(), why.to_owned()))
        .collect();
    let mut failures = BTreeMap::new();
    let mut count = 0;
    for dir in folders(&root).iter().flat_map(|topic| folders(topic)) {
        if !dir.to_string_lossy().contains(&only) {
            continue;
        }
        count += 1;
        let name = dir
            .strip_prefix(&root)
            .unwrap_or(&dir)
            .display()
            .to_string();
        match (Case::read(&dir).check(), deviations.contains_key(&name)) {
            (Err(message), false) => {
                failures.insert(name, message);
            }
            (Ok(()), true) => {
                failures.insert(
                    name,
                    "does as the reference: take it off the list of deviations".to_owned(),
                );
            }
            _ => {}
        }
    }
    for (name, message) in &failures {
        eprintln!("{name}:\n    {message}");
    }
    assert!(count > 0, "no cases found in {}", root.display());
    assert!(
        failures.is_empty(),
        "{} of {count} cases differ",
        failures.len()
    );
}

#[test]
fn real_files_equal_the_reference() {
    let root = std::env::var_os("WHARFIE_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    let root = root.join("awesome-compose");
    if !root.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the corpus is not at {}",
            root.display()
        );
        eprintln!(
            "skipped: no corpus at {}; set WHARFIE_CORPUS",
            root.display()
        );
        return;
    }
    let mut failures = Vec::new();
    let mut count = 0;
    for dir in folders(&root) {
        let dir = dir.canonicalize().expect("the folder exists");
        let mut case = Case::read(&dir);
        case.options.files = folders_file(&dir);
        case.options
            .environment
            .insert("HOME".to_owned(), "/nonexistent".to_owned());
        count += 1;
        if let Err(message) = case.check() {
            failures.push(format!("{}:\n    {message}", dir.display()));
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n{} of {count} differ",
        failures.join("\n"),
        failures.len()
    );
    assert_eq!(count, 39);
}

/// The compose file of a corpus folder, whatever its name.
fn folders_file(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.ends_with(".yaml") || n.ends_with(".yml"))
        .collect();
    names.sort();
    names
}
