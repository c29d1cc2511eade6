//! `cargo xtask demo`: one call, from each language, against a sandbox.

use crate::node;
use crate::python::Venv;
use crate::run::{Run, WITHOUT_BINDINGS, become_it, quietly};

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

    let mut demo = run.command(run.built("debug")?.join("examples/demo"));
    demo.env("DEMO_PYTHON", venv.program("python"));
    become_it(demo)
}
