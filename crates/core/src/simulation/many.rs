//! Many calls as a stream, and calls with more users than one request carries: every user is accounted for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Reset, Switches, World};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::{Trip, USER, client, fill_chat, random, round_trip, stage, up_to};
use crate::many::{MAX_FAILURES, concurrency};
use crate::{Client, ErrorKind, RateLimit, Report, Request};

const CHAT: &str = World::EXAMPLE_CHAT;

/// 100,000 requests with random faults. Each reported success is pinned, and no user of a failed call is reported
/// as reached.
#[tokio::test(start_paused = true)]
async fn each_request_has_one_result_and_it_is_true() {
    const REQUESTS: usize = 100_000;
    let stage = stage(
        REQUESTS,
        Switches {
            keep_requests: 0,
            ..Switches::unlimited()
        },
    );
    let mut random = random(11);
    let mut trips = random.fork();
    let wire = move |_: &http::Request<bytes::Bytes>| Trip {
        there: up_to(&mut trips, Duration::from_millis(30)),
        back: up_to(&mut trips, Duration::from_millis(30)),
        breaks: trips.u32(..100) < 4,
        late: up_to(&mut trips, Duration::from_secs(2)),
    };
    let client = client(&stage, wire)
        .rate_limit(None)
        .max_retries(1)
        .build()
        .unwrap();
    let faults = {
        let stage = stage.clone();
        let kinds: Vec<Fault> = vec![
            Fault {
                reset: Some(Reset::Before),
                ..Fault::on_call()
            },
            Fault {
                reset: Some(Reset::After),
                ..Fault::on_call()
            },
            Fault {
                status: http::StatusCode::from_u16(502).ok(),
                html: true,
                ..Fault::on_call()
            },
            Fault {
                code: Some(230_027),
                ..Fault::on_call()
            },
            Fault {
                code: Some(2200),
                ..Fault::on_call()
            },
            Fault {
                truncate: Some(10),
                ..Fault::on_call()
            },
            Fault {
                revoke_tokens: true,
                ..Fault::on_call()
            },
        ];
        tokio::spawn(async move {
            loop {
                stage.fault(kinds[random.usize(..kinds.len())].clone());
                sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let requests = (0..REQUESTS).map(|index| Request::new(format!("oc_{index}"), [USER], true));
    let mut many = client.set_time_sensitive_many(requests);
    let mut seen = vec![0_u8; REQUESTS];
    let mut failed = Vec::new();
    while let Some(item) = many.next().await.transpose().unwrap() {
        seen[item.index] += 1;
        match item.result {
            Ok(outcome) => assert_eq!(outcome.users.reached, [USER]),
            Err(error) => failed.push((item.index, error)),
        }
    }
    faults.abort();
    assert!(seen.iter().all(|times| *times == 1));
    sleep(Duration::from_secs(60)).await;
    let pinned: std::collections::HashSet<String> = stage.pinned(USER).into_iter().collect();
    println!(
        "{REQUESTS} requests, {} failed, {} pinned",
        failed.len(),
        pinned.len()
    );
    assert!(!failed.is_empty());
    for (index, error) in &failed {
        let users = error.users();
        let is_pinned = pinned.contains(&format!("oc_{index}"));
        assert!(users.reached.is_empty());
        assert!(
            !is_pinned || users.unknown == [USER],
            "{index} is pinned, and {error} says {users:?}"
        );
    }
    let failed: std::collections::HashSet<usize> = failed.into_iter().map(|(index, _)| index).collect();
    for index in (0..REQUESTS).filter(|index| !failed.contains(index)) {
        assert!(
            pinned.contains(&format!("oc_{index}")),
            "{index} was reported as reached, but is not pinned"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_read_only_as_earlier_ones_finish() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(100)))
        .build()
        .unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let requests = {
        let read = read.clone();
        (0..).map(move |_| {
            read.fetch_add(1, Ordering::Relaxed);
            Request::new(CHAT, [USER], true)
        })
    };
    let mut many = client.set_time_sensitive_many(requests).concurrency(10);
    for done in 1..=100 {
        assert!(many.next().await.unwrap().unwrap().result.unwrap().ok());
        assert!(read.load(Ordering::Relaxed) <= done + 10);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_quota_does_not_count_against_the_timeout() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)));
    let client = client
        .rate_limit(RateLimit::new(1, 10))
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let requests = (0..30).map(|_| Request::new(CHAT, [USER], true));
    let began = Instant::now();
    let (results, _) = client.set_time_sensitive_many(requests).collect().await;
    assert!(results.into_iter().all(|item| item.result.is_ok()));
    assert!(began.elapsed() > Duration::from_secs(120));
}

/// The token is revoked when the calls of a minute are used up. The retry gets a slot of the next minute, which is
/// after the request's own timeout.
#[tokio::test(start_paused = true)]
async fn waiting_for_the_slot_of_a_retry_does_not_count_against_the_timeout() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)));
    let client = client
        .rate_limit(RateLimit::new(10, 10))
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let requests = (0..12).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(1);
    let mut sent = 0;
    while let Some(item) = many.next().await.transpose().unwrap() {
        sent += item.result.unwrap().requests;
        if item.index == 8 {
            stage.fault(Fault {
                revoke_tokens: true,
                ..Fault::on_call()
            });
        }
    }
    assert_eq!(sent, 13);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_bounds_the_attempts_of_each_request() {
    let stage = stage(0, Switches::unlimited());
    let mut calls = 0;
    let wire = move |request: &http::Request<bytes::Bytes>| {
        calls += u32::from(request.method() == http::Method::PATCH);
        // The connection of the first attempt breaks, and the answer to the retry takes too long.
        let back = Duration::from_secs(if calls == 2 { 60 } else { 0 });
        Trip {
            back,
            breaks: calls == 1,
            ..Trip::default()
        }
    };
    let client = client(&stage, wire)
        .rate_limit(RateLimit::new(1, 1))
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let began = Instant::now();
    let mut many = client.set_time_sensitive_many([Request::new(CHAT, [USER], true)]);
    let error = many.next().await.unwrap().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(error.users().unknown, [USER]);
    // The slot of a request without an answer stays taken for late_arrival and a minute.
    let waited = Duration::from_secs(65);
    assert!(began.elapsed() > waited && began.elapsed() < waited + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_ends_the_calls_without_a_slot() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)));
    let client = client.rate_limit(RateLimit::new(1, 100)).build().unwrap();
    let requests = (0..30).map(|_| Request::new(CHAT, [USER], true));
    let began = Instant::now();
    let many = client
        .set_time_sensitive_many(requests)
        .total_timeout(Duration::from_secs(10));
    let (results, _) = many.collect().await;
    let (done, late): (Vec<_>, Vec<_>) = results.into_iter().partition(|item| item.result.is_ok());
    assert_eq!((done.len(), late.len()), (10, 20));
    for item in late {
        let error = item.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert_eq!(error.users().not_attempted, [USER]);
    }
    assert!(began.elapsed() < Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn a_report_before_the_first_result_sends_nothing() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_secs(1)));
    let client = client.build().unwrap();
    let first = client.set_time_sensitive(CHAT, [USER], true).await.unwrap();
    assert!(first.ok());
    let before = stage.request_count();
    let requests = (0..40).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(20);
    assert!(many.next().now_or_never().is_none());
    let report = many.report().await;
    let unsent = report.unfinished.iter().map(|call| &call.users.not_attempted);
    assert_eq!(unsent.collect::<Vec<_>>(), vec![&[USER]; 20]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.request_count(), before);
}

#[tokio::test(start_paused = true)]
async fn a_report_after_an_early_stop_lists_unfinished_calls() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_secs(1)));
    let client = client.rate_limit(RateLimit::new(5, 100)).build().unwrap();
    let requests = (0..1000).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(20);
    let mut done = 0;
    while done < 7 {
        assert!(many.next().await.unwrap().unwrap().result.unwrap().ok());
        done += 1;
    }
    sleep(Duration::from_millis(1200)).await;
    let report = many.report().await;
    assert_eq!(
        report.taken,
        report.succeeded + report.failed + report.unfinished.len()
    );
    assert!(report.taken <= 30, "{} were read", report.taken);
    let sent: Vec<_> = report
        .unfinished
        .iter()
        .filter(|call| !call.users.unknown.is_empty())
        .collect();
    let unsent = report
        .unfinished
        .iter()
        .filter(|call| call.users.not_attempted == [USER])
        .count();
    assert_eq!(sent.len() + unsent, report.unfinished.len());
    assert!(
        !sent.is_empty() && unsent > 0,
        "{} sent, {unsent} unsent",
        sent.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_lists_results_that_the_caller_did_not_read() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(100)))
        .max_retries(0)
        .build()
        .unwrap();
    stage.faults([
        Fault::on_call(),
        Fault {
            code: Some(230_027),
            ..Fault::on_call()
        },
        Fault {
            delay_before_ms: 60_000,
            ..Fault::on_call()
        },
    ]);
    let chats = [CHAT, CHAT, CHAT, CHAT, "nowhere"];
    let mut many = client.set_time_sensitive_many(chats.map(|chat| Request::new(chat, [USER], true)));
    assert_eq!(
        many.next().await.unwrap().unwrap().index,
        4,
        "an invalid request fails without an answer"
    );
    sleep(Duration::from_secs(1)).await;
    let report = many.report().await;
    assert_eq!((report.taken, report.succeeded, report.failed), (5, 2, 2));
    assert_eq!(report.unread.iter().filter(|item| item.result.is_ok()).count(), 2);
    let [unfinished] = &report.unfinished[..] else {
        panic!("{:?}", report.unfinished)
    };
    assert_eq!(unfinished.users.unknown, [USER]);
    let mut indices: Vec<_> = report.unread.iter().map(|item| item.index).collect();
    assert!(indices.is_sorted());
    indices.push(unfinished.index);
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert!(many.next().await.is_none());
    let again = many.report().await;
    assert_eq!(
        (again.taken, again.unread.len(), again.unfinished.len()),
        (5, 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_reaches_the_caller_and_loses_no_request() {
    let stage = stage(0, Switches::unlimited());
    let mut trips = 0;
    let wire = move |request: &http::Request<bytes::Bytes>| {
        trips += usize::from(request.method() == http::Method::PATCH);
        assert!(trips != 2, "a bug");
        Trip::default()
    };
    let client = client(&stage, wire).build().unwrap();
    let requests = [CHAT; 3].map(|chat| Request::new(chat, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(1);
    assert!(many.next().await.unwrap().unwrap().result.is_ok());
    assert!(AssertUnwindSafe(many.next()).catch_unwind().await.is_err());
    assert!(
        many.next().await.unwrap().unwrap().result.is_ok(),
        "the other calls go on"
    );
    let report = many.report().await;
    assert_eq!((report.taken, report.succeeded, report.failed), (3, 2, 0));
    assert_eq!(report.unfinished[0].users.unknown, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_report_after_the_last_result_counts_all_requests() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(1)))
        .build()
        .unwrap();
    let chats = [CHAT, "nowhere", CHAT];
    let mut many = client.set_time_sensitive_many(chats.map(|chat| Request::new(chat, [USER], true)));
    while many.next().await.transpose().unwrap().is_some() {}
    let report = many.report().await;
    assert_eq!((report.taken, report.succeeded, report.failed), (3, 2, 1));
    assert!(report.unread.is_empty() && report.unfinished.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_ends_an_idle_and_an_endless_input() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(10)))
        .build()
        .unwrap();
    let timeout = Duration::from_secs(10);

    let began = Instant::now();
    let one = futures_util::stream::iter([Request::new(CHAT, [USER], true)]);
    let silent = one.chain(futures_util::stream::pending());
    let mut many = client.set_time_sensitive_stream(silent).total_timeout(timeout);
    assert!(many.next().await.unwrap().unwrap().result.is_ok());
    assert!(
        many.next().await.is_none(),
        "the size hint of the input says that it has ended"
    );
    assert_eq!(began.elapsed().as_secs(), 10);

    let endless = std::iter::repeat_with(|| Request::new(CHAT, [USER], true));
    let mut many = client
        .set_time_sensitive_many(endless)
        .concurrency(usize::MAX)
        .total_timeout(timeout);
    let (mut late, mut errors) = (0, 0);
    while let Some(item) = many.next().await {
        match item {
            Ok(item) => late += usize::from(item.result.is_err()),
            Err(error) => {
                assert!(
                    error
                        .message()
                        .ends_with("the number of unread requests is unknown"),
                    "{error}"
                );
                errors += 1;
            }
        }
    }
    assert_eq!(errors, 1);
    let report = many.report().await;
    assert_eq!((report.failed, report.not_read), (late, None));
    assert_eq!(
        (report.succeeded + late, report.unfinished.len()),
        (report.taken, 0)
    );
    // 50 a second succeed, and 10,000 at most are in progress.
    assert!(report.taken < 11_000, "{} were read", report.taken);
}

#[tokio::test(start_paused = true)]
async fn progress_is_reported_after_each_result() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)));
    let client = client.rate_limit(RateLimit::new(10, 1000)).build().unwrap();
    let reports = Arc::new(std::sync::Mutex::new(Vec::new()));
    let requests: Vec<_> = (0..40)
        .map(|index| Request::new(if index == 5 { "not-a-chat" } else { CHAT }, [USER], true))
        .collect();
    let mut many = {
        let reports = reports.clone();
        client
            .set_time_sensitive_many(requests)
            .on_progress(move |progress| reports.lock().unwrap().push(progress))
    };
    while many.next().await.transpose().unwrap().is_some() {}
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 40);
    assert!(
        reports
            .iter()
            .enumerate()
            .all(|(index, progress)| progress.done == index + 1)
    );
    assert!(reports.iter().all(|progress| progress.total == Some(40)));
    assert_eq!(reports.last().unwrap().failed, 1);
    assert!(reports[1].waiting_for_quota > 0);
    let eta = reports[11].eta.unwrap();
    assert!(
        eta > Duration::from_secs(1) && eta < Duration::from_secs(4),
        "{eta:?}"
    );
    assert_eq!(reports[39].eta, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn progress_is_reported_while_calls_wait_for_the_next_minute() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)));
    let client = client.rate_limit(RateLimit::new(1000, 1000)).build().unwrap();
    let reports = Arc::new(std::sync::Mutex::new(Vec::new()));
    let requests: Vec<_> = (0..1001).map(|_| Request::new(CHAT, [USER], true)).collect();
    let mut many = {
        let reports = reports.clone();
        client
            .set_time_sensitive_many(requests)
            .on_progress(move |progress| reports.lock().unwrap().push((Instant::now(), progress)))
    };
    while many.next().await.transpose().unwrap().is_some() {}
    let reports = reports.lock().unwrap();
    let waiting: Vec<_> = reports
        .iter()
        .filter(|(_, progress)| progress.done == 1000)
        .collect();
    // One report after the thousandth result, and one every two seconds until the minute is over.
    assert!((28..=31).contains(&waiting.len()), "{}", waiting.len());
    assert!(
        waiting
            .iter()
            .all(|(_, progress)| progress.waiting_for_quota == 1)
    );
    let etas: Vec<_> = waiting.iter().filter_map(|(_, progress)| progress.eta).collect();
    assert!(etas.windows(2).all(|pair| pair[0] > pair[1]), "{etas:?}");
    assert!(
        waiting
            .windows(2)
            .all(|pair| pair[1].0 - pair[0].0 == Duration::from_secs(2))
    );
    assert_eq!(reports.last().unwrap().1.done, 1001);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_timeout_passes_does_not_end_the_others() {
    let stage = stage(10, Switches::unlimited());
    let wire = |request: &http::Request<bytes::Bytes>| Trip {
        back: Duration::from_secs(if request.uri().path().ends_with("/oc_1") {
            60
        } else {
            0
        }),
        ..Trip::default()
    };
    let client = client(&stage, wire)
        .rate_limit(RateLimit::new(2, 1000))
        .build()
        .unwrap();
    let mut requests: Vec<_> = (0..10)
        .map(|chat| Request::new(format!("oc_{chat}"), [USER], true))
        .collect();
    requests[1].timeout = Some(Duration::from_secs(1));
    let (items, _) = client
        .set_time_sensitive_many(requests)
        .concurrency(2)
        .collect()
        .await;
    let failed: Vec<_> = items
        .iter()
        .filter(|item| item.result.is_err())
        .map(|item| item.index)
        .collect();
    assert_eq!((items.len(), &failed[..]), (10, &[1][..]));
}

/// Waits for slots have no deadline here, so only `max_retries` ends the attempts.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_each_time_fails_after_its_retries() {
    let stage = stage(0, Switches::unlimited());
    stage.fault(Fault {
        code: Some(99_991_400),
        headers: http::HeaderMap::from_iter([(
            "x-ogw-ratelimit-reset".parse().unwrap(),
            "60".parse().unwrap(),
        )]),
        times: 0,
        ..Fault::on_call()
    });
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .build()
        .unwrap();
    let began = Instant::now();
    let mut many = client.set_time_sensitive_many([Request::new(CHAT, [USER], true)]);
    let error = many.next().await.unwrap().unwrap().result.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::RateLimited, 4));
    assert!(began.elapsed() < Duration::from_secs(200));
}

/// A split call fails if its own parts need longer than `total_timeout`. The other calls still have the time.
#[tokio::test(start_paused = true)]
async fn a_split_call_too_long_for_the_total_timeout_does_not_end_the_others() {
    let stage = stage(10, Switches::unlimited());
    let users = fill_chat(&stage, 30);
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .rate_limit(RateLimit::new(2, 1000))
        .max_users_per_request(1)
        .build()
        .unwrap();
    let mut requests: Vec<_> = (0..10)
        .map(|chat| Request::new(format!("oc_{chat}"), [USER], true))
        .collect();
    requests[1] = Request::new("oc_full", users, true);
    let many = client
        .set_time_sensitive_many(requests)
        .concurrency(2)
        .total_timeout(Duration::from_secs(10));
    let (items, _) = many.collect().await;
    let failed = items.iter().filter(|item| item.result.is_err());
    let failed: Vec<_> = failed.map(|item| item.index).collect();
    assert_eq!((items.len(), &failed[..]), (10, &[1][..]));
}

/// Only the time spent waiting for the quota does not count.
#[tokio::test(start_paused = true)]
async fn all_parts_of_a_split_call_among_many_share_one_timeout() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 100);
    let client = client(&stage, round_trip(Duration::from_millis(900)))
        .rate_limit(None)
        .max_users_per_request(1)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let began = Instant::now();
    let mut many = client.set_time_sensitive_many([Request::new("oc_full", users, true)]);
    let error = many.next().await.unwrap().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

/// The time in which the parts wait for the quota does not count against the timeout.
#[tokio::test(start_paused = true)]
async fn a_split_call_among_many_waits_for_the_quota() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 30);
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .rate_limit(RateLimit::new(2, 1000))
        .max_users_per_request(1)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut many = client.set_time_sensitive_many([Request::new("oc_full", users, true)]);
    assert!(many.next().await.unwrap().unwrap().result.unwrap().ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_when_the_minute_is_used_up_does_not_end_the_others() {
    const REQUESTS: usize = 3000;
    let stage = stage(REQUESTS, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .build()
        .unwrap();
    let requests = (0..REQUESTS).map(|chat| Request::new(format!("oc_{chat}"), [USER], true));
    let mut many = client.set_time_sensitive_many(requests);
    let mut done = 0;
    while many.next().await.transpose().unwrap().is_some() {
        done += 1;
        if done == 950 {
            stage.revoke_tokens();
        }
    }
    assert_eq!(done, REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn the_results_of_a_split_call_are_in_the_order_of_the_user_ids() {
    let stage = stage(0, Switches::unlimited());
    let mut users = fill_chat(&stage, 230);
    users.insert(60, World::EXAMPLE_OUTSIDER.to_owned());
    let mut trips = random(5);
    let wire = move |_: &http::Request<bytes::Bytes>| Trip {
        back: up_to(&mut trips, Duration::from_secs(1)),
        ..Trip::default()
    };
    let client = client(&stage, wire).build().unwrap();
    let outcome = client
        .set_time_sensitive("oc_full", users.clone(), true)
        .await
        .unwrap();
    assert_eq!((outcome.requests, outcome.log_ids.len()), (5, 5));
    assert_eq!(outcome.failed_user_reasons.len(), 1);
    assert_eq!(outcome.users.failed, [World::EXAMPLE_OUTSIDER]);
    users.remove(60);
    assert_eq!(outcome.users.reached, users);
}

#[tokio::test(start_paused = true)]
async fn a_failed_part_accounts_for_every_user() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 1000);
    let client = client(&stage, round_trip(Duration::from_millis(100)))
        .max_retries(0)
        .build()
        .unwrap();
    stage.faults([
        Fault::on_call(),
        Fault {
            status: http::StatusCode::from_u16(502).ok(),
            ..Fault::on_call()
        },
        Fault::on_call(),
        Fault {
            code: Some(230_027),
            delay_after_ms: 5,
            ..Fault::on_call()
        },
    ]);
    let error = client
        .set_time_sensitive("oc_full", users.clone(), true)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    let users_of = error.users();
    assert_eq!((users_of.unknown.len(), users_of.failed.len()), (50, 50));
    assert!(
        [8 * 50, 9 * 50].contains(&users_of.reached.len()),
        "the other requests in progress"
    );
    assert_eq!(
        users_of.not_attempted,
        users[users.len() - users_of.not_attempted.len()..]
    );
    let mut all = [
        &users_of.reached[..],
        &users_of.failed,
        &users_of.unknown,
        &users_of.not_attempted,
    ]
    .concat();
    all.sort_by_key(|user| users.iter().position(|other| other == user));
    assert_eq!(all, users);
    assert_eq!(error.outcome().unwrap().users.reached, users_of.reached);
}

#[tokio::test(start_paused = true)]
async fn a_split_call_that_cannot_finish_in_time_sends_nothing() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 500);
    let client = client(&stage, round_trip(Duration::from_millis(100)));
    let client = client.rate_limit(RateLimit::new(2, 100)).build().unwrap();
    let call = client
        .set_time_sensitive("oc_full", users.clone(), true)
        .timeout(Duration::from_secs(3));
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.retry_after().unwrap() > Duration::from_secs(4));
    assert_eq!(error.users().not_attempted, users);
    assert_eq!(stage.request_count(), 0);
    let call = client
        .set_time_sensitive("oc_full", users.clone(), true)
        .timeout(Duration::from_secs(6));
    assert!(call.await.unwrap().ok());
}

#[tokio::test(start_paused = true)]
async fn splitting_takes_linear_time() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(1)))
        .rate_limit(None)
        .build()
        .unwrap();
    let users: Vec<String> = (0..100_000).map(|user| format!("ou_{user}")).collect();
    let began = std::time::Instant::now();
    let error = client
        .set_time_sensitive("oc_unknown", users, true)
        .await
        .unwrap_err();
    assert_eq!(
        error.users().failed.len() + error.users().not_attempted.len(),
        100_000
    );
    // Copying the remaining ids for each part took ten times as long.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_call_for_the_bots_chat_carries_50_users_at_most() {
    let stage = stage(0, Switches::unlimited());
    let users = fill_chat(&stage, 120);
    let client = client(&stage, round_trip(Duration::from_millis(1))).max_users_per_request(200);
    let outcome = client
        .build()
        .unwrap()
        .set_bot_time_sensitive(users, true)
        .await
        .unwrap();
    assert_eq!((outcome.requests, outcome.ok()), (3, true));
}

/// Input, results, progress and the end wake a caller that dropped its last future of `next`. `Stream::poll_next`
/// drops one each time.
#[tokio::test(start_paused = true)]
async fn a_dropped_future_of_next_loses_nothing() {
    for as_stream in [true, false] {
        let stage = stage(0, Switches::unlimited());
        let client = client(&stage, round_trip(Duration::from_millis(300)))
            .build()
            .unwrap();
        let reports = Arc::new(AtomicUsize::new(0));
        let requests = [CHAT, "nowhere", CHAT].map(|chat| Request::new(chat, [USER], true));
        let silent = futures_util::stream::iter(requests).chain(futures_util::stream::pending());
        let mut many = client
            .set_time_sensitive_stream(silent)
            .total_timeout(Duration::from_secs(10))
            .on_progress({
                let reports = reports.clone();
                move |_| _ = reports.fetch_add(1, Ordering::Relaxed)
            });
        let began = Instant::now();
        let mut indices = Vec::new();
        if as_stream {
            while let Some(item) = StreamExt::next(&mut many).await {
                indices.extend(item.map(|item| item.index));
            }
        } else {
            loop {
                match timeout(Duration::from_millis(70), many.next()).await {
                    Ok(Some(item)) => indices.extend(item.map(|item| item.index)),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
        }
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2]);
        assert!((10_000..10_100).contains(&began.elapsed().as_millis()));
        // One report after each result, and one after 2, 4, 6 and 8 s without a result.
        assert_eq!(reports.load(Ordering::Relaxed), 3 + 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_the_results_that_are_ready_up_to_its_size() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(300)))
        .build()
        .unwrap();
    let requests = (0..10).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(7);
    let mut sizes = Vec::new();
    loop {
        let batch = many.next_batch(4).await;
        if batch.is_empty() {
            break;
        }
        sizes.push(batch.len());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(sizes, [4, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_of_report_loses_nothing() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(300)))
        .rate_limit(RateLimit::new(2, 100))
        .build()
        .unwrap();
    let chats = [CHAT, CHAT, CHAT, CHAT, "nowhere", CHAT];
    let mut many = client.set_time_sensitive_many(chats.map(|chat| Request::new(chat, [USER], true)));
    assert_eq!(many.next().await.unwrap().unwrap().index, 4);
    assert!(many.next().now_or_never().is_none());
    // Time for the token and two answers.
    sleep(Duration::from_millis(700)).await;
    assert!(
        many.report().now_or_never().is_none(),
        "the calls have not stopped yet"
    );
    let report = many.report().await;
    assert_eq!((report.taken, report.succeeded, report.failed), (6, 2, 1));
    let unread = report.unread.iter().map(|item| item.index);
    let unfinished = report.unfinished.iter().map(|call| call.index);
    let mut indices: Vec<_> = unread.chain(unfinished).collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 5]);
}

/// A client with a limit of one call a second, on a stage with round trips of 100 ms.
fn slow_client() -> Client {
    let stage = stage(0, Switches::unlimited());
    client(&stage, round_trip(Duration::from_millis(100)))
        .rate_limit(RateLimit::new(1, 1000))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_did_not_read_all_requests_ends_with_an_error() {
    let requests = vec![Request::new(CHAT, [USER], true); 3000];
    let limited = |requests: Vec<Request>| {
        let many = slow_client().set_time_sensitive_many(requests).concurrency(2);
        many.total_timeout(Duration::from_secs(10))
    };
    let mut many = limited(requests.clone());
    let mut items = 0;
    let error = loop {
        match many.next().await.unwrap() {
            Ok(_) => items += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.kind(), error.retryable()),
        (ErrorKind::DeadlineExceeded, true)
    );
    let not_read = 3000 - items;
    let number = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    let expected = format!(
        "the total_timeout leaves no time for more: {} of 3,000 requests were not read",
        number(not_read)
    );
    assert_eq!(error.message(), expected);
    assert!(
        error.hint().unwrap().contains(&format!("from index {items} on")),
        "{error}"
    );
    assert!(many.next().await.is_none(), "the error comes once");
    let report = many.report().await;
    assert_eq!((report.taken, report.not_read), (items, Some(not_read)));

    let mut many = limited(requests.clone());
    assert!(many.next().await.unwrap().is_ok());
    let report = many.report().await;
    assert_eq!(report.not_read, Some(3000 - report.taken));
    assert!(
        many.next().await.is_none(),
        "no error: the caller stopped the loop"
    );

    let (all, report) = limited(requests).collect().await;
    assert_eq!((all.len(), report.not_read), (items, Some(not_read)));
    let Report {
        succeeded, failed, ..
    } = report;
    assert_eq!(succeeded + failed, items);
    let summary = format!(
        "{items} taken: {succeeded} succeeded, {failed} failed, 0 unfinished; {} not read",
        number(not_read)
    );
    assert_eq!(report.to_string(), summary);
}

/// The input was not polled for its end, because there was no room for another request.
#[tokio::test(start_paused = true)]
async fn a_loop_that_read_all_requests_ends_without_an_error() {
    let client = slow_client();
    for requests in [1, 20] {
        let requests = vec![Request::new(CHAT, [USER], true); requests];
        let mut many = client
            .set_time_sensitive_many(requests.clone())
            .concurrency(requests.len())
            .total_timeout(Duration::from_millis(2500));
        let mut items = 0;
        while many.next().await.transpose().unwrap().is_some() {
            items += 1;
        }
        assert_eq!(items, requests.len());
        assert_eq!(many.report().await.not_read, Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_result_has_the_tag_of_its_request() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(100)))
        .build()
        .unwrap();
    // A tag may be a value that cannot be shared between threads, such as a `Cell`.
    let requests = ["oc_nowhere", CHAT, "nowhere", CHAT, CHAT]
        .into_iter()
        .enumerate();
    let requests = requests.map(|(row, chat)| {
        let request = Request::new(chat, [USER], true).tag(std::cell::Cell::new(row * 10));
        if row == 1 {
            return Request {
                user_ids: vec![USER.to_owned(), World::EXAMPLE_OUTSIDER.to_owned()],
                ..request
            };
        }
        request
    });
    let mut many = client.set_time_sensitive_many(requests.collect::<Vec<_>>());
    let is_send = |_: &dyn Send| {};
    is_send(&many.next());
    for _ in 0..2 {
        let item = many.next().await.unwrap().unwrap();
        assert_eq!(item.tag.get(), item.index * 10);
    }
    sleep(Duration::from_secs(1)).await;
    let report = many.report().await;
    let tags = |items: &[crate::Item<std::cell::Cell<usize>>]| {
        items
            .iter()
            .map(|item| (item.index, item.tag.get()))
            .collect::<Vec<_>>()
    };
    assert_eq!(tags(&report.failures), [(0, 0), (1, 10), (2, 20)]);
    assert_eq!((report.failed, report.succeeded, report.unread.len()), (3, 2, 3));
    assert!(tags(&report.unread).iter().all(|(index, tag)| *tag == index * 10));

    let mut many = client.set_time_sensitive_many([Request::new(CHAT, [USER], true).tag("row")]);
    assert!(many.next().now_or_never().is_none());
    assert_eq!(many.report().await.unfinished[0].tag, "row");
}

#[tokio::test(start_paused = true)]
async fn a_report_lists_a_limited_number_of_failures() {
    const REQUESTS: usize = MAX_FAILURES + 5;
    let client = slow_client();
    let requests = (0..REQUESTS).map(|_| Request::new("nowhere", [USER], true));
    let (items, report) = client.set_time_sensitive_many(requests).collect().await;
    assert_eq!((items.len(), report.failed), (REQUESTS, REQUESTS));
    assert_eq!(report.failures.len(), MAX_FAILURES);
    assert_eq!(
        report.to_string(),
        "10,005 taken: 0 succeeded, 10,005 failed, 0 unfinished; 0 not read"
    );
}

#[test]
fn the_number_of_requests_in_progress_is_bounded() {
    assert_eq!(
        [0, 1, 100, 10_000, usize::MAX].map(concurrency),
        [1, 1, 100, 10_000, 10_000]
    );
}

#[tokio::test(start_paused = true)]
async fn progress_has_a_total_only_if_the_size_of_the_input_is_known() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .rate_limit(RateLimit::new(2, 1000))
        .build()
        .unwrap();
    let request = || Request::new(CHAT, [USER], true);
    let endless = client.set_time_sensitive_many(std::iter::repeat_with(request));
    assert_eq!((endless.progress().total, endless.progress().eta), (None, None));
    let at_most = (0..5).map(move |_| request()).filter(|_| true);
    assert_eq!(client.set_time_sensitive_many(at_most).progress().total, None);

    let mut five = client.set_time_sensitive_many((0..5).map(move |_| request()));
    let window = Duration::from_millis(1_002);
    // Two calls a second: the fifth call has its slot after two windows.
    assert_eq!(
        (five.progress().total, five.progress().eta),
        (Some(5), Some(2 * window))
    );
    assert!(five.next().await.unwrap().unwrap().result.is_ok());
    let progress = five.progress();
    assert_eq!((progress.done, progress.waiting_for_quota), (1, 3));
    assert!(format!("{five:?}").contains("waiting_for_quota: 3"), "{five:?}");
}

/// The answers have arrived, but the calls have not been polled since.
#[tokio::test(start_paused = true)]
async fn answers_that_arrived_before_the_stop_count() {
    for refusal in [230_027, 99_991_400] {
        let stage = stage(0, Switches::unlimited());
        let rtt = Duration::from_millis(300);
        let client = client(&stage, round_trip(rtt)).max_retries(0).build().unwrap();
        assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
        stage.faults([
            Fault::on_call(),
            Fault {
                code: Some(refusal),
                ..Fault::on_call()
            },
        ]);
        let requests = [CHAT; 2].map(|chat| Request::new(chat, [USER], true));
        let mut many = client.set_time_sensitive_many(requests);
        assert!(many.next().now_or_never().is_none());
        sleep(rtt).await;
        let report = many.report().await;
        assert_eq!((report.taken, report.succeeded, report.failed), (2, 1, 1));
        assert_eq!(report.unread.len(), 2);
    }
}
