//! The conformance cases in `tests/`, on which all languages must agree.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

mod case;
mod compare;
mod play;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use case::{BrokenCase, Case};

/// Cases played at once. Each has a sandbox; more of them would make each case slower, and timeouts pass.
const AT_ONCE: usize = 8;

/// Limit of one case. A case takes 100 ms; this ends one that hangs.
const LONGEST: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_cases_hold() {
    let cases = case::all();
    let count = cases.len();
    let mut slowest = Vec::new();
    let mut failures = Vec::new();
    for (name, took, verdict) in play_all(cases).await {
        if let Err(failure) = verdict {
            failures.push(failure);
        }
        slowest.push((took, name));
    }
    slowest.sort();
    println!("{count} cases, the slowest:");
    for (took, name) in slowest.iter().rev().take(5) {
        println!("  {:4} ms  {name}", took.as_millis());
    }
    assert!(
        failures.is_empty(),
        "{} of {count} conformance cases fail:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_cases_fail() {
    let broken: Vec<BrokenCase> = case::read_file("broken.json");
    assert!(broken.len() >= 5);
    for BrokenCase { case, must_mention } in broken {
        let name = case["name"].as_str().unwrap_or_default().to_owned();
        let verdict = match serde_json::from_value::<Case>(case) {
            Err(error) => Err(format!("{name}: {error}")),
            Ok(case) => play(case).await,
        };
        let failure = verdict.expect_err(&format!("the broken case passes: {name}"));
        assert!(
            failure.contains(&name) && failure.contains(&must_mention),
            "the failure lacks the case's name or {must_mention:?}: {failure}"
        );
    }
}

async fn play_all(cases: Vec<Case>) -> Vec<(String, Duration, Result<(), String>)> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = JoinSet::new();
    for case in cases {
        let turns = turns.clone();
        playing.spawn(async move {
            let _turn = turns.acquire().await;
            let name = case.name.clone();
            let began = Instant::now();
            let verdict = play(case).await;
            (name, began.elapsed(), verdict)
        });
    }
    playing.join_all().await
}

async fn play(case: Case) -> Result<(), String> {
    let name = case.name.clone();
    match timeout(LONGEST, play::play(case)).await {
        Ok(verdict) => verdict.map_err(|failure| format!("{name}\n{failure}")),
        Err(_) => Err(format!("{name}\n  hangs: not done after {LONGEST:?}")),
    }
}
