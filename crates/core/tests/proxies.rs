//! Proxies of every kind, and whose fault it is when one refuses.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card::{Client, ClientBuilder, ConnectionReason, Error, ErrorKind, Outcome};
use feishu_feed_card_sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
const USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";

/// A proxy that speaks one language, and notes how often it was connected to and what it was asked for.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start<F>(serve: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self {
            address,
            asked: asked.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, asked.clone()));
            }
        });
        proxy
    }

    /// Answers CONNECT with this status line, and tunnels after 200.
    async fn http(status: &'static str) -> Self {
        Self::start(move |mut stream, asked| async move {
            let head = head(&mut stream).await?;
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            asked.lock().unwrap().push(head.clone());
            stream
                .write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
                .await?;
            if status.starts_with("200") {
                tunnel(stream, &target).await?;
            }
            Ok(())
        })
        .await
    }

    /// `socks4` and `socks4a`; a reply of `0x5a` grants.
    async fn socks4(reply: u8) -> Self {
        Self::start(move |mut stream, asked| async move {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await?;
            let [_, _, high, low, a, b, c, d] = request;
            let port = u16::from_be_bytes([high, low]);
            let user = until_zero(&mut stream).await?;
            // 4a: an address that is none, and the name behind it.
            let host = if (a, b, c) == (0, 0, 0) {
                until_zero(&mut stream).await?
            } else {
                format!("{a}.{b}.{c}.{d}")
            };
            asked.lock().unwrap().push(format!("{user}@{host}:{port}"));
            stream.write_all(&[0, reply, 0, 0, 0, 0, 0, 0]).await?;
            if reply == 0x5a {
                tunnel(stream, &format!("{host}:{port}")).await?;
            }
            Ok(())
        })
        .await
    }

    /// SOCKS5 with this password, if there is one; a reply of 0 grants.
    async fn socks5(password: Option<&'static str>, reply: u8) -> Self {
        Self::start(move |mut stream, asked| async move {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await?;
            let mut methods = vec![0; head[1].into()];
            stream.read_exact(&mut methods).await?;
            let wanted = if password.is_some() { 2 } else { 0 };
            if !methods.contains(&wanted) {
                stream.write_all(&[5, 0xff]).await?;
                asked.lock().unwrap().push("no method".to_owned());
                return Ok(());
            }
            stream.write_all(&[5, wanted]).await?;
            if let Some(password) = password {
                stream.read_u8().await?;
                let _user = counted(&mut stream).await?;
                let is_right = counted(&mut stream).await? == password;
                stream.write_all(&[1, u8::from(!is_right)]).await?;
                if !is_right {
                    asked.lock().unwrap().push("wrong password".to_owned());
                    return Ok(());
                }
            }
            let mut request = [0; 4];
            stream.read_exact(&mut request).await?;
            let host = if request[3] == 3 {
                counted(&mut stream).await?
            } else {
                let mut address = [0; 4];
                stream.read_exact(&mut address).await?;
                address.map(|byte| byte.to_string()).join(".")
            };
            let port = stream.read_u16().await?;
            asked.lock().unwrap().push(format!("{host}:{port}"));
            stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            if reply == 0 {
                tunnel(stream, &format!("{host}:{port}")).await?;
            }
            Ok(())
        })
        .await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn until_zero(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            byte => text.push(byte),
        }
    }
}

async fn counted(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn tunnel(mut stream: TcpStream, target: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// The sandbox over https, and its certificate in a file that is removed with it.
struct Platform {
    sandbox: Sandbox,
    pem: PathBuf,
}

impl Drop for Platform {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.pem));
    }
}

impl Platform {
    fn start() -> Self {
        let sandbox = Sandbox::builder().https(true).start().unwrap();
        let port = sandbox
            .https_base_url()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned();
        let pem = std::env::temp_dir().join(format!("feishu-feed-card-proxies-{port}.pem"));
        std::fs::write(&pem, sandbox.ca_pem().unwrap()).unwrap();
        Self { sandbox, pem }
    }

    fn client(&self) -> ClientBuilder {
        Client::builder()
            .app("cli_example", "example-secret")
            .base_url(self.sandbox.https_base_url().unwrap())
            .ca_certs(&self.pem)
    }

    fn host_and_port(&self) -> String {
        let url = self.sandbox.https_base_url().unwrap();
        url.trim_start_matches("https://").to_owned()
    }
}

async fn pin(builder: ClientBuilder) -> Result<Outcome, Error> {
    let client = builder.build()?;
    client
        .set_time_sensitive(CHAT, [USER], true)
        .timeout(Duration::from_secs(10))
        .await
}

#[tokio::test]
async fn every_kind_of_proxy_carries_a_call() {
    let platform = Platform::start();
    let there = platform.host_and_port();
    for (scheme, credentials, proxy) in [
        ("http", "me:p%40ss@", Proxy::http("200 OK").await),
        ("socks4", "", Proxy::socks4(0x5a).await),
        ("socks4a", "", Proxy::socks4(0x5a).await),
        ("socks5", "", Proxy::socks5(None, 0).await),
        ("socks5h", "me:p%40ss@", Proxy::socks5(Some("p@ss"), 0).await),
        ("socks", "me:p%40ss@", Proxy::socks5(Some("p@ss"), 0).await),
    ] {
        let url = format!("{scheme}://{credentials}{}", proxy.address);
        let outcome = pin(platform.client().proxy(url)).await;
        assert!(outcome.unwrap_or_else(|error| panic!("{scheme}: {error}")).ok());
        let asked = proxy.asked();
        assert!(asked[0].contains(&there), "{scheme}: {asked:?}");
        if scheme == "http" {
            // base64 of "me:p@ss"
            assert!(asked[0].contains("Basic bWU6cEBzcw=="), "{asked:?}");
            assert!(asked[0].contains("feishu-feed-card/"), "{asked:?}");
        }
    }
}

/// With `socks5h` and `socks4a` the proxy resolves the name.
#[tokio::test]
async fn the_proxy_resolves_names_where_it_should() {
    let platform = Platform::start();
    let base_url = platform
        .sandbox
        .https_base_url()
        .unwrap()
        .replace("127.0.0.1", "localhost");
    for (scheme, proxy, is_name) in [
        ("socks5h", Proxy::socks5(None, 0).await, true),
        ("socks4a", Proxy::socks4(0x5a).await, true),
        ("socks4", Proxy::socks4(0x5a).await, false),
    ] {
        let client = platform
            .client()
            .base_url(&base_url)
            .proxy(format!("{scheme}://{}", proxy.address));
        drop(pin(client.max_retries(0)).await);
        assert_eq!(
            proxy.asked()[0].contains("localhost"),
            is_name,
            "{scheme}: {:?}",
            proxy.asked()
        );
    }
}

/// Calls through a proxy that refuses; `user` is empty or ends in `@`.
async fn refused_by(proxy: &Proxy, scheme: &str, user: &str) -> Error {
    let platform = Platform::start();
    let url = format!("{scheme}://{user}{}", proxy.address);
    let error = pin(platform.client().proxy(url).max_retries(2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
    assert_eq!(error.users().not_attempted, [USER]);
    let name = proxy.address.to_string();
    assert!(error.to_string().contains(&name), "the proxy is named: {error}");
    assert!(!error.to_string().contains("hush"), "{error}");
    error
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_twice() {
    for (scheme, user, proxy) in [
        (
            "http",
            "me:hush@",
            Proxy::http("407 Proxy Authentication Required").await,
        ),
        ("socks5h", "", Proxy::socks5(Some("right"), 0).await),
        ("socks5h", "me:hush@", Proxy::socks5(Some("right"), 0).await),
    ] {
        let error = refused_by(&proxy, scheme, user).await;
        assert_eq!(
            error.reason(),
            Some(ConnectionReason::ProxyAuth),
            "{scheme}: {error}"
        );
        assert!(!error.retryable());
        assert_eq!(proxy.asked().len(), 1, "{scheme}: {:?}", proxy.asked());
        assert!(error.hint().unwrap().contains("password"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_asked_again() {
    for (scheme, proxy) in [
        ("http", Proxy::http("403 Forbidden").await),
        ("http", Proxy::http("502 Bad Gateway").await),
        ("http", Proxy::http("nonsense").await),
        ("socks4", Proxy::socks4(0x5b).await),
        ("socks5", Proxy::socks5(None, 2).await),
        ("socks5", Proxy::socks5(None, 5).await),
    ] {
        let error = refused_by(&proxy, scheme, "").await;
        assert_eq!(error.reason(), Some(ConnectionReason::Proxy), "{scheme}: {error}");
        assert!(error.retryable());
        assert_eq!(proxy.asked().len(), 3, "two retries: {:?}", proxy.asked());
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_named() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = unused.local_addr().unwrap();
    drop(unused);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let platform = Platform::start();
    for scheme in ["http", "https", "socks4a", "socks5h"] {
        for (place, reason) in [
            (refusing.to_string(), ConnectionReason::Refused),
            ("proxy.invalid:3128".to_owned(), ConnectionReason::Dns),
        ] {
            let client = platform
                .client()
                .proxy(format!("{scheme}://{place}"))
                .max_retries(0);
            let error = pin(client).await.unwrap_err();
            assert_eq!(error.reason(), Some(reason), "{scheme}://{place}: {error}");
            assert!(
                error.to_string().contains(&format!("proxy {scheme}://{place}")),
                "{error}"
            );
            assert!(error.hint().unwrap().contains("HTTPS_PROXY"), "{error}");
        }
        let client = platform
            .client()
            .proxy(format!("{scheme}://{silent}"))
            .connect_timeout(Duration::from_millis(100))
            .max_retries(0);
        let error = pin(client).await.unwrap_err();
        assert!(
            matches!(
                error.reason(),
                Some(ConnectionReason::Timeout | ConnectionReason::Refused)
            ),
            "{scheme}: {error}"
        );
    }
}

/// Over http, a proxy is sent the request itself, and answers 407 to that.
#[tokio::test]
async fn a_forwarding_proxy_that_wants_a_password_is_asked_once() {
    let proxy = Proxy::http("407 Proxy Authentication Required").await;
    let client = Client::builder()
        .tenant_access_token("t-1")
        .base_url("http://platform.invalid")
        .allow_http(true)
        .proxy(format!("http://{}", proxy.address));
    let error = pin(client).await.unwrap_err();
    assert_eq!(error.reason(), Some(ConnectionReason::ProxyAuth), "{error}");
    assert_eq!(proxy.asked().len(), 1);
}
