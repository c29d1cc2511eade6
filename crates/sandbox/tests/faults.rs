//! Every kind of fault, without sockets and on the paused clock.

use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Delivery, Fault, On, Reset, Stage, World};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;

/// A stage and a valid token.
struct Scene {
    stage: Stage,
    token: String,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new(World::example());
        let Delivery::Answer(response) = stage.deliver(token_request()).await else {
            unreachable!("no fault yet")
        };
        let token = json_of(&response)["tenant_access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        stage.clear_record();
        Self { stage, token }
    }

    fn request(&self) -> Request<Bytes> {
        let body = json!({"time_sensitive": true, "user_ids": [USER]}).to_string();
        Request::patch(format!("/open-apis/im/v2/feed_cards/{CHAT}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap_or_default()
    }

    async fn call(&self) -> Delivery {
        self.stage.deliver(self.request()).await
    }

    /// Makes a call with one fault. Returns what the client received, and whether the chat is pinned.
    async fn call_with(fault: Fault) -> (Delivery, bool) {
        let scene = Self::new().await;
        scene.stage.fault(fault);
        let delivery = scene.call().await;
        (delivery, scene.is_pinned())
    }

    fn is_pinned(&self) -> bool {
        self.stage.pinned(USER) == [CHAT]
    }
}

fn token_request() -> Request<Bytes> {
    let body = json!({"app_id": World::EXAMPLE_APP_ID, "app_secret": World::EXAMPLE_APP_SECRET}).to_string();
    Request::post("/open-apis/auth/v3/tenant_access_token/internal")
        .body(body.into())
        .unwrap_or_default()
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_default()
}

fn complete_response(delivery: Delivery) -> Response<Bytes> {
    match delivery {
        Delivery::Answer(response) => response,
        other => unreachable!("not a complete response: {other:?}"),
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn delays_are_exact() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 300,
        delay_after_ms: 700,
        ..Fault::default()
    });
    let began = Instant::now();
    let call = scene.call();
    tokio::pin!(call);
    assert!(timeout(milliseconds(299), &mut call).await.is_err());
    assert!(!scene.is_pinned());
    assert!(timeout(milliseconds(2), &mut call).await.is_err());
    assert!(scene.is_pinned(), "the state changes after the first delay");
    assert_eq!(complete_response(call.await).status(), 200);
    assert_eq!(began.elapsed(), milliseconds(1000));
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!(record.received, Duration::ZERO);
    assert_eq!(record.arrived, Some(milliseconds(300)));
    assert!(record.fault);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_closes_before_its_arrival_never_arrives() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 300,
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    sleep(milliseconds(1000)).await;
    assert!(!scene.is_pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!((record.arrived, record.status), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_detached_request_arrives_after_its_connection_closed() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 300,
        detached: true,
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    assert!(!scene.is_pinned());
    sleep(milliseconds(201)).await;
    assert!(scene.is_pinned());

    scene.stage.fault(Fault {
        delay_before_ms: 300,
        detached: true,
        ..Fault::default()
    });
    assert_eq!(
        complete_response(scene.call().await).status(),
        200,
        "a client that waits gets the response"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_request_arrives_after_its_connection_was_reset() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        late_ms: Some(4_000),
        ..Fault::default()
    });
    let began = Instant::now();
    assert!(matches!(scene.call().await, Delivery::Reset));
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(milliseconds(3_999)).await;
    assert!(!scene.is_pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.is_pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!((record.arrived, record.status), (Some(milliseconds(4_000)), None));

    // The client closes its connection before the reset.
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 500,
        late_ms: Some(1_000),
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    sleep(milliseconds(1_399)).await;
    assert!(!scene.is_pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.is_pinned());
}

/// Like a gateway that does not wait any longer and sends its own page, while the request still reaches the platform.
#[tokio::test(start_paused = true)]
async fn a_late_request_arrives_after_the_scripted_response() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        late_ms: Some(4_000),
        status: StatusCode::from_u16(408).ok(),
        html: true,
        ..Fault::default()
    });
    let began = Instant::now();
    let response = complete_response(scene.call().await);
    assert_eq!(
        (response.status().as_u16(), began.elapsed()),
        (408, Duration::ZERO)
    );
    sleep(milliseconds(3_999)).await;
    assert!(!scene.is_pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.is_pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!(
        (record.arrived, record.status, record.code),
        (Some(milliseconds(4_000)), Some(408), None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_comes_before_or_after_the_change_of_state() {
    let (delivery, pinned) = Scene::call_with(Fault {
        reset: Some(Reset::Before),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && !pinned);
    let (delivery, pinned) = Scene::call_with(Fault {
        reset: Some(Reset::After),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && pinned);
    let (delivery, pinned) = Scene::call_with(Fault {
        refuse: true,
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && !pinned);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_scripted_response_changes_nothing() {
    let (delivery, pinned) = Scene::call_with(Fault {
        code: Some(99_991_400),
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!((response.status().as_u16(), pinned), (429, false));
    assert!(json_of(&response)["error"]["log_id"].is_string());

    let msg = Some("later".to_owned());
    let status = Some(StatusCode::OK);
    let (delivery, _) = Scene::call_with(Fault {
        code: Some(2200),
        msg,
        status,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&json_of(&response)["code"], &json_of(&response)["msg"]),
        (&json!(2200), &json!("later"))
    );

    let status = Some(StatusCode::BAD_GATEWAY);
    let (delivery, pinned) = Scene::call_with(Fault {
        status,
        html: true,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!((response.status().as_u16(), pinned), (502, false));
    assert!(
        response.headers()["content-type"]
            .to_str()
            .is_ok_and(|value| value.starts_with("text/html"))
    );
    assert!(response.body().starts_with(b"<html>"));

    let (delivery, pinned) = Scene::call_with(Fault {
        html: true,
        ..Fault::default()
    })
    .await;
    assert_eq!(
        (complete_response(delivery).status().as_u16(), pinned),
        (200, false)
    );

    let (delivery, pinned) = Scene::call_with(Fault {
        status,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!(
        (response.status().as_u16(), response.body().len(), pinned),
        (502, 0, false)
    );

    let body = Some("{\"code\":".to_owned());
    let (delivery, pinned) = Scene::call_with(Fault {
        body,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!(
        (response.status().as_u16(), response.body().as_ref(), pinned),
        (200, b"{\"code\":".as_ref(), false)
    );
}

#[tokio::test(start_paused = true)]
async fn with_after_the_request_reaches_the_platform_first() {
    let status = Some(StatusCode::INTERNAL_SERVER_ERROR);
    let (delivery, pinned) = Scene::call_with(Fault {
        status,
        after: true,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!((response.status().as_u16(), pinned), (500, true));
    assert_eq!(json_of(&response)["code"], 0, "the body is the platform's");

    let (delivery, pinned) = Scene::call_with(Fault {
        code: Some(2200),
        after: true,
        ..Fault::default()
    })
    .await;
    assert_eq!(
        (&json_of(&complete_response(delivery))["code"], pinned),
        (&json!(2200), true)
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_at_a_token_endpoint_has_the_form_of_the_endpoint() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        code: Some(10014),
        ..Fault::on_token()
    });
    let response = complete_response(scene.stage.deliver(token_request()).await);
    assert_eq!(response.status(), 200);
    assert_eq!(
        json_of(&response),
        json!({"code": 10014, "msg": "app secret invalid"})
    );
}

#[tokio::test(start_paused = true)]
async fn the_platforms_answer_can_be_changed() {
    let headers =
        HeaderMap::from_iter([("x-tt-logid".parse().unwrap(), HeaderValue::from_static("changed"))]);
    let (delivery, pinned) = Scene::call_with(Fault {
        headers,
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!(response.headers().get_all("x-tt-logid").iter().count(), 1);
    assert_eq!(response.headers()["x-tt-logid"], "changed");
    assert!(pinned && json_of(&response)["code"] == 0);

    let (delivery, _) = Scene::call_with(Fault {
        big_body: Some(2_000_000),
        ..Fault::default()
    })
    .await;
    let response = complete_response(delivery);
    assert_eq!(
        (response.body().len(), &json_of(&response)["code"]),
        (2_000_000, &json!(0))
    );

    let (delivery, pinned) = Scene::call_with(Fault {
        truncate: Some(7),
        ..Fault::default()
    })
    .await;
    let Delivery::Truncated { response, sent_bytes } = delivery else {
        unreachable!("{delivery:?}")
    };
    assert!(pinned && sent_bytes == 7 && response.body().len() > 7);
    let (delivery, _) = Scene::call_with(Fault {
        truncate: Some(100_000),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Answer(_)), "the body is shorter");
}

#[tokio::test(start_paused = true)]
async fn expire_can_be_changed_or_left_out() {
    let scene = Scene::new().await;
    let mut seen = Vec::new();
    for expire in [json!(0), json!(-5), json!("7200"), Value::Null] {
        scene.stage.fault(Fault {
            expire: Some(expire),
            ..Fault::on_token()
        });
        let body = json_of(&complete_response(scene.stage.deliver(token_request()).await));
        assert_eq!(body["tenant_access_token"], scene.token);
        seen.push(body.get("expire").cloned());
    }
    assert_eq!(seen, [Some(json!(0)), Some(json!(-5)), Some(json!("7200")), None]);

    scene.stage.fault(Fault {
        expire: Some(json!(1)),
        ..Fault::on_call()
    });
    assert!(
        json_of(&complete_response(scene.call().await))
            .get("expire")
            .is_none(),
        "only a token response gets an expire"
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_are_revoked_before_the_request_reaches_the_platform() {
    let (delivery, pinned) = Scene::call_with(Fault {
        revoke_tokens: true,
        ..Fault::default()
    })
    .await;
    assert_eq!(
        (&json_of(&complete_response(delivery))["code"], pinned),
        (&json!(99_991_663), false)
    );
}

#[tokio::test(start_paused = true)]
async fn each_request_takes_the_first_step_for_its_kind() {
    let scene = Scene::new().await;
    let code = |code, on, times| Fault {
        code: Some(code),
        on,
        times,
        ..Fault::default()
    };
    scene.stage.faults([
        code(1, On::Call, 2),
        code(2, On::Token, 1),
        Fault::on_call(),
        code(3, On::Any, 1),
    ]);
    let mut codes = Vec::new();
    for request in [
        token_request(),
        scene.request(),
        scene.request(),
        scene.request(),
        token_request(),
        scene.request(),
    ] {
        let response = complete_response(scene.stage.deliver(request).await);
        codes.push(json_of(&response)["code"].as_i64().unwrap());
    }
    assert_eq!(codes, [2, 1, 1, 0, 3, 0]);
    assert_eq!(scene.stage.faults_left(), 0);
    let recorded: Vec<_> = scene
        .stage
        .requests()
        .into_iter()
        .map(|record| (record.code, record.fault))
        .collect();
    assert_eq!(recorded[..3], [(Some(2), true), (Some(1), true), (Some(1), true)]);
    assert_eq!(recorded[5], (Some(0), false));

    scene.stage.fault(code(4, On::Any, 0));
    for _ in 0..100 {
        assert_eq!(json_of(&complete_response(scene.call().await))["code"], 4);
    }
    scene.stage.clear_faults();
    assert_eq!(json_of(&complete_response(scene.call().await))["code"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_clock_can_be_moved_forward() {
    let scene = Scene::new().await;
    scene.stage.advance(Duration::from_secs(7_199));
    assert_eq!(complete_response(scene.call().await).status(), 200);
    scene.stage.advance(Duration::from_secs(1));
    assert_eq!(
        json_of(&complete_response(scene.call().await))["code"],
        99_991_663
    );
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.stage.now(), Duration::from_secs(7_210));
    for _ in 0..3 {
        scene.stage.advance(Duration::MAX);
        assert!(matches!(
            scene.stage.deliver(token_request()).await,
            Delivery::Answer(_)
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn max_in_window_finds_the_busiest_window() {
    use feishu_feed_card_sandbox::Interface;
    let scene = Scene::new().await;
    // At 0, 400, 800, …, 3600 ms.
    for _ in 0..10 {
        scene.call().await;
        sleep(milliseconds(400)).await;
    }
    let most = |ms| scene.stage.max_in_window(Interface::Group, milliseconds(ms));
    assert_eq!(
        (most(400), most(401), most(800), most(1000), most(60_000)),
        (1, 2, 2, 3, 10)
    );
    assert_eq!((most(0), most(u64::MAX)), (0, 10));
    // A request that did not arrive does not count, a refused one does.
    scene.stage.fault(Fault {
        reset: Some(Reset::Before),
        ..Fault::default()
    });
    scene.call().await;
    assert_eq!(most(60_000), 10);
    scene.stage.revoke_tokens();
    scene.call().await;
    assert_eq!(most(60_000), 11);
    assert_eq!(scene.stage.request_count(), 12);
    scene.stage.clear_record();
    assert_eq!((most(60_000), scene.stage.request_count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_record_keeps_the_newest_requests_without_secrets() {
    let scene = Scene::new().await;
    let mut switches = scene.stage.switches();
    switches.keep_requests = 3;
    switches.keep_arrivals = 2;
    scene.stage.set_switches(switches);
    for _ in 0..5 {
        scene.call().await;
    }
    let records = scene.stage.requests();
    assert_eq!(
        records.iter().map(|record| record.number).collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert_eq!(scene.stage.request_count(), 5);
    assert_eq!(
        scene
            .stage
            .max_in_window(feishu_feed_card_sandbox::Interface::Group, Duration::MAX / 2),
        2
    );
    let text = serde_json::to_string(&records).unwrap() + &format!("{records:?}");
    assert!(!text.contains(&scene.token));
    assert!(text.contains("Bearer"));
    assert_eq!(
        records[0].body,
        json!({"time_sensitive": true, "user_ids": [USER]})
    );
}
