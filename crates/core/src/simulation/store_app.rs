//! A store app's way to a token: from its ticket to an app token, and from that to a tenant's.

use std::time::Duration;

use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::token::{RTT, pin};
use super::{client, round_trip, stage};
use crate::{ErrorKind, Station};

fn store_app(stage: &Stage) -> crate::ClientBuilder {
    client(stage, round_trip(RTT))
        .app(World::EXAMPLE_STORE_APP_ID, super::store_secret())
        .tenant_key(World::EXAMPLE_TENANT_KEY)
}

#[tokio::test(start_paused = true)]
async fn a_store_app_goes_by_ticket_app_token_and_tenant_token() {
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
async fn a_store_app_without_a_good_ticket_asks_for_one() {
    for given in [None, Some("an old ticket")] {
        let stage = stage(0, Switches::unlimited());
        let mut builder = store_app(&stage);
        if let Some(ticket) = given {
            builder = builder.app_ticket(ticket);
        }
        let client = builder.build().unwrap();
        let before = stage.app_ticket(World::EXAMPLE_STORE_APP_ID);
        // What the app's event endpoint would do.
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
async fn a_store_app_whose_ticket_never_comes_is_told() {
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

/// How often the platform was asked for an app token.
fn app_tokens(stage: &Stage) -> usize {
    let requests = stage.requests();
    requests
        .iter()
        .filter(|request| request.path.ends_with("/app_access_token"))
        .count()
}

/// The next app token's `expire`, and that of all tenant tokens after it.
fn expire(stage: &Stage, app_token: Value, tenant_tokens: Value) {
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
async fn an_app_token_makes_tenant_tokens_until_25_minutes_or_half_its_life_before_its_end() {
    for (life, serves_s) in [(json!(7200), 5700), (json!(600), 300), (json!(null), 30)] {
        for (earlier, asked) in [(Duration::from_secs(1), 1), (Duration::ZERO, 2)] {
            let stage = stage(0, Switches::unlimited());
            let client = with_ticket(&stage).build().unwrap();
            expire(&stage, life.clone(), json!(1));
            // Onto the clock's tick, so that the last moment is the last moment.
            sleep(RTT).await;
            let answered = Instant::now() + RTT;
            pin(&client).await.unwrap();
            sleep_until(answered + Duration::from_secs(serves_s) - earlier).await;
            pin(&client).await.unwrap();
            assert_eq!(
                (app_tokens(&stage), stage.token_fetches()),
                (asked, 2),
                "{earlier:?} before {serves_s} s of an expire of {life}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_token_revoked_on_the_platform_is_replaced_within_the_call() {
    let stage = stage(0, Switches::unlimited());
    let client = with_ticket(&stage).build().unwrap();
    expire(&stage, json!(7200), json!(1));
    pin(&client).await.unwrap();
    stage.revoke_tokens();
    sleep(Duration::from_secs(1)).await;
    pin(&client).await.unwrap();
    assert_eq!(app_tokens(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn a_busy_platform_costs_neither_the_app_token_nor_the_ticket() {
    // Both tokens have ended, or the tenant's alone.
    for (idle_s, asked) in [(6000, 3), (1, 1)] {
        let stage = stage(0, Switches::unlimited());
        let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID);
        let client = with_ticket(&stage).max_retries(0).build().unwrap();
        expire(&stage, json!(7200), json!(1));
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
        assert_eq!(app_tokens(&stage), asked);
        assert_eq!(stage.app_ticket(World::EXAMPLE_STORE_APP_ID), ticket);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_ticket_ends_the_memory_of_a_refused_one() {
    for is_new in [false, true] {
        let stage = stage(0, Switches::unlimited());
        let client = store_app(&stage)
            .rate_limit(None)
            .app_ticket("an old ticket")
            .build()
            .unwrap();
        let refused = |error: crate::Error| assert_eq!(error.platform_code(), Some(10012));
        refused(pin(&client).await.unwrap_err());
        let asked = app_tokens(&stage);
        if is_new {
            let ticket = stage.app_ticket(World::EXAMPLE_STORE_APP_ID).unwrap();
            client.set_app_ticket(ticket).unwrap();
            pin(&client).await.unwrap();
        } else {
            refused(pin(&client).await.unwrap_err());
            assert_eq!(app_tokens(&stage), asked);
        }
    }
}
