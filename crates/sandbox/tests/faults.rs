//! Every kind of fault without a socket, on paused time.

use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Delivery, Fault, On, Reset, Stage, World};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;

/// A stage and a token to it.
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

    /// The call under one fault: what came back, and whether the state changed.
    async fn under(fault: Fault) -> (Delivery, bool) {
        let scene = Self::new().await;
        scene.stage.fault(fault);
        let delivery = scene.call().await;
        (delivery, scene.pinned())
    }

    fn pinned(&self) -> bool {
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

fn answer(delivery: Delivery) -> Response<Bytes> {
    match delivery {
        Delivery::Answer(response) => response,
        other => unreachable!("not an answer: {other:?}"),
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_to_the_millisecond() {
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
    assert!(!scene.pinned());
    assert!(timeout(milliseconds(2), &mut call).await.is_err());
    assert!(scene.pinned(), "the state changes after the first delay");
    assert_eq!(answer(call.await).status(), 200);
    assert_eq!(began.elapsed(), milliseconds(1000));
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!(record.received, Duration::ZERO);
    assert_eq!(record.arrived, Some(milliseconds(300)));
    assert!(record.fault);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_before_it_arrives_has_recalled_it() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 300,
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    sleep(milliseconds(1000)).await;
    assert!(!scene.pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!((record.arrived, record.status), (None, None));
}

#[tokio::test(start_paused = true)]
async fn unless_it_is_detached() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 300,
        detached: true,
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    assert!(!scene.pinned());
    sleep(milliseconds(201)).await;
    assert!(scene.pinned());

    scene.stage.fault(Fault {
        delay_before_ms: 300,
        detached: true,
        ..Fault::default()
    });
    assert_eq!(answer(scene.call().await).status(), 200, "who waits is answered");
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
    assert!(!scene.pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!((record.arrived, record.status), (Some(milliseconds(4_000)), None));

    // Also when the client leaves before the reset.
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        delay_before_ms: 500,
        late_ms: Some(1_000),
        ..Fault::default()
    });
    assert!(timeout(milliseconds(100), scene.call()).await.is_err());
    sleep(milliseconds(1_399)).await;
    assert!(!scene.pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.pinned());
}

/// A gateway that stops waiting answers with its own page, and the platform gets the request all the same.
#[tokio::test(start_paused = true)]
async fn a_late_request_arrives_after_the_scripts_own_answer() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        late_ms: Some(4_000),
        status: StatusCode::from_u16(408).ok(),
        html: true,
        ..Fault::default()
    });
    let began = Instant::now();
    let response = answer(scene.call().await);
    assert_eq!(
        (response.status().as_u16(), began.elapsed()),
        (408, Duration::ZERO)
    );
    sleep(milliseconds(3_999)).await;
    assert!(!scene.pinned());
    sleep(milliseconds(2)).await;
    assert!(scene.pinned());
    let [record] = scene.stage.requests().try_into().unwrap();
    assert_eq!(
        (record.arrived, record.status, record.code),
        (Some(milliseconds(4_000)), Some(408), None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_comes_before_or_after_the_state_changed() {
    let (delivery, pinned) = Scene::under(Fault {
        reset: Some(Reset::Before),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && !pinned);
    let (delivery, pinned) = Scene::under(Fault {
        reset: Some(Reset::After),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && pinned);
    let (delivery, pinned) = Scene::under(Fault {
        refuse: true,
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Reset) && !pinned);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_scripts_own_changes_nothing() {
    let (delivery, pinned) = Scene::under(Fault {
        code: Some(99_991_400),
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!((response.status().as_u16(), pinned), (429, false));
    assert!(json_of(&response)["error"]["log_id"].is_string());

    let msg = Some("later".to_owned());
    let status = Some(StatusCode::OK);
    let (delivery, _) = Scene::under(Fault {
        code: Some(2200),
        msg,
        status,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&json_of(&response)["code"], &json_of(&response)["msg"]),
        (&json!(2200), &json!("later"))
    );

    let status = Some(StatusCode::BAD_GATEWAY);
    let (delivery, pinned) = Scene::under(Fault {
        status,
        html: true,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!((response.status().as_u16(), pinned), (502, false));
    assert!(
        response.headers()["content-type"]
            .to_str()
            .is_ok_and(|value| value.starts_with("text/html"))
    );
    assert!(response.body().starts_with(b"<html>"));

    let (delivery, pinned) = Scene::under(Fault {
        html: true,
        ..Fault::default()
    })
    .await;
    assert_eq!((answer(delivery).status().as_u16(), pinned), (200, false));

    let (delivery, pinned) = Scene::under(Fault {
        status,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!(
        (response.status().as_u16(), response.body().len(), pinned),
        (502, 0, false)
    );

    let body = Some("{\"code\":".to_owned());
    let (delivery, pinned) = Scene::under(Fault {
        body,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!(
        (response.status().as_u16(), response.body().as_ref(), pinned),
        (200, b"{\"code\":".as_ref(), false)
    );
}

#[tokio::test(start_paused = true)]
async fn unless_the_platform_sees_it_first() {
    let status = Some(StatusCode::INTERNAL_SERVER_ERROR);
    let (delivery, pinned) = Scene::under(Fault {
        status,
        after: true,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!((response.status().as_u16(), pinned), (500, true));
    assert_eq!(json_of(&response)["code"], 0, "the platform's own body stays");

    let (delivery, pinned) = Scene::under(Fault {
        code: Some(2200),
        after: true,
        ..Fault::default()
    })
    .await;
    assert_eq!(
        (&json_of(&answer(delivery))["code"], pinned),
        (&json!(2200), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_call_is_refused_in_its_own_form() {
    let scene = Scene::new().await;
    scene.stage.fault(Fault {
        code: Some(10014),
        ..Fault::on_token()
    });
    let response = answer(scene.stage.deliver(token_request()).await);
    assert_eq!(response.status(), 200);
    assert_eq!(
        json_of(&response),
        json!({"code": 10014, "msg": "app secret invalid"})
    );
}

#[tokio::test(start_paused = true)]
async fn the_platforms_answer_is_changed_on_its_way_out() {
    let headers =
        HeaderMap::from_iter([("x-tt-logid".parse().unwrap(), HeaderValue::from_static("changed"))]);
    let (delivery, pinned) = Scene::under(Fault {
        headers,
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!(response.headers().get_all("x-tt-logid").iter().count(), 1);
    assert_eq!(response.headers()["x-tt-logid"], "changed");
    assert!(pinned && json_of(&response)["code"] == 0);

    let (delivery, _) = Scene::under(Fault {
        big_body: Some(2_000_000),
        ..Fault::default()
    })
    .await;
    let response = answer(delivery);
    assert_eq!(
        (response.body().len(), &json_of(&response)["code"]),
        (2_000_000, &json!(0))
    );

    let (delivery, pinned) = Scene::under(Fault {
        truncate: Some(7),
        ..Fault::default()
    })
    .await;
    let Delivery::Truncated { response, sent_bytes } = delivery else {
        unreachable!("{delivery:?}")
    };
    assert!(pinned && sent_bytes == 7 && response.body().len() > 7);
    let (delivery, _) = Scene::under(Fault {
        truncate: Some(100_000),
        ..Fault::default()
    })
    .await;
    assert!(matches!(delivery, Delivery::Answer(_)), "there is nothing to cut");
}

#[tokio::test(start_paused = true)]
async fn expire_is_changed_or_left_out() {
    let scene = Scene::new().await;
    let mut seen = Vec::new();
    for expire in [json!(0), json!(-5), json!("7200"), Value::Null] {
        scene.stage.fault(Fault {
            expire: Some(expire),
            ..Fault::on_token()
        });
        let body = json_of(&answer(scene.stage.deliver(token_request()).await));
        assert_eq!(body["tenant_access_token"], scene.token);
        seen.push(body.get("expire").cloned());
    }
    assert_eq!(seen, [Some(json!(0)), Some(json!(-5)), Some(json!("7200")), None]);

    scene.stage.fault(Fault {
        expire: Some(json!(1)),
        ..Fault::on_call()
    });
    assert!(
        json_of(&answer(scene.call().await)).get("expire").is_none(),
        "a call's answer has none to change"
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_are_revoked_before_the_platform_looks() {
    let (delivery, pinned) = Scene::under(Fault {
        revoke_tokens: true,
        ..Fault::default()
    })
    .await;
    assert_eq!(
        (&json_of(&answer(delivery))["code"], pinned),
        (&json!(99_991_663), false)
    );
}

#[tokio::test(start_paused = true)]
async fn steps_are_taken_in_order_by_those_they_are_for() {
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
        let response = answer(scene.stage.deliver(request).await);
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
        assert_eq!(json_of(&answer(scene.call().await))["code"], 4);
    }
    scene.stage.clear_faults();
    assert_eq!(json_of(&answer(scene.call().await))["code"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_clock_can_be_moved() {
    let scene = Scene::new().await;
    scene.stage.advance(Duration::from_secs(7_199));
    assert_eq!(answer(scene.call().await).status(), 200);
    scene.stage.advance(Duration::from_secs(1));
    assert_eq!(json_of(&answer(scene.call().await))["code"], 99_991_663);
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
async fn the_largest_window_is_found_wherever_it_lies() {
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
    // A request that never arrived does not count, a refused one does.
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
async fn the_record_keeps_the_newest_and_no_secret() {
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
