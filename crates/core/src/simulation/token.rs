//! One fetch for all, renewal without waiting, and healing of revoked tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{USER, client, random, round_trip, stage, up_to};
use crate::{Client, Error, ErrorKind, ProvidedToken, Station};

const CHAT: &str = World::EXAMPLE_CHAT;
pub(super) const RTT: Duration = Duration::from_millis(40);

fn unpaced(stage: &Stage) -> Client {
    client(stage, round_trip(RTT)).rate_limit(None).build().unwrap()
}

pub(super) async fn pin(client: &Client) -> Result<(), Error> {
    client
        .set_time_sensitive(CHAT, [USER], true)
        .await?
        .into_result()
        .map(drop)
}

#[tokio::test(start_paused = true)]
async fn cold_calls_share_one_fetch() {
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

/// Ten lives of a token, with revocations at random moments at least two round trips apart.
#[tokio::test(start_paused = true)]
async fn ten_lives_with_revocations_reach_no_caller() {
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
            // Now one after another, now many at once.
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
async fn a_renewal_keeps_nobody_waiting() {
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
    // 20 hours; a token serves 7,200 s less the margin of 25 minutes.
    assert_eq!(stage.token_fetches(), 1 + 72_000 / 5_700);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_runs_no_timer() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(100 * 3600)).await;
    assert_eq!(stage.token_fetches(), 1);
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_or_missing_expire_neither_loops_nor_hammers() {
    // What the answer says, and the most fetches a minute, of 25 calls a second.
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
async fn every_token_code_heals_whatever_the_status() {
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
async fn a_refused_fresh_token_is_an_error_and_no_loop() {
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
async fn the_same_token_is_not_sent_again() {
    // The platform hands the refused token out again: replaying it would fail the same way.
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
    // Refused at once on the platform, but the answer takes ten seconds.
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
async fn a_caller_that_gives_up_does_not_take_the_fetch_away() {
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
async fn a_failed_fetch_is_told_to_all_who_waited_and_tried_again_by_the_next() {
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
async fn a_failed_renewal_lets_the_old_token_serve() {
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
        "{fetches}: one renewal of 4 attempts every ten seconds or so"
    );
}

#[tokio::test(start_paused = true)]
async fn a_given_token_cannot_be_renewed_and_says_so() {
    let stage = stage(0, Switches::unlimited());
    let client = super::given_token(&stage, "t-unknown");
    let error = pin(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Authentication, 1));
    assert!(error.hint().unwrap().contains("cannot be renewed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_once_and_again_after_a_refusal() {
    let stage = stage(0, Switches::unlimited());
    let asked = Arc::new(AtomicUsize::new(0));
    let provider = {
        let (stage, asked) = (stage.clone(), asked.clone());
        move || {
            let (stage, asked) = (stage.clone(), asked.clone());
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
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
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    stage.revoke_tokens();
    pin(&client).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_or_panics_is_told() {
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

/// A provider chosen at run time, and user ids as slices have them.
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

/// Panics before there is a future, as a closure's own first lines may.
struct PanicsAtOnce;

impl crate::TokenProvider for PanicsAtOnce {
    fn tenant_access_token(&self, _: crate::TokenReason<'_>) -> crate::Providing {
        panic!("a bug")
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_at_once_is_told_to_all_and_asked_again() {
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

/// Returns the tokens in turn, the last one for ever, and records what it was called with.
struct Recording {
    tokens: Mutex<Vec<String>>,
    reasons: Arc<Mutex<Vec<Option<String>>>>,
}

impl Recording {
    fn client(stage: &Stage, tokens: Vec<String>) -> (Client, Arc<Mutex<Vec<Option<String>>>>) {
        let reasons = Arc::<Mutex<_>>::default();
        let provider = Self {
            tokens: Mutex::new(tokens),
            reasons: reasons.clone(),
        };
        let client = Client::builder()
            .transport(super::OnStage::new(stage, round_trip(RTT)))
            .token_provider(provider)
            .build()
            .unwrap();
        (client, reasons)
    }
}

impl crate::TokenProvider for Recording {
    fn tenant_access_token(&self, reason: crate::TokenReason<'_>) -> crate::Providing {
        let refused = reason.refused_token().map(str::to_owned);
        if let Some(token) = &refused {
            assert!(!format!("{reason:?}").contains(token), "{reason:?}");
        }
        self.reasons.lock().unwrap().push(refused);
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
    let (client, reasons) = Recording::client(&stage, vec![revoked.clone(), token]);
    pin(&client).await.unwrap();
    assert_eq!(*reasons.lock().unwrap(), [None, Some(revoked.clone())]);
    // Neither a renewal nor the end of a token that was accepted is a refusal.
    sleep(Duration::from_secs(90)).await;
    pin(&client).await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    pin(&client).await.unwrap();
    assert_eq!(*reasons.lock().unwrap(), [None, Some(revoked), None, None]);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_not_sent_again() {
    let stage = stage(0, Switches::unlimited());
    let revoked = super::token_of(&stage).await;
    stage.revoke_tokens();
    let before = stage.requests().len();
    let (client, reasons) = Recording::client(&stage, vec![revoked.clone()]);
    let error = pin(&client).await.unwrap_err();
    assert_eq!(stage.requests().len(), before + 1);
    assert_eq!(*reasons.lock().unwrap(), [None, Some(revoked.clone())]);
    assert_eq!(
        (error.kind(), error.station(), error.attempts()),
        (ErrorKind::Authentication, Some(Station::Token), 1)
    );
    assert_eq!(error.platform_code(), Some(99_991_663));
    assert_eq!(error.users().failed, [USER]);
    let printed = error.to_string();
    for part in [
        "returned the token that the platform had refused",
        "as its argument",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(
        !printed.contains("A new token") && !printed.contains(&revoked),
        "{printed}"
    );
}

/// A client whose provider does at its first, second, … asking what `ask` says.
fn asking<T>(stage: &Stage, ask: impl Fn(usize) -> T + Send + Sync + 'static) -> (Client, Arc<AtomicUsize>)
where
    T: Future<Output = Result<ProvidedToken, crate::BoxError>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let client = Client::builder()
        .transport(super::OnStage::new(stage, round_trip(RTT)))
        .token_provider(move || ask(counted.fetch_add(1, Ordering::Relaxed) + 1))
        .build()
        .unwrap();
    (client, asked)
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_brings_a_token_refused_meanwhile_is_made_again() {
    let stage = stage(0, Switches::unlimited());
    let (revoked, platform) = (super::token_of(&stage).await, stage.clone());
    let (client, asked) = asking(&stage, move |number| {
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
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_asked_again_by_the_next_call() {
    let stage = stage(0, Switches::unlimited());
    let platform = stage.clone();
    let (client, asked) = asking(&stage, move |number| {
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
    assert_eq!(asked.load(Ordering::Relaxed), 2);

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
async fn a_provider_that_was_stopped_is_asked_again_for_those_who_wait() {
    let stage = stage(0, Switches::unlimited());
    let platform = stage.clone();
    let (client, asked) = asking(&stage, move |number| {
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
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_always_stopped_keeps_nobody_waiting() {
    let stage = stage(0, Switches::unlimited());
    let (client, asked) = asking(&stage, |_| async { Err(crate::binding::Abandoned.into()) });
    let error = pin(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::Authentication, Some(Station::Token))
    );
    assert!(error.hint().unwrap().contains("call again"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_stopped_while_a_refused_token_is_replaced_is_asked_again() {
    let stage = stage(0, Switches::unlimited());
    let (revoked, platform) = (super::token_of(&stage).await, stage.clone());
    let (client, asked) = asking(&stage, move |number| {
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
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_token_serves_until_its_end_and_not_then() {
    const LIFE: Duration = Duration::from_secs(10);
    const FETCH: Duration = Duration::from_secs(1);
    for (earlier, waits) in [(Duration::from_millis(1), false), (Duration::ZERO, true)] {
        let stage = stage(0, Switches::unlimited());
        let platform = stage.clone();
        let (client, _) = asking(&stage, move |_| {
            let platform = platform.clone();
            async move {
                sleep(FETCH).await;
                Ok(ProvidedToken::new(super::token_of(&platform).await).expires_in(LIFE))
            }
        });
        // Onto the clock's tick, so that the last moment is the last moment.
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
async fn a_new_token_that_was_taken_and_then_revoked_is_replaced_as_well() {
    let stage = stage(0, Switches::unlimited());
    let client = unpaced(&stage);
    let revoked = Fault {
        code: Some(99_991_663),
        revoke_tokens: true,
        ..Fault::on_call()
    };
    // In between the platform takes the token, as it says something else of the call.
    let busy = Fault {
        code: Some(2200),
        ..Fault::on_call()
    };
    stage.faults([revoked.clone(), busy, revoked]);
    pin(&client).await.unwrap();
    assert_eq!(stage.token_fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_a_fetch_that_would_begin_when_its_time_is_over_is_not_waited_for() {
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
        // Onto the clock's tick, so that the last moment is the last moment.
        sleep(RTT).await;
        let began = Instant::now();
        assert_eq!(
            pin(&client).await.is_ok(),
            waits,
            "told {wait} s after {RTT:?}, of 20 s"
        );
        assert_eq!(began.elapsed() > Duration::from_secs(1), waits);
    }
}

/// A told wait is worth waiting for only while somebody may still need the token.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_cannot_end_in_time_fails_at_once_with_what_it_saw() {
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
