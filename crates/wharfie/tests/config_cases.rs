//! `wharfie config` against what the reference printed: the cases of `crates/compose/tests/cases`
//! (its README explains them), run through the binary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Topics whose cases are all run; of the others only those with arguments to `config`.
const WHOLE_TOPICS: [&str; 6] = [
    "output",
    "discovery",
    "name",
    "profiles",
    "dotenv",
    "invalid",
];

/// Cases in which the command deviates, beside those of the library's own list, and why.
const DEVIATIONS: [(&str, &str); 6] = [
    ("interpolation/none", LISTS),
    ("output/no-interpolate-everything", LISTS),
    ("output/no-interpolate-extends-and-merge", LISTS),
    ("output/no-interpolate-short-forms", LISTS),
    ("output/env-file-missing-without-resolution", NO_RESOLUTION),
    ("output/no-env-resolution-files", NO_RESOLUTION),
];
const LISTS: &str =
    "short forms that the reference keeps without interpolation are written in full";
const NO_RESOLUTION: &str =
    "--no-env-resolution does what its help says; in the reference it has no effect";

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).expect("the folder is there");
    let mut out: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect();
    out.sort();
    out
}

fn text(path: &Path, dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.replace("${PROJECT_DIR}", &dir.display().to_string()))
}

fn lines(path: &Path, dir: &Path, default: &[&str]) -> Vec<String> {
    match text(path, dir) {
        Some(text) => text
            .lines()
            .filter(|l| !l.is_empty())
            .map(str::to_owned)
            .collect(),
        None => default.iter().map(|&a| a.to_owned()).collect(),
    }
}

/// Numbers are equal if their values are: `1` and `1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(v, w)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(v, w)| equal(v, w))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn check(dir: &Path) -> Result<(), String> {
    let env = lines(&dir.join("env"), dir, &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_wharfie"))
        .args(lines(
            &dir.join("args"),
            dir,
            &["-p", "proj", "-f", "compose.yaml", "--profile", "*"],
        ))
        .arg("config")
        .args(lines(&dir.join("config-args"), dir, &["--format", "json"]))
        .current_dir(dir)
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/root")])
        .envs(env.iter().filter_map(|l| l.split_once('=')))
        .output()
        .map_err(|e| e.to_string())?;
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    if dir.join("expected.error").is_file() {
        return match output.status.code() {
            Some(2) if out.is_empty() && !err.is_empty() => Ok(()),
            code => Err(format!(
                "expected to be refused with 2, got {code:?}\n{out}{err}"
            )),
        };
    }
    if !output.status.success() {
        return Err(format!("failed with {:?}\n{err}", output.status.code()));
    }
    if let Some(expected) = text(&dir.join("expected.json"), dir) {
        let expected: Value = serde_json::from_str(&expected).map_err(|e| e.to_string())?;
        let printed: Value =
            serde_json::from_str(&out).map_err(|e| format!("not JSON: {e}\n{out}"))?;
        return if equal(&expected, &printed) {
            Ok(())
        } else {
            Err(format!("expected {expected:#}\ngot {printed:#}"))
        };
    }
    let expected = text(&dir.join("expected.txt"), dir).ok_or("no expectation")?;
    if *expected == *out {
        Ok(())
    } else {
        Err(format!("expected:\n{expected}\ngot:\n{out}"))
    }
}

#[test]
fn config_prints_what_the_reference_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/tests/cases");
    let root = root.canonicalize().expect("the cases are there");
    let listed =
        std::fs::read_to_string(root.join("deviations")).expect("the list of deviations is there");
    let deviations: BTreeSet<&str> = listed
        .lines()
        .filter_map(|l| Some(l.split_once(": ")?.0))
        .collect();
    let (mut count, mut failures) = (0, Vec::new());
    for dir in folders(&root).iter().flat_map(|topic| folders(topic)) {
        let name = dir
            .strip_prefix(&root)
            .expect("it is below")
            .display()
            .to_string();
        let whole = name
            .split('/')
            .next()
            .is_some_and(|t| WHOLE_TOPICS.contains(&t));
        if deviations.contains(name.as_str()) || !(whole || dir.join("config-args").is_file()) {
            continue;
        }
        count += 1;
        let deviates = DEVIATIONS.iter().find(|(case, _)| *case == name);
        match (check(&dir), deviates) {
            (Err(message), None) => failures.push(format!("{name}: {message}")),
            (Ok(()), Some((_, why))) => {
                failures.push(format!("{name} does as the reference, against: {why}"))
            }
            _ => {}
        }
    }
    assert!(count > 100, "only {count} cases found");
    assert!(
        failures.is_empty(),
        "{} of {count} cases differ\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}
