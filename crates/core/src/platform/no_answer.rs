//! Turns a request without a response into an error, with a hint and a rule for retries.

use std::error::Error as StdError;

use super::answer::{Failure, by_status};
use super::codes::RetryRule;
use crate::data::error::{BoxError, ConnectionReason, Error, ErrorKind, Station};
use crate::data::text::{Template, text};
use crate::transport::{
    Fault, MAX_RESPONSE_BYTES, Peer, TransportError, causes, is_out_of_resources, text_of,
};

/// Turns the error of a transport into the failure of an attempt.
pub(crate) fn no_answer(error: TransportError, was_sent: bool) -> Failure {
    let (error, retry) = match error {
        TransportError::Connect(fault) => {
            with_retry_rule(connection_failed("no connection", fault, Station::Connect))
        }
        TransportError::Broken(fault) => {
            let station = if was_sent { Station::Answer } else { Station::Send };
            with_retry_rule(connection_failed("the connection broke", fault, station))
        }
        TransportError::Unprocessed(fault) => {
            let what = "the server did not process the request";
            (connection_failed(what, fault, Station::Send), RetryRule::Resend)
        }
        TransportError::TooLarge(status) => {
            let why = format!("the response is larger than {MAX_RESPONSE_BYTES} bytes");
            let (kind, retry, hint) = by_status(status);
            let error = Error::new(kind, why)
                .with_platform(None, None, status.as_u16())
                .with_station(Station::Answer)
                .with_hint(hint);
            (error, retry)
        }
    };
    Failure {
        error,
        retry,
        wait: None,
        limit: None,
        is_answer: false,
    }
}

/// Adds the rule for retries. A wrong certificate or password is not retried, because it would stay wrong.
fn with_retry_rule(error: Error) -> (Error, RetryRule) {
    let retry = if error.retryable() {
        RetryRule::Backoff
    } else {
        RetryRule::No
    };
    (error, retry)
}

fn connection_failed(what: &str, fault: Fault, station: Station) -> Error {
    let Fault { reason, peer, source } = fault;
    let place = match &peer {
        Some(Peer::Host(host)) => format!(" ({host})"),
        Some(Peer::Proxy(proxy)) => format!(" (proxy {proxy})"),
        None => String::new(),
    };
    let cause = text_of(innermost(&*source));
    let hint = if reason.is_none() && is_out_of_resources(&*source) {
        OUT_OF_RESOURCES
    } else {
        connection_hint(reason, peer.as_ref())
    };
    Error::new(ErrorKind::ConnectionFailed, format!("{what}{place}"))
        .with_station(station)
        .with_reason(reason)
        .with_hint(hint)
        .with_cause(cause)
        .with_source(source)
}

/// The hint of errors for which the connection is not at fault.
const OUT_OF_RESOURCES: Template =
    text!("Call again later; if this persists, check the process's limits on file descriptors and threads");

/// Error for a thread or a file descriptor that the system refused, before anything was sent.
pub(crate) fn out_of_resources(error: impl Into<BoxError>) -> Error {
    let error = error.into();
    let message = "the process has no thread or file descriptor left for the call";
    Error::new(ErrorKind::ConnectionFailed, message)
        .with_hint(OUT_OF_RESOURCES)
        .with_cause(error.to_string())
        .with_source(error)
}

fn connection_hint(reason: Option<ConnectionReason>, peer: Option<&Peer>) -> Template {
    use ConnectionReason as Reason;

    match (reason, peer) {
        (
            Some(Reason::Dns | Reason::Refused | Reason::Unreachable | Reason::Timeout),
            Some(Peer::Proxy(_)),
        ) => {
            text!(
                "Check the proxy's host and port in the option {proxy}, or in the environment variable HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
            )
        }
        (Some(Reason::Dns), _) => text!("Check the host in {base_url} and this machine's DNS"),
        (Some(Reason::Refused), _) => {
            text!("Check the host and port in {base_url}, and whether a firewall refuses the connection")
        }
        (Some(Reason::Unreachable), _) => text!("Check this machine's network and the host in {base_url}"),
        (Some(Reason::Timeout), _) => {
            text!(
                "Check {base_url}, and whether a firewall drops the connection or a proxy is needed to reach the platform"
            )
        }
        (Some(Reason::TlsUntrusted), _) => {
            text!(
                "If a proxy or gateway inspects TLS, give its CA certificate with {ca_certs}, or with the environment variable SSL_CERT_FILE or (Node.js) NODE_EXTRA_CA_CERTS"
            )
        }
        (Some(Reason::TlsExpired), _) => {
            text!("Check this machine's clock; if it is right, have the server's certificate renewed")
        }
        (Some(Reason::TlsName), _) => {
            text!("Check the host in {base_url}: the certificate is for another name")
        }
        (Some(Reason::Tls), _) => text!("Check that {base_url} and the proxy speak TLS on this port"),
        (Some(Reason::Proxy), _) => {
            text!("Check the proxy's port and scheme, and whether it permits connections to the platform")
        }
        (Some(Reason::ProxyAuth), _) => {
            text!("Check the percent-encoded user name and password in the proxy's URL")
        }
        (Some(Reason::Closed), _) => text!("Call again: setting the same state twice does no harm"),
        (None, _) => {
            text!("Call again; if this persists, check {base_url} and the proxy, and report this message")
        }
    }
}

/// Returns the innermost cause. The outer ones only say that a request failed.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    causes(error).last().unwrap_or(error)
}
