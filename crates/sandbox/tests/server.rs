//! The server's start, its limits, and its control endpoints.

mod common;

use std::time::Duration;

use common::{App, CHAT, USER, http, read};
use feishu_feed_card_sandbox::{Fault, Interface, Sandbox, Switches, World};
use serde_json::{Value, json};

#[test]
fn a_port_that_is_taken_is_an_error() {
    let first = Sandbox::builder().start().unwrap();
    let port = first.address().port();
    let error = Sandbox::builder().port(port).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    let again = Sandbox::builder().port(port).start().unwrap();
    assert_eq!(again.base_url(), format!("http://127.0.0.1:{port}"));
    assert_eq!((again.https_base_url(), again.ca_pem()), (None, None));
}

/// Every address in 127.0.0.0/8 is loopback on Linux only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_listens_on_the_given_address_before_and_after_a_pause() {
    let address = [127, 0, 0, 2];
    let sandbox = Sandbox::builder().bind(address.into()).start().unwrap();
    let port = sandbox.address().port();
    assert_eq!(sandbox.base_url(), format!("http://127.0.0.2:{port}"));
    sandbox.pause_listening().unwrap();
    sandbox.resume_listening().unwrap();
    let app = App::new(&sandbox).await;
    assert_eq!(app.pin(true).await.unwrap().code(), 0);
    let elsewhere = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(elsewhere.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn frequency_limits_hold_on_the_wire() {
    // The limit of a minute, because 50 calls may take longer than a second on a slow machine.
    let switches = Switches {
        per_second: None,
        per_minute: Some(50),
        ..Switches::default()
    };
    let sandbox = Sandbox::builder().switches(switches).start().unwrap();
    let app = App::new(&sandbox).await;
    for _ in 0..50 {
        assert_eq!(app.pin(true).await.unwrap().status, 200);
    }
    for _ in 0..10 {
        let answer = app.pin(true).await.unwrap();
        assert_eq!((answer.status, answer.code()), (429, 99_991_400));
        assert_eq!(answer.header("x-ogw-ratelimit-limit"), "50");
        let reset: u64 = answer.header("x-ogw-ratelimit-reset").parse().unwrap();
        assert!((30..=60).contains(&reset), "{reset}");
    }
    assert_eq!(
        sandbox.max_in_window(Interface::Group, Duration::from_secs(60)),
        60
    );
    sandbox.advance(Duration::from_secs(60));
    assert_eq!(app.pin(true).await.unwrap().status, 200);
}

#[tokio::test]
async fn other_processes_can_use_the_control_endpoints() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    app.pin(true).await.unwrap();
    let (http, url) = (http(), |path: &str| {
        format!("{}/_sandbox/{path}", sandbox.base_url())
    });

    let state = read(http.get(url("state"))).await.unwrap().json();
    assert_eq!(state["pinned"][CHAT], json!([USER]));
    assert_eq!(
        (&state["request_count"], &state["token_fetches"]),
        (&json!(2), &json!(1))
    );
    let requests = read(http.get(url("requests"))).await.unwrap().json();
    assert_eq!(requests[1]["path"], format!("/open-apis/im/v2/feed_cards/{CHAT}"));
    assert_eq!(requests[1]["headers"]["content-type"], "application/json");

    let execute = async |control: Value| {
        read(http.post(url("control")).body(control.to_string()))
            .await
            .unwrap()
    };
    let answer = execute(json!({"do": "faults", "faults": [{"on": "call", "code": 2200}]})).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "null\n"));
    assert_eq!(app.pin(true).await.unwrap().code(), 2200);
    let answer = execute(json!({"do": "pinned", "open_id": USER})).await;
    assert_eq!(answer.json(), json!([CHAT]));
    let answer = execute(json!({"do": "pined"})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("pinned_users"), "{}", answer.text);
    assert_eq!(read(http.get(url("control"))).await.unwrap().status, 404);
    assert_eq!(
        sandbox.request_count(),
        3,
        "requests to the control endpoints do not count"
    );
}

#[tokio::test]
async fn other_processes_can_close_and_open_the_ports() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    let (http, url) = (http(), format!("{}/_sandbox/control", sandbox.base_url()));
    let execute = async |name: &str| {
        let control = json!({"do": name}).to_string();
        read(http.post(&url).body(control)).await.unwrap().text
    };
    for _ in 0..2 {
        // The connection of the control stays open. No other connection could open the ports again.
        assert_eq!(execute("pause_listening").await, "null\n");
        assert_eq!(execute("close_connections").await, "null\n");
        assert!(app.pin(true).await.is_err());
        assert_eq!(execute("resume_listening").await, "null\n");
        assert_eq!(app.pin(true).await.unwrap().code(), 0);
    }
    assert_eq!(sandbox.request_count(), 3);
}

#[tokio::test]
async fn over_limit_counts_refusals_by_the_platform_but_not_by_the_script() {
    let switches = Switches {
        per_minute: Some(2),
        ..Switches::default()
    };
    let sandbox = Sandbox::builder().switches(switches).start().unwrap();
    let app = App::new(&sandbox).await;
    sandbox.fault(Fault {
        code: Some(99_991_400),
        ..Fault::on_call()
    });
    for _ in 0..4 {
        app.pin(true).await.unwrap();
    }
    let state = sandbox.control_json(r#"{"do": "state"}"#).unwrap();
    assert!(state.contains(r#""over_limit":1"#), "{state}");
}

#[tokio::test]
async fn the_builder_adds_to_the_example_world() {
    use feishu_feed_card_sandbox::{App as PlatformApp, Chat, User};
    let sandbox = Sandbox::builder()
        .app(PlatformApp::new("cli_more", "more"))
        .user(User::new("ou_more"))
        .chat(Chat::new("oc_more", ["ou_more"]))
        .fault(Fault {
            code: Some(10014),
            ..Fault::on_token()
        })
        .start()
        .unwrap();
    let app = App {
        http: http(),
        base: sandbox.base_url(),
        token: String::new(),
    };
    assert_eq!(app.fetch_token().await.unwrap().code(), 10014);
    let app = App::new(&sandbox).await;
    let body = json!({"time_sensitive": true, "user_ids": ["ou_more"]});
    assert_eq!(app.call("oc_more", &body).await.unwrap().code(), 0);
    let own = json!({"app_id": "cli_more", "app_secret": "more"});
    assert_eq!(
        app.post("tenant_access_token/internal", &own)
            .await
            .unwrap()
            .code(),
        0
    );

    let empty = Sandbox::builder().world(World::default()).start().unwrap();
    let app = App {
        base: empty.base_url(),
        ..app
    };
    assert_eq!(app.fetch_token().await.unwrap().code(), 10014);
}

/// The Python and Node.js bindings use them from any thread.
#[test]
fn the_public_types_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Sandbox>();
    assert_shareable::<feishu_feed_card_sandbox::Stage>();
}
