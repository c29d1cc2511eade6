//! The steps of a release other than packaging; see `docs/RELEASING.md`.

use std::fs;
use std::path::{Path, PathBuf};

use tools::crates::CRATES;
use tools::node::NPM;
use tools::run::{Run, output};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `cargo xtask version TAG`: checks that the manifests and the changelog have the tag's version.
pub(crate) fn version(run: &Run, tag: &str) -> Result<(), String> {
    let named = |file: &str, text: &str| match fs::read_to_string(run.root.join(file)) {
        Err(error) => Err(format!("{file}: {error}")),
        Ok(content) if content.contains(text) => Ok(()),
        Ok(_) => Err(format!("{file} does not contain {text:?}")),
    };
    if tag != format!("v{VERSION}") {
        return Err(format!("the tag is {tag}, and the version is {VERSION}"));
    }
    named("node/package.json", &format!("\n  \"version\": \"{VERSION}\""))?;
    named(
        "node/package-lock.json",
        &format!("\n  \"version\": \"{VERSION}\""),
    )?;
    named("CHANGELOG.md", &format!("\n## {VERSION}"))
}

/// `cargo xtask publish crates`: publishes each crate whose version crates.io does not have yet.
pub(crate) fn publish_crates(run: &mut Run, dry: bool) -> Result<(), String> {
    // `cargo xtask package` has compiled them. Without `--no-verify`, build scripts of dependencies would run here,
    // where the environment holds a token.
    let mut publish = run.cargo(["publish", "--locked", "--no-verify"]);
    let mut is_missing = false;
    for name in CRATES {
        let id = format!("{name}@{VERSION}");
        if output(run.cargo(["info", "--registry=crates-io", &id])).is_some() {
            println!("crates.io has {id}");
        } else {
            publish.args(["--package", name]);
            is_missing = true;
        }
    }
    if dry {
        publish.args(["--dry-run", "--allow-dirty"]);
    }
    if is_missing {
        run.step("cargo publish", publish)
    } else {
        Ok(())
    }
}

/// `cargo xtask publish npm`: publishes each package in `node/packed` whose version npm does not have yet.
pub(crate) fn publish_npm(run: &mut Run, dry: bool) -> Result<(), String> {
    const FOLDER: &str = "node/packed";
    let entries = fs::read_dir(run.root.join(FOLDER)).map_err(|error| format!("{FOLDER}: {error}"))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let ending = format!("-{VERSION}.tgz");
    let name = |file: &Path| -> Option<String> {
        Some(file.file_name()?.to_str()?.strip_suffix(&ending)?.to_owned())
    };
    // The main package comes last: installing it needs the others.
    files.sort_by_key(|file| name(file).is_some_and(|name| name == "feishu-feed-card"));
    for file in files {
        let name = name(&file).ok_or_else(|| format!("{} is not of {VERSION}", file.display()))?;
        let id = format!("{name}@{VERSION}");
        let mut view = run.command(NPM);
        view.args(["view", &id, "version"]);
        if output(view).is_some_and(|version| version == VERSION) {
            println!("npm has {id}");
            continue;
        }
        let mut publish = run.command(NPM);
        publish.args(["publish", "--access=public"]).arg(file);
        if dry {
            publish.arg("--dry-run");
        }
        run.step("npm publish", publish)?;
    }
    Ok(())
}
