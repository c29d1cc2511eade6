//! Proxies of every kind, from the option and from the environment.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use feishu_feed_card::{ClientBuilder, ConnectionReason, Error, ErrorKind, Station};
use feishu_feed_card_sandbox::Sandbox;

use super::proxy_servers::{HttpProxy, Proxy, Socks};
use super::reasons::closed_port;
use super::servers::{Certificate, LOCAL, Platform, plain};
use super::{TempFile, app, in_process, pin, test_base_url};

/// A platform behind proxies alone: its name has no address, and to its address there is no way.
const HOST: &str = "feishu.invalid";
const ADDRESS: &str = "192.0.2.1";

fn platform() -> (Platform, TempFile) {
    let certificate = Certificate::new(&["127.0.0.1", "localhost", HOST, ADDRESS]);
    let pem = TempFile::new("proxied.pem", &certificate.pem);
    (Platform::with(certificate), pem)
}

async fn error_of(builder: ClientBuilder) -> Error {
    let error = pin(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
    error
}

fn all_texts(error: &Error) -> String {
    let mut texts = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        texts = format!("{texts} {cause} {cause:?}");
        source = cause.source();
    }
    texts
}

#[tokio::test]
async fn an_http_proxy_is_used_with_its_password_and_never_shown() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let certificate = Certificate::new(&["127.0.0.1"]);
    let pem = TempFile::new(
        "proxy-ca.pem",
        [sandbox.ca_pem().unwrap(), &certificate.pem].concat(),
    );
    for scheme in ["http", "https"] {
        let tls = (scheme == "https").then(|| certificate.acceptor(&[]));
        let proxy = Proxy::http(HttpProxy {
            tls,
            ..HttpProxy::default()
        });
        let url = format!("{scheme}://me:hunter22@{}", proxy.address);
        for base_url in [sandbox.base_url(), sandbox.https_base_url().unwrap()] {
            let builder = app().base_url(base_url).proxy(&url).ca_certs(&pem.0);
            assert!(!format!("{builder:?}").contains("hunter22"));
            let client = builder.build().unwrap();
            assert!(pin(&client).await.unwrap().ok());
            assert!(!format!("{client:?}").contains("hunter22"));
        }
        let heads = proxy.asked();
        let begins = |with: &str| heads.iter().any(|head| head.starts_with(with));
        assert!(begins("PATCH http://") && begins("CONNECT "), "{heads:?}");
        for head in heads {
            // "me:hunter22"
            assert!(head.contains("Basic bWU6aHVudGVyMjI="), "{head}");
            assert!(head.contains(": feishu-feed-card/"), "the user agent: {head}");
        }
    }
}

#[tokio::test]
async fn a_password_of_any_characters_arrives() {
    let (platform, pem) = platform();
    let builder = |proxy: String| app().base_url(&platform.base_url).ca_certs(&pem.0).proxy(proxy);
    // "é:/@ #%?"
    let encoded = "%C3%A9%3A%2F%40%20%23%25%3F";
    let proxy = Proxy::http(HttpProxy::default());
    let client = builder(format!("http://me:{encoded}@{}", proxy.address))
        .build()
        .unwrap();
    assert!(pin(&client).await.unwrap().ok());
    // "me:é:/@ #%?"
    let head = &proxy.asked()[0];
    assert!(head.contains("Basic bWU6w6k6L0AgIyU/\r\n"), "{head}");

    let proxy = Proxy::socks(Socks::Password("me:é:/@ #%?"), platform.address);
    let client = builder(format!("socks5h://me:{encoded}@{}", proxy.address))
        .build()
        .unwrap();
    assert!(pin(&client).await.unwrap().ok());
    assert!(
        proxy.asked()[0].starts_with("5 me:é:/@ #%? "),
        "{:?}",
        proxy.asked()
    );

    // Without a password.
    let proxy = Proxy::http(HttpProxy::default());
    let client = builder(format!("http://me@{}", proxy.address)).build().unwrap();
    assert!(pin(&client).await.unwrap().ok());
    assert!(proxy.asked()[0].contains("Basic bWU6\r\n"), "{:?}", proxy.asked());
}

#[tokio::test]
async fn every_kind_of_socks_proxy_is_used() {
    let (platform, pem) = platform();
    let at_address = format!("https://{ADDRESS}");
    let at_name = format!("https://{HOST}:8443");
    // A name that is resolved here.
    let at_localhost = platform.base_url.replace("127.0.0.1", "localhost");
    let (socks4, socks5) = (
        format!("4 {}", platform.address),
        format!("5 {}", platform.address),
    );
    for (scheme, base_url, asked) in [
        ("socks4", &at_localhost, &*socks4),
        ("socks5", &at_localhost, &socks5),
        ("socks4", &at_address, "4 192.0.2.1:443"),
        ("socks4a", &at_name, "4a feishu.invalid:8443"),
        ("socks5", &at_address, "5 192.0.2.1:443"),
        ("socks5h", &at_name, "5 name feishu.invalid:8443"),
        ("socks5h", &at_address, "5 192.0.2.1:443"),
        ("socks", &at_name, "5 name feishu.invalid:8443"),
        ("SOCKS5H", &at_name, "5 name feishu.invalid:8443"),
    ] {
        let proxy = Proxy::socks(Socks::Open, platform.address);
        let builder = app().base_url(base_url.as_str()).ca_certs(&pem.0);
        let client = builder
            .proxy(format!("{scheme}://{}", proxy.address))
            .build()
            .unwrap();
        assert!(pin(&client).await.unwrap().ok(), "{scheme}");
        assert_eq!(proxy.asked(), [asked], "{scheme}");
    }
    // Over clear text too, with http's own port.
    let http = Platform::http1(LOCAL);
    for (scheme, host, asked) in [
        ("socks4a", HOST, "4a feishu.invalid:80"),
        ("socks5", ADDRESS, "5 192.0.2.1:80"),
        ("socks5h", HOST, "5 name feishu.invalid:80"),
    ] {
        let proxy = Proxy::socks(Socks::Open, http.address);
        let builder = app().base_url(format!("http://{host}")).allow_http(true);
        let client = builder
            .proxy(format!("{scheme}://{}", proxy.address))
            .build()
            .unwrap();
        assert!(pin(&client).await.unwrap().ok(), "{scheme}");
        assert_eq!(proxy.asked()[0], asked, "{scheme}");
    }
}

#[tokio::test]
async fn a_proxy_that_wants_another_password_is_asked_once() {
    const REFUSAL: &str = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    let (platform, pem) = platform();
    let http = || {
        Proxy::http(HttpProxy {
            refusal: Some(REFUSAL),
            ..HttpProxy::default()
        })
    };
    let socks = |socks| Proxy::socks(socks, platform.address);
    for (scheme, credentials, base_url, proxy) in [
        ("http", "me:hunter22@", &*platform.base_url, http()),
        ("http", "", &platform.base_url, http()),
        // The request itself goes to the proxy.
        ("http", "me:hunter22@", "http://127.0.0.1:1", http()),
        (
            "socks5",
            "me:hunter22@",
            &platform.base_url,
            socks(Socks::Password("me:right")),
        ),
        (
            "socks5h",
            "me:hunter22@",
            &platform.base_url,
            socks(Socks::NoMethod),
        ),
        (
            "socks5h",
            "",
            &platform.base_url,
            socks(Socks::Password("me:right")),
        ),
        (
            "socks5h",
            "me:hunter22@",
            &platform.base_url,
            socks(Socks::OtherMethod),
        ),
        ("socks5h", "", &platform.base_url, socks(Socks::OtherMethod)),
    ] {
        let place = format!("{scheme}://{}", proxy.address);
        let url = format!("{scheme}://{credentials}{}", proxy.address);
        let error = error_of(app().base_url(base_url).ca_certs(&pem.0).proxy(url)).await;
        assert_eq!(
            error.reason(),
            Some(ConnectionReason::ProxyAuth),
            "{place}: {error}"
        );
        assert!(!error.retryable());
        assert!(error.to_string().contains(&format!("(proxy {place})")), "{error}");
        assert!(error.hint().unwrap().contains("percent-encoded"), "{error}");
        assert!(!all_texts(&error).contains("hunter22"), "{}", all_texts(&error));
        assert!(proxy.asked().len() <= 1, "{place}: {:?}", proxy.asked());
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_otherwise_is_asked_again() {
    let (platform, pem) = platform();
    let http = |refusal| {
        Proxy::http(HttpProxy {
            refusal: Some(refusal),
            ..HttpProxy::default()
        })
    };
    let socks = |socks| Proxy::socks(socks, platform.address);
    for (scheme, proxy, attempts) in [
        ("http", http("HTTP/1.1 403 Forbidden\r\n\r\n"), 2),
        ("http", http("HTTP/1.1 502 Bad Gateway\r\n\r\n"), 2),
        (
            "http",
            http("HTTP/1.1 302 Found\r\nlocation: http://login\r\n\r\n"),
            2,
        ),
        // Not a proxy.
        ("http", http("220 ready\r\n"), 2),
        ("http", http(""), 2),
        // Connection not allowed; host unreachable.
        ("socks5h", socks(Socks::Refusal(2)), 2),
        ("socks5", socks(Socks::Refusal(4)), 2),
        ("socks4", socks(Socks::Refusal(0x5b)), 2),
        ("socks4a", socks(Socks::Refusal(0x5d)), 2),
        ("socks5h", socks(Socks::HangUp), 0),
        ("socks4", socks(Socks::HangUp), 0),
    ] {
        let url = format!("{scheme}://{}", proxy.address);
        let builder = app().base_url(&platform.base_url).ca_certs(&pem.0);
        let error = error_of(builder.proxy(&url).max_retries(1)).await;
        assert_eq!(error.reason(), Some(ConnectionReason::Proxy), "{error}");
        assert!(error.retryable());
        assert_eq!(error.station(), Some(Station::Token), "{error}");
        assert!(error.to_string().contains(&format!("(proxy {url})")), "{error}");
        assert!(error.hint().unwrap().contains("permits connections"), "{error}");
        assert_eq!(proxy.asked().len(), attempts, "{url}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    use ConnectionReason as Reason;

    let (platform, pem) = platform();
    let closed = closed_port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
    for scheme in ["http", "https", "socks4", "socks4a", "socks5", "socks5h"] {
        for (place, reason) in [
            (closed.to_string(), Reason::Refused),
            ("proxy.invalid:1080".to_owned(), Reason::Dns),
            (silent.1.to_string(), Reason::Timeout),
            // A multicast address. Other systems report another error for it.
            #[cfg(target_os = "linux")]
            ("224.0.0.1:1080".to_owned(), Reason::Unreachable),
        ] {
            let credentials = if scheme.contains('4') { "" } else { "me:hunter22@" };
            let builder = app().base_url(&platform.base_url).ca_certs(&pem.0);
            let builder = builder.proxy(format!("{scheme}://{credentials}{place}"));
            // Windows tries a refused connection for two seconds.
            let connect_timeout = if reason == Reason::Timeout { 300 } else { 10_000 };
            let builder = builder
                .max_retries(0)
                .connect_timeout(Duration::from_millis(connect_timeout));
            let error = error_of(builder).await;
            assert_eq!(error.reason(), Some(reason), "{scheme} {place}: {error}");
            let named = format!("(proxy {scheme}://{place})");
            assert!(error.to_string().contains(&named), "{error}");
            assert!(error.hint().unwrap().contains("option proxy"), "{error}");
            assert!(!all_texts(&error).contains("hunter22"), "{}", all_texts(&error));
        }
    }
}

/// Behind a proxy there are two servers that may show a wrong certificate or speak no TLS.
#[tokio::test]
async fn the_server_whose_tls_fails_is_named() {
    use ConnectionReason as Reason;

    const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let (platform, pem) = platform();
    let tls = Some(Certificate::new(&["127.0.0.1"]).acceptor(&[]));
    let to = |target| {
        let target = Some(target);
        let proxy = HttpProxy {
            target,
            ..HttpProxy::default()
        };
        Proxy::http(proxy).address
    };
    let with_other_certificate = Proxy::http(HttpProxy {
        tls,
        ..HttpProxy::default()
    });
    let other = with_other_certificate.address;
    let socks = |target| Proxy::socks(Socks::Open, target).address;
    let host = format!("https://{HOST}");
    let clear = "http://127.0.0.1:1";
    for (scheme, proxy, base_url, is_trusted, reason) in [
        ("http", to(platform.address), &*host, false, Reason::TlsUntrusted),
        (
            "socks5h",
            socks(platform.address),
            &host,
            false,
            Reason::TlsUntrusted,
        ),
        ("http", to(plain(BAD_REQUEST)), &host, true, Reason::Tls),
        ("socks4a", socks(plain(BAD_REQUEST)), &host, true, Reason::Tls),
        ("http", to(plain(b"")), &host, true, Reason::Closed),
        ("socks5h", socks(plain(b"")), &host, true, Reason::Closed),
    ] {
        let error = tls_error(scheme, proxy, base_url, is_trusted.then_some(&pem)).await;
        assert_eq!(error.reason(), Some(reason), "{scheme}: {error}");
        assert!(
            error.to_string().contains("(feishu.invalid)"),
            "{scheme}: {error}"
        );
    }
    for (proxy, base_url, reason) in [
        (other, &*host, Reason::TlsUntrusted),
        (other, clear, Reason::TlsUntrusted),
        (plain(BAD_REQUEST), &host, Reason::Tls),
        (plain(BAD_REQUEST), clear, Reason::Tls),
        (plain(b""), &host, Reason::Closed),
        (plain(b""), clear, Reason::Closed),
    ] {
        let error = tls_error("https", proxy, base_url, Some(&pem)).await;
        assert_eq!(error.reason(), Some(reason), "{base_url}: {error}");
        let named = format!("(proxy https://{proxy})");
        assert!(error.to_string().contains(&named), "{base_url}: {error}");
    }
}

async fn tls_error(scheme: &str, proxy: SocketAddr, base_url: &str, trusted: Option<&TempFile>) -> Error {
    let mut builder = app().base_url(base_url).max_retries(0);
    if let Some(pem) = trusted {
        builder = builder.ca_certs(&pem.0);
    }
    error_of(builder.proxy(format!("{scheme}://{proxy}"))).await
}

/// Over http, only the proxy is connected to.
#[tokio::test]
async fn a_forwarding_proxy_that_hangs_up_is_named() {
    let proxy = plain(b"");
    let builder = app().base_url("http://127.0.0.1:1").max_retries(0);
    let error = error_of(builder.proxy(format!("http://{proxy}"))).await;
    assert_eq!(error.reason(), Some(ConnectionReason::Closed), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("the connection broke (proxy http://{proxy})")),
        "{error}"
    );
}

#[test]
fn clear_text_goes_to_no_proxy_elsewhere() {
    for (base_url, proxy) in [
        ("http://localhost:1", "http://proxy.invalid:3128"),
        ("http://127.0.0.1:1", "socks5h://proxy.invalid:1080"),
        ("http://[::1]:1", "https://proxy.invalid"),
    ] {
        let error = app().base_url(base_url).proxy(proxy).build().unwrap_err();
        assert_eq!(error.field(), Some("proxy"), "{error}");
        assert!(error.to_string().contains("allow_http"), "{error}");
        let allowed = app().base_url(base_url).proxy(proxy).allow_http(true);
        assert!(allowed.build().is_ok());
    }
}

#[test]
fn an_ipv6_address_over_https_cannot_be_reached_through_a_proxy() {
    for proxy in ["http://127.0.0.1:3128", "socks5h://127.0.0.1:1080"] {
        let error = app()
            .base_url("https://[2001:db8::1]")
            .proxy(proxy)
            .build()
            .unwrap_err();
        assert_eq!(error.field(), Some("base_url"), "{error}");
        assert!(error.to_string().contains("IPv6"), "{error}");
    }
    let direct = app().base_url("https://[2001:db8::1]").no_proxy();
    assert!(direct.build().is_ok());
}

/// Runs [`in_env_a_call`] with these variables and returns its result.
fn call_with(variables: &[(&str, String)]) -> String {
    let printed = in_process("proxies::in_env_a_call", variables);
    let result = printed.lines().find_map(|line| line.split_once("RESULT: "));
    result.unwrap_or_else(|| panic!("{printed}")).1.to_owned()
}

#[tokio::test]
#[ignore = "run with variables by the tests below"]
async fn in_env_a_call() {
    let mut builder = app().base_url(test_base_url()).allow_http(true).max_retries(0);
    if let Ok(pem) = std::env::var("TEST_CA") {
        builder = builder.ca_certs(pem);
    }
    if std::env::var("TEST_NO_PROXY").is_ok() {
        builder = builder.no_proxy();
    }
    let result = match builder.build() {
        Ok(client) => pin(&client).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(_) => println!("RESULT: ok"),
        Err(error) => println!("RESULT: {:?} {:?} {error}", error.kind(), error.reason()),
    }
}

#[test]
fn the_environment_names_proxies_of_every_kind() {
    let (platform, pem) = platform();
    let call = |base_url: &str, variable, value: &str| {
        call_with(&[
            (variable, value.to_owned()),
            ("TEST_BASE_URL", base_url.to_owned()),
            ("TEST_CA", pem.0.display().to_string()),
        ])
    };
    let (at_name, at_address) = (format!("https://{HOST}"), format!("https://{ADDRESS}"));
    let to_platform = || {
        Proxy::http(HttpProxy {
            target: Some(platform.address),
            ..HttpProxy::default()
        })
    };
    for (variable, value) in [
        ("HTTPS_PROXY", "http://me:hunter22@"),
        ("https_proxy", "http://"),
        ("ALL_PROXY", ""),
        ("all_proxy", "HTTP://"),
    ] {
        let proxy = to_platform();
        assert_eq!(
            call(&at_name, variable, &format!("{value}{}", proxy.address)),
            "ok"
        );
        let head = &proxy.asked()[0];
        assert!(head.starts_with("CONNECT feishu.invalid:443 "), "{head}");
        assert_eq!(
            head.contains("Basic bWU6aHVudGVyMjI="),
            value.contains("hunter"),
            "{head}"
        );
    }
    for (variable, scheme, base_url, asked) in [
        ("ALL_PROXY", "socks5", &at_address, "5 192.0.2.1:443"),
        ("ALL_PROXY", "socks", &at_name, "5 name feishu.invalid:443"),
        ("all_proxy", "socks5h", &at_name, "5 name feishu.invalid:443"),
        ("HTTPS_PROXY", "socks4", &at_address, "4 192.0.2.1:443"),
        ("https_proxy", "socks4a", &at_name, "4a feishu.invalid:443"),
    ] {
        let proxy = Proxy::socks(Socks::Open, platform.address);
        assert_eq!(
            call(base_url, variable, &format!("{scheme}://{}", proxy.address)),
            "ok"
        );
        assert_eq!(proxy.asked(), [asked], "{variable} {scheme}");
    }
    let proxy = Proxy::socks(Socks::Password("me:pass word"), platform.address);
    let value = format!("socks5h://me:pass%20word@{}", proxy.address);
    assert_eq!(call(&at_name, "ALL_PROXY", &value), "ok");
}

/// Without a proxy, the platform's host has no address.
fn assert_is_direct(result: &str) {
    assert!(
        result.contains("Some(Dns)") && result.contains(&format!("({HOST})")),
        "{result}"
    );
}

#[test]
fn the_environments_proxy_is_left_out_where_it_should_be() {
    let (platform, pem) = platform();
    let proxy = Proxy::http(HttpProxy {
        target: Some(platform.address),
        ..HttpProxy::default()
    });
    let call = |base_url: &str, variables: &[(&'static str, &str)]| {
        let mut all = vec![
            ("TEST_BASE_URL", base_url.to_owned()),
            ("TEST_CA", pem.0.display().to_string()),
        ];
        all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        call_with(&all)
    };
    let url = format!("http://{}", proxy.address);
    let (https, http) = (format!("https://{HOST}"), format!("http://{HOST}"));

    for no_proxy in ["*", ".invalid", "other.host, feishu.invalid:443", "*.invalid"] {
        assert_is_direct(&call(&https, &[("HTTPS_PROXY", &url), ("NO_PROXY", no_proxy)]));
    }
    assert_is_direct(&call(&https, &[("ALL_PROXY", &url), ("no_proxy", "invalid")]));
    // The option of a client says more than the environment.
    assert_is_direct(&call(&https, &[("HTTPS_PROXY", &url), ("TEST_NO_PROXY", "1")]));
    // Not for https.
    assert_is_direct(&call(&https, &[("HTTP_PROXY", &url)]));
    // A web server sets this variable to a header of the request.
    let cgi = ("REQUEST_METHOD", "GET");
    assert_is_direct(&call(&http, &[("HTTP_PROXY", &url), cgi]));
    // A platform on this machine.
    assert_eq!(call(&platform.base_url, &[("HTTPS_PROXY", &url)]), "ok");
    assert_eq!(proxy.asked().len(), 0, "{:?}", proxy.asked());

    let in_clear_text = Platform::http1(LOCAL);
    let proxy = Proxy::http(HttpProxy {
        target: Some(in_clear_text.address),
        ..HttpProxy::default()
    });
    let url = format!("http://{}", proxy.address);
    assert_eq!(call(&http, &[("HTTP_PROXY", &url)]), "ok");
    // On Windows, this is the same variable as `HTTP_PROXY`.
    if cfg!(not(windows)) {
        assert_eq!(call(&http, &[("http_proxy", &url), cgi]), "ok");
    }
    assert_eq!(
        call(&http, &[("HTTP_PROXY", &url), ("NO_PROXY", "feishu.invalid:443")]),
        "ok"
    );
    assert!(
        proxy
            .asked()
            .iter()
            .all(|head| head.contains(" http://feishu.invalid/"))
    );
}

#[test]
fn a_variable_that_cannot_be_used_is_named_and_its_password_is_not() {
    for (variable, value) in [
        ("HTTPS_PROXY", "http://me:hunter22/@proxy.invalid:1"),
        ("ALL_PROXY", "socks6://me:hunter22@proxy.invalid"),
        ("all_proxy", " http://me:hunter22@proxy.invalid"),
        ("https_proxy", "socks5h://me:hunter 22@proxy.invalid"),
        ("https_proxy", "socks4://me:hunter22@proxy.invalid"),
    ] {
        let variables = [
            (variable, value.to_owned()),
            ("TEST_BASE_URL", format!("https://{HOST}")),
        ];
        let result = call_with(&variables);
        assert!(result.starts_with("InvalidInput None "), "{result}");
        // On Windows, the names of variables have no letter case.
        let name = if cfg!(windows) {
            variable.to_uppercase()
        } else {
            variable.to_owned()
        };
        assert!(
            result.contains(&format!("environment variable {name} is")),
            "{result}"
        );
        assert!(!result.contains("hunter"), "{result}");
        let mut variables = variables.to_vec();
        variables.push(("TEST_NO_PROXY", "1".to_owned()));
        assert_is_direct(&call_with(&variables));
        variables[2] = ("NO_PROXY", "*".to_owned());
        assert_is_direct(&call_with(&variables));
    }
}
