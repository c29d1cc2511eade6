//! The base URL of the platform, and the URLs of its endpoints.

use std::fmt;

use reqwest::Url;

use crate::data::error::Error;
use crate::data::input::{Target, UserIdType, check_filled, shown};
use crate::data::text::{Text, text};
use crate::transport::host;

/// A checked `base_url`.
#[derive(Clone)]
pub(crate) struct BaseUrl {
    url: Url,
    /// The URL that a chat's id completes, with the query for each kind of user id, in the order of
    /// [`UserIdType::ALL`].
    feed_cards: [Url; UserIdType::ALL.len()],
    /// As it was given, without a trailing slash.
    text: String,
}

/// Upper bound for the path and the query of a call, in bytes.
const LONGEST_CALL: usize = 256;

/// The longest URL that `http::Uri` accepts, in bytes.
const LONGEST_URL: usize = u16::MAX as usize - 1;

impl BaseUrl {
    pub(crate) fn parse(text: &str, allow_http: bool) -> Result<Self, Error> {
        let invalid =
            |value: String, expected: Text| Error::invalid_input(text!("{base_url}"), value, expected);
        let expected = || "a URL like https://open.feishu.cn, without a query".into();
        check_filled(text!("{base_url}"), Some(text))?;
        if text.contains('@') {
            return Err(invalid(
                "contains a user name or a password".to_owned(),
                expected(),
            ));
        }
        if text.contains(['?', '#']) {
            return Err(invalid("contains a query or a fragment".to_owned(), expected()));
        }
        if !text.is_ascii() {
            let expected =
                "ASCII: write an internationalized host name as xn--…, and percent-encode the path";
            return Err(invalid(shown(text), expected.into()));
        }
        // `Url` corrects mistakes as a browser does: it drops line breaks, and takes a host after a third slash.
        let is_plain = !text.contains(|letter: char| letter.is_control() || letter == ' ')
            && text
                .split_once("://")
                .is_some_and(|(_, rest)| !rest.starts_with('/'));
        let Ok(url) = Url::parse(text) else {
            return Err(invalid(shown(text), expected()));
        };
        let is_right = is_plain
            && matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(host::is_plain)
            && url.as_str().len() + LONGEST_CALL <= LONGEST_URL
            && url.as_str().parse::<http::Uri>().is_ok();
        if !is_right {
            return Err(invalid(shown(text), expected()));
        }
        let text = text.trim_end_matches('/').to_owned();
        let feed_cards = UserIdType::ALL.map(|kind| {
            let mut feed_cards = below(&url, "/open-apis/im/v2/feed_cards/");
            feed_cards.set_query(Some(kind.query()));
            feed_cards
        });
        let base_url = Self {
            url,
            feed_cards,
            text,
        };
        if host::is_http(&base_url.url) && !allow_http && !host::is_loopback(host::host(&base_url.url)) {
            return Err(invalid(
                shown(&base_url.text),
                text!("https, because http sends the token unencrypted; {allow_http} permits it").into(),
            ));
        }
        Ok(base_url)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the URL of a path below the base URL.
    pub(crate) fn join(&self, path: &str) -> Url {
        below(&self.url, path)
    }

    /// Returns the URL of a call.
    pub(crate) fn call(&self, target: &Target, kind: UserIdType) -> Url {
        let mut url = self.feed_cards[kind as usize].clone();
        // This fails only for URLs without a host, which `parse` refuses.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(target.segment());
        }
        url
    }
}

fn below(base: &Url, path: &str) -> Url {
    // Not `Url::join`, for which a path that starts with `//` names another host.
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BaseUrl").field(&self.as_str()).finish()
    }
}
