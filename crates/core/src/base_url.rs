//! Where the platform is, and what is found there.

use std::fmt;

use http::Uri;
use reqwest::Url;

use crate::error::Error;
use crate::input::{Target, UserIdType, shown};

/// A checked `base_url`.
#[derive(Clone)]
pub(crate) struct BaseUrl {
    url: Url,
}

/// More than any path of ours, with its query.
const LONGEST_CALL: usize = 256;

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
        // What becomes of each URL of a request is stricter, and shorter: a template's braces are no host.
        if Uri::try_from(format!("{url}{:0LONGEST_CALL$}", 0)).is_err() {
            return Err(invalid(shown(text), expected));
        }
        Ok(Self { url })
    }

    /// Without a trailing slash.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// What lies there under a path. Set and not joined, for `//host` would name another one.
    pub(crate) fn join(&self, path: &str) -> Url {
        let prefix = self.url.path().trim_end_matches('/');
        let mut url = self.url.clone();
        url.set_path(&format!("{prefix}{path}"));
        url
    }
}

/// The call's URL for each kind of user id. All but its last segment is made once: to parse a host and to encode a path
/// costs as much as the core's share of a call.
pub(crate) struct CallUrls([Url; 3]);

/// The platform's own ids of chats have 35 letters.
const ROOM: usize = 64;

impl CallUrls {
    pub(crate) fn new(base_url: &BaseUrl) -> Self {
        Self(UserIdType::ALL.map(|kind| {
            // Another last segment fits into what a clone of this has allocated.
            let mut url = base_url.join(&format!("/open-apis/im/v2/feed_cards/{:0ROOM$}", 0));
            url.set_query(Some(&format!("user_id_type={kind}")));
            url
        }))
    }

    /// `None` where the URL has no path, which none of http is without.
    pub(crate) fn of(&self, target: &Target, kind: UserIdType) -> Option<Url> {
        let mut url = self.0[kind as usize].clone();
        url.path_segments_mut().ok()?.pop().push(target.segment());
        Some(url)
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
