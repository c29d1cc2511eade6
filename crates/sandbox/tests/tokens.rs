//! The token endpoints, tested on the model alone.

use std::time::Duration;

use feishu_feed_card_sandbox::{Model, Switches, World};
use http::Request;
use serde_json::{Value, json};

const STORE: &str = World::EXAMPLE_STORE_APP_ID;
const SECRET: &str = World::EXAMPLE_APP_SECRET;
const TENANT: &str = World::EXAMPLE_TENANT_KEY;

fn post(model: &mut Model, seconds: u64, path: &str, body: &Value) -> Value {
    let request = Request::post(format!("/open-apis/auth/v3/{path}")).body(body.to_string().into());
    let response = model.handle(request.unwrap_or_default(), Duration::from_secs(seconds));
    assert_eq!(response.status(), 200);
    serde_json::from_slice(response.body()).unwrap_or_default()
}

/// Fetches a token. Returns it with its `expire`.
fn fetch(model: &mut Model, seconds: u64) -> (String, i64) {
    let body = json!({"app_id": World::EXAMPLE_APP_ID, "app_secret": SECRET});
    let answer = post(model, seconds, "tenant_access_token/internal", &body);
    assert_eq!(answer["code"], 0);
    let token = answer["tenant_access_token"].as_str().unwrap_or_default();
    (token.to_owned(), answer["expire"].as_i64().unwrap_or_default())
}

/// Whether the platform accepts a call with this token.
fn is_valid(model: &mut Model, seconds: u64, token: &str) -> bool {
    let request = Request::patch(format!("/open-apis/im/v2/feed_cards/{}", World::EXAMPLE_CHAT))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(r#"{"time_sensitive":true,"user_ids":["ou_x"]}"#.into());
    let response = model.handle(request.unwrap_or_default(), Duration::from_secs(seconds));
    response.status() == 200
}

#[test]
fn a_token_with_half_an_hour_left_is_returned_again() {
    let mut model = Model::new(World::example());
    let (first, expire) = fetch(&mut model, 0);
    assert!(first.starts_with("t-"));
    assert_eq!(expire, 7200);
    assert_eq!(fetch(&mut model, 100), (first.clone(), 7100));
    assert_eq!(fetch(&mut model, 5400), (first.clone(), 1800));

    let (second, expire) = fetch(&mut model, 5401);
    assert_ne!(first, second);
    assert_eq!(expire, 7200);
    assert!(is_valid(&mut model, 7199, &first) && is_valid(&mut model, 7199, &second));
    assert_eq!(fetch(&mut model, 7199), (second.clone(), 5402));
    assert!(!is_valid(&mut model, 7200, &first) && is_valid(&mut model, 12_600, &second));
    assert!(!is_valid(&mut model, 12_601, &second));
}

#[test]
fn every_fetch_of_a_short_lived_token_returns_a_new_one() {
    let switches = Switches {
        token_life_s: 10,
        ..Switches::default()
    };
    let mut model = Model::new(World {
        switches,
        ..World::example()
    });
    let (first, expire) = fetch(&mut model, 0);
    assert_eq!(expire, 10);
    let (second, _) = fetch(&mut model, 1);
    assert_ne!(first, second);
    assert!(
        is_valid(&mut model, 9, &first)
            && !is_valid(&mut model, 10, &first)
            && is_valid(&mut model, 10, &second)
    );
}

#[test]
fn sandboxes_with_different_seeds_have_different_tokens() {
    let seeded = |seed| {
        fetch(
            &mut Model::new(World {
                seed: Some(seed),
                ..World::example()
            }),
            0,
        )
        .0
    };
    assert_ne!(seeded(1), seeded(2));
    assert_eq!(seeded(1), seeded(1));
}

#[test]
fn wrong_credentials_have_documented_codes() {
    let mut model = Model::new(World::example());
    let mut code = |path: &str, body: Value| post(&mut model, 0, path, &body)["code"].as_i64();
    let internal = "tenant_access_token/internal";
    let app = World::EXAMPLE_APP_ID;
    assert_eq!(
        code(internal, json!({"app_id": app, "app_secret": "wrong"})),
        Some(10014)
    );
    assert_eq!(
        code(internal, json!({"app_id": "cli_nobody", "app_secret": SECRET})),
        Some(10014)
    );
    assert_eq!(code(internal, json!({"app_id": app})), Some(10003));
    assert_eq!(
        code(internal, json!({"app_id": app, "app_secret": ""})),
        Some(10003)
    );
    assert_eq!(
        code(internal, json!({"app_id": app, "app_secret": 7})),
        Some(10003)
    );
    assert_eq!(code(internal, json!("no object")), Some(10003));
    assert_eq!(
        code(internal, json!({"app_id": STORE, "app_secret": SECRET})),
        Some(10016)
    );
    assert_eq!(
        code("tenant_access_token", json!({"app_access_token": "a-1"})),
        Some(10003)
    );
    assert_eq!(
        code(
            "tenant_access_token",
            json!({"app_access_token": "a-1", "tenant_key": TENANT})
        ),
        Some(10005)
    );
    assert_eq!(
        code("app_access_token", json!({"app_id": STORE, "app_secret": SECRET})),
        Some(10003)
    );
    assert_eq!(
        code(
            "app_ticket/resend",
            json!({"app_id": STORE, "app_secret": "wrong"})
        ),
        Some(10014)
    );

    model.set_switches(Switches {
        wrong_secret_code: 10015,
        ..Switches::default()
    });
    let answer = post(
        &mut model,
        0,
        internal,
        &json!({"app_id": app, "app_secret": "wrong"}),
    );
    assert_eq!(answer, json!({"code": 10015, "msg": "wrong app secret"}));
}

#[test]
fn a_store_app_exchanges_its_ticket_for_tokens() {
    let mut model = Model::new(World::example());
    let ticket = model.app_ticket(STORE).unwrap();
    let app_token = |model: &mut Model, seconds, ticket: &str| {
        let body = json!({"app_id": STORE, "app_secret": SECRET, "app_ticket": ticket});
        post(model, seconds, "app_access_token/", &body)
    };
    assert_eq!(app_token(&mut model, 0, "g-wrong")["code"], 10012);
    let response = app_token(&mut model, 0, &ticket);
    assert_eq!(
        (&response["code"], &response["expire"]),
        (&json!(0), &json!(7200))
    );
    assert_eq!(
        app_token(&mut model, 60, &ticket)["app_access_token"],
        response["app_access_token"]
    );

    let tenant = |model: &mut Model, seconds, key: &str| {
        let body = json!({"app_access_token": response["app_access_token"], "tenant_key": key});
        post(model, seconds, "tenant_access_token", &body)
    };
    assert_eq!(tenant(&mut model, 0, "tenant_of_others")["code"], 10013);
    let token = tenant(&mut model, 10, TENANT);
    assert_eq!(token["expire"], 7200);
    assert!(is_valid(
        &mut model,
        10,
        token["tenant_access_token"].as_str().unwrap()
    ));
    assert!(
        !is_valid(&mut model, 10, response["app_access_token"].as_str().unwrap()),
        "an app token is not a tenant token"
    );
    assert_eq!(
        tenant(&mut model, 7200, TENANT)["code"],
        10005,
        "the app token has expired"
    );
}

#[test]
fn a_new_ticket_invalidates_the_old_one() {
    let mut model = Model::new(World::example());
    let first = model.app_ticket(STORE).unwrap();
    let resent = post(
        &mut model,
        0,
        "app_ticket/resend/",
        &json!({"app_id": STORE, "app_secret": SECRET}),
    );
    assert_eq!(resent, json!({"code": 0, "msg": "ok"}));
    let second = model.app_ticket(STORE).unwrap();
    let third = model.rotate_app_ticket(STORE).unwrap();
    assert!(first != second && second != third);
    for (ticket, code) in [(first, 10012), (second, 10012), (third, 0)] {
        let body = json!({"app_id": STORE, "app_secret": SECRET, "app_ticket": ticket});
        assert_eq!(post(&mut model, 0, "app_access_token", &body)["code"], code);
    }
    assert_eq!(model.app_ticket("cli_nobody"), None);
    assert_eq!(model.rotate_app_ticket("cli_nobody"), None);
}
