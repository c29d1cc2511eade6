//! The wheels and the native module for Node.js of one platform.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian;
use crate::node;
use crate::python::Venv;
use crate::run::{Run, files, output, quietly};
use crate::standard_library::Std;

pub(crate) const WHEELS: &str = "python/dist";
pub(crate) const NODE_MODULES: &str = "node";

/// A platform of Linux. Zig provides its libc in the version asked for; with the machine's own, the packages would need
/// systems as new as the machine.
pub struct Target {
    pub(crate) triple: &'static str,
    /// The triple with the version of the libc, as zig spells it.
    for_zig: &'static str,
    /// The wheels' tag, and what it begins with.
    pub(crate) tag: &'static str,
    compatibility: &'static str,
}

/// glibc 2.17 is the oldest that Rust's standard library runs on; musl 1.2 is that of Alpine 3.13.
pub const LINUX: [Target; 4] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        for_zig: "x86_64-unknown-linux-gnu.2.17",
        tag: "manylinux_2_17_x86_64",
        compatibility: "manylinux_2_17",
    },
    Target {
        triple: "x86_64-unknown-linux-musl",
        for_zig: "x86_64-unknown-linux-musl",
        tag: "musllinux_1_2_x86_64",
        compatibility: "musllinux_1_2",
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        for_zig: "aarch64-unknown-linux-gnu.2.17",
        tag: "manylinux_2_17_aarch64",
        compatibility: "manylinux_2_17",
    },
    Target {
        triple: "aarch64-unknown-linux-musl",
        for_zig: "aarch64-unknown-linux-musl",
        tag: "musllinux_1_2_aarch64",
        compatibility: "musllinux_1_2",
    },
];

/// A binary interface of Python that has a wheel.
pub struct Abi {
    /// As it is in the wheel's name.
    pub(crate) tag: &'static str,
    features: &'static [&'static str],
    /// For `PYO3_CONFIG_FILE`, which makes an interpreter unnecessary.
    pub(crate) python: Option<&'static str>,
}

/// Together they fit each `CPython` from 3.10 on.
pub const ABIS: [Abi; 3] = [
    Abi {
        tag: "cp310-abi3-",
        features: &[],
        python: None,
    },
    FREE_THREADED,
    // The first stable ABI of free-threaded builds.
    Abi {
        tag: "cp315-abi3.abi3t-",
        features: &["--no-default-features", "--features=abi3t"],
        python: Some("implementation=CPython\nversion=3.15\nbuild_flags=Py_GIL_DISABLED\n"),
    },
];

/// The oldest free-threaded build that `PyO3` supports.
pub const FREE_THREADED: Abi = Abi {
    tag: "cp314-cp314t-",
    features: &["--no-default-features"],
    python: Some("implementation=CPython\nversion=3.14\nbuild_flags=Py_GIL_DISABLED\n"),
};

/// Environment variables for a command that runs cargo.
pub type Environment = Vec<(String, String)>;

/// Builds a wheel and returns its path.
pub fn wheel(
    run: &mut Run,
    venv: &Venv,
    target: &Target,
    abi: &Abi,
    environment: &Environment,
) -> Result<PathBuf, String> {
    let mut maturin = maturin(run, venv, target.triple, abi)?;
    maturin
        .args(["--zig", "--target", target.triple])
        .args(["--compatibility", target.compatibility])
        .envs(environment.iter().cloned());
    run.step("wheel", maturin)?;
    files(run, WHEELS)?
        .into_iter()
        .find(|file| {
            [abi.tag, target.tag]
                .iter()
                .all(|tag| file.to_string_lossy().contains(tag))
        })
        .ok_or_else(|| format!("there is no wheel {}{} in {WHEELS}", abi.tag, target.tag))
}

/// Builds the native module in the folder where both Node.js in the clone and the packing look for it.
pub fn node_module(
    run: &mut Run,
    venv: &Venv,
    target: &Target,
    environment: &Environment,
) -> Result<(), String> {
    let arguments = ["run", "build", "--", "--zig", "--target", target.for_zig];
    let mut build = node::npm(run, arguments);
    // For cargo-zigbuild and zig.
    venv.activate(&mut build);
    build.envs(environment.iter().cloned());
    run.step("Node module", build)
}

/// Builds the wheels and the native module for macOS or Windows, with the machine's own compiler.
pub(crate) fn without_zig(run: &mut Run, venv: &Venv) -> Result<(), String> {
    let mut rustc = run.command("rustc");
    rustc.arg("-vV");
    let about = output(rustc).unwrap_or_default();
    let triple = about.lines().find_map(|line| line.strip_prefix("host: "));
    let triple = triple.ok_or("rustc does not run")?;
    let flags = without_paths(run)?;

    let mut builds = vec![(
        "Node module",
        node::npm(run, ["run", "build"]),
        // Otherwise the linker writes the path of the build into it. maturin does the same for a wheel.
        if cfg!(target_os = "macos") {
            "-C link-arg=-Wl,-install_name,@rpath/feishu-feed-card.node"
        } else {
            ""
        },
    )];
    for abi in &ABIS {
        builds.push(("wheel", maturin(run, venv, triple, abi)?, ""));
    }
    for (step, mut build, more) in builds {
        build.env("RUSTFLAGS", format!("{flags} {more}"));
        // The oldest macOS that Rust supports on both processors.
        build.env("MACOSX_DEPLOYMENT_TARGET", "11.0");
        run.step(step, build)?;
    }
    Ok(())
}

fn maturin(run: &Run, venv: &Venv, triple: &str, abi: &Abi) -> Result<Command, String> {
    let mut maturin = venv.command(run, "maturin");
    maturin
        .args(["build", "--release", "--locked", "--out", "dist"])
        .args(abi.features)
        .arg("--sbom-include")
        .arg(bill(run, triple)?)
        .current_dir(run.root.join("python"));
    if let Some(python) = abi.python {
        let file = run.root.join(".scratch").join(format!("{}python.txt", abi.tag));
        fs::write(&file, python).map_err(|error| format!("{}: {error}", file.display()))?;
        maturin.env("PYO3_CONFIG_FILE", file);
    }
    Ok(maturin)
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

impl Target {
    /// The environment in which cargo builds for the target, or why this machine cannot build for it.
    pub fn environment(&self, run: &Run) -> Result<Environment, String> {
        let std = Std::of(run, self.triple)?;
        let mut environment = std.environment();
        let link = if self.triple.ends_with("musl") {
            // A library that Python or Node.js loads shares their libc.
            "-C target-feature=-crt-static".to_owned()
        } else {
            format!("-C link-arg={}", self.libgcc(run)?.display())
        };
        environment.push((
            format!(
                "CARGO_TARGET_{}_RUSTFLAGS",
                self.triple.replace('-', "_").to_uppercase()
            ),
            format!("{link} {} {}", without_paths(run)?, std.without_paths()),
        ));
        Ok(environment)
    }

    /// The unwinder of GCC. Zig would put one of its own into the library. glibc ends a thread with GCC's, as `CPython`
    /// does with daemon threads at exit, and a segmentation fault follows if it meets the frames of the other.
    fn libgcc(&self, run: &Run) -> Result<PathBuf, String> {
        let architecture = self.triple.split('-').next().unwrap_or_default();
        if architecture == std::env::consts::ARCH {
            let mut gcc = run.command("gcc");
            gcc.arg("-print-file-name=libgcc_s.so.1");
            return output(gcc)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .ok_or_else(|| "gcc is needed, for its libgcc_s.so.1".to_owned());
        }
        let names = [("aarch64", "arm64"), ("x86_64", "amd64")];
        let debian = names.iter().find(|(rust, _)| *rust == architecture);
        let package = debian.map(|(_, debian)| format!("libgcc-s1-{debian}-cross"));
        let folder = debian::unpacked(run, &package.unwrap_or_default())?;
        Ok(folder.join(format!("usr/{architecture}-linux-gnu/lib/libgcc_s.so.1")))
    }
}

/// Where cargo keeps what it downloads.
pub(crate) fn cargo_home(run: &Run) -> Result<PathBuf, String> {
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    let folder = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    folder
        .map(|folder| run.root.join(folder))
        .ok_or_else(|| "there is no home folder".to_owned())
}

/// Flags for rustc. Panics and log lines name the source they come from: with these flags as `crates/tokio-…/src/…`,
/// and not by its place on the machine that built it.
fn without_paths(run: &Run) -> Result<String, String> {
    let registries = files(run, &cargo_home(run)?.join("registry/src").to_string_lossy())?;
    // Flags in a variable are separated by blanks.
    if let Some(folder) = registries
        .iter()
        .find(|folder| folder.to_string_lossy().contains(' '))
    {
        return Err(format!(
            "{} has a blank: set CARGO_HOME to another folder",
            folder.display()
        ));
    }
    let flags = registries.iter().map(|folder| remap(folder, "crates"));
    Ok(flags.collect::<Vec<_>>().join(" "))
}

/// The flag that replaces a folder in the paths of sources.
pub(crate) fn remap(folder: &Path, name: &str) -> String {
    format!("--remap-path-prefix={}={name}", folder.display())
}
