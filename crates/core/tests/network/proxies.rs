//! Proxies of every kind, from the option and from the environment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use feishu_feed_card::ErrorKind;
use feishu_feed_card_sandbox::Sandbox;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::{TempFile, app, in_process, pin, test_base_url};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_names_proxies() {
    let sandbox = Sandbox::builder().start().unwrap();
    let proxy = Proxy::start().await;
    let base_url = sandbox.base_url();
    let variables = [
        ("HTTP_PROXY", format!("http://{}", proxy.address)),
        ("TEST_BASE_URL", base_url.clone()),
    ];
    tokio::task::block_in_place(|| in_process("proxies::in_env_loopback_needs_no_proxy", &variables));
    assert_eq!(proxy.heads().len(), 0);
    tokio::task::block_in_place(|| in_process("proxies::in_env_http_proxy_is_used", &variables));
    assert!(!proxy.heads().is_empty());
    let before = proxy.heads().len();
    let mut variables = variables.to_vec();
    variables.push(("NO_PROXY", "feishu.invalid".to_owned()));
    tokio::task::block_in_place(|| in_process("proxies::in_env_no_proxy_is_heeded", &variables));
    assert_eq!(proxy.heads().len(), before);
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
