//! `cargo xtask torture`: builds the drivers' packages, the sandbox and the soak, and becomes the soak
//! (`torture/main.rs`).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::node;
use crate::options::{Opt, Options};
use crate::python::Venv;
use crate::run::{Run, WITHOUT_BINDINGS, become_it, quietly};

pub(crate) const OPTIONS: &[Opt] = &[
    Opt {
        name: "--minutes",
        value: Some("N"),
        what: "how long; 10 unless said",
    },
    Opt {
        name: "--seed",
        value: Some("S"),
        what: "the calls and faults of an earlier run; drawn unless said",
    },
    Opt {
        name: "--debug",
        value: None,
        what: "without the release profile: builds in a minute, for a try",
    },
    Opt {
        name: "--lie",
        value: None,
        what: "falsifies three answers, to see the verdict find them",
    },
];

pub(crate) fn torture(run: &mut Run, options: &Options) -> Result<(), String> {
    let minutes: f64 = options.value("--minutes")?.unwrap_or(10.0);
    if !(minutes > 0.0 && minutes <= 24.0 * 60.0) {
        return Err(format!("--minutes: {minutes} is not between 0 and a day"));
    }
    let seed: u64 = match options.value("--seed")? {
        Some(seed) => seed,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_secs()),
    };
    let is_debug = options.has("--debug");

    node::check(run)?;
    let venv = Venv::of_project(run)?;
    node::install(run)?;
    let mut rust = run.cargo(["build", "--example=torture", "--bin=feishu-feed-card-sandbox"]);
    rust.args(WITHOUT_BINDINGS);
    let mut python = venv.develop(run);
    if !is_debug {
        rust.arg("--release");
        python.arg("--release");
    }
    let script = if is_debug { "build:debug" } else { "build" };
    for (what, build) in [
        ("the soak, the Rust crate and the sandbox", rust),
        ("the Python package", python),
        ("the npm package", node::npm(run, ["run", script])),
    ] {
        println!("building {what}");
        quietly(what, build)?;
    }

    let built = run.built(if is_debug { "debug" } else { "release" })?;
    let folder = run.root.join(".scratch/torture");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut soak = run.command(built.join("examples/torture"));
    soak.args([minutes.to_string(), seed.to_string()]);
    soak.arg(if options.has("--lie") { "lie" } else { "honest" });
    soak.arg(built.join("feishu-feed-card-sandbox"));
    soak.arg(venv.program("python")).arg(&folder);
    become_it(soak)
}
