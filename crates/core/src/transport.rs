//! How a request leaves and a response comes back. Two implementations: reqwest, and in tests the sandbox's
//! model called directly, without a socket.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ::http::{HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use reqwest::Url;

use crate::data::error::{BoxError, ConnectionReason};

mod body;
mod clients;
mod dns;
mod fault;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod proxy;
mod tls;

pub(crate) use fault::{causes, is_out_of_resources, text_of};

/// The content type of every request (docs/platform.md#request).
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The largest response that is read. No response of the platform is near this size.
pub(crate) const MOST_BYTES: usize = 1024 * 1024;

/// A transport's pending response.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// One request with a JSON body.
pub struct Outgoing {
    pub(crate) method: Method,
    pub url: Url,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl fmt::Debug for Outgoing {
    /// Without the body, which may hold the app's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("url", &self.url.as_str())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Carries one request to the platform. Dropping the returned future stops it.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request once, follows no redirect, and reads the whole response. Calls [`Sent::raise`] before it
    /// sends any byte that the platform could act on. If that returns `false`, it must not send the request.
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_>;
}

/// Whether a request may have reached the platform. One of three states: not sent yet, possibly sent, or given up
/// before it was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicU8>);

const UNSENT: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Sent {
    /// Records that bytes are about to leave. Returns `false` if the caller has given the request up: the call has
    /// already reported that nothing was sent, so nothing may leave.
    #[must_use]
    pub fn raise(&self) -> bool {
        let before = self
            .0
            .compare_exchange(UNSENT, SENT, Ordering::AcqRel, Ordering::Acquire);
        before != Err(GIVEN_UP)
    }

    /// Records that the server has proved that it did not process the request.
    pub(crate) fn retract(&self) {
        self.0.store(UNSENT, Ordering::Release);
    }

    /// Gives the request up. Returns `true` if its bytes may have left.
    pub(crate) fn give_up(&self) -> bool {
        let before = self
            .0
            .compare_exchange(UNSENT, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        before == Err(SENT)
    }

    /// Whether bytes may have left.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire) == SENT
    }
}

/// Why there is no response.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: DNS, TCP, TLS or proxy.
    Connect(Fault),
    /// The connection broke, or the body ended before its length.
    Broken(Fault),
    /// The connection ended, and the server has proved that it did not process the request.
    Unprocessed(Fault),
    /// The response is larger than the core reads.
    TooLarge(StatusCode),
}

/// What is wrong with a connection, and whose fault it is.
#[derive(Debug)]
pub struct Fault {
    /// `None` if no reason is known, as where the process has no descriptor left.
    pub(crate) reason: Option<ConnectionReason>,
    /// The host or the proxy that the connection was made to, or was to be made to.
    pub(crate) peer: Option<Peer>,
    pub(crate) source: BoxError,
}

/// The other end of a connection, as an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The platform, or a gateway in front of it.
    Host(String),
    /// The configured proxy, without its credentials.
    Proxy(String),
}

impl<E: Into<BoxError>> From<E> for Fault {
    fn from(source: E) -> Self {
        Self {
            reason: None,
            peer: None,
            source: source.into(),
        }
    }
}
