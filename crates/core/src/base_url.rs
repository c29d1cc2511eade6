//! Where the platform is, and what is found there.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

use crate::error::Error;
use crate::input::{Target, UserIdType, filled, shown};

/// A checked `base_url`.
#[derive(Clone)]
pub(crate) struct BaseUrl {
    uri: Uri,
    /// As it was given, without a trailing slash.
    text: String,
}

/// More than any path of ours, with its query.
const LONGEST_CALL: usize = 256;

/// The longest URL that a request can have.
const LONGEST_URL: usize = u16::MAX as usize - 1;

impl BaseUrl {
    pub(crate) fn parse(text: &str, allow_http: bool) -> Result<Self, Error> {
        let invalid = |value: String, expected: &str| Error::invalid_input("base_url", value, expected);
        let expected = "a URL like https://open.feishu.cn, without a query";
        filled("base_url", Some(text))?;
        if text.contains('@') {
            return Err(invalid("has a user name or password in it".to_owned(), expected));
        }
        if text.contains(['?', '#']) {
            return Err(invalid("has a query or a fragment".to_owned(), expected));
        }
        if !text.is_ascii() {
            let expected = "ASCII: a host of other letters as xn--…, a path of them percent-encoded";
            return Err(invalid(shown(text), expected));
        }
        let (Ok(uri), true) = (text.parse::<Uri>(), text.len() + LONGEST_CALL <= LONGEST_URL) else {
            return Err(invalid(shown(text), expected));
        };
        let is_http = uri.scheme() == Some(&Scheme::HTTP);
        if !(is_http || uri.scheme() == Some(&Scheme::HTTPS)) || !uri.authority().is_some_and(is_host) {
            return Err(invalid(shown(text), expected));
        }
        if is_http && !allow_http && !is_loopback(&uri) {
            return Err(invalid(
                shown(text),
                "https: over http the token travels readable to everyone; allow_http permits it",
            ));
        }
        let text = text.trim_end_matches('/').to_owned();
        Ok(Self { uri, text })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.uri)
    }

    /// What lies there under a path. `None` where the path is none.
    pub(crate) fn join(&self, path: &[&str]) -> Option<Uri> {
        let prefix = self.uri.path().trim_end_matches('/');
        let length = path.iter().map(|part| part.len()).sum::<usize>();
        let mut whole = String::with_capacity(prefix.len() + length);
        whole.push_str(prefix);
        whole.extend(path.iter().copied());
        let mut parts = Parts::default();
        parts.scheme = self.uri.scheme().cloned();
        parts.authority = self.uri.authority().cloned();
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(whole)).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Of the one call that this library is for.
    pub(crate) fn call(&self, target: &Target, kind: UserIdType) -> Option<Uri> {
        self.join(&[
            "/open-apis/im/v2/feed_cards/",
            target.segment(),
            "?user_id_type=",
            kind.as_str(),
        ])
    }
}

/// Whether a host is named, and a port that is one, if any. `http::Uri` reads a port that is none as if none were
/// said, and lets brackets stand where no address is in them.
pub(crate) fn is_host(authority: &Authority) -> bool {
    let host = authority.host();
    let port = authority.port_u16().map(|port| format!(":{port}"));
    let is_spelled = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(['[', ']']),
    };
    let named = authority.as_str().rsplit('@').next();
    is_spelled
        && named.and_then(|named| named.strip_prefix(host)) == Some(port.as_deref().unwrap_or_default())
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    if let Ok(address) = address {
        return address.is_loopback();
    }
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BaseUrl").field(&self.as_str()).finish()
    }
}
