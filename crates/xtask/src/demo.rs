//! `cargo xtask demo`: one call, from each language, against a sandbox.

use std::process::Command;

use tools::node;
use tools::python::Venv;
use tools::run::{Run, quietly};

use crate::WITHOUT_BINDINGS;

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

    let mut demo = run.command(run.target()?.join("debug/examples/demo"));
    demo.env("DEMO_PYTHON", venv.program("python"));
    become_it(demo)
}

/// Replaces this process, so that a signal to it ends the other program.
#[cfg(unix)]
fn become_it(mut program: Command) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    Err(program.exec().to_string())
}

#[cfg(not(unix))]
fn become_it(mut program: Command) -> Result<(), String> {
    match program.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
