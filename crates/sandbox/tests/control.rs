//! The controls as JSON.

use feishu_feed_card_sandbox::{Sandbox, Stage, World};
use serde_json::{Value, json};

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;

/// Executes a control and returns its result.
fn execute(stage: &Stage, control: &Value) -> Value {
    match stage.control_json(&control.to_string()) {
        Ok(answer) => serde_json::from_str(&answer).unwrap_or_default(),
        Err(error) => unreachable!("{control}: {error}"),
    }
}

#[test]
fn every_control_returns_its_result() {
    let stage = Stage::new(World::example());
    let empty = json!([]);
    assert_eq!(execute(&stage, &json!({"do": "pinned", "open_id": USER})), empty);
    assert_eq!(
        execute(&stage, &json!({"do": "pinned_users", "feed_card_id": CHAT})),
        empty
    );
    assert_eq!(
        execute(&stage, &json!({"do": "bot_pinned", "open_id": USER})),
        empty
    );
    assert_eq!(
        execute(
            &stage,
            &json!({"do": "bot_pinned_users", "app_id": "cli_example"})
        ),
        empty
    );
    assert_eq!(execute(&stage, &json!({"do": "requests"})), empty);
    assert_eq!(execute(&stage, &json!({"do": "request_count"})), 0);
    assert_eq!(execute(&stage, &json!({"do": "token_fetches"})), 0);
    assert_eq!(
        execute(
            &stage,
            &json!({"do": "max_in_window", "interface": "group", "ms": 1000})
        ),
        0
    );
    for command in [
        // Commands return null.
        json!({"do": "clear_record"}),
        json!({"do": "advance", "ms": 7_200_000}),
        json!({"do": "revoke_tokens"}),
        json!({"do": "faults", "faults": [{"on": "call", "times": 3, "status": 503}, {"delay_after_ms": 5}]}),
        json!({"do": "set_switches", "switches": {"success_msg": "ok", "per_second": 7}}),
        json!({"do": "set_switches", "switches": {"per_second": null}}),
        json!({"do": "put_app", "app": {"app_id": "cli_new", "app_secret": "s"}}),
        json!({"do": "put_user", "user": {"open_id": "ou_new", "user_id": "7"}}),
        json!({"do": "put_chat", "chat": {"feed_card_id": "oc_new", "members": ["ou_new"]}}),
    ] {
        assert_eq!(execute(&stage, &command), Value::Null);
    }
    assert!(
        execute(&stage, &json!({"do": "now"}))
            .as_f64()
            .is_some_and(|ms| ms >= 7_200_000.0)
    );
    assert_eq!(execute(&stage, &json!({"do": "faults_left"})), 2);
    let script = execute(&stage, &json!({"do": "script"}));
    assert_eq!(
        (
            &script[0]["times"],
            &script[0]["status"],
            &script[1]["delay_after_ms"]
        ),
        (&json!(3), &json!(503), &json!(5))
    );
    assert_eq!(execute(&stage, &json!({"do": "clear_faults"})), Value::Null);
    let switches = execute(&stage, &json!({"do": "switches"}));
    assert_eq!(
        (&switches["success_msg"], &switches["per_second"]),
        (&json!("ok"), &Value::Null)
    );
    let ticket = execute(&stage, &json!({"do": "app_ticket", "app_id": "cli_new"}));
    assert_ne!(
        execute(&stage, &json!({"do": "rotate_app_ticket", "app_id": "cli_new"})),
        ticket
    );
    assert_eq!(
        execute(&stage, &json!({"do": "app_ticket", "app_id": "cli_nobody"})),
        Value::Null
    );
    let overview = execute(&stage, &json!({"do": "state"}));
    assert_eq!(
        (&overview["faults_left"], &overview["over_limit"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(overview["pinned"], json!({CHAT: [], "oc_new": []}));
}

#[test]
fn an_invalid_control_is_refused_with_the_valid_names() {
    let stage = Stage::new(World::example());
    for (invalid, expected) in [
        ("{", "invalid control"),
        (r#"{"do": "advanse", "ms": 1}"#, "advance"),
        (r#"{"do": "advance"}"#, "ms"),
        (r#"{"do": "advance", "ms": -1}"#, "-1"),
        (r#"{"do": "advance", "ms": 1, "s": 1}"#, "unknown field `s`"),
        (r#"{"do": "requests", "all": true}"#, "unknown field `all`"),
        (
            r#"{"do": "faults", "faults": [{"on": "call", "time": 2}]}"#,
            "unknown field `time`, expected",
        ),
        (
            r#"{"do": "faults", "faults": [{"on": "calls"}]}"#,
            "unknown variant `calls`",
        ),
        (
            r#"{"do": "faults", "faults": [{"status": 99}]}"#,
            "200 to 999, got 99",
        ),
        (
            r#"{"do": "faults", "faults": [{"status": 101}]}"#,
            "200 to 999, got 101",
        ),
        (
            r#"{"do": "faults", "faults": [{"headers": {"a b": "c"}}]}"#,
            "a b",
        ),
        (r#"{"do": "faults", "faults": [{"reset": "during"}]}"#, "during"),
        (
            r#"{"do": "set_switches", "switches": {"success_shape": "list"}}"#,
            "empty_list",
        ),
        (
            r#"{"do": "set_switches", "switches": {"per_hour": 5}}"#,
            "unknown field `per_hour`, expected",
        ),
        (r#"{"do": "put_chat", "chat": {"members": []}}"#, "feed_card_id"),
        (r#"{"do": "pause_listening"}"#, "use a Sandbox"),
    ] {
        let error = stage.control_json(invalid).unwrap_err();
        assert!(error.contains(expected), "{invalid}: {error}");
    }
    assert_eq!(stage.faults_left(), 0, "a refused script adds no steps");
}

#[test]
fn a_sandbox_opens_and_closes_its_ports() {
    let sandbox = Sandbox::builder().start().unwrap();
    let connect = || std::net::TcpStream::connect(sandbox.address()).map(drop);
    connect().unwrap();
    for _ in 0..2 {
        assert_eq!(
            sandbox.control_json(r#"{"do": "pause_listening"}"#),
            Ok("null".to_owned())
        );
        assert_eq!(
            connect().unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    }
    for _ in 0..2 {
        assert_eq!(
            sandbox.control_json(r#"{"do": "resume_listening"}"#),
            Ok("null".to_owned())
        );
        connect().unwrap();
    }
    assert_eq!(
        sandbox.control_json(r#"{"do": "close_connections"}"#),
        Ok("null".to_owned())
    );
    assert_eq!(
        sandbox.control_json(r#"{"do": "request_count"}"#),
        Ok("0".to_owned())
    );
}

#[test]
fn a_world_is_read_strictly() {
    for invalid in [
        r#"{"chat": []}"#,
        r#"{"chats": [{"feed_card_id": "oc_1", "member": []}]}"#,
        r#"{"apps": [{"app_id": "cli_1"}]}"#,
        r#"{"apps": [{"app_id": "cli_1", "app_secret": "s", "kind": "shop"}]}"#,
        r#"{"users": [{"user_id": "1"}]}"#,
        r#"{"switches": {"per_hour": 1}}"#,
    ] {
        assert!(serde_json::from_str::<World>(invalid).is_err(), "{invalid}");
    }
    let example = World::example();
    let text = serde_json::to_string(&example).unwrap();
    assert_eq!(serde_json::from_str::<World>(&text).unwrap(), example);
}
