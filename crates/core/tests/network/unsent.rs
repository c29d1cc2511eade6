//! Requests that an HTTP/2 server provably did not process.

use std::time::{Duration, Instant};

use feishu_feed_card::{Client, ConnectionReason, ErrorKind, Station};

use super::servers::{Act, INTERNAL_ERROR, LOCAL, NO_ERROR, Platform};
use super::{CHAT, TempFile, USER, app, pin};

/// Without retries: a request that was not processed is sent again all the same.
fn client(platform: &Platform) -> Client {
    let pem = TempFile::new("unsent.pem", platform.pem.as_ref().unwrap());
    let builder = app().base_url(&platform.base_url).ca_certs(&pem.0).max_retries(0);
    builder.build().unwrap()
}

#[tokio::test]
async fn a_request_that_was_not_processed_is_sent_again_at_once() {
    for (act, connections) in [(Act::RefuseStream, 1), (Act::GoAwayBefore, 2)] {
        let platform = Platform::http2(LOCAL, move |call| if call == 1 { act } else { Act::Answer });
        let began = Instant::now();
        let outcome = pin(&client(&platform)).await.unwrap();
        assert_eq!(outcome.requests, 2, "{act:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "{act:?}");
        assert_eq!(platform.connections(), connections, "{act:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_never_processed_was_not_attempted_and_delays_nothing() {
    const SENT: usize = 4;
    for act in [Act::RefuseStream, Act::GoAwayBefore] {
        let platform = Platform::http2(LOCAL, move |call| if call <= SENT { act } else { Act::Answer });
        let client = client(&platform);
        let error = pin(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
        assert_eq!(error.station(), Some(Station::Send), "{error}");
        assert_eq!(error.users().not_attempted, [USER], "{act:?}");
        assert_eq!(error.attempts() as usize, SENT);
        assert!(error.retryable());
        // The opposite call does not wait for `late_arrival`, 5 s.
        let began = Instant::now();
        let unpin = client.set_time_sensitive(CHAT, [USER], false).await;
        assert!(unpin.unwrap().ok());
        assert!(began.elapsed() < Duration::from_secs(2), "{act:?}");
        assert_eq!(platform.states(), [true, true, true, true, false]);
    }
}

/// The server goes away, and the stream is among those that it has taken on.
#[tokio::test]
async fn a_request_that_may_have_been_processed_is_unknown() {
    for act in [
        Act::GoAwayAfter(NO_ERROR),
        Act::GoAwayAfter(INTERNAL_ERROR),
        Act::Close,
    ] {
        let platform = Platform::http2(LOCAL, move |_| act);
        let error = pin(&client(&platform)).await.unwrap_err();
        assert_eq!(error.reason(), Some(ConnectionReason::Closed), "{act:?}: {error}");
        assert_eq!(error.station(), Some(Station::Answer), "{act:?}: {error}");
        assert_eq!((error.attempts(), platform.states().len()), (1, 1), "{act:?}");
        assert_eq!(error.users().unknown, [USER], "{act:?}");
    }
}
