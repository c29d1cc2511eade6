//! `cargo xtask dependencies`: checks licences and advisories, and compiles with the oldest supported versions.

use std::fs;

use tools::crates::selected;
use tools::run::{Run, output};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn dependencies(run: &mut Run) -> Result<(), String> {
    smallest_versions(run)?;
    oldest_rust(run)?;
    deny(run)?;
    run.sum_up();
    Ok(())
}

/// Checks licences, advisories, duplicates and sources by the rules in `deny.toml`. Fetches the advisories from GitHub.
fn deny(run: &mut Run) -> Result<(), String> {
    let on_path = output(run.cargo(["deny", "--version"])).is_some();
    let folder = run.root.join(".scratch/cargo-deny");
    let program = folder.join("bin/cargo-deny");
    if !on_path && !program.exists() {
        let mut install = run.cargo(["install", "--locked", "--root"]);
        install.arg(folder).args(["cargo-deny", "--version", CARGO_DENY]);
        run.step("installing cargo-deny", install)?;
    }
    let mut deny = if on_path {
        run.cargo(["deny"])
    } else {
        run.command(program)
    };
    deny.args(["--workspace", "--locked", "check"]);
    run.step("cargo deny", deny)
}

/// Compiles the crates with the smallest versions that their manifests permit for direct dependencies.
fn smallest_versions(run: &mut Run) -> Result<(), String> {
    let folder = run.root.join(".scratch/smallest");
    let lock = folder.join("Cargo.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut check = run.cargo(["check", "-Zdirect-minimal-versions", "-Zlockfile-path"]);
    check
        .args(selected())
        // Both options are unstable; this lets the stable toolchain accept them.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_RESOLVER_LOCKFILE_PATH", lock)
        .env("CARGO_TARGET_DIR", folder.join("target"));
    run.step("smallest versions", check)
}

/// Compiles what is published with its declared `rust-version`. That includes the Python package, which users may
/// compile from its source distribution.
fn oldest_rust(run: &mut Run) -> Result<(), String> {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let mut install = run.command("rustup");
    install.args([
        "toolchain",
        "install",
        oldest,
        "--profile=minimal",
        "--no-self-update",
    ]);
    run.step("installing the oldest Rust", install)?;
    let mut check = run.command("rustup");
    check
        .args(["run", oldest, "cargo", "check", "--locked"])
        .args(selected())
        .args([
            "--package",
            "feishu-feed-card-python",
            "--package",
            "feishu-feed-card-node",
        ])
        .env("CARGO_TARGET_DIR", run.root.join(".scratch/oldest-rust"));
    run.step("oldest Rust", check)
}
