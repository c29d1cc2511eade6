//! The bars, and the figures that say whether they are met.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::callers::Places;
use crate::measure::timed;
use crate::report::{Bar, Question};

#[allow(clippy::too_many_lines, reason = "a table")]
/// `alone` is what the core's own benchmark said: `name=figure`, by blanks.
pub(crate) fn all(questions: &[Question], places: &Places, root: &Path, alone: &str) -> Result<Vec<Bar>> {
    let of = |slug: &str, name: &str| {
        let question = questions.iter().find(|question| question.slug == slug)?;
        question.median(name)
    };
    let to = |slug: &str, ours: &str, theirs: &str| {
        let question = questions.iter().find(|question| question.slug == slug)?;
        question.figures(ours)?.to(question.figures(theirs)?)
    };
    // In no repetition did they take turns.
    let to_another_languages =
        |slug: &str, ours: &str, theirs: &str| Some(of(slug, ours)? / of(slug, theirs)?);
    let less = |slug: &str, ours: &str, theirs: &str| Some(of(slug, ours)? - of(slug, theirs)?);
    let said = |name: &str| {
        let mut words = alone.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(known, _)| *known == name)?.1.parse().ok()
    };
    let (rust, sync, loops, node) = (
        "Rust: feishu-feed-card",
        "Python: Client",
        "Python: AsyncClient",
        "Node: feishu-feed-card",
    );
    let python = "Python: feishu_feed_card";
    let threads = of("calls-8", sync)
        .zip(of("latency-1", sync))
        .map(|(rate, latency)| rate * latency / 1e6);
    let most = |of, what: &str, bound, figure| Bar {
        of,
        what: what.to_owned(),
        most: true,
        bound,
        figure,
    };
    let least = |of, what: &str, bound, figure| Bar {
        of,
        what: what.to_owned(),
        most: false,
        bound,
        figure,
    };
    Ok(vec![
        least(
            "core",
            "calls a second at 50, to naive `reqwest`",
            1.0,
            to("calls-50", rust, "Rust: reqwest"),
        ),
        most(
            "core",
            "CPU a call at 50, to naive `reqwest`",
            1.0,
            to("cpu-50", rust, "Rust: reqwest"),
        ),
        most(
            "core",
            "latency at 1, to naive `reqwest`",
            1.0,
            to("latency-1", rust, "Rust: reqwest"),
        ),
        most(
            "core",
            "CPU a call at 1, to naive `reqwest`",
            1.0,
            to("cpu-1", rust, "Rust: reqwest"),
        ),
        most("core", "its own share of a call, µs", 2.0, said("own_us")),
        most(
            "core",
            "its own allocations in a call",
            12.0,
            said("own_allocations"),
        ),
        most("core", "making a client, ms", 1.0, said("client_ms")),
        most("core", "crates with default features", 110.0, crates(root)?),
        most(
            "core",
            "stripped `.so`, MB",
            4.5,
            file(&places.site_packages("ours")?.join("feishu_feed_card"), ".so"),
        ),
        most(
            "core",
            "stripped `.node`, MB",
            4.5,
            file(&root.join("node"), ".node"),
        ),
        most(
            "Python",
            "import, to `http.client`'s",
            0.25,
            to("import", python, "Python: http.client"),
        ),
        most(
            "Python",
            "modules beyond the interpreter's",
            8.0,
            of("modules", python),
        ),
        most(
            "Python",
            "memory after import, to `http.client`'s",
            1.0,
            to("memory-import", python, "Python: http.client"),
        ),
        most(
            "Python",
            "memory after the first call, to `http.client`'s",
            1.0,
            to("memory", python, "Python: http.client"),
        ),
        most(
            "Python",
            "start to end, to the bare interpreter's",
            1.5,
            to("start-http", python, "Python alone"),
        ),
        most(
            "Python",
            "the same over https, to `requests`'",
            0.4,
            to("start-https", python, "Python: requests"),
        ),
        most(
            "Python",
            "`AsyncClient`: CPU a call at 50, to `aiohttp`'s",
            0.3,
            to("cpu-50", loops, "Python: aiohttp"),
        ),
        least(
            "Python",
            "`AsyncClient`: calls a second at 50, to `aiohttp`'s",
            3.0,
            to("calls-50", loops, "Python: aiohttp"),
        ),
        most(
            "Python",
            "`AsyncClient`: latency at 1, to `aiohttp`'s",
            1.0,
            to("latency-1", loops, "Python: aiohttp"),
        ),
        most(
            "Python",
            "`Client`: latency at 1, to `requests`'",
            0.5,
            to("latency-1", sync, "Python: requests"),
        ),
        most(
            "Python",
            "`Client`: CPU at 1, to `requests`'",
            0.5,
            to("cpu-1", sync, "Python: requests"),
        ),
        most(
            "Python",
            "`Client`: latency at 1, to `http.client`'s",
            1.0,
            to("latency-1", sync, "Python: http.client"),
        ),
        most(
            "Python",
            "`Client`: CPU at 1, to `http.client`'s",
            1.0,
            to("cpu-1", sync, "Python: http.client"),
        ),
        least(
            "Python",
            "`Client`: calls a second of 8 threads, to one's",
            1.0,
            threads,
        ),
        least(
            "Python",
            "`AsyncClient`: calls a second at 50, to the core's",
            0.6,
            to_another_languages("calls-50", loops, rust),
        ),
        most(
            "Python",
            "wheel, MB",
            3.0,
            file(&places.scratch.join("wheel"), ".whl"),
        ),
        most("Python", "packages", 1.0, of("packages", python)),
        most("Node", "`require`, ms", 10.0, of("import", node)),
        most(
            "Node",
            "memory after the first call over bare Node, MiB",
            8.0,
            less("memory", node, "Node alone"),
        ),
        most(
            "Node",
            "CPU a call at 50, to `undici.request`'s",
            0.5,
            to("cpu-50", node, "Node: undici"),
        ),
        least(
            "Node",
            "calls a second at 50, to `undici.request`'s",
            2.0,
            to("calls-50", node, "Node: undici"),
        ),
        most(
            "Node",
            "latency at 1, to `undici.request`'s",
            1.0,
            to("latency-1", node, "Node: undici"),
        ),
        least(
            "Node",
            "calls a second at 50, to the core's",
            0.6,
            to_another_languages("calls-50", node, rust),
        ),
        most(
            "Node",
            "platform package, MB",
            3.0,
            file(&root.join("node/packed"), ".tgz"),
        ),
        most(
            "Node",
            "packages (it and the platform's)",
            2.0,
            of("packages", node),
        ),
    ])
}

/// The largest file in a folder whose name ends so, in millions of bytes.
fn file(folder: &Path, ending: &str) -> Option<f64> {
    let entries = fs::read_dir(folder).ok()?.filter_map(std::result::Result::ok);
    let sizes = entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(ending))
        .filter_map(|entry| entry.metadata().ok());
    #[allow(clippy::cast_precision_loss, reason = "sizes of files")]
    sizes.map(|file| file.len() as f64 / 1e6).reduce(f64::max)
}

/// The crates that the core brings into a program, itself among them.
fn crates(root: &Path) -> Result<Option<f64>> {
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
    let (_, said) = timed(tree)?;
    let mut names: Vec<&str> = said.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    names.sort_unstable();
    names.dedup();
    Ok(u32::try_from(names.len()).ok().map(f64::from))
}
