//! Hosts in URLs.

use std::net::IpAddr;

use reqwest::Url;

pub(crate) fn is_http(url: &Url) -> bool {
    url.scheme() == "http"
}

/// The host, without the brackets of an IPv6 address.
pub(crate) fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Host and port for errors. The default port of the scheme is left out.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a host that `Url` accepted is an address or a name, and not for example a template such as `{{host}}`.
pub(crate) fn is_plain(host: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && (host.starts_with('[') || host.bytes().all(is_letter))
}

/// Whether a host is this machine: a loopback address, or a name that is reserved for one. The addresses of such a name
/// are checked when it is resolved.
pub(crate) fn is_loopback(host: &str) -> bool {
    if let Some(address) = address(host) {
        return address.is_loopback();
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Parses a host as an IP address, with or without brackets.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
