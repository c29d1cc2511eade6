//! Sending a request and receiving its response. There are two implementations: reqwest, and for tests the sandbox's
//! model without sockets.

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
pub(crate) const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// A pending response.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// One request with a JSON body.
pub struct Outgoing {
    pub(crate) method: Method,
    pub url: Url,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl fmt::Debug for Outgoing {
    /// Leaves out the body, which may contain the app's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("url", &self.url.as_str())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Sends one request to the platform.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request once, without following redirects, and reads the whole response. Dropping the future cancels
    /// the request.
    ///
    /// An implementation calls [`Sent::raise`] before it sends any byte that the platform could act on. If `raise`
    /// returns `false`, the implementation must not send the request.
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_>;
}

/// Whether a request may have reached the platform. It has one of three states: not sent, possibly sent, or given up
/// before it was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicU8>);

const UNSENT: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Sent {
    /// Records that bytes are about to be sent. Returns `false` if the call has given the request up. It has then
    /// reported the request as not sent, so the request must not be sent.
    #[must_use]
    pub fn raise(&self) -> bool {
        let before = self
            .0
            .compare_exchange(UNSENT, SENT, Ordering::AcqRel, Ordering::Acquire);
        before != Err(GIVEN_UP)
    }

    /// Sets the state back to not sent, after the server has proved that it did not process the request.
    pub(crate) fn retract(&self) {
        self.0.store(UNSENT, Ordering::Release);
    }

    /// Gives the request up if it is not sent. Returns whether bytes may have been sent.
    pub(crate) fn give_up(&self) -> bool {
        let before = self
            .0
            .compare_exchange(UNSENT, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        before == Err(SENT)
    }

    /// Whether bytes may have been sent.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire) == SENT
    }
}

/// The reason for a missing response.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection was made, because of DNS, TCP, TLS or a proxy.
    Connect(Fault),
    /// The connection broke, or the body ended before its `Content-Length`.
    Broken(Fault),
    /// The connection ended, and the server has proved that it did not process the request.
    Unprocessed(Fault),
    /// The body of the response is larger than `MAX_RESPONSE_BYTES`.
    TooLarge(StatusCode),
}

/// An error of a connection, with its reason and the server that it concerns.
#[derive(Debug)]
pub struct Fault {
    /// `None` if the reason is unknown, or if it is not the connection's, such as a lack of file descriptors.
    pub(crate) reason: Option<ConnectionReason>,
    /// The host or proxy that the error concerns.
    pub(crate) peer: Option<Peer>,
    pub(crate) source: BoxError,
}

/// The server at the other end of a connection, as named in errors.
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
