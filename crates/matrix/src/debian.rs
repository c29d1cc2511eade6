//! What Debian's newer suites have: got with lists of its own, so that the machine's sources stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::python::{Venv, version};
use xtask::run::{Run, output, quietly};

const SUITES: [&str; 2] = ["forky", "sid"];

/// A libc of its own comes with what needs a newer one than the machine's.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// An interpreter newer than the machine has; unpacked where it is not there yet, with every library it needs.
/// Says why where that cannot be.
pub(crate) fn python(run: &Run, tools: &Venv, minor: u32) -> Result<PathBuf, String> {
    let name = format!("python3.{minor}");
    let folder = run.root.join(".scratch/debian").join(&name);
    let python = folder.join("usr/bin").join(&name);
    if version(run.command(&python)) == Some((3, minor)) {
        return Ok(python);
    }
    println!("unpacking Debian's {name} and its libraries into .scratch/debian");
    let downloaded = folder.join("packages");
    let package = format!("{name}-venv");
    let words = ["--yes", "--no-install-recommends", "--download-only", "install"];
    fetch(run, &downloaded, "deb", &[&words[..], &[&package]].concat())
        .map_err(|error| format!("Debian's {name} cannot be had: {error}"))?;
    for archive in files(&downloaded.join("cache/archives"))? {
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = run.command("dpkg-deb");
            unpack.arg("--extract").arg(archive).arg(&folder);
            quietly("dpkg-deb", unpack)?;
        }
    }
    fs::remove_dir_all(&downloaded).map_err(|error| format!("{}: {error}", downloaded.display()))?;

    // Else it would take the machine's pip, which may be too old for it.
    let ensurepip = folder.join("usr/lib").join(&name).join("ensurepip/__init__.py");
    let wheels = format!("'{}'", folder.join("usr/share/python-wheels").display());
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", ensurepip.display());
    let text = fs::read_to_string(&ensurepip).map_err(|error| told(&error))?;
    let place = "sysconfig.get_config_var('WHEEL_PKG_DIR')";
    if !text.contains(place) {
        return Err(told(&format!("{place} is not in it")));
    }
    fs::write(&ensurepip, text.replace(place, &wheels)).map_err(|error| told(&error))?;

    // In the program itself, not in its environment, which the programs of the machine inherit from it. An RPATH,
    // which unlike a RUNPATH also holds for the libraries that its modules need.
    let libraries = folder.join(LIBRARIES);
    let mut patchelf = tools.command(run, "patchelf");
    patchelf
        .arg("--set-interpreter")
        .arg(libraries.join("ld-linux-x86-64.so.2"))
        .args(["--force-rpath", "--set-rpath"])
        .arg(libraries)
        .arg(&python);
    quietly("patchelf", patchelf)?;
    match version(run.command(&python)) {
        Some((3, found)) if found == minor => Ok(python),
        _ => Err(format!("Debian's {name} does not run here")),
    }
}

/// Runs apt-get in this folder on the binary (`deb`) or source (`deb-src`) packages of the first suite where
/// it succeeds. No package counts as installed.
pub(crate) fn fetch(run: &Run, folder: &Path, kind: &str, words: &[&str]) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write("status", "")?;
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
        apt.args([
            "-qq",
            "-o",
            "Dir::Etc::SourceParts=/dev/null",
            "-o",
            "APT::Sandbox::User=",
        ]);
        for (name, place) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg("-o")
                .arg(format!("{name}={}", folder.join(place).display()));
        }
        apt.args(words).current_dir(folder);
        apt
    };
    let mut failure = String::new();
    for suite in SUITES {
        // What another suite, or a run that was ended, left there would be unpacked with it.
        for name in ["lists", "cache"] {
            let _ = fs::remove_dir_all(folder.join(name));
        }
        for partial in ["lists/partial", "cache/archives/partial"].map(|name| folder.join(name)) {
            fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
        }
        let signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        write(
            "sources.list",
            &format!("{kind} {signed} {mirror} {suite} main\n"),
        )?;
        let fetched = quietly("apt-get update", apt(&["update"]))
            .and_then(|()| quietly(&format!("apt-get {}", words.join(" ")), apt(words)));
        match fetched {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
