//! The app's options from the environment, and two processes that share an app.

use std::time::{Duration, Instant};

use feishu_feed_card::{Client, ClientBuilder};
use feishu_feed_card_sandbox::{Sandbox, World};

use super::{CHAT, USER, app, in_process, pin, test_base_url};

/// Two processes that share an app and not its quota, at the platform's own limits:
/// `cargo test -p feishu-feed-card --test network -- --ignored --nocapture two_processes`.
#[test]
#[ignore = "takes three minutes or more, as the quota has it"]
fn two_processes_get_all_their_calls_through() {
    const CALLS: usize = 1500;
    let sandbox = Sandbox::builder().start().unwrap();
    let variables = [
        ("TEST_BASE_URL", sandbox.base_url()),
        ("TEST_CALLS", CALLS.to_string()),
    ];
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| in_process("environment::in_env_all_calls_succeed", &variables));
        }
    });
    let records = sandbox.requests();
    let with = |code| {
        records
            .iter()
            .filter(|record| record.code == Some(code) && record.method == "PATCH")
            .count()
    };
    let (done, refused, most) = (with(0), with(99_991_400), 50 + 2 * CALLS / 20);
    println!(
        "2 processes, {CALLS} calls each: {:?}, {refused} refused of at most {most}",
        began.elapsed()
    );
    assert_eq!(done, 2 * CALLS);
    assert!(refused <= most);
}

#[tokio::test]
#[ignore = "run by two_processes_get_all_their_calls_through"]
async fn in_env_all_calls_succeed() {
    let client = app()
        .base_url(test_base_url())
        .timeout(Duration::from_secs(600))
        .build()
        .unwrap();
    let calls: usize = std::env::var("TEST_CALLS").unwrap().parse().unwrap();
    let calls = (0..calls).map(|_| client.set_time_sensitive(CHAT, [USER], true).into_future());
    for outcome in futures_util::future::join_all(calls).await {
        assert!(outcome.unwrap().ok());
    }
}

#[test]
fn the_environment_names_the_app() {
    let sandbox = Sandbox::builder().start().unwrap();
    let variables = [
        ("FEISHU_APP_ID", World::EXAMPLE_APP_ID.to_owned()),
        ("FEISHU_APP_SECRET", World::EXAMPLE_APP_SECRET.to_owned()),
        ("FEISHU_BASE_URL", sandbox.base_url()),
    ];
    in_process("environment::in_env_the_app_is_known", &variables);
    assert_eq!(sandbox.pinned_users(CHAT), [USER]);
}

#[tokio::test]
#[ignore = "run by the_environment_names_the_app"]
async fn in_env_the_app_is_known() {
    assert!(pin(&Client::from_env().unwrap()).await.unwrap().ok());
    let error = Client::builder().app_secret("").from_env().build().unwrap_err();
    assert_eq!(
        error.field(),
        Some("app_secret"),
        "what is given counts, also when it is empty"
    );
}

#[test]
fn an_error_about_a_value_of_the_environment_names_the_variable() {
    in_process(
        "environment::in_env_values_are_wrong",
        &[("FEISHU_APP_ID", "cli_1".to_owned())],
    );
    let variables = [
        ("FEISHU_APP_ID", " ".to_owned()),
        ("FEISHU_APP_SECRET", "secret".to_owned()),
        ("FEISHU_BASE_URL", "open.feishu.cn".to_owned()),
    ];
    in_process("environment::in_env_values_are_wrong", &variables);
}

#[test]
#[ignore = "run by an_error_about_a_value_of_the_environment_names_the_variable"]
fn in_env_values_are_wrong() {
    let named = |builder: ClientBuilder| {
        let error = builder.from_env().build().unwrap_err();
        let hint = error.hint().unwrap_or_default();
        hint.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    if std::env::var("FEISHU_APP_SECRET").is_err() {
        assert_eq!(named(Client::builder()), "FEISHU_APP_SECRET");
        assert_eq!(named(Client::builder().app_secret("")), "", "it was given");
        return;
    }
    assert_eq!(named(Client::builder()), "FEISHU_BASE_URL");
    let builder = || Client::builder().base_url("https://open.feishu.cn");
    assert_eq!(named(builder()), "FEISHU_APP_ID");
    assert_eq!(named(builder().app_id("")), "", "it was given");
    let error = builder().from_env().app_id("").build().unwrap_err();
    assert_eq!(error.hint(), None, "it was given later");
}
