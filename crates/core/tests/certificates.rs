//! Certificates: which ones the client trusts, and the errors for others.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use feishu_feed_card::{Client, ClientBuilder, ConnectionReason, Error, ErrorKind, Station};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
const USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";

/// An https server, and its certificate.
struct Server {
    certificate: Certificate,
    port: u16,
    connections: Arc<AtomicUsize>,
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn as_ca(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

async fn self_signed(params: CertificateParams) -> Server {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    serve(certificate, &key).await
}

async fn signed_by_an_authority(params: CertificateParams) -> Server {
    let authority_key = KeyPair::generate().unwrap();
    let authority = Issuer::new(as_ca(CertificateParams::default()), authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    serve(certificate, &key).await
}

/// Answers every request with success.
async fn serve(certificate: Certificate, key: &KeyPair) -> Server {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let server = Server {
        certificate,
        port,
        connections: connections.clone(),
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = vec![0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let body = r#"{"code":0,"msg":"success","data":{}}"#;
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    server
}

impl Server {
    /// Makes a call with this PEM as `ca_certs`.
    async fn pin_trusting(&self, pem: impl AsRef<[u8]>, host: &str) -> Result<(), Error> {
        let file = PemFile::new(&self.port.to_string(), pem.as_ref());
        pin(self.client(host).ca_certs(&file.0)).await
    }

    /// Makes a call with the system's certificates.
    async fn pin(&self) -> Result<(), Error> {
        pin(self.client("127.0.0.1")).await
    }

    fn client(&self, host: &str) -> ClientBuilder {
        Client::builder()
            .tenant_access_token("t-1")
            .base_url(format!("https://{host}:{}", self.port))
    }
}

async fn pin(client: ClientBuilder) -> Result<(), Error> {
    let outcome = client.build()?.set_time_sensitive(CHAT, [USER], true).await?;
    assert!(outcome.ok());
    Ok(())
}

struct PemFile(PathBuf);

impl PemFile {
    fn new(name: &str, pem: &[u8]) -> Self {
        let path = Self::path(name);
        std::fs::write(&path, pem).unwrap();
        Self(path)
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("feishu-feed-card-certificates-{name}.pem"))
    }
}

impl Drop for PemFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn a_servers_own_certificate_in_ca_certs_is_trusted() {
    for server in [
        self_signed(params(&["127.0.0.1"])).await,
        self_signed(as_ca(params(&["127.0.0.1"]))).await,
        signed_by_an_authority(params(&["127.0.0.1"])).await,
    ] {
        let pem = server.certificate.pem();
        server.pin_trusting(&pem, "127.0.0.1").await.unwrap();
        let with_mark = [b"\xef\xbb\xbf", pem.as_bytes()].concat();
        server.pin_trusting(with_mark, "127.0.0.1").await.unwrap();
    }
}

/// Makes a call that must fail without a request or a retry. Returns the reason and the hint of its error.
async fn refused(server: &Server, pem: &str, host: &str) -> (ConnectionReason, String) {
    let error = server.pin_trusting(pem, host).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.station(), error.attempts()),
        (ErrorKind::ConnectionFailed, Some(Station::Connect), 1),
        "{error}"
    );
    assert!(!error.retryable());
    assert_eq!(error.users().not_attempted, [USER]);
    assert!(error.to_string().contains(host), "the host is named: {error}");
    (error.reason().unwrap(), error.hint().unwrap().to_owned())
}

#[tokio::test]
async fn name_and_dates_of_a_trusted_certificate_count() {
    for is_ca in [false, true] {
        let params = |names: &[&str]| {
            if is_ca {
                as_ca(params(names))
            } else {
                params(names)
            }
        };
        let server = self_signed(params(&["other.example"])).await;
        let (reason, hint) = refused(&server, &server.certificate.pem(), "127.0.0.1").await;
        assert_eq!(reason, ConnectionReason::TlsName);
        assert!(hint.contains("base_url"), "{hint}");
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);

        for (from, to) in [(2001, 2002), (2099, 2100)] {
            let mut params = params(&["127.0.0.1"]);
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
            let server = self_signed(params).await;
            let (reason, hint) = refused(&server, &server.certificate.pem(), "127.0.0.1").await;
            assert_eq!(reason, ConnectionReason::TlsExpired);
            assert!(hint.contains("clock"), "{hint}");
        }
    }
}

#[tokio::test]
async fn another_certificate_with_the_same_name_is_not_trusted() {
    for (server, other) in [
        (
            self_signed(as_ca(params(&["127.0.0.1"]))).await,
            self_signed(as_ca(params(&["127.0.0.1"]))).await,
        ),
        (
            signed_by_an_authority(params(&["127.0.0.1"])).await,
            signed_by_an_authority(params(&["127.0.0.1"])).await,
        ),
    ] {
        let (reason, hint) = refused(&server, &other.certificate.pem(), "127.0.0.1").await;
        assert_eq!(reason, ConnectionReason::TlsUntrusted);
        for remedy in ["ca_certs", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            assert!(hint.contains(remedy), "{hint}");
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_an_untrusted_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            // Closing a connection with unread bytes resets it, and Windows then drops the response above.
            drop(stream.read(&mut [0; 4096]).await);
        }
    });
    let client = Client::builder()
        .tenant_access_token("t-1")
        .base_url(format!("https://{address}"))
        .max_retries(1)
        .build()
        .unwrap();
    let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
    assert_eq!(error.reason(), Some(ConnectionReason::Tls), "{error}");
    assert!(error.retryable() && error.attempts() == 2, "{error}");
}

/// Like OpenSSL, the client trusts a server's own certificate among the system's.
#[test]
fn a_servers_own_certificate_in_ssl_cert_file_is_trusted() {
    let test = "in_env_the_servers_own_certificate";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", PemFile::path(test))
        .output()
        .unwrap();
    passed(&output);
}

#[tokio::test]
#[ignore = "run by a_servers_own_certificate_in_ssl_cert_file_is_trusted"]
async fn in_env_the_servers_own_certificate() {
    let trusted = [
        self_signed(params(&["127.0.0.1"])).await,
        self_signed(as_ca(params(&["127.0.0.1"]))).await,
    ];
    let misnamed = self_signed(as_ca(params(&["other.example"]))).await;
    let stranger = self_signed(as_ca(params(&["127.0.0.1"]))).await;
    let pem: String = trusted
        .iter()
        .chain([&misnamed])
        .map(|server| server.certificate.pem())
        .collect();
    let _file = PemFile::new("in_env_the_servers_own_certificate", pem.as_bytes());
    for server in &trusted {
        server.pin().await.unwrap();
    }
    for (server, reason) in [
        (&misnamed, ConnectionReason::TlsName),
        (&stranger, ConnectionReason::TlsUntrusted),
    ] {
        let error = server.pin().await.unwrap_err();
        assert_eq!(error.reason(), Some(reason), "{error}");
    }
}

fn passed(output: &std::process::Output) {
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}

/// `SSL_CERT_FILE` is a pipe that nobody writes to.
// Needs mkfifo.
#[cfg(unix)]
#[test]
fn roots_whose_reading_blocks_hold_up_no_deadline() {
    let pipe = std::env::temp_dir().join(format!("feishu-feed-card-pipe-{}", std::process::id()));
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_env_the_roots_block", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", &pipe)
        .output()
        .unwrap();
    drop(std::fs::remove_file(&pipe));
    passed(&output);
}

// Needs mkfifo, like the test that runs it.
#[cfg(unix)]
#[tokio::test]
#[ignore = "run by roots_whose_reading_blocks_hold_up_no_deadline"]
async fn in_env_the_roots_block() {
    let server = self_signed(params(&["127.0.0.1"])).await;
    let client = |connect_timeout| {
        Client::builder()
            .tenant_access_token("t-1")
            .base_url(format!("https://127.0.0.1:{}", server.port))
            .connect_timeout(Duration::from_millis(connect_timeout))
            .build()
            .unwrap()
    };
    for (connect_timeout, timeout, kind) in [
        (5000, 300, ErrorKind::DeadlineExceeded),
        // After the connect_timeout, the call fails with the error of the certificate.
        (300, 5000, ErrorKind::ConnectionFailed),
    ] {
        let began = Instant::now();
        let client = client(connect_timeout);
        let call = client
            .set_time_sensitive(CHAT, [USER], true)
            .timeout(Duration::from_millis(timeout));
        let call = tokio::spawn(call.into_future());
        // The only thread of the runtime must go on with other tasks.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            began.elapsed() < Duration::from_millis(250),
            "the runtime was blocked"
        );
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
