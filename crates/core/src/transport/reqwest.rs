//! The transport everyone uses: `reqwest`, with everything that it would do on its own switched off.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Response, header};
use http_body::{Body, Frame, SizeHint};

use super::{Answering, Outgoing, Sent, Transport, TransportError};
use crate::answer::{self, MOST_BYTES};
use crate::error::Error;
use crate::options::Network;
use crate::tls;

/// Load balancers drop an idle connection after a minute or more: we are first, so that no request
/// meets a connection that is closing.
const POOL_IDLE: std::time::Duration = std::time::Duration::from_secs(30);

/// An HTTP/2 connection outlives the calls that time out on it, so one that has gone silent would fail
/// them all: while a call waits it is pinged this often, and left when no answer comes for as long.
const PING_AFTER: std::time::Duration = std::time::Duration::from_secs(3);

pub(crate) struct Reqwest(reqwest::Client);

impl Reqwest {
    pub(crate) fn new(network: &Network) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(network.ca_certs.as_deref())?)
            // A redirect would carry the token elsewhere, and a hidden replay would go past the quota.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(&network.user_agent)
            .connect_timeout(network.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .tcp_nodelay(true);
        if let Some(proxy) = &network.proxy {
            builder = builder.proxy(proxy.clone());
        } else if network.base_url.is_loopback() {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            Error::invalid_input("options", "no HTTP client can be made of them", "valid options")
                .with_source(error)
        })?;
        Ok(Self(client))
    }
}

impl Transport for Reqwest {
    /// The request is put together before the future, which would hold all of it as long as the answer takes.
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        let mut outgoing = reqwest::Request::new(request.method, request.url);
        let headers = outgoing.headers_mut();
        headers.insert(header::CONTENT_TYPE, answer::JSON);
        if let Some(authorization) = request.authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        *outgoing.body_mut() = Some(reqwest::Body::wrap(Watched {
            bytes: Some(request.body),
            sent,
        }));
        let answered = self.0.execute(outgoing);
        Box::pin(async move {
            let mut answered = answered.await.map_err(failed)?;
            // A body in one piece, as nearly all are, is not copied.
            let mut first = Bytes::new();
            let mut rest = BytesMut::new();
            while let Some(chunk) = answered.chunk().await.map_err(failed)? {
                if first.len() + rest.len() + chunk.len() > MOST_BYTES {
                    return Err(TransportError::TooLarge(answered.status()));
                }
                if first.is_empty() {
                    first = chunk;
                } else {
                    rest.extend_from_slice(&chunk);
                }
            }
            let body = if rest.is_empty() {
                first
            } else {
                [first, rest.freeze()].concat().into()
            };
            let mut response = Response::new(body);
            *response.status_mut() = answered.status();
            *response.headers_mut() = std::mem::take(answered.headers_mut());
            Ok(response)
        })
    }
}

fn failed(error: reqwest::Error) -> TransportError {
    let is_connect = error.is_connect();
    let error = Box::new(error.without_url());
    if is_connect {
        TransportError::Connect(error)
    } else {
        TransportError::Broken(error)
    }
}

/// A body that tells when it is asked for. hyper asks for it only when it has a connection and writes
/// the request, and nobody can act on a request without its body: until then it is provably unsent.
///
/// hyper may also ask for the body of a request that was given up while it waited for an HTTP/2 stream:
/// that one gets none. Its head may still leave, without harm.
struct Watched {
    bytes: Option<Bytes>,
    sent: Sent,
}

impl Body for Watched {
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

/// Nobody waits for the request any more.
#[derive(Debug)]
struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was given up before it was sent")
    }
}

impl std::error::Error for GivenUp {}
