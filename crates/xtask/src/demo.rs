//! `cargo xtask demo`: one call, from each language, against a sandbox.

use std::process::Command;

use crate::node;
use crate::python::Venv;
use crate::run::{Run, WITHOUT_BINDINGS, quietly};

pub(crate) fn demo(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    let venv = Venv::of_project(run)?;
    node::install(run)?;

    let mut rust = run.cargo(["build", "--example=demo"]);
    rust.args(WITHOUT_BINDINGS);
    for (what, build) in [
        ("the Rust crate and the sandbox", rust),
        ("the Python package", venv.develop(run)),
        ("the npm package", node::npm(run, ["run", "build:debug"])),
    ] {
        println!("building {what}");
        quietly(what, build)?;
    }

    // Beside this program, wherever the target folder is.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut demo = run.command(this.with_file_name("examples").join("demo"));
    demo.env("DEMO_PYTHON", venv.program("python"));
    become_it(demo)
}

/// One process instead of two: whoever ends this one ends the sandbox, which lives in the other.
#[cfg(unix)]
fn become_it(mut demo: Command) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    Err(demo.exec().to_string())
}

#[cfg(not(unix))]
fn become_it(mut demo: Command) -> Result<(), String> {
    match demo.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
