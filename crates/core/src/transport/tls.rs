//! TLS with rustls and ring. Trusted root certificates are Mozilla's (bundled), the caller's, and if needed the system's.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use futures_util::FutureExt;
use futures_util::future::Shared;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::sync::oneshot;

use crate::data::error::Error;
use crate::data::input::shown;
use crate::data::text::text;

/// Returns a TLS configuration and its roots. It does not use the process's default crypto provider, which another
/// library may have installed.
pub(super) fn config(extra: ExtraCertificates) -> Result<(ClientConfig, Arc<Roots>), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in &extra.0 {
        roots
            .add(certificate.clone())
            .map_err(|error| unexpected(&error))?;
    }
    let bundled = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unexpected(&error))?;
    let roots = Arc::new(Roots {
        bundled,
        extra,
        provider: provider.clone(),
        loading: Mutex::default(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unexpected(&error))?
        .dangerous()
        .with_custom_certificate_verifier(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, roots))
}

fn unexpected(error: &impl fmt::Display) -> Error {
    Error::invalid_input(
        text!("{ca_certs}"),
        text!("TLS cannot be set up: {}", error),
        "usable root certificates",
    )
}

/// The caller's certificates, which are trusted in addition. Each can be that of an authority or of a server.
#[derive(Debug, Default)]
pub(super) struct ExtraCertificates(Vec<CertificateDer<'static>>);

impl ExtraCertificates {
    /// Adds the PEM file of the option `ca_certs`.
    pub(super) fn read(&mut self, path: &Path) -> Result<(), Error> {
        let unusable = || {
            Error::invalid_input(
                text!("{ca_certs}"),
                shown(&path.to_string_lossy()),
                "a readable PEM file with at least one certificate",
            )
        };
        let pem = std::fs::read(path).map_err(|error| unusable().with_source(error))?;
        self.add(&pem).map_err(|error| match error {
            Some(error) => unusable().with_source(error),
            None => unusable(),
        })
    }

    /// Adds the PEM file of an environment variable. If the file cannot be used, logs a warning and ignores it, as
    /// Node.js does with `NODE_EXTRA_CA_CERTS`.
    pub(super) fn read_from_environment(&mut self, variable: &str, path: &OsStr) {
        let added = std::fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|pem| {
                self.add(&pem).map_err(|error| {
                    error.map_or_else(|| "no certificate".to_owned(), |error| error.to_string())
                })
            });
        if let Err(error) = added {
            tracing::warn!(variable, error, "ignoring extra certificates that cannot be read");
        }
    }

    /// Adds all certificates of a PEM file, or none if one is invalid. Returns `Err(None)` if the file has none.
    fn add(&mut self, pem: &[u8]) -> Result<(), Option<TlsError>> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

        // Joined files may also have byte order marks in the middle. The rest of a PEM file is ASCII.
        let pem: Vec<u8> = pem
            .split(|byte| BYTE_ORDER_MARK.contains(byte))
            .flatten()
            .copied()
            .collect();
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| Some(TlsError::General(error.to_string())))?;
            RootCertStore::empty().add(certificate.clone()).map_err(Some)?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(None);
        }
        self.0.append(&mut certificates);
        Ok(())
    }
}

/// The system's roots while they are loaded. It fails if the system refuses a thread.
type Loading = Shared<Pin<Box<dyn Future<Output = Result<(), Arc<io::Error>>> + Send>>>;

/// The trusted root certificates. Loading the bundled roots takes 0.07 ms, loading the system's 4 ms or more. So the
/// system's are loaded only when the issuer of a certificate is unknown, as behind a proxy that inspects TLS.
pub(crate) struct Roots {
    bundled: Arc<WebPkiServerVerifier>,
    extra: ExtraCertificates,
    provider: Arc<CryptoProvider>,
    loading: Mutex<Option<Loading>>,
}

/// The system's roots.
struct SystemRoots {
    verifier: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

/// The system's roots, if they were loaded. The inner `None` means that the system has none.
static SYSTEM: OnceLock<Option<SystemRoots>> = OnceLock::new();

impl Roots {
    /// Loads the system's roots on a separate thread, because reading them may block: `SSL_CERT_FILE` may be a pipe or a
    /// file on an unreachable network.
    pub(super) async fn load_system(&self) -> Result<(), Arc<io::Error>> {
        if SYSTEM.get().is_some() {
            return Ok(());
        }
        let loading = {
            let loading = &mut *self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            // Do not join an attempt that ended without roots. The next one may get a thread and file descriptors.
            loading.take_if(|loading| loading.peek().is_some());
            loading
                .get_or_insert_with(|| load_system(self.provider.clone()))
                .clone()
        };
        loading.await
    }

    /// Whether loading the system's roots may help: the issuer is unknown, and the system's roots were not loaded when
    /// the certificate was verified. Another connection may have loaded them since.
    pub(super) fn may_need_system(error: &reqwest::Error) -> bool {
        super::fault::causes(error)
            .filter_map(<dyn std::error::Error>::downcast_ref::<UntrustedCertificate>)
            .any(|untrusted| !untrusted.had_system_roots && is_unknown_issuer(&untrusted.cause))
    }
}

/// Whether the certificate may be trusted with other roots, or with itself as a root.
fn is_unknown_issuer(cause: &CertificateError) -> bool {
    match cause {
        // `BadSignature` means that a root has the issuer's name but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

/// Verifies a server's certificate against roots. A certificate that is itself one of the roots is trusted, as in
/// OpenSSL. webpki refuses such a certificate because it finds no issuer, or because it is marked as a CA, as many
/// self-signed certificates are. webpki has then already checked the dates, so only the name remains to be checked.
/// The extended key usage is not checked, because the roots contain this exact certificate.
fn verify(
    roots: &WebPkiServerVerifier,
    certificates: &[CertificateDer<'_>],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), TlsError> {
    match roots.verify_server_cert(end_entity, intermediates, server_name, &[], now) {
        Err(TlsError::InvalidCertificate(cause))
            if is_unknown_issuer(&cause) && certificates.contains(end_entity) =>
        {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
        }
        verdict => verdict.map(drop),
    }
}

fn load_system(provider: Arc<CryptoProvider>) -> Loading {
    let (done, receiver) = oneshot::channel::<()>();
    let thread = thread::Builder::new().name("feishu-feed-card-roots".to_owned());
    let spawned = thread.spawn(move || {
        if SYSTEM.get().is_none() {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::warn!(%error, "some of the system's certificates cannot be read");
            }
            let certificates = loaded.certs;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            // After errors without any root, try again later: the process may lack file descriptors now.
            if !roots.is_empty() || loaded.errors.is_empty() {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let system = verifier.ok().map(|verifier| SystemRoots {
                    verifier,
                    certificates,
                });
                // Not `get_or_init`: in a process that is forked meanwhile, it would wait forever for this thread.
                drop(SYSTEM.set(system));
            }
        }
        drop(done);
    });
    let failed = spawned.err().map(|error| {
        let what = format!("no thread is available to load the system's certificates: {error}");
        Arc::new(io::Error::new(error.kind(), what))
    });
    let loading = receiver.map(|_| failed.map_or(Ok(()), Err));
    loading.boxed().shared()
}

/// The error for a server's certificate that is not trusted. Unlike rustls's error, it names the server.
#[derive(Debug)]
pub(super) struct UntrustedCertificate {
    pub(super) server: String,
    pub(super) cause: CertificateError,
    /// Whether the system's roots were loaded when the certificate was verified.
    had_system_roots: bool,
}

impl fmt::Display for UntrustedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the certificate of {} is not trusted: {}",
            self.server, self.cause
        )
    }
}

impl std::error::Error for UntrustedCertificate {}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verify_with = |roots: &WebPkiServerVerifier, certificates: &[CertificateDer<'_>]| {
            verify(roots, certificates, end_entity, intermediates, server_name, now)
        };
        let loaded = SYSTEM.get();
        let mut verdict = verify_with(&self.bundled, &self.extra.0);
        if let Err(TlsError::InvalidCertificate(cause)) = &verdict
            && is_unknown_issuer(cause)
            && let Some(Some(system)) = loaded
        {
            verdict = verify_with(&system.verifier, &system.certificates);
        }
        let verdict = verdict.map(|()| ServerCertVerified::assertion());
        verdict.map_err(|error| match error {
            TlsError::InvalidCertificate(cause) => {
                let server = server_name.to_str().into_owned();
                let had_system_roots = loaded.is_some();
                let untrusted = OtherError(Arc::new(UntrustedCertificate {
                    server,
                    cause,
                    had_system_roots,
                }));
                TlsError::InvalidCertificate(CertificateError::Other(untrusted))
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.bundled.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.bundled.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.bundled.supported_verify_schemes()
    }
}
