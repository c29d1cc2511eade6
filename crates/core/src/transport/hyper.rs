//! The transport everyone uses: `hyper` with its pool of connections. Of itself it follows no redirect, and makes
//! again only a request that a kept connection has not begun when it closes, whose body it has not asked for.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as LegacyError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::Connector;
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

/// More than a request of ours has: its map never grows.
const HEADERS: usize = 8;

pub(crate) struct Hyper {
    client: Client<Connector, Watched>,
    user_agent: HeaderValue,
    /// For a proxy that is sent the request itself.
    proxy_authorization: Option<HeaderValue>,
}

impl Hyper {
    pub(crate) fn new(network: &Network) -> Result<Self, Error> {
        let platform = network.base_url.uri();
        let proxy = match &network.proxy {
            Some(proxy) => Some(proxy.clone()),
            None if network.base_url.is_loopback() => None,
            None => Matcher::from_env().intercept(platform),
        };
        let connector = Connector::new(
            tls::config(network.ca_certs.as_deref())?,
            proxy.as_ref(),
            platform,
            &network.user_agent,
            network.connect_timeout,
        );
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            // Less than a kilobyte: one write of it costs less than a list of its parts.
            .http1_writev(false)
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .build(connector);
        Ok(Self {
            client,
            user_agent: network.user_agent.clone(),
            proxy_authorization: proxy
                .filter(|_| platform.scheme() == Some(&http::uri::Scheme::HTTP))
                .and_then(|proxy| proxy.basic_auth().cloned()),
        })
    }
}

impl Transport for Hyper {
    /// The request is put together before the future, which would hold all of it as long as the answer takes.
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        let mut outgoing = Request::new(Watched {
            bytes: Some(request.body),
            sent,
        });
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = request.uri;
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(header::CONTENT_TYPE, answer::JSON);
        // Firewalls count a request without it as a robot's.
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        if let Some(authorization) = request.authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        if let Some(authorization) = &self.proxy_authorization {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        *outgoing.headers_mut() = headers;
        let answered = self.client.request(outgoing);
        Box::pin(async move { whole(answered.await.map_err(failed)?).await })
    }
}

/// A body in one piece, as nearly all are, is not copied.
async fn whole(answer: Response<Incoming>) -> Result<Response<Bytes>, TransportError> {
    let (head, mut incoming) = answer.into_parts();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        let frame = frame.map_err(|error| TransportError::Broken(Box::new(error)))?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if first.len() + rest.len() + chunk.len() > MOST_BYTES {
            return Err(TransportError::TooLarge(head.status));
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
    Ok(Response::from_parts(head, body))
}

fn failed(error: LegacyError) -> TransportError {
    let is_connect = error.is_connect();
    let error = Box::new(error);
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
