//! Runs other programs as steps, which are timed and summed up.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The project's folder, and the steps run so far.
pub struct Run {
    /// The project's root folder.
    pub root: PathBuf,
    began: Instant,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    /// The number of tests that passed, if the step runs tests.
    tests: Option<u64>,
    failed: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

impl Run {
    /// Finds the project's root from the package that `cargo run` runs.
    pub fn new() -> Self {
        // Not the path at compile time: if a target folder is copied into another clone, cargo does not compile this
        // again.
        let here =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let here = Path::new(&here);
        Self {
            root: here.ancestors().nth(2).unwrap_or(here).to_owned(),
            began: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// A command that runs in the project's root folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        // `cargo run` sets these for this program. ring's build script would run again if they reached another cargo.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// The cargo that runs this program.
    pub fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(cargo);
        command.args(arguments);
        command
    }

    /// The target folder, which contains the folder of this program.
    pub fn target(&self) -> Result<PathBuf, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        Ok(this.ancestors().nth(2).unwrap_or(&self.root).to_owned())
    }

    /// Runs a program as a step: printed, timed and kept for [`sum_up`](Self::sum_up).
    pub fn step(&mut self, name: &'static str, mut command: Command) -> Result<(), String> {
        self.timed(name, || {
            announce(name, &command);
            command.status().map(|status| (status, None))
        })
    }

    /// As [`step`](Self::step), for a program that runs tests: also counts those that passed, from its output.
    pub fn tests(&mut self, name: &'static str, mut command: Command) -> Result<(), String> {
        self.timed(name, || {
            announce(name, &command);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let passed = thread::scope(|scope| {
                let err = scope.spawn(|| echo(err, io::stderr()));
                echo(out, io::stdout()) + err.join().unwrap_or_default()
            });
            Ok((child.wait()?, Some(passed)))
        })
    }

    fn timed(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> io::Result<(ExitStatus, Option<u64>)>,
    ) -> Result<(), String> {
        let began = Instant::now();
        let done = run();
        let failed = match &done {
            Ok((status, _)) if status.success() => None,
            Ok((status, _)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        };
        self.steps.push(Step {
            name,
            took: began.elapsed(),
            tests: done.ok().and_then(|(_, tests)| tests),
            failed: failed.is_some(),
        });
        let Some(failed) = failed else { return Ok(()) };
        self.sum_up();
        Err(format!("{name} failed: {failed}"))
    }

    /// Prints the duration of each step, and how many tests passed.
    pub fn sum_up(&self) {
        println!("\n{:<40}{:>9}{:>8}", "step", "seconds", "tests");
        for step in &self.steps {
            let tests = step.tests.map(|tests| tests.to_string()).unwrap_or_default();
            let failed = if step.failed { "  failed" } else { "" };
            println!(
                "{:<40}{:>9.1}{tests:>8}{failed}",
                step.name,
                step.took.as_secs_f64()
            );
        }
        let tests: u64 = self.steps.iter().filter_map(|step| step.tests).sum();
        println!(
            "{:<40}{:>9.1}{tests:>8}",
            "all",
            self.began.elapsed().as_secs_f64()
        );
    }
}

/// Runs a program; prints its output only if it fails.
pub fn quietly(what: &str, mut command: Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{what}: {}: {error}", shown(&command)))?;
    if output.status.success() {
        return Ok(());
    }
    let _ = io::stderr().write_all(&output.stdout);
    let _ = io::stderr().write_all(&output.stderr);
    Err(format!("{what} failed: {}", output.status))
}

/// Returns what a program prints on standard output, or `None` if it cannot be run or fails.
pub fn output(mut command: Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// Returns a folder's entries, sorted.
pub fn files(run: &Run, folder: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(run.root.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

fn announce(name: &str, command: &Command) {
    println!("\n── {name}: {}", shown(command));
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// Forwards a test runner's output, and returns the number of passed tests that it reports.
fn echo(from: Option<impl Read>, mut to: impl Write) -> u64 {
    let mut passed = 0;
    let mut line = Vec::new();
    let Some(from) = from else { return 0 };
    let mut from = BufReader::new(from);
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let _ = to.write_all(&line);
        passed += tests_passed(&String::from_utf8_lossy(&line)).unwrap_or_default();
        line.clear();
    }
    passed
}

/// Returns the number of passed tests in a line, if it is the summary of cargo test, nextest, pytest or node.
fn tests_passed(line: &str) -> Option<u64> {
    let line = line.trim();
    if let Some(count) = line
        .strip_prefix("ℹ pass ")
        .or_else(|| line.strip_prefix("# pass "))
    {
        return count.parse().ok();
    }
    let is_summary = line.starts_with("test result: ")
        || line.starts_with("Summary [")
        || line
            .rsplit_once(" in ")
            .is_some_and(|(_, took)| took.starts_with(|first: char| first.is_ascii_digit()));
    let (before, _) = line.split_once(" passed").filter(|_| is_summary)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::tests_passed;

    #[test]
    fn the_runners_summaries_are_understood() {
        for (line, passed) in [
            (
                "test result: ok. 41 passed; 0 failed; 1 ignored; finished in 0.61s",
                Some(41),
            ),
            (
                "     Summary [   1.204s] 130 tests run: 129 passed (1 slow), 1 failed, 0 skipped",
                Some(129),
            ),
            (
                "================== 341 passed, 2 skipped in 12.34s ==================",
                Some(341),
            ),
            ("==== 1 failed, 340 passed in 100.10s (0:01:40) ====", Some(340)),
            ("7 passed in 0.05s", Some(7)),
            ("ℹ pass 87", Some(87)),
            ("# pass 88", Some(88)),
            ("All checks passed!", None),
            ("test the_one_that_passed in time is ok ... ok", None),
        ] {
            assert_eq!(tests_passed(line), passed, "{line}");
        }
    }
}
