//! The platform never receives more calls than its limit, and the client uses the limit fully.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Interface, Stage, Switches};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{OnStage, Trip, USER, client, random, round_trip, stage, up_to};
use crate::stations::quota::Lane;
use crate::transport::{Answering, Outgoing, Sent, Transport};
use crate::{Client, ErrorKind, QuotaHandle, RateLimit, Request};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A broken transport that answers a request as soon as it is sent, before it has arrived. The client then frees
/// each slot one window after the sending.
struct AnswersWhenSent(Arc<OnStage>);

impl Transport for AnswersWhenSent {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        if request.url.path().contains("auth") {
            return self.0.send(request, sent);
        }
        let stage = self.0.clone();
        tokio::spawn(async move { stage.send(request, sent).await });
        Box::pin(async {
            Ok(http::Response::new(Bytes::from(
                r#"{"code":0,"msg":"success","data":{}}"#,
            )))
        })
    }
}

/// A broken transport that does not report that a request was sent. The client then frees a slot as soon as the
/// call is cancelled.
struct NeverReportsSent(Arc<OnStage>);

impl Transport for NeverReportsSent {
    fn send(&self, request: Outgoing, _sent: Sent) -> Answering<'_> {
        self.0.send(request, Sent::default())
    }
}

/// Makes calls with random latencies, losses, timeouts and cancellations. `wrap` may replace the correct transport
/// by a broken one. Returns the most arrivals in any second and in any minute.
async fn storm<T: Transport>(
    seed: u64,
    calls: usize,
    wrap: impl Fn(Arc<OnStage>) -> Arc<T>,
) -> (usize, usize) {
    let stage = stage(calls, Switches::unlimited());
    let mut random = random(seed);
    // Up to the default `late_arrival` of 5 s, beyond which the promise does not hold.
    let slowest = [0, 20, 300, 1500, 5000][random.usize(..5)];
    let slowest = Duration::from_millis(slowest);
    let losses = if random.bool() { 0.05 } else { 0.0 };
    let mut trips = random.fork();
    let wire = OnStage::new(&stage, move |request| {
        if request.uri().path().contains("auth") {
            return Trip::default();
        }
        Trip {
            there: up_to(&mut trips, slowest),
            back: up_to(&mut trips, slowest),
            breaks: trips.f64() < losses,
            late: up_to(&mut trips, slowest),
        }
    });
    let client = Client::builder()
        .app("cli_example", "example-secret")
        .transport(wrap(wire))
        .timeout(Duration::from_secs(600))
        .build()
        .unwrap();

    let mut running = JoinSet::new();
    for index in 0..calls {
        let client = client.clone();
        let patience = match random.u32(..10) {
            0 => up_to(&mut random, slowest * 2 + SECOND),
            1 => up_to(&mut random, slowest),
            _ => Duration::from_secs(600),
        };
        let cancels = random.bool();
        let pause = up_to(&mut random, Duration::from_millis(10));
        running.spawn(async move {
            let call = client.set_time_sensitive(format!("oc_{index}"), [USER], true);
            if cancels {
                let _ = timeout(patience, call.into_future()).await;
            } else {
                let _ = call.timeout(patience.max(Duration::from_millis(1))).await;
            }
        });
        tokio::time::sleep(pause).await;
    }
    running.join_all().await;
    most_arrivals(&stage)
}

/// The most arrivals in any second and in any minute.
fn most_arrivals(stage: &Stage) -> (usize, usize) {
    (
        stage.max_in_window(Interface::Group, SECOND),
        stage.max_in_window(Interface::Group, MINUTE),
    )
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(future)
}

#[test]
fn no_window_ever_sees_more_than_the_limit() {
    let mut busiest = (0, 0);
    for seed in 0..100 {
        let (second, minute) = paused(storm(seed, 1500, |transport| transport));
        assert!(
            second <= 50 && minute <= 1000,
            "seed {seed}: {second} in a second, {minute} in a minute"
        );
        busiest = (busiest.0.max(second), busiest.1.max(minute));
    }
    // The limits must be reached: a client that is merely slow would pass the checks above.
    assert_eq!(busiest, (50, 1000));
}

fn exceeds_the_limit<T: Transport>(wrap: fn(Arc<OnStage>) -> Arc<T>) -> bool {
    (0..100).any(|seed| {
        let (second, minute) = paused(storm(seed, 1500, wrap));
        second > 50 || minute > 1000
    })
}

#[test]
fn freeing_slots_from_the_sending_exceeds_the_limit() {
    assert!(exceeds_the_limit(|transport| Arc::new(AnswersWhenSent(
        transport
    ))));
}

#[test]
fn freeing_slots_of_cancelled_calls_at_once_exceeds_the_limit() {
    assert!(exceeds_the_limit(|transport| Arc::new(NeverReportsSent(
        transport
    ))));
}

/// Seconds that `calls` calls take, and the least that the limit allows.
fn pace(calls: usize, trips: impl FnMut(&http::Request<Bytes>) -> Trip + Send + 'static) -> (f64, f64) {
    let took = paused(async {
        let stage = stage(0, Switches::unlimited());
        let client = client(&stage, trips).build().unwrap();
        let began = Instant::now();
        let requests = (0..calls).map(|_| Request::new("oc_679eaeb583654bff73fefcc6e6371370", [USER], true));
        let mut many = client.set_time_sensitive_many(requests);
        let mut done = 0;
        while let Some(item) = many.next().await.transpose().unwrap() {
            assert!(item.result.unwrap().ok());
            done += 1;
        }
        assert_eq!(done, calls);
        let (second, minute) = most_arrivals(&stage);
        assert!(second <= 50 && minute <= 1000);
        began.elapsed()
    });
    let least = 60 * ((calls - 1) / 1000) + ((calls - 1) % 1000) / 50;
    (took.as_secs_f64(), f64::from(u32::try_from(least).unwrap()))
}

#[test]
fn the_limit_is_used_fully() {
    for calls in [3_000, 100_000] {
        let (took, least) = pace(calls, round_trip(Duration::from_millis(50)));
        println!(
            "{calls} calls, 50 ms round trips: {took:.2} s, {:.4} of the least",
            took / least
        );
        assert!(took <= 1.02 * least, "{took} s for at least {least} s");
    }
}

/// The arrival time of a request is unknown until its answer is there. So at most 50 requests may be unanswered or
/// answered less than a second ago, and no client that keeps the limit makes more than `50 / (mean + 1)` calls a
/// second, where `mean` is the mean round trip in seconds. For many calls the limit of a minute is nearly as tight,
/// for few calls it is not.
#[test]
fn slow_answers_cost_no_more_than_necessary() {
    let mean = 2.5;
    for (calls, most) in [(3_000, 1.6), (100_000, 1.2)] {
        let mut random = random(1);
        let slow = move |_: &http::Request<Bytes>| Trip {
            there: up_to(&mut random, Duration::from_millis(2500)),
            back: up_to(&mut random, Duration::from_millis(2500)),
            ..Trip::default()
        };
        let (took, least) = pace(calls, slow);
        let bound = f64::from(u32::try_from(calls).unwrap()) * (mean + 1.0) / 50.0;
        println!(
            "{calls} calls, 0 to 5 s round trips: {took:.2} s, {:.4} of the least, {:.4} of the bound",
            took / least,
            took / bound
        );
        assert!(took <= most * least, "{took} s for at least {least} s");
        assert!(took <= 1.03 * bound, "{took} s, where {bound} s are possible");
    }
}

/// A client with a limit of 2 calls a second and 4 a minute.
fn client_with_small_limit() -> (Stage, Client) {
    let stage = stage(0, Switches::unlimited());
    let limit = RateLimit::new(2, 4);
    let client = client(&stage, round_trip(Duration::from_millis(100))).rate_limit(limit);
    (stage, client.build().unwrap())
}

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";

#[tokio::test(start_paused = true)]
async fn a_call_without_a_slot_before_its_deadline_fails_at_once() {
    let (stage, client) = client_with_small_limit();
    for _ in 0..4 {
        assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
    }
    let before = Instant::now();
    let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(before.elapsed(), Duration::ZERO);
    let wait = error.retry_after().unwrap();
    assert!(
        wait > Duration::from_secs(58) && wait < Duration::from_secs(61),
        "{wait:?}"
    );
    assert_eq!(error.users().not_attempted, [USER]);
    assert_eq!(stage.request_count(), 5, "4 calls and a token");

    let outcome = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(wait + SECOND)
        .await
        .unwrap();
    assert!(outcome.ok());
}

#[tokio::test(start_paused = true)]
async fn the_estimated_wait_includes_the_calls_ahead_in_line() {
    let (_stage, client) = client_with_small_limit();
    let waiting = client.set_time_sensitive_many((0..8).map(|_| Request::new(CHAT, [USER], true)));
    let mut waiting = waiting.concurrency(8);
    let _first = waiting.next().await.unwrap();
    // Two calls are answered and six wait. The next call needs the 9th slot, two minutes from the start.
    let error = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(MINUTE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    let wait = error.retry_after().unwrap();
    assert!(wait > Duration::from_secs(119), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaves_the_line() {
    let (_stage, client) = client_with_small_limit();
    for _ in 0..2 {
        assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
    }
    let mut impatient = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        impatient.spawn(async move {
            let call = client
                .set_time_sensitive(CHAT, [USER], true)
                .timeout(MINUTE * 100);
            let _ = timeout(Duration::from_millis(100), call.into_future()).await;
        });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let patient = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(MINUTE * 100)
        .into_future();
    let before = Instant::now();
    assert!(patient.await.unwrap().ok());
    impatient.join_all().await;
    assert!(
        before.elapsed() < Duration::from_millis(1200),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_two_interfaces_have_separate_windows() {
    let (_stage, client) = client_with_small_limit();
    let before = Instant::now();
    for _ in 0..2 {
        assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
        assert!(client.set_bot_time_sensitive([USER], true).await.unwrap().ok());
    }
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn clients_that_share_a_quota_share_its_windows() {
    let stage = stage(0, Switches::unlimited());
    let first = client(&stage, round_trip(Duration::from_millis(10))).rate_limit(RateLimit::new(2, 100));
    let first = first.build().unwrap();
    let second = client(&stage, round_trip(Duration::from_millis(10))).quota(first.quota().unwrap());
    let second = second.build().unwrap();
    for index in 0..20 {
        let client = if index % 2 == 0 { &first } else { &second };
        assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
    }
    assert_eq!(stage.max_in_window(Interface::Group, SECOND), 2);
}

/// Several clients without a shared quota, like several processes of one app. The platform refuses calls above its
/// limit, but every call succeeds in the end.
fn assert_clients_share_the_limit(count: usize) {
    const CALLS: usize = 1500;
    let (refused, took) = paused(async {
        let stage = stage(0, Switches::default());
        let began = Instant::now();
        let mut running = JoinSet::new();
        for index in 0..count {
            let rtt = Duration::from_millis(30 + 20 * index as u64);
            let client = client(&stage, round_trip(rtt))
                .timeout(Duration::from_secs(600))
                .build()
                .unwrap();
            for _ in 0..CALLS {
                let client = client.clone();
                running.spawn(async move {
                    let outcome = client.set_time_sensitive(CHAT, [USER], true).await;
                    outcome.map(|outcome| assert!(outcome.ok()))
                });
            }
        }
        for result in running.join_all().await {
            result.unwrap();
        }
        let refused = stage
            .requests()
            .iter()
            .filter(|record| record.code == Some(99_991_400))
            .count();
        (refused, began.elapsed())
    });
    let most = 50 * (count - 1) + CALLS * count / 20;
    println!("{count} clients, {CALLS} calls each: {took:?}, {refused} refused of at most {most}");
    assert!(refused <= most, "{refused} refused, at most {most}");
}

#[test]
fn two_clients_share_the_limit() {
    assert_clients_share_the_limit(2);
}

#[test]
fn four_clients_share_the_limit() {
    assert_clients_share_the_limit(4);
}

/// A refusal by the frequency limit with these headers.
fn refusal(headers: &[(&'static str, &'static str)], times: u64) -> feishu_feed_card_sandbox::Fault {
    let headers = headers.iter().map(|(name, value)| {
        (
            http::HeaderName::from_static(name),
            http::HeaderValue::from_static(value),
        )
    });
    feishu_feed_card_sandbox::Fault {
        times,
        code: Some(99_991_400),
        headers: headers.collect(),
        ..feishu_feed_card_sandbox::Fault::on_call()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_zero_or_of_centuries_ends_the_call_after_its_retries() {
    for reset in ["0", "0.0", "0.001", "1e19", "1e400"] {
        for rate_limit in [None, Some(RateLimit::default())] {
            let stage = stage(0, Switches::unlimited());
            let client = client(&stage, round_trip(Duration::from_millis(1))).rate_limit(rate_limit);
            let client = client.build().unwrap();
            stage.fault(refusal(&[("x-ogw-ratelimit-reset", reset)], 0));
            let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::RateLimited);
            assert!(error.attempts() <= 4, "{reset}: {} attempts", error.attempts());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_call_raises_the_pace_and_a_refused_one_does_not() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)))
        .rate_limit(RateLimit::new(8, 1000))
        .build()
        .unwrap();
    let lane = client.core.lane(Lane::Chat).unwrap();
    stage.fault(refusal(&[("x-ogw-ratelimit-reset", "1")], 1));
    let mut waits = Vec::new();
    for _ in 0..2 {
        let outcome = client.set_time_sensitive(CHAT, [USER], true).await.unwrap();
        assert!(outcome.ok());
        waits.push(lane.estimate(0));
    }
    // The refusal halves the rate to 4 a second. The accepted retry raises it to 4.25.
    let expected = SECOND.div_f64(4.0).saturating_sub(SECOND.div_f64(4.25));
    assert_eq!(waits[0].saturating_sub(waits[1]), expected, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_reported_by_the_platform_applies_and_lapses() {
    for (limit, calls, least) in [("50", 100, 0), ("5", 100, 19), ("200", 390, 60)] {
        let stage = stage(0, Switches::unlimited());
        let client = client(&stage, round_trip(Duration::from_millis(1)));
        let client = client
            .rate_limit(RateLimit::new(25, 500))
            .timeout(Duration::from_secs(600))
            .build()
            .unwrap();
        stage.fault(refusal(
            &[("x-ogw-ratelimit-reset", "1"), ("x-ogw-ratelimit-limit", limit)],
            1,
        ));
        let pin = || client.set_time_sensitive(CHAT, [USER], true);
        assert!(pin().await.unwrap().ok());
        let requests = || (0..calls).map(|_| Request::new(CHAT, [USER], true));
        for lapsed in [false, true] {
            let began = Instant::now();
            let mut many = client.set_time_sensitive_many(requests());
            while let Some(item) = many.next().await.transpose().unwrap() {
                assert!(item.result.unwrap().ok());
            }
            let took = began.elapsed().as_secs();
            let least = if lapsed { 0 } else { least };
            assert!(
                (least..least + 40).contains(&took),
                "limit {limit}, lapsed {lapsed}: {took} s"
            );
            tokio::time::sleep(Duration::from_secs(700)).await;
        }
    }
}

#[test]
fn a_late_arrival_above_an_hour_is_refused() {
    let builder = || Client::builder().app("cli_example", "secret");
    for late in [Duration::MAX, Duration::from_secs(3601)] {
        let error = builder().late_arrival(late).build().unwrap_err();
        assert_eq!(error.field(), Some("late_arrival"));
    }
    assert!(builder().late_arrival(Duration::from_secs(3600)).build().is_ok());
}

/// Returns how long it takes to pause a line with this number of waiters three times and to let all of them leave.
async fn time_to_pause_and_leave(count: usize) -> Duration {
    let lane = QuotaHandle::new(RateLimit::new(1, 1)).lane(Lane::Chat);
    let slot = lane.take(None).await.unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..count {
        let lane = lane.clone();
        waiters.spawn(async move { timeout(MINUTE, lane.take(None)).await });
    }
    while lane.waiting() < count {
        tokio::task::yield_now().await;
    }
    let began = std::time::Instant::now();
    for _ in 0..3 {
        lane.pause(SECOND, None, slot.taken_at());
        tokio::time::sleep(SECOND).await;
    }
    while let Some(ended) = waiters.join_next().await {
        assert!(ended.unwrap().is_err(), "the only slot is in use");
    }
    assert_eq!(lane.waiting(), 0);
    began.elapsed()
}

/// 64,000 waiters take 1 s in a debug build. If each waiter scanned the line when it left or was paused, they would take
/// minutes. The limit is relative, so that it also holds on a busy machine: 16 times as many waiters would take 256 times
/// as long.
#[tokio::test(start_paused = true)]
async fn leaving_and_pausing_a_long_line_is_fast() {
    let (few, many) = (
        time_to_pause_and_leave(4_000).await,
        time_to_pause_and_leave(64_000).await,
    );
    assert!(many < 64 * few, "{few:?} and {many:?}");
}
