//! Rust's standard library for targets other than this machine's: the one that rustup installed, or one built from
//! Debian's package of its sources, with Debian's compiler of the same version. Both packages are unpacked into a
//! folder; nothing is installed.

use std::path::{Path, PathBuf};

use crate::artifacts::{Environment, remap};
use crate::debian;
use crate::run::{Run, output};

/// Debian's packages of the compiler and of its sources: the newer ones that Firefox needs, then the default ones.
const PACKAGES: [(&str, &str); 2] = [("rustc-web", "rust-web-src"), ("rustc", "rust-src")];

/// The standard library of a target.
pub(crate) enum Std {
    /// Installed with the toolchain.
    Installed,
    /// Built from its sources.
    Sources(Sources),
}

/// A compiler and the sources of its standard library, in a folder.
pub(crate) struct Sources(PathBuf);

impl Std {
    /// Finds the standard library of a target, or returns why there is none.
    pub(crate) fn of(run: &Run, triple: &str) -> Result<Self, String> {
        let mut rustc = run.command("rustc");
        rustc.args(["--print=target-libdir", "--target", triple]);
        if output(rustc).is_some_and(|folder| Path::new(&folder).exists()) {
            return Ok(Self::Installed);
        }
        let sources = Sources::find(run)
            .map_err(|error| format!("`rustup target add {triple}` has not been run, and {error}"))?;
        Ok(Self::Sources(sources))
    }

    /// For a command that runs cargo.
    pub(crate) fn environment(&self) -> Environment {
        match self {
            Self::Installed => Vec::new(),
            Self::Sources(sources) => sources.environment(),
        }
    }

    /// The flag for rustc that keeps the path of the sources out of the library.
    pub(crate) fn without_paths(&self) -> String {
        match self {
            Self::Installed => String::new(),
            Self::Sources(Sources(folder)) => remap(&folder.join("usr/lib/rustlib/src/rust"), "rust"),
        }
    }
}

impl Sources {
    pub(crate) fn find(run: &Run) -> Result<Self, String> {
        let folder = run.root.join(".scratch/rust");
        let compiler = folder.join("usr/bin/rustc");
        let library = folder.join("usr/lib/rustlib/src/rust/library/std");
        if !(compiler.exists() && library.exists()) {
            println!("unpacking Debian's Rust compiler and its sources into .scratch/rust");
            unpack(run, &folder)?;
        }
        Ok(Self(folder))
    }

    /// For a command that runs cargo: builds the standard library, for any target.
    pub(crate) fn environment(&self) -> Environment {
        let Self(folder) = self;
        let path = |path: &str| folder.join(path).to_string_lossy().into_owned();
        [
            ("RUSTC", path("usr/bin/rustc")),
            ("LD_LIBRARY_PATH", path("usr/lib/x86_64-linux-gnu")),
            ("RUSTC_BOOTSTRAP", "1".to_owned()),
            ("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

fn unpack(run: &Run, folder: &Path) -> Result<(), String> {
    debian::update(run)?;
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let (compiler, sources) = PACKAGES
        .into_iter()
        .find(|(compiler, _)| {
            field(run, compiler, "Version").is_some_and(|version| is_at_least(&version, oldest))
        })
        .ok_or_else(|| format!("apt-get knows no compiler that is {oldest} or later"))?;

    let mut packages = vec![sources.to_owned(), compiler.to_owned()];
    for at in 1.. {
        let Some(package) = packages.get(at) else { break };
        for needed in dependencies(&field(run, package, "Depends").unwrap_or_default()) {
            if !packages.contains(&needed) {
                packages.push(needed);
            }
        }
    }

    debian::unpack(run, &packages, folder)
}

/// Returns a field of the package that apt-get would install.
fn field(run: &Run, package: &str, name: &str) -> Option<String> {
    let mut show = debian::own(run, "apt-cache");
    show.args(["show", "--no-all-versions", package]);
    let said = output(show)?;
    let line = said.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.strip_prefix(": ")?.to_owned())
}

/// Returns the dependencies of a package that belong to the compiler. The others are on every machine with Debian.
fn dependencies(depends: &str) -> Vec<String> {
    depends
        .split(", ")
        .filter_map(|one| one.split([' ', ':']).next())
        .filter(|name| name.starts_with("libstd-rust") || name.starts_with("libllvm"))
        .map(str::to_owned)
        .collect()
}

fn is_at_least(version: &str, oldest: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|letter: char| !letter.is_ascii_digit())
            .map_while(|number| number.parse().ok())
            .collect()
    };
    numbers(version) >= numbers(oldest)
}

#[cfg(test)]
mod tests {
    use super::{dependencies, is_at_least};

    #[test]
    fn debian_packages_are_understood() {
        assert!(is_at_least("1.96.0+dfsg1-1~deb12u2", "1.88"));
        assert!(is_at_least("1.88.0+dfsg1-1", "1.88"));
        assert!(!is_at_least("1.63.0+dfsg1-2", "1.88"));
        assert!(!is_at_least("none", "1.88"));
        assert_eq!(
            dependencies("libc6 (>= 2.34), libllvm22, libstd-rust-web-dev (= 1.96.0+dfsg1-1), gcc"),
            ["libllvm22", "libstd-rust-web-dev"]
        );
    }
}
