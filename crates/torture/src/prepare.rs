//! Builds what the run starts: the sandbox, the Python package and the npm package.

use std::fs;
use std::path::PathBuf;

use xtask::node;
use xtask::python::Venv;
use xtask::run::{Run, quietly};

/// Everything is built with the profile of this program.
const IS_DEBUG: bool = cfg!(debug_assertions);

/// What was built, and a folder for files.
pub(crate) struct Built {
    pub(crate) sandbox: PathBuf,
    pub(crate) python: PathBuf,
    /// The drivers' scripts.
    pub(crate) drivers: PathBuf,
    pub(crate) scratch: PathBuf,
}

pub(crate) fn prepare() -> Result<Built, String> {
    let run = &Run::new();
    node::check(run)?;
    let venv = Venv::of_project(run)?;
    node::install(run)?;
    let mut sandbox = run.cargo([
        "build",
        "--locked",
        "--package=feishu-feed-card-sandbox",
        "--bins",
    ]);
    let mut python = venv.develop(run);
    if !IS_DEBUG {
        sandbox.arg("--release");
        python.arg("--release");
    }
    let script = if IS_DEBUG { "build:debug" } else { "build" };
    for (what, build) in [
        ("the sandbox", sandbox),
        ("the Python package", python),
        ("the npm package", node::npm(run, ["run", script])),
    ] {
        println!("building {what}");
        quietly(what, build)?;
    }

    let profile = if IS_DEBUG { "debug" } else { "release" };
    let scratch = run.root.join(".scratch/torture");
    fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    Ok(Built {
        sandbox: run.target()?.join(profile).join("feishu-feed-card-sandbox"),
        python: venv.program("python"),
        drivers: run.root.join("crates/torture/drivers"),
        scratch,
    })
}

/// How to run this program again with the same build.
pub(crate) const COMMAND: &str = if IS_DEBUG {
    "cargo run -p feishu-feed-card-torture --"
} else {
    "cargo torture"
};
