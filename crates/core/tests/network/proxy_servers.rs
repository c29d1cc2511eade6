//! Small proxies: HTTP with CONNECT and forwarding, and SOCKS of each version.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::servers::{LOCAL, content_length, read_head, serve};

/// A proxy that remembers what it was asked.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    asked: Asked,
}

type Asked = Arc<Mutex<Vec<String>>>;

/// An HTTP proxy.
#[derive(Clone, Default)]
pub(crate) struct HttpProxy {
    /// Speaks TLS with its clients.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Where all connections go; to the host that the client names by default.
    pub(crate) target: Option<SocketAddr>,
    /// The bytes of its response to every request, if it refuses all.
    pub(crate) refusal: Option<&'static str>,
}

/// What a SOCKS proxy does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Socks {
    Open,
    /// Wants `user:password`.
    Password(&'static str),
    /// Accepts none of the methods that the client offers.
    NoMethod,
    /// Chooses a method that the client did not offer.
    OtherMethod,
    /// Refuses the connection with this reply of SOCKS5, or of SOCKS4.
    Refusal(u8),
    HangUp,
}

impl Proxy {
    pub(crate) fn http(proxy: HttpProxy) -> Self {
        let asked = Asked::default();
        let heads = asked.clone();
        let address = serve(LOCAL, move |stream| {
            let (proxy, heads) = (proxy.clone(), heads.clone());
            async move {
                match &proxy.tls {
                    Some(tls) => serve_http(tls.accept(stream).await?, &proxy, &heads).await,
                    None => serve_http(stream, &proxy, &heads).await,
                }
            }
        });
        Self { address, asked }
    }

    /// All connections go to `target`.
    pub(crate) fn socks(socks: Socks, target: SocketAddr) -> Self {
        let asked = Asked::default();
        let places = asked.clone();
        let address = serve(LOCAL, move |stream| {
            let places = places.clone();
            async move { serve_socks(stream, socks, target, &places).await }
        });
        Self { address, asked }
    }

    /// The heads of requests to an HTTP proxy. Of those to a SOCKS proxy the version, `user:password` if it was sent, and
    /// the destination.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// CONNECT becomes a tunnel. The absolute form of a plain request becomes the origin's.
async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    proxy: &HttpProxy,
    heads: &Asked,
) -> io::Result<()> {
    let mut client = BufReader::new(stream);
    let head = read_head(&mut client).await?;
    heads.lock().unwrap().push(head.clone());
    let mut body = vec![0; content_length(&head)];
    client.read_exact(&mut body).await?;
    if let Some(refusal) = proxy.refusal {
        client.write_all(refusal.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_tunnel = method == "CONNECT";
    let rest = target.strip_prefix("http://").unwrap_or(target);
    let host = rest.split('/').next().unwrap_or_default();
    let mut server = match proxy.target {
        Some(target) => TcpStream::connect(target).await?,
        None => TcpStream::connect(host).await?,
    };
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let closing = |head: String| head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let head = closing(head.replacen(&format!("http://{host}"), "", 1));
    server.write_all(head.as_bytes()).await?;
    server.write_all(&body).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    client.write_all(closing(answer).as_bytes()).await?;
    client.shutdown().await
}

async fn serve_socks(stream: TcpStream, socks: Socks, target: SocketAddr, places: &Asked) -> io::Result<()> {
    let mut client = BufReader::new(stream);
    if matches!(socks, Socks::HangUp) {
        let _ = client.read_u8().await;
        return Ok(());
    }
    let version = client.read_u8().await?;
    let is_granted = match version {
        4 => socks4(&mut client, socks, places).await?,
        _ => socks5(&mut client, socks, places).await?,
    };
    if is_granted {
        let mut server = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}

async fn socks4(client: &mut BufReader<TcpStream>, socks: Socks, places: &Asked) -> io::Result<bool> {
    let _connect = client.read_u8().await?;
    let port = client.read_u16().await?;
    let address = client.read_u32().await?;
    let _user = read_to_zero(client).await?;
    // An address that cannot exist announces a name: SOCKS4a.
    let place = match address {
        1..256 => format!("4a {}:{port}", read_to_zero(client).await?),
        _ => format!("4 {}:{port}", Ipv4Addr::from(address)),
    };
    places.lock().unwrap().push(place);
    let (reply, is_granted) = match socks {
        Socks::Refusal(reply) => (reply, false),
        _ => (0x5a, true),
    };
    client.write_all(&[0, reply, 0, 0, 0, 0, 0, 0]).await?;
    Ok(is_granted)
}

async fn read_to_zero(client: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = Vec::new();
    client.read_until(0, &mut text).await?;
    text.pop();
    Ok(String::from_utf8(text).unwrap())
}

const NO_PASSWORD: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

async fn socks5(client: &mut BufReader<TcpStream>, socks: Socks, places: &Asked) -> io::Result<bool> {
    let mut methods = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut methods).await?;
    let wanted = match socks {
        Socks::Password(_) => PASSWORD,
        _ => NO_PASSWORD,
    };
    let method = match socks {
        Socks::OtherMethod => PASSWORD - methods[0],
        Socks::NoMethod => NONE_ACCEPTABLE,
        _ if methods.contains(&wanted) => wanted,
        _ => NONE_ACCEPTABLE,
    };
    client.write_all(&[5, method]).await?;
    let mut credentials = String::new();
    if let Socks::Password(right) = socks
        && method == PASSWORD
    {
        let _version = client.read_u8().await?;
        credentials = format!("{}:{}", read_text(client).await?, read_text(client).await?);
        let is_right = credentials == right;
        client.write_all(&[1, u8::from(!is_right)]).await?;
        credentials.push(' ');
        if !is_right {
            places.lock().unwrap().push(format!("5 {credentials}"));
            return Ok(false);
        }
    }
    let mut head = [0; 4];
    if client.read_exact(&mut head).await.is_err() {
        places.lock().unwrap().push("5".to_owned());
        return Ok(false);
    }
    let host = match head[3] {
        1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        4 => Ipv6Addr::from(client.read_u128().await?).to_string(),
        _ => format!("name {}", read_text(client).await?),
    };
    let port = client.read_u16().await?;
    places
        .lock()
        .unwrap()
        .push(format!("5 {credentials}{host}:{port}"));
    let (reply, is_granted) = match socks {
        Socks::Refusal(reply) => (reply, false),
        _ => (0, true),
    };
    client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(is_granted)
}

/// A length in one byte, and as much text.
async fn read_text(client: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}
