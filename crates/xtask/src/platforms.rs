//! `cargo xtask platforms`: type-checks what is published for every platform that this machine is not. It needs no SDK,
//! and no C compiler for them: what their libraries of C contain does not matter to types.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::Run;
use crate::standard_library::Sources;

const WINDOWS: [&str; 2] = ["aarch64-pc-windows-msvc", "x86_64-pc-windows-msvc"];
const OTHERS: [&str; 5] = [
    "aarch64-apple-darwin",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "x86_64-unknown-linux-musl",
];

const PUBLISHED: [&str; 4] = [
    "--package=feishu-feed-card",
    "--package=feishu-feed-card-sandbox",
    "--package=feishu-feed-card-python",
    "--package=feishu-feed-card-node",
];

/// Writes the empty files that it is asked for, as a C compiler and as an archiver.
const COMPILER: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    -o) shift; : > "$1" ;;
    -Fo*) : > "${1#-Fo}" ;;
    -out:*) : > "${1#-out:}" ;;
    *.a|*.lib) : > "$1" ;;
  esac
  shift
done
"#;

/// Windows' libraries name the one of Python that they load; elsewhere an interpreter that is not there is enough.
const PYTHON_ON_WINDOWS: &str = "\
implementation=CPython
version=3.10
shared=true
target_abi=CPython-abi3-3.10
lib_name=python3
";

/// Checks the types for all of them. What is not used on a platform is an error, too.
pub fn platforms(run: &mut Run) -> Result<(), String> {
    let sources = Sources::find(run)?;
    let folder = run.root.join(".scratch/platforms");
    let compiler = compiler(&folder)?;
    let python = folder.join("python.txt");
    write(&python, PYTHON_ON_WINDOWS)?;

    let mut others = check(run, &sources, &compiler, &OTHERS);
    others.env("PYO3_NO_PYTHON", "1");
    let mut windows = check(run, &sources, &compiler, &WINDOWS);
    windows.env("PYO3_CONFIG_FILE", python);
    run.step("macOS, arm64 and musl", others)?;
    run.step("Windows", windows)?;
    run.sum_up();
    Ok(())
}

fn check(run: &Run, sources: &Sources, compiler: &Path, targets: &[&str]) -> Command {
    let mut cargo = run.cargo([
        "-Zwarnings",
        "--config=build.warnings='deny'",
        "check",
        "--locked",
    ]);
    cargo.arg("--keep-going").args(PUBLISHED);
    sources.apply(&mut cargo);
    for target in targets {
        let name = target.replace('-', "_");
        cargo
            .args(["--target", target])
            .env(format!("CC_{name}"), compiler)
            .env(format!("CXX_{name}"), compiler)
            .env(format!("AR_{name}"), compiler);
        if target.ends_with("musl") {
            // A library that Python or Node loads shares their libc.
            let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase());
            cargo.env(flags, "-C target-feature=-crt-static");
        }
    }
    // ring looks for a `clang` for Windows on arm64, whatever the variables say.
    let mut path = compiler
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .collect::<Vec<_>>();
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    if let Ok(path) = std::env::join_paths(path) {
        cargo.env("PATH", path);
    }
    cargo
}

fn compiler(folder: &Path) -> Result<PathBuf, String> {
    let compiler = folder.join("clang");
    write(&compiler, COMPILER)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))
            .map_err(|error| format!("{}: {error}", compiler.display()))?;
    }
    Ok(compiler)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}
