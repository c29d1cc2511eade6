//! Builds the Python package and the npm package, which the drivers use.

use std::path::PathBuf;

use tools::node;
use tools::python::Venv;
use tools::run::{Run, quietly};

/// Packages are built with the profile of this program.
const IS_DEBUG: bool = cfg!(debug_assertions);

pub(crate) struct Built {
    /// The interpreter for which the Python package is installed.
    pub(crate) python: PathBuf,
    /// The drivers' scripts.
    pub(crate) drivers: PathBuf,
}

pub(crate) fn prepare() -> Result<Built, String> {
    let run = &Run::new();
    node::check(run)?;
    let venv = Venv::of_project(run)?;
    node::install(run)?;
    let mut python = venv.develop(run);
    if !IS_DEBUG {
        python.arg("--release");
    }
    let script = if IS_DEBUG { "build:debug" } else { "build" };
    for (what, build) in [
        ("the Python package", python),
        ("the npm package", node::npm(run, ["run", script])),
    ] {
        println!("building {what}");
        quietly(what, build)?;
    }

    Ok(Built {
        python: venv.program("python"),
        drivers: run.root.join("crates/torture/drivers"),
    })
}

/// How to run this program again with the same build.
pub(crate) const COMMAND: &str = if IS_DEBUG {
    "cargo run -p feishu-feed-card-torture --"
} else {
    "cargo torture"
};
