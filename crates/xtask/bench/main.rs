//! The benchmark behind `cargo xtask bench`, which builds it and installs everyone who is measured.
//!
//! Everyone takes turns, so that whatever else the machine does falls on all alike; figures are medians.

mod bars;
mod callers;
mod calls;
mod figures;
mod measure;
mod report;
mod rust;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use callers::{Language, Places, STARTERS};
use feishu_feed_card_sandbox::{App, Chat, Switches, World};
use measure::{Process, Server, size, timed};
use report::{Question, Row};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long and how often everything is measured.
struct Pace {
    /// Of each caller, in every repetition.
    seconds: f64,
    repetitions: usize,
    starts: usize,
    looks: usize,
}

const FULL: Pace = Pace {
    seconds: 1.2,
    repetitions: 7,
    starts: 15,
    looks: 7,
};
const QUICK: Pace = Pace {
    seconds: 0.25,
    repetitions: 3,
    starts: 3,
    looks: 2,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve"] => server::serve(),
        ["call", caller, base_url] => rust::call(caller, base_url),
        [pace, root, sandbox, alone] => {
            let pace = if pace == "quick" { &QUICK } else { &FULL };
            bench(pace, Path::new(root), Path::new(sandbox), alone)
        }
        _ => Err("start it with `cargo xtask bench`".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(pace: &Pace, root: &Path, sandbox: &Path, alone: &str) -> Result<()> {
    let began = Instant::now();
    let places = Places {
        scratch: root.join(".scratch/bench"),
        scripts: root.join("crates/xtask/bench"),
    };
    let busy = measure::busy()?;
    let server = Server::start()?;
    let mut amiss = Vec::new();
    let mut questions = starts(pace, &places, &server, sandbox)?;
    questions.extend(looks(pace, &places, &server)?);
    questions.extend(calls::everyone(pace, &places, &server, &mut amiss)?);
    questions.extend(sizes(&places)?);
    let bars = bars::all(&questions, &places, root, alone)?;

    let about = about(pace, &places, busy, began.elapsed())?;
    report::write(&root.join("docs/benchmarks"), &about, &bars, &questions)?;
    for (language, folder, many) in [
        ("Python", "python/bench", "python bench/many.py"),
        ("Node", "node/bench", "node bench/many.mjs"),
    ] {
        report::write_bars(&root.join(folder), language, &about, &bars, many)?;
    }
    for question in &questions {
        println!("\n## {}\n\n{}", question.title, question.table());
    }
    println!("\n{}", report::table_of(&bars));
    println!(
        "{:.1} minutes; written to docs/benchmarks",
        began.elapsed().as_secs_f64() / 60.0
    );
    if amiss.is_empty() {
        return Ok(());
    }
    Err(format!(
        "calls made and requests that the server counted differ:\n{}",
        amiss.join("\n")
    )
    .into())
}

/// From a process's start to its first success and its end, over http and https.
fn starts(pace: &Pace, places: &Places, server: &Server, sandbox: &Path) -> Result<Vec<Question>> {
    let rounds = pace.starts + 1;
    let (secure, base_url, ca) = secure_sandbox(places, sandbox, STARTERS.len() * rounds)?;
    let mut http: Vec<Row> = STARTERS.iter().map(|starter| row(starter.name)).collect();
    let mut https = STARTERS
        .iter()
        .map(|starter| row(starter.name))
        .collect::<Vec<_>>();
    let mut calls = 0;
    server.counts()?;
    for round in 0..rounds {
        progress("start", round, rounds);
        for (index, starter) in STARTERS.iter().enumerate() {
            let number = round * STARTERS.len() + index;
            let chat = format!("oc_start_{number}");
            let (took, _) = timed(starter.once(places, &server.base_url, &chat, None))?;
            calls += u64::from(starter.calls());
            // The first time files are read from the disk and compiled.
            let is_warm = round > 0;
            if is_warm {
                http[index].figures.push(millis(took));
            }
            if starter.speaks_https {
                let (took, _) = timed(starter.once(places, &base_url, &chat, Some(&ca)))?;
                if is_warm {
                    https[index].figures.push(millis(took));
                }
            }
        }
    }
    drop(secure);
    if server.counts()? != (calls, calls) {
        return Err("not every process made its call".into());
    }
    https.retain(|row| row.figures.median().is_some());
    Ok(vec![
        question(
            "start-http",
            "From the start of a process to its first call and its end, http",
            "ms",
            false,
            http,
        ),
        question("start-https", "The same over https", "ms", false, https),
    ])
}

/// The sandbox speaks TLS, with a certificate of its own.
fn secure_sandbox(places: &Places, program: &Path, chats: usize) -> Result<(Process, String, PathBuf)> {
    let world = World {
        apps: vec![App::new("cli_bench", "benchmarks0000000000000000000000")],
        chats: (0..chats)
            .map(|number| Chat::new(format!("oc_start_{number}"), ["ou_bench"]))
            .collect(),
        switches: Switches::unlimited(),
        ..World::default()
    };
    let (file, ca) = (places.scratch.join("world.json"), places.scratch.join("ca.pem"));
    fs::write(&file, serde_json::to_string(&world)?)?;
    let mut command = Command::new(program);
    command
        .args(["--port", "0", "--https-port", "0", "--world"])
        .arg(&file);
    let mut process = Process::start(command)?;
    let (mut base_url, mut pem) = (String::new(), String::new());
    loop {
        let line = process.line()?;
        if let Some((url, _)) = line.split_once(", to be trusted with") {
            url.clone_into(&mut base_url);
        } else if line.starts_with("app ") {
            break;
        } else if !base_url.is_empty() {
            pem += &line;
            pem.push('\n');
        }
    }
    fs::write(&ca, pem)?;
    Ok((process, base_url, ca))
}

/// What an import costs, and what a process holds after its first call.
fn looks(pace: &Pace, places: &Places, server: &Server) -> Result<Vec<Question>> {
    let rows = || {
        STARTERS
            .iter()
            .map(|starter| row(starter.name))
            .collect::<Vec<_>>()
    };
    let (mut import, mut modules, mut after_import, mut after_call) = (rows(), rows(), rows(), rows());
    for round in 0..=pace.looks {
        progress("memory", round, pace.looks + 1);
        for (index, starter) in STARTERS.iter().enumerate() {
            let chat = format!("oc_look_{index}_{round}");
            let (_, said) = timed(starter.look(places, &server.base_url, &chat))?;
            // Others may say something before.
            let figures: Vec<f64> = said
                .lines()
                .last()
                .unwrap_or_default()
                .split_whitespace()
                .map(str::parse)
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| format!("{}: {said}", starter.name))?;
            let [took, count, imported, called] = figures[..] else {
                return Err(format!("{}: {said}", starter.name).into());
            };
            if round == 0 {
                continue;
            }
            if starter.import.is_some() {
                import[index].figures.push(took);
                after_import[index].figures.push(imported / 1024.0);
            }
            if starter.import.is_some() && starter.language == Language::Python {
                modules[index].figures.push(count);
            }
            after_call[index].figures.push(called / 1024.0);
        }
    }
    let calls = (STARTERS.iter().filter(|starter| starter.calls()).count() * (pace.looks + 1)) as u64;
    if server.counts()? != (calls, calls) {
        return Err("not every process made its call".into());
    }
    Ok(vec![
        question("import", "Import", "ms", false, import),
        question(
            "modules",
            "Modules that an import loads, beyond the interpreter's own",
            "modules",
            false,
            modules,
        ),
        question(
            "memory-import",
            "Memory after the import",
            "MiB",
            false,
            after_import,
        ),
        question("memory", "Memory after the first call", "MiB", false, after_call),
    ])
}

/// What an installation takes.
fn sizes(places: &Places) -> Result<Vec<Question>> {
    let (mut bytes, mut packages) = (Vec::new(), Vec::new());
    for starter in STARTERS.iter().filter(|starter| starter.package != "bare") {
        let is_python = starter.language == Language::Python;
        let folder = if is_python {
            places.site_packages(starter.package)?
        } else {
            places.node(starter.package).join("node_modules")
        };
        // What every environment has.
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
            rows.push(Row {
                name: starter.name.to_owned(),
                figures: [figure].into_iter().collect(),
                server: None,
            });
        }
    }
    Ok(vec![
        question(
            "size",
            "What an installation takes on the disk",
            "MiB",
            false,
            bytes,
        ),
        question(
            "packages",
            "Packages that an installation brings",
            "packages",
            false,
            packages,
        ),
    ])
}

/// The packages in a folder of npm's, with those inside of packages.
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

/// Prints the versions of installed packages.
const PACKAGES: &str = "
import importlib.metadata, sys
for name in sys.argv[1:]:
    print(name, importlib.metadata.version(name))";

fn about(pace: &Pace, places: &Places, busy: f64, took: Duration) -> Result<String> {
    let mut versions = Vec::new();
    let mut say = |mut command: Command| -> Result<()> {
        let (_, said) = timed({
            command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
            command
        })?;
        versions.extend(
            said.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned),
        );
        Ok(())
    };
    for (package, name) in [
        ("ours", "feishu-feed-card"),
        ("requests", "requests"),
        ("httpx", "httpx"),
        ("aiohttp", "aiohttp"),
        ("lark-oapi", "lark-oapi"),
    ] {
        let mut command = Command::new(places.python(package));
        command.args(["-c", PACKAGES, name]);
        say(command)?;
    }
    for (package, name) in [("undici", "undici"), ("sdk", "@larksuiteoapi/node-sdk")] {
        let file = places
            .node(package)
            .join("node_modules")
            .join(name)
            .join("package.json");
        let mut command = Command::new("node");
        command
            .args([
                "-p",
                "const p = require(process.argv[1]); `${p.name} ${p.version}`",
            ])
            .arg(file);
        say(command)?;
    }
    for (program, argument) in [
        ("rustc", "--version"),
        ("node", "--version"),
        ("date", "+%Y-%m-%d"),
    ] {
        let mut command = Command::new(program);
        command.arg(argument);
        say(command)?;
    }
    let mut python = Command::new(places.python("bare"));
    python.arg("--version");
    say(python)?;
    let date = versions
        .iter()
        .position(|line| line.starts_with("20"))
        .map(|index| versions.remove(index));
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "Written by `cargo xtask bench` on {}, in {:.1} minutes. Machine: {}, {cores} cores; {}.\n\n\
         {}\
         Each figure is the median of {} repetitions ({} of process starts), in which everyone took turns. Calls go \
         over http to a server on the same machine, which gives one fixed answer; its share of a processor stands \
         beside each figure, and it counted exactly the calls that were made, each for a chat of its own. The callers \
         in Rust run on one thread, on one processor, in turns of {:.0} ms; their server has another. Ratios are \
         medians of the single repetitions' ratios, but between languages, which do not take turns. Pacing and the \
         token's handling are on in ours, with limits out of the way; the others send a token that they are given, \
         but for the platform's official clients.\n",
        date.unwrap_or_default(),
        took.as_secs_f64() / 60.0,
        cpu.trim_start_matches([' ', '\t', ':']),
        versions.join(", "),
        if pace.repetitions < FULL.repetitions {
            "**A quick run: its figures are rough.** ".to_owned()
        } else if busy > 0.1 {
            format!(
                "**Before it began, others used {:.0} % of the machine: its figures are rough.** ",
                busy * 100.0
            )
        } else {
            String::new()
        },
        pace.repetitions,
        pace.starts,
        calls::TURN_IN_RUST * 1000.0,
    ))
}

fn question(
    slug: &'static str,
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
    rows: Vec<Row>,
) -> Question {
    Question {
        slug,
        title,
        unit,
        more_is_better,
        rows,
    }
}

fn row(name: &str) -> Row {
    Row {
        name: name.to_owned(),
        ..Row::default()
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn progress(what: &str, round: usize, rounds: usize) {
    println!("{what}: round {} of {rounds}", round + 1);
}
