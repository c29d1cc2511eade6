//! Calls of opposite state on one chat keep their order, even if an answer is lost.

use std::future::IntoFuture;
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, On, Reset, Stage, Switches, World};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Trip, USER, client, random, round_trip, stage, up_to};
use crate::{Client, Error, ErrorKind, RateLimit, Station};

const CHAT: &str = World::EXAMPLE_CHAT;

async fn set(client: &Client, state: bool) -> Result<(), Error> {
    client
        .set_time_sensitive(CHAT, [USER], state)
        .await?
        .into_result()
        .map(drop)
}

fn is_pinned(stage: &Stage) -> bool {
    stage.pinned(USER).contains(&CHAT.to_owned())
}

/// The `time_sensitive` values of all calls that arrived, in the order of arrival.
fn arrived_states(stage: &Stage) -> Vec<bool> {
    let mut calls: Vec<_> = stage
        .requests()
        .into_iter()
        .filter(|record| record.method == "PATCH")
        .filter_map(|record| Some((record.arrived?, record.body["time_sensitive"].as_bool()?)))
        .collect();
    calls.sort_by_key(|(at, _)| *at);
    calls.into_iter().map(|(_, state)| state).collect()
}

#[tokio::test(start_paused = true)]
async fn opposite_calls_run_in_the_order_they_were_made() {
    for seed in 0..20 {
        let stage = stage(0, Switches::unlimited());
        let mut random = random(seed);
        let mut trips = random.fork();
        let client = client(&stage, move |_| Trip {
            there: up_to(&mut trips, Duration::from_secs(2)),
            back: up_to(&mut trips, Duration::from_secs(2)),
            ..Trip::default()
        });
        let client = client.timeout(Duration::from_secs(3600)).build().unwrap();
        let states: Vec<bool> = (0..60).map(|_| random.bool()).collect();
        let mut running = JoinSet::new();
        for state in &states {
            // The call is made here. Its task may run later, in any order.
            let call = client.set_time_sensitive(CHAT, [USER], *state).into_future();
            running.spawn(async move { call.await.map(|outcome| assert!(outcome.ok())) });
        }
        for result in running.join_all().await {
            result.unwrap();
        }
        assert_eq!(arrived_states(&stage), states, "seed {seed}");
        assert_eq!(is_pinned(&stage), states[59]);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_the_same_state_overlap() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_secs(1)))
        .build()
        .unwrap();
    set(&client, true).await.unwrap();
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        running.spawn(async move { set(&client, true).await });
    }
    for result in running.join_all().await {
        result.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn calls_on_other_chats_do_not_wait() {
    let stage = stage(1, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_secs(1)))
        .build()
        .unwrap();
    set(&client, true).await.unwrap();
    let began = Instant::now();
    let (pin, unpin) = tokio::join!(
        client.set_time_sensitive(CHAT, [USER], true).into_future(),
        client.set_time_sensitive("oc_0", [USER], false).into_future()
    );
    assert!(pin.unwrap().ok() && unpin.unwrap().ok());
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// The sandbox delivers the pin four seconds after it resets the connection.
#[tokio::test(start_paused = true)]
async fn a_pin_whose_answer_was_lost_cannot_land_after_the_unpin() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(20)))
        .max_retries(0)
        .build()
        .unwrap();
    stage.fault(Fault {
        late_ms: Some(4000),
        ..Fault::on_call()
    });
    let error = set(&client, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed);
    assert_eq!(error.users().unknown, [USER]);

    let began = Instant::now();
    set(&client, false).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(4));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(arrived_states(&stage), [true, false]);
    assert!(!is_pinned(&stage));
}

/// Responses that a gateway may send while the platform still processes the request.
const GATEWAY_RESPONSES: [&str; 9] = [
    r#"{"status": 200, "html": true}"#,
    r#"{"status": 302, "html": true}"#,
    r#"{"status": 403, "html": true}"#,
    r#"{"status": 404, "html": true}"#,
    r#"{"status": 408, "html": true}"#,
    r#"{"status": 429, "html": true}"#,
    r#"{"status": 504, "html": true}"#,
    r#"{"status": 400, "body": "{\"code\":400}"}"#,
    r#"{"status": 200, "body": "{\"code\":504}"}"#,
];

#[tokio::test(start_paused = true)]
async fn a_response_of_a_gateway_keeps_the_order_and_the_slot_like_a_missing_answer() {
    for page in GATEWAY_RESPONSES {
        let stage = stage(1, Switches::unlimited());
        let fault: Fault = serde_json::from_str(page).unwrap();
        stage.fault(Fault {
            on: On::Call,
            late_ms: Some(4000),
            ..fault
        });
        let client = client(&stage, round_trip(Duration::from_millis(20)))
            .max_retries(0)
            .rate_limit(RateLimit::new(1, 1000))
            .build()
            .unwrap();
        let error = set(&client, true).await.unwrap_err();
        assert_eq!(error.users().unknown, [USER], "{page}: {error}");

        // The slot stays taken for `late_arrival` and one window. After an answer it would be one window.
        let began = Instant::now();
        let call = client.set_time_sensitive("oc_0", [USER], true);
        assert!(call.await.unwrap().ok());
        assert!(
            began.elapsed() > Duration::from_secs(5),
            "{page}: {:?}",
            began.elapsed()
        );

        sleep(Duration::from_secs(60)).await;
        stage.fault(Fault {
            late_ms: Some(4000),
            ..serde_json::from_str(page).unwrap()
        });
        set(&client, true).await.unwrap_err();
        let began = Instant::now();
        set(&client, false).await.unwrap();
        assert!(
            began.elapsed() > Duration::from_secs(4),
            "{page}: {:?}",
            began.elapsed()
        );
        sleep(Duration::from_secs(60)).await;
        assert!(!is_pinned(&stage), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_platform_with_any_status_frees_the_slot_and_the_chat() {
    for status in [200, 400, 403, 404, 500] {
        let stage = stage(0, Switches::unlimited());
        stage.fault(Fault {
            code: Some(230_099),
            status: http::StatusCode::from_u16(status).ok(),
            ..Fault::on_call()
        });
        let client = client(&stage, round_trip(Duration::from_millis(20)))
            .max_retries(0)
            .rate_limit(RateLimit::new(1, 1000))
            .build()
            .unwrap();
        set(&client, true).await.unwrap_err();
        let began = Instant::now();
        set(&client, false).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{status}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_pin_cannot_land_after_the_unpin() {
    let stage = stage(0, Switches::unlimited());
    let slow = |_: &http::Request<bytes::Bytes>| Trip {
        there: Duration::from_millis(500),
        late: Duration::from_millis(4900),
        ..Trip::default()
    };
    let client = client(&stage, slow).build().unwrap();
    let _ = timeout(Duration::from_millis(700), set(&client, true)).await;
    set(&client, false).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(arrived_states(&stage), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_ends_before_the_opposite_call_begins() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(20)))
        .build()
        .unwrap();
    stage.fault(Fault {
        times: 2,
        reset: Some(Reset::After),
        ..Fault::on_call()
    });
    let (pin, unpin) = tokio::join!(set(&client, true), set(&client, false));
    pin.unwrap();
    unpin.unwrap();
    assert_eq!(arrived_states(&stage), [true, true, true, false]);
    assert!(!is_pinned(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_comes_after_its_deadline_fails_at_once() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(20)))
        .max_retries(0)
        .build()
        .unwrap();
    stage.fault(Fault {
        late_ms: Some(100),
        ..Fault::on_call()
    });
    assert!(set(&client, true).await.is_err());
    let began = Instant::now();
    let call = client
        .set_time_sensitive(CHAT, [USER], false)
        .timeout(Duration::from_secs(2));
    let error = call.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Order))
    );
    assert_eq!(error.users().not_attempted, [USER]);
    assert!(error.retry_after().unwrap() > Duration::from_secs(4));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_does_not_hold_up_the_next_one() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_secs(2)))
        .build()
        .unwrap();
    set(&client, true).await.unwrap();
    let pin = client.set_time_sensitive(CHAT, [USER], true).into_future();
    let unpin = client.set_time_sensitive(CHAT, [USER], false).into_future();
    let second = client.set_time_sensitive(CHAT, [USER], true).into_future();
    let began = Instant::now();
    drop(unpin);
    let (first, second) = tokio::join!(pin, second);
    assert!(first.unwrap().ok() && second.unwrap().ok());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "the second pin must run alongside the first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_chat_is_removed_when_none_of_its_requests_can_still_arrive() {
    let stage = stage(1000, Switches::unlimited());
    let mut random = random(3);
    let trips = move |_: &http::Request<bytes::Bytes>| Trip {
        breaks: random.bool(),
        ..Trip::default()
    };
    let client = client(&stage, trips).rate_limit(None).build().unwrap();
    for chat in 0..1000 {
        let _ = client
            .set_time_sensitive(format!("oc_{chat}"), [USER], true)
            .await;
    }
    assert!(client.core.order.chats_kept() > 0);
    sleep(Duration::from_secs(6)).await;
    set(&client, true).await.unwrap();
    assert_eq!(client.core.order.chats_kept(), 0);
}
