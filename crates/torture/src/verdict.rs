//! The verdict on a run: compares each result with the call and with the state of the sandbox, and checks memory and
//! descriptors.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Call, Group, MANY_TIMEOUT, Outage, Script, TIMEOUT, app_id, is_outsider};

/// How much longer than its deadline a call may take on a busy machine before it counts as hanging.
const GRACE: Duration = Duration::from_secs(5);

/// The least number of samples for a slope.
pub(crate) const FEWEST_SAMPLES: usize = 6;

/// Growth of memory for each call above which it is a leak, if the total is above the noise.
const MOST_BYTES_A_CALL: f64 = 100.0;
const MEMORY_NOISE_KIB: f64 = 6.0 * 1024.0;

/// Growth of descriptors above which it is a leak. Idle connections are closed again.
const MOST_DESCRIPTORS_A_THOUSAND_CALLS: f64 = 0.5;
const DESCRIPTOR_NOISE: f64 = 12.0;

/// The result of a call, from a driver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) reached: Vec<String>,
    pub(crate) failed: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) not_attempted: Vec<String>,
    /// The error's kind.
    pub(crate) kind: Option<String>,
    /// Whether the caller cancelled the call, so that it has no result.
    pub(crate) cancelled: bool,
    /// An exception that is not one of the package.
    pub(crate) foreign: Option<String>,
    pub(crate) took_ms: u64,
}

/// One result for each call of each group and lane; `null` if there is none.
pub(crate) type Answers = Vec<Vec<Vec<Option<Answer>>>>;

/// Kinds of errors that the faults may cause.
const KINDS: [&str; 6] = [
    "AUTHENTICATION",
    "RATE_LIMITED",
    "SERVER",
    "UNEXPECTED_RESPONSE",
    "CONNECTION",
    "TIMEOUT",
];

/// The kind in a driver's result for a request that was stopped because the driver left the loop.
pub(crate) const STOPPED: &str = "STOPPED";

/// Memory and descriptors of a driver between two rounds, when no request is in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) calls: u64,
    pub(crate) memory_kib: f64,
    pub(crate) descriptors: f64,
}

/// Counts of one driver.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) succeeded: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) cancelled: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) lost: Vec<String>,
    pub(crate) hangs: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    /// The possible states of each user's pin on each chat: unpinned, pinned.
    may_be: HashMap<(Option<String>, String), [bool; 2]>,
}

impl Tally {
    /// Adds the calls and results of a round.
    pub(crate) fn take(&mut self, script: &Script, answers: &Answers) {
        for (lane, groups) in script.iter().enumerate() {
            for (index, group) in groups.iter().enumerate() {
                let answers = answers.get(lane).and_then(|groups| groups.get(index));
                let answers = answers.map(Vec::as_slice).unwrap_or_default();
                if answers.len() > group.calls.len() {
                    self.lost.push(format!("more answers than calls: {answers:?}"));
                }
                for (place, call) in group.calls.iter().enumerate() {
                    self.calls += 1;
                    for user in &call.users {
                        let who = (call.chat.clone(), user.clone());
                        self.may_be.entry(who).or_insert([true, false]);
                    }
                    if let Some(answer) = answers.get(place).and_then(Option::as_ref) {
                        self.judge(group, call, answer);
                    } else {
                        self.lost.push(format!("no answer for {}", shown(call)));
                        self.note(call, &call.users, false);
                    }
                }
            }
        }
    }

    fn judge(&mut self, group: &Group, call: &Call, answer: &Answer) {
        let Answer {
            reached,
            failed,
            unknown,
            not_attempted,
            ..
        } = answer;
        let said = || {
            format!(
                "{}: {}",
                shown(call),
                serde_json::to_string(answer).unwrap_or_default()
            )
        };
        let most = match (&group.many, call.cancel_ms, call.timeout_ms) {
            (Some(_), ..) => MANY_TIMEOUT,
            (None, Some(cancel), _) if answer.cancelled => Duration::from_millis(cancel),
            (None, _, Some(own)) => Duration::from_millis(own),
            (None, _, None) => TIMEOUT,
        } + GRACE;
        if Duration::from_millis(answer.took_ms) > most {
            self.hangs.push(said());
        }
        if let Some(kind) = &answer.kind {
            *self.errors.entry(kind.clone()).or_default() += 1;
        } else if answer.cancelled {
            self.cancelled += 1;
        } else {
            self.succeeded += 1;
        }
        // The caller left the loop, or the deadline passed, for example in a long outage.
        let is_stopped = group.many.as_ref().is_some_and(|many| {
            many.leave_after.is_some() || Duration::from_millis(answer.took_ms) >= MANY_TIMEOUT
        });
        let is_odd_kind = answer
            .kind
            .as_deref()
            .is_some_and(|kind| !(KINDS.contains(&kind) || is_stopped && kind == STOPPED));
        if answer.foreign.is_some() || is_odd_kind || (answer.cancelled && call.cancel_ms.is_none()) {
            self.wrong.push(said());
        }
        if answer.cancelled || answer.foreign.is_some() {
            self.note(call, &call.users, false);
            return;
        }
        let mut handed_in = call.users.clone();
        handed_in.sort_unstable();
        handed_in.dedup();
        let mut came_back = [&reached[..], failed, unknown, not_attempted].concat();
        came_back.sort_unstable();
        if handed_in != came_back {
            self.lost.push(said());
        }
        let is_refused = |user: &&String| answer.kind.is_none() && !is_outsider(call, user);
        if reached.iter().any(|user| is_outsider(call, user)) || failed.iter().any(|user| is_refused(&user)) {
            self.wrong.push(said());
        }
        self.note(call, reached, true);
        self.note(call, unknown, false);
    }

    /// Users who were reached, or may have been reached.
    fn note(&mut self, call: &Call, users: &[String], is_sure: bool) {
        for user in users.iter().filter(|user| !is_outsider(call, user)) {
            let may_be = self
                .may_be
                .entry((call.chat.clone(), user.clone()))
                .or_insert([true, false]);
            if is_sure {
                *may_be = [false, false];
            }
            may_be[usize::from(call.state)] = true;
        }
    }

    /// Compares the possible states with those in the sandbox, when no request is in progress. Then only the actual
    /// states remain possible.
    pub(crate) fn compare(&mut self, driver: &str, state: &Value) {
        for ((chat, user), may_be) in &mut self.may_be {
            let pinned = match chat {
                Some(chat) => &state["pinned"][chat],
                None => &state["bot_pinned"][app_id(driver)],
            };
            let is_pinned = pinned
                .as_array()
                .is_some_and(|users| users.iter().any(|one| one == user));
            if !may_be[usize::from(is_pinned)] {
                let chat = chat.as_deref().unwrap_or("the bot's chat");
                self.wrong.push(format!(
                    "{user} on {chat}: pinned is {is_pinned}, and no call's answer allows that"
                ));
            }
            *may_be = [!is_pinned, is_pinned];
        }
    }

    /// Growth in KiB and descriptors for a thousand calls. `None` with too few samples.
    fn slopes(&self) -> Option<[f64; 2]> {
        let settled = self.settled();
        if settled.len() < FEWEST_SAMPLES {
            return None;
        }
        let slope = |value: fn(&Sample) -> f64| {
            let points = settled
                .iter()
                .map(|sample| (thousands(sample.calls), value(sample)));
            median_slope(&points.collect::<Vec<_>>())
        };
        Some([
            slope(|sample| sample.memory_kib),
            slope(|sample| sample.descriptors),
        ])
    }

    /// Caches and pools fill in the first third.
    fn settled(&self) -> &[Sample] {
        &self.samples[self.samples.len() / 3..]
    }

    fn leaks(&self) -> bool {
        let Some([memory, descriptors]) = self.slopes() else {
            return false;
        };
        let settled = self.settled();
        let calls =
            settled.last().map_or(0, |last| last.calls) - settled.first().map_or(0, |first| first.calls);
        let thousands = thousands(calls);
        (memory * 1024.0 / 1000.0 > MOST_BYTES_A_CALL && memory * thousands > MEMORY_NOISE_KIB)
            || (descriptors > MOST_DESCRIPTORS_A_THOUSAND_CALLS && descriptors * thousands > DESCRIPTOR_NOISE)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of calls stay far below 2^52")]
fn thousands(calls: u64) -> f64 {
    calls as f64 / 1000.0
}

/// The median of the slopes between all pairs of points, which outliers do not change.
fn median_slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(index, from)| {
            points[index + 1..]
                .iter()
                .map(move |to| (to.1 - from.1) / (to.0 - from.0))
        })
        .filter(|slope| slope.is_finite())
        .collect();
    slopes.sort_unstable_by(f64::total_cmp);
    match slopes.len() {
        0 => 0.0,
        count if count % 2 == 1 => slopes[count / 2],
        count => f64::midpoint(slopes[count / 2 - 1], slopes[count / 2]),
    }
}

fn shown(call: &Call) -> String {
    serde_json::to_string(call).unwrap_or_default()
}

/// The verdict on all drivers.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) rounds: u64,
    pub(crate) took: Duration,
    pub(crate) tallies: Vec<(&'static str, Tally)>,
    /// Steps of the fault script that met a request, by name, and events.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) outages: Outages,
    pub(crate) requests: u64,
    /// Calls that the sandbox refused because they exceeded the quota.
    pub(crate) over_limit: u64,
    /// Why the run ended before its time.
    pub(crate) broken: Vec<String>,
}

/// Single calls in rounds with an outage.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    /// Successful calls that took at least as long as the outage.
    survived: u64,
    /// Timeouts and cancellations.
    given_up: u64,
}

impl Verdict {
    pub(crate) fn note_outage(&mut self, outage: Outage, played: &[(Script, Answers)]) {
        *self.faults.entry("outage").or_default() += 1;
        let groups = played
            .iter()
            .flat_map(|(script, answers)| script.iter().flatten().zip(answers.iter().flatten()));
        for answer in groups
            .filter(|(group, _)| group.many.is_none())
            .flat_map(|(_, answers)| answers)
            .flatten()
        {
            let is_success = answer.kind.is_none() && answer.foreign.is_none() && !answer.cancelled;
            if is_success && Duration::from_millis(answer.took_ms) >= outage.length {
                self.outages.survived += 1;
            } else if answer.cancelled || answer.kind.as_deref() == Some("TIMEOUT") {
                self.outages.given_up += 1;
            }
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        let is_good = |tally: &Tally| {
            tally.wrong.is_empty() && tally.lost.is_empty() && tally.hangs.is_empty() && !tally.leaks()
        };
        let calls: u64 = self.tallies.iter().map(|(_, tally)| tally.calls).sum();
        let faults: u64 = self.faults.values().sum();
        // A run without calls or faults proves nothing.
        calls > 0
            && faults > 0
            && self.over_limit == 0
            && self.broken.is_empty()
            && self.tallies.iter().all(|(_, tally)| is_good(tally))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let mut notes = String::new();
        writeln!(
            f,
            "\n{:<14}{:>8}{:>10}{:>8}{:>10}{:>7}{:>6}{:>7}{:>16}{:>17}",
            "driver",
            "calls",
            "succeeded",
            "errors",
            "cancelled",
            "wrong",
            "lost",
            "hangs",
            "KiB/1000 calls",
            "fds/1000 calls"
        )?;
        for (driver, tally) in &self.tallies {
            let slopes = match tally.slopes() {
                Some([memory, descriptors]) => format!("{memory:>+16.1}{descriptors:>+17.2}"),
                None => format!("{:>16}{:>17}", "too few samples", ""),
            };
            let leaks = if tally.leaks() { "  leaks" } else { "" };
            writeln!(
                f,
                "{driver:<14}{:>8}{:>10}{:>8}{:>10}{:>7}{:>6}{:>7}{slopes}{leaks}",
                tally.calls,
                tally.succeeded,
                tally.errors.values().sum::<u64>(),
                tally.cancelled,
                tally.wrong.len(),
                tally.lost.len(),
                tally.hangs.len(),
            )?;
            if let (Some(first), Some(last)) = (tally.samples.first(), tally.samples.last()) {
                writeln!(
                    notes,
                    "{driver}: {:.1} MiB and {} descriptors after the first round, {:.1} MiB and {} after the last; errors: {}",
                    first.memory_kib / 1024.0,
                    first.descriptors,
                    last.memory_kib / 1024.0,
                    last.descriptors,
                    counts(tally.errors.iter().map(|(kind, count)| (kind.as_str(), *count))),
                )?;
            }
            for (what, cases) in [
                ("wrong", &tally.wrong),
                ("lost", &tally.lost),
                ("hang", &tally.hangs),
            ] {
                for case in cases.iter().take(SHOWN) {
                    writeln!(notes, "{driver}: {what}: {case}")?;
                }
            }
        }
        let sum =
            |count: fn(&Tally) -> usize| self.tallies.iter().map(|(_, tally)| count(tally)).sum::<usize>();
        write!(
            f,
            "\n{notes}\nfaults: {}\n",
            counts(self.faults.iter().map(|(name, count)| (*name, *count)))
        )?;
        if self.faults.contains_key("outage") {
            let Outages { survived, given_up } = self.outages;
            writeln!(
                f,
                "rounds with an outage: {survived} calls waited until it was over and succeeded, \
                 {given_up} timed out or were cancelled"
            )?;
        }
        for broken in &self.broken {
            writeln!(f, "broken: {broken}")?;
        }
        write!(
            f,
            "\nseed {}, {} rounds in {:.1} minutes: {} calls made, {} requests, {} faults injected, {} wrong outcomes, \
             {} lost, {} hangs, {} over the limit, {} leaks: {}",
            self.seed,
            self.rounds,
            self.took.as_secs_f64() / 60.0,
            self.tallies.iter().map(|(_, tally)| tally.calls).sum::<u64>(),
            self.requests,
            self.faults.values().sum::<u64>(),
            sum(|tally| tally.wrong.len()),
            sum(|tally| tally.lost.len()),
            sum(|tally| tally.hangs.len()),
            self.over_limit,
            self.tallies.iter().filter(|(_, tally)| tally.leaks()).count(),
            if self.is_good() { "held" } else { "BROKEN" },
        )
    }
}

fn counts<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<_> = counts.map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(state: bool, users: &[&str]) -> Call {
        Call {
            chat: Some("oc_1".to_owned()),
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            state,
            timeout_ms: None,
            cancel_ms: None,
        }
    }

    fn script(calls: &[Call]) -> Script {
        vec![vec![Group {
            calls: calls.to_vec(),
            many: None,
        }]]
    }

    fn answered(answers: &Value) -> Answers {
        serde_json::from_value(json!([[answers]])).unwrap()
    }

    /// The verdict on a round with these calls and results, and these users pinned at its end.
    fn verdict(calls: &[Call], answers: &Value, pinned: &Value) -> Verdict {
        let mut tally = Tally::default();
        tally.take(&script(calls), &answered(answers));
        tally.compare("rust", &json!({"pinned": {"oc_1": pinned}}));
        Verdict {
            faults: BTreeMap::from([("delay", 1)]),
            tallies: vec![("rust", tally)],
            ..Verdict::default()
        }
    }

    #[test]
    fn what_is_right_holds() {
        let pin = call(true, &["ou_1", "ou_2", "ou_x_outsider", "ou_1"]);
        let unpin = call(false, &["ou_1", "ou_2"]);
        let pinned = json!({"reached": ["ou_1", "ou_2"], "failed": ["ou_x_outsider"]});
        for (calls, answers, state) in [
            (vec![pin.clone()], json!([pinned]), json!(["ou_1", "ou_2"])),
            (
                vec![pin.clone(), unpin.clone()],
                json!([pinned, {"reached": ["ou_2", "ou_1"]}]),
                json!([]),
            ),
            // The user is unknown, so either state is right.
            (
                vec![pin.clone(), unpin.clone()],
                json!([pinned, {"kind": "TIMEOUT", "unknown": ["ou_1", "ou_2"]}]),
                json!(["ou_2"]),
            ),
            (
                vec![unpin.clone()],
                json!([{"kind": "SERVER", "failed": ["ou_1", "ou_2"]}]),
                json!([]),
            ),
        ] {
            let verdict = verdict(&calls, &answers, &state);
            assert!(verdict.is_good(), "{verdict}");
        }
        let cancelled = Call {
            cancel_ms: Some(5),
            ..pin
        };
        assert!(verdict(&[cancelled], &json!([{"cancelled": true}]), &json!(["ou_1"])).is_good());
    }

    #[test]
    fn every_lie_is_found() {
        let pin = call(true, &["ou_1"]);
        for (what, answer, pinned) in [
            ("said reached, was not", json!({"reached": ["ou_1"]}), json!([])),
            (
                "said not attempted, was",
                json!({"kind": "TIMEOUT", "not_attempted": ["ou_1"]}),
                json!(["ou_1"]),
            ),
            (
                "said failed, was reached",
                json!({"kind": "SERVER", "failed": ["ou_1"]}),
                json!(["ou_1"]),
            ),
            ("failed without an error", json!({"failed": ["ou_1"]}), json!([])),
            ("a user is missing", json!({}), json!([])),
            (
                "a user twice",
                json!({"reached": ["ou_1"], "unknown": ["ou_1"]}),
                json!(["ou_1"]),
            ),
            (
                "a stranger",
                json!({"reached": ["ou_1", "ou_2"]}),
                json!(["ou_1", "ou_2"]),
            ),
            ("no answer", json!(null), json!([])),
            ("an exception", json!({"foreign": "KeyError"}), json!([])),
            (
                "an error nothing explains",
                json!({"kind": "REJECTED", "failed": ["ou_1"]}),
                json!([]),
            ),
            ("cancelled by nobody", json!({"cancelled": true}), json!([])),
            (
                "a hang",
                json!({"reached": ["ou_1"], "took_ms": 15_001}),
                json!(["ou_1"]),
            ),
        ] {
            let verdict = verdict(std::slice::from_ref(&pin), &json!([answer]), &pinned);
            assert!(!verdict.is_good(), "{what}: {verdict}");
        }
        let outsider = call(true, &["ou_x_outsider"]);
        assert!(!verdict(&[outsider], &json!([{"reached": ["ou_x_outsider"]}]), &json!([])).is_good());
    }

    #[test]
    fn a_pin_that_lands_after_the_unpin_is_wrong() {
        let calls = [call(true, &["ou_1"]), call(false, &["ou_1"])];
        let answers = json!([{"kind": "TIMEOUT", "unknown": ["ou_1"]}, {"reached": ["ou_1"]}]);
        assert!(verdict(&calls, &answers, &json!([])).is_good());
        assert!(!verdict(&calls, &answers, &json!(["ou_1"])).is_good());
    }

    #[test]
    fn nothing_proves_nothing() {
        assert!(!Verdict::default().is_good());
        let mut verdict = verdict(
            &[call(true, &["ou_1"])],
            &json!([{"reached": ["ou_1"]}]),
            &json!(["ou_1"]),
        );
        assert!(verdict.is_good());
        verdict.over_limit = 1;
        assert!(!verdict.is_good());
        verdict.over_limit = 0;
        verdict.broken.push("node ended".to_owned());
        assert!(!verdict.is_good());
    }

    fn with_samples(memory_kib: impl Fn(u32) -> f64, descriptors: impl Fn(u32) -> f64) -> Tally {
        Tally {
            samples: (0..30)
                .map(|round| Sample {
                    calls: u64::from(round) * 1000,
                    memory_kib: memory_kib(round),
                    descriptors: descriptors(round),
                })
                .collect(),
            ..Tally::default()
        }
    }

    #[test]
    fn leaks_are_told_from_noise() {
        let flat = |_| 40.0;
        let noise = |round: u32| {
            if round.is_multiple_of(2) {
                30_000.0
            } else {
                33_000.0
            }
        };
        let warming = |round: u32| 30_000.0 + 20_000.0 * f64::from(round.min(8)) / 8.0;
        assert!(!with_samples(noise, flat).leaks());
        assert!(
            !with_samples(warming, flat).leaks(),
            "what fills in the first third is no leak"
        );
        assert!(with_samples(|round| noise(round) + 500.0 * f64::from(round), flat).leaks());
        assert!(with_samples(noise, |round| 40.0 + f64::from(round)).leaks());
        let mut few = with_samples(|round| 9000.0 * f64::from(round), flat);
        few.samples.truncate(FEWEST_SAMPLES);
        assert!(!few.leaks(), "too few samples tell nothing");
    }

    #[test]
    fn a_slope_is_the_median_of_all() {
        assert!((median_slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
        assert!((median_slope(&[(0.0, 1.0), (1.0, 1.0), (2.0, 900.0), (3.0, 1.0), (4.0, 1.0)])).abs() < 1e-9);
        assert!(median_slope(&[]).abs() < 1e-9);
    }
}
