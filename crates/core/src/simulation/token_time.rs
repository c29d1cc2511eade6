//! Token fetches that hang or take long, with callers that join them: each caller waits until its own deadline.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::{RTT, USER, client, round_trip, stage, store_secret, token_of};
use crate::{Client, ClientBuilder, Error, ErrorKind, ProvidedToken, Station};

const CHAT: &str = World::EXAMPLE_CHAT;
const TIMEOUT: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_millis(5);

fn builder(stage: &Stage) -> ClientBuilder {
    client(stage, round_trip(RTT)).rate_limit(None).timeout(TIMEOUT)
}

/// Delays the responses to the next `times` token requests.
fn delay_tokens(stage: &Stage, times: u64, time: Duration) {
    stage.fault(Fault {
        times,
        delay_after_ms: u64::try_from(time.as_millis()).unwrap(),
        ..Fault::on_token()
    });
}

/// Makes a call after `wait`. Returns its result and how long it took.
async fn call_after(client: &Client, wait: Duration, timeout: Duration) -> (Result<(), Error>, Duration) {
    sleep(wait).await;
    let began = Instant::now();
    let call = client.set_time_sensitive(CHAT, [USER], true).timeout(timeout);
    let result = call.await.map(|outcome| assert!(outcome.ok()));
    (result, began.elapsed())
}

fn assert_failed_at_deadline((result, took): &(Result<(), Error>, Duration), timeout: Duration) {
    let error = result.as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Token)),
        "{error}"
    );
    assert!(
        *took >= timeout && *took <= timeout + SLACK,
        "{took:?} instead of {timeout:?}"
    );
    assert_eq!(error.users().not_attempted, [USER]);
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_a_hanging_fetch_fails_by_its_own_deadline() {
    let stage = stage(0, Switches::unlimited());
    delay_tokens(&stage, 0, seconds(3600.0));
    let client = builder(&stage).build().unwrap();
    let (first, second) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(2.8), TIMEOUT)
    );
    assert_failed_at_deadline(&first, TIMEOUT);
    assert_failed_at_deadline(&second, TIMEOUT);
    assert_eq!(stage.token_fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_answers_after_its_first_callers_deadline_serves_the_second() {
    for is_first_gone in [false, true] {
        let stage = stage(0, Switches::unlimited());
        delay_tokens(&stage, 1, seconds(4.0));
        let client = builder(&stage).build().unwrap();
        let first = tokio::spawn({
            let client = client.clone();
            async move { call_after(&client, Duration::ZERO, TIMEOUT).await }
        });
        let second = async {
            sleep(seconds(2.8)).await;
            if is_first_gone {
                first.abort();
            }
            call_after(&client, Duration::ZERO, TIMEOUT).await
        };
        let (result, took) = second.await;
        result.unwrap();
        assert!(took < seconds(1.4), "{took:?}");
        assert_eq!(stage.token_fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_fetch_may_use_the_time_of_a_caller_that_joined() {
    let stage = stage(0, Switches::unlimited());
    stage.fault(Fault {
        status: http::StatusCode::from_u16(503).ok(),
        delay_after_ms: 2900,
        headers: [(http::header::RETRY_AFTER, http::HeaderValue::from_static("2"))]
            .into_iter()
            .collect(),
        ..Fault::on_token()
    });
    let client = builder(&stage).build().unwrap();
    let (first, (second, _)) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(2.8), TIMEOUT)
    );
    assert_failed_at_deadline(&first, TIMEOUT);
    second.unwrap();
    assert_eq!(stage.token_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_bounds_each_request_of_a_fetch() {
    let stage = stage(0, Switches::unlimited());
    delay_tokens(&stage, 2, seconds(3600.0));
    let attempts = builder(&stage).attempt_timeout(seconds(0.5));
    let client = attempts.build().unwrap();
    let (result, took) = call_after(&client, Duration::ZERO, TIMEOUT).await;
    result.unwrap();
    assert!(took >= seconds(1.0) && took < seconds(2.0), "{took:?}");
    assert_eq!(stage.token_fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_with_the_retries_of_the_fetch_used_up() {
    let stage = stage(0, Switches::unlimited());
    delay_tokens(&stage, 0, seconds(3600.0));
    let attempts = builder(&stage).attempt_timeout(seconds(0.5)).max_retries(1);
    let client = attempts.build().unwrap();
    let (result, took) = call_after(&client, Duration::ZERO, TIMEOUT).await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.kind(), error.station(), error.attempts()),
        (ErrorKind::DeadlineExceeded, Some(Station::Token), 2)
    );
    assert!(error.message().contains("attempt_timeout"), "{error}");
    assert!(error.retryable());
    assert!(took < seconds(1.3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joined_the_last_attempt_has_attempts_of_its_own() {
    let stage = stage(0, Switches::unlimited());
    delay_tokens(&stage, 1, seconds(3600.0));
    let attempts = builder(&stage).attempt_timeout(seconds(1.0)).max_retries(0);
    let client = attempts.build().unwrap();
    let ((first, _), (second, took)) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(0.9), TIMEOUT)
    );
    assert_eq!(first.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    second.unwrap();
    assert!(took <= seconds(0.1) + RTT * 2 + SLACK, "{took:?}");
    assert_eq!(stage.token_fetches(), 2);
}

/// Makes 40 calls, one every 0.5 s, each with a timeout of 1 s, so that at any time a caller waits. Returns which
/// of them succeeded.
async fn keep_calling(client: &Client) -> Vec<bool> {
    let calls = (0..40).map(|call| call_after(client, seconds(0.5) * call, seconds(1.0)));
    let ends = join_all(calls).await;
    for end in &ends {
        if end.0.is_err() {
            assert_failed_at_deadline(end, seconds(1.0));
        }
    }
    ends.into_iter().map(|(result, _)| result.is_ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn callers_that_keep_joining_do_not_keep_a_hanging_request_alive() {
    let stage = stage(0, Switches::unlimited());
    delay_tokens(&stage, 1, seconds(3600.0));
    let client = builder(&stage).build().unwrap();
    let ends = keep_calling(&client).await;
    // The request is given up after twice the client's timeout, at 6 s. The call made at 5.5 s still waits then.
    assert_eq!(ends.iter().position(|is_ok| *is_ok), Some(11), "{ends:?}");
    assert!(ends[11..].iter().all(|is_ok| *is_ok), "{ends:?}");
    assert_eq!(stage.token_fetches(), 2);
}

/// Counters of a token provider's calls.
#[derive(Default)]
struct ProviderCalls {
    all: AtomicUsize,
    running: AtomicUsize,
}

/// Counts a provider's call as running until the guard is dropped.
struct RunningProvider(Arc<ProviderCalls>);

impl Drop for RunningProvider {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client whose token provider takes `first` for its first call (`None`: it never returns), and returns
/// immediately after that.
fn client_with_slow_provider(stage: &Stage, first: Option<Duration>) -> (Client, Arc<ProviderCalls>) {
    let calls = Arc::new(ProviderCalls::default());
    let provider = {
        let (stage, calls) = (stage.clone(), calls.clone());
        move || {
            let (stage, number) = (stage.clone(), calls.all.fetch_add(1, Ordering::Relaxed));
            let running = RunningProvider(calls.clone());
            assert_eq!(
                calls.running.fetch_add(1, Ordering::Relaxed),
                0,
                "two calls of the provider overlap"
            );
            async move {
                let _running = running;
                match (number, first) {
                    (0, Some(first)) => sleep(first).await,
                    (0, None) => pending().await,
                    _ => {}
                }
                Ok(ProvidedToken::new(token_of(&stage).await).expires_in(seconds(3600.0)))
            }
        }
    };
    let client = Client::builder()
        .transport(super::OnStage::new(stage, round_trip(RTT)))
        .token_provider(provider)
        .rate_limit(None)
        .timeout(TIMEOUT)
        .build()
        .unwrap();
    (client, calls)
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_a_hanging_provider_fails_by_its_own_deadline() {
    let stage = stage(0, Switches::unlimited());
    let (client, calls) = client_with_slow_provider(&stage, None);
    let (first, second) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(2.8), TIMEOUT)
    );
    assert_failed_at_deadline(&first, TIMEOUT);
    assert_failed_at_deadline(&second, TIMEOUT);
    assert_eq!(calls.all.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_serves_a_caller_that_joined() {
    let stage = stage(0, Switches::unlimited());
    let (client, calls) = client_with_slow_provider(&stage, Some(seconds(4.0)));
    let (first, (second, took)) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(2.8), TIMEOUT)
    );
    assert_failed_at_deadline(&first, TIMEOUT);
    second.unwrap();
    assert!(took < seconds(1.3), "{took:?}");
    assert_eq!(calls.all.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_that_keep_joining_do_not_keep_a_hanging_provider_alive() {
    let stage = stage(0, Switches::unlimited());
    let (client, calls) = client_with_slow_provider(&stage, None);
    let ends = keep_calling(&client).await;
    assert_eq!(ends.iter().position(|is_ok| *is_ok), Some(11), "{ends:?}");
    assert!(ends[11..].iter().all(|is_ok| *is_ok), "{ends:?}");
    assert_eq!(calls.all.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_set_after_the_first_callers_deadline_serves_the_second() {
    let stage = stage(0, Switches::unlimited());
    let client = builder(&stage)
        .app(World::EXAMPLE_STORE_APP_ID, store_secret())
        .tenant_key(World::EXAMPLE_TENANT_KEY)
        .build()
        .unwrap();
    let events = async {
        sleep(seconds(4.0)).await;
        let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap();
        client.set_app_ticket(ticket).unwrap();
    };
    let (first, (second, took), ()) = tokio::join!(
        call_after(&client, Duration::ZERO, TIMEOUT),
        call_after(&client, seconds(2.8), TIMEOUT),
        events
    );
    assert_failed_at_deadline(&first, TIMEOUT);
    second.unwrap();
    assert!(took < seconds(1.5), "{took:?}");
}

/// No call waits for a renewal, so the deadline of the call that starts it does not apply to it.
#[tokio::test(start_paused = true)]
async fn a_renewal_has_the_clients_timeout() {
    let stage = stage(0, Switches::unlimited());
    let client = builder(&stage).build().unwrap();
    let began = Instant::now();
    call_after(&client, Duration::ZERO, TIMEOUT).await.0.unwrap();
    sleep_until(began + seconds(6000.0)).await;
    delay_tokens(&stage, 0, seconds(3600.0));
    let (result, took) = call_after(&client, Duration::ZERO, seconds(100.0)).await;
    result.unwrap();
    assert!(took <= RTT + SLACK, "{took:?}");
    assert_eq!(stage.token_fetches(), 2);
    // The renewal ends after 3 s, and the next one may start 10 s after that.
    for (wait, fetches) in [(12.9, 2), (0.2, 3)] {
        call_after(&client, seconds(wait), TIMEOUT).await.0.unwrap();
        assert_eq!(stage.token_fetches(), fetches);
    }
}
