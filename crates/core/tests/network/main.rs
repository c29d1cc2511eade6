//! The client on a real network: connections that close, proxies, certificates, redirects. What needs
//! environment variables runs in a process of its own.

#![allow(
    clippy::unwrap_used,
    reason = "what helpers cannot do ends their test, as it should"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use feishu_feed_card::{Client, ClientBuilder, Error, ErrorKind, Outcome, Station};
use feishu_feed_card_sandbox::{Fault, Reset, Sandbox, World};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;

fn app() -> ClientBuilder {
    Client::builder().app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
}

fn client(sandbox: &Sandbox) -> Client {
    app().base_url(sandbox.base_url()).build().unwrap()
}

async fn pin(client: &Client) -> Result<Outcome, Error> {
    client.set_time_sensitive(CHAT, [USER], true).await?.into_result()
}

/// A file that is gone with its test.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("feishu-feed-card-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

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
    let client = client(&sandbox);
    assert!(pin(&client).await.unwrap().ok());
    sandbox.pause_listening().unwrap();
    sandbox.close_connections().unwrap();
    let (outcome, ()) = tokio::join!(pin(&client), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sandbox.resume_listening().unwrap();
    });
    // Up to three replays with jitter: the last one may still come too early, and says so.
    if let Err(error) = outcome {
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::ConnectionFailed, 4));
    }
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
        assert!(error.to_string().contains("connect_timeout"), "{error}");
    }
    drop(filling);
}

/// As a reference, `//host` names another host: the token must not go there.
#[tokio::test]
async fn a_path_prefix_names_no_host() {
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
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

#[tokio::test]
async fn https_works_with_the_certificate_and_not_without() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let base_url = sandbox.https_base_url().unwrap();
    let pem = TempFile::new("ca.pem", sandbox.ca_pem().unwrap());
    let trusting = app().base_url(&base_url).ca_certs(&pem.0).build().unwrap();
    assert!(pin(&trusting).await.unwrap().ok());
    // One connection carries many calls at once: the sandbox offers HTTP/2.
    let calls = (0..20).map(|_| trusting.set_time_sensitive(CHAT, [USER], true).into_future());
    for outcome in futures_util::future::join_all(calls).await {
        assert!(outcome.unwrap().ok());
    }
    let connections: std::collections::HashSet<_> = sandbox
        .requests()
        .iter()
        .map(|record| record.connection)
        .collect();
    assert_eq!(connections.len(), 1);

    let wary = app().base_url(&base_url).max_retries(0).build().unwrap();
    let error = pin(&wary).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed);
    assert!(
        error.to_string().contains("UnknownIssuer") && error.to_string().contains("ca_certs"),
        "{error}"
    );
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

#[test]
fn an_unusable_pem_file_is_told_when_the_client_is_made() {
    let empty = TempFile::new("empty.pem", "");
    let broken = TempFile::new(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let junk = TempFile::new(
        "junk.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for path in [&empty.0, &broken.0, &junk.0, &"/nonexistent/ca.pem".into()] {
        let error = app().ca_certs(path).build().unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidInput, Some("ca_certs")),
            "{error}"
        );
    }
}

/// A proxy that remembers what it was asked, and passes it on.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start() -> Self {
        Self::behind(|stream| async { stream }).await
    }

    /// One that is spoken to over TLS, and its certificate.
    async fn over_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let proxy = Self::behind(move |stream| {
            let accepted = tls.accept(stream);
            async move { accepted.await.unwrap() }
        });
        (proxy.await, made.cert.pem())
    }

    async fn behind<S, F>(accept: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = S> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let heard = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (accepted, heard) = (accept(stream), heard.clone());
                tokio::spawn(async move { pass_on(accepted.await, heard).await });
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// CONNECT becomes a tunnel; of a plain request the absolute form becomes the origin's.
async fn pass_on(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    heads.lock().unwrap().push(head.clone());
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method == "CONNECT" {
        let mut server = TcpStream::connect(target).await?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let rest = target.strip_prefix("http://").unwrap_or(target);
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    let mut server = TcpStream::connect(host).await?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).await?;
    let head =
        head.replacen(&format!("http://{host}"), "", 1)
            .replacen("\r\n", "\r\nconnection: close\r\n", 1);
    server.write_all(head.as_bytes()).await?;
    server.write_all(&body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    client.write_all(&answer).await?;
    client.shutdown().await
}

#[tokio::test]
async fn a_proxy_is_used_with_its_password_and_never_shown() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let plain = Proxy::start().await;
    let (over_tls, certificate) = Proxy::over_tls().await;
    let pem = format!("{}{certificate}", sandbox.ca_pem().unwrap());
    let pem = TempFile::new("proxy-ca.pem", &pem);
    for (scheme, proxy) in [("http", &plain), ("https", &over_tls)] {
        let url = format!("{scheme}://me:hunter22@{}", proxy.address);
        for base_url in [sandbox.base_url(), sandbox.https_base_url().unwrap()] {
            let builder = app().base_url(base_url).proxy(&url).ca_certs(&pem.0);
            assert!(!format!("{builder:?}").contains("hunter22"));
            let client = builder.build().unwrap();
            assert!(pin(&client).await.unwrap().ok());
            assert!(!format!("{client:?}").contains("hunter22"));
        }
        let heads = proxy.heads();
        let begins = |with: &str| heads.iter().any(|head| head.starts_with(with));
        assert!(begins("PATCH http://") && begins("CONNECT "), "{heads:?}");
        // "me:hunter22"
        assert!(
            heads.iter().all(|head| head.contains("Basic bWU6aHVudGVyMjI=")),
            "{heads:?}"
        );
    }

    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://me:hunter22@{gone}");
    let client = app()
        .base_url(sandbox.base_url())
        .proxy(url)
        .max_retries(0)
        .build()
        .unwrap();
    let error = pin(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed);
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        shown = format!("{shown} {cause} {cause:?}");
        source = cause.source();
    }
    assert!(!shown.contains("hunter22"), "{shown}");
}

/// Runs one of the tests below, which are ignored, with these variables set.
fn in_process(test: &str, variables: &[(&str, String)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_names_proxies() {
    let sandbox = Sandbox::builder().start().unwrap();
    let proxy = Proxy::start().await;
    let base_url = sandbox.base_url();
    let variables = [
        ("HTTP_PROXY", format!("http://{}", proxy.address)),
        ("TEST_BASE_URL", base_url.clone()),
    ];
    tokio::task::block_in_place(|| in_process("in_env_loopback_needs_no_proxy", &variables));
    assert_eq!(proxy.heads().len(), 0);
    tokio::task::block_in_place(|| in_process("in_env_http_proxy_is_used", &variables));
    assert!(!proxy.heads().is_empty());
    let before = proxy.heads().len();
    let mut variables = variables.to_vec();
    variables.push(("NO_PROXY", "feishu.invalid".to_owned()));
    tokio::task::block_in_place(|| in_process("in_env_no_proxy_is_heeded", &variables));
    assert_eq!(proxy.heads().len(), before);
}

fn test_base_url() -> String {
    std::env::var("TEST_BASE_URL").unwrap()
}

#[tokio::test]
#[ignore = "run by the_environment_names_proxies"]
async fn in_env_loopback_needs_no_proxy() {
    assert!(
        pin(&app().base_url(test_base_url()).build().unwrap())
            .await
            .unwrap()
            .ok()
    );
}

#[tokio::test]
#[ignore = "run by the_environment_names_proxies"]
async fn in_env_http_proxy_is_used() {
    // The proxy is asked for a host that it cannot find.
    let client = app()
        .base_url("http://feishu.invalid:1")
        .allow_http(true)
        .max_retries(0)
        .build()
        .unwrap();
    assert!(pin(&client).await.is_err());
}

#[tokio::test]
#[ignore = "run by the_environment_names_proxies"]
async fn in_env_no_proxy_is_heeded() {
    let client = app()
        .base_url("http://feishu.invalid:1")
        .allow_http(true)
        .max_retries(0)
        .build()
        .unwrap();
    assert_eq!(
        pin(&client).await.unwrap_err().kind(),
        ErrorKind::ConnectionFailed
    );
}

/// The machine's own roots are asked when an issuer is not among the bundled ones.
#[test]
fn a_root_of_the_machine_is_trusted() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let pem = TempFile::new("machine-ca.pem", sandbox.ca_pem().unwrap());
    let variables = [
        ("SSL_CERT_FILE", pem.0.to_string_lossy().into_owned()),
        ("TEST_BASE_URL", sandbox.https_base_url().unwrap()),
    ];
    in_process("in_env_the_machine_trusts_the_sandbox", &variables);
}

#[tokio::test]
#[ignore = "run by a_root_of_the_machine_is_trusted"]
async fn in_env_the_machine_trusts_the_sandbox() {
    assert!(
        pin(&app().base_url(test_base_url()).build().unwrap())
            .await
            .unwrap()
            .ok()
    );
}

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
            scope.spawn(|| in_process("in_env_all_calls_succeed", &variables));
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
    in_process("in_env_the_app_is_known", &variables);
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
        "in_env_values_are_wrong",
        &[("FEISHU_APP_ID", "cli_1".to_owned())],
    );
    let variables = [
        ("FEISHU_APP_ID", " ".to_owned()),
        ("FEISHU_APP_SECRET", "secret".to_owned()),
        ("FEISHU_BASE_URL", "open.feishu.cn".to_owned()),
    ];
    in_process("in_env_values_are_wrong", &variables);
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
