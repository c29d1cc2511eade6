//! The crates, packed as for crates.io.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use crate::run::{Run, quietly};

/// In the order of publication: the core's tests depend on the sandbox.
pub const CRATES: [&str; 2] = ["feishu-feed-card-sandbox", "feishu-feed-card"];

const FOLDER: &str = ".scratch/crates";

/// The arguments that select these crates.
pub fn selected() -> impl Iterator<Item = &'static str> {
    CRATES.into_iter().flat_map(|name| ["--package", name])
}

/// Packs the crates, compiles each from its package, and runs the tests that the package contains.
pub(crate) fn package(run: &mut Run) -> Result<Vec<PathBuf>, String> {
    let mut package = run.cargo(["package", "--locked"]);
    // Packaging a clone with changes is allowed: a release is only made from a tag.
    package.arg("--allow-dirty").args(selected());
    run.step("crates", package)?;

    let folder = run.root.join(FOLDER);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{FOLDER}: {error}"))?;
    let version = env!("CARGO_PKG_VERSION");
    let mut packed = Vec::new();
    for name in CRATES {
        let file = run.target()?.join(format!("package/{name}-{version}.crate"));
        let mut unpack = run.command("tar");
        // `-m`: the files' dates are from 2006, so cargo would reuse what it compiled from an earlier package.
        unpack.args(["-x", "-m", "-f"]).arg(&file).current_dir(&folder);
        quietly("tar", unpack)?;
        packed.push(file);
    }
    for name in CRATES {
        let manifest = folder.join(format!("{name}-{version}/Cargo.toml"));
        // Without a workspace of its own, cargo reports it as a forgotten member of this one.
        let addition = match name {
            "feishu-feed-card" => format!(
                "\n[workspace]\n[patch.crates-io.feishu-feed-card-sandbox]\n\
                 path = \"../feishu-feed-card-sandbox-{version}\"\n"
            ),
            _ => "\n[workspace]\n".to_owned(),
        };
        fs::OpenOptions::new()
            .append(true)
            .open(&manifest)
            .and_then(|mut file| file.write_all(addition.as_bytes()))
            .map_err(|error| format!("{}: {error}", manifest.display()))?;
        let mut test = run.cargo(["test", "--manifest-path"]);
        test.arg(manifest).env("CARGO_TARGET_DIR", run.target()?);
        run.tests("tests in the crate", test)?;
    }
    Ok(packed)
}
