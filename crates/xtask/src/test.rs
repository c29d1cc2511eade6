//! `cargo xtask test`: all checks that need one machine with one Python and one Node.js.

use std::process::Command;

use tools::node;
use tools::python::Venv;
use tools::run::{Run, output};

use crate::{WITHOUT_BINDINGS, citations};

pub(crate) fn test(run: &mut Run) -> Result<(), String> {
    // First, so that a missing Node.js is reported at once and not after minutes.
    node::check(run)?;
    citations::check(run)?;
    let venv = Venv::of_project(run)?;

    rust(run, &venv)?;
    python(run, &venv)?;
    typescript(run)?;
    examples(run, &venv)?;
    pyright(run, &venv)?;
    official_clients(run)?;
    run.sum_up();
    Ok(())
}

fn rust(run: &mut Run, venv: &Venv) -> Result<(), String> {
    run.step("rustfmt", run.cargo(["fmt", "--all", "--check"]))?;

    let mut clippy = run.cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]);
    clippy.env("PYO3_PYTHON", venv.program("python"));
    run.step("clippy", clippy)?;

    let mut tests = if output(run.cargo(["nextest", "--version"])).is_some() {
        run.cargo(["nextest", "run", "--cargo-quiet"])
    } else {
        run.cargo(["test", "--all-targets"])
    };
    tests.args(WITHOUT_BINDINGS);
    run.tests("Rust tests", tests)?;

    let mut documentation = run.cargo(["doc", "--no-deps"]);
    documentation
        .args(WITHOUT_BINDINGS)
        .env("RUSTDOCFLAGS", "-D warnings");
    run.step("rustdoc", documentation)
}

fn python(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let in_python = |program: &str, arguments: &[&str]| -> Command {
        let mut command = venv.command(run, program);
        command.args(arguments).current_dir(run.root.join("python"));
        command
    };
    let develop = venv.develop(run);
    let pytest = in_python("python", &["-m", "pytest", "-q"]);
    let mypy = in_python("mypy", &["--strict"]);
    let allowlist = "tests/typing/stubtest_allowlist.txt";
    let stubtest = in_python("stubtest", &["feishu_feed_card", "--allowlist", allowlist]);
    let check = in_python("ruff", &["check", "."]);
    let format = in_python("ruff", &["format", "--check", "."]);

    run.step("Python extension", develop)?;
    run.tests("pytest", pytest)?;
    run.step("mypy", mypy)?;
    run.step("stubtest", stubtest)?;
    run.step("ruff check", check)?;
    run.step("ruff format", format)
}

fn typescript(run: &mut Run) -> Result<(), String> {
    run.step("npm ci", node::ci(run))?;
    node::installed(run)?;
    run.step("Node module", node::npm(run, ["run", "check:binding"]))?;
    // Tests of what JavaScript cannot see. They run without Node.js: napi looks up its symbols when it is loaded.
    let inside = run.cargo(["test", "--package=feishu-feed-card-node", "--locked"]);
    run.tests("Node module's own tests", inside)?;
    run.tests("Node tests", readable(node::npm(run, ["test"])))?;
    run.step("TypeScript", node::npm(run, ["run", "typecheck"]))?;
    run.step("Node linter", node::npm(run, ["run", "lint"]))?;
    run.tests("npm package", readable(node::npm(run, ["run", "test:package"])))
}

/// The code of the READMEs, of the guide, and of the Rust documentation.
fn examples(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let rust = run.cargo(["test", "--doc"]);
    let mut examples = venv.command(run, "python");
    examples
        .args(["docs/guide/scripts/snippets.py", "--"])
        .arg(rust.get_program());
    examples.args(rust.get_args()).args(WITHOUT_BINDINGS);
    run.tests("documentation's examples", examples)
}

/// Checks Python's types with pyright as well as mypy: users have either. pyright comes from npm.
fn pyright(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let mut pyright = node::npm(
        run,
        ["exec", "--offline", "--", "pyright", "--project", "../python"],
    );
    pyright.arg("--pythonpath").arg(venv.program("python"));
    run.step("pyright", pyright)?;
    let mut wrong = venv.command(run, "python");
    wrong.arg(run.root.join("python/tests/typing/wrong_by_pyright.py"));
    run.step("pyright, wrong uses", wrong)
}

/// Sets a short report: by default, Node's test runner writes TAP to a pipe, with five lines or more per test.
fn readable(mut tests: Command) -> Command {
    tests.env("NODE_OPTIONS", "--test-reporter=spec");
    tests
}

/// Runs the platform's own clients, unchanged, against the sandbox. They show independently of our own clients that the
/// sandbox behaves as the platform does.
fn official_clients(run: &mut Run) -> Result<(), String> {
    const LARK_OAPI: &str = "lark-oapi==1.7.5";
    const NODE_SDK: &str = "@larksuiteoapi/node-sdk@1.74.0";

    let folder = run.root.join(".scratch/official");
    let venv = Venv::at(run, ".scratch/official/venv", &[LARK_OAPI], LARK_OAPI)?;
    let mut install = run.command(node::NPM);
    install.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--ignore-scripts",
        "--silent",
    ]);
    install.arg("--prefix").arg(&folder).arg(NODE_SDK);
    run.step("official clients' installation", install)?;

    let mut test = run.cargo(["test", "--test", "official_clients"]);
    test.args(WITHOUT_BINDINGS).args(["--", "--ignored"]);
    test.env("OFFICIAL_PYTHON", venv.program("python"));
    test.env("OFFICIAL_NODE_FOLDER", &folder);
    run.tests("official clients", test)
}
