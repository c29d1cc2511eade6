//! A `CPython` without a global lock, built from Debian's source package: no registry has one ready-made.

use std::fs;
use std::path::{Path, PathBuf};

use crate::debian;
use xtask::package;
use xtask::python::Venv;
use xtask::run::{Run, quietly};

/// The oldest that `PyO3` builds for.
const PYTHON: &str = "python3.14";

const FOLDER: &str = ".scratch/free-threaded";

/// The interpreter; built where it is not there yet. Says why where that cannot be.
pub(crate) fn interpreter(run: &Run) -> Result<PathBuf, String> {
    let folder = run.root.join(FOLDER);
    let python = folder.join("bin").join(format!("{PYTHON}t"));
    if !python.exists() {
        let sources = folder.join("source");
        debian::fetch(run, &sources, "deb-src", &["source", "--download-only", PYTHON])
            .map_err(|error| format!("Debian's source of {PYTHON} cannot be had: {error}"))?;
        build(run, &sources, &folder)?;
    }
    Ok(python)
}

/// The wheel for it: the stable ABI begins to know free-threading with 3.15.
pub(crate) fn wheel(run: &Run, venv: &Venv, python: &Path) -> Result<PathBuf, String> {
    let mut maturin = venv.command(run, "maturin");
    maturin
        .args(["build", "--release", "--locked", "--zig", "--no-default-features"])
        .args([
            "--compatibility",
            "manylinux_2_17",
            "--out",
            "dist",
            "--interpreter",
        ])
        .arg(python)
        .current_dir(run.root.join("python"));
    quietly("the free-threaded wheel", maturin)?;
    package::built_wheel(run, "cp314t-")
}

fn build(run: &Run, sources: &Path, folder: &Path) -> Result<(), String> {
    let archive = fs::read_dir(sources)
        .map_err(|error| format!("{}: {error}", sources.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.to_string_lossy().contains(".orig.tar.") && path.extension().is_some_and(|e| e != "asc")
        })
        .ok_or("the source package has no source")?;
    let mut tar = run.command("tar");
    tar.args(["--extract", "--strip-components=1", "--file"])
        .arg(archive)
        .current_dir(sources);
    quietly("tar", tar)?;
    println!("building a free-threaded {PYTHON} from Debian's source, which takes some minutes");
    let mut configure = run.command(sources.join("configure"));
    configure
        .args([
            "--quiet",
            "--disable-gil",
            "--disable-test-modules",
            "--with-ensurepip=install",
        ])
        .arg(format!("--prefix={}", folder.display()))
        .current_dir(sources);
    quietly("configure", configure)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    for words in [format!("--jobs={jobs}"), "install".to_owned()] {
        let mut make = run.command("make");
        make.args(["--silent", &words]).current_dir(sources);
        quietly("make", make)?;
    }
    Ok(())
}
