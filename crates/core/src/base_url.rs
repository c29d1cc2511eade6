//! Where the platform is, and what is found there.

use std::fmt;

use reqwest::Url;

use crate::error::Error;
use crate::input::shown;

/// A checked `base_url`.
#[derive(Clone)]
pub(crate) struct BaseUrl {
    url: Url,
    /// With a path that is only there to make room: a clone of it need not grow for ours.
    roomy: Url,
}

/// More than that of a chat, with its query.
const LONGEST_PATH: usize = 128;

impl BaseUrl {
    pub(crate) fn parse(text: &str, allow_http: bool) -> Result<Self, Error> {
        let invalid = |value: String, expected: &str| Error::invalid_input("base_url", value, expected);
        let expected = "a URL like https://open.feishu.cn, without a query";
        if text.contains('@') {
            return Err(invalid("has a user name or password in it".to_owned(), expected));
        }
        let Ok(url) = Url::parse(text) else {
            return Err(invalid(shown(without_query(text)), expected));
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("has a query or a fragment".to_owned(), expected));
        }
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(invalid(shown(text), expected));
        }
        if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
            return Err(invalid(
                shown(text),
                "https: over http the token travels readable to everyone; allow_http permits it",
            ));
        }
        let mut roomy = url.clone();
        roomy.set_path(&"-".repeat(url.path().len() + LONGEST_PATH));
        Ok(Self { url, roomy })
    }

    /// Without a trailing slash.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// What lies there under a path, given in pieces. The host is not parsed anew, which costs as much as the core's
    /// share of a call; and a path that is set cannot name another one, as `//host` would when joined.
    pub(crate) fn join<const N: usize>(&self, path: [&str; N]) -> Url {
        let prefix = self.url.path().trim_end_matches('/');
        let size = prefix.len() + path.map(str::len).iter().sum::<usize>();
        let mut whole = String::with_capacity(size);
        whole.push_str(prefix);
        whole.extend(path);
        let mut url = self.roomy.clone();
        url.set_path(&whole);
        url
    }
}

/// A query may hold a key, and an error goes into logs.
fn without_query(text: &str) -> &str {
    text.split_once(['?', '#']).map_or(text, |(before, _)| before)
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BaseUrl").field(&self.as_str()).finish()
    }
}
