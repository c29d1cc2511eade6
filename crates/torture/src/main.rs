//! `cargo torture`: four drivers, each in its own process, make calls against one sandbox in another process, which
//! fails meanwhile in each way in which a network or the platform can fail.
//!
//! A run has rounds. In each round the drivers receive a script of calls and the sandbox a script of faults, both
//! from the seed. When no request is in progress any more, the result of every call is checked against the state of the
//! sandbox, and the drivers' memory and descriptors are sampled. As root on Linux, clients and sandbox are on a separate
//! network, which is down for 2 to 20 s in one round of three.

mod network;
mod plan;
mod prepare;
mod process;
mod rust;
mod sandbox;
mod verdict;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use network::Network;
use plan::{Event, Fault, LATE_ARRIVAL, Outage, Plan};
use prepare::{Built, COMMAND, prepare};
use process::Process;
use sandbox::Sandbox;
use serde_json::{Value, json};
use tokio::process::Command;
use verdict::{Answers, Tally, Verdict};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DRIVERS: [&str; 4] = ["rust", "python", "python_async", "node"];

const USAGE: &str = "\
Makes calls from Rust, Python and Node.js at once, against a sandbox that fails in every way a network and a platform
can. Then checks every answer against what the sandbox holds. Exit status 1 if something is wrong, lost, hangs, leaks,
or over the limit. As root on Linux, with ip, nsenter and unshare, the network between clients and sandbox also fails.

Usage: cargo torture [--minutes N] [--seed S] [--loopback] [--lie]

  --minutes N   how long (default: 10)
  --seed S      repeat the calls and faults of an earlier run (default: random)
  --loopback    without outages of the network, as for a user who is not root
  --lie         falsify three answers, to see that they are found
  -h, --help    print this

For a quick try without the release profile, use `cargo run -p feishu-feed-card-torture --` instead of `cargo torture`.
";

struct Options {
    minutes: f64,
    seed: u64,
    loopback: bool,
    /// Changes one answer of each kind before it is checked, to show that the check finds it.
    lies: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["drive"] => rust::run().map(|()| true),
        ["sandbox", address] => sandbox::serve(address).map(|()| true),
        _ => read_arguments(Parser::from_env())
            .map_err(Into::into)
            .and_then(|options| match options {
                None => {
                    print!("{USAGE}");
                    Ok(true)
                }
                Some(options) => soak(&options, &prepare()?),
            }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo torture: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns `None` if the usage is to be printed.
fn read_arguments(mut arguments: Parser) -> std::result::Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        minutes: 10.0,
        seed: fastrand::u64(..1_000_000),
        loopback: false,
        lies: false,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("minutes") => options.minutes = arguments.value()?.parse_with(minutes)?,
            Arg::Long("seed") => options.seed = arguments.value()?.parse()?,
            Arg::Long("loopback") => options.loopback = true,
            Arg::Long("lie") => options.lies = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

impl Options {
    /// How to repeat this run.
    fn repeat(&self, has_outages: bool) -> String {
        let (who, loopback) = if has_outages {
            (" as root", "")
        } else {
            ("", " --loopback")
        };
        let lie = if self.lies { " --lie" } else { "" };
        format!(
            "repeat{who} with: {COMMAND} --minutes {} --seed {}{loopback}{lie}",
            self.minutes, self.seed
        )
    }
}

fn minutes(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= 24.0 * 60.0 => Ok(minutes),
        _ => Err("not a number above 0 and at most 1440".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn soak(options: &Options, built: &Built) -> Result<bool> {
    let network = if options.loopback {
        Err("--loopback".into())
    } else {
        Network::start().await
    };
    let network = network
        .inspect(|_| println!("network namespaces: one round in three has an outage of 2 to 20 s"))
        .inspect_err(|reason| println!("loopback, WITHOUT outages of the network: {reason}"))
        .ok();
    let repeat = options.repeat(network.is_some());
    println!("{repeat}");
    let began = Instant::now();
    let mut verdict = Verdict {
        seed: options.seed,
        tallies: DRIVERS.map(|driver| (driver, Tally::default())).into(),
        ..Verdict::default()
    };
    // Each process ends when the future that started it is dropped.
    let result = tokio::select! {
        result = rounds(options, built, network.as_ref(), began, &mut verdict) => result,
        () = told_to_stop() => Err("stopped by a signal".into()),
    };
    if let Err(error) = result {
        verdict.broken.push(error.to_string());
    }
    verdict.took = began.elapsed();
    println!("{verdict}");
    if !verdict.is_good() {
        println!("{repeat}");
    }
    Ok(verdict.is_good())
}

#[cfg(unix)]
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn told_to_stop() {
    drop(tokio::signal::ctrl_c().await);
}

async fn rounds(
    options: &Options,
    built: &Built,
    network: Option<&Network>,
    began: Instant,
    verdict: &mut Verdict,
) -> Result<()> {
    let end = Duration::from_secs_f64(options.minutes * 60.0);
    let plan = Plan::new(options.seed, &DRIVERS, network.is_some());
    let mut command = network::platform(network, std::env::current_exe()?)?;
    command.args(["sandbox", network::platform_address(network)]);
    let sandbox = Sandbox::start(command, &plan.world()).await?;
    let mut drivers = Vec::new();
    for name in DRIVERS {
        let mut driver = Process::start(driver(built, network, name)?)?;
        driver
            .tell(&plan.options(name, &sandbox.base_url).to_string())
            .await?;
        drivers.push((name, driver));
    }
    while began.elapsed() < end {
        let mut all_answers = round(&plan, &sandbox, network, &mut drivers, verdict).await?;
        if options.lies && verdict.rounds == 0 {
            lie(&mut all_answers);
        }
        let state = sandbox.state().await?;
        for (((name, tally), (_, driver)), (script, answers)) in
            verdict.tallies.iter_mut().zip(&drivers).zip(all_answers)
        {
            tally.take(&script, &answers);
            tally.compare(name, &state);
            tally.samples.extend(driver.sample(tally.calls));
        }
        let count = |name: &str| state[name].as_u64().unwrap_or_default();
        (verdict.requests, verdict.over_limit) = (count("request_count"), count("over_limit"));
        verdict.rounds += 1;
        progress(verdict, began.elapsed());
    }
    for (name, driver) in drivers {
        driver.end().await.map_err(|error| format!("{name} {error}"))?;
    }
    Ok(())
}

/// Runs one round until no request is in progress. Returns the calls and results of each driver.
async fn round(
    plan: &Plan,
    sandbox: &Sandbox,
    network: Option<&Network>,
    drivers: &mut [(&'static str, Process)],
    verdict: &mut Verdict,
) -> Result<Vec<(plan::Script, Answers)>> {
    let faults = plan.faults(verdict.rounds);
    let steps: Vec<&Value> = faults.iter().map(|(_, fault)| fault).collect();
    sandbox.control(&json!({"do": "faults", "faults": steps})).await?;
    let playing = futures_util::future::try_join_all(drivers.iter_mut().map(async |(name, driver)| {
        let script = plan.script(name, verdict.rounds);
        match driver.play(&script).await {
            Ok(answers) => Ok((script, answers)),
            Err(error) => Err(format!("{name} {error}")),
        }
    }));
    let events = plan.events(verdict.rounds);
    let outage = network.zip(plan.outage(verdict.rounds));
    let (answers, happened, ()) = tokio::try_join!(
        async { Ok(playing.await?) },
        happen(sandbox, &events),
        interrupt(outage)
    )?;
    if let Some((network, outage)) = outage {
        verdict.note_outage(outage, &answers);
        network.settle().await?;
    }

    let left = sandbox.control(&json!({"do": "script"})).await?;
    count(&mut verdict.faults, &faults, &left);
    for name in happened {
        *verdict.faults.entry(name).or_default() += 1;
    }
    sandbox.control(&json!({"do": "clear_faults"})).await?;
    // By then, all requests that could still arrive have arrived.
    tokio::time::sleep(LATE_ARRIVAL).await;
    Ok(answers)
}

async fn happen(sandbox: &Sandbox, events: &[Event]) -> Result<Vec<&'static str>> {
    let began = tokio::time::Instant::now();
    let mut names = Vec::new();
    for event in events {
        tokio::time::sleep_until(began + event.at).await;
        sandbox.control(&event.control).await?;
        names.extend(match event.control["do"].as_str() {
            Some("pause_listening") => Some("listener stopped"),
            Some("close_connections") => Some("connections closed"),
            Some("revoke_tokens") => Some("all tokens revoked"),
            Some("advance") => Some("clock moved"),
            _ => None,
        });
    }
    Ok(names)
}

async fn interrupt(outage: Option<(&Network, Outage)>) -> Result<()> {
    let Some((network, outage)) = outage else {
        return Ok(());
    };
    tokio::time::sleep(outage.at).await;
    network.forward(false).await?;
    tokio::time::sleep(outage.length).await;
    network.forward(true).await
}

/// Counts the used steps of the fault script, by name. Steps are used in order, except those for token requests only. So
/// each remaining step is one of the original ones.
fn count(counts: &mut BTreeMap<&'static str, u64>, faults: &[Fault], left: &Value) {
    let mut left: Vec<Value> = left.as_array().cloned().unwrap_or_default();
    for (name, fault) in faults.iter().rev().filter(|(name, _)| !name.is_empty()) {
        // The sandbox returns steps with all fields.
        let is_it = |step: &Value| match fault.as_object() {
            Some(fields) => fields.iter().all(|(field, value)| step[field] == *value),
            None => false,
        };
        match left.iter().rposition(is_it) {
            Some(index) => drop(left.remove(index)),
            None => *counts.entry(name).or_default() += 1,
        }
    }
}

fn driver(built: &Built, network: Option<&Network>, name: &str) -> Result<Command> {
    let program = match name {
        "rust" => std::env::current_exe()?,
        "node" => "node".into(),
        _ => built.python.clone(),
    };
    let mut command = network::client(network, program)?;
    // Other hosts, such as the machine's proxy, cannot be reached from the namespace.
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    match name {
        "rust" => command.arg("drive"),
        "node" => command.arg("--expose-gc").arg(built.drivers.join("driver.mjs")),
        "python" => command.arg(built.drivers.join("driver.py")).arg("sync"),
        _ => command.arg(built.drivers.join("driver.py")).arg("async"),
    };
    Ok(command)
}

/// Changes results as a faulty library would: one has an unreached user as reached, one lacks a user, one is missing.
fn lie(all_answers: &mut [(plan::Script, Answers)]) {
    let mut lies = 0;
    for answer in all_answers
        .iter_mut()
        .flat_map(|(_, answers)| answers)
        .flatten()
        .flatten()
    {
        match (lies, answer.as_mut()) {
            (0, Some(said)) if !said.failed.is_empty() => said.reached.append(&mut said.failed),
            (1, Some(said)) if said.reached.len() > 1 => drop(said.reached.pop()),
            (2, Some(_)) => *answer = None,
            _ => continue,
        }
        lies += 1;
    }
}

fn progress(verdict: &Verdict, at: Duration) {
    let all = |count: fn(&Tally) -> u64| verdict.tallies.iter().map(|(_, tally)| count(tally)).sum::<u64>();
    println!(
        "{:>6.1} s  round {:>3}: {} calls, {} faults, {} amiss",
        at.as_secs_f64(),
        verdict.rounds,
        all(|tally| tally.calls),
        verdict.faults.values().sum::<u64>(),
        all(|tally| (tally.wrong.len() + tally.lost.len() + tally.hangs.len()) as u64),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_met_a_request_are_counted() {
        let plan = Plan::new(5, &DRIVERS, false);
        let faults = plan.faults(0);
        let named: u64 = faults.iter().filter(|(name, _)| !name.is_empty()).count() as u64;
        let stage = feishu_feed_card_sandbox::Stage::new(feishu_feed_card_sandbox::World::example());
        let steps: Vec<&Value> = faults.iter().map(|(_, fault)| fault).collect();
        let told = |control: &Value| stage.control_json(&control.to_string()).unwrap();
        told(&json!({"do": "faults", "faults": steps}));
        let left = || serde_json::from_str(&told(&json!({"do": "script"}))).unwrap();
        let mut counts = BTreeMap::new();
        count(&mut counts, &faults, &left());
        assert!(counts.is_empty(), "{counts:?}");
        stage.clear_faults();
        count(&mut counts, &faults, &left());
        assert_eq!(counts.values().sum::<u64>(), named);
        assert!(counts.len() > 10, "{counts:?}");
    }
}
