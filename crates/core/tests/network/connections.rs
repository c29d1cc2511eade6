//! Connections that close, stall, or are never made.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use feishu_feed_card::{Client, ErrorKind, Station};
use feishu_feed_card_sandbox::{Fault, Reset, Sandbox};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{CHAT, TempFile, USER, app, client, pin, with_sources};

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let sandbox = Sandbox::builder().start().unwrap();
    let client = client(&sandbox);
    for _ in 0..20 {
        assert!(pin(&client).await.unwrap().ok());
        sandbox.close_connections().unwrap();
    }
    assert_eq!(sandbox.pinned_users(CHAT), [USER]);
}

#[tokio::test]
async fn a_platform_that_is_away_for_a_moment_is_waited_for() {
    let sandbox = Sandbox::builder().start().unwrap();
    // With the default of three, the random waits might be too short.
    let client = app()
        .base_url(sandbox.base_url())
        .max_retries(10)
        .build()
        .unwrap();
    assert!(pin(&client).await.unwrap().ok());
    sandbox.pause_listening().unwrap();
    sandbox.close_connections().unwrap();
    let (outcome, ()) = tokio::join!(pin(&client), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sandbox.resume_listening().unwrap();
    });
    assert!(outcome.unwrap().ok());
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let sandbox = Sandbox::builder().start().unwrap();
    let client = client(&sandbox);
    assert!(pin(&client).await.unwrap().ok());
    sandbox.fault(Fault {
        delay_before_ms: 2000,
        ..Fault::on_call()
    });
    let call = client.set_time_sensitive(CHAT, [USER], false).into_future();
    assert!(
        tokio::time::timeout(Duration::from_millis(500), call)
            .await
            .is_err()
    );
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(
        sandbox.pinned_users(CHAT),
        [USER],
        "the unpin was recalled before it arrived"
    );
}

#[tokio::test]
async fn a_timeout_is_kept_and_says_where() {
    let sandbox = Sandbox::builder().start().unwrap();
    let client = client(&sandbox);
    sandbox.fault(Fault {
        delay_after_ms: 60_000,
        ..Fault::on_token()
    });
    let began = Instant::now();
    let call = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(Duration::from_millis(100));
    let error = call.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Token))
    );
    assert!(began.elapsed() < Duration::from_secs(10));

    let client = app().base_url(sandbox.base_url()).build().unwrap();
    sandbox.fault(Fault {
        delay_after_ms: 60_000,
        ..Fault::on_call()
    });
    let call = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(Duration::from_secs(2));
    let error = call.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Answer))
    );
    assert_eq!(error.users().unknown, [USER]);
}

#[tokio::test]
async fn a_connection_that_is_not_made_is_bounded_by_the_connect_timeout() {
    // Takes connections into its backlog and never speaks TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Has no room in its backlog.
    let full = TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let filling: Vec<_> = (0..8)
        .map(|_| tokio::spawn(TcpStream::connect(address)))
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for server in [&silent, &full] {
        let address = server.local_addr().unwrap();
        let client = Client::builder()
            .tenant_access_token("t-1")
            .base_url(format!("https://{address}"))
            .connect_timeout(Duration::from_millis(100))
            .max_retries(0)
            .build()
            .unwrap();
        let began = Instant::now();
        let error = pin(&client).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.station()),
            (ErrorKind::ConnectionFailed, Some(Station::Connect))
        );
        assert_eq!(error.users().not_attempted, [USER], "provably not sent");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(std::error::Error::source(&error).is_some());
        assert!(with_sources(&error).contains("connect_timeout"), "{error}");
    }
    drop(filling);
}

/// As a reference, `//host` names another host: the token must not go there.
#[tokio::test]
async fn a_path_prefix_names_no_host() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = elsewhere.local_addr().unwrap();
    let sandbox = Sandbox::builder().start().unwrap();
    for prefix in [
        format!("//{other}"),
        format!("/\\{other}"),
        format!("/.//{other}"),
        format!("/a/..//{other}"),
    ] {
        let client = app()
            .base_url(format!("{}{prefix}", sandbox.base_url()))
            .timeout(Duration::from_secs(5));
        // The sandbox knows no such path.
        let error = pin(&client.build().unwrap()).await.unwrap_err();
        assert_eq!(error.http_status(), Some(404), "{prefix}: {error}");
    }
    let reached = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(reached.is_err());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Sandbox::builder().start().unwrap();
    let sandbox = Sandbox::builder().start().unwrap();
    let location = format!(
        "{}/open-apis/im/v2/feed_cards/{CHAT}?user_id_type=open_id",
        elsewhere.base_url()
    );
    for status in [301, 302, 303, 307, 308] {
        let client = client(&sandbox);
        let fault = serde_json::json!({"on": "call", "status": status, "headers": {"location": location}});
        sandbox.fault(serde_json::from_value(fault).unwrap());
        let error = pin(&client).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.http_status()),
            (ErrorKind::UnexpectedResponse, Some(status))
        );
    }
    assert_eq!(elsewhere.request_count(), 0);
}

#[tokio::test]
async fn a_body_cut_short_is_replayed_and_one_too_large_is_refused() {
    let sandbox = Sandbox::builder().start().unwrap();
    let client = client(&sandbox);
    sandbox.fault(Fault {
        truncate: Some(5),
        ..Fault::on_call()
    });
    assert_eq!(pin(&client).await.unwrap().requests, 2);
    sandbox.fault(Fault {
        reset: Some(Reset::After),
        ..Fault::on_call()
    });
    assert_eq!(pin(&client).await.unwrap().requests, 2);
    sandbox.fault(Fault {
        big_body: Some(3 << 20),
        ..Fault::on_call()
    });
    let error = pin(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::UnexpectedResponse, 1)
    );
    sandbox.fault(Fault {
        big_body: Some(1 << 19),
        no_content_length: true,
        ..Fault::on_call()
    });
    assert!(pin(&client).await.unwrap().ok());
}

/// A call that waits for an HTTP/2 stream until its deadline was not attempted, and must not be sent when a
/// stream comes free after all.
#[tokio::test]
async fn a_call_given_up_while_it_waits_for_a_stream_is_never_sent() {
    let sandbox = Sandbox::builder()
        .https(true)
        .max_concurrent_streams(1)
        .start()
        .unwrap();
    let pem = TempFile::new("streams-ca.pem", sandbox.ca_pem().unwrap());
    let client = app()
        .base_url(sandbox.https_base_url().unwrap())
        .ca_certs(&pem.0)
        .build()
        .unwrap();
    assert!(pin(&client).await.unwrap().ok());
    sandbox.fault(Fault {
        delay_before_ms: 2000,
        ..Fault::on_call()
    });
    let slow = client.set_time_sensitive(CHAT, [USER], true).into_future();
    let late = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let call = client.set_bot_time_sensitive([USER], true);
        call.timeout(Duration::from_millis(500)).await
    };
    let (slow, late) = tokio::join!(slow, late);
    assert!(slow.unwrap().ok());
    let error = late.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::DeadlineExceeded, Some(Station::Connect))
    );
    assert_eq!(error.users().not_attempted, [USER]);
    assert!(pin(&client).await.unwrap().ok(), "the connection goes on");
    let paths: Vec<String> = sandbox
        .requests()
        .iter()
        .map(|record| record.path.clone())
        .collect();
    assert_eq!(paths.len(), 4, "a token and three calls: {paths:?}");
    assert!(
        !paths.iter().any(|path| path.contains("bot_time_sentive")),
        "{paths:?}"
    );
}

/// A cable in front of a server that can be cut without either end being told.
struct Cable {
    address: SocketAddr,
    cuts: tokio::sync::watch::Sender<u32>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = tokio::sync::watch::Sender::new(0);
        let cut = cuts.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, cuts }
    }

    /// What is connected now falls silent; who connects after this is heard.
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

#[tokio::test]
async fn a_connection_that_has_gone_silent_is_left() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let https = sandbox.https_base_url().unwrap();
    let cable = Cable::to(https.trim_start_matches("https://").parse().unwrap()).await;
    let pem = TempFile::new("silent-ca.pem", sandbox.ca_pem().unwrap());
    let client = app()
        .base_url(format!("https://{}", cable.address))
        .ca_certs(&pem.0)
        .build()
        .unwrap();
    assert!(pin(&client).await.unwrap().ok());
    cable.cut();
    let outcome = pin(&client).await.unwrap();
    assert_eq!(outcome.requests, 2, "one on each connection");
}
