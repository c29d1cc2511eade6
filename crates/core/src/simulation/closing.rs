//! A client that is closed while calls are at each of their stations.

use std::future::IntoFuture;
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Switches, World};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::{Trip, USER, client, fill_chat, round_trip, stage};
use crate::binding::many::{ManyDriver, ManyOptions};
use crate::{Client, Error, ErrorKind, Many, Outcome, RateLimit, Request, Station};

const CHAT: &str = World::EXAMPLE_CHAT;
const SECOND: Duration = Duration::from_secs(1);

/// Makes a call, which goes on by itself.
fn set(client: &Client, state: bool) -> JoinHandle<Result<Outcome, Error>> {
    tokio::spawn(client.set_time_sensitive(CHAT, [USER], state).into_future())
}

/// Answers to calls take this long; tokens come at once.
fn slow_calls(time: Duration) -> impl FnMut(&http::Request<bytes::Bytes>) -> Trip + Send {
    move |request| Trip {
        back: if request.method() == "PATCH" {
            time
        } else {
            Duration::ZERO
        },
        ..Trip::default()
    }
}

/// Closes the client with a timeout of two seconds while its call waits. Returns the error of the call.
async fn closed_during(client: Client, call: JoinHandle<Result<Outcome, Error>>) -> Error {
    sleep(SECOND).await;
    let began = Instant::now();
    client.close_within(2 * SECOND).await;
    assert_eq!(began.elapsed(), 2 * SECOND);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
    assert!(!error.retryable());
    error
}

#[tokio::test(start_paused = true)]
async fn calls_are_refused_from_the_close_on() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(SECOND)).build().unwrap();
    drop(client.clone().close());
    for call in [
        client.set_time_sensitive(CHAT, [USER, USER, ""], true),
        client.set_time_sensitive("no chat", [USER, ""], true),
        client.set_bot_time_sensitive([USER, ""], true),
    ] {
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ClientClosed);
        assert_eq!(error.users().not_attempted, [USER, ""]);
        assert_eq!((error.call(), error.attempts()), (None, 0));
    }
    let error = client.set_app_ticket("ticket").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert!(stage.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_timeout_waits_for_calls() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(10 * SECOND)).build().unwrap();
    let call = set(&client, true);
    yield_now().await;
    let began = Instant::now();
    tokio::join!(client.close(), client.clone().close());
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert!(call.await.unwrap().unwrap().ok());
    client.close().await;
    assert_eq!(began.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_close_with_a_timeout_ends_with_the_last_call() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(10 * SECOND)).build().unwrap();
    let call = set(&client, true);
    yield_now().await;
    let began = Instant::now();
    client.close_within(60 * SECOND).await;
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert!(call.await.unwrap().unwrap().ok());
}

#[tokio::test(start_paused = true)]
async fn a_zero_timeout_stops_at_once() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(10 * SECOND)).build().unwrap();
    let call = set(&client, true);
    sleep(SECOND).await;
    let began = Instant::now();
    client.close_within(Duration::ZERO).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), began.elapsed()),
        (ErrorKind::ClientClosed, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_without_its_answer_leaves_its_users_unknown() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let call = set(&client, true);
    let error = closed_during(client, call).await;
    assert_eq!(error.station(), Some(Station::Answer));
    assert_eq!(error.users().unknown, [USER]);
    assert_eq!(error.attempts(), 1);
    assert!(error.call().is_some());
    assert!(error.to_string().contains("waiting for the answer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_token_is_stopped() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(20 * SECOND)).build().unwrap();
    let call = set(&client, true);
    let error = closed_during(client, call).await;
    assert_eq!(error.station(), Some(Station::Token));
    assert_eq!(error.users().not_attempted, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_quota_is_stopped() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(SECOND / 100))
        .rate_limit(RateLimit::new(1, 1))
        .timeout(200 * SECOND)
        .build()
        .unwrap();
    assert!(set(&client, true).await.unwrap().is_ok());
    let call = set(&client, true);
    let error = closed_during(client, call).await;
    assert_eq!(error.station(), Some(Station::Quota));
    assert_eq!(error.users().not_attempted, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_an_opposite_one_is_stopped() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let earlier = set(&client, true);
    let call = set(&client, false);
    let error = closed_during(client, call).await;
    assert_eq!(error.station(), Some(Station::Order));
    assert_eq!(error.users().not_attempted, [USER]);
    assert_eq!(earlier.await.unwrap().unwrap_err().users().unknown, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_before_a_retry_is_stopped() {
    let stage = stage(0, Switches::unlimited());
    stage.faults([Fault {
        status: http::StatusCode::from_u16(503).ok(),
        html: true,
        headers: http::HeaderMap::from_iter([(
            http::header::RETRY_AFTER,
            http::HeaderValue::from_static("20"),
        )]),
        ..Fault::on_call()
    }]);
    let client = client(&stage, slow_calls(SECOND / 100)).build().unwrap();
    let call = set(&client, true);
    let error = closed_during(client, call).await;
    assert_eq!(error.attempts(), 1);
    assert_eq!(error.users().unknown, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_split_call_accounts_for_each_part() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 25);
    let mut answered = 0;
    // The first request has its answer, and the next ones have none.
    let trips = move |request: &http::Request<bytes::Bytes>| {
        answered += usize::from(request.method() == "PATCH");
        Trip {
            back: if answered > 1 { 20 * SECOND } else { Duration::ZERO },
            ..Trip::default()
        }
    };
    let client = client(&stage, trips).max_users_per_request(1).build().unwrap();
    let call = client.set_time_sensitive("oc_full", &users, true).into_future();
    let error = closed_during(client, tokio::spawn(call)).await;
    let of = error.users();
    assert_eq!((of.reached.len(), of.unknown.len()), (1, 10));
    assert_eq!(of.not_attempted, users[11..]);
    let mut all = [&of.reached[..], &of.unknown, &of.not_attempted].concat();
    all.sort_by_key(|user| users.iter().position(|other| other == user));
    assert_eq!(all, users);
    assert_eq!(error.outcome().unwrap().users.reached, of.reached);
}

/// As after a cancelled call: the request may still arrive.
#[tokio::test(start_paused = true)]
async fn a_stopped_request_keeps_its_slot_of_a_shared_quota() {
    let stage = stage(0, Switches::unlimited());
    let limit = RateLimit::new(1, 100);
    let closed = client(&stage, slow_calls(20 * SECOND))
        .rate_limit(limit)
        .build()
        .unwrap();
    let other = client(&stage, slow_calls(Duration::ZERO))
        .quota(closed.quota().unwrap())
        .build()
        .unwrap();
    let call = set(&closed, true);
    closed_during(closed, call).await;
    let stopped_at = Instant::now();
    assert!(set(&other, true).await.unwrap().is_ok());
    assert_eq!(
        stopped_at.elapsed().as_secs(),
        6,
        "the late arrival, and the window after it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_waits_for_is_fetched_no_longer() {
    let stage = stage(0, Switches::unlimited());
    let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
    let sender = std::sync::Mutex::new(Some(sender));
    let client = Client::builder()
        .transport(super::OnStage::new(&stage, round_trip(SECOND)))
        .token_provider(move || {
            let sender = sender.lock().unwrap().take();
            async move {
                std::future::pending::<()>().await;
                drop(sender);
                Err("never".into())
            }
        })
        .build()
        .unwrap();
    let call = set(&client, true);
    closed_during(client, call).await;
    assert!(timeout(SECOND, dropped).await.unwrap().is_err());
}

fn pins(count: usize) -> Vec<Request> {
    vec![Request::new(CHAT, [USER], true); count]
}

#[tokio::test(start_paused = true)]
async fn many_fail_with_the_close_and_read_no_more() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let endless = std::iter::repeat_with(|| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(endless).concurrency(3);
    assert!(timeout(SECOND, many.next()).await.is_err());
    let (items, ()) = tokio::join!(
        async {
            let mut items = Vec::new();
            while let Some(Ok(item)) = many.next().await {
                items.push(item.result.unwrap_err());
            }
            items
        },
        client.close_within(SECOND)
    );
    assert_eq!(items.len(), 3);
    for error in &items {
        assert_eq!(error.kind(), ErrorKind::ClientClosed);
        assert_eq!(error.users().unknown, [USER]);
    }
    let report = many.report().await;
    assert_eq!((report.taken, report.failed, report.unfinished.len()), (3, 3, 0));
    assert_eq!(report.not_read, None);
}

async fn next(many: &mut Many) -> Result<Outcome, Error> {
    many.next().await.unwrap().unwrap().result
}

/// The loop must not end as if all of the input had been read.
#[tokio::test(start_paused = true)]
async fn the_next_request_of_many_shows_the_close() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(SECOND)).build().unwrap();
    let mut many = client.set_time_sensitive_many(pins(10)).concurrency(3);
    assert!(next(&mut many).await.is_ok());
    let close = client.close();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(next(&mut many).await.err().map(|error| {
            assert_eq!(error.users().not_attempted, [USER]);
            error.kind()
        }));
    }
    kinds.sort_by_key(Option::is_some);
    assert_eq!(kinds, [None, None, Some(ErrorKind::ClientClosed)]);
    let error = many.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert!(many.next().await.is_none());
    assert_eq!(many.report().await.not_read, Some(6));
    close.await;
}

#[tokio::test(start_paused = true)]
async fn many_with_an_idle_input_end() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(SECOND / 10)).build().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let requests = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let mut many = client.set_time_sensitive_stream(requests);
    sender.send(pins(1).remove(0)).unwrap();
    assert!(next(&mut many).await.is_ok());
    let (end, ()) = tokio::join!(timeout(SECOND, many.next()), client.close());
    let error = end.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert!(sender.is_closed());
}

/// A handle that nobody polls has calls in progress nevertheless.
#[tokio::test(start_paused = true)]
async fn the_report_of_many_has_what_the_close_stopped() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let mut many = client.set_time_sensitive_many(pins(10)).concurrency(4);
    assert!(timeout(SECOND, many.next()).await.is_err());
    let began = Instant::now();
    client.close_within(SECOND).await;
    assert_eq!(began.elapsed(), SECOND);
    let report = many.report().await;
    assert_eq!(report.taken, 4);
    assert_eq!(report.unread.len() + report.unfinished.len(), 4);
    let users = report
        .unread
        .iter()
        .map(|item| item.result.as_ref().unwrap_err().users());
    let mut users = users.chain(report.unfinished.iter().map(|unfinished| &unfinished.users));
    assert!(users.all(|users| users.unknown == [USER]));
}

const OPTIONS: ManyOptions = ManyOptions {
    concurrency: 5,
    total_timeout: None,
    total: None,
};

async fn ends_of(driver: &ManyDriver) -> Vec<Option<ErrorKind>> {
    let mut ends = Vec::new();
    loop {
        let batch = driver.next_batch().await;
        if batch.is_end {
            return ends;
        }
        let kinds = batch.items.into_iter().map(|item| {
            let error = item.result.err()?;
            Some(error.unwrap().kind())
        });
        ends.extend(kinds);
    }
}

/// What a binding has read before the close counts as in progress, also if the core's task has not come to it.
#[tokio::test(start_paused = true)]
async fn requests_handed_over_before_the_close_go_on() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(3 * SECOND)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    for request in pins(5) {
        driver.push(Ok(request));
    }
    let close = client.close();
    assert!(!driver.takes_more() && !driver.has_room());
    let handed_late = driver.push(Ok(pins(1).remove(0)));
    let task = tokio::spawn(task);
    let began = Instant::now();
    close.await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    let mut ends = ends_of(&driver).await;
    ends.sort_by_key(Option::is_some);
    assert_eq!(
        ends,
        [None, None, None, None, None, Some(ErrorKind::ClientClosed)]
    );
    assert_eq!(
        driver.take_error().map(|error| error.kind()),
        Some(ErrorKind::ClientClosed)
    );
    task.await.unwrap();
    let report = driver.take_report();
    assert_eq!(
        (report.taken, report.succeeded, report.failed),
        (handed_late + 1, 5, 1)
    );
    assert!(report.unfinished.is_empty() && report.unread.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_input_that_had_ended_is_not_cut_by_the_close() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(3 * SECOND)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    driver.push(Ok(pins(1).remove(0)));
    driver.end_input();
    let task = tokio::spawn(task);
    yield_now().await;
    client.close().await;
    assert_eq!(ends_of(&driver).await, [None]);
    assert!(driver.take_error().is_none());
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_driver_ends_with_the_close() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(SECOND)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    let task = tokio::spawn(task);
    sleep(SECOND).await;
    client.close().await;
    assert!(timeout(SECOND, ends_of(&driver)).await.unwrap().is_empty());
    assert!(driver.take_error().is_some());
    task.await.unwrap();
}
