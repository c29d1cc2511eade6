//! Node.js and npm.

use std::fs;
use std::process::Command;

use crate::run::{Run, output, quietly};

const OLDEST: u32 = 20;

/// On Windows, npm is a script, and scripts are only found by their full name.
pub const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// Returns an error if Node.js is missing or too old, or npm is missing.
pub fn check(run: &Run) -> Result<(), String> {
    let ask = |program: &str| {
        let mut command = run.command(program);
        command.arg("--version");
        output(command)
    };
    let needed = format!("Node {OLDEST} or later is needed");
    let version = ask("node").ok_or_else(|| format!("{needed}: there is none"))?;
    let major = version.trim_start_matches('v').split('.').next();
    if major
        .and_then(|major| major.parse::<u32>().ok())
        .is_none_or(|major| major < OLDEST)
    {
        return Err(format!("{needed}: this is {version}"));
    }
    ask(NPM)
        .map(drop)
        .ok_or_else(|| "npm is needed, which usually comes with Node".to_owned())
}

/// `npm …` in the package's folder.
pub fn npm<'a>(run: &Run, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut npm = run.command(NPM);
    npm.args(arguments).current_dir(run.root.join("node"));
    npm
}

/// `npm ci`.
pub fn ci(run: &Run) -> Command {
    npm(run, ["ci", "--no-audit", "--no-fund"])
}

/// A copy of the lock file for which `npm ci` last ran.
const STAMP: &str = "node/node_modules/.wanted";

fn lock(run: &Run) -> Result<String, String> {
    let file = run.root.join("node/package-lock.json");
    fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Records that `npm ci` has run for the present lock file.
pub fn installed(run: &Run) -> Result<(), String> {
    fs::write(run.root.join(STAMP), lock(run)?).map_err(|error| format!("{STAMP}: {error}"))
}

/// Runs `npm ci`, unless it has already run for the present lock file.
pub fn install(run: &Run) -> Result<(), String> {
    let wanted = lock(run)?;
    if fs::read_to_string(run.root.join(STAMP)).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    println!("making node/node_modules");
    quietly("npm ci", ci(run))?;
    installed(run)
}
