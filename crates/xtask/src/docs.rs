//! `cargo xtask docs`: the site, and the programs of the guide.

use tools::node;
use tools::python::Venv;
use tools::run::Run;

/// Builds `target/site` and checks its links; with `--recipes [NAME ...]` runs the recipes instead.
pub(crate) fn docs(run: &mut Run, arguments: &[&str]) -> Result<(), String> {
    node::check(run)?;
    let venv = Venv::of_project(run)?;
    node::install(run)?;
    run.step("Python extension", venv.develop(run))?;
    let (step, script) = if arguments.is_empty() {
        ("site", "docs/guide/scripts/build_site.py")
    } else {
        run.step("Node module", node::npm(run, ["run", "build:debug"]))?;
        ("recipes", "docs/guide/scripts/recipes.py")
    };
    let mut python = venv.command(run, "python");
    python.arg(script).args(arguments);
    run.tests(step, python)?;
    run.sum_up();
    Ok(())
}
