//! Figures that need no calls: sizes, packages and crates.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::callers::{Language, Places, STARTERS};
use crate::figures::Figures;
use crate::measure::{size, timed};
use crate::report::{Question, Row};
use crate::{Result, question};

const CORE: &str = "Rust: feishu-feed-card";

/// Sizes of installations, of our packages and libraries, and the number of crates of the core.
pub(crate) fn all(places: &Places) -> Result<Vec<Question>> {
    let (mut bytes, mut packages) = (Vec::new(), Vec::new());
    for starter in STARTERS.iter().filter(|starter| starter.package != "bare") {
        let is_python = starter.language == Language::Python;
        let folder = if is_python {
            places.site_packages(starter.package)?
        } else {
            places.node(starter.package).join("node_modules")
        };
        // Packages of each environment.
        let leaves_out = |name: &str| {
            name == "__pycache__"
                || [
                    "pip",
                    "setuptools",
                    "pkg_resources",
                    "_distutils_hack",
                    "distutils-precedence.pth",
                    ".",
                ]
                .iter()
                .any(|prefix| is_python && name.starts_with(prefix))
                || (!is_python && name.starts_with('.'))
        };
        let count = if is_python {
            fs::read_dir(&folder)?
                .filter_map(std::result::Result::ok)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".dist-info") && !leaves_out(name))
                .count()
        } else {
            packages_in(&folder)?
        };
        let size = size(&folder, &leaves_out)?;
        #[allow(clippy::cast_precision_loss, reason = "sizes and counts of packages")]
        for (rows, figure) in [
            (&mut bytes, size as f64 / f64::from(1 << 20)),
            (&mut packages, count as f64),
        ] {
            rows.push(named(starter.name, [figure].into_iter().collect()));
        }
    }
    let file = |folder: &Path, ending: &str| largest(folder, ending).into_iter().collect::<Figures>();
    let (python, node) = ("Python: feishu_feed_card", "Node: feishu-feed-card");
    Ok(vec![
        question("size", "Size of an installation", "MiB", false, bytes),
        question(
            "packages",
            "Packages of an installation, dependencies included",
            "packages",
            false,
            packages,
        ),
        question(
            "package",
            "Size of the wheel, and of the npm package for one platform",
            "MB",
            false,
            vec![
                named(python, file(&places.scratch.join("wheel"), ".whl")),
                named(node, file(&places.root.join("node/packed"), ".tgz")),
            ],
        ),
        question(
            "library",
            "Size of the native library in it",
            "MB",
            false,
            vec![
                named(
                    python,
                    file(&places.site_packages("ours")?.join("feishu_feed_card"), ".so"),
                ),
                named(node, file(&places.root.join("node"), ".node")),
            ],
        ),
        question(
            "crates",
            "Crates of a program with default features, ours included",
            "crates",
            false,
            vec![named(CORE, [crates(&places.root)?].into_iter().collect())],
        ),
    ])
}

/// The core without a network: `figures` is the output of its own benchmark, `name=figure` separated by blanks.
pub(crate) fn alone(figures: &str) -> Vec<Question> {
    let of = |name: &str| -> Figures {
        let mut words = figures.split_whitespace().filter_map(|word| word.split_once('='));
        let figure = words
            .find(|(known, _)| *known == name)
            .and_then(|(_, figure)| figure.parse().ok());
        figure.into_iter().collect()
    };
    let one = |slug, title, unit, name| question(slug, title, unit, false, vec![named(CORE, of(name))]);
    vec![
        one(
            "own-time",
            "Time of a call in our own code, without a network",
            "µs",
            "own_us",
        ),
        one("client", "Making a client", "ms", "client_ms"),
    ]
}

fn named(name: &str, figures: Figures) -> Row {
    Row {
        name: name.to_owned(),
        figures,
        server: None,
    }
}

/// The packages in a `node_modules` folder, nested ones included.
fn packages_in(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('@'))
        {
            count += packages_in(&path)?;
        } else if path.join("package.json").is_file() {
            count += 1;
            let inside = path.join("node_modules");
            if inside.is_dir() {
                count += packages_in(&inside)?;
            }
        }
    }
    Ok(count)
}

/// The largest file in a folder with this ending, in MB.
fn largest(folder: &Path, ending: &str) -> Option<f64> {
    let entries = fs::read_dir(folder).ok()?.filter_map(std::result::Result::ok);
    let sizes = entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(ending))
        .filter_map(|entry| entry.metadata().ok());
    #[allow(clippy::cast_precision_loss, reason = "sizes of files")]
    sizes.map(|file| file.len() as f64 / 1e6).reduce(f64::max)
}

/// The number of crates that the core adds to a program, itself included.
fn crates(root: &Path) -> Result<f64> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tree = Command::new(cargo);
    tree.args([
        "tree",
        "--package=feishu-feed-card",
        "--edges=normal",
        "--prefix=none",
        "--locked",
    ]);
    tree.current_dir(root);
    let (_, output) = timed(tree)?;
    let names: BTreeSet<&str> = output.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(u32::try_from(names.len())?.into())
}
