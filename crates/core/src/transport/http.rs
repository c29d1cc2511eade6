//! The transport for production: `reqwest` without its redirects and retries. One retry remains, in hyper-util: if a
//! pooled connection closes before the request is written, so that its body was not polled, the request is sent on
//! another connection.

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
use super::tls::{self, ExtraCertificates, Roots};
use super::{
    Answering, Fault, JSON, MAX_RESPONSE_BYTES, Outgoing, Peer, Sent, Transport, TransportError, host,
};
use crate::data::error::{ConnectionReason, Error};
use crate::data::text::text;

/// How long an idle connection is kept. Load balancers close idle connections after a minute or more. The client closes
/// them earlier, so that it sends no request on a connection that is being closed.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// How long a connection may be idle before TCP keep-alive probes start, and the interval between probes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 3;

/// The interval of HTTP/2 pings while a request is in progress, and how long to wait for the response to a ping before
/// the connection is closed. Without pings, a silent connection would fail call after call: an HTTP/2 connection is
/// kept after a request on it has timed out.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// The longest `TCP_USER_TIMEOUT`, so that a long `late_arrival` does not keep a silent connection open.
const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How much shorter than `late_arrival` the `TCP_USER_TIMEOUT` is. The kernel counts the timeout from the first
/// retransmission: with a timeout of 4.5 s, a connection ended 4.95 s after the send with a round trip of 2 ms, 5.69 s
/// with 300 ms, and 6.34 s with 500 ms (Linux 6.18). The last retransmitted packet also needs time to arrive.
const ARRIVAL_MARGIN: Duration = Duration::from_secs(2);

/// The `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged before the kernel closes the connection and stops
/// retransmitting. A request must not arrive after `late_arrival`, because its slot is then free and the opposite call
/// may have been sent (docs/architecture.md#late-arrival).
pub(crate) fn tcp_user_timeout(late_arrival: Duration) -> Duration {
    // A `late_arrival` of 0 turns the promise off, so the longest timeout applies. The kernel would interpret a timeout
    // of 0 as its own default, about 15 minutes.
    if late_arrival.is_zero() {
        return LONGEST_UNACKNOWLEDGED;
    }
    let timeout = late_arrival.saturating_sub(ARRIVAL_MARGIN);
    timeout
        .max(late_arrival / 2)
        .clamp(Duration::from_millis(1), LONGEST_UNACKNOWLEDGED)
}

/// The options for connections to the platform.
pub(crate) struct Network {
    pub(crate) platform: Url,
    pub(crate) allow_http: bool,
    pub(crate) proxy: ProxyOption,
    pub(crate) ca_certs: Option<PathBuf>,
    /// The file that an environment variable names, with the name of the variable.
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
    /// `None` if the caller passed an HTTP client.
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
                    text!("given as http together with {http_client}"),
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
                    // reqwest passes the address to TLS with its brackets, which is not a valid server name.
                    return Err(Error::invalid_input(
                        text!("{base_url}"),
                        text!("given as https with an IPv6 address while a {proxy} is configured"),
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

    /// Sends the request. If the issuer of the server's certificate is unknown, loads the system's root certificates and
    /// sends the request again. No byte of the request was sent before that.
    async fn exchange(&self, request: &Outgoing, sent: &Sent) -> Result<Response<Bytes>, TransportError> {
        let mut roots_to_load = self.roots.as_ref();
        loop {
            match (self.exchange_once(request, sent).await, roots_to_load.take()) {
                // Boxed, because most exchanges do not need this future.
                (Err(Failed::UnknownIssuer(error)), Some(roots)) => {
                    Box::pin(self.load_system_roots(roots, error)).await?;
                }
                (result, _) => return Ok(result?),
            }
        }
    }

    /// Loads the system's root certificates within the `connect_timeout`. After the timeout, returns `error`, the error of
    /// the certificate.
    async fn load_system_roots(&self, roots: &Roots, error: TransportError) -> Result<(), TransportError> {
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
        let (client, lease) = self.clients.current().map_err(TransportError::client_not_built)?;
        // Also applies if a deadline drops this future: the connection may be silent for the next call, too.
        let guard = SuspectOnDrop {
            sent,
            suspect: || self.clients.suspect(lease),
            is_armed: true,
        };
        let response = client.execute(self.to_reqwest(request, sent)).await;
        let mut response = response.map_err(|error| self.classify(error, sent))?;
        guard.disarm();
        let status = response.status();
        // Without a forwarding proxy, a 407 comes from the platform or a gateway in front of it.
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && self.destination.is_forwarded {
            return Err(Failed::Other(TransportError::Broken(self.proxy_auth_fault())));
        }
        let mut body = Bytes::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.classify(error, sent))?
        {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(Failed::Other(TransportError::TooLarge(status)));
            }
            body = append(body, chunk);
        }
        let headers = mem::take(response.headers_mut());
        let body = decompress(&headers, body).ok_or(TransportError::TooLarge(status))?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn to_reqwest(&self, request: &Outgoing, sent: &Sent) -> reqwest::Request {
        let mut outgoing = reqwest::Request::new(request.method.clone(), request.url.clone());
        let headers = outgoing.headers_mut();
        // Room for three headers from here and three from reqwest and hyper.
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

    fn classify(&self, error: reqwest::Error, sent: &Sent) -> Failed {
        let may_need_system_roots = Roots::may_need_system(&error);
        let error = fault::classify(error, &self.destination);
        if may_need_system_roots {
            return Failed::UnknownIssuer(error);
        }
        if matches!(error, TransportError::Unprocessed(_)) {
            sent.retract();
        }
        Failed::Other(error)
    }

    /// The fault for a 407 response. A proxy that forwards http requests refuses one with such a response.
    fn proxy_auth_fault(&self) -> Fault {
        Fault {
            reason: Some(ConnectionReason::ProxyAuth),
            peer: Some(self.destination.first_hop()),
            source: "proxy authorization required".into(),
        }
    }
}

/// Calls `suspect` when it is dropped, if the request was sent and no response arrived.
struct SuspectOnDrop<'a, F: Fn()> {
    sent: &'a Sent,
    suspect: F,
    is_armed: bool,
}

impl<F: Fn()> SuspectOnDrop<'_, F> {
    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl<F: Fn()> Drop for SuspectOnDrop<'_, F> {
    fn drop(&mut self) {
        if self.is_armed && self.sent.is_raised() {
            (self.suspect)();
        }
    }
}

/// The error of an exchange.
enum Failed {
    /// The issuer of the certificate is unknown, but may be among the system's roots. Nothing was sent.
    UnknownIssuer(TransportError),
    Other(TransportError),
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Self {
        Self::Other(error)
    }
}

impl From<Failed> for TransportError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::UnknownIssuer(error) | Failed::Other(error) => error,
        }
    }
}

impl TransportError {
    /// The error if no HTTP client can be built, although one could be built when the options were checked.
    fn client_not_built(error: reqwest::Error) -> Self {
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

/// The error for a panic. It does not contain the panic's message, which may contain a secret. The panic hook has
/// received the message.
fn panicked(panic: Box<dyn Any + Send>) -> TransportError {
    drop(panic);
    TransportError::Broken("the HTTP client panicked".into())
}

/// Appends a chunk to a body. Most responses are a single chunk, which is not copied.
fn append(body: Bytes, chunk: Bytes) -> Bytes {
    if body.is_empty() {
        return chunk;
    }
    let mut body = BytesMut::from(body);
    body.extend_from_slice(&chunk);
    body.freeze()
}

/// Decompresses a gzip body. Returns `None` if the result is too large. The client does not request compression, but
/// some gateways compress anyway. A body that is not valid gzip is returned unchanged, and is later reported as
/// unreadable.
fn decompress(headers: &HeaderMap, body: Bytes) -> Option<Bytes> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if !encoding
        .is_some_and(|encoding| matches!(encoding.to_ascii_lowercase().as_slice(), b"gzip" | b"x-gzip"))
    {
        return Some(body);
    }
    let mut plain = Vec::new();
    let limit = MAX_RESPONSE_BYTES as u64 + 1;
    match GzDecoder::new(&body[..]).take(limit).read_to_end(&mut plain) {
        Ok(size) if size > MAX_RESPONSE_BYTES => None,
        Ok(_) => Some(plain.into()),
        Err(_) => Some(body),
    }
}

fn clients(network: &Network, route: Route) -> Result<(Clients, Arc<Roots>), Error> {
    let mut extra = ExtraCertificates::default();
    if let Some(path) = &network.ca_certs {
        extra.read(path)?;
    }
    if let Some((variable, path)) = &network.extra_ca_certs {
        extra.read_from_environment(variable, path);
    }
    let (tls, roots) = tls::config(extra)?;
    let ipv4_first = matches!(&route, Route::Through(proxy) if proxy.needs_address());
    let proxy = match route {
        Route::Direct => Some(None),
        Route::Through(proxy) => Some(Some(proxy.to_reqwest().map_err(|error| {
            Error::invalid_input(text!("{proxy}"), "cannot be used", "the URL of a proxy").with_source(error)
        })?)),
        Route::System => None,
    };
    // Without `allow_http`, http is permitted only if the host is this machine, such as `localhost`. Where that name
    // resolves to is checked when it is resolved.
    let loopback_only = host::is_http(&network.platform) && !network.allow_http;
    let connect_timeout = network.connect_timeout;
    let rules = Rules {
        loopback_only,
        ipv4_first,
    };
    let resolver = Arc::new(SystemResolver::new(rules, connect_timeout));
    let user_agent = network.user_agent.clone();
    let tcp_user_timeout = tcp_user_timeout(network.late_arrival);
    let build = move || {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            // A redirect would send the token to another host, and a retry by reqwest would exceed the quota.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .dns_resolver(resolver.clone())
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_INTERVAL)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(tcp_user_timeout);
        #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
        let _ = tcp_user_timeout;
        // This user agent is for the proxy. The requests to the platform set the header themselves.
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
            "no HTTP client can be built from these options",
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
    fn the_tcp_user_timeout_is_shorter_than_late_arrival() {
        for (late_arrival, timeout) in [
            (5_000, 3_000),
            (4_000, 2_000),
            (1_000, 500),
            (10, 5),
            (3_600_000, 30_000),
        ] {
            let late_arrival = Duration::from_millis(late_arrival);
            assert_eq!(tcp_user_timeout(late_arrival), Duration::from_millis(timeout));
        }
        assert_eq!(tcp_user_timeout(Duration::ZERO), LONGEST_UNACKNOWLEDGED);
        assert_eq!(
            tcp_user_timeout(Duration::from_nanos(1)),
            Duration::from_millis(1)
        );
    }
}
