//! Speed and CPU of calls.

use std::collections::BTreeMap;

use crate::callers::{CALLERS, Caller, Language, Places};
use crate::figures::Figures;
use crate::measure::{Process, Server, first_and_last_processor};
use crate::report::{Question, Row};
use crate::{Pace, Result, progress, question};

/// One cell of the measurements: a client with a number of concurrent calls.
#[derive(Default)]
struct Cell {
    rate: Figures,
    cpu: Figures,
    server: Figures,
}

/// Cells by client and number of concurrent calls.
type Cells = BTreeMap<(usize, &'static str), Cell>;

/// Numbers of concurrent calls; `many` is one bulk call.
const LOADS: [&str; 5] = ["1", "8", "50", "500", "many"];

/// Duration of one turn, in seconds.
const TURN: f64 = 0.3;

/// Duration of one turn in Rust. Its clients are so close to each other that changes in the machine's load would decide,
/// unless turns are shorter than these changes.
pub(crate) const TURN_IN_RUST: f64 = 0.05;

/// The calls of one client in its turns of one repetition.
#[derive(Clone, Default)]
struct Sum {
    made: u64,
    took: f64,
    cpu: f64,
    server: f64,
}

pub(crate) fn everyone(
    pace: &Pace,
    places: &Places,
    server: &Server,
    amiss: &mut Vec<String>,
) -> Result<Vec<Question>> {
    let mut cells = Cells::new();
    let (in_rust, others): (Vec<_>, Vec<_>) =
        (0..CALLERS.len()).partition(|index| CALLERS[*index].language == Language::Rust);
    // Client and server have one thread and one processor each. Otherwise the kernel's placement would decide.
    let (first, last) = first_and_last_processor()?;
    for round in 0..pace.repetitions {
        progress("calls in Rust", round, pace.repetitions);
        for in_flight in LOADS {
            // New processes for each repetition and load. The placement of a process's memory affects its speed, and so
            // does an earlier load: after 500 calls in flight, the allocator is slower with 50.
            let callers: Vec<_> = having(&in_rust, in_flight).collect();
            if callers.is_empty() {
                continue;
            }
            let server = Server::start_on(&last, places)?;
            let mut processes = start(&callers, places, &server, Some(&first))?;
            let mut take_turns = |seconds, turn, tag: &str| {
                let tag = format!("{tag}_{round}");
                one_load(in_flight, &mut processes, &server, (seconds, turn), &tag, amiss)
            };
            take_turns(0.15, 0.15, "warm")?;
            keep(&mut cells, take_turns(pace.seconds, TURN_IN_RUST, "rust")?);
        }
    }
    let mut processes = start(&others, places, server, None)?;
    // Warm-up: opens the connections and lets just-in-time compilers run.
    repetition(&mut processes, server, (0.3, 0.3), "warm", amiss)?;
    for round in 0..pace.repetitions {
        progress("calls", round, pace.repetitions);
        let tag = format!("{round}");
        let sums = repetition(&mut processes, server, (pace.seconds, TURN), &tag, amiss)?;
        keep(&mut cells, sums);
    }
    Ok(questions_of(&cells))
}

/// Those of the callers that are measured with this number of concurrent calls.
fn having(callers: &[usize], in_flight: &str) -> impl Iterator<Item = usize> {
    let measured = move |index: &usize| CALLERS[*index].in_flight.contains(&in_flight);
    callers.iter().copied().filter(measured)
}

fn start(
    callers: &[usize],
    places: &Places,
    server: &Server,
    processor: Option<&str>,
) -> Result<Vec<(usize, Process)>> {
    let start = |index: &usize| {
        let command = CALLERS[*index].command(places, &server.base_url, processor);
        Ok((*index, Process::start(command)?))
    };
    callers.iter().map(start).collect()
}

/// All clients make calls in turns, with each number of concurrent calls.
fn repetition(
    processes: &mut [(usize, Process)],
    server: &Server,
    (seconds, turn): (f64, f64),
    tag: &str,
    amiss: &mut Vec<String>,
) -> Result<BTreeMap<(usize, &'static str), Sum>> {
    let mut sums = BTreeMap::new();
    for in_flight in LOADS {
        sums.append(&mut one_load(
            in_flight,
            processes,
            server,
            (seconds, turn),
            tag,
            amiss,
        )?);
    }
    Ok(sums)
}

/// All clients make calls in turns, for a number of seconds with one number of concurrent calls.
fn one_load(
    in_flight: &'static str,
    processes: &mut [(usize, Process)],
    server: &Server,
    (seconds, turn): (f64, f64),
    tag: &str,
    amiss: &mut Vec<String>,
) -> Result<BTreeMap<(usize, &'static str), Sum>> {
    let mut sums = BTreeMap::<_, Sum>::new();
    // At the end of a turn, fewer calls are in flight. That must be a small part of the turn.
    let turn = if in_flight == "500" { 5.0 * turn } else { turn };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few")]
    let turns = (seconds / turn).round().max(1.0) as u32;
    for turn in 0..turns {
        let tag = format!("{tag}_{in_flight}_{turn}");
        for (index, process) in processes.iter_mut() {
            if CALLERS[*index].in_flight.contains(&in_flight) {
                let sum = sums.entry((*index, in_flight)).or_default();
                let words = format!("{in_flight} {} {index}_{tag}", seconds / f64::from(turns));
                sum.add(&CALLERS[*index], process, server, &words, amiss)?;
            }
        }
        processes.rotate_left(1);
    }
    Ok(sums)
}

impl Sum {
    fn add(
        &mut self,
        caller: &Caller,
        process: &mut Process,
        server: &Server,
        words: &str,
        amiss: &mut Vec<String>,
    ) -> Result<()> {
        let cpu = (process.cpu()?, server.process.cpu()?);
        process.tell(words)?;
        let said = process
            .line()
            .map_err(|error| format!("{}: {error}", caller.name))?;
        let (made, took) = said.split_once(' ').ok_or("no figures")?;
        let (made, took): (u64, f64) = (made.parse()?, took.parse()?);
        self.made += made;
        self.took += took;
        self.cpu += process.cpu()? - cpu.0;
        self.server += server.process.cpu()? - cpu.1;
        let counted = server.counts()?;
        if counted != (made, made) {
            amiss.push(format!(
                "{} at {words}: {made} calls, {} requests for {} chats",
                caller.name, counted.0, counted.1
            ));
        }
        Ok(())
    }
}

fn keep(cells: &mut Cells, sums: BTreeMap<(usize, &'static str), Sum>) {
    for (place, sum) in sums {
        let cell = cells.entry(place).or_default();
        #[allow(clippy::cast_precision_loss, reason = "calls of seconds")]
        let made = sum.made as f64;
        cell.rate.push(made / sum.took);
        cell.cpu.push(sum.cpu * 1e6 / made);
        cell.server.push(sum.server * 100.0 / sum.took);
    }
}

fn questions_of(cells: &Cells) -> Vec<Question> {
    let rows = |in_flight: &str, figures: fn(&Cell) -> Figures| -> Vec<Row> {
        cells
            .iter()
            .filter(|((_, at), _)| *at == in_flight)
            .map(|((index, _), cell)| Row {
                name: CALLERS[*index].name.to_owned(),
                figures: figures(cell),
                server: Some(cell.server.clone()),
            })
            .collect()
    };
    let rate = |cell: &Cell| cell.rate.clone();
    let cpu = |cell: &Cell| cell.cpu.clone();
    let latency = |cell: &Cell| cell.rate.each(|rate| 1e6 / rate);
    let (per_call, per_second) = ("µs of CPU a call", "calls a second");
    vec![
        question(
            "latency-1",
            "One call at a time",
            "µs a call",
            false,
            rows("1", latency),
        ),
        question(
            "cpu-1",
            "CPU, one call at a time",
            per_call,
            false,
            rows("1", cpu),
        ),
        question(
            "calls-8",
            "Eight threads, one call at a time in each",
            per_second,
            true,
            rows("8", rate),
        ),
        question(
            "calls-50",
            "50 calls in flight",
            per_second,
            true,
            rows("50", rate),
        ),
        question(
            "cpu-50",
            "CPU, 50 calls in flight",
            per_call,
            false,
            rows("50", cpu),
        ),
        question(
            "calls-500",
            "500 calls in flight",
            per_second,
            true,
            rows("500", rate),
        ),
        question(
            "cpu-500",
            "CPU, 500 calls in flight",
            per_call,
            false,
            rows("500", cpu),
        ),
        question(
            "bulk",
            "Many calls with one bulk call",
            per_second,
            true,
            rows("many", rate),
        ),
    ]
}
