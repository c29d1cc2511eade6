//! The reason for a connection error and the server that it concerns, found in the errors of reqwest and the libraries
//! below it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error as TlsError};

use super::dns::LookupError;
use super::tls::UntrustedCertificate;
use super::{Fault, Peer, TransportError};
use crate::data::error::ConnectionReason;
use crate::data::text::{Template, Text, text};

/// Texts of hyper-util's errors about proxies. Its error types are private, so only the texts distinguish the errors. The
/// tests in `tests/network/proxies.rs` check each text against a proxy.
mod texts {
    pub(super) const TUNNEL: &str = "tunnel error: ";
    /// The proxy answered CONNECT with 407.
    pub(super) const TUNNEL_AUTH: &str = "tunnel error: proxy authorization required";
    /// The TCP or TLS connection to the proxy failed. The next error in the chain is the cause.
    pub(super) const TUNNEL_CONNECT: &str = "tunnel error: failed to create underlying connection";
    pub(super) const SOCKS: &str = "SOCKS error: ";
    /// The TCP connection to the proxy failed. The chain ends with this error: only its `Debug` text has the cause.
    pub(super) const SOCKS_CONNECT: &str = "SOCKS error: failed to create underlying connection";
    /// The proxy refuses the credentials, requires credentials, or does not support them.
    pub(super) const SOCKS_AUTH: [&str; 3] = [
        "SOCKS error: credentials not accepted",
        "SOCKS error: server does not support user/pass authentication",
        "SOCKS error: server implements authentication incorrectly",
    ];
}

/// The servers on the way of requests, as named in errors.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// The platform's host, with its port if the URL has one.
    pub(super) host: String,
    /// The proxy's URL without credentials.
    pub(super) proxy: Option<String>,
    /// Whether the proxy forwards http requests, instead of opening a tunnel.
    pub(super) is_forwarded: bool,
}

impl Destination {
    /// The server at the end of the connection.
    fn last_hop(&self) -> Peer {
        if self.is_forwarded {
            self.first_hop()
        } else {
            Peer::Host(self.host.clone())
        }
    }

    /// The server that the client connects to: the proxy, or without one the host.
    pub(super) fn first_hop(&self) -> Peer {
        match &self.proxy {
            Some(proxy) => Peer::Proxy(proxy.clone()),
            None => Peer::Host(self.host.clone()),
        }
    }

    /// The proxy if `server` is its name, and otherwise the server at the end of the connection.
    fn find(&self, server: &str) -> Peer {
        match &self.proxy {
            Some(proxy) if host_of(proxy) == server && host_of(&self.host) != server => {
                Peer::Proxy(proxy.clone())
            }
            _ => self.last_hop(),
        }
    }
}

/// The host in `scheme://host:port` or `host:port`.
fn host_of(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    let authority = authority.trim_end_matches('/');
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Converts reqwest's error. The result says whether a connection was made, why the request failed, and which server it
/// concerns.
pub(super) fn classify(error: reqwest::Error, destination: &Destination) -> TransportError {
    // Without the URL, which has the chat's id.
    let error = error.without_url();
    if error.is_connect() {
        let (reason, peer) = connect_reason(&error, destination);
        let mut fault = fault(reason, peer, error);
        let is_from_system = causes(&*fault.source)
            .filter_map(<dyn StdError>::downcast_ref::<io::Error>)
            .any(|error| error.raw_os_error().is_some());
        if reason == Some(ConnectionReason::Timeout) && !is_from_system {
            fault.source = Box::new(ConnectTimeout);
        }
        return TransportError::Connect(fault);
    }
    let reason = broken_reason(&error);
    let peer = destination.last_hop();
    if is_unprocessed(&error) {
        TransportError::Unprocessed(fault(reason, peer, error))
    } else {
        TransportError::Broken(fault(reason, peer, error))
    }
}

fn fault(reason: Option<ConnectionReason>, peer: Peer, error: reqwest::Error) -> Fault {
    Fault {
        reason,
        peer: Some(peer),
        source: Box::new(error),
    }
}

/// Replaces the libraries' "operation timed out", which does not name the option.
#[derive(Debug)]
struct ConnectTimeout;

impl fmt::Display for ConnectTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::from(CONNECT_TIMEOUT_PASSED).as_str())
    }
}

impl StdError for ConnectTimeout {}

const CONNECT_TIMEOUT_PASSED: Template = text!("the {connect_timeout} passed");

/// The text of an error. Errors of this crate may contain names of options.
pub(crate) fn text_of(error: &(dyn StdError + 'static)) -> Text {
    if error.is::<ConnectTimeout>() {
        return CONNECT_TIMEOUT_PASSED.into();
    }
    match error.downcast_ref::<LookupError>() {
        Some(error) => error.text(),
        None => error.to_string().into(),
    }
}

/// The error and its causes, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // `source()` of an `io::Error` skips the error inside it.
        Some(error) => error.get_ref().map(|inner| inner as _),
        // A rustls error has no `source()`.
        None => match error.downcast_ref::<TlsError>() {
            Some(tls) => untrusted(tls).map(|untrusted| untrusted as _),
            None => error.source(),
        },
    })
}

/// The reason for a failed connection, and the server that it concerns.
fn connect_reason(error: &reqwest::Error, destination: &Destination) -> (Option<ConnectionReason>, Peer) {
    use ConnectionReason as Reason;

    // Errors concern the server at the end of the tunnel, unless the chain has the text of a failed tunnel.
    let mut server = destination.last_hop();
    let mut io = None;
    for cause in causes(error) {
        if let Some(lookup) = cause.downcast_ref::<LookupError>() {
            let reason = (!lookup.is_out_of_resources()).then_some(Reason::Dns);
            return (reason, destination.find(lookup.host()));
        }
        if let Some(tls) = cause.downcast_ref::<TlsError>() {
            let peer = match untrusted(tls) {
                Some(untrusted) => destination.find(&untrusted.server),
                None => server,
            };
            return (Some(tls_reason(tls)), peer);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            io = Some(error);
        }
        let text = cause.to_string();
        if text == texts::TUNNEL_AUTH || texts::SOCKS_AUTH.contains(&&*text) {
            return (Some(Reason::ProxyAuth), destination.first_hop());
        } else if text == texts::TUNNEL_CONNECT {
            server = destination.first_hop();
        } else if text == texts::SOCKS_CONNECT {
            return (
                reason_in_debug_text(&format!("{cause:?}")),
                destination.first_hop(),
            );
        } else if text.starts_with(texts::TUNNEL) || text.starts_with(texts::SOCKS) {
            return (Some(Reason::Proxy), destination.first_hop());
        }
    }
    match io {
        Some(error) => (io_reason(error), server),
        // After the `connect_timeout`, how far the connection came is unknown.
        None => (
            error.is_timeout().then_some(Reason::Timeout),
            destination.first_hop(),
        ),
    }
}

fn untrusted(error: &TlsError) -> Option<&UntrustedCertificate> {
    match error {
        TlsError::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

fn tls_reason(error: &TlsError) -> ConnectionReason {
    let certificate = match (untrusted(error), error) {
        (Some(untrusted), _) => &untrusted.cause,
        (None, TlsError::InvalidCertificate(certificate)) => certificate,
        (None, _) => return ConnectionReason::Tls,
    };
    match certificate {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ConnectionReason::TlsExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ConnectionReason::TlsName
        }
        _ => ConnectionReason::TlsUntrusted,
    }
}

fn io_reason(error: &io::Error) -> Option<ConnectionReason> {
    use io::ErrorKind as Kind;

    Some(match error.kind() {
        Kind::ConnectionRefused => ConnectionReason::Refused,
        Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable
        // EPERM or EACCES: a firewall on this machine refuses the connection.
        | Kind::PermissionDenied => ConnectionReason::Unreachable,
        Kind::TimedOut => ConnectionReason::Timeout,
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::BrokenPipe
        | Kind::UnexpectedEof => ConnectionReason::Closed,
        // Not about the connection, such as a lack of file descriptors or memory.
        _ => return None,
    })
}

/// The reason in the `Debug` text of an `io::Error`.
fn reason_in_debug_text(text: &str) -> Option<ConnectionReason> {
    let known = [
        ("dns error", ConnectionReason::Dns),
        ("ConnectionRefused", ConnectionReason::Refused),
        ("Unreachable", ConnectionReason::Unreachable),
        ("TimedOut", ConnectionReason::Timeout),
    ];
    let found = known.into_iter().find(|(part, _)| text.contains(part));
    found.map(|(_, reason)| reason)
}

/// The reason for a connection that broke after it was made.
fn broken_reason(error: &reqwest::Error) -> Option<ConnectionReason> {
    let io = causes(error).find_map(<dyn StdError>::downcast_ref::<io::Error>);
    if error.is_timeout() {
        return Some(ConnectionReason::Timeout);
    }
    if let Some(tls) = causes(error).find_map(<dyn StdError>::downcast_ref::<TlsError>) {
        return Some(tls_reason(tls));
    }
    match io {
        Some(error) => io_reason(error),
        None => Some(ConnectionReason::Closed),
    }
}

/// Whether the process lacks a thread, a file descriptor or memory.
pub(crate) fn is_out_of_resources(error: &(dyn StdError + 'static)) -> bool {
    // EAGAIN, ENOMEM, ENFILE, EMFILE; on Windows WSAEMFILE and WSAENOBUFS.
    const CODES: [i32; 6] = [11, 12, 23, 24, 10_024, 10_055];
    causes(error).any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.raw_os_error().is_some_and(|code| CODES.contains(&code)))
            // The error if the thread that loads the system's roots could not be started.
            || cause.is::<Arc<io::Error>>()
            || cause
                .downcast_ref::<LookupError>()
                .is_some_and(LookupError::is_out_of_resources)
    })
}

/// Whether the server has proved that it did not act on the request: it refused the HTTP/2 stream, or it sent a GOAWAY
/// and the stream is above the last one that it processes. For a GOAWAY, h2 fails only those streams (RFC 9113, 6.8).
fn is_unprocessed(error: &reqwest::Error) -> bool {
    let error = causes(error).find_map(<dyn StdError>::downcast_ref::<h2::Error>);
    error.is_some_and(|error| {
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || is_refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_inside_an_io_error_is_found() {
        let error = io::Error::other(TlsError::HandshakeNotComplete);
        let texts: Vec<_> = causes(&error).map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(causes(&error).any(<dyn StdError>::is::<TlsError>));
    }

    #[test]
    fn a_server_is_the_proxy_only_if_the_host_has_another_name() {
        let destination = Destination {
            host: "open.feishu.cn".to_owned(),
            proxy: Some("https://proxy.example:3128".to_owned()),
            is_forwarded: false,
        };
        assert_eq!(destination.find("proxy.example"), destination.first_hop());
        assert_eq!(
            destination.find("open.feishu.cn"),
            Peer::Host("open.feishu.cn".to_owned())
        );
        let same = Destination {
            host: "127.0.0.1:8443".to_owned(),
            proxy: Some("https://127.0.0.1:3128".to_owned()),
            is_forwarded: false,
        };
        assert_eq!(same.find("127.0.0.1"), Peer::Host("127.0.0.1:8443".to_owned()));
    }

    #[test]
    fn every_kind_of_certificate_error_has_its_reason() {
        for (certificate, reason) in [
            (CertificateError::Expired, ConnectionReason::TlsExpired),
            (CertificateError::NotValidYet, ConnectionReason::TlsExpired),
            (CertificateError::NotValidForName, ConnectionReason::TlsName),
            (CertificateError::UnknownIssuer, ConnectionReason::TlsUntrusted),
            (CertificateError::BadSignature, ConnectionReason::TlsUntrusted),
        ] {
            assert_eq!(tls_reason(&TlsError::InvalidCertificate(certificate)), reason);
        }
        assert_eq!(tls_reason(&TlsError::HandshakeNotComplete), ConnectionReason::Tls);
    }
}
