//! Small servers that do what the sandbox does not: certificates of every kind, a platform that acts on whatever bytes
//! arrive, HTTP/2 frame by frame.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server's certificate.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Certificate {
    /// One that signs itself.
    pub(crate) fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Self {
            pem: made.pem(),
            der: made.der().clone(),
            key,
        }
    }

    pub(crate) fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key.into())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Serves each connection to a free port of this address. Has a thread of its own, so that the server is in the network
/// namespace of its caller.
pub(crate) fn serve<F>(address: IpAddr, serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind((address, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

/// A server that speaks no TLS: it sends these bytes to each client that sends one, and closes the connection.
pub(crate) fn plain(answer: &'static [u8]) -> SocketAddr {
    serve(LOCAL, move |mut stream| async move {
        stream.read_u8().await?;
        stream.write_all(answer).await?;
        // The rest of what the client sends, or the connection would be reset.
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .map(drop)
    })
}

/// What a [`Platform`] does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Answer,
    /// HTTP/2: resets the stream as not processed.
    RefuseStream,
    /// HTTP/2: goes away, and has not processed this stream.
    GoAwayBefore,
    /// HTTP/2: goes away with this error code, after it has taken this stream on, and closes the connection without an
    /// answer.
    GoAwayAfter(u32),
    /// Closes the connection.
    Close,
}

/// A platform that counts a request as soon as all its bytes are there, even if the client has hung up by then. It answers
/// token requests and calls with success.
pub(crate) struct Platform {
    pub(crate) base_url: String,
    pub(crate) address: SocketAddr,
    /// The certificate, with HTTP/2.
    pub(crate) pem: Option<String>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// When each call arrived, and its state.
    calls: Vec<(Instant, bool)>,
    connections: usize,
}

type Script = Arc<dyn Fn(usize) -> Act + Send + Sync>;

impl Platform {
    /// Speaks HTTP/1.1 in clear text on this address. Each answer takes 50 ms, so that calls at once need connections of
    /// their own.
    pub(crate) fn http1(address: IpAddr) -> Self {
        Self::start(address, None, Arc::new(|_| Act::Answer))
    }

    /// Speaks HTTP/2 on this address. `script` decides about each call, counted from 1.
    pub(crate) fn http2(address: IpAddr, script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let certificate = Certificate::new(&[&address.to_string()]);
        Self::start(address, Some(certificate), Arc::new(script))
    }

    /// Speaks HTTP/2 on this machine, with this certificate.
    pub(crate) fn with(certificate: Certificate) -> Self {
        Self::start(LOCAL, Some(certificate), Arc::new(|_| Act::Answer))
    }

    fn start(address: IpAddr, certificate: Option<Certificate>, script: Script) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (kept, tls) = (
            seen.clone(),
            certificate.as_ref().map(|own| own.acceptor(&["h2"])),
        );
        let address = serve(address, move |stream| {
            let (seen, tls, script) = (kept.clone(), tls.clone(), script.clone());
            seen.lock().unwrap().connections += 1;
            async move {
                match tls {
                    None => serve_http1(stream, &seen).await,
                    Some(tls) => serve_http2(tls.accept(stream).await?, &seen, &script).await,
                }
            }
        });
        let scheme = if certificate.is_some() { "https" } else { "http" };
        Self {
            base_url: format!("{scheme}://{address}"),
            address,
            pem: certificate.map(|certificate| certificate.pem),
            seen,
        }
    }

    /// The states that the calls asked for, in the order of arrival.
    pub(crate) fn states(&self) -> Vec<bool> {
        self.seen
            .lock()
            .unwrap()
            .calls
            .iter()
            .map(|(_, state)| *state)
            .collect()
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        self.seen
            .lock()
            .unwrap()
            .calls
            .iter()
            .map(|(time, _)| *time)
            .collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

/// Counts a call. Returns the answer to it or to a token request, and the call's number.
fn arrive(seen: &Mutex<Seen>, body: &[u8]) -> (&'static [u8], Option<usize>) {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(state) = body["time_sensitive"].as_bool() else {
        return (
            br#"{"code":0,"msg":"ok","tenant_access_token":"t-1","expire":7200}"#,
            None,
        );
    };
    let calls = &mut seen.lock().unwrap().calls;
    calls.push((Instant::now(), state));
    (br#"{"code":0,"msg":"ok","data":{}}"#, Some(calls.len()))
}

async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_head(&mut stream).await?;
        let mut body = vec![0; content_length(&request)];
        stream.read_exact(&mut body).await?;
        let (answer, _) = arrive(seen, &body);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(&[head.as_bytes(), answer].concat()).await?;
        if request.contains("\r\nconnection: close\r\n") {
            return stream.shutdown().await;
        }
    }
}

/// Reads to the end of a message's head.
pub(crate) async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

pub(crate) fn content_length(head: &str) -> usize {
    let lines = head.to_ascii_lowercase();
    let length = lines
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(0, |length| length.trim().parse().unwrap())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// `END_STREAM`, and `ACK` of SETTINGS and PING.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

async fn serve_http2(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Seen>,
    script: &Script,
) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    write_frame(&mut stream, SETTINGS, 0, 0, &[]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let id = u32::from_be_bytes(id);
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS | PING if flags & LAST == 0 => {
                let payload = if kind == PING { &payload[..] } else { &[] };
                write_frame(&mut stream, kind, LAST, 0, payload).await?;
            }
            // The client sends a body in one frame, and the end of the stream in it or in the next.
            DATA if !payload.is_empty() => {
                let read = u32::try_from(payload.len()).unwrap().to_be_bytes();
                write_frame(&mut stream, WINDOW_UPDATE, 0, 0, &read).await?;
                let (answer, call) = arrive(seen, &payload);
                match call.map_or(Act::Answer, |call| script(call)) {
                    Act::Answer => {
                        // `:status: 200`, in the static table of HPACK.
                        write_frame(&mut stream, HEADERS, END_HEADERS, id, &[0x88]).await?;
                        write_frame(&mut stream, DATA, LAST, id, answer).await?;
                    }
                    Act::RefuseStream => {
                        write_frame(&mut stream, RST_STREAM, 0, id, &REFUSED_STREAM.to_be_bytes()).await?;
                    }
                    Act::GoAwayBefore => go_away(&mut stream, id.saturating_sub(2), NO_ERROR).await?,
                    Act::GoAwayAfter(code) => {
                        go_away(&mut stream, id, code).await?;
                        return stream.shutdown().await;
                    }
                    Act::Close => return stream.shutdown().await,
                }
            }
            _ => {}
        }
    }
}

async fn go_away(stream: &mut (impl AsyncWrite + Unpin), last_stream: u32, code: u32) -> io::Result<()> {
    let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
    write_frame(stream, GOAWAY, 0, 0, &payload).await
}

async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    flags: u8,
    id: u32,
    payload: &[u8],
) -> io::Result<()> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&[a, b, c, kind, flags], &id.to_be_bytes()[..]].concat();
    stream.write_all(&[&head, payload].concat()).await?;
    stream.flush().await
}
