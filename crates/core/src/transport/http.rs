//! The transport everyone uses: `reqwest`, with everything off that it would do by itself. A request is sent again
//! only if a pooled connection closed before it began to write the request, so that the body was never polled.

use std::any::Any;
use std::ffi::OsString;
use std::io::Read;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures_util::FutureExt;
use reqwest::Url;
use tokio::time::timeout;

use super::body::WatchedBody;
use super::clients::Clients;
use super::dns::{Rules, SystemResolver};
use super::fault::{self, Destination};
use super::proxy::{self, ProxyOption, Route};
use super::tls::{self, OwnCertificates, Roots};
use super::{Answering, Fault, JSON, MOST_BYTES, Outgoing, Peer, Sent, Transport, TransportError, host};
use crate::data::error::{ConnectionReason, Error};
use crate::data::text::text;

/// Load balancers drop an idle connection after a minute or more. The client drops it first, so that no request meets a
/// connection that is closing.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// How long a connection may be idle before the system checks the other end, and how often it checks.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 3;

/// An HTTP/2 connection outlives the calls that time out on it, so one that has gone silent would fail them all. While a
/// call waits, the connection is pinged this often, and dropped when no answer comes for as long.
const PING_AFTER: Duration = Duration::from_secs(3);

/// The default of `late_arrival` suits this; a longer one must not keep a silent connection alive.
const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Between `TCP_USER_TIMEOUT` and the end of `late_arrival`. The kernel counts that timeout from the first retransmission:
/// with 4.5 s, a connection ended 4.95 s after the send where a round trip takes 2 ms, 5.69 s where it takes 300 ms, and 6.34 s
/// where it takes 500 ms (Linux 6.18). The last copy needs time on the network, too.
const ARRIVAL_MARGIN: Duration = Duration::from_secs(2);

/// How long sent data may stay unacknowledged before the kernel gives up and stops sending it again. A request that was
/// given up must not arrive after `late_arrival`, when its slot is free and the opposite call has been sent.
pub(crate) fn unacknowledged(late_arrival: Duration) -> Duration {
    // With a `late_arrival` of 0 the caller has opted out of the promise, so the longest timeout applies. The
    // kernel takes 0 for its own default, about 15 minutes.
    if late_arrival.is_zero() {
        return LONGEST_UNACKNOWLEDGED;
    }
    let before_the_end = late_arrival.saturating_sub(ARRIVAL_MARGIN);
    before_the_end
        .max(late_arrival / 2)
        .clamp(Duration::from_millis(1), LONGEST_UNACKNOWLEDGED)
}

/// The options that say how the platform is reached.
pub(crate) struct Network {
    pub(crate) platform: Url,
    pub(crate) allow_http: bool,
    pub(crate) proxy: ProxyOption,
    pub(crate) ca_certs: Option<PathBuf>,
    /// Those of an environment variable, with its name.
    pub(crate) extra_ca_certs: Option<(&'static str, OsString)>,
    pub(crate) http_client: Option<reqwest::Client>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) connect_timeout: Duration,
    pub(crate) late_arrival: Duration,
}

/// Sends requests over HTTP.
pub(crate) struct Http {
    clients: Clients,
    destination: Destination,
    /// `None` with the caller's own client.
    roots: Option<Arc<Roots>>,
    user_agent: HeaderValue,
    connect_timeout: Duration,
}

impl Http {
    pub(crate) fn new(network: &Network) -> Result<Self, Error> {
        let mut destination = Destination {
            host: host::host_and_port(&network.platform),
            proxy: None,
            is_forwarded: false,
        };
        let (clients, roots) = if let Some(client) = &network.http_client {
            if host::is_http(&network.platform) && !network.allow_http {
                return Err(Error::invalid_input(
                    text!("{base_url}"),
                    text!("http, together with {http_client}"),
                    text!(
                        "https, or {allow_http}: the HTTP client may use a proxy or a resolver that leads to another machine"
                    ),
                ));
            }
            (Clients::Given(client.clone()), None)
        } else {
            let route = proxy::route(&network.proxy, &network.platform, network.allow_http)?;
            if let Route::Through(proxy) = &route {
                let is_ipv6 = network
                    .platform
                    .host_str()
                    .is_some_and(|host| host.starts_with('['));
                if is_ipv6 && !host::is_http(&network.platform) {
                    // reqwest hands the brackets of the address to TLS, which knows no such name.
                    return Err(Error::invalid_input(
                        text!("{base_url}"),
                        text!("https with an IPv6 address, and a {proxy} is configured"),
                        text!("a host name or an IPv4 address, or no proxy for this host"),
                    ));
                }
                destination.proxy = Some(proxy.name.clone());
                destination.is_forwarded = !proxy.is_socks() && host::is_http(&network.platform);
            }
            let (clients, roots) = clients(network, route)?;
            (clients, Some(roots))
        };
        Ok(Self {
            clients,
            destination,
            roots,
            user_agent: network.user_agent.clone(),
            connect_timeout: network.connect_timeout,
        })
    }

    /// Sends the request. If the certificate's issuer is unknown, loads the system's roots and tries again. No byte
    /// of the request has been sent by then.
    async fn exchange(&self, request: &Outgoing, sent: &Sent) -> Result<Response<Bytes>, TransportError> {
        let mut unloaded = self.roots.as_ref();
        loop {
            match (self.exchange_once(request, sent).await, unloaded.take()) {
                // Boxed, because most exchanges need no room for it.
                (Err(Failed::UnknownIssuer(error)), Some(roots)) => {
                    Box::pin(self.load_system(roots, error)).await?;
                }
                (exchanged, _) => return Ok(exchanged?),
            }
        }
    }

    /// Counts as a part of connecting: where reading the roots blocks, the error is the certificate's.
    async fn load_system(&self, roots: &Roots, error: TransportError) -> Result<(), TransportError> {
        match timeout(self.connect_timeout, roots.load_system()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(no_thread)) => Err(TransportError::Connect(Fault {
                reason: None,
                peer: Some(Peer::Host(self.destination.host.clone())),
                source: no_thread.into(),
            })),
            Err(_) => Err(error),
        }
    }

    async fn exchange_once(&self, request: &Outgoing, sent: &Sent) -> Result<Response<Bytes>, Failed> {
        let (client, lease) = self.clients.current().map_err(TransportError::unbuilt)?;
        // Also where a deadline drops this future: a connection that is silent for one call is so for the next.
        let unanswered = Unanswered {
            sent,
            suspect: || self.clients.suspect(lease),
            is_armed: true,
        };
        let response = client.execute(self.to_reqwest(request, sent)).await;
        let mut response = response.map_err(|error| self.failed(error, sent))?;
        unanswered.disarm();
        let status = response.status();
        // Without a forwarding proxy, a 407 comes from the platform or a gateway in front of it.
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && self.destination.is_forwarded {
            return Err(Failed::Otherwise(TransportError::Broken(
                self.wants_credentials(),
            )));
        }
        let mut body = Bytes::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error, sent))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(Failed::Otherwise(TransportError::TooLarge(status)));
            }
            body = joined(body, chunk);
        }
        let headers = mem::take(response.headers_mut());
        let body = decoded(&headers, body).ok_or(TransportError::TooLarge(status))?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn to_reqwest(&self, request: &Outgoing, sent: &Sent) -> reqwest::Request {
        let mut outgoing = reqwest::Request::new(request.method.clone(), request.url.clone());
        let headers = outgoing.headers_mut();
        // reqwest and hyper add three more.
        headers.reserve(6);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        if let Some(authorization) = &request.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let body = WatchedBody::new(request.body.clone(), sent.clone());
        *outgoing.body_mut() = Some(reqwest::Body::wrap(body));
        outgoing
    }

    fn failed(&self, error: reqwest::Error, sent: &Sent) -> Failed {
        let wants_system_roots = Roots::want_system(&error);
        let error = fault::read(error, &self.destination);
        if wants_system_roots {
            return Failed::UnknownIssuer(error);
        }
        if matches!(error, TransportError::Unprocessed(_)) {
            sent.retract();
        }
        Failed::Otherwise(error)
    }

    /// A proxy that is sent the request itself, over http, refuses it with a response.
    fn wants_credentials(&self) -> Fault {
        Fault {
            reason: Some(ConnectionReason::ProxyAuth),
            peer: Some(self.destination.first_hop()),
            source: "proxy authorization required".into(),
        }
    }
}

/// Calls `suspect` when it is dropped after the request has left, unless a response came.
struct Unanswered<'a, F: Fn()> {
    sent: &'a Sent,
    suspect: F,
    is_armed: bool,
}

impl<F: Fn()> Unanswered<'_, F> {
    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl<F: Fn()> Drop for Unanswered<'_, F> {
    fn drop(&mut self) {
        if self.is_armed && self.sent.is_raised() {
            (self.suspect)();
        }
    }
}

/// Why an exchange failed.
enum Failed {
    /// Before anything was sent, and the system's roots may know the issuer.
    UnknownIssuer(TransportError),
    Otherwise(TransportError),
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Self {
        Self::Otherwise(error)
    }
}

impl From<Failed> for TransportError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::UnknownIssuer(error) | Failed::Otherwise(error) => error,
        }
    }
}

impl TransportError {
    /// No client could be built on this runtime, though one could when the options were checked.
    fn unbuilt(error: reqwest::Error) -> Self {
        Self::Connect(error.into())
    }
}

impl Transport for Http {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        Box::pin(async move {
            let exchange = AssertUnwindSafe(self.exchange(&request, &sent)).catch_unwind();
            exchange.await.unwrap_or_else(|panic| Err(panicked(panic)))
        })
    }
}

/// The panic's message went to the panic hook. It is not in the error, because it may contain a secret.
fn panicked(panic: Box<dyn Any + Send>) -> TransportError {
    drop(panic);
    TransportError::Broken("the HTTP client panicked".into())
}

/// One after the other. Most responses are a single chunk, which is not copied.
fn joined(body: Bytes, chunk: Bytes) -> Bytes {
    if body.is_empty() {
        return chunk;
    }
    let mut body = BytesMut::from(body);
    body.extend_from_slice(&chunk);
    body.freeze()
}

/// The body without its compression; `None` if it is too large. Nothing asks for compression, but some gateways
/// compress all the same. A body that is not what its header says is left as it is, and found unreadable.
fn decoded(headers: &HeaderMap, body: Bytes) -> Option<Bytes> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if !encoding
        .is_some_and(|encoding| matches!(encoding.to_ascii_lowercase().as_slice(), b"gzip" | b"x-gzip"))
    {
        return Some(body);
    }
    let mut plain = Vec::new();
    let limit = MOST_BYTES as u64 + 1;
    match GzDecoder::new(&body[..]).take(limit).read_to_end(&mut plain) {
        Ok(size) if size > MOST_BYTES => None,
        Ok(_) => Some(plain.into()),
        Err(_) => Some(body),
    }
}

fn clients(network: &Network, route: Route) -> Result<(Clients, Arc<Roots>), Error> {
    let mut own = OwnCertificates::default();
    if let Some(path) = &network.ca_certs {
        own.read(path)?;
    }
    if let Some((variable, path)) = &network.extra_ca_certs {
        own.read_of_environment(variable, path);
    }
    let (tls, roots) = tls::config(own)?;
    let ipv4_first = matches!(&route, Route::Through(proxy) if proxy.takes_addresses());
    let proxy = match route {
        Route::Direct => Some(None),
        Route::Through(proxy) => Some(Some(proxy.to_reqwest().map_err(|error| {
            Error::invalid_input(text!("{proxy}"), "cannot be used", "the URL of a proxy").with_source(error)
        })?)),
        Route::System => None,
    };
    // http is allowed without `allow_http` because a name, `localhost`, stands for this machine.
    let loopback_only = host::is_http(&network.platform) && !network.allow_http;
    let connect_timeout = network.connect_timeout;
    let rules = Rules {
        loopback_only,
        ipv4_first,
    };
    let resolver = Arc::new(SystemResolver::new(rules, connect_timeout));
    let user_agent = network.user_agent.clone();
    let unacknowledged = unacknowledged(network.late_arrival);
    let build = move || {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            // A redirect would carry the token elsewhere, and a hidden retry would exceed the quota.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .dns_resolver(resolver.clone())
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(unacknowledged);
        #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
        let _ = unacknowledged;
        // The user agent is for the proxy: requests set their own.
        match &proxy {
            None => builder.user_agent(user_agent.clone()),
            Some(None) => builder.no_proxy(),
            Some(Some(proxy)) => builder.user_agent(user_agent.clone()).proxy(proxy.clone()),
        }
        .build()
    };
    let clients = Clients::per_runtime(build).map_err(|error| {
        Error::invalid_input(
            "options",
            "no HTTP client can be built from them",
            "valid options",
        )
        .with_source(error)
    })?;
    Ok((clients, roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_up_before_late_arrival_ends() {
        for (late_arrival, gives_up) in [
            (5_000, 3_000),
            (4_000, 2_000),
            (1_000, 500),
            (10, 5),
            (3_600_000, 30_000),
        ] {
            let late_arrival = Duration::from_millis(late_arrival);
            assert_eq!(unacknowledged(late_arrival), Duration::from_millis(gives_up));
        }
        assert_eq!(unacknowledged(Duration::ZERO), LONGEST_UNACKNOWLEDGED);
        assert_eq!(unacknowledged(Duration::from_nanos(1)), Duration::from_millis(1));
    }
}
