//! Python interpreters and virtual environments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Run, output, quietly};

const OLDEST: (u32, u32) = (3, 10);

const NAMES: [&str; 7] = [
    "python3",
    "python",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
];

/// A virtual environment.
pub struct Venv(PathBuf);

impl Venv {
    /// The environment in the clone, with the development tools of the package.
    pub fn of_project(run: &Run) -> Result<Self, String> {
        const TOOLS: &str = "python/requirements-dev.txt";
        let file = run.root.join(TOOLS);
        let wanted = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::at(run, ".venv", &["--requirement", TOOLS], &wanted)
    }

    /// An environment in this folder, made by `pip install` with these arguments. An existing one is reused if it was
    /// made with the same `wanted`.
    pub fn at(run: &Run, folder: &str, install: &[&str], wanted: &str) -> Result<Self, String> {
        Self::with(run, folder, install, wanted, || find(run))
    }

    /// As [`at`](Self::at), with another interpreter. `python` is only called if the environment must be made.
    pub fn with(
        run: &Run,
        folder: &str,
        install: &[&str],
        wanted: &str,
        python: impl FnOnce() -> Result<PathBuf, String>,
    ) -> Result<Self, String> {
        let venv = Self(run.root.join(folder));
        let stamp = venv.0.join("wanted");
        let is_ready = version(venv.command(run, "python")).is_some_and(|version| version >= OLDEST)
            && fs::read_to_string(&stamp).is_ok_and(|had| had == wanted);
        if is_ready {
            return Ok(venv);
        }
        let python = python()?;
        println!("making {folder} with {}", python.display());
        let mut make = run.command(python);
        make.args(["-m", "venv", "--clear"]).arg(&venv.0);
        quietly("making a virtual environment", make)?;
        let mut pip = venv.command(run, "python");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(install);
        quietly("pip install", pip)?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
        Ok(venv)
    }

    fn folder_of_programs(&self) -> PathBuf {
        self.0.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    /// The path of one of the environment's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder_of_programs().join(name)
    }

    /// A command that runs one of the environment's programs in the activated environment.
    pub fn command(&self, run: &Run, program: &str) -> Command {
        let mut command = run.command(self.program(program));
        self.activate(&mut command);
        command
    }

    /// Activates the environment for a command, so that it finds the environment's programs.
    pub fn activate(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(self.folder_of_programs()).chain(std::env::split_paths(&path)),
        );
        if let Ok(path) = path {
            command.env("PATH", path);
        }
        command.env("VIRTUAL_ENV", &self.0).env_remove("PYTHONHOME");
    }

    /// `maturin develop`: builds the extension and installs the package into this environment.
    pub fn develop(&self, run: &Run) -> Command {
        let mut maturin = self.command(run, "maturin");
        maturin.arg("develop").current_dir(run.root.join("python"));
        maturin
    }
}

/// Finds an interpreter that is new enough and can make virtual environments.
fn find(run: &Run) -> Result<PathBuf, String> {
    let mut seen = Vec::new();
    for name in NAMES {
        let Some(version) = version(run.command(name)) else {
            continue;
        };
        let mut import = run.command(name);
        import.args(["-c", "import ensurepip, venv"]);
        match (version >= OLDEST, output(import)) {
            (true, Some(_)) => return Ok(Path::new(name).to_owned()),
            (true, None) => seen.push(format!(
                "{name} cannot make virtual environments (on Debian: apt-get install python3-venv)"
            )),
            (false, _) => seen.push(format!("{name} is {}.{}", version.0, version.1)),
        }
    }
    let (major, minor) = OLDEST;
    let seen = if seen.is_empty() {
        "there is none".to_owned()
    } else {
        seen.join(", ")
    };
    Err(format!("Python {major}.{minor} or later is needed: {seen}"))
}

/// Returns an interpreter's version, or `None` if it does not run.
pub fn version(mut python: Command) -> Option<(u32, u32)> {
    python.args(["-c", "import sys; print('%d %d' % sys.version_info[:2])"]);
    let text = output(python)?;
    let (major, minor) = text.split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
