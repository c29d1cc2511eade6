//! `cargo xtask platforms`: type-checks what is published for all platforms other than this machine's. It needs neither
//! an SDK nor a C compiler for them: the compiled C code does not affect types.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::standard_library::Sources;

const TARGETS: [&str; 7] = [
    "aarch64-apple-darwin",
    "aarch64-pc-windows-msvc",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "x86_64-unknown-linux-musl",
];

const PUBLISHED: [&str; 4] = [
    "--package=feishu-feed-card",
    "--package=feishu-feed-card-sandbox",
    "--package=feishu-feed-card-python",
    "--package=feishu-feed-card-node",
];

/// Stands in for a C compiler and an archiver: writes empty output files.
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

/// Describes a Python to `PyO3`, so that it needs no interpreter for each platform.
const PYTHON: &str = "\
implementation=CPython
version=3.10
shared=true
target_abi=CPython-abi3-3.10
lib_name=python3
";

/// Checks the types for all platforms. Unused code on any of them is an error, too.
pub fn platforms(run: &mut Run) -> Result<(), String> {
    let sources = Sources::find(run)?;
    let folder = run.root.join(".scratch/platforms");
    let compiler = compiler(&folder)?;
    let python = folder.join("python.txt");
    write(&python, PYTHON)?;

    let mut cargo = run.cargo([
        "-Zwarnings",
        "--config=build.warnings='deny'",
        "check",
        "--locked",
    ]);
    cargo.arg("--keep-going").args(PUBLISHED);
    cargo.env("PYO3_CONFIG_FILE", python);
    cargo.envs(sources.environment());
    for target in TARGETS {
        let name = target.replace('-', "_");
        cargo
            .args(["--target", target])
            .env(format!("CC_{name}"), &compiler)
            .env(format!("CXX_{name}"), &compiler)
            .env(format!("AR_{name}"), &compiler);
        if target.ends_with("musl") {
            // A library that Python or Node.js loads shares their libc.
            let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase());
            cargo.env(flags, "-C target-feature=-crt-static");
        }
    }
    // For Windows on arm64, ring runs `clang` from PATH and ignores the variables.
    let mut path = vec![folder];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    if let Ok(path) = std::env::join_paths(path) {
        cargo.env("PATH", path);
    }
    run.step("types on all platforms", cargo)?;
    run.sum_up();
    Ok(())
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
