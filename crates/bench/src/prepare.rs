//! Builds the packages as they are released, and installs them and the other clients.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tools::node;
use tools::package::without_modules;
use tools::python::Venv;
use tools::run::{Run, output, quietly};

pub(crate) const SCRATCH: &str = ".scratch/bench";

/// The newest versions that support the oldest interpreters that our packages support.
const PYTHON_PEERS: [(&str, &str); 4] = [
    ("requests", "requests==2.34.2"),
    ("httpx", "httpx==0.28.1"),
    ("aiohttp", "aiohttp==3.14.5"),
    ("lark-oapi", "lark-oapi==1.7.5"),
];
const NODE_PEERS: [(&str, &str); 2] = [("undici", "undici@7"), ("sdk", "@larksuiteoapi/node-sdk@1.74.0")];

/// Returns the output of the core's own benchmark.
pub(crate) fn prepare(run: &Run) -> Result<String, String> {
    node::check(run)?;
    let tools = Venv::of_project(run)?;
    node::install(run)?;

    println!("measuring the core without a network");
    let mut alone = run.cargo([
        "bench",
        "--package=feishu-feed-card-bench",
        "--bench=alone",
        "--locked",
    ]);
    alone.args(["--", "--brief"]);
    let alone = output(alone).ok_or("cargo bench --bench alone failed")?;

    python(run, &tools)?;
    npm(run)?;
    Ok(alone)
}

/// Times a clean release build of a three-line program with each crate. Sources are downloaded before.
pub(crate) fn builds(run: &Run) -> Result<(), String> {
    // A literal TOML string, in which paths need no escapes.
    let ours = format!("{{ path = '{}' }}", run.root.join("crates/core").display());
    let programs = [
        ("feishu-feed-card", &*ours),
        // With the feature for this call.
        (
            "openlark",
            "{ version = \"=0.21.0\", features = [\"communication\"] }",
        ),
    ];
    println!("{:<20}{:>8}{:>9}", "a program with", "crates", "seconds");
    for (name, source) in programs {
        let folder = run.root.join(SCRATCH).join("builds").join(name);
        clear(&folder)?;
        let told = |error| format!("{}: {error}", folder.display());
        let manifest = format!(
            "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [dependencies]\n{name} = {source}\ntokio = {{ version = \"1\", features = [\"full\"] }}\n"
        );
        fs::write(folder.join("Cargo.toml"), manifest).map_err(told)?;
        fs::create_dir(folder.join("src")).map_err(told)?;
        let main = "#[tokio::main]\nasync fn main() {\n}\n";
        fs::write(folder.join("src/main.rs"), main).map_err(told)?;
        let cargo = |words: &[&str]| {
            let mut cargo = run.cargo(words.iter().copied());
            cargo
                .current_dir(&folder)
                .env("CARGO_TARGET_DIR", folder.join("target"));
            cargo
        };
        quietly("cargo fetch", cargo(&["fetch"]))?;
        let tree = output(cargo(&["tree", "--edges=normal", "--prefix=none"])).ok_or("cargo tree failed")?;
        let crates: BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
        let began = Instant::now();
        quietly("cargo build", cargo(&["build", "--release"]))?;
        // Without the program itself.
        let others = crates.len() - 1;
        println!("{name:<20}{others:>8}{:>9.1}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn python(run: &Run, tools: &Venv) -> Result<(), String> {
    println!("building the wheel");
    let wheels = run.root.join(SCRATCH).join("wheel");
    clear(&wheels)?;
    let mut maturin = tools.command(run, "maturin");
    maturin.args(["build", "--release", "--out"]).arg(&wheels);
    maturin.current_dir(run.root.join("python"));
    quietly("maturin build", maturin)?;
    let wheel = only(&wheels, ".whl")?.display().to_string();

    let ours = Venv::at(run, &format!("{SCRATCH}/py-ours"), &[&wheel], "ours")?;
    let mut install = ours.command(run, "python");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.args(["--force-reinstall", "--no-deps", &wheel]);
    quietly("pip install", install)?;
    Venv::at(run, &format!("{SCRATCH}/py-bare"), &["pip"], "bare")?;
    for (name, package) in PYTHON_PEERS {
        Venv::at(run, &format!("{SCRATCH}/py-{name}"), &[package], package)?;
    }
    Ok(())
}

fn npm(run: &Run) -> Result<(), String> {
    println!("building the npm package");
    without_modules(run)?;
    quietly("npm run build", node::npm(run, ["run", "build"]))?;
    quietly("npm run pack:local", node::npm(run, ["run", "pack:local"]))?;
    let packed = run.root.join("node/packed");
    let mut archives = files(&packed, ".tgz")?;
    archives.sort();
    let archives: Vec<String> = archives.iter().map(|file| file.display().to_string()).collect();
    let ours: Vec<&str> = archives.iter().map(String::as_str).collect();

    clear(&run.root.join(SCRATCH).join("node-ours"))?;
    install(run, "ours", &ours)?;
    install(run, "bare", &[])?;
    for (name, package) in NODE_PEERS {
        if !run
            .root
            .join(SCRATCH)
            .join(format!("node-{name}/node_modules"))
            .is_dir()
        {
            println!("installing {package}");
            install(run, name, &[package])?;
        }
    }
    Ok(())
}

fn install(run: &Run, name: &str, packages: &[&str]) -> Result<(), String> {
    let folder = run.root.join(SCRATCH).join(format!("node-{name}"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if packages.is_empty() {
        return Ok(());
    }
    let mut npm = run.command(node::NPM);
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--ignore-scripts",
        "--silent",
        "--prefix",
    ]);
    npm.arg(&folder).args(packages);
    quietly("npm install", npm)
}

fn clear(folder: &Path) -> Result<(), String> {
    let told = |error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(told)?;
    }
    fs::create_dir_all(folder).map_err(told)
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect())
}

fn only(folder: &Path, ending: &str) -> Result<PathBuf, String> {
    let mut found = files(folder, ending)?;
    found
        .pop()
        .ok_or_else(|| format!("no {ending} in {}", folder.display()))
}
