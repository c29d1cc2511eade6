//! Functions for the Python and Node bindings, so that no rule is written in two languages. Not part of the public
//! interface.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use crate::client::{Client, SetTimeSensitive};
use crate::data::error::{Error, Station};
use crate::data::input;
use crate::data::outcome::UserIds;
use crate::data::text::text;
use crate::platform::no_answer;
use crate::stations::closing;
use crate::stations::quota::{QuotaHandle, RateLimit};

pub use crate::data::error::Spelled;
pub use crate::data::input::Target;
pub use crate::data::origin::{Origin, origin, with_origin};
pub use crate::stations::closing::Closing;
pub use crate::stations::token::{Abandoned, NoThread};

pub mod many;
pub mod options;
pub mod reports;

/// Calls [`Client::set_time_sensitive`] or [`Client::set_bot_time_sensitive`], depending on the target.
pub fn set_time_sensitive(
    client: &Client,
    target: Target,
    user_ids: Vec<String>,
    time_sensitive: bool,
) -> SetTimeSensitive {
    client.call(target, user_ids, time_sensitive)
}

/// Error for an argument of the wrong type, or for an unknown option.
pub fn invalid_input(field: impl Into<String>, value: impl Display, expected: impl Display) -> Error {
    Error::invalid_input(field.into(), value.to_string(), expected.to_string())
}

/// Error for an unknown key of one of many requests.
pub fn unknown_key(key: &str) -> Error {
    Error::invalid_input(
        key,
        "unknown key of a request",
        text!(
            "{feed_card_id}, {user_ids}, {time_sensitive}, {user_id_type}, {timeout}, or {tag} for any value of yours"
        ),
    )
}

/// Returns an error's texts. `spelling` converts Rust's names of options, arguments and methods.
pub fn spelled(error: &Error, spelling: fn(&str) -> String) -> Spelled {
    error.spelled(spelling)
}

/// Error for a call rejected before the core's checks. All user ids are `not_attempted`.
pub fn not_attempted(error: Error, user_ids: Vec<String>) -> Error {
    error.with_users(UserIds::not_attempted(input::without_repeats(user_ids)))
}

/// Error for a call for which the system refused a thread or a file descriptor, before anything was sent.
pub fn out_of_resources(error: io::Error, user_ids: Vec<String>) -> Error {
    not_attempted(
        no_answer::out_of_resources(error).with_station(Station::Connect),
        user_ids,
    )
}

/// Error for a call made after the client was closed.
pub fn client_closed(user_ids: Vec<String>) -> Error {
    not_attempted(closing::client_closed(), user_ids)
}

/// Returns a handle that closes the client. It holds neither the client's connections nor its secrets.
pub fn closing(client: &Client) -> Closing {
    client.core.closing.clone()
}

/// Formats a value as errors show it.
pub fn shown(value: &str) -> String {
    input::shown(value)
}

/// Converts a number of seconds. An error names `field` if the number is not positive and finite.
pub fn seconds(field: &'static str, value: f64) -> Result<Duration, Error> {
    input::seconds(field, value)
}

/// Like [`seconds`], but accepts 0.
pub fn seconds_or_zero(field: &'static str, value: f64) -> Result<Duration, Error> {
    if value == 0.0 {
        return Ok(Duration::ZERO);
    }
    input::seconds(field, value)
        .map_err(|_| invalid_input(field, value.to_string(), "0 or a positive, finite number"))
}

/// Returns the client's base URL, for its `repr`.
pub fn base_url(client: &Client) -> &str {
    client.core.base_url.as_str()
}

/// Returns an unused quota with the same limit. A forked child needs one, because a thread that exists only in the
/// parent may hold the locks of the old quota.
pub fn fresh_quota(limit: RateLimit) -> QuotaHandle {
    QuotaHandle::new(limit)
}

/// Reads an answer as a call does. For `cargo fuzz`, which can use only public items.
#[cfg(fuzzing)]
pub fn fuzz_answer(status: u16, headers: &[(u8, Vec<u8>)], body: Vec<u8>) {
    const NAMES: [&str; 5] = [
        "x-tt-logid",
        "x-request-id",
        "x-ogw-ratelimit-reset",
        "x-ogw-ratelimit-limit",
        "retry-after",
    ];
    let mut response = http::Response::builder().status(100 + status % 900);
    for (name, value) in headers {
        response = response.header(NAMES[usize::from(*name) % NAMES.len()], &value[..]);
    }
    let Ok(response) = response.body(bytes::Bytes::from(body)) else {
        return;
    };
    if let crate::platform::answer::Reading::Failure(failure) =
        crate::platform::answer::read::<crate::platform::answer::CallData>(&response, &|_| {})
    {
        assert!(!failure.error.to_string().is_empty());
    }
}
