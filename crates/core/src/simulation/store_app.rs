//! How a store app gets a tenant token: it exchanges its ticket for an app token, and that for a tenant token.

use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{RTT, client, pin, round_trip, stage};
use crate::{ErrorKind, Station};

fn store_app(stage: &Stage) -> crate::ClientBuilder {
    client(stage, round_trip(RTT))
        .app(World::EXAMPLE_STORE_APP_ID, super::store_secret())
        .tenant_key(World::EXAMPLE_TENANT_KEY)
}

#[tokio::test(start_paused = true)]
async fn a_store_app_exchanges_its_ticket_for_an_app_token_and_a_tenant_token() {
    let stage = stage(0, Switches::unlimited());
    let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap();
    let client = store_app(&stage).app_ticket(ticket).build().unwrap();
    pin(&client).await.unwrap();
    pin(&client).await.unwrap();
    assert_eq!(stage.request_count(), 2 + 2, "two token requests for two calls");
    stage.revoke_tokens();
    pin(&client).await.unwrap();
    assert_eq!(stage.request_count(), 4 + 1 + 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_app_without_a_valid_ticket_requests_one() {
    for given in [None, Some("an old ticket")] {
        let stage = stage(0, Switches::unlimited());
        let mut builder = store_app(&stage);
        if let Some(ticket) = given {
            builder = builder.app_ticket(ticket);
        }
        let client = builder.build().unwrap();
        let before = stage.app_ticket(World::EXAMPLE_STORE_APP_ID);
        // Passes each new ticket to the client, as the app's event endpoint does.
        let events = tokio::spawn({
            let (stage, client) = (stage.clone(), client.clone());
            async move {
                while stage.app_ticket(World::EXAMPLE_STORE_APP_ID) == before {
                    sleep(Duration::from_millis(50)).await;
                }
                client
                    .set_app_ticket(stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap())
                    .unwrap();
            }
        });
        pin(&client).await.unwrap();
        events.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_if_the_requested_ticket_does_not_arrive() {
    let stage = stage(0, Switches::unlimited());
    let client = store_app(&stage).build().unwrap();
    let began = Instant::now();
    let error = pin(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::Authentication, Some(Station::Token))
    );
    assert!(error.hint().unwrap().contains("set_app_ticket"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(6));
}

fn with_ticket(stage: &Stage) -> crate::ClientBuilder {
    let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap();
    store_app(stage).rate_limit(None).app_ticket(ticket)
}

/// The number of requests for an app token.
fn app_token_requests(stage: &Stage) -> usize {
    let requests = stage.requests();
    requests
        .iter()
        .filter(|request| request.path.ends_with("/app_access_token"))
        .count()
}

/// Sets the `expire` of the next app token, and of every tenant token after it.
fn set_expire(stage: &Stage, app_token: Value, tenant_tokens: Value) {
    stage.faults([
        Fault {
            expire: Some(app_token),
            ..Fault::on_token()
        },
        Fault {
            times: 0,
            expire: Some(tenant_tokens),
            ..Fault::on_token()
        },
    ]);
}

#[tokio::test(start_paused = true)]
async fn an_app_token_is_used_until_25_minutes_or_half_of_its_life_before_its_end() {
    for (life, serves_s) in [(json!(7200), 5700), (json!(600), 300), (json!(null), 30)] {
        for (earlier, app_tokens) in [(Duration::from_secs(1), 1), (Duration::ZERO, 2)] {
            let stage = stage(0, Switches::unlimited());
            let client = with_ticket(&stage).build().unwrap();
            set_expire(&stage, life.clone(), json!(1));
            // tokio rounds timers up to whole milliseconds. Start on one, so that the times below are exact.
            sleep(RTT).await;
            let answered = Instant::now() + RTT;
            pin(&client).await.unwrap();
            sleep_until(answered + Duration::from_secs(serves_s) - earlier).await;
            pin(&client).await.unwrap();
            assert_eq!(
                (app_token_requests(&stage), stage.token_fetches()),
                (app_tokens, 2),
                "{earlier:?} before {serves_s} s of an expire of {life}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_token_revoked_on_the_platform_is_replaced_within_the_call() {
    let stage = stage(0, Switches::unlimited());
    let client = with_ticket(&stage).build().unwrap();
    set_expire(&stage, json!(7200), json!(1));
    pin(&client).await.unwrap();
    stage.revoke_tokens();
    sleep(Duration::from_secs(1)).await;
    pin(&client).await.unwrap();
    assert_eq!(app_token_requests(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn a_busy_platform_discards_neither_the_app_token_nor_the_ticket() {
    // After 6,000 s both tokens have expired, after 1 s only the tenant token.
    for (idle_s, app_tokens) in [(6000, 3), (1, 1)] {
        let stage = stage(0, Switches::unlimited());
        let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID);
        let client = with_ticket(&stage).max_retries(0).build().unwrap();
        set_expire(&stage, json!(7200), json!(1));
        pin(&client).await.unwrap();
        stage.clear_faults();
        sleep(Duration::from_secs(idle_s)).await;
        stage.fault(Fault {
            code: Some(2200),
            ..Fault::on_token()
        });
        let began = Instant::now();
        let error = pin(&client).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.station(), error.attempts()),
            (ErrorKind::Server, Some(Station::Token), 1)
        );
        assert!(began.elapsed() <= RTT + Duration::from_millis(2));
        pin(&client).await.unwrap();
        assert_eq!(app_token_requests(&stage), app_tokens);
        assert_eq!(stage.app_ticket(World::EXAMPLE_STORE_APP_ID), ticket);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_until_a_new_ticket_is_set() {
    for is_new in [false, true] {
        let stage = stage(0, Switches::unlimited());
        let client = store_app(&stage)
            .rate_limit(None)
            .app_ticket("an old ticket")
            .build()
            .unwrap();
        let assert_refused = |error: crate::Error| {
            assert_eq!(
                (error.kind(), error.platform_code()),
                (ErrorKind::Authentication, Some(10012))
            );
        };
        assert_refused(pin(&client).await.unwrap_err());
        let requests = app_token_requests(&stage);
        if is_new {
            let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap();
            client.set_app_ticket(ticket).unwrap();
            pin(&client).await.unwrap();
        } else {
            assert_refused(pin(&client).await.unwrap_err());
            assert_eq!(app_token_requests(&stage), requests);
        }
    }
}
