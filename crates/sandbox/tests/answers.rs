//! Every documented error and every switch, tested on the model alone.

use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{
    App, AppKind, CALL_SCOPE, Chat, Model, SuccessShape, Switches, USER_ID_SCOPE, UnknownIds, User, World,
};
use http::{Request, Response};
use serde_json::{Value, json};

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;
const OUTSIDER: &str = World::EXAMPLE_OUTSIDER;
const NOT_IN_CHAT: &str = "The user is not in the chat";

/// A model, a token of the example app, and the current time.
struct Platform {
    model: Model,
    token: String,
    now: Duration,
}

impl Platform {
    fn new() -> Self {
        Self::from_world(World::example())
    }

    fn with(switches: Switches) -> Self {
        Self::from_world(World {
            switches,
            ..World::example()
        })
    }

    fn with_app(change: impl FnOnce(&mut App)) -> Self {
        let mut world = World::example();
        change(&mut world.apps[0]);
        Self::from_world(world)
    }

    fn from_world(world: World) -> Self {
        let mut platform = Self {
            model: Model::new(world),
            token: String::new(),
            now: Duration::ZERO,
        };
        let response = platform.fetch_token();
        response["tenant_access_token"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut platform.token);
        platform
    }

    fn fetch_token(&mut self) -> Value {
        self.post(
            "tenant_access_token/internal",
            &json!({"app_id": "cli_example", "app_secret": "example-secret"}),
        )
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let request = Request::post(format!("/open-apis/auth/v3/{path}"));
        let (status, body) = self.send(request, body);
        assert_eq!(status, 200, "token endpoints always have the status 200: {body}");
        body
    }

    fn call(&mut self, card: &str, body: &Value) -> (u16, Value) {
        let request = Request::patch(format!("/open-apis/im/v2/feed_cards/{card}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json; charset=utf-8");
        self.send(request, body)
    }

    fn pin(&mut self, user_ids: &[&str]) -> (u16, Value) {
        self.call(CHAT, &json!({"time_sensitive": true, "user_ids": user_ids}))
    }

    fn send(&mut self, request: http::request::Builder, body: &Value) -> (u16, Value) {
        let response = self.raw(request, body.to_string());
        (
            response.status().as_u16(),
            serde_json::from_slice(response.body()).unwrap_or(Value::Null),
        )
    }

    fn raw(&mut self, request: http::request::Builder, body: impl Into<Bytes>) -> Response<Bytes> {
        let Ok(request) = request.body(body.into()) else {
            unreachable!("the requests of the tests are valid")
        };
        let response = self.model.handle(request, self.now);
        for name in ["x-tt-logid", "x-request-id"] {
            assert_eq!(response.headers()[name].len(), 32);
        }
        response
    }
}

type Change = fn(&mut App);

/// Asserts that an answer is an error in the gateway's form, and returns its `error`.
fn assert_error(answer: (u16, Value), status: u16, code: i64) -> Value {
    let (actual_status, body) = answer;
    assert_eq!((actual_status, &body["code"]), (status, &json!(code)), "{body}");
    let error = body["error"].clone();
    assert_eq!(error["message"], body["msg"]);
    assert_eq!(error["log_id"].as_str().map(str::len), Some(32));
    assert!(
        error["troubleshooter"]
            .as_str()
            .is_some_and(|url| url.contains(&code.to_string()))
    );
    error
}

#[test]
fn a_call_needs_a_token_of_this_platform() {
    let mut platform = Platform::new();
    let url = format!("/open-apis/im/v2/feed_cards/{CHAT}");
    let json = || Request::patch(&url).header("content-type", "application/json");
    let body = json!({"time_sensitive": true, "user_ids": [USER]});

    assert_error(platform.send(json(), &body), 400, 99_991_661);
    for no_token in ["", "Bearer", "Bearer ", "Basic Zm9vOmJhcg==", "t-1"] {
        assert_error(
            platform.send(json().header("authorization", no_token), &body),
            400,
            99_991_661,
        );
    }
    for unknown in ["Bearer t-1", "Bearer a.jwt.token", "bearer t-1"] {
        assert_error(
            platform.send(json().header("authorization", unknown), &body),
            400,
            99_991_663,
        );
    }
    assert_error(
        platform.send(json().header("authorization", "Bearer u-1"), &body),
        400,
        99_991_668,
    );
    let token = platform.token.clone();
    let (_, body) = platform.send(json().header("authorization", format!("bearer  {token}")), &body);
    assert_eq!(body["code"], 0);
}

#[test]
fn a_token_is_invalid_after_two_hours_or_a_revocation() {
    let mut platform = Platform::new();
    platform.now = Duration::from_millis(7_199_999);
    assert_eq!(platform.pin(&[USER]).0, 200);
    platform.now = Duration::from_secs(7200);
    assert_error(platform.pin(&[USER]), 400, 99_991_663);

    let mut platform = Platform::with(Switches {
        token_error_status: 200,
        ..Switches::default()
    });
    platform.model.revoke_tokens();
    assert_error(platform.pin(&[USER]), 200, 99_991_663);
    let new = platform.fetch_token()["tenant_access_token"].clone();
    assert_ne!(new, platform.token);
    new.as_str().unwrap().clone_into(&mut platform.token);
    assert_eq!(platform.pin(&[USER]).1["code"], 0);
}

#[test]
fn unknown_paths_and_methods_are_not_found() {
    let mut platform = Platform::new();
    let calls = "/open-apis/im/v2/feed_cards";
    for request in [
        Request::get("/"),
        Request::patch("/open-apis"),
        Request::patch(calls),
        Request::patch(format!("{calls}/")),
        Request::patch(format!("{calls}/{CHAT}/")),
        Request::patch(format!("{calls}/{CHAT}/more")),
        Request::patch(format!("/prefix{calls}/{CHAT}")),
        Request::get(format!("{calls}/{CHAT}")),
        Request::head(format!("{calls}/{CHAT}")),
        Request::post(format!("{calls}/{CHAT}")),
        Request::get("/open-apis/auth/v3/tenant_access_token/internal"),
        Request::post("/open-apis/auth/v3/tenant_access_token/internal//"),
    ] {
        let token = format!("Bearer {}", platform.token);
        assert_error(
            platform.send(request.header("authorization", token), &json!({})),
            404,
            99_991_201,
        );
    }
}

#[test]
fn a_path_prefix_is_required_if_set() {
    let mut platform = Platform::new();
    let path_prefix = "/lark".to_owned();
    platform.model.set_switches(Switches {
        path_prefix,
        ..Switches::default()
    });
    assert_error(platform.pin(&[USER]), 404, 99_991_201);
    let request = Request::post("/lark/open-apis/auth/v3/tenant_access_token/internal");
    let body = json!({"app_id": "cli_example", "app_secret": "example-secret"});
    assert_eq!(platform.send(request, &body).1["code"], 0);
}

#[test]
fn one_error_lists_all_invalid_fields() {
    let mut platform = Platform::new();
    let mut invalid_fields = |query: &str, body: Value| {
        let error = assert_error(platform.call(&format!("{CHAT}{query}"), &body), 400, 99_992_402);
        let violations = error["field_violations"].as_array().cloned().unwrap_or_default();
        assert!(
            violations
                .iter()
                .all(|violation| violation["description"].is_string())
        );
        let fields = violations
            .iter()
            .map(|violation| violation["field"].as_str().unwrap_or_default().to_owned());
        fields.collect::<Vec<_>>()
    };
    assert_eq!(invalid_fields("", json!({})), ["time_sensitive", "user_ids"]);
    assert_eq!(invalid_fields("", json!({"time_sensitive": true})), ["user_ids"]);
    assert_eq!(
        invalid_fields("", json!({"user_ids": [USER]})),
        ["time_sensitive"]
    );
    for invalid in [json!("true"), json!(1), json!(null)] {
        assert_eq!(
            invalid_fields("", json!({"time_sensitive": invalid, "user_ids": [USER]})),
            ["time_sensitive"]
        );
    }
    for invalid in [json!(USER), json!(null), json!({"0": USER})] {
        assert_eq!(
            invalid_fields("", json!({"time_sensitive": true, "user_ids": invalid})),
            ["user_ids"]
        );
    }
    let ids = json!([USER, 7, null]);
    assert_eq!(
        invalid_fields("", json!({"time_sensitive": true, "user_ids": ids})),
        ["user_ids.1", "user_ids.2"]
    );
    for invalid in [
        "?user_id_type=chat_id",
        "?user_id_type=",
        "?user_id_type=%FF",
        "?a=b&user_id_type=OPEN_ID",
    ] {
        assert_eq!(
            invalid_fields(invalid, json!({"time_sensitive": true, "user_ids": [USER]})),
            ["user_id_type"]
        );
    }
    assert_eq!(
        invalid_fields("?user_id_type=x", json!([])),
        ["user_id_type", "body"]
    );
    assert_eq!(platform.model.pinned(USER), [""; 0]);
}

#[test]
fn an_invalid_body_or_content_type_is_a_field_violation() {
    let mut platform = Platform::new();
    let token = format!("Bearer {}", platform.token);
    let url = format!("/open-apis/im/v2/feed_cards/{CHAT}");
    let good = json!({"time_sensitive": true, "user_ids": [USER]}).to_string();
    let deep = format!(
        "{{\"time_sensitive\":true,\"user_ids\":{}{}}}",
        "[".repeat(9000),
        "]".repeat(9000)
    );
    for (content_type, body, field) in [
        ("application/json", "{", "body"),
        ("application/json", "", "body"),
        (
            "application/json",
            r#"{"time_sensitive":true,"user_ids":["\ud800"]}"#,
            "body",
        ),
        ("application/json", &deep, "body"),
        ("", &good, "Content-Type"),
        ("application/x-www-form-urlencoded", &good, "Content-Type"),
    ] {
        let request = Request::patch(&url)
            .header("authorization", &token)
            .header("content-type", content_type);
        let response = platform.raw(request, body.to_owned());
        let json: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(json["code"], 99_992_402);
        assert_eq!(json["error"]["field_violations"][0]["field"], field);
    }
    let request = Request::patch(&url)
        .header("authorization", &token)
        .header("content-type", "Application/JSON");
    assert_eq!(platform.raw(request, good).status(), 200);
}

#[test]
fn the_chat_must_exist_and_have_the_bot_in_it() {
    let mut world = World::example();
    let chat = |id: &str| Chat::new(id, [USER]);
    world.chats.push(Chat {
        bot_in_chat: false,
        ..chat("oc_without_bot")
    });
    world.chats.push(Chat {
        dissolved: true,
        ..chat("oc_gone")
    });
    let mut platform = Platform::from_world(world.clone());
    let body = json!({"time_sensitive": true, "user_ids": [USER]});
    assert_error(platform.call("oc_without_bot", &body), 400, 230_027);
    assert_error(platform.call("oc_gone", &body), 400, 232_009);
    for unknown in [
        "oc_nobody_knows",
        "oc_%E7%BE%A4",
        "..%2Fescape",
        "BOT_TIME_SENTIVE",
        "%FF",
    ] {
        assert_error(platform.call(unknown, &body), 400, 232_006);
    }

    world.switches = Switches {
        unknown_chat_code: 230_001,
        dissolved_chat_code: 232_034,
        bot_not_in_chat_code: 230_002,
        ..Switches::default()
    };
    let mut platform = Platform::from_world(world);
    assert_error(platform.call("oc_without_bot", &body), 400, 230_002);
    assert_error(platform.call("oc_gone", &body), 400, 232_034);
    assert_error(platform.call("oc_nobody_knows", &body), 400, 230_001);
    assert_eq!(platform.model.pinned(USER), [""; 0]);
}

#[test]
fn an_app_without_permission_gets_the_reason() {
    let body = json!({"time_sensitive": true, "user_ids": [USER]});
    let cases: [(Change, u16, i64); 5] = [
        (|app| app.enabled = false, 400, 99_991_662),
        (|app| app.installed = false, 400, 99_991_673),
        (|app| app.ip_allowed = false, 400, 99_991_401),
        (|app| app.bot_enabled = false, 400, 230_006),
        (|app| app.monthly_quota = Some(0), 429, 99_991_403),
    ];
    for (change, status, code) in cases {
        let mut platform = Platform::with_app(change);
        assert_error(platform.call(CHAT, &body), status, code);
        assert_error(platform.call("bot_time_sentive", &body), status, code);
        assert_eq!(platform.model.pinned(USER), [""; 0]);
        assert_eq!(platform.model.bot_pinned(USER), [""; 0]);
    }

    let mut platform = Platform::with_app(|app| app.scopes = vec!["im:message".to_owned()]);
    let error = assert_error(platform.call(CHAT, &body), 400, 99_991_672);
    let violations = json!([{"type": "action_scope_required", "subject": CALL_SCOPE}]);
    assert_eq!(error["permission_violations"], violations);
    assert!(
        error["helps"][0]["url"]
            .as_str()
            .is_some_and(|url| url.contains(CALL_SCOPE))
    );

    let mut platform = Platform::with_app(|app| app.monthly_quota = Some(2));
    assert_eq!(platform.pin(&[USER]).0, 200);
    assert_eq!(platform.call("bot_time_sentive", &body).0, 200);
    assert_error(platform.pin(&[USER]), 429, 99_991_403);
}

#[test]
fn users_have_three_kinds_of_ids() {
    let mut platform = Platform::new();
    let mut failed_and_pinned = |query: &str, ids: &[&str]| {
        let body = json!({"time_sensitive": true, "user_ids": ids});
        let (status, answer) = platform.call(&format!("{CHAT}?{query}"), &body);
        assert_eq!(status, 200, "{answer}");
        let failed = answer["data"]["failed_user_reasons"].as_array().unwrap().clone();
        let pinned = platform.model.pinned_users(CHAT);
        platform.call(CHAT, &json!({"time_sensitive": false, "user_ids": [USER]}));
        (failed, pinned)
    };
    let none: Vec<Value> = Vec::new();
    let union = format!("on_{}", &USER[3..]);
    let pinned = vec![USER.to_owned()];
    assert_eq!(failed_and_pinned("", &[USER]), (none.clone(), pinned.clone()));
    assert_eq!(
        failed_and_pinned("user_id_type=open_id", &[USER, USER]),
        (none.clone(), pinned.clone())
    );
    assert_eq!(
        failed_and_pinned("user_id_type=union_id", &[&union]),
        (none.clone(), pinned.clone())
    );
    assert_eq!(
        failed_and_pinned("user_id_type=user_id", &["9d2beb61"]),
        (none.clone(), pinned.clone())
    );
    assert_eq!(
        failed_and_pinned("x=y&user_id_type=user%5Fid", &["9d2beb61"]),
        (none, pinned)
    );

    let reason = |id: &str| json!({"error_code": 0, "error_message": NOT_IN_CHAT, "user_id": id});
    assert_eq!(
        failed_and_pinned("", &[&union, OUTSIDER]).0,
        [reason(&union), reason(OUTSIDER)]
    );
    assert_eq!(
        failed_and_pinned("user_id_type=union_id", &[USER]),
        (vec![reason(USER)], vec![])
    );
    assert_eq!(
        failed_and_pinned("user_id_type=user_id", &["679eaeb5", "王"]).0,
        [reason("679eaeb5"), reason("王")]
    );
}

#[test]
fn without_the_field_permission_failed_users_have_no_ids() {
    let (_, answer) = Platform::with_app(|app| app.user_id_permission = false).pin(&[USER, OUTSIDER]);
    let without_ids = json!([{"error_code": 0, "error_message": NOT_IN_CHAT}]);
    assert_eq!(answer["data"]["failed_user_reasons"], without_ids);

    let mut world = World::example();
    world.apps[0].user_id_permission = false;
    world.switches.field_permission_for_every_id_type = false;
    let mut platform = Platform::from_world(world);
    assert_eq!(
        platform.pin(&[OUTSIDER]).1["data"]["failed_user_reasons"][0]["user_id"],
        OUTSIDER
    );
    let body = json!({"time_sensitive": true, "user_ids": ["679eaeb5"]});
    let (_, answer) = platform.call(&format!("{CHAT}?user_id_type=user_id"), &body);
    assert_eq!(answer["data"]["failed_user_reasons"], without_ids);
}

#[test]
fn an_unknown_id_is_a_failed_user_or_fails_the_request() {
    let union = "?user_id_type=union_id";
    let user = "?user_id_type=user_id";
    for (unknown_ids, query, code) in [
        (UnknownIds::CrossApp, "", 99_992_361),
        (UnknownIds::CrossApp, union, 99_992_363),
        (UnknownIds::CrossApp, user, 99_992_364),
        (UnknownIds::Invalid, "", 99_992_351),
        (UnknownIds::Invalid, union, 99_992_351),
    ] {
        let mut platform = Platform::with(Switches {
            unknown_ids,
            ..Switches::default()
        });
        for card in [CHAT, "bot_time_sentive"] {
            let body = json!({"time_sensitive": true, "user_ids": [USER, "ou_a", "ou_b"]});
            let answer = platform.call(&format!("{card}{query}"), &body);
            let msg = answer.1["msg"].as_str().unwrap_or_default();
            assert!(
                msg.ends_with(if query.is_empty() {
                    "Invalid ids: [ou_a, ou_b]"
                } else {
                    "ou_b]"
                }),
                "{msg}"
            );
            assert_error(answer, 400, code);
        }
        assert_eq!(platform.model.pinned(USER), [""; 0]);
        // A known user who is not in the chat never fails the request.
        assert_eq!(platform.pin(&[USER, OUTSIDER]).0, 200);
    }
}

#[test]
fn the_number_of_ids_has_the_documented_limit() {
    let many: Vec<_> = (0..51).map(|n| format!("ou_{n}")).collect();
    let body = |ids: &[String]| json!({"time_sensitive": true, "user_ids": ids});
    let mut platform = Platform::new();
    assert_eq!(platform.call("bot_time_sentive", &body(&many[1..])).0, 200);
    let (_, answer) = platform.call("bot_time_sentive", &body(&many));
    assert!(
        answer["msg"].as_str().is_some_and(|msg| msg.contains("ext=")),
        "{answer}"
    );
    assert_error(platform.call("bot_time_sentive", &body(&many)), 400, 230_001);
    assert_error(platform.call("bot_time_sentive", &body(&[])), 400, 230_001);
    assert_error(platform.call(CHAT, &body(&[])), 400, 230_001);
    assert_eq!(platform.call(CHAT, &body(&many)).0, 200);

    let strict = Switches {
        group_max_users: Some(50),
        list_length_code: 99_992_402,
        ..Switches::default()
    };
    let mut platform = Platform::with(strict);
    assert_eq!(platform.call(CHAT, &body(&many[1..])).0, 200);
    let error = assert_error(platform.call(CHAT, &body(&many)), 400, 99_992_402);
    let violation = json!([{"field": "user_ids", "value": "len 51", "description": "the max len is 50"}]);
    assert_eq!(error["field_violations"], violation);
    let error = assert_error(platform.call(CHAT, &body(&[])), 400, 99_992_402);
    assert_eq!(error["field_violations"][0]["description"], "the min len is 1");
}

#[test]
fn a_success_has_the_selected_shape() {
    for (success_shape, success_msg, expected) in [
        (
            SuccessShape::EmptyList,
            "success",
            json!({"code": 0, "msg": "success", "data": {"failed_user_reasons": []}}),
        ),
        (
            SuccessShape::NullList,
            "ok",
            json!({"code": 0, "msg": "ok", "data": {"failed_user_reasons": null}}),
        ),
        (
            SuccessShape::EmptyData,
            "",
            json!({"code": 0, "msg": "", "data": {}}),
        ),
        (
            SuccessShape::NullData,
            "success",
            json!({"code": 0, "msg": "success", "data": null}),
        ),
        (
            SuccessShape::NoData,
            "success",
            json!({"code": 0, "msg": "success"}),
        ),
    ] {
        let success_msg = success_msg.to_owned();
        let mut platform = Platform::with(Switches {
            success_shape,
            success_msg,
            ..Switches::default()
        });
        assert_eq!(platform.pin(&[USER]), (200, expected));
        assert_eq!(platform.model.pinned(USER), [CHAT]);
        let (_, partial) = platform.pin(&[USER, OUTSIDER]);
        assert_eq!(
            partial["data"]["failed_user_reasons"].as_array().map(Vec::len),
            Some(1)
        );
    }
}

#[test]
fn the_limit_of_a_second_applies_to_each_interface_and_app() {
    let mut world = World::example();
    world.apps.push(App::new("cli_other", "other-secret"));
    let mut platform = Platform::from_world(world);
    let body = json!({"time_sensitive": true, "user_ids": [USER]});
    let request = |token: &str| {
        Request::patch(format!("/open-apis/im/v2/feed_cards/{CHAT}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
    };
    for _ in 0..50 {
        assert_eq!(platform.pin(&[USER]).0, 200);
    }
    let token = platform.token.clone();
    let response = platform.raw(request(&token), body.to_string());
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["x-ogw-ratelimit-limit"], "50");
    assert_eq!(response.headers()["x-ogw-ratelimit-reset"], "1");
    assert_error(platform.pin(&[USER]), 429, 99_991_400);

    assert_eq!(
        platform.call("bot_time_sentive", &body).0,
        200,
        "the other interface has separate windows"
    );
    let other = platform.post(
        "tenant_access_token/internal",
        &json!({"app_id": "cli_other", "app_secret": "other-secret"}),
    );
    let other = other["tenant_access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        platform.raw(request(&other), body.to_string()).status(),
        200,
        "the other app has separate windows"
    );

    platform.now = Duration::from_millis(999);
    assert_error(platform.pin(&[USER]), 429, 99_991_400);
    platform.now = Duration::from_secs(1);
    assert_eq!(platform.pin(&[USER]).0, 200);
}

#[test]
fn the_limit_of_a_minute_has_its_reset_in_whole_seconds() {
    let mut platform = Platform::with(Switches {
        rate_limit_status: 400,
        ..Switches::default()
    });
    for n in 0..1000 {
        platform.now = Duration::from_millis(n * 20);
        assert_eq!(platform.pin(&[USER]).0, 200, "{n}");
    }
    let body = json!({"time_sensitive": true, "user_ids": [USER]}).to_string();
    for (ms, reset) in [(20_000, "40"), (20_001, "40"), (59_000, "1"), (59_999, "1")] {
        platform.now = Duration::from_millis(ms);
        let request = Request::patch(format!("/open-apis/im/v2/feed_cards/{CHAT}"))
            .header("authorization", format!("Bearer {}", platform.token))
            .header("content-type", "application/json");
        let response = platform.raw(request, body.clone());
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["x-ogw-ratelimit-limit"], "1000");
        assert_eq!(response.headers()["x-ogw-ratelimit-reset"], reset, "{ms}");
    }
    platform.now = Duration::from_secs(60);
    assert_eq!(platform.pin(&[USER]).0, 200);
}

#[test]
fn limits_can_be_changed_and_removed() {
    let mut platform = Platform::with(Switches::unlimited());
    for _ in 0..3000 {
        assert_eq!(platform.pin(&[USER]).0, 200);
    }
    platform.model.set_switches(Switches {
        per_second: Some(1),
        ..Switches::default()
    });
    assert_eq!(platform.pin(&[USER]).0, 200);
    assert_error(platform.pin(&[USER]), 429, 99_991_400);
}

#[test]
fn a_store_app_cannot_use_user_id() {
    let mut platform = Platform::new();
    platform.model.put_app(App {
        kind: AppKind::Store,
        ..App::new("cli_example", "example-secret")
    });
    let body = json!({"time_sensitive": true, "user_ids": ["9d2beb61"]});
    let error = assert_error(
        platform.call(&format!("{CHAT}?user_id_type=user_id"), &body),
        400,
        99_991_672,
    );
    assert_eq!(error["permission_violations"][0]["subject"], USER_ID_SCOPE);
    assert_eq!(platform.pin(&[USER]).0, 200);
}

#[test]
fn apps_users_and_chats_can_be_changed() {
    let mut platform = Platform::new();
    platform.pin(&[USER]);
    platform.model.put_chat(Chat::new("oc_second", [USER, "ou_new"]));
    platform.call(
        "oc_second",
        &json!({"time_sensitive": true, "user_ids": [USER, "ou_new"]}),
    );
    assert_eq!(platform.model.pinned(USER), [CHAT, "oc_second"]);
    assert_eq!(platform.model.pinned_users("oc_second"), [USER, "ou_new"]);

    platform.model.put_chat(Chat::new("oc_second", ["ou_new"]));
    assert_eq!(
        platform.model.pinned(USER),
        [CHAT],
        "a user who leaves a chat loses the pin"
    );
    assert_eq!(platform.model.pinned("ou_new"), ["oc_second"]);

    let changed = User {
        user_id: Some("new-id".to_owned()),
        ..User::new(USER)
    };
    platform.model.put_user(changed);
    let query = format!("{CHAT}?user_id_type=user_id");
    let unpin = |id: &str| json!({"time_sensitive": false, "user_ids": [id]});
    let (_, answer) = platform.call(&query, &unpin("9d2beb61"));
    assert_eq!(answer["data"]["failed_user_reasons"][0]["user_id"], "9d2beb61");
    assert_eq!(platform.model.pinned(USER), [CHAT]);
    platform.call(&query, &unpin("new-id"));
    assert_eq!(platform.model.pinned(USER), [""; 0]);
}
