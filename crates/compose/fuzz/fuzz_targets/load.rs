//! Any bytes as a compose file: no panic, no hang, no unbounded memory.
//! `cargo fuzz run load` in `crates/compose`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfie_compose::{LoadOptions, load, output};

fuzz_target!(|bytes: &[u8]| {
    let file = std::env::temp_dir().join(format!("wharfie-fuzz-{}.yaml", std::process::id()));
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    let options = LoadOptions {
        files: vec![file.display().to_string()],
        project_name: Some("fuzz".to_owned()),
        profiles: vec!["*".to_owned()],
        ..LoadOptions::default()
    };
    if let Ok(loaded) = load(&options) {
        let _ = output::to_json(&loaded.project);
        let _ = output::to_yaml(&loaded.project);
    }
});
