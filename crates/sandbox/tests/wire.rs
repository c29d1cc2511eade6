//! Faults over real sockets, with HTTP/1.1 and HTTP/2.

#![allow(clippy::unwrap_used, reason = "test helpers outside of test functions")]

mod common;

use std::error::Error as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Answer, App, CHAT, USER, http_with};
use feishu_feed_card_sandbox::{Fault, Reset, Sandbox, Switches};
use serde_json::json;

/// Clients for HTTP, for HTTPS with HTTP/1.1, and for HTTPS with HTTP/2.
async fn clients(sandbox: &Sandbox) -> [App; 3] {
    let ca = reqwest::Certificate::from_pem(sandbox.ca_pem().unwrap().as_bytes()).unwrap();
    let https = sandbox.https_base_url().unwrap();
    let trust = |builder: reqwest::ClientBuilder| builder.tls_certs_only([ca.clone()]);
    [
        App::new(sandbox).await,
        App::with_http(http_with(|builder| trust(builder).http1_only()), https.clone()).await,
        App::with_http(http_with(trust), https).await,
    ]
}

fn sandbox() -> Sandbox {
    Sandbox::builder()
        .https(true)
        .switches(Switches::unlimited())
        .start()
        .unwrap()
}

/// The kind of the I/O error in the source chain.
fn io_error_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// Over HTTP/2, a client that is writing at that moment gets a broken pipe.
fn was_reset(error: &reqwest::Error) -> bool {
    matches!(
        io_error_kind(error),
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    )
}

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn pin_with(app: &App, sandbox: &Sandbox, fault: Fault) -> reqwest::Result<Answer> {
    sandbox.fault(fault);
    app.pin(true).await
}

#[tokio::test]
async fn https_has_both_versions_of_http() {
    let sandbox = sandbox();
    let [plain, one, two] = clients(&sandbox).await;
    assert_eq!(plain.pin(true).await.unwrap().version, reqwest::Version::HTTP_11);
    assert_eq!(one.pin(true).await.unwrap().version, reqwest::Version::HTTP_11);
    assert_eq!(two.pin(true).await.unwrap().version, reqwest::Version::HTTP_2);
    let untrusting = http_with(|builder| builder.tls_certs_only([]));
    assert!(
        untrusting
            .get(sandbox.https_base_url().unwrap())
            .send()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_reset_fault_resets_the_connection() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        for (reset, pinned) in [(Reset::Before, false), (Reset::After, true)] {
            let error = pin_with(
                &app,
                &sandbox,
                Fault {
                    reset: Some(reset),
                    ..Fault::on_call()
                },
            )
            .await
            .unwrap_err();
            assert!(was_reset(&error), "{error:?}");
            assert_eq!(!sandbox.pinned(USER).is_empty(), pinned);
        }
        assert_eq!(app.pin(false).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_truncated_response_has_the_full_content_length() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        for big_body in [None, Some(200_000)] {
            let fault = Fault {
                truncate: Some(10),
                big_body,
                ..Fault::on_call()
            };
            let error = pin_with(&app, &sandbox, fault).await.unwrap_err();
            assert!(
                error.is_body() || error.is_decode(),
                "the error must come after the head: {error:?}"
            );
            assert_eq!(sandbox.pinned(USER), [CHAT]);
            assert_eq!(app.pin(false).await.unwrap().status, 200);
        }
    }
    let app = App::new(&sandbox).await;
    sandbox.fault(Fault {
        truncate: Some(10),
        ..Fault::on_call()
    });
    let body = json!({"time_sensitive": true, "user_ids": [USER]});
    let mut response = app.request(CHAT).json(&body).send().await.unwrap();
    let length = response.content_length().unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 10);
    assert!(response.chunk().await.is_err() && length > 10);
}

#[tokio::test]
async fn a_response_may_have_no_content_length() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        let answer = pin_with(
            &app,
            &sandbox,
            Fault {
                no_content_length: true,
                ..Fault::on_call()
            },
        )
        .await
        .unwrap();
        assert!(!answer.headers.contains_key("content-length"));
        assert_eq!(answer.code(), 0);
        let fault = Fault {
            no_content_length: true,
            truncate: Some(10),
            ..Fault::on_call()
        };
        assert!(pin_with(&app, &sandbox, fault).await.is_err());
        let answer = pin_with(
            &app,
            &sandbox,
            Fault {
                big_body: Some(3 << 20),
                ..Fault::on_call()
            },
        )
        .await
        .unwrap();
        assert_eq!((answer.text.len(), answer.code()), (3 << 20, 0));
    }
}

#[tokio::test]
async fn a_request_whose_connection_closes_before_its_arrival_never_arrives() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        let before = sandbox.request_count();
        sandbox.fault(Fault {
            delay_before_ms: 500,
            ..Fault::on_call()
        });
        let short = app.request(CHAT).timeout(Duration::from_millis(150));
        let body = json!({"time_sensitive": true, "user_ids": [USER]});
        assert!(short.json(&body).send().await.unwrap_err().is_timeout());
        wait_for("the request", || sandbox.request_count() == before + 1).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(sandbox.pinned(USER), [""; 0]);

        sandbox.fault(Fault {
            delay_before_ms: 500,
            detached: true,
            ..Fault::on_call()
        });
        let short = app.request(CHAT).timeout(Duration::from_millis(150));
        assert!(short.json(&body).send().await.unwrap_err().is_timeout());
        assert_eq!(sandbox.pinned(USER), [""; 0]);
        wait_for("the detached pin", || sandbox.pinned(USER) == [CHAT]).await;
        app.pin(false).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_pin_arrives_after_the_reset_and_after_an_unpin() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        let fault = Fault {
            late_ms: Some(500),
            ..Fault::on_call()
        };
        let error = pin_with(&app, &sandbox, fault).await.unwrap_err();
        assert!(was_reset(&error), "{error:?}");
        assert_eq!(app.pin(false).await.unwrap().code(), 0);
        assert_eq!(sandbox.pinned(USER), [""; 0]);
        wait_for("the late pin", || sandbox.pinned(USER) == [CHAT]).await;
        app.pin(false).await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_connection_is_reset_before_any_data() {
    let sandbox = sandbox();
    sandbox.fault(Fault {
        refuse: true,
        ..Fault::default()
    });
    let mut stream = TcpStream::connect(sandbox.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!((sandbox.faults_left(), sandbox.request_count()), (0, 0));

    // A step that is not the first is taken by a request on an open connection.
    for app in clients(&sandbox).await {
        sandbox.faults([
            Fault::on_token(),
            Fault {
                refuse: true,
                ..Fault::on_call()
            },
        ]);
        assert!(was_reset(&app.pin(true).await.unwrap_err()));
        sandbox.clear_faults();
        assert_eq!(sandbox.pinned(USER), [""; 0]);
    }
}

#[tokio::test]
async fn connections_and_ports_can_be_closed() {
    let sandbox = sandbox();
    for app in clients(&sandbox).await {
        let connection = |sandbox: &Sandbox| sandbox.requests().last().map(|record| record.connection);
        app.pin(true).await.unwrap();
        let first = connection(&sandbox);
        app.pin(true).await.unwrap();
        assert_eq!(connection(&sandbox), first, "connections are kept");
        sandbox.close_connections().unwrap();
        sandbox.pause_listening().unwrap();
        // The first call fails on the closed connection or the closed port, the second on the closed port.
        let count = sandbox.request_count();
        assert!(app.pin(true).await.is_err());
        assert_eq!(
            io_error_kind(&app.pin(true).await.unwrap_err()),
            Some(ErrorKind::ConnectionRefused)
        );
        assert_eq!(sandbox.request_count(), count);
        sandbox.resume_listening().unwrap();
        assert_eq!(app.pin(false).await.unwrap().code(), 0);
        assert_ne!(connection(&sandbox), first);
    }
}

#[test]
fn header_names_are_in_title_case_on_http_1() {
    let sandbox = Sandbox::builder().start().unwrap();
    let mut stream = TcpStream::connect(sandbox.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    for name in [
        "\r\nX-Tt-Logid: ",
        "\r\nX-Request-Id: ",
        "\r\nContent-Type: application/json; charset=utf-8\r\n",
    ] {
        assert!(answer.contains(name), "{answer}");
    }
}

#[test]
fn input_that_is_not_http_is_refused() {
    let sandbox = Sandbox::builder().start().unwrap();
    for input in [
        b"nonsense\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PATCH /open-apis/im/v2/feed_cards/\xff HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnoise",
    ] {
        let mut stream = TcpStream::connect(sandbox.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(input).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The server sends a response with 400, or closes or resets the connection.
        match stream.read_to_end(&mut answer) {
            Ok(_) => assert!(!answer.starts_with(b"HTTP/1.1 200"), "{input:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(sandbox.request_count(), 0);
}

#[tokio::test]
async fn unusual_requests_get_the_gateways_answers() {
    let sandbox = Sandbox::builder().start().unwrap();
    let app = App::new(&sandbox).await;
    let huge = "x".repeat(5 << 20);
    assert_eq!(app.request(CHAT).body(huge).send().await.unwrap().status(), 413);
    let head = app
        .http
        .head(format!("{}/open-apis/im/v2/feed_cards/{CHAT}", app.base))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 404);
    let long = format!("oc_{}", "x".repeat(10_000));
    let answer = app
        .call(&long, &json!({"time_sensitive": true, "user_ids": [USER]}))
        .await
        .unwrap();
    assert_eq!(answer.code(), 232_006);
}
