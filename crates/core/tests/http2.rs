//! What an HTTP/2 server proves about requests that it did not process.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use feishu_feed_card::{Client, ErrorKind, Station};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
const USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";

/// An HTTP/2 server without TLS, which counts the requests that it processes.
struct Server {
    address: SocketAddr,
    processed: Arc<AtomicUsize>,
}

impl Server {
    /// Refuses the first streams, over all connections.
    async fn that_refuses(most: usize) -> Self {
        let refused = Arc::new(AtomicUsize::new(0));
        Self::start(move |stream, _, processed| refuse(stream, most, refused.clone(), processed)).await
    }

    /// Processes one stream of the first connection, and says for the next one that it goes away.
    async fn that_goes_away() -> Self {
        Self::start(|stream, connection, processed| async move {
            if connection == 1 {
                go_away(stream, processed).await.unwrap_or_default();
            } else {
                refuse(stream, 0, Arc::default(), processed).await;
            }
        })
        .await
    }

    async fn start<F>(serve: impl Fn(TcpStream, usize, Arc<AtomicUsize>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let processed = Arc::new(AtomicUsize::new(0));
        let server = Self {
            address,
            processed: processed.clone(),
        };
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connections += 1;
                tokio::spawn(serve(stream, connections, processed.clone()));
            }
        });
        server
    }

    fn client(&self, max_retries: u32) -> Client {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .http2_prior_knowledge()
            .no_proxy()
            .build()
            .unwrap();
        Client::builder()
            .tenant_access_token("t-1")
            .base_url(format!("http://{}", self.address))
            .allow_http(true)
            .http_client(http)
            .max_retries(max_retries)
            .build()
            .unwrap()
    }

    fn processed(&self) -> usize {
        self.processed.load(Ordering::SeqCst)
    }
}

/// reqwest wants a configuration although nothing here is encrypted.
fn tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

async fn refuse(stream: TcpStream, most: usize, refused: Arc<AtomicUsize>, processed: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if refused.fetch_add(1, Ordering::SeqCst) < most {
            respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            processed.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer(request.into_body(), respond));
        }
    }
}

/// Frame by frame, since h2 itself counts every stream that it has read as processed.
async fn go_away(mut stream: TcpStream, processed: Arc<AtomicUsize>) -> io::Result<()> {
    const PREFACE: usize = 24;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;

    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [size @ .., kind, flags, _, _, _, id] = head;
        let size = u32::from_be_bytes([0, size[0], size[1], size[2]]);
        let mut payload = vec![0; size as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let payload = if kind == PING { &payload[..] } else { &[] };
                stream.write_all(&frame(kind, ACK, 0, payload)).await?;
            }
            DATA if id == 1 && flags & END_STREAM != 0 => {
                processed.fetch_add(1, Ordering::SeqCst);
                // `:status: 200` in HPACK's static table.
                stream.write_all(&frame(HEADERS, 4, id, &[0x88])).await?;
                stream.write_all(&frame(DATA, END_STREAM, id, SUCCESS)).await?;
            }
            // The last stream that it processes is 1.
            HEADERS if id > 1 => {
                stream
                    .write_all(&frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]))
                    .await?;
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let size = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, size, kind, flags, 0, 0, 0, id];
    frame.extend_from_slice(payload);
    frame
}

const SUCCESS: &[u8] = br#"{"code":0,"msg":"success","data":{}}"#;

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let response = http::Response::new(());
    if let Ok(mut stream) = respond.send_response(response, false) {
        let _ = stream.send_data(Bytes::from_static(SUCCESS), true);
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_at_once_and_is_no_retry() {
    let server = Server::that_refuses(1).await;
    let outcome = server
        .client(0)
        .set_time_sensitive(CHAT, [USER], true)
        .await
        .unwrap();
    assert_eq!(
        (outcome.users.reached, outcome.requests),
        (vec![USER.to_owned()], 2)
    );
    assert_eq!(server.processed(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_leaves_nothing_unknown() {
    let server = Server::that_refuses(usize::MAX).await;
    let client = server.client(0);
    let began = Instant::now();
    let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station()),
        (ErrorKind::ConnectionFailed, Some(Station::Send)),
        "{error}"
    );
    assert_eq!(error.users().not_attempted, [USER]);
    // The opposite call need not wait: nothing can arrive late.
    let error = client
        .set_time_sensitive(CHAT, [USER], false)
        .timeout(Duration::from_secs(4))
        .await
        .unwrap_err();
    assert_eq!(error.station(), Some(Station::Send), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "late_arrival was waited for"
    );
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_server_that_goes_away_is_sent_again() {
    let server = Server::that_goes_away().await;
    let client = server.client(0);
    assert!(client.set_time_sensitive(CHAT, [USER], true).await.unwrap().ok());
    let outcome = client.set_time_sensitive(CHAT, [USER], true).await.unwrap();
    assert_eq!(outcome.requests, 2);
    assert_eq!(server.processed(), 2);
}
