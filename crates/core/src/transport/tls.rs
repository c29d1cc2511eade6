//! TLS: rustls with ring, the bundled Mozilla roots, the caller's own, and the system's when needed.

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

/// A configuration of our own, never the process's default (another library may have installed one), with the roots that
/// it trusts.
pub(super) fn config(own: OwnCertificates) -> Result<(ClientConfig, Arc<Roots>), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in &own.0 {
        roots
            .add(certificate.clone())
            .map_err(|error| unexpected(&error))?;
    }
    let bundled = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unexpected(&error))?;
    let roots = Arc::new(Roots {
        bundled,
        own,
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
        "usable roots",
    )
}

/// The caller's own certificates, each of which can be a root.
#[derive(Debug, Default)]
pub(super) struct OwnCertificates(Vec<CertificateDer<'static>>);

impl OwnCertificates {
    /// Reads the PEM file that the option `ca_certs` names.
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

    /// Reads the PEM file that an environment variable names. A file that cannot be used is left out with a warning, as
    /// the program that the variable belongs to does.
    pub(super) fn read_of_environment(&mut self, variable: &str, path: &OsStr) {
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

    /// Adds all certificates or none. `Err(None)` if there is none.
    fn add(&mut self, pem: &[u8]) -> Result<(), Option<TlsError>> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

        // Files that were joined have one in the middle, too. A certificate itself is ASCII.
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

/// The error is a thread that the system refused.
type Loading = Shared<Pin<Box<dyn Future<Output = Result<(), Arc<io::Error>>> + Send>>>;

/// Decides whom to trust. Loading the bundled roots takes 0.07 ms and the system's 4 ms and more, so those are loaded only
/// when an issuer is unknown, as behind a proxy that inspects TLS.
pub(crate) struct Roots {
    bundled: Arc<WebPkiServerVerifier>,
    own: OwnCertificates,
    provider: Arc<CryptoProvider>,
    loading: Mutex<Option<Loading>>,
}

/// The system's roots.
struct SystemRoots {
    verifier: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

/// The system's roots, once they are loaded; `None` if it has none.
static SYSTEM: OnceLock<Option<SystemRoots>> = OnceLock::new();

impl Roots {
    /// Loads the system's roots. Reading them may block (`SSL_CERT_FILE` may name a pipe, or a file on a network that is
    /// away), so a thread of its own does it.
    pub(super) async fn load_system(&self) -> Result<(), Arc<io::Error>> {
        if SYSTEM.get().is_some() {
            return Ok(());
        }
        let loading = {
            let loading = &mut *self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            // One that has ended without roots is not joined: the next has a thread or a descriptor, perhaps.
            loading.take_if(|loading| loading.peek().is_some());
            loading
                .get_or_insert_with(|| load_system(self.provider.clone()))
                .clone()
        };
        loading.await
    }

    /// Whether the system's roots may make a difference: they were not loaded when the certificate was verified. They may
    /// be now: another connection has loaded them.
    pub(super) fn want_system(error: &reqwest::Error) -> bool {
        super::fault::causes(error)
            .filter_map(<dyn std::error::Error>::downcast_ref::<Distrust>)
            .any(|distrust| !distrust.knew_system && is_about_the_issuer(&distrust.cause))
    }
}

/// Whether another root, or the certificate itself as a root, may change the verdict.
fn is_about_the_issuer(cause: &CertificateError) -> bool {
    match cause {
        // `BadSignature`: a root has the issuer's name and another key. The certificate itself may be that root.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

/// Verifies a server's certificate against roots. A certificate that is itself among them is trusted, as OpenSSL does:
/// webpki knows no issuer for it, or refuses it because it is marked as a CA, as self-signed ones often are. It has
/// checked the dates before that. The extended key usage of a CA is not checked: the roots have this very certificate.
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
            if is_about_the_issuer(&cause) && certificates.contains(end_entity) =>
        {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
        }
        verdict => verdict.map(drop),
    }
}

fn load_system(provider: Arc<CryptoProvider>) -> Loading {
    let (loaded, wait) = oneshot::channel::<()>();
    let thread = thread::Builder::new().name("feishu-feed-card-roots".to_owned());
    let spawned = thread.spawn(move || {
        if SYSTEM.get().is_none() {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::warn!(%error, "certificates of the system that cannot be read");
            }
            let certificates = loaded.certs;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            // Files that cannot be read now may be read later: the process may lack a descriptor.
            if !roots.is_empty() || loaded.errors.is_empty() {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let system = verifier.ok().map(|verifier| SystemRoots {
                    verifier,
                    certificates,
                });
                // Not `get_or_init`: a process that is forked meanwhile would wait for this thread for ever.
                drop(SYSTEM.set(system));
            }
        }
        drop(loaded);
    });
    let failed = spawned.err().map(|error| {
        let what = format!("no thread to load the system's certificates: {error}");
        Arc::new(io::Error::new(error.kind(), what))
    });
    let loading = wait.map(|_| failed.map_or(Ok(()), Err));
    loading.boxed().shared()
}

/// A server's certificate is not trusted. rustls's own error does not name the server.
#[derive(Debug)]
pub(super) struct Distrust {
    pub(super) server: String,
    pub(super) cause: CertificateError,
    /// Whether the system's roots were loaded by then.
    knew_system: bool,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the certificate of {} is not trusted: {}",
            self.server, self.cause
        )
    }
}

impl std::error::Error for Distrust {}

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
        let by = |roots: &WebPkiServerVerifier, certificates: &[CertificateDer<'_>]| {
            verify(roots, certificates, end_entity, intermediates, server_name, now)
        };
        let loaded = SYSTEM.get();
        let mut verdict = by(&self.bundled, &self.own.0);
        if let Err(TlsError::InvalidCertificate(cause)) = &verdict
            && is_about_the_issuer(cause)
            && let Some(Some(system)) = loaded
        {
            verdict = by(&system.verifier, &system.certificates);
        }
        let verdict = verdict.map(|()| ServerCertVerified::assertion());
        verdict.map_err(|error| match error {
            TlsError::InvalidCertificate(cause) => {
                let server = server_name.to_str().into_owned();
                let knew_system = loaded.is_some();
                let distrust = OtherError(Arc::new(Distrust {
                    server,
                    cause,
                    knew_system,
                }));
                TlsError::InvalidCertificate(CertificateError::Other(distrust))
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
