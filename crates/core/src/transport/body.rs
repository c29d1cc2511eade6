//! A request body that records whether it was sent.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Sent;

/// A body that raises [`Sent`] when it is polled. hyper polls a body only when it has a connection and writes the
/// request. No server can act on a request without its body, so before the first poll the request is provably unsent.
///
/// hyper may also poll the body of a request that was given up while it waited for an HTTP/2 stream. The poll then
/// returns an error. The head of that request may still be sent, which does no harm.
pub(super) struct WatchedBody {
    bytes: Option<Bytes>,
    sent: Sent,
}

impl WatchedBody {
    pub(super) fn new(bytes: Bytes, sent: Sent) -> Self {
        Self {
            bytes: Some(bytes),
            sent,
        }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        let this = self.get_mut();
        if !this.sent.raise() {
            return Poll::Ready(Some(Err(GivenUp)));
        }
        Poll::Ready(this.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The error for polling the body of a request that was given up.
#[derive(Debug)]
pub(super) struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was given up before it was sent")
    }
}

impl std::error::Error for GivenUp {}
