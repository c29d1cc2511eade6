//! How a connection is made: to the platform itself, or through the proxy that lies on the way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri, header, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// How long a connection may be silent before the system asks whether its other end is still there, and how
/// often it asks.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 3;

/// How long what was sent may stay unacknowledged: until then nothing asks, and the system alone would go on
/// sending it again for a quarter of an hour.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects within `connect_timeout`: DNS, TCP, the proxy and TLS together.
#[derive(Clone)]
pub(super) struct Connector {
    connector: HttpsConnector<Way>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        tls: ClientConfig,
        proxy: Option<&Intercept>,
        platform: &Uri,
        user_agent: &HeaderValue,
        timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Of several addresses, each gets its share of it.
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_PROBES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let way = match proxy {
            None => Way::Direct(tcp),
            Some(proxy) => Way::through(proxy, tcp, &tls, platform, user_agent),
        };
        Self {
            connector: HttpsConnector::from((way, tls)),
            timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Hop>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, platform: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.timeout, self.connector.call(platform));
        Box::pin(async move {
            match connected.await {
                Ok(Err(error)) if !is_timeout(&*error) => Err(error),
                Ok(Ok(connection)) => Ok(connection),
                _ => Err("connect_timeout passed".into()),
            }
        })
    }
}

/// Whether the last address had no more time, which is told of TCP as one of its own errors.
fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Elapsed>)
        || error.source().is_some_and(is_timeout)
}

/// What lies between us and the platform.
#[derive(Clone)]
enum Way {
    Direct(HttpConnector),
    /// http: the proxy is sent the request itself.
    Forwarded(HttpsConnector<HttpConnector>, Uri),
    /// https: the proxy passes on what it cannot read.
    Tunnel(Tunnel<HttpsConnector<HttpConnector>>),
}

impl Way {
    fn through(
        proxy: &Intercept,
        tcp: HttpConnector,
        tls: &ClientConfig,
        platform: &Uri,
        user_agent: &HeaderValue,
    ) -> Self {
        // What is said to a proxy is HTTP/1.1.
        let mut tls = tls.clone();
        tls.alpn_protocols.clear();
        let to_proxy = HttpsConnector::from((tcp, tls));
        if platform.scheme() == Some(&Scheme::HTTP) {
            return Self::Forwarded(to_proxy, proxy.uri().clone());
        }
        let headers = HeaderMap::from_iter([(header::USER_AGENT, user_agent.clone())]);
        let tunnel = Tunnel::new(proxy.uri().clone(), to_proxy).with_headers(headers);
        Self::Tunnel(match proxy.basic_auth() {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        })
    }
}

impl Service<Uri> for Way {
    type Response = Hop;
    type Error = BoxError;
    type Future = Connecting<Hop>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(cx).map_err(Into::into),
            Self::Forwarded(to_proxy, _) => to_proxy.poll_ready(cx),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, platform: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let connecting = tcp.call(platform);
                Box::pin(async move { Ok(Hop::new(MaybeHttpsStream::Http(connecting.await?), false)) })
            }
            Self::Forwarded(to_proxy, proxy) => {
                let connecting = to_proxy.call(proxy.clone());
                Box::pin(async move { Ok(Hop::new(connecting.await?, true)) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(platform);
                Box::pin(async move { Ok(Hop::new(connecting.await?, false)) })
            }
        }
    }
}

/// A connection to the platform, or to the proxy before it.
pub(super) struct Hop {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether the other end wants to be told the whole URL.
    is_forwarded: bool,
}

impl Hop {
    fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>, is_forwarded: bool) -> Self {
        Self { stream, is_forwarded }
    }
}

impl Connection for Hop {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_forwarded)
    }
}

impl Read for Hop {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Hop {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
