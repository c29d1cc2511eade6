//! One call against every fault that the sandbox can script, and against every ordered pair of faults.

use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, On, Switches, World};
use tokio::time::{Instant, sleep};

use super::{USER, client, round_trip, stage};
use crate::{ErrorKind, Station};

const CHAT: &str = World::EXAMPLE_CHAT;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A fault as JSON, and the kind of the call's error. `None` if a retry makes the call succeed.
type Row = (&'static str, Option<ErrorKind>);

#[rustfmt::skip]
const ON_BOTH: &[Row] = &[
    ("{}", None),
    (r#"{"delay_before_ms": 3000}"#, None),
    (r#"{"delay_after_ms": 3000}"#, None),
    (r#"{"refuse": true}"#, None),
    (r#"{"reset": "before"}"#, None),
    (r#"{"reset": "after"}"#, None),
    (r#"{"late_ms": 4000}"#, None),
    (r#"{"status": 502, "html": true}"#, None),
    (r#"{"status": 504, "html": true, "after": true}"#, None),
    (r#"{"status": 500, "body": ""}"#, None),
    (r#"{"code": 2200}"#, None),
    (r#"{"truncate": 7}"#, None),
    (r#"{"html": true}"#, Some(ErrorKind::UnexpectedResponse)),
    (r#"{"body": ""}"#, Some(ErrorKind::UnexpectedResponse)),
    (r#"{"status": 429, "html": true}"#, None),
    (r#"{"big_body": 1050000}"#, Some(ErrorKind::UnexpectedResponse)),
    (r#"{"no_content_length": true}"#, None),
    (r#"{"revoke_tokens": true}"#, None),
];

#[rustfmt::skip]
const ON_CALL: &[Row] = &[
    (r#"{"delay_before_ms": 60000}"#, Some(ErrorKind::DeadlineExceeded)),
    (r#"{"delay_after_ms": 60000}"#, Some(ErrorKind::DeadlineExceeded)),
    (r#"{"status": 403, "html": true}"#, Some(ErrorKind::UnexpectedResponse)),
    (r#"{"status": 302, "headers": {"location": "http://example.invalid/"}}"#, Some(ErrorKind::UnexpectedResponse)),
    (r#"{"code": 99991400}"#, None),
    (r#"{"code": 99991400, "headers": {"x-ogw-ratelimit-reset": "2"}}"#, None),
    (r#"{"code": 99991400, "headers": {"x-ogw-ratelimit-limit": "20", "retry-after": "3"}}"#, None),
    (r#"{"code": 99991400, "headers": {"x-ogw-ratelimit-reset": "45"}}"#, Some(ErrorKind::RateLimited)),
    (r#"{"code": 230020}"#, None),
    (r#"{"code": 99991403}"#, Some(ErrorKind::QuotaExhausted)),
    (r#"{"code": 230027}"#, Some(ErrorKind::PermissionDenied)),
    (r#"{"code": 230001}"#, Some(ErrorKind::Rejected)),
    (r#"{"code": 777}"#, Some(ErrorKind::Rejected)),
    (r#"{"code": 777, "status": 500}"#, None),
    (r#"{"code": 99991663, "revoke_tokens": true}"#, None),
];

#[rustfmt::skip]
const ON_TOKEN: &[Row] = &[
    // A token request is given up after 10 s and retried.
    (r#"{"delay_before_ms": 60000}"#, None),
    (r#"{"delay_after_ms": 60000}"#, None),
    // Not from the token endpoint itself: it reports errors with HTTP 200 (docs/platform.md#token-errors).
    (r#"{"status": 403, "html": true}"#, None),
    (r#"{"status": 302, "headers": {"location": "http://example.invalid/"}}"#, None),
    (r#"{"code": 10014}"#, Some(ErrorKind::Authentication)),
    (r#"{"code": 1000004}"#, None),
    (r#"{"expire": null}"#, None),
];

/// A [`Row`] whose fault is parsed and bound to one endpoint.
struct Case {
    text: &'static str,
    fault: Fault,
    kind: Option<ErrorKind>,
}

fn cases(on: On) -> Vec<Case> {
    let specific = if on == On::Call { ON_CALL } else { ON_TOKEN };
    let case = |(text, kind): &Row| {
        let fault: Fault = serde_json::from_str(text).unwrap();
        Case {
            text,
            fault: Fault { on, ..fault },
            kind: *kind,
        }
    };
    ON_BOTH.iter().chain(specific).map(case).collect()
}

async fn call_with(script: &[&Case]) -> Option<ErrorKind> {
    let names: Vec<_> = script.iter().map(|case| (case.fault.on, case.text)).collect();
    let stage = stage(0, Switches::default());
    stage.faults(script.iter().map(|case| case.fault.clone()));
    let client = client(&stage, round_trip(Duration::from_millis(20)))
        .timeout(TIMEOUT)
        .build()
        .unwrap();
    let began = Instant::now();
    let result = client.set_time_sensitive(CHAT, [USER], true).await;
    assert!(
        began.elapsed() <= TIMEOUT + Duration::from_millis(2),
        "{names:?} took {:?}",
        began.elapsed()
    );
    // Long enough for every late request to arrive.
    sleep(Duration::from_secs(120)).await;
    let is_pinned = stage.pinned(USER).contains(&CHAT.to_owned());
    match result {
        Ok(outcome) => {
            assert!(
                outcome.ok() && is_pinned,
                "{names:?}: reported as reached, but not pinned"
            );
            None
        }
        Err(error) => {
            let users = error.users();
            let listed = [
                &users.reached,
                &users.failed,
                &users.unknown,
                &users.not_attempted,
            ];
            assert_eq!(
                listed.iter().map(|ids| ids.len()).sum::<usize>(),
                1,
                "{names:?}: {users:?}"
            );
            assert!(users.reached.is_empty());
            if is_pinned {
                assert_eq!(users.unknown, [USER], "{names:?}: pinned, and {error}");
            }
            if error.attempts() == 0 || error.station() == Some(Station::Token) {
                assert!(users.unknown.is_empty(), "{names:?}: {error}");
            }
            Some(error.kind())
        }
    }
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(future)
}

#[test]
fn every_fault_alone() {
    for case in [On::Call, On::Token].into_iter().flat_map(cases) {
        assert_eq!(
            paused(call_with(&[&case])),
            case.kind,
            "{:?}: {}",
            case.fault.on,
            case.text
        );
    }
}

#[test]
fn every_ordered_pair() {
    let all: Vec<_> = [On::Token, On::Call].into_iter().flat_map(cases).collect();
    let refuses_token = |case: &Case| case.fault.on == On::Call && case.fault.revoke_tokens;
    let is_slow = |case: &Case| case.kind == Some(ErrorKind::DeadlineExceeded);
    for first in &all {
        for second in &all {
            let kind = paused(call_with(&[first, second]));
            let expected = if refuses_token(first) && refuses_token(second) {
                vec![Some(ErrorKind::Authentication)]
            } else {
                // The second fault applies only if the call sends another request after the first one.
                match (first.kind, second.kind) {
                    (None, second) => vec![None, second],
                    (first, None) => vec![first],
                    (first, second) => vec![first, second],
                }
            };
            let fits = expected.contains(&kind)
                || ((is_slow(first) || is_slow(second)) && kind == Some(ErrorKind::DeadlineExceeded));
            let [first, second] = [first, second].map(|case| (case.fault.on, case.text));
            assert!(
                fits,
                "{first:?}, then {second:?}: {kind:?} instead of {expected:?}"
            );
        }
    }
    println!("{} ordered pairs", all.len() * all.len());
}
