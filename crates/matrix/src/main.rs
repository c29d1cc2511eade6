//! `cargo matrix`: tests the wheel and the native module, built as they are published, on every interpreter and
//! runtime that is installed here or available from Debian or npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tools::artifacts::{ABIS, FREE_THREADED, LINUX, node_module, wheel};
use tools::node;
use tools::package;
use tools::python::{Venv, version};
use tools::run::{Run, output, quietly};
use tools::{cpython, debian};

const FOLDER: &str = ".scratch/matrix";

/// Limit for the tests of one runtime.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The minor versions of Python 3 to look for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=15;

/// Runtimes from npm: name, package, program, and the arguments before the path of the report.
const RUNTIMES: [(&str, &str, &str, &[&str]); 6] = [
    ("Node 20", "node@20", "node", NODE),
    ("Node 22", "node@22", "node", NODE),
    ("Node 24", "node@24", "node", NODE),
    ("Node, the newest", "node@latest", "node", NODE),
    (
        "Bun",
        "bun",
        "bun",
        // Its default limit for a test is 5 s.
        &[
            "test",
            "--timeout=600000",
            "--reporter=junit",
            "--reporter-outfile",
        ],
    ),
    (
        "Deno",
        "deno",
        "deno",
        &["test", "--allow-all", "--no-check", "--junit-path"],
    ),
];

const NODE: &[&str] = &["--test", "--test-reporter=junit", "--test-reporter-destination"];

/// Tests that fail because of the runtime: runtime, test, reason.
const KNOWN: [(&str, &str, &str); 9] = [
    (
        "Bun",
        "begins at the line that awaits",
        "Error.captureStackTrace does not leave out the callers above",
    ),
    (
        "Bun",
        "of a constructor and of throwIfFailed begins at their caller",
        "Error.captureStackTrace does not leave out the callers above",
    ),
    (
        "Bun",
        "an unhandled rejection is printed with its message",
        "prints errors in another form",
    ),
    (
        "Bun",
        "other files of the package cannot be required",
        "has the code MODULE_NOT_FOUND instead of ERR_PACKAGE_PATH_NOT_EXPORTED",
    ),
    ("Bun", BROKEN, "has another message for the cause"),
    ("Deno", BROKEN, "has another message for the cause"),
    (
        "Deno",
        "worker threads may end with calls in flight > when the main thread uses the package",
        WORKER,
    ),
    (
        "Deno",
        "worker threads may end with calls in flight > when the main thread does not use the package",
        WORKER,
    ),
    (
        "Deno",
        "in a new process > a worker thread may end during a loop",
        WORKER,
    ),
];

const BROKEN: &str = "the error for a native module that does not load has its cause";
const WORKER: &str = "prints an exception of a worker although it has a listener";

struct Row {
    runtime: String,
    version: String,
    result: Result<Report, String>,
}

#[derive(Debug, Default, PartialEq)]
struct Report {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!(
            "Usage: cargo matrix\n\nTests the packages on every Python, Node.js, Bun and Deno available."
        );
        return ExitCode::from(2);
    }
    match matrix(&mut Run::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo matrix: {error}");
            ExitCode::FAILURE
        }
    }
}

fn matrix(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    node::install(run)?;
    let venv = package::tools(run)?;
    let [target, ..] = &LINUX;
    let [stable, ..] = &ABIS;
    let environment = target.environment(run)?;
    let stable = wheel(run, &venv, target, stable, &environment)?;
    let free_threaded = wheel(run, &venv, target, &FREE_THREADED, &environment)?;
    node_module(run, &venv, target, &environment)?;
    fs::create_dir_all(run.root.join(FOLDER)).map_err(|error| format!("{FOLDER}: {error}"))?;

    let mut rows = Vec::new();
    for minor in PYTHONS {
        let runtime = format!("Python 3.{minor}");
        rows.push(match find_python(run, &venv, minor) {
            Err(reason) => Row::absent(runtime, &reason),
            Ok(python) => Row::of(run, runtime, &python, |run, report| {
                python_tests(run, &python, &format!("python3.{minor}"), &stable, report)
            }),
        });
    }
    let runtime = "Python, free-threaded".to_owned();
    rows.push(match cpython::free_threaded(run) {
        Err(reason) => Row::absent(runtime, &reason),
        Ok(python) => Row::of(run, runtime, &python, |run, report| {
            python_tests(run, &python, "free-threaded", &free_threaded, report)
        }),
    });
    for (runtime, package, program, arguments) in RUNTIMES {
        rows.push(match install_runtime(run, package, program) {
            Err(reason) => Row::absent(runtime.to_owned(), &reason),
            Ok(program) => Row::of(run, runtime.to_owned(), &program, |run, report| {
                node_tests(run, &program, arguments, report)
            }),
        });
    }
    print(&rows)
}

impl Row {
    fn absent(runtime: String, reason: &str) -> Self {
        Self {
            runtime,
            version: String::new(),
            result: Err(format!("not run: {reason}")),
        }
    }

    fn of(
        run: &Run,
        runtime: String,
        program: &Path,
        tests: impl FnOnce(&Run, &Path) -> Result<Command, String>,
    ) -> Self {
        println!("\n── {runtime}");
        let mut ask = run.command(program);
        ask.arg("--version");
        let version = output(ask).unwrap_or_default();
        let version = version.lines().next().unwrap_or_default();
        let version = version.trim_start_matches("Python ").trim_start_matches("deno ");
        let version = version.split(" (").next().unwrap_or_default().to_owned();
        let report = run.root.join(FOLDER).join(format!("{runtime}.xml"));
        let log = report.with_extension("log");
        let _ = fs::remove_file(&report);
        let result = tests(run, &report).and_then(|command| {
            let ended = bounded(command, &log)?;
            let text = fs::read_to_string(&report)
                .map_err(|_| format!("no report, {ended}: see {}", log.display()))?;
            Ok(read(&text))
        });
        Self {
            runtime,
            version,
            result,
        }
    }
}

/// Finds an interpreter on PATH or in pyenv's folder (pyenv's commands find only activated ones), or gets Debian's.
fn find_python(run: &Run, tools: &Venv, minor: u32) -> Result<PathBuf, String> {
    let name = format!("python3.{minor}");
    let mut pyenv = run.command("pyenv");
    pyenv.arg("root");
    let of_pyenv = output(pyenv)
        .and_then(|root| fs::read_dir(Path::new(&root).join("versions")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(&name));
    std::iter::once(PathBuf::from(&name))
        .chain(of_pyenv)
        .find(|python| version(run.command(python)) == Some((3, minor)))
        .map_or_else(|| debian::python(run, tools, minor), Ok)
}

fn python_tests(
    run: &Run,
    python: &Path,
    name: &str,
    wheel: &Path,
    report: &Path,
) -> Result<Command, String> {
    let requirements = ["--requirement", "python/requirements-dev.txt"];
    let wanted = fs::read_to_string(run.root.join(requirements[1])).unwrap_or_default();
    let folder = format!("{FOLDER}/{name}");
    let venv = Venv::with(run, &folder, &requirements, &wanted, || Ok(python.to_owned()))?;
    let mut install = venv.command(run, "python");
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--force-reinstall",
        ])
        .arg(wheel);
    quietly("installing the wheel", install)?;
    let mut pytest = venv.command(run, "python");
    pytest
        .args(["-m", "pytest", "-q", "--junit-xml"])
        .arg(report)
        .env("LEAK_TEST_CALLS", "100000")
        .current_dir(run.root.join("python"));
    Ok(pytest)
}

fn install_runtime(run: &Run, package: &str, program: &str) -> Result<PathBuf, String> {
    let folder = run.root.join(FOLDER).join(package);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Without this file, npm would install into the next folder above that has one.
    fs::write(folder.join("package.json"), "{ \"private\": true }\n")
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut npm = run.command(node::NPM);
    npm.args(["install", "--no-audit", "--no-fund", "--silent", package])
        .current_dir(&folder);
    quietly(&format!("npm install {package}"), npm)?;
    Ok(folder.join("node_modules/.bin").join(program))
}

fn node_tests(run: &Run, program: &Path, arguments: &[&str], report: &Path) -> Result<Command, String> {
    let folder = run.root.join("node");
    let mut files: Vec<_> = fs::read_dir(folder.join("test"))
        .map_err(|error| format!("node/test: {error}"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".test.mjs"))
        .map(|name| format!("./test/{name}"))
        .collect();
    files.sort();
    let mut command = run.command(program);
    command
        .args(arguments)
        .arg(report)
        .args(files)
        .env("LEAK_TEST_CALLS", "100000")
        .current_dir(folder);
    Ok(command)
}

/// Runs a command with a time limit, and writes its output to a file.
fn bounded(mut command: Command, log: &Path) -> Result<String, String> {
    let named = |error: std::io::Error| format!("{}: {error}", log.display());
    let file = fs::File::create(log).map_err(named)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(named)?)
        .stderr(file)
        .spawn()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => return Ok(status.to_string()),
            None if began.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(format!("ended after {} minutes", LIMIT.as_secs() / 60));
            }
            None => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Reads the counts of a `JUnit` report, which all test runners write.
fn read(report: &str) -> Report {
    let mut counted = Report::default();
    for case in report.split("<testcase ").skip(1) {
        // Without the text after it, which may have the name of the next suite.
        let tag = case.split_once('>').map_or(case, |(tag, _)| tag);
        let name = tag
            .split_once(" name=\"")
            .or_else(|| tag.split_once("name=\""))
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("", |(name, _)| name);
        if case.contains("<failure") || case.contains("<error") {
            counted.failed.push(name.replace("&gt;", ">"));
        } else if case.contains("<skipped") {
            counted.skipped += 1;
        } else {
            counted.passed += 1;
        }
    }
    // Deno also counts suites as tests, and as failed if one of their tests fails.
    let failed = counted.failed.clone();
    counted.failed.retain(|name| {
        let within = format!("{name} > ");
        !failed.iter().any(|other| other.starts_with(&within))
    });
    counted
}

fn print(rows: &[Row]) -> Result<(), String> {
    println!(
        "\n{:<24}{:<12}{:>8}{:>8}{:>9}",
        "runtime", "version", "passed", "failed", "skipped"
    );
    let mut faults = 0;
    for Row {
        runtime,
        version,
        result,
    } in rows
    {
        match result {
            Err(reason) => {
                println!("{runtime:<24}{version:<12}  {reason}");
                faults += usize::from(!reason.starts_with("not run: "));
            }
            Ok(Report {
                passed,
                failed,
                skipped,
            }) => {
                println!(
                    "{runtime:<24}{version:<12}{passed:>8}{:>8}{skipped:>9}",
                    failed.len()
                );
                for test in failed {
                    let known = KNOWN
                        .iter()
                        .find(|(where_, name, _)| where_ == runtime && name == test);
                    faults += usize::from(known.is_none());
                    println!("    {test}: {}", known.map_or("failed", |(.., reason)| reason));
                }
                faults += usize::from(*passed == 0);
            }
        }
    }
    match faults {
        0 => Ok(()),
        _ => Err(format!("{faults} failures that are not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, read};

    #[test]
    fn the_runners_reports_are_understood() {
        let pytest = r#"<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="1" tests="4">
            <testcase classname="tests.a" name="one" time="0.1" /><testcase classname="tests.a" name="two" time="0.1">
            <failure message="no">no</failure></testcase><testcase classname="tests.a" name="three"><skipped/></testcase>
            <testcase classname="tests.a" name="four"><error message="no"/></testcase></testsuite></testsuites>"#;
        assert_eq!(
            read(pytest),
            Report {
                passed: 1,
                skipped: 1,
                failed: vec!["two".to_owned(), "four".to_owned()],
            }
        );
        let node = r#"<testsuites><testcase name="one" time="0.1" classname="test"/><testsuite name="suite">
            <testcase name="two" time="0.1" classname="test" failure="no"><failure/></testcase></testsuite>
            <!-- tests 2 --></testsuites>"#;
        assert_eq!(
            read(node),
            Report {
                passed: 1,
                skipped: 0,
                failed: vec!["two".to_owned()],
            }
        );
        let deno = r#"<testcase name="a &gt; one"><failure message="no"/></testcase></testsuite><testsuite name="b">
            <testcase name="a"><failure message="1 test step failed."/></testcase><testcase name="b"></testcase>"#;
        assert_eq!(
            read(deno),
            Report {
                passed: 1,
                skipped: 0,
                failed: vec!["a > one".to_owned()],
            }
        );
        assert_eq!(read("<testsuites/>"), Report::default());
    }
}
