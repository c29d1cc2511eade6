//! Calls over a real socket.

mod common;

use std::time::Duration;

use common::{App, CHAT, OUTSIDER, USER, read};
use feishu_feed_card_sandbox::{Interface, Sandbox, World};
use serde_json::json;

#[tokio::test]
async fn pins_the_example_chat_and_lists_users_who_are_not_members() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    let answer = app
        .call(
            CHAT,
            &json!({"time_sensitive": true, "user_ids": [USER, OUTSIDER]}),
        )
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-tt-logid"), answer.header("x-request-id"));
    assert_eq!(
        answer.json(),
        json!({"code": 0, "msg": "success", "data": {"failed_user_reasons": [{
            "error_code": 0,
            "error_message": "The user is not in the chat",
            "user_id": OUTSIDER,
        }]}})
    );
    assert_eq!(sandbox.pinned(USER), [CHAT]);
    assert_eq!(sandbox.pinned(OUTSIDER), [""; 0]);
    assert_eq!(sandbox.pinned_users(CHAT), [USER]);
    assert_eq!(sandbox.max_in_window(Interface::Group, Duration::from_secs(1)), 1);
    assert_eq!(sandbox.token_fetches(), 1);

    let [fetch, call] = sandbox.requests().try_into().unwrap();
    assert_eq!(
        (fetch.status, fetch.code, fetch.token),
        (Some(200), Some(0), None)
    );
    assert_eq!(
        (call.status, call.code, call.token),
        (Some(200), Some(0), Some(1))
    );
    assert_eq!(fetch.body, json!({"app_id": "cli_example", "app_secret": "***"}));
    assert_eq!(call.authorization.as_deref(), Some("Bearer"));
    assert_eq!((fetch.connection, call.connection), (1, 1));
    assert!(fetch.arrived <= call.arrived && call.received <= sandbox.now());

    app.pin(false).await.unwrap();
    assert_eq!(sandbox.pinned_users(CHAT), [""; 0]);
}

#[tokio::test]
async fn the_bots_own_chat_has_a_separate_interface() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    let body = json!({"time_sensitive": true, "user_ids": [OUTSIDER, "ou_nobody"]});
    let answer = app
        .call("bot_time_sentive?user_id_type=open_id", &body)
        .await
        .unwrap();
    assert_eq!(
        answer.json()["data"]["failed_user_reasons"][0]["user_id"],
        "ou_nobody"
    );
    assert_eq!(sandbox.bot_pinned(OUTSIDER), [World::EXAMPLE_APP_ID]);
    assert_eq!(sandbox.bot_pinned_users(World::EXAMPLE_APP_ID), [OUTSIDER]);
    assert_eq!(sandbox.pinned(OUTSIDER), [""; 0]);
    assert_eq!(sandbox.max_in_window(Interface::Group, Duration::from_secs(1)), 0);
    assert_eq!(sandbox.max_in_window(Interface::Bot, Duration::from_secs(1)), 1);
}

#[tokio::test]
async fn an_id_may_be_percent_encoded_and_a_token_request_has_no_content_type() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    let encoded = CHAT.replace('_', "%5F");
    let answer = app
        .call(&encoded, &json!({"time_sensitive": true, "user_ids": [USER]}))
        .await
        .unwrap();
    assert_eq!(answer.code(), 0, "{}", answer.text);
    assert_eq!(sandbox.pinned(USER), [CHAT]);

    let url = format!("{}/open-apis/auth/v3/tenant_access_token/internal/", app.base);
    let body = r#"{"app_id": "cli_example", "app_secret": "example-secret"}"#;
    let answer = read(app.http.post(url).body(body)).await.unwrap();
    assert_eq!(answer.json()["tenant_access_token"], app.token);
}
