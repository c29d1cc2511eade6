//! Debian packages, unpacked into folders of the clone. Nothing is installed, and the machine's package lists stay as
//! they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python::{Venv, version};
use crate::run::{Run, files, output, quietly};

/// Suites newer than the machine's, in the order in which they are tried.
const SUITES: [&str; 2] = ["forky", "sid"];

/// Package lists of this machine's own suite.
const OWN: &str = ".scratch/debian/own";

/// This machine's architecture, as Debian spells it.
pub(crate) const AMD64: &str = "amd64";

/// Returns a newer interpreter than the machine has, with all libraries that it needs.
pub fn python(run: &Run, tools: &Venv, minor: u32) -> Result<PathBuf, String> {
    let name = format!("python3.{minor}");
    let folder = run.root.join(".scratch/debian").join(&name);
    let python = folder.join("usr/bin").join(&name);
    if version(run.command(&python)) == Some((3, minor)) {
        return Ok(python);
    }
    system(run, &name, AMD64, &[&format!("{name}-venv")])?;

    // By default, ensurepip takes the machine's pip, which may be too old for this Python.
    let ensurepip = folder.join("usr/lib").join(&name).join("ensurepip/__init__.py");
    let wheels = format!("'{}'", folder.join("usr/share/python-wheels").display());
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", ensurepip.display());
    let text = fs::read_to_string(&ensurepip).map_err(|error| named(&error))?;
    let setting = "sysconfig.get_config_var('WHEEL_PKG_DIR')";
    if !text.contains(setting) && !text.contains(&wheels) {
        return Err(named(&format!("{setting} is not in it")));
    }
    fs::write(&ensurepip, text.replace(setting, &wheels)).map_err(|error| named(&error))?;

    // The loader and the libraries, among them a newer libc, are set in the program itself: programs that it starts
    // would inherit an environment variable. An RPATH, unlike a RUNPATH, also applies to the libraries of its modules.
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
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

/// Returns a folder with packages of a newer suite and everything that they depend on.
pub(crate) fn system(
    run: &Run,
    name: &str,
    architecture: &str,
    packages: &[&str],
) -> Result<PathBuf, String> {
    let folder = run.root.join(".scratch/debian").join(name);
    if folder.join("usr/lib").exists() {
        return Ok(folder);
    }
    println!("unpacking Debian's {} into .scratch/debian", packages.join(", "));
    let downloaded = folder.join("packages");
    let words = ["--yes", "--no-install-recommends", "--download-only", "install"];
    fetch(
        run,
        &downloaded,
        "deb",
        architecture,
        &[&words[..], packages].concat(),
    )
    .map_err(|error| format!("Debian's {} cannot be had: {error}", packages.join(", ")))?;
    extract(run, &downloaded.join("cache/archives"), &folder)?;
    remove(&downloaded)?;
    Ok(folder)
}

/// Returns a folder with one package of this machine's own suite, without its dependencies.
pub(crate) fn unpacked(run: &Run, package: &str) -> Result<PathBuf, String> {
    let folder = run.root.join(".scratch/debian").join(package);
    if !folder.join("usr").exists() {
        println!("unpacking Debian's {package} into .scratch/debian");
        update(run)?;
        unpack(run, &[package.to_owned()], &folder)?;
    }
    Ok(folder)
}

/// Unpacks packages of this machine's own suite into a folder. Their lists must be [updated](update).
pub(crate) fn unpack(run: &Run, packages: &[String], folder: &Path) -> Result<(), String> {
    let downloaded = folder.join("packages");
    fs::create_dir_all(&downloaded).map_err(|error| format!("{}: {error}", downloaded.display()))?;
    let mut download = own(run, "apt-get");
    download.args(["download", "-qq", "-o", "APT::Sandbox::User="]);
    download.args(packages).current_dir(&downloaded);
    quietly("apt-get download", download)?;
    extract(run, &downloaded, folder)?;
    remove(&downloaded)
}

/// Updates the lists of this machine's own suite.
pub(crate) fn update(run: &Run) -> Result<(), String> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        let folder = run.root.join(OWN).join(folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut update = own(run, "apt-get");
    update.args(["update", "-qq", "-o", "APT::Sandbox::User="]);
    quietly("apt-get update", update)
}

/// `apt-get` or `apt-cache` with this machine's sources and lists that belong to the clone: the machine's lists may be
/// old, or empty.
pub(crate) fn own(run: &Run, program: &str) -> Command {
    let folder = run.root.join(OWN);
    let mut command = run.command(program);
    for (name, place) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
        command
            .arg("-o")
            .arg(format!("{name}={}", folder.join(place).display()));
    }
    command
}

/// Runs apt-get in a folder on the binary (`deb`) or source (`deb-src`) packages of the first suite for which it
/// succeeds. No package counts as installed.
pub(crate) fn fetch(
    run: &Run,
    folder: &Path,
    kind: &str,
    architecture: &str,
    words: &[&str],
) -> Result<(), String> {
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
    let place = |name: &str| folder.join(name).display().to_string();
    let options = [
        ("APT::Architecture", architecture.to_owned()),
        ("APT::Architectures", architecture.to_owned()),
        ("APT::Sandbox::User", String::new()),
        ("Dir::Cache", place("cache")),
        ("Dir::Etc::SourceList", place("sources.list")),
        ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
        ("Dir::State::Lists", place("lists")),
        ("Dir::State::Status", place("status")),
    ];
    let apt = |words: &[&str]| {
        let mut apt = run.command("apt-get");
        apt.arg("-qq").args(words).current_dir(folder);
        for (name, value) in &options {
            apt.arg("-o").arg(format!("{name}={value}"));
        }
        apt
    };
    let mut failure = String::new();
    for suite in SUITES {
        // Files of another suite, or of a run that was stopped, would be unpacked too.
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

/// Extracts all packages that lie in a folder.
fn extract(run: &Run, packages: &Path, folder: &Path) -> Result<(), String> {
    for package in files(run, &packages.to_string_lossy())? {
        if package.extension().is_some_and(|extension| extension == "deb") {
            let mut extract = run.command("dpkg-deb");
            extract.arg("--extract").arg(package).arg(folder);
            quietly("dpkg-deb", extract)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), String> {
    fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}
