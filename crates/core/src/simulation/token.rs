//! Token fetches: one for all callers, renewal in the background, and replacement of refused tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{RTT, USER, client, pin, random, round_trip, stage, up_to};
use crate::{Client, Error, ErrorKind, ProvidedToken, Station};

const CHAT: &str = World::EXAMPLE_CHAT;

fn unpaced(stage: &Stage) -> Client {
    client(stage, round_trip(RTT)).rate_limit(None).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_calls_share_one_fetch() {
    for calls in [50, 1000] {
        let stage = stage(0, Switches::unlimited());
        let client = unpaced(&stage);
        let began = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..calls {
            let client = client.clone();
            running.spawn(async move { pin(&client).await });
        }
        for result in running.join_all().await {
            result.unwrap();
        }
        assert_eq!(stage.token_fetches(), 1, "{calls} calls");
        assert!(began.elapsed() <= RTT * 2 + Duration::from_millis(2));
    }
}

/// Ten token lives, with revocations at random moments at least two round trips apart. No call may fail.
#[tokio::test(start_paused = true)]
async fn revocations_during_ten_token_lives_fail_no_call() {
    const CALLS: u32 = 10_000;
    for seed in 0..5 {
        let stage = stage(0, Switches::unlimited());
        let client = unpaced(&stage);
        let mut random = random(seed);
        let span = Duration::from_secs(10 * 7200);
        let revocations = Arc::new(AtomicUsize::new(0));
        let revoker = {
            let (stage, mut random, revocations) = (stage.clone(), random.fork(), revocations.clone());
            tokio::spawn(async move {
                loop {
                    sleep(RTT * 2 + up_to(&mut random, Duration::from_secs(600))).await;
                    stage.revoke_tokens();
                    revocations.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let mut running = JoinSet::new();
        for _ in 0..CALLS {
            let client = client.clone();
            running.spawn(async move { pin(&client).await });
            // A quarter of the calls start together with the next one.
            if random.u32(..4) > 0 {
                sleep(up_to(&mut random, span / CALLS * 8 / 3)).await;
            }
        }
        for result in running.join_all().await {
            result.unwrap();
        }
        revoker.abort();
        let revocations = revocations.load(Ordering::Relaxed) as u64;
        let fetches = stage.token_fetches();
        println!("seed {seed}: {CALLS} calls, {revocations} revocations, {fetches} fetches");
        assert!(revocations > 150);
        assert!(
            fetches <= revocations + 12,
            "{fetches} fetches for {revocations} revocations"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_a_renewal() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    for _ in 0..600 {
        sleep(Duration::from_secs(120)).await;
        let began = Instant::now();
        pin(&client).await.unwrap();
        assert!(
            began.elapsed() <= RTT + Duration::from_millis(2),
            "a call waited for a token"
        );
    }
    // The calls take 20 hours. A token is used for 7,200 s less the margin of 25 minutes.
    assert_eq!(stage.token_fetches(), 1 + 72_000 / 5_700);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_does_not_renew_its_token() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(100 * 3600)).await;
    assert_eq!(stage.token_fetches(), 1);
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_or_missing_expire_limits_the_number_of_fetches() {
    // `expire` in the response, and the most fetches in a minute of 25 calls a second.
    let cases = [
        (json!(0), 121),
        (json!(1), 121),
        (json!(10), 13),
        (json!(null), 3),
        (json!("10"), 13),
        (json!(-5), 121),
        (json!("soon"), 3),
        (json!(1e300), 1),
        (json!([7200]), 3),
    ];
    for (expire, most) in cases {
        let stage = stage(0, Switches::unlimited());
        stage.fault(Fault {
            times: 0,
            expire: Some(expire.clone()),
            ..Fault::on_token()
        });
        let client = unpaced(&stage);
        for _ in 0..6000 {
            pin(&client).await.unwrap();
        }
        let fetches = stage.token_fetches();
        // 6,000 calls take four minutes.
        assert!(
            (1..=most * 4).contains(&fetches),
            "{fetches} fetches with an expire of {expire}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_for_all() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    stage.revoke_tokens();
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        running.spawn(async move { pin(&client).await });
    }
    for result in running.join_all().await {
        result.unwrap();
    }
    assert_eq!(stage.token_fetches(), 2);
    assert_eq!(stage.request_count(), 2 + 1 + 50 + 50);
}

#[tokio::test(start_paused = true)]
async fn every_token_code_with_any_status_gets_another_token() {
    for code in [99_991_663, 99_991_664, 99_991_665, 99_991_671] {
        for status in [200, 400, 401, 500] {
            let stage = stage(0, Switches::unlimited());
            let client = unpaced(&stage);
            stage.fault(Fault {
                code: Some(code),
                status: http::StatusCode::from_u16(status).ok(),
                revoke_tokens: true,
                ..Fault::on_call()
            });
            pin(&client).await.unwrap();
            assert_eq!(stage.token_fetches(), 2, "code {code}, status {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_new_token_ends_the_call() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    stage.fault(Fault {
        times: 0,
        code: Some(99_991_663),
        revoke_tokens: true,
        ..Fault::on_call()
    });
    let error = pin(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(error.platform_code(), Some(99_991_663));
    assert_eq!(error.attempts(), 2);
    assert_eq!(stage.token_fetches(), 2);
    assert_eq!(error.users().failed, [USER]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_is_fetched_again_ends_the_call() {
    // The platform returns the refused token again, so a retry with it would fail in the same way.
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    stage.fault(Fault {
        times: 0,
        code: Some(99_991_663),
        ..Fault::on_call()
    });
    let error = pin(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!((error.attempts(), stage.token_fetches()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_does_not_evict_a_newer_token() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    // The platform refuses the token immediately, but its answer takes ten seconds.
    stage.revoke_tokens();
    stage.fault(Fault {
        delay_after_ms: 10_000,
        ..Fault::on_call()
    });
    let slow = tokio::spawn({
        let client = client.clone();
        async move { pin(&client).await }
    });
    sleep(RTT).await;
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 2);
    slow.await.unwrap().unwrap();
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlives_the_caller_that_started_it() {
    let stage = stage(0, Switches::unlimited());
    stage.fault(Fault {
        delay_after_ms: 1000,
        ..Fault::on_token()
    });
    let client = unpaced(&stage);
    let first = tokio::spawn({
        let client = client.clone();
        async move { pin(&client).await }
    });
    sleep(Duration::from_millis(100)).await;
    let second = tokio::spawn({
        let client = client.clone();
        async move { pin(&client).await }
    });
    sleep(Duration::from_millis(100)).await;
    first.abort();
    second.await.unwrap().unwrap();
    assert_eq!(stage.token_fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_fails_all_its_callers_and_the_next_call_fetches_again() {
    let stage = stage(0, Switches::unlimited());
    stage.fault(Fault {
        times: 4,
        status: http::StatusCode::from_u16(502).ok(),
        html: true,
        ..Fault::on_token()
    });
    let client = unpaced(&stage);
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        running.spawn(async move { pin(&client).await });
    }
    for result in running.join_all().await {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.station()),
            (ErrorKind::Server, Some(Station::Token))
        );
        assert_eq!(
            (error.attempts(), &*error.users().not_attempted),
            (4, &[USER.to_owned()][..])
        );
    }
    assert_eq!(stage.token_fetches(), 4);
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_remembered_for_a_second() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(RTT))
        .app("cli_example", "wrong")
        .build()
        .unwrap();
    for _ in 0..1000 {
        let error = pin(&client).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.platform_code()),
            (ErrorKind::Authentication, Some(10014))
        );
    }
    assert_eq!(stage.token_fetches(), 1);
    sleep(Duration::from_secs(1)).await;
    assert!(pin(&client).await.is_err());
    assert_eq!(stage.token_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_old_token_is_used_after_a_failed_renewal() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(6000)).await;
    stage.fault(Fault {
        times: 0,
        status: http::StatusCode::from_u16(502).ok(),
        ..Fault::on_token()
    });
    for _ in 0..100 {
        pin(&client).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let fetches = stage.token_fetches();
    assert!(
        (20..=60).contains(&fetches),
        "{fetches} requests: expected about one renewal of 4 attempts in ten seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_fixed_token_ends_the_call() {
    let stage = stage(0, Switches::unlimited());
    let client = super::client_with_token(&stage, "t-unknown");
    let error = pin(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Authentication, 1));
    assert!(error.hint().unwrap().contains("cannot renew it"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_called_once_and_again_after_a_refusal() {
    let stage = stage(0, Switches::unlimited());
    let provider_calls = Arc::new(AtomicUsize::new(0));
    let provider = {
        let (stage, provider_calls) = (stage.clone(), provider_calls.clone());
        move || {
            let (stage, provider_calls) = (stage.clone(), provider_calls.clone());
            async move {
                provider_calls.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
                Ok(ProvidedToken::new(super::token_of(&stage).await).expires_in(Duration::from_secs(3600)))
            }
        }
    };
    let client = Client::builder()
        .transport(super::OnStage::new(&stage, round_trip(RTT)))
        .token_provider(provider)
        .rate_limit(None)
        .build()
        .unwrap();
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        running.spawn(async move { pin(&client).await });
    }
    for result in running.join_all().await {
        result.unwrap();
    }
    assert_eq!(provider_calls.load(Ordering::Relaxed), 1);
    stage.revoke_tokens();
    pin(&client).await.unwrap();
    assert_eq!(provider_calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_error_shows_that_a_provider_failed_or_panicked() {
    let stage = stage(0, Switches::unlimited());
    let client = |provider: fn() -> Result<ProvidedToken, crate::BoxError>| {
        Client::builder()
            .transport(super::OnStage::new(&stage, round_trip(RTT)))
            .token_provider(move || async move { provider() })
            .build()
            .unwrap()
    };
    let error = pin(&client(|| Err("the vault is sealed".into())))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(source_of(&error), "the vault is sealed");
    let error = pin(&client(|| panic!("a bug"))).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::Authentication, Some(Station::Token))
    );
    assert_eq!(source_of(&error), "it panicked");
    for token in ["two\nlines", "", " \n", "Bearer t-1", "bearer t-1"] {
        let client = Client::builder()
            .transport(super::OnStage::new(&stage, round_trip(RTT)))
            .token_provider(move || async move { Ok(ProvidedToken::new(token)) })
            .build()
            .unwrap();
        let error = pin(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{token:?}: {error}");
        assert_eq!(error.attempts(), 0, "{token:?}: nothing was sent");
    }
}

fn source_of(error: &Error) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

/// Compiles with a provider that is chosen at run time, and with user ids in a slice.
#[tokio::test(start_paused = true)]
async fn a_provider_may_be_shared_and_user_ids_borrowed() {
    let stage = stage(0, Switches::unlimited());
    let token = super::token_of(&stage).await;
    let provider = move || {
        let token = token.clone();
        async move { Ok(ProvidedToken::new(token)) }
    };
    let provider: Arc<dyn crate::TokenProvider> = Arc::new(provider);
    let client = Client::builder()
        .transport(super::OnStage::new(&stage, round_trip(RTT)))
        .token_provider(provider)
        .build()
        .unwrap();
    let user_ids: &[&str] = &[USER];
    let outcome = client.set_bot_time_sensitive(user_ids, true).await.unwrap();
    assert_eq!(outcome.users.reached, [USER]);
}

/// Panics before it returns a future, as the code of a closure before its `async` block may.
struct PanicsAtOnce;

impl crate::TokenProvider for PanicsAtOnce {
    fn tenant_access_token(&self, _: crate::TokenReason<'_>) -> crate::Providing {
        panic!("a bug")
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_before_its_future_fails_all_callers_and_is_called_again() {
    let stage = stage(0, Switches::unlimited());
    let client = Client::builder()
        .transport(super::OnStage::new(&stage, round_trip(RTT)))
        .token_provider(PanicsAtOnce)
        .build()
        .unwrap();
    for result in futures_util::future::join_all((0..10).map(|_| pin(&client))).await {
        assert_eq!(source_of(&result.unwrap_err()), "it panicked");
    }
    assert!(pin(&client).await.is_err());
}

/// A provider that returns the tokens in turn, then the last one forever. It records the refused token that it
/// gets with each call.
struct RecordingProvider {
    tokens: Mutex<Vec<String>>,
    refused_tokens: Arc<Mutex<Vec<Option<String>>>>,
}

impl RecordingProvider {
    fn client(stage: &Stage, tokens: Vec<String>) -> (Client, Arc<Mutex<Vec<Option<String>>>>) {
        let refused_tokens = Arc::<Mutex<_>>::default();
        let provider = Self {
            tokens: Mutex::new(tokens),
            refused_tokens: refused_tokens.clone(),
        };
        let client = Client::builder()
            .transport(super::OnStage::new(stage, round_trip(RTT)))
            .token_provider(provider)
            .build()
            .unwrap();
        (client, refused_tokens)
    }
}

impl crate::TokenProvider for RecordingProvider {
    fn tenant_access_token(&self, reason: crate::TokenReason<'_>) -> crate::Providing {
        let refused = reason.refused_token().map(str::to_owned);
        if let Some(token) = &refused {
            assert!(!format!("{reason:?}").contains(token), "{reason:?}");
        }
        self.refused_tokens.lock().unwrap().push(refused);
        let mut tokens = self.tokens.lock().unwrap();
        let token = if tokens.len() > 1 {
            tokens.remove(0)
        } else {
            tokens[0].clone()
        };
        Box::pin(async move { Ok(ProvidedToken::new(token).expires_in(Duration::from_secs(100))) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_learns_which_token_was_refused() {
    let stage = stage(0, Switches::unlimited());
    let revoked = super::token_of(&stage).await;
    stage.revoke_tokens();
    let token = super::token_of(&stage).await;
    let (client, refused_tokens) = RecordingProvider::client(&stage, vec![revoked.clone(), token]);
    pin(&client).await.unwrap();
    assert_eq!(*refused_tokens.lock().unwrap(), [None, Some(revoked.clone())]);
    // The provider gets no refused token for a renewal, or after the accepted token has expired.
    sleep(Duration::from_secs(90)).await;
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    pin(&client).await.unwrap();
    assert_eq!(*refused_tokens.lock().unwrap(), [None, Some(revoked), None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_a_provider_returns_again_ends_the_call() {
    let stage = stage(0, Switches::unlimited());
    let revoked = super::token_of(&stage).await;
    stage.revoke_tokens();
    let before = stage.requests().len();
    let (client, refused_tokens) = RecordingProvider::client(&stage, vec![revoked.clone()]);
    let error = pin(&client).await.unwrap_err();
    assert_eq!(stage.requests().len(), before + 1);
    assert_eq!(*refused_tokens.lock().unwrap(), [None, Some(revoked.clone())]);
    assert_eq!(
        (error.kind(), error.station(), error.attempts()),
        (ErrorKind::Authentication, Some(Station::Token), 1)
    );
    assert_eq!(error.platform_code(), Some(99_991_663));
    assert_eq!(error.users().failed, [USER]);
    let printed = error.to_string();
    for part in [
        "returned the token that the platform had refused",
        "refused_token",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(
        !printed.contains("new token as well") && !printed.contains(&revoked),
        "{printed}"
    );
}

/// A client whose token provider is `provide`, which gets the number of the call: 1, 2, ….
fn client_with_provider<T>(
    stage: &Stage,
    provide: impl Fn(usize) -> T + Send + Sync + 'static,
) -> (Client, Arc<AtomicUsize>)
where
    T: Future<Output = Result<ProvidedToken, crate::BoxError>> + Send + 'static,
{
    let provider_calls = Arc::new(AtomicUsize::new(0));
    let counted = provider_calls.clone();
    let client = Client::builder()
        .transport(super::OnStage::new(stage, round_trip(RTT)))
        .token_provider(move || provide(counted.fetch_add(1, Ordering::Relaxed) + 1))
        .build()
        .unwrap();
    (client, provider_calls)
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_returns_a_token_refused_meanwhile_is_repeated() {
    let stage = stage(0, Switches::unlimited());
    let (revoked, platform) = (super::token_of(&stage).await, stage.clone());
    let (client, provider_calls) = client_with_provider(&stage, move |number| {
        let (revoked, platform) = (revoked.clone(), platform.clone());
        async move {
            if number == 2 {
                sleep(Duration::from_secs(1)).await;
            }
            let token = if number < 3 {
                revoked
            } else {
                super::token_of(&platform).await
            };
            Ok(ProvidedToken::new(token).expires_in(Duration::from_secs(100)))
        }
    });
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    pin(&client).await.unwrap();
    stage.revoke_tokens();
    pin(&client).await.unwrap();
    assert_eq!(provider_calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_not_remembered() {
    let stage = stage(0, Switches::unlimited());
    let platform = stage.clone();
    let (client, provider_calls) = client_with_provider(&stage, move |number| {
        let platform = platform.clone();
        async move {
            if number == 1 {
                return Err("the vault is sealed".into());
            }
            Ok(ProvidedToken::new(super::token_of(&platform).await))
        }
    });
    assert_eq!(pin(&client).await.unwrap_err().kind(), ErrorKind::Authentication);
    pin(&client).await.unwrap();
    assert_eq!(provider_calls.load(Ordering::Relaxed), 2);

    stage.fault(Fault {
        code: Some(2200),
        ..Fault::on_token()
    });
    let client = super::client(&stage, round_trip(RTT))
        .max_retries(0)
        .build()
        .unwrap();
    assert_eq!(pin(&client).await.unwrap_err().platform_code(), Some(2200));
    pin(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_was_stopped_is_called_again_for_waiting_callers() {
    let stage = stage(0, Switches::unlimited());
    let platform = stage.clone();
    let (client, provider_calls) = client_with_provider(&stage, move |number| {
        let platform = platform.clone();
        async move {
            sleep(Duration::from_millis(100)).await;
            if number == 1 {
                return Err(crate::binding::Abandoned.into());
            }
            Ok(ProvidedToken::new(super::token_of(&platform).await))
        }
    });
    for result in futures_util::future::join_all((0..10).map(|_| pin(&client))).await {
        result.unwrap();
    }
    assert_eq!(provider_calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_always_stopped_fails_the_call() {
    let stage = stage(0, Switches::unlimited());
    let (client, provider_calls) =
        client_with_provider(&stage, |_| async { Err(crate::binding::Abandoned.into()) });
    let error = pin(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::Authentication, Some(Station::Token))
    );
    assert!(error.hint().unwrap().contains("Call again"), "{error}");
    assert_eq!(provider_calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_stopped_while_a_refused_token_is_replaced_is_called_again() {
    let stage = stage(0, Switches::unlimited());
    let (revoked, platform) = (super::token_of(&stage).await, stage.clone());
    let (client, provider_calls) = client_with_provider(&stage, move |number| {
        let (revoked, platform) = (revoked.clone(), platform.clone());
        async move {
            let token = match number {
                1 => revoked,
                2 => {
                    sleep(Duration::from_secs(1)).await;
                    revoked
                }
                3 => return Err(crate::binding::Abandoned.into()),
                _ => super::token_of(&platform).await,
            };
            Ok(ProvidedToken::new(token).expires_in(Duration::from_secs(100)))
        }
    });
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    pin(&client).await.unwrap();
    stage.revoke_tokens();
    pin(&client).await.unwrap();
    assert_eq!(provider_calls.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_just_before_its_end() {
    const LIFE: Duration = Duration::from_secs(10);
    const FETCH: Duration = Duration::from_secs(1);
    for (earlier, waits) in [(Duration::from_millis(1), false), (Duration::ZERO, true)] {
        let stage = stage(0, Switches::unlimited());
        let platform = stage.clone();
        let (client, _) = client_with_provider(&stage, move |_| {
            let platform = platform.clone();
            async move {
                sleep(FETCH).await;
                Ok(ProvidedToken::new(super::token_of(&platform).await).expires_in(LIFE))
            }
        });
        // tokio rounds timers up to whole milliseconds. Start on one, so that the times below are exact.
        sleep(RTT).await;
        let fetched = Instant::now() + FETCH;
        pin(&client).await.unwrap();
        sleep_until(fetched + LIFE - earlier).await;
        let began = Instant::now();
        pin(&client).await.unwrap();
        assert_eq!(began.elapsed() >= FETCH, waits, "{earlier:?} before its end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_was_accepted_and_then_revoked_is_replaced_too() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    let revoked = Fault {
        code: Some(99_991_663),
        revoke_tokens: true,
        ..Fault::on_call()
    };
    // Another error than a token code shows that the platform accepted the token.
    let busy = Fault {
        code: Some(2200),
        ..Fault::on_call()
    };
    stage.faults([revoked.clone(), busy, revoked]);
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_fails_at_once_if_its_retry_could_not_end_in_time() {
    for (wait, waits) in [("19.96", false), ("19.87", true)] {
        let stage = stage(0, Switches::unlimited());
        stage.fault(Fault {
            status: http::StatusCode::from_u16(503).ok(),
            headers: [(http::header::RETRY_AFTER, http::HeaderValue::from_static(wait))]
                .into_iter()
                .collect(),
            ..Fault::on_token()
        });
        let client = client(&stage, round_trip(RTT))
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        // tokio rounds timers up to whole milliseconds. Start on one, so that the times below are exact.
        sleep(RTT).await;
        let began = Instant::now();
        assert_eq!(
            pin(&client).await.is_ok(),
            waits,
            "a Retry-After of {wait} s after {RTT:?}, with a timeout of 20 s"
        );
        assert_eq!(began.elapsed() > Duration::from_secs(1), waits);
    }
}

/// A fetch waits for the platform's `Retry-After` only if a caller can still use the token after that.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_cannot_end_in_time_fails_at_once_with_its_last_failure() {
    for (timeout, waits) in [(10, false), (60, true)] {
        let stage = stage(0, Switches::unlimited());
        stage.fault(Fault {
            status: http::StatusCode::from_u16(503).ok(),
            html: true,
            headers: [(http::header::RETRY_AFTER, http::HeaderValue::from_static("40"))]
                .into_iter()
                .collect(),
            ..Fault::on_token()
        });
        let client = client(&stage, round_trip(RTT))
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let began = Instant::now();
        let call = client
            .set_time_sensitive(CHAT, [USER], true)
            .timeout(Duration::from_secs(timeout));
        let result = call.await;
        if waits {
            assert!(result.unwrap().ok());
            assert_eq!(began.elapsed().as_secs(), 40);
        } else {
            let error = result.unwrap_err();
            assert_eq!(
                (error.kind(), error.station()),
                (ErrorKind::Server, Some(Station::Token))
            );
            assert_eq!(error.retry_after(), Some(Duration::from_secs(40)));
            assert!(began.elapsed() < Duration::from_secs(1));
        }
    }
}
