//! Why a connection to the platform fails: the reason, what is named, what to do, and whether it is tried again.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use feishu_feed_card::{Client, ConnectionReason, ErrorKind, Station};

use super::servers::{LOCAL, plain, serve};
use super::{USER, pin};

#[tokio::test]
async fn a_failed_connection_says_why() {
    use ConnectionReason as Reason;

    let closed = closed_port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let not_tls = plain(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let hangs_up = plain(b"");
    for (base_url, reason, hint) in [
        (
            "https://nowhere.invalid".to_owned(),
            Reason::Dns,
            "host in base_url",
        ),
        (
            "https://nowhere.invalid:8443".to_owned(),
            Reason::Dns,
            "host in base_url",
        ),
        (format!("https://{closed}"), Reason::Refused, "port in base_url"),
        (format!("http://{closed}"), Reason::Refused, "port in base_url"),
        // A multicast address. Other systems report another error for it.
        #[cfg(target_os = "linux")]
        ("https://224.0.0.1".to_owned(), Reason::Unreachable, "network"),
        (
            format!("https://{}", silent.local_addr().unwrap()),
            Reason::Timeout,
            "firewall",
        ),
        (format!("https://{not_tls}"), Reason::Tls, "speak TLS"),
        (format!("https://{hangs_up}"), Reason::Closed, "Call again"),
    ] {
        let builder = Client::builder().tenant_access_token("t-1").base_url(&base_url);
        // Windows tries a refused connection for two seconds.
        let connect_timeout = if reason == Reason::Timeout { 300 } else { 10_000 };
        let builder = builder
            .max_retries(1)
            .connect_timeout(Duration::from_millis(connect_timeout));
        let error = pin(&builder.build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{base_url}: {error}");
        assert_eq!(error.reason(), Some(reason), "{base_url}: {error}");
        assert_eq!(error.station(), Some(Station::Connect), "{base_url}: {error}");
        assert_eq!(error.attempts(), 2, "{base_url}: {error}");
        assert!(error.retryable());
        assert_eq!(error.users().not_attempted, [USER]);
        let (_, place) = base_url.split_once("://").unwrap();
        assert_eq!(error.message(), format!("no connection ({place})"));
        assert!(
            error.to_string().contains(&format!("(reason {reason}, ")),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some(), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error}");
    }
}

/// A port that nothing listens on.
pub(crate) fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_connection_that_breaks_says_why() {
    let hangs_up = plain(b"");
    let resets = serve(LOCAL, |stream| async move {
        // What is not read by the end makes the system send a reset.
        stream.peek(&mut [0]).await.map(drop)
    });
    for address in [hangs_up, resets] {
        let base_url = format!("http://{address}");
        let builder = Client::builder().tenant_access_token("t-1").base_url(&base_url);
        let error = pin(&builder.max_retries(1).build().unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), Some(ConnectionReason::Closed), "{error}");
        assert_eq!(error.station(), Some(Station::Answer), "{error}");
        assert_eq!(error.users().unknown, [USER]);
        assert_eq!(error.attempts(), 2);
        assert_eq!(error.message(), format!("the connection broke ({address})"));
    }
}
