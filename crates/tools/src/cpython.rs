//! `CPython`, built from Debian's source packages: no package registry has a free-threaded one or one for musl.

use std::fs;
use std::path::{Path, PathBuf};

use crate::debian::{self, AMD64};
use crate::python::Venv;
use crate::run::{Run, files, quietly};

/// Returns the oldest free-threaded interpreter that `PyO3` supports.
pub fn free_threaded(run: &Run) -> Result<PathBuf, String> {
    let folder = run.root.join(".scratch/free-threaded");
    let python = folder.join("bin/python3.14t");
    if !python.exists() {
        build(
            run,
            None,
            "python3.14",
            &folder,
            &["--disable-gil", "--with-ensurepip=install"],
        )?;
    }
    Ok(python)
}

/// Returns an interpreter for musl, built with zig; it only runs where there is a musl.
pub(crate) fn musl(run: &Run, tools: &Venv, processor: &str) -> Result<PathBuf, String> {
    const MINOR: u32 = 13;
    let name = format!("python3.{MINOR}");
    let folder = run.root.join(format!(".scratch/musl-{processor}"));
    let python = folder.join("bin").join(&name);
    if !python.exists() {
        let own = debian::python(run, tools, MINOR)?;
        build(
            run,
            Some((tools, &format!("{processor}-linux-musl"))),
            &name,
            &folder,
            &[
                &format!("--host={processor}-linux-musl"),
                "--build=x86_64-linux-gnu",
                &format!("--with-build-python={}", own.display()),
                "--without-ensurepip",
                // It would find the libraries of this machine.
                "--with-pkg-config=no",
                // Questions that configure cannot answer without running a program.
                "ac_cv_file__dev_ptmx=yes",
                "ac_cv_file__dev_ptc=no",
                "ac_cv_buggy_getaddrinfo=no",
            ],
        )?;
    }
    Ok(python)
}

/// Configures, compiles and installs; with zig as the compiler for a target if there is one.
fn build(
    run: &Run,
    zig: Option<(&Venv, &str)>,
    name: &str,
    folder: &Path,
    options: &[&str],
) -> Result<(), String> {
    let sources = folder.join("source");
    debian::fetch(
        run,
        &sources,
        "deb-src",
        AMD64,
        &["source", "--download-only", name],
    )
    .map_err(|error| format!("Debian's source of {name} cannot be had: {error}"))?;
    let archive = files(run, &sources.to_string_lossy())?
        .into_iter()
        .find(|path| {
            path.to_string_lossy().contains(".orig.tar.") && path.extension().is_some_and(|e| e != "asc")
        })
        .ok_or("the source package has no source")?;
    let mut tar = run.command("tar");
    tar.args(["--extract", "--strip-components=1", "--file"])
        .arg(archive)
        .current_dir(&sources);
    quietly("tar", tar)?;
    println!("building {name} from Debian's source, which takes some minutes");
    let mut configure = run.command(sources.join("configure"));
    configure
        .args(["--quiet", "--disable-test-modules"])
        .arg(format!("--prefix={}", folder.display()))
        .args(options);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let make = |target: &str| {
        let mut make = run.command("make");
        make.args(["--silent", target]);
        make
    };
    for (what, mut command) in [
        ("configure", configure),
        ("make", make(&format!("--jobs={jobs}"))),
        ("make install", make("install")),
    ] {
        command.current_dir(&sources);
        if let Some((tools, target)) = zig {
            tools.activate(&mut command);
            command
                .env(
                    "CC",
                    format!("python -m ziglang cc -target {target} -dynamic -Wno-date-time"),
                )
                .env("AR", "python -m ziglang ar");
        }
        quietly(what, command)?;
    }
    fs::remove_dir_all(&sources).map_err(|error| format!("{}: {error}", sources.display()))
}
