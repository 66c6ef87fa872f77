//! What is wanted, as it is stored and sent.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::{Path, PathBuf};

use wharfie_compose::model::Project;
use wharfie_compose::{LoadOptions, config_hash};
use wharfie_core::wanted::Definition;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .file_name()
            .is_some_and(|n| n == "compose.yaml" || n == "docker-compose.yml")
        {
            found.push(path);
        }
    }
}

/// Every project of the loader's own cases is the same after it was written and read.
#[test]
fn a_definition_is_whole() {
    let mut found = Vec::new();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/tests/cases");
    files(&cases, &mut found);
    let mut checked = 0;
    for file in found {
        let dir = file.parent().unwrap().to_owned();
        let options = LoadOptions {
            files: vec![file.display().to_string()],
            project_name: Some("whole".to_owned()),
            profiles: vec!["*".to_owned()],
            working_dir: dir,
            ..LoadOptions::default()
        };
        // Cases of files that are refused are no projects.
        let Ok(loaded) = wharfie_compose::load(&options) else {
            continue;
        };
        let mut project = loaded.project;
        let text = serde_json::to_string(&Definition::from(&project)).unwrap();
        let read: Result<Definition, _> = serde_json::from_str(&text);
        let read = read.unwrap_or_else(|e| panic!("{}: {e}\n{text}", file.display()));
        let read = Project::from(read);
        for (name, service) in &project.services {
            assert_eq!(
                config_hash(service),
                config_hash(&read.services[name]),
                "{}: {name}",
                file.display()
            );
        }
        // The reference sorts the addresses of a host.
        for service in project.services.values_mut() {
            service.extra_hosts.0.values_mut().for_each(|a| a.sort());
            if let Some(build) = &mut service.build {
                build.extra_hosts.0.values_mut().for_each(|a| a.sort());
            }
        }
        // Variables that nothing refers to are left out.
        project.environment.clone_from(&read.environment);
        let (whole, again) = (format!("{project:#?}"), format!("{read:#?}"));
        let differ: Vec<_> = whole
            .lines()
            .zip(again.lines())
            .filter(|(a, b)| a != b)
            .take(5)
            .collect();
        assert!(differ.is_empty(), "{}: {differ:#?}", file.display());
        checked += 1;
    }
    assert!(checked > 300, "only {checked} cases were found");
}
