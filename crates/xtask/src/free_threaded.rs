//! A `CPython` without a global lock, built from Debian's source package: no registry has one ready-made.

use std::fs;
use std::path::{Path, PathBuf};

use crate::package;
use crate::python::Venv;
use crate::run::{Run, output, quietly};

/// The oldest that `PyO3` builds for.
const PYTHON: &str = "python3.14";

/// The Debian suites that may have its source.
const SUITES: [&str; 2] = ["forky", "sid"];

const FOLDER: &str = ".scratch/free-threaded";

/// The interpreter; built where it is not there yet. Says why where that cannot be.
pub(crate) fn interpreter(run: &Run) -> Result<PathBuf, String> {
    let folder = run.root.join(FOLDER);
    let python = folder.join("bin").join(format!("{PYTHON}t"));
    if !python.exists() {
        let sources = folder.join("source");
        fetch(run, &sources)?;
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

/// Downloads the source package with lists of its own: the machine's sources stay as they are.
fn fetch(run: &Run, sources: &Path) -> Result<(), String> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        let folder = sources.join(folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut targets = run.command("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
    ]);
    let mirror = output(targets)
        .and_then(|text| {
            text.lines()
                .find(|line| line.ends_with("/debian/"))
                .map(str::to_owned)
        })
        .ok_or("apt-get knows no Debian mirror")?;
    let apt = |words: &[&str]| {
        let mut apt = run.command("apt-get");
        let set = |name: &str, path: PathBuf| format!("{name}={}", path.display());
        apt.args([
            "-qq",
            "-o",
            "Dir::Etc::SourceParts=/dev/null",
            "-o",
            "APT::Sandbox::User=",
        ])
        .args(["-o", &set("Dir::Etc::SourceList", sources.join("sources.list"))])
        .args(["-o", &set("Dir::State::Lists", sources.join("lists"))])
        .args(["-o", &set("Dir::Cache", sources.join("cache"))])
        .args(words)
        .current_dir(sources);
        apt
    };
    let mut failure = String::new();
    for suite in SUITES {
        let list = format!(
            "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main\n"
        );
        let file = sources.join("sources.list");
        fs::write(&file, list).map_err(|error| format!("{}: {error}", file.display()))?;
        let fetched = quietly("apt-get update", apt(&["update"]))
            .and_then(|()| quietly("apt-get source", apt(&["source", "--download-only", PYTHON])));
        match fetched {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(format!("Debian's source of {PYTHON} cannot be had: {failure}"))
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
