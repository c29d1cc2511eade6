//! How a request leaves and an answer comes back. Two users: `hyper`, and in tests the
//! stand-in platform's model called directly, without a socket.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri};

mod connect;
pub(crate) mod hyper;

/// A transport's pending answer.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// One request, with a body of JSON.
#[derive(Debug)]
pub struct Outgoing {
    pub method: Method,
    pub uri: Uri,
    pub authorization: Option<HeaderValue>,
    pub body: Bytes,
}

/// Carries one request to the platform. Dropping the returned future stops it.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request once, follows no redirect, and reads the answer whole. `sent` is raised before
    /// the first byte that could be acted on leaves, and none leaves where that says no.
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_>;
}

/// Whether a request may have reached the platform: not yet, perhaps, or certainly not and never will.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicU8>);

const UNSENT: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Sent {
    /// Says that bytes are about to leave. `false` where the caller has given the request up: then they
    /// must not, as it has been said that they never did.
    #[must_use]
    pub fn raise(&self) -> bool {
        let before = self
            .0
            .compare_exchange(UNSENT, SENT, Ordering::AcqRel, Ordering::Acquire);
        before != Err(GIVEN_UP)
    }

    /// Gives the request up; `true` where its bytes may have left.
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

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: DNS, TCP, TLS or proxy.
    Connect(Box<dyn StdError + Send + Sync>),
    /// The connection broke, or the body ended before its length.
    Broken(Box<dyn StdError + Send + Sync>),
    /// The answer is larger than the core reads.
    TooLarge(http::StatusCode),
}
