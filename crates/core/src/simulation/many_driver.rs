//! Many calls made by a binding, which pushes requests and takes results in batches: every request is accounted for.

use std::time::Duration;

use feishu_feed_card_sandbox::{Switches, World};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::{Trip, USER, client, round_trip, stage, up_to};
use crate::binding::many::{Batch, ManyDriver, ManyItem, ManyOptions, ManyReport, concurrency};
use crate::binding::{invalid_input, not_attempted};
use crate::{Client, ErrorKind, Progress, RateLimit, Request, Station};

const CHAT: &str = World::EXAMPLE_CHAT;

const OPTIONS: ManyOptions = ManyOptions {
    concurrency: 100,
    total_timeout: None,
    total: None,
};

fn pin() -> Request {
    Request::new(CHAT, [USER], true)
}

fn start(client: &Client, options: ManyOptions) -> (ManyDriver, JoinHandle<()>) {
    let (driver, task) = ManyDriver::new(client, options);
    (driver, tokio::spawn(task))
}

/// A client without a rate limit, on a stage with this round trip time.
fn unpaced(rtt: Duration) -> Client {
    let stage = stage(0, Switches::unlimited());
    client(&stage, round_trip(rtt)).rate_limit(None).build().unwrap()
}

/// All results up to the end.
async fn remaining_items(driver: &ManyDriver) -> Vec<ManyItem> {
    let mut items = Vec::new();
    loop {
        let batch = driver.next_batch().await;
        if batch.is_end {
            return items;
        }
        items.extend(batch.items);
    }
}

fn indices(items: &[ManyItem]) -> Vec<usize> {
    items.iter().map(|item| item.index).collect()
}

/// Asserts that each pushed request is accounted for once: in a batch (`items`) or in the report.
fn assert_accounts_for_all(report: &ManyReport, items: &[ManyItem]) {
    let mut all = indices(items);
    all.extend(indices(&report.unread));
    all.extend(report.unfinished.iter().map(|unfinished| unfinished.index));
    all.sort_unstable();
    assert_eq!(all, (0..report.taken).collect::<Vec<_>>());
    assert_eq!(
        report.taken,
        report.succeeded + report.failed + report.unfinished.len()
    );
}

#[tokio::test(start_paused = true)]
async fn each_pushed_request_has_one_result() {
    const REQUESTS: usize = 10_000;
    let stage = stage(0, Switches::unlimited());
    let mut random = super::random(3);
    let wire = move |_: &http::Request<bytes::Bytes>| Trip {
        back: up_to(&mut random, Duration::from_millis(30)),
        ..Trip::default()
    };
    let client = client(&stage, wire).rate_limit(None).build().unwrap();
    let options = ManyOptions {
        total: Some(REQUESTS),
        ..OPTIONS
    };
    let (driver, task) = start(&client, options);
    let mut items = Vec::new();
    let mut pushed = 0;
    loop {
        while pushed < REQUESTS && driver.has_room() {
            let request = match pushed % 10 {
                3 => Err(None),
                5 => Err(Some(not_attempted(
                    invalid_input("timeout", "-1", "more"),
                    vec![USER.to_owned()],
                ))),
                7 => Ok(Request::new("no chat", [USER], true)),
                _ => Ok(pin()),
            };
            assert_eq!(driver.push(request), pushed);
            pushed += 1;
            assert!(
                pushed - items.len() <= 100,
                "has_room() allows more requests than `concurrency`"
            );
        }
        if pushed == REQUESTS {
            driver.end_input();
        }
        let batch = driver.next_batch().await;
        assert!(batch.items.len() <= 64);
        if batch.is_end {
            break;
        }
        items.extend(batch.items);
    }
    for item in &items {
        match (item.index % 10, &item.result) {
            (3, Err(None)) => assert_eq!(item.users, 0),
            (5, Err(Some(error))) => assert_eq!((error.field(), item.users), (Some("timeout"), 1)),
            (7, Err(Some(error))) => assert_eq!((error.field(), item.users), (Some("feed_card_id"), 1)),
            (_, Ok(outcome)) => assert_eq!(
                (&outcome.users.reached[..], item.users),
                (&[USER.to_owned()][..], 1)
            ),
            (_, other) => panic!("{}: {other:?}", item.index),
        }
    }
    let progress = driver.progress();
    assert_eq!((progress.done, progress.failed), (REQUESTS, REQUESTS * 3 / 10));
    assert_eq!(
        (progress.total, progress.eta),
        (Some(REQUESTS), Some(Duration::ZERO))
    );
    let report = driver.take_report();
    assert_eq!((report.taken, report.failed), (REQUESTS, REQUESTS * 3 / 10));
    assert_accounts_for_all(&report, &items);
    assert!(driver.next_batch().await.is_end, "the end is repeated");
    task.await.unwrap();
}

/// A result waits up to 2 ms for others, so that one batch has several. It does not wait if no other request is in
/// progress.
#[tokio::test(start_paused = true)]
async fn results_are_collected_into_batches() {
    let stage = stage(0, Switches::unlimited());
    let mut trips = 0;
    let wire = move |request: &http::Request<bytes::Bytes>| {
        trips += u32::from(request.method() == http::Method::PATCH);
        let back = match trips {
            1..=3 => 10 + trips,
            4..=103 => 50,
            104 => 1000,
            _ => 0,
        };
        Trip {
            back: Duration::from_millis(back.into()),
            ..Trip::default()
        }
    };
    let client = client(&stage, wire).rate_limit(None).build().unwrap();
    let (driver, _task) = start(&client, OPTIONS);
    let next = async || {
        let began = Instant::now();
        let batch = driver.next_batch().await;
        (batch.items.len(), began.elapsed().as_millis())
    };
    for _ in 0..4 {
        driver.push(Ok(pin()));
    }
    let (first, after) = next().await;
    assert!(
        first >= 2 && (12..=14).contains(&after),
        "{first} after {after} ms"
    );
    sleep(Duration::from_millis(100)).await;
    let rest = driver.take_batch().items.len();
    assert_eq!(first + rest, 4, "take_batch() returns results without waiting");

    for _ in 0..100 {
        driver.push(Ok(pin()));
    }
    let (first, after) = next().await;
    assert!(
        first >= 25 && (50..=51).contains(&after),
        "{first} after {after} ms"
    );
    sleep(Duration::from_millis(10)).await;
    let rest: usize = [driver.take_batch(), driver.take_batch()]
        .iter()
        .map(|batch| batch.items.len())
        .sum();
    assert_eq!(first + rest, 99, "the last one takes a second");
    assert!(!driver.is_ready());
    let (last, after) = next().await;
    assert!(last == 1 && after < 1000, "{last} after {after} ms");
}

#[tokio::test(start_paused = true)]
async fn progress_is_announced_while_no_result_arrives() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)));
    let client = client.rate_limit(RateLimit::new(100, 2)).build().unwrap();
    let options = ManyOptions {
        total: Some(4),
        ..OPTIONS
    };
    let (driver, _task) = start(&client, options);
    assert_eq!(
        driver.new_progress().map(|progress| progress.total),
        Some(Some(4))
    );
    assert_eq!(driver.new_progress(), None);
    driver.push(Err(None));
    for _ in 0..3 {
        driver.push(Ok(pin()));
    }
    driver.end_input();
    let mut done = 0;
    while done < 3 {
        done += driver.next_batch().await.items.len();
    }
    let progress: Progress = driver.new_progress().unwrap();
    assert_eq!(
        (progress.done, progress.failed, progress.waiting_for_quota),
        (3, 1, 1)
    );
    assert!(progress.eta.unwrap() > Duration::from_secs(50));
    for _ in 0..5 {
        let began = Instant::now();
        let Batch { items, is_end } = driver.next_batch().await;
        assert!(items.is_empty() && !is_end);
        assert_eq!(began.elapsed().as_secs(), 2);
        let later = driver.new_progress().unwrap();
        assert_eq!(later.done, 3);
        assert!(later.eta < progress.eta);
    }
    assert_eq!(remaining_items(&driver).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_pushed_after_the_total_timeout_fail() {
    let client = unpaced(Duration::from_millis(10));
    let options = ManyOptions {
        total_timeout: Some(Duration::from_secs(1)),
        ..OPTIONS
    };
    let (driver, _task) = start(&client, options);
    driver.push(Ok(pin()));
    assert_eq!(indices(&driver.next_batch().await.items), [0]);
    sleep(Duration::from_secs(2)).await;
    assert!(!driver.takes_more() && !driver.has_room());
    driver.push(Ok(Request::new(CHAT, [USER, USER], true)));
    driver.push(Err(None));
    let late = remaining_items(&driver).await;
    assert_eq!(indices(&late), [1, 2]);
    let error = driver.take_error().unwrap();
    assert!(error.hint().unwrap().contains("from index 3 on"), "{error}");
    assert!(driver.take_error().is_none(), "the error comes once");
    let error = late[0].result.as_ref().unwrap_err().as_ref().unwrap();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Quota))
    );
    assert_eq!(error.users().not_attempted, [USER]);
    assert_eq!(late[0].users, 2);
    assert!(late[1].result.as_ref().unwrap_err().is_none());
    let progress = driver.progress();
    assert_eq!((progress.done, progress.failed), (3, 2));
    let report = driver.take_report();
    assert_eq!((report.taken, report.succeeded, report.failed), (3, 1, 2));
}

/// With a concurrency of 1, two of three requests are still in the queue when `total_timeout` passes.
#[tokio::test(start_paused = true)]
async fn queued_requests_fail_when_the_total_timeout_passes() {
    let stage = stage(0, Switches::unlimited());
    let wire = |request: &http::Request<bytes::Bytes>| Trip {
        back: Duration::from_secs(if request.method() == http::Method::PATCH {
            60
        } else {
            0
        }),
        ..Trip::default()
    };
    let client = client(&stage, wire).rate_limit(None).build().unwrap();
    let options = ManyOptions {
        total_timeout: Some(Duration::from_secs(1)),
        concurrency: 1,
        ..OPTIONS
    };
    let (driver, _task) = start(&client, options);
    for _ in 0..3 {
        driver.push(Ok(pin()));
    }
    let mut items = remaining_items(&driver).await;
    items.sort_by_key(|item| item.index);
    assert_eq!(indices(&items), [0, 1, 2]);
    for (item, unknown) in items.iter().zip([1, 0, 0]) {
        let error = item.result.as_ref().unwrap_err().as_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        let users = error.users();
        assert_eq!(
            (users.unknown.len(), users.not_attempted.len()),
            (unknown, 1 - unknown)
        );
    }
    assert_accounts_for_all(&driver.take_report(), &items);
}

/// `total_timeout` leaves time for one slot only.
#[tokio::test(start_paused = true)]
async fn the_error_at_the_end_says_how_many_requests_were_not_read() {
    /// The total, an action after `total_timeout`, a part of the error's message, and the number of requests that
    /// were not read.
    type Case = (
        Option<usize>,
        fn(&ManyDriver),
        Option<&'static str>,
        Option<usize>,
    );

    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)));
    let client = client.rate_limit(RateLimit::new(1, 100)).build().unwrap();
    let cases: [Case; 6] = [
        (Some(5), |_| {}, Some("3 of 5 requests were not read"), Some(3)),
        (Some(3), |_| {}, Some("1 of 3 requests was not read"), Some(1)),
        (
            None,
            |_| {},
            Some("the number of unread requests is unknown"),
            None,
        ),
        // All requests were read. The input may end before or after `total_timeout`.
        (Some(2), |_| {}, None, Some(0)),
        (None, ManyDriver::end_input, None, Some(0)),
        // No error, because the caller stopped the loop.
        (Some(5), ManyDriver::stop, None, Some(3)),
    ];
    for (total, after_timeout, expected, not_read) in cases {
        let options = ManyOptions {
            total_timeout: Some(Duration::from_millis(500)),
            total,
            ..OPTIONS
        };
        let (driver, _task) = start(&client, options);
        driver.push(Ok(pin()));
        driver.push(Ok(pin()));
        sleep(Duration::from_secs(2)).await;
        after_timeout(&driver);
        assert_eq!(remaining_items(&driver).await.len(), 2);
        let error = driver.take_error();
        match (&error, expected) {
            (None, None) => {}
            (Some(error), Some(expected)) => {
                assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
                assert!(error.message().contains(expected), "{error}");
            }
            _ => panic!("{total:?}: {error:?}"),
        }
        assert_eq!(driver.take_report().not_read, not_read);
        sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_for_the_report_are_marked() {
    let client = unpaced(Duration::from_millis(10));
    let (driver, _task) = start(&client, OPTIONS);
    for request in [Ok(pin()), Err(None), Ok(Request::new("nowhere", [USER], true))] {
        driver.push(request);
    }
    driver.end_input();
    let items = remaining_items(&driver).await;
    assert_eq!(items.len(), 3);
    for item in items {
        assert_eq!(item.is_listed, item.index > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_accounts_for_everything() {
    const QUICK_CHAT: &str = "oc_0";
    let stage = stage(1, Switches::unlimited());
    let wire = |request: &http::Request<bytes::Bytes>| {
        let is_slow = request.uri().path().contains(CHAT);
        Trip {
            back: Duration::from_secs(if is_slow { 20 } else { 0 }),
            ..Trip::default()
        }
    };
    let client = client(&stage, wire).rate_limit(None).build().unwrap();
    let options = ManyOptions {
        concurrency: 4,
        ..OPTIONS
    };
    let (driver, task) = start(&client, options);
    for chat in [QUICK_CHAT, QUICK_CHAT, CHAT, CHAT, CHAT, CHAT] {
        driver.push(Ok(Request::new(chat, [USER], true)));
    }
    driver.push(Err(None));
    driver.push_unreadable(vec!["ou_1".to_owned(), "ou_1".to_owned()]);
    sleep(Duration::from_millis(100)).await;
    driver.stop();
    assert!(!driver.takes_more());
    driver.push(Ok(pin()));
    driver.ended().await;
    driver.push(Ok(pin()));
    let batch = driver.next_batch().await;
    let mut finished = indices(&batch.items);
    finished.sort_unstable();
    assert_eq!(
        finished,
        [0, 1, 6],
        "results from before the stop are still returned"
    );
    assert!(driver.next_batch().await.is_end);
    let report = driver.take_report();
    assert_eq!((report.taken, report.succeeded, report.failed), (10, 2, 1));
    assert_accounts_for_all(&report, &batch.items);
    let unfinished: Vec<_> = report
        .unfinished
        .iter()
        .map(|call| {
            (
                call.index,
                call.users.unknown.len(),
                call.users.not_attempted.len(),
            )
        })
        .collect();
    assert_eq!(
        unfinished,
        [
            (2, 1, 0),
            (3, 1, 0),
            (4, 1, 0),
            (5, 1, 0),
            (7, 0, 1),
            (8, 0, 1),
            (9, 0, 1)
        ]
    );
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_report_has_the_results_that_were_not_taken() {
    let client = unpaced(Duration::from_millis(10));
    let (driver, _task) = start(&client, OPTIONS);
    for _ in 0..200 {
        driver.push(Ok(pin()));
    }
    driver.end_input();
    let first = driver.next_batch().await.items;
    driver.ended().await;
    let report = driver.take_report();
    assert_eq!((report.taken, report.succeeded), (200, 200));
    assert_eq!(first.len() + report.unread.len(), 200);
    assert_accounts_for_all(&report, &first);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_first_poll_sends_nothing() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::ZERO)).build().unwrap();
    let (driver, task) = ManyDriver::new(&client, OPTIONS);
    driver.push(Ok(pin()));
    driver.stop();
    task.await;
    let report = driver.take_report();
    assert_eq!((report.taken, report.unfinished.len()), (1, 1));
    assert_eq!(report.unfinished[0].users.not_attempted, [USER]);
    assert!(stage.pinned(USER).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_calls_and_loses_no_request() {
    let stage = stage(0, Switches::unlimited());
    let mut trips = 0;
    let wire = move |request: &http::Request<bytes::Bytes>| {
        trips += usize::from(request.method() == http::Method::PATCH);
        assert!(trips != 2, "a bug");
        Trip::default()
    };
    let client = client(&stage, wire).build().unwrap();
    let options = ManyOptions {
        concurrency: 1,
        ..OPTIONS
    };
    let (driver, task) = start(&client, options);
    for _ in 0..3 {
        driver.push(Ok(pin()));
    }
    let items = remaining_items(&driver).await;
    assert_eq!(indices(&items), [0]);
    assert_eq!(driver.panic().as_deref(), Some("a bug"));
    let report = driver.take_report();
    assert_eq!((report.taken, report.succeeded, report.failed), (3, 1, 0));
    assert_accounts_for_all(&report, &items);
    assert_eq!(report.unfinished[0].users.unknown, [USER]);
    assert_eq!(report.unfinished[1].users.not_attempted, [USER]);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_task_ends_all_waits_for_it() {
    let client = unpaced(Duration::from_secs(20));
    let (driver, task) = start(&client, OPTIONS);
    driver.push(Ok(pin()));
    yield_now().await;
    let waiting = tokio::spawn(driver.ready());
    yield_now().await;
    task.abort();
    timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    assert!(driver.next_batch().await.is_end);
    assert!(driver.panic().is_some());
    assert!(!driver.takes_more());
}

#[test]
fn the_number_of_requests_in_progress_is_checked() {
    assert_eq!(concurrency(None).unwrap(), 100);
    assert_eq!(concurrency(Some(1)).unwrap(), 1);
    assert_eq!(concurrency(Some(usize::MAX)).unwrap(), 10_000);
    assert_eq!(concurrency(Some(0)).unwrap_err().field(), Some("concurrency"));
}
