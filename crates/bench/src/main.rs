//! `cargo benchmark`: compares the packages with other clients and writes `docs/benchmarks/README.md`.
//!
//! The clients take turns, so that other load of the machine affects all of them equally. Figures are medians.

mod callers;
mod calls;
mod figures;
mod measure;
mod prepare;
mod report;
mod rust;
mod server;
mod sizes;
mod targets;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use callers::{Language, Places, STARTERS};
use feishu_feed_card_sandbox::{App, Chat, Sandbox, Switches, World};
use lexopt::{Arg, Parser};
use measure::{Server, timed};
use report::{Question, Row};
use tools::run::Run;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
Compares the packages with other clients: speed, CPU, memory, start-up and size. Takes 15 minutes, plus the builds.
Writes docs/benchmarks/README.md. Linux only.

Usage: cargo benchmark [--quick] [--charts] | --builds

  --quick      two minutes; the figures are rough
  --charts     also draw bar charts, as SVG files in the target folder
  --builds     only time a release build of a small program with the crate, and one with openlark
  -h, --help   print this
";

/// Durations and numbers of repetitions.
struct Pace {
    /// Seconds of calls for each client in each repetition.
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

#[derive(Default)]
struct Options {
    quick: bool,
    charts: bool,
    builds: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve"] => server::serve(),
        ["call", caller, base_url] => rust::call(caller, base_url),
        _ => read_arguments(Parser::from_env())
            .map_err(Into::into)
            .and_then(|options| match options {
                None => {
                    print!("{USAGE}");
                    Ok(())
                }
                Some(options) => bench(&options),
            }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `None` if the usage is to be printed.
fn read_arguments(mut arguments: Parser) -> std::result::Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => options.quick = true,
            Arg::Long("charts") => options.charts = true,
            Arg::Long("builds") => options.builds = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn bench(options: &Options) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err("Linux only: it reads what processes use from /proc".into());
    }
    let run = &Run::new();
    if options.builds {
        return Ok(prepare::builds(run)?);
    }
    let places = Places {
        root: run.root.clone(),
        // Copied before anything is built, because cargo may replace the file, and then its path cannot be run.
        program: std::env::current_exe()?,
        scratch: run.root.join(prepare::SCRATCH),
        scripts: run.root.join("crates/bench/scripts"),
    };
    let charts = run.target()?.join("charts");
    let alone = prepare::prepare(run)?;
    let pace = if options.quick { &QUICK } else { &FULL };

    let began = Instant::now();
    let busy = measure::busy()?;
    let server = Server::start(&places)?;
    let mut amiss = Vec::new();
    let mut questions = starts(pace, &places, &server)?;
    questions.extend(looks(pace, &places, &server)?);
    questions.extend(calls::everyone(pace, &places, &server, &mut amiss)?);
    questions.extend(sizes::all(&places)?);
    questions.extend(sizes::alone(&alone));
    let targets = targets::all(&questions);

    let about = about(pace, &places, busy, began.elapsed())?;
    let table = report::table(&questions, &targets);
    report::write(&places.root, &about, &table)?;
    println!("\n{table}\nwritten to {}", report::PAGE);
    if options.charts {
        report::write_charts(&charts, &questions)?;
        println!("charts are in {}", charts.display());
    }
    let missed = targets
        .iter()
        .filter(|target| target.is_met() != Some(true))
        .count();
    println!(
        "{:.1} minutes; {missed} of {} targets missed or not measured",
        began.elapsed().as_secs_f64() / 60.0,
        targets.len()
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

/// Time of a process that starts, makes one call and ends, over http and https.
fn starts(pace: &Pace, places: &Places, server: &Server) -> Result<Vec<Question>> {
    let rounds = pace.starts + 1;
    let (secure, ca) = secure_sandbox(places, STARTERS.len() * rounds)?;
    let base_url = secure
        .https_base_url()
        .ok_or("the sandbox does not speak https")?;
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
            // The first start reads files from the disk and compiles them, so it is not counted.
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
            "A process that starts, makes one call over http and ends",
            "ms",
            false,
            http,
        ),
        question("start-https", "The same process with https", "ms", false, https),
    ])
}

/// A sandbox with TLS, and the file with its certificate authority.
fn secure_sandbox(places: &Places, chats: usize) -> Result<(Sandbox, PathBuf)> {
    let world = World {
        apps: vec![App::new("cli_bench", "benchmarks0000000000000000000000")],
        chats: (0..chats)
            .map(|number| Chat::new(format!("oc_start_{number}"), ["ou_bench"]))
            .collect(),
        switches: Switches::unlimited(),
        ..World::default()
    };
    let sandbox = Sandbox::builder().world(world).https(true).start()?;
    let ca = places.scratch.join("ca.pem");
    fs::write(&ca, sandbox.ca_pem().unwrap_or_default())?;
    Ok((sandbox, ca))
}

/// Time, modules and memory of an import, and memory after the first call.
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
            // Clients may print something before.
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
            "Modules loaded by the import",
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
        "Written by `cargo benchmark` on {}, in {:.1} minutes. Machine: {}, {cores} cores; {}.\n\n\
         {}\
         Each figure is the median of {} repetitions ({} for process starts), in which the clients took turns. Calls \
         go over http to a server on the same machine, which returns a fixed response. The column Server CPU shows \
         whether the server limits a client. The server counted exactly the calls made, each for another chat. The \
         clients in Rust run on one thread and one processor, in turns of {:.0} ms; their server has another \
         processor, and each number of concurrent calls has processes of its own. A ratio is the median of the ratios of all repetitions. Languages do not take turns, so a ratio \
         between languages is that of their medians. Our clients pace their calls and fetch their token, with limits \
         that are never reached. The others get a token, except for the platform's official clients, which fetch it.\n",
        date.unwrap_or_default(),
        took.as_secs_f64() / 60.0,
        cpu.trim_start_matches([' ', '\t', ':']),
        versions.join(", "),
        if pace.repetitions < FULL.repetitions {
            "**A quick run: the figures are rough.** ".to_owned()
        } else if busy > 0.1 {
            format!(
                "**Other programs used {:.0} % of the machine before the run: the figures are rough.** ",
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
