//! Closing a client while calls wait at each of their stations.

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

/// Makes a call in a task.
fn set(client: &Client, state: bool) -> JoinHandle<Result<Outcome, Error>> {
    tokio::spawn(client.set_time_sensitive(CHAT, [USER], state).into_future())
}

/// Network conditions in which the answer to a call takes this long, and a token takes no time.
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

/// Closes the client with a timeout of two seconds while its call waits. Returns the call's error.
async fn close_during(client: Client, call: JoinHandle<Result<Outcome, Error>>) -> Error {
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
async fn a_closed_client_refuses_calls() {
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
async fn a_close_with_a_timeout_ends_when_the_last_call_ends() {
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
async fn a_timeout_of_zero_stops_calls_at_once() {
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
async fn a_stopped_call_without_an_answer_leaves_its_users_unknown() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let call = set(&client, true);
    let error = close_during(client, call).await;
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
    let error = close_during(client, call).await;
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
    let error = close_during(client, call).await;
    assert_eq!(error.station(), Some(Station::Quota));
    assert_eq!(error.users().not_attempted, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_an_opposite_one_is_stopped() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(20 * SECOND)).build().unwrap();
    let earlier = set(&client, true);
    let call = set(&client, false);
    let error = close_during(client, call).await;
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
    let error = close_during(client, call).await;
    assert_eq!(error.attempts(), 1);
    assert_eq!(error.users().unknown, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_split_call_accounts_for_each_part() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 25);
    let mut answered = 0;
    // The first request is answered at once, the later ones only after the close.
    let trips = move |request: &http::Request<bytes::Bytes>| {
        answered += usize::from(request.method() == "PATCH");
        Trip {
            back: if answered > 1 { 20 * SECOND } else { Duration::ZERO },
            ..Trip::default()
        }
    };
    let client = client(&stage, trips).max_users_per_request(1).build().unwrap();
    let call = client.set_time_sensitive("oc_full", &users, true).into_future();
    let error = close_during(client, tokio::spawn(call)).await;
    let users_of = error.users();
    assert_eq!((users_of.reached.len(), users_of.unknown.len()), (1, 10));
    assert_eq!(users_of.not_attempted, users[11..]);
    let mut all = [&users_of.reached[..], &users_of.unknown, &users_of.not_attempted].concat();
    all.sort_by_key(|user| users.iter().position(|other| other == user));
    assert_eq!(all, users);
    assert_eq!(error.outcome().unwrap().users.reached, users_of.reached);
}

/// As with a cancelled call, the request may still arrive.
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
    close_during(closed, call).await;
    let stopped_at = Instant::now();
    assert!(set(&other, true).await.unwrap().is_ok());
    assert_eq!(
        stopped_at.elapsed().as_secs(),
        6,
        "5 s of late_arrival, and a window of 1 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_stops_the_token_fetch_of_its_calls() {
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
    close_during(client, call).await;
    assert!(timeout(SECOND, dropped).await.unwrap().is_err());
}

fn pins(count: usize) -> Vec<Request> {
    vec![Request::new(CHAT, [USER], true); count]
}

#[tokio::test(start_paused = true)]
async fn a_close_stops_many_calls_and_they_read_no_more_requests() {
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

/// The loop must not end as if the whole input had been read.
#[tokio::test(start_paused = true)]
async fn many_calls_end_with_an_error_after_a_close() {
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
async fn many_calls_that_wait_for_input_end_with_the_close() {
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

/// The calls are in progress although nothing polls the stream during the close.
#[tokio::test(start_paused = true)]
async fn the_report_of_many_calls_lists_the_calls_that_the_close_stopped() {
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

/// The kind of each call's error, or `None` for a success.
async fn error_kinds(driver: &ManyDriver) -> Vec<Option<ErrorKind>> {
    let mut all = Vec::new();
    loop {
        let batch = driver.next_batch().await;
        if batch.is_end {
            return all;
        }
        let kinds = batch.items.into_iter().map(|item| {
            let error = item.result.err()?;
            Some(error.unwrap().kind())
        });
        all.extend(kinds);
    }
}

/// Requests that a binding pushed before the close count as in progress, even if the core's task has not started
/// them yet.
#[tokio::test(start_paused = true)]
async fn requests_pushed_before_the_close_finish() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(3 * SECOND)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    for request in pins(5) {
        driver.push(Ok(request));
    }
    let close = client.close();
    assert!(!driver.takes_more() && !driver.has_room());
    let late_index = driver.push(Ok(pins(1).remove(0)));
    let task = tokio::spawn(task);
    let began = Instant::now();
    close.await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    let mut kinds = error_kinds(&driver).await;
    kinds.sort_by_key(Option::is_some);
    assert_eq!(
        kinds,
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
        (late_index + 1, 5, 1)
    );
    assert!(report.unfinished.is_empty() && report.unread.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_close_after_the_end_of_the_input_is_no_error() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, slow_calls(3 * SECOND)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    driver.push(Ok(pins(1).remove(0)));
    driver.end_input();
    let task = tokio::spawn(task);
    yield_now().await;
    client.close().await;
    assert_eq!(error_kinds(&driver).await, [None]);
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
    assert!(timeout(SECOND, error_kinds(&driver)).await.unwrap().is_empty());
    assert!(driver.take_error().is_some());
    task.await.unwrap();
}
