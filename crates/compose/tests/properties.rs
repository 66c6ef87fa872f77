//! Properties of merging and of the whole loader, over generated files.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use wharfie_compose::{LoadOptions, Loaded, config_hash, load, output};

fn load_texts(name: &str, texts: &[String]) -> Result<Loaded, String> {
    let dir: PathBuf =
        std::env::temp_dir().join(format!("wharfie-prop-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let files: Vec<String> = (0..texts.len()).map(|i| format!("{i}.yaml")).collect();
    for (file, text) in files.iter().zip(texts) {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let result = load(&LoadOptions {
        files,
        working_dir: dir.clone(),
        project_name: Some("p".to_owned()),
        ..LoadOptions::default()
    });
    let _ = std::fs::remove_dir_all(&dir);
    result.map_err(|f| f.to_string())
}

/// A service as attributes with JSON values (JSON is YAML).
fn service() -> impl Strategy<Value = BTreeMap<String, serde_json::Value>> {
    let word = "[a-z]{1,6}";
    let pairs = proptest::collection::btree_map(word, "[a-z0-9]{0,5}", 0..4);
    let list = proptest::collection::btree_set(word, 0..4);
    (
        proptest::option::of(word),
        pairs.clone(),
        pairs,
        list,
        proptest::option::of(proptest::collection::vec(word, 0..3)),
        proptest::option::of(1_u16..9),
    )
        .prop_map(|(hostname, environment, labels, cap_add, command, port)| {
            let mut map = BTreeMap::new();
            let mut put = |key: &str, value: serde_json::Value| map.insert(key.to_owned(), value);
            put("image", "x".into());
            if let Some(hostname) = hostname {
                put("hostname", hostname.into());
            }
            put("environment", serde_json::to_value(environment).unwrap());
            put("labels", serde_json::to_value(labels).unwrap());
            put("cap_add", serde_json::to_value(cap_add).unwrap());
            if let Some(command) = command {
                put("command", command.into());
            }
            if let Some(port) = port {
                put("ports", vec![format!("{}:{port}", 8000 + port)].into());
            }
            map
        })
}

fn file(service: &BTreeMap<String, serde_json::Value>) -> String {
    serde_json::json!({"services": {"a": service}}).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_over_itself_changes_nothing(s in service()) {
        let once = load_texts("self", &[file(&s)]).unwrap();
        let twice = load_texts("self", &[file(&s), file(&s)]).unwrap();
        prop_assert_eq!(output::to_json(&once.project), output::to_json(&twice.project));
    }

    #[test]
    fn an_empty_override_changes_nothing(s in service()) {
        let once = load_texts("empty", &[file(&s)]).unwrap();
        let with = load_texts("empty", &[file(&s), "services: {a: {}}".to_owned()]).unwrap();
        prop_assert_eq!(output::to_json(&once.project), output::to_json(&with.project));
    }

    #[test]
    fn merging_is_associative(a in service(), b in service(), c in service()) {
        // Two files merged and written out, then the third, is the same as all three at once.
        let all = load_texts("assoc", &[file(&a), file(&b), file(&c)]).unwrap();
        let ab = load_texts("assoc", &[file(&a), file(&b)]).unwrap();
        let steps = load_texts("assoc", &[output::to_json(&ab.project), file(&c)]).unwrap();
        prop_assert_eq!(output::to_json(&all.project), output::to_json(&steps.project));
    }

    #[test]
    fn later_values_win_and_nothing_else_is_lost(a in service(), b in service()) {
        let merged = load_texts("wins", &[file(&a), file(&b)]).unwrap();
        let merged = &merged.project.services["a"];
        for (file, wins) in [(&a, false), (&b, true)] {
            for (key, value) in file["environment"].as_object().unwrap() {
                let found = merged.environment[key].as_deref();
                if wins {
                    prop_assert_eq!(found, value.as_str());
                } else {
                    prop_assert!(found.is_some());
                }
            }
            for capability in file["cap_add"].as_array().unwrap() {
                prop_assert!(merged.cap_add.iter().any(|c| Some(c.as_str()) == capability.as_str()));
            }
        }
        let last = b.get("command").or_else(|| a.get("command"));
        let command = merged.command.as_ref().map(|c| serde_json::to_value(c).unwrap());
        prop_assert_eq!(command.as_ref(), last);
    }

    #[test]
    fn both_outputs_load_again_to_the_same(s in service()) {
        let loaded = load_texts("again", &[file(&s)]).unwrap();
        let hash = config_hash(&loaded.project.services["a"]);
        for text in [output::to_json(&loaded.project), output::to_yaml(&loaded.project)] {
            let again = load_texts("again", &[text]).unwrap();
            prop_assert_eq!(output::to_json(&loaded.project), output::to_json(&again.project));
            prop_assert_eq!(&hash, &config_hash(&again.project.services["a"]));
        }
    }

    #[test]
    fn reset_removes_and_override_replaces(s in service(), t in service()) {
        let over = "services: {a: {labels: !reset null, environment: !override {ONLY: this}}}".to_owned();
        let loaded = load_texts("tags", &[file(&s), file(&t), over]).unwrap();
        let service = &loaded.project.services["a"];
        prop_assert!(service.labels.is_empty());
        prop_assert_eq!(service.environment.keys().collect::<Vec<_>>(), vec!["ONLY"]);
    }

    #[test]
    fn the_loader_never_panics(text in "(services|a|b|image|ports|build|[-:\\[\\]{}&*!|>'\"#,.$ \n]|\\$\\{|  ){0,60}") {
        let _ = load_texts("panic", &[text]);
    }
}
