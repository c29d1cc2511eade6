//! TLS: rustls with ring, the bundled Mozilla roots, the caller's own, and the machine's when needed.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::error::Error;
use crate::input::shown;

/// A configuration of our own, never the process's default: another library may have installed one.
pub(crate) fn config(ca_certs: Option<&Path>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_certs {
        for certificate in own_certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| unusable(path).with_source(error))?;
        }
    }
    let verifier = Roots::new(roots, provider.clone()).map_err(unexpected)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unexpected)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn own_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(|error| unusable(path).with_source(error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unusable(path)),
        Err(error) => Err(unusable(path).with_source(error)),
    }
}

fn unusable(path: &Path) -> Error {
    Error::invalid_input(
        "ca_certs",
        shown(&path.to_string_lossy()),
        "a readable PEM file with at least one certificate",
    )
}

fn unexpected(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid_input("ca_certs", "TLS cannot be set up", "usable roots").with_source(error)
}

/// The bundled roots take 0.07 ms to load and the machine's own 4 ms and more: those are loaded once,
/// by the first certificate whose issuer is not known, as behind a corporate proxy.
#[derive(Debug)]
struct Roots {
    bundled: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Roots {
    fn new(
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let bundled =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        Ok(Self { bundled, provider })
    }

    fn machine(&self) -> Option<&'static WebPkiServerVerifier> {
        static MACHINE: OnceLock<Option<Arc<WebPkiServerVerifier>>> = OnceLock::new();
        MACHINE
            .get_or_init(|| {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                    .build()
                    .ok()
            })
            .as_deref()
    }
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verify = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match verify(&self.bundled) {
            Err(unknown @ TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                self.machine().map_or(Err(unknown), verify)
            }
            verdict => verdict,
        }
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
