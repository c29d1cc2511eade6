//! The layers of `src`, as `docs/architecture.md` shows them: each uses only those below it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::fs;
use std::path::Path;

/// The layers from top to bottom. A module may use modules of its own row and of the rows below.
const LAYERS: [&[&str]; 6] = [
    &["binding", "client", "many", "options"],
    &["call"],
    &["stations"],
    &["platform"],
    &["transport"],
    &["data"],
];

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("src/{module} belongs to no layer: add it to LAYERS"))
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix("src")
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The modules that a file names after `crate::`, outside of its tests.
fn used(source: &str) -> impl Iterator<Item = &str> {
    let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| {
        line.split("crate::").skip(1).map(|rest| {
            let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            &rest[..end.unwrap_or(rest.len())]
        })
    })
}

#[test]
fn no_layer_uses_one_above_it() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (name, source) in &files {
        let module = name.split(['/', '.']).next().unwrap();
        // The root names everything, and the simulation is a test.
        if matches!(module, "lib" | "simulation") {
            continue;
        }
        for used in used(source) {
            checked += 1;
            if layer(used) < layer(module) {
                wrong.push(format!("src/{name} uses {used}, which is above it"));
            }
        }
    }
    assert!(checked > 50, "only {checked} uses were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
