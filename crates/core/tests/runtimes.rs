//! Several runtimes, a caller's own HTTP client, and failures below one request.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use feishu_feed_card::{Client, ClientBuilder, ErrorKind, Request};
use feishu_feed_card_sandbox::Sandbox;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
const USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";

fn app() -> ClientBuilder {
    Client::builder().app("cli_example", "example-secret")
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn pin(client: &Client) {
    let call = client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(Duration::from_secs(5));
    assert!(call.await.unwrap().ok());
}

#[test]
fn a_call_needs_no_other_runtime_to_be_driven() {
    // Over HTTP/2 too, where all calls share the connection of the first.
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let pem = std::env::temp_dir().join(format!("feishu-feed-card-runtimes-{}.pem", std::process::id()));
    std::fs::write(&pem, sandbox.ca_pem().unwrap()).unwrap();
    let secure = app().base_url(sandbox.https_base_url().unwrap()).ca_certs(&pem);
    let secure = secure.build().unwrap();
    drop(std::fs::remove_file(&pem));
    for client in [app().base_url(sandbox.base_url()).build().unwrap(), secure] {
        let first = current_thread();
        first.block_on(pin(&client));
        // The first runtime exists, with an open connection, but does not run.
        current_thread().block_on(pin(&client));
        first.block_on(pin(&client));
    }
}

/// A token fetch belongs to the runtime of the call that began it, like a connection.
#[test]
fn a_call_needs_no_token_fetch_of_another_runtime() {
    let sandbox = Sandbox::builder().start().unwrap();
    let client = app().base_url(sandbox.base_url()).build().unwrap();
    let first = current_thread();
    first.block_on(async {
        let call = client.set_time_sensitive(CHAT, [USER], true).into_future();
        // The call is dropped before its token fetch ends.
        drop(tokio::time::timeout(Duration::from_micros(1), call).await);
    });
    current_thread().block_on(pin(&client));
}

/// Resolves every name to one address; without one it panics.
struct Names(Option<SocketAddr>);

impl Resolve for Names {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.0;
        Box::pin(async move {
            let address = address.unwrap();
            Ok(Box::new([address].into_iter()) as Addrs)
        })
    }
}

fn http_client(names: Names) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .dns_resolver(Arc::new(names))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_callers_own_http_client_is_used() {
    let sandbox = Sandbox::builder().start().unwrap();
    let address = sandbox.base_url().trim_start_matches("http://").parse().unwrap();
    let client = app()
        .base_url("http://platform.invalid")
        .allow_http(true)
        .http_client(http_client(Names(Some(address))))
        .build()
        .unwrap();
    pin(&client).await;
}

#[test]
fn options_that_the_http_client_replaces_are_refused_beside_it() {
    let builder = || app().http_client(http_client(Names(None)));
    for (field, builder) in [
        ("proxy", builder().proxy("http://127.0.0.1:1")),
        ("proxy", builder().no_proxy()),
        ("ca_certs", builder().ca_certs("ca.pem")),
        (
            "connect_timeout",
            builder().connect_timeout(Duration::from_secs(1)),
        ),
        ("base_url", builder().base_url("http://127.0.0.1:1")),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidInput, Some(field))
        );
    }
}

#[tokio::test]
async fn a_panic_below_one_request_is_its_error() {
    let client = app()
        .base_url("http://platform.invalid")
        .allow_http(true)
        .http_client(http_client(Names(None)))
        .max_retries(0)
        .build()
        .unwrap();
    let requests = (0..3).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests);
    let mut failed = 0;
    while let Some(item) = many.next().await.transpose().unwrap() {
        let error = item.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
        assert_eq!(error.users().not_attempted, [USER], "{error}");
        failed += 1;
    }
    let report = many.report().await;
    assert_eq!((failed, report.taken, report.failed), (3, 3, 3));
}

/// Answers everything with this body, said to be gzip, and counts requests.
async fn gzip_server(body: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                counted.fetch_add(1, Ordering::SeqCst);
                let size = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-encoding: GZIP\r\ncontent-length: {size}\r\n\r\n");
                if stream
                    .write_all(&[head.as_bytes(), &body].concat())
                    .await
                    .is_err()
                {
                    break;
                }
            }
        }
    });
    (base_url, requests)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_answer_is_read_and_a_bomb_is_not() {
    let client = |base_url: &str| {
        let builder = Client::builder().tenant_access_token("t-1").base_url(base_url);
        builder.build().unwrap()
    };
    let (base_url, _) = gzip_server(gzip(br#"{"code":0,"msg":"success","data":{}}"#)).await;
    pin(&client(&base_url)).await;

    let bomb = gzip(&vec![b' '; 50 * 1024 * 1024]);
    for (body, message) in [
        (bomb, "larger than"),
        (b"\x1f\x8b broken".to_vec(), "not an answer"),
    ] {
        let (base_url, requests) = gzip_server(body).await;
        let client = client(&base_url);
        let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.users().unknown, [USER]);
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}
