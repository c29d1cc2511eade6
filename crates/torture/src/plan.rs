//! The plan of a seed: users, chats, calls and faults, with their times.

use std::time::Duration;

use fastrand::Rng;
use feishu_feed_card_sandbox::{App, Chat, Switches, World};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Lanes of one driver. Each has its own chats and users, so that the order of calls on them is known.
const LANES: usize = 24;
const CHATS_A_LANE: usize = 6;
const GROUPS_A_ROUND: usize = 12;
const PAIRS_A_LANE: usize = 50;

/// The `late_arrival` of the drivers' clients.
pub(crate) const LATE_ARRIVAL: Duration = Duration::from_secs(2);
/// The longest time after the end of its connection at which a scripted delay lets a request arrive. It is far below
/// [`LATE_ARRIVAL`], because a loaded machine also delivers late.
const LATEST_MS: u64 = 500;
/// The default deadline of a call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The `total_timeout` of many calls.
pub(crate) const MANY_TIMEOUT: Duration = Duration::from_secs(20);

const LONGEST_OUTAGE_MS: u64 = 20_000;

/// The quota: high enough for much traffic, low enough that calls are paced.
const PER_SECOND: u32 = 200;
const PER_MINUTE: u32 = 9000;

/// One call of a driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// `None` for the bot's own chat.
    pub(crate) chat: Option<String>,
    pub(crate) users: Vec<String>,
    pub(crate) state: bool,
    /// The call's own deadline.
    pub(crate) timeout_ms: Option<u64>,
    /// When the caller cancels the call, from its start.
    pub(crate) cancel_ms: Option<u64>,
}

/// Concurrent calls of one lane, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) calls: Vec<Call>,
    /// Made through `set_time_sensitive_many`.
    pub(crate) many: Option<Many>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Many {
    /// The number of results after which the loop is left.
    pub(crate) leave_after: Option<usize>,
}

/// The calls of a driver in one round: the groups of each lane, one after the other.
pub(crate) type Script = Vec<Vec<Group>>;

/// Events that do not depend on requests, with their times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) control: Value,
}

/// A fault, by the name under which it is counted.
pub(crate) type Fault = (&'static str, Value);

/// A time in which no packet passes between clients and platform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outage {
    pub(crate) at: Duration,
    pub(crate) length: Duration,
}

/// Faults that rounds with an outage do not have.
const NOT_WITH_AN_OUTAGE: [&str; 3] = [
    // An outage delays requests by nearly `LATE_ARRIVAL`. With a scripted delay in addition it may be more, and then no
    // client can keep the order.
    "late arrival",
    "long delay before",
    // The platform would refuse a request that arrives after its token was revoked, and hide its late arrival.
    "revoked token",
];

pub(crate) struct Plan {
    seed: u64,
    drivers: Vec<&'static str>,
    has_outages: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, drivers: &[&'static str], has_outages: bool) -> Self {
        Self {
            seed,
            drivers: drivers.to_vec(),
            has_outages,
        }
    }

    /// A separate random stream for each purpose, so that a change of one does not affect the others.
    fn rng(&self, purpose: &str, round: u64) -> Rng {
        let mut mixed = Rng::with_seed(self.seed).u64(..) ^ round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for byte in purpose.bytes() {
            mixed = Rng::with_seed(mixed ^ u64::from(byte)).u64(..);
        }
        Rng::with_seed(mixed)
    }

    pub(crate) fn world(&self) -> World {
        let pairs = if self.has_outages { PAIRS_A_LANE } else { 0 };
        let chats = self.drivers.iter().flat_map(|driver| {
            (0..LANES).flat_map(move |lane| {
                (0..CHATS_A_LANE).map(move |chat| {
                    let mut members = members(driver, lane);
                    members.extend((0..pairs).map(|pair| paired(driver, lane, pair)));
                    Chat::new(chat_id(driver, lane, chat), members)
                })
            })
        });
        let load = self
            .drivers
            .iter()
            .filter(|_| self.has_outages)
            .map(|driver| Chat::new(chat_id(driver, LANES, 0), members(driver, LANES)));
        World {
            apps: self
                .drivers
                .iter()
                .map(|driver| App::new(app_id(driver), "torture"))
                .collect(),
            chats: chats.chain(load).collect(),
            switches: Switches {
                per_second: Some(PER_SECOND),
                per_minute: Some(PER_MINUTE),
                keep_requests: 100,
                keep_arrivals: 100,
                ..Switches::default()
            },
            seed: Some(self.seed),
            ..World::default()
        }
    }

    /// The first line of a driver's input.
    pub(crate) fn options(&self, driver: &str, base_url: &str) -> Value {
        json!({
            "base_url": base_url,
            // Outages are between addresses that are not loopback.
            "allow_http": self.has_outages,
            "app_id": app_id(driver),
            "app_secret": "torture",
            "per_second": PER_SECOND,
            "per_minute": PER_MINUTE,
            "late_arrival_ms": millis(LATE_ARRIVAL),
            "timeout_ms": millis(TIMEOUT),
            "many_timeout_ms": millis(MANY_TIMEOUT),
            "max_users_per_request": 3,
        })
    }

    pub(crate) fn script(&self, driver: &str, round: u64) -> Script {
        let mut rng = self.rng(driver, round);
        let rng = &mut rng;
        let mut script: Script = (0..LANES)
            .map(|lane| (0..GROUPS_A_ROUND).map(|_| group(rng, driver, lane)).collect())
            .collect();
        if self.outage(round).is_some() {
            let mut rng = self.rng(&format!("{driver} during an outage"), round);
            for (lane, groups) in script.iter_mut().enumerate() {
                let calls = groups.iter_mut().flat_map(|group| &mut group.calls);
                let calls = calls.filter(|call| call.chat.is_some());
                for (index, call) in calls.enumerate() {
                    call.chat = Some(chat_id(driver, lane, index / 2 % CHATS_A_LANE));
                    call.users.push(paired(driver, lane, index / 2));
                    call.state = index % 2 == 0;
                    be_patient(&mut rng, call);
                }
            }
            script.push(load(driver));
        }
        script
    }

    /// One round in three has an outage, and takes longer than two others.
    pub(crate) fn outage(&self, round: u64) -> Option<Outage> {
        let mut rng = self.rng("outage", round);
        (self.has_outages && round % 3 == 1).then(|| Outage {
            at: Duration::from_millis(rng.u64(200..2000)),
            length: Duration::from_millis(rng.u64(2000..=LONGEST_OUTAGE_MS)),
        })
    }

    /// The fault script of a round: a few requests without a fault, then one with a fault, and so on.
    pub(crate) fn faults(&self, round: u64) -> Vec<Fault> {
        let mut rng = self.rng("faults", round);
        let rng = &mut rng;
        let calls = self.drivers.len() * LANES * GROUPS_A_ROUND * 3;
        let mut steps = Vec::new();
        let mut requests = 0;
        // Each of them pauses all calls of a client for a second or more, and slows them down for longer.
        let mut limits = rng.usize(1..=2);
        let has_outage = self.outage(round).is_some();
        while requests < calls {
            let pass = rng.usize(2..16);
            steps.push(("", json!({"times": pass})));
            let (name, fault) = fault(rng);
            if has_outage && NOT_WITH_AN_OUTAGE.contains(&name) {
                continue;
            }
            if name == "frequency limit" {
                if limits == 0 {
                    continue;
                }
                limits -= 1;
            }
            steps.push((name, fault));
            requests += pass + 1;
        }
        steps
    }

    /// The listener stops and comes back, connections are closed, tokens revoked, the platform's clock moves. None in a
    /// round with an outage.
    pub(crate) fn events(&self, round: u64) -> Vec<Event> {
        let mut rng = self.rng("events", round);
        let rng = &mut rng;
        let mut events = Vec::new();
        // These events would close the connections on which requests arrive late, or hide their arrival.
        if self.outage(round).is_some() {
            return events;
        }
        let mut at = 300;
        while at < 8000 {
            at += rng.u64(300..1500);
            let mut event = |at, control| {
                events.push(Event {
                    at: Duration::from_millis(at),
                    control,
                });
            };
            match rng.u8(0..5) {
                0 => {
                    event(at, json!({"do": "pause_listening"}));
                    event(at, json!({"do": "close_connections"}));
                    at += rng.u64(50..600);
                    event(at, json!({"do": "resume_listening"}));
                }
                1 => event(at, json!({"do": "close_connections"})),
                2 => event(at, json!({"do": "revoke_tokens"})),
                _ => {
                    let by = *one(rng, &[900, 60_000, 3_600_000, 7_200_000]);
                    event(at, json!({"do": "advance", "ms": by}));
                }
            }
        }
        events
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

fn one<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}

pub(crate) fn app_id(driver: &str) -> String {
    format!("cli_{driver}")
}

fn chat_id(driver: &str, lane: usize, chat: usize) -> String {
    format!("oc_{driver}_{lane}_{chat}")
}

fn members(driver: &str, lane: usize) -> Vec<String> {
    (0..5)
        .map(|person| format!("ou_{driver}_{lane}_{person}"))
        .collect()
}

/// In rounds with an outage, a pin and the next call, an unpin, have a separate user. If the pin is given up and
/// arrives after the unpin, no later call hides that.
fn paired(driver: &str, lane: usize, pair: usize) -> String {
    format!("ou_{driver}_{lane}_pair_{}", pair % PAIRS_A_LANE)
}

/// A user whom the platform knows, and who is in none of the lane's chats.
pub(crate) fn is_outsider(call: &Call, user: &str) -> bool {
    call.chat.is_some() && user.ends_with("_outsider")
}

fn group(rng: &mut Rng, driver: &str, lane: usize) -> Group {
    // All lanes of a client share the bot's chat, on which opposite calls wait for each other. So only one lane uses it:
    // otherwise they would wait for the whole round.
    let is_bot = lane == 0 && rng.u8(0..4) == 0;
    let many = (!is_bot && rng.u8(0..12) == 0).then(|| Many {
        leave_after: rng.bool().then(|| rng.usize(1..6)),
    });
    let calls = if many.is_some() {
        rng.usize(4..16)
    } else {
        rng.usize(1..5)
    };
    Group {
        calls: (0..calls)
            .map(|_| {
                let mut call = call(rng, driver, lane, is_bot);
                if many.is_some() {
                    call.cancel_ms = None;
                }
                call
            })
            .collect(),
        many,
    }
}

fn call(rng: &mut Rng, driver: &str, lane: usize, is_bot: bool) -> Call {
    let mut users = members(driver, lane);
    rng.shuffle(&mut users);
    users.truncate(rng.usize(1..=users.len()));
    if !is_bot && rng.u8(0..8) == 0 {
        users.push(format!("ou_{driver}_{lane}_outsider"));
    }
    // Repeated ids are sent once.
    if rng.u8(0..16) == 0 {
        users.push(users[0].clone());
    }
    Call {
        chat: (!is_bot).then(|| chat_id(driver, lane, rng.usize(..CHATS_A_LANE))),
        users,
        state: rng.bool(),
        timeout_ms: (rng.u8(0..10) == 0).then(|| rng.u64(20..800)),
        cancel_ms: (rng.u8(0..16) == 0).then(|| rng.u64(0..300)),
    }
}

/// A lane that uses up the quota in a round with an outage: a request that arrives later than the client assumes is then
/// one too many.
fn load(driver: &str) -> Vec<Group> {
    let call = Call {
        chat: Some(chat_id(driver, LANES, 0)),
        users: members(driver, LANES),
        state: true,
        timeout_ms: None,
        cancel_ms: None,
    };
    let group = Group {
        calls: vec![call; 150],
        many: Some(Many { leave_after: None }),
    };
    vec![group; 5]
}

/// In a round with an outage, some callers cancel their calls during it, and some wait until it is over.
fn be_patient(rng: &mut Rng, call: &mut Call) {
    if let Some(cancel) = &mut call.cancel_ms {
        *cancel = rng.u64(0..4000);
    }
    call.timeout_ms = match rng.u8(0..3) {
        0 => Some(rng.u64(100..4000)),
        // The client's.
        1 => None,
        _ => Some(LONGEST_OUTAGE_MS + 10_000),
    };
}

fn fault(rng: &mut Rng) -> Fault {
    let short = rng.u64(1..60);
    let long = rng.u64(60..400);
    let late = rng.u64(20..LATEST_MS);
    let after = rng.bool();
    let status = *one(rng, &[500, 502, 503, 504]);
    match rng.u8(0..18) {
        0 => ("delay before", json!({"delay_before_ms": short})),
        1 => ("delay after", json!({"delay_after_ms": short})),
        2 => (
            "long delay before",
            json!({"delay_before_ms": long, "detached": true}),
        ),
        3 => ("long delay after", json!({"delay_after_ms": long})),
        4 => (
            "late arrival",
            json!({"on": "call", "late_ms": late, "delay_before_ms": short}),
        ),
        5 => ("refused connection", json!({"refuse": true})),
        6 => ("reset before", json!({"reset": "before"})),
        7 | 8 => ("reset after", json!({"reset": "after"})),
        9 => (
            "5xx page",
            json!({"status": status, "html": true, "after": after}),
        ),
        10 => (
            "5xx without body",
            json!({"status": status, "body": "", "after": after}),
        ),
        11 => (
            "internal code",
            json!({"on": "call", "code": *one(rng, &[2200, 1500])}),
        ),
        12 => ("truncation", json!({"truncate": rng.usize(0..40)})),
        13 => ("revoked token", json!({"on": "call", "revoke_tokens": true})),
        14 => (
            "frequency limit",
            json!({"on": "call", "code": 99_991_400, "headers": {"x-ogw-ratelimit-reset": "1"}}),
        ),
        15 => (
            "large answer",
            json!({"big_body": 100_000, "no_content_length": after}),
        ),
        16 => (
            "token answer's expire",
            json!({"on": "token", "expire": *one(rng, &[json!(null), json!(60), json!(1900)])}),
        ),
        _ => (
            "token failure",
            one(
                rng,
                &[
                    json!({"on": "token", "status": 503, "html": true}),
                    json!({"on": "token", "reset": "after"}),
                    json!({"on": "token", "truncate": 10}),
                    json!({"on": "token", "delay_before_ms": 150}),
                ],
            )
            .clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: [&str; 2] = ["rust", "node"];

    #[test]
    fn a_seed_is_replayed() {
        let plan = |seed| Plan::new(seed, &DRIVERS, true);
        let all = |plan: &Plan, round| {
            (
                DRIVERS.map(|driver| plan.script(driver, round)),
                plan.faults(round),
                plan.events(round),
                plan.outage(round),
            )
        };
        assert_eq!(all(&plan(7), 4), all(&plan(7), 4));
        assert_eq!(all(&plan(7), 3), all(&plan(7), 3));
        assert_ne!(plan(7).faults(3), plan(7).faults(4));
        assert_ne!(plan(7).script("rust", 3), plan(8).script("rust", 3));
        assert_ne!(plan(7).events(3), plan(8).events(3));
    }

    #[test]
    fn the_sandbox_understands_every_fault_and_event() {
        let plan = Plan::new(1, &DRIVERS, true);
        for round in 0..20 {
            for (name, fault) in plan.faults(round) {
                let read = serde_json::from_value::<feishu_feed_card_sandbox::Fault>(fault.clone());
                assert!(read.is_ok(), "{name}: {fault}: {read:?}");
            }
            for event in plan.events(round) {
                let read = feishu_feed_card_sandbox::Control::from_json(&event.control.to_string());
                assert!(read.is_ok(), "{event:?}: {read:?}");
            }
        }
    }

    #[test]
    fn only_rounds_with_an_outage_are_different_with_outages() {
        let with = Plan::new(3, &DRIVERS, true);
        let without = Plan::new(3, &DRIVERS, false);
        let mut outages = 0;
        for round in 0..60 {
            assert_eq!(without.outage(round), None);
            let are_equal = with.script("rust", round) == without.script("rust", round)
                && with.faults(round) == without.faults(round)
                && with.events(round) == without.events(round);
            assert_eq!(are_equal, with.outage(round).is_none());
            if let Some(outage) = with.outage(round) {
                outages += 1;
                let seconds = outage.length.as_secs_f64();
                assert!((2.0..=20.0).contains(&seconds), "{outage:?}");
                let faults = with.faults(round);
                assert!(faults.iter().all(|(name, _)| !NOT_WITH_AN_OUTAGE.contains(name)));
            }
        }
        assert_eq!(outages, 20);
    }

    #[test]
    fn a_door_that_was_shut_is_opened_again() {
        let plan = Plan::new(2, &DRIVERS, true);
        for round in 0..50 {
            let mut is_open = true;
            for event in plan.events(round) {
                match event.control["do"].as_str() {
                    Some("pause_listening") => is_open = false,
                    Some("resume_listening") => is_open = true,
                    _ => {}
                }
            }
            assert!(is_open, "round {round}");
        }
    }
}
